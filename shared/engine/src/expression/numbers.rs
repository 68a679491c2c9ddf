//! Arithmetic: integers of 128 bits and floats, as Jinja counts. What doesn't fit is refused, never rounded or wrapped.

use std::cmp::Ordering;

use super::data::{Data, Repr};
use super::meter::Fault;

/// A number on its way through an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    /// The number that a value is; `true` counts as 1, as in Jinja.
    pub(super) fn of(value: &Data) -> Option<Self> {
        match value.repr() {
            Repr::Bool(value) => Some(Number::Int(i128::from(*value))),
            _ => Self::strictly_of(value),
        }
    }

    /// The number that a value is, `true` and `false` being none.
    pub(super) fn strictly_of(value: &Data) -> Option<Self> {
        match value.repr() {
            Repr::Int(integer) => Some(Number::Int(i128::from(*integer))),
            Repr::Wide(integer) => Some(Number::Int(**integer)),
            Repr::Float(float) => Some(Number::Float(*float)),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "an integer that meets a float becomes one, as in JSON")]
    pub(super) fn float(self) -> f64 {
        match self {
            Number::Int(integer) => integer as f64,
            Number::Float(float) => float,
        }
    }

    /// The integer that a number is; `2.0` is one.
    #[expect(clippy::cast_possible_truncation, reason = "checked before")]
    pub(super) fn whole(self) -> Option<i128> {
        match self {
            Number::Int(integer) => Some(integer),
            Number::Float(float) if float.fract() == 0.0 && float.abs() < 1e38 => Some(float as i128),
            Number::Float(_) => None,
        }
    }

    pub(super) fn data(self) -> Result<Data, Fault> {
        match self {
            Number::Int(integer) => Ok(Data::integer(integer)),
            Number::Float(float) => {
                Data::float(float).ok_or_else(|| Fault::refused("the number is too large, or there is none"))
            }
        }
    }

    pub(super) fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Int(one), Number::Int(other)) => one.cmp(&other),
            (one, other) => one.float().partial_cmp(&other.float()).unwrap_or(Ordering::Equal),
        }
    }
}

/// An operator on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    DivideWhole,
    Remainder,
    Power,
}

impl Operator {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::DivideWhole => "//",
            Operator::Remainder => "%",
            Operator::Power => "**",
        }
    }

    pub(super) fn apply(self, left: Number, right: Number) -> Result<Data, Fault> {
        let dividing = matches!(self, Operator::Divide | Operator::DivideWhole | Operator::Remainder);
        if dividing && right.float() == 0.0 {
            return Err(Fault::refused(format!("`{}` by zero has no result", self.sign())));
        }
        let result = match (left, right) {
            (left, right) if self == Operator::Divide => Some(Number::Float(left.float() / right.float())),
            (Number::Int(left), Number::Int(right)) => self.integers(left, right),
            (left, right) => self.floats(left.float(), right.float()).map(Number::Float),
        };
        result
            .ok_or_else(|| Fault::refused(format!("the result of `{}` is too large, or there is none", self.sign())))?
            .data()
    }

    fn integers(self, left: i128, right: i128) -> Option<Number> {
        let result = match self {
            Operator::Add => left.checked_add(right)?,
            Operator::Subtract => left.checked_sub(right)?,
            Operator::Multiply => left.checked_mul(right)?,
            Operator::DivideWhole => floored(left, right)?.0,
            Operator::Remainder => floored(left, right)?.1,
            Operator::Power if right < 0 => {
                return self.floats(Number::Int(left).float(), Number::Int(right).float()).map(Number::Float);
            }
            Operator::Power => left.checked_pow(u32::try_from(right).ok()?)?,
            Operator::Divide => return None,
        };
        Some(Number::Int(result))
    }

    fn floats(self, left: f64, right: f64) -> Option<f64> {
        match self {
            Operator::Add => Some(left + right),
            Operator::Subtract => Some(left - right),
            Operator::Multiply => Some(left * right),
            Operator::Divide => Some(left / right),
            Operator::DivideWhole => {
                let remainder = floored_remainder(left, right);
                Some(((left - remainder) / right).round())
            }
            Operator::Remainder => Some(floored_remainder(left, right)),
            Operator::Power if left == 0.0 && right < 0.0 => None,
            Operator::Power => Some(left.powf(right)),
        }
    }
}

/// Quotient and remainder, rounded towards minus infinity.
fn floored(left: i128, right: i128) -> Option<(i128, i128)> {
    let (quotient, remainder) = (left.checked_div(right)?, left.checked_rem(right)?);
    if remainder != 0 && (remainder < 0) != (right < 0) {
        Some((quotient.checked_sub(1)?, remainder.checked_add(right)?))
    } else {
        Some((quotient, remainder))
    }
}

fn floored_remainder(left: f64, right: f64) -> f64 {
    let remainder = left % right;
    if remainder != 0.0 && (remainder < 0.0) != (right < 0.0) { remainder + right } else { remainder }
}

/// Orders two values: numbers with numbers, texts with texts.
pub(super) fn compare(left: &Data, right: &Data) -> Result<Ordering, Fault> {
    if let (Some(left), Some(right)) = (Number::strictly_of(left), Number::strictly_of(right)) {
        return Ok(left.compare(right));
    }
    match (left.as_text(), right.as_text()) {
        (Some(left), Some(right)) => Ok(left.cmp(right)),
        _ => Err(Fault::refused(format!(
            "{} and {} have no order; compare numbers with numbers and texts with texts, for example with `| float`",
            left.kind(),
            right.kind()
        ))),
    }
}
