//! Filters on numbers.

use super::{Arguments, text, unsuitable};
use crate::expression::data::{Data, Repr};
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, Meter};
use crate::expression::numbers::Number;
use crate::expression::template::clip;

/// The most digits behind the point; a float has no more to show.
const MAX_DIGITS: i64 = 30;

fn number_of(value: &Data) -> Result<Number, Fault> {
    Number::strictly_of(value).ok_or_else(|| unsuitable("a number", value))
}

pub(super) fn abs(value: &Data, _: &Arguments, _: &mut Meter) -> Result<Outcome, Fault> {
    let number = match number_of(value)? {
        Number::Int(integer) => {
            Number::Int(integer.checked_abs().ok_or_else(|| Fault::refused("the number is too large"))?)
        }
        Number::Float(float) => Number::Float(float.abs()),
    };
    Ok(number.data()?.into())
}

pub(super) fn floor(value: &Data, _: &Arguments, _: &mut Meter) -> Result<Outcome, Fault> {
    whole(number_of(value)?, f64::floor)
}

pub(super) fn ceil(value: &Data, _: &Arguments, _: &mut Meter) -> Result<Outcome, Fault> {
    whole(number_of(value)?, f64::ceil)
}

fn whole(number: Number, round: fn(f64) -> f64) -> Result<Outcome, Fault> {
    let rounded = match number {
        Number::Int(_) => number,
        Number::Float(float) => Number::Float(round(float)),
    };
    let integer = rounded.whole().ok_or_else(|| Fault::refused("the number is too large to be an integer"))?;
    Ok(Data::integer(integer).into())
}

pub(super) fn int(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let parsed = match value.repr() {
        Repr::Text(_) => {
            let text = text(value, meter)?.trim();
            text.parse().map(Number::Int).or_else(|_| text.parse().map(Number::Float)).ok()
        }
        _ => Number::of(value),
    };
    let truncated = match parsed {
        Some(Number::Float(float)) => Number::Float(float.trunc()).whole(),
        Some(Number::Int(integer)) => Some(integer),
        None => None,
    };
    converted(value, truncated.map(Data::integer), "an integer", arguments)
}

pub(super) fn float(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let parsed = match value.repr() {
        Repr::Text(_) => text(value, meter)?.trim().parse().ok(),
        _ => Number::of(value).map(Number::float),
    };
    converted(value, parsed.and_then(Data::float), "a number", arguments)
}

fn converted(value: &Data, number: Option<Data>, kind: &str, arguments: &Arguments) -> Result<Outcome, Fault> {
    match (number, arguments.get("default")) {
        (Some(number), _) => Ok(number.into()),
        (None, Some(default)) => Ok(default.clone().into()),
        (None, None) => Err(match value.as_text() {
            Some(text) => Fault::refused(format!("{:?} is not {kind}", clip(text, 40))),
            None => unsuitable(kind, value),
        }),
    }
}

/// Reads a number as people write it: `1.234,50` with `decimal=","`.
pub(super) fn number(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    if Number::strictly_of(value).is_some() {
        return Ok(value.clone().into());
    }
    let decimal = arguments.text("decimal")?.unwrap_or(".");
    if decimal != "." && decimal != "," {
        return Err(Fault::refused("`decimal` is \".\" or \",\""));
    }
    let text = text(value, meter)?;
    let refused = || Fault::refused(format!("{:?} is not a number", clip(text, 40)));
    if text.len() > 100 {
        return Err(refused());
    }
    let (integral, fraction) = text.trim().split_once(decimal).unwrap_or((text.trim(), ""));
    let mut plain: String = integral
        .chars()
        .filter(|character| !matches!(character, '.' | ',' | ' ' | '\u{a0}' | '\u{202f}' | '\''))
        .collect();
    if !fraction.is_empty() {
        plain.push('.');
        plain.push_str(fraction);
    }
    let parsed = plain.parse().map(Number::Int).or_else(|_| plain.parse().map(Number::Float));
    Ok(parsed.map_err(|_| refused())?.data()?.into())
}

pub(super) fn round(value: &Data, arguments: &Arguments, _: &mut Meter) -> Result<Outcome, Fault> {
    let precision = arguments.integer("precision")?.unwrap_or(0);
    let method = arguments.text("method")?.unwrap_or("common");
    if !matches!(method, "common" | "ceil" | "floor") {
        return Err(Fault::refused("`method` is \"common\", \"ceil\" or \"floor\""));
    }
    let number = number_of(value)?;
    if precision >= 0 && matches!(number, Number::Int(_)) {
        return Ok(value.clone().into());
    }
    if !(-MAX_DIGITS..=MAX_DIGITS).contains(&precision) {
        return Err(Fault::refused(format!("`precision` is -{MAX_DIGITS} to {MAX_DIGITS}")));
    }
    let digits = usize::try_from(precision.unsigned_abs()).unwrap_or(0);
    let rounded = match (number, method) {
        (Number::Float(float), "common") if precision >= 0 => {
            // Written out and read again, as Python does: scaling first would round 2.675 the wrong way.
            Number::Float(format!("{float:.digits$}").parse().unwrap_or(float))
        }
        (Number::Float(float), _) => {
            let scale = 10_f64.powi(i32::try_from(precision).unwrap_or(0));
            let scaled = float * scale;
            let scaled = match method {
                "ceil" => scaled.ceil(),
                "floor" => scaled.floor(),
                _ => scaled.round_ties_even(),
            };
            Number::Float(scaled / scale)
        }
        (Number::Int(integer), _) => {
            let unit = 10_i128.pow(u32::try_from(digits).unwrap_or(0));
            let below = integer.div_euclid(unit) * unit;
            let rest = integer - below;
            let up = match method {
                "ceil" => rest > 0,
                "floor" => false,
                _ => rest * 2 > unit || (rest * 2 == unit && integer.div_euclid(unit) % 2 != 0),
            };
            let above = if up { below.checked_add(unit) } else { Some(below) };
            Number::Int(above.ok_or_else(|| Fault::refused("the number is too large"))?)
        }
    };
    Ok(rounded.data()?.into())
}

pub(super) fn format_number(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let number = number_of(value)?;
    let digits = arguments.integer("digits")?.unwrap_or(2);
    let decimal = arguments.text("decimal")?.unwrap_or(".");
    let thousands = arguments.text("thousands")?.unwrap_or("");
    if !(0..=MAX_DIGITS).contains(&digits) || decimal.len() > 8 || thousands.len() > 8 {
        return Err(Fault::refused(format!(
            "`digits` is 0 to {MAX_DIGITS}, and `decimal` and `thousands` are at most 8 bytes"
        )));
    }
    let digits = usize::try_from(digits).unwrap_or(0);
    let plain = match number {
        Number::Int(integer) if digits == 0 => integer.to_string(),
        Number::Int(integer) => format!("{integer}.{:0digits$}", 0),
        Number::Float(float) => format!("{float:.digits$}"),
    };
    let (integral, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let (sign, integral) = integral.strip_prefix('-').map_or(("", integral), |integral| ("-", integral));
    let mut written = sign.to_owned();
    for (index, digit) in integral.chars().enumerate() {
        if index > 0 && (integral.len() - index) % 3 == 0 {
            written.push_str(thousands);
        }
        written.push(digit);
    }
    if !fraction.is_empty() {
        written.push_str(decimal);
        written.push_str(fraction);
    }
    Ok(meter.text(written)?.into())
}
