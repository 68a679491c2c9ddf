//! Evaluates the tree of an expression. Every operation first asks the [`Meter`], so that whatever is written ends
//! soon and builds little.

use std::cmp::Ordering;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};

use super::Scope;
use super::data::{Data, Repr};
use super::filters::{self, Arguments, Filter};
use super::meter::{Fault, List, Meter, Object, Text};
use super::numbers::{self, Number, Operator};
use super::syntax::{constant, written};

/// Tests that take nothing: `x is defined`.
pub(super) const TESTS: [&str; 11] =
    ["defined", "undefined", "none", "boolean", "number", "integer", "float", "string", "sequence", "mapping", "empty"];
/// Tests that take a value: `x is equalto(1)`. `selectattr` knows them too.
pub(super) const VALUE_TESTS: [&str; 10] =
    ["equalto", "eq", "ne", "gt", "ge", "lt", "le", "in", "startingwith", "endingwith"];

/// What evaluating a node takes.
const NODE_WORK: usize = 64;

/// What a part of an expression comes to.
pub(super) enum Outcome {
    Value(Data),
    /// What is not there.
    Missing(String),
}

impl Outcome {
    pub(super) fn needed(self) -> Result<Data, Fault> {
        match self {
            Outcome::Value(value) => Ok(value),
            Outcome::Missing(what) => Err(Fault::Missing(what)),
        }
    }
}

impl From<Data> for Outcome {
    fn from(value: Data) -> Self {
        Outcome::Value(value)
    }
}

/// Evaluates one expression.
pub(super) struct Evaluation<'s, 'm> {
    pub(super) scope: &'s Scope,
    pub(super) meter: &'m mut Meter,
}

impl Evaluation<'_, '_> {
    pub(super) fn outcome(&mut self, expression: &Expr<'_>) -> Result<Outcome, Fault> {
        self.meter.work(NODE_WORK)?;
        match expression {
            Expr::Var(name) => Ok(match self.scope.get(name.id) {
                Some(value) => Outcome::Value(value),
                None => Outcome::Missing(format!("`{}`", name.id)),
            }),
            Expr::GetAttr(access) => {
                let parent = self.value(&access.expr)?;
                Ok(match parent.member(access.name) {
                    Some(value) => Outcome::Value(value),
                    None => missing(expression),
                })
            }
            Expr::GetItem(access) => self.item(expression, &access.expr, &access.subscript_expr),
            Expr::IfExpr(choice) => {
                let chosen = self.value(&choice.test_expr)?.is_true();
                match (chosen, &choice.false_expr) {
                    (true, _) => self.outcome(&choice.true_expr),
                    (false, Some(other)) => self.outcome(other),
                    (false, None) => {
                        Ok(Outcome::Missing("a value for when the `if` without `else` is false".to_owned()))
                    }
                }
            }
            Expr::Filter(used) => match &used.expr {
                Some(value) => self.filter(used.name, value, &used.args),
                None => Err(Fault::refused("a filter has no value to work on")),
            },
            Expr::Call(call) => match (&call.expr, call.args.split_first()) {
                (Expr::Var(function), Some((CallArg::Pos(value), arguments))) => {
                    self.filter(function.id, value, arguments)
                }
                _ => Err(Fault::refused("only functions can be called")),
            },
            _ => self.built(expression).map(Outcome::Value),
        }
    }

    /// The value of an expression that has to have one.
    pub(super) fn value(&mut self, expression: &Expr<'_>) -> Result<Data, Fault> {
        self.outcome(expression)?.needed()
    }

    #[inline(never)]
    fn built(&mut self, expression: &Expr<'_>) -> Result<Data, Fault> {
        match expression {
            Expr::Const(_) => match constant(expression) {
                Some(value) => {
                    self.meter.work(value.size().bytes)?;
                    Ok(value)
                }
                None => Err(Fault::refused("a number is too large")),
            },
            Expr::UnaryOp(operation) => {
                let value = self.outcome(&operation.expr)?.needed()?;
                match operation.op {
                    UnaryOpKind::Not => Ok(Data::from(!value.is_true())),
                    UnaryOpKind::Neg => match Number::strictly_of(&value) {
                        Some(number) => Operator::Subtract.apply(Number::Int(0), number),
                        None => Err(Fault::refused(format!("`-` needs a number, not {}", value.kind()))),
                    },
                }
            }
            Expr::BinOp(operation) => self.binary(operation.op, &operation.left, &operation.right),
            Expr::Compare(chain) => {
                let mut left = self.value(&chain.expr)?;
                for step in &chain.ops {
                    let right = self.value(&step.expr)?;
                    if !self.compared(step.op, &left, &right)? {
                        return Ok(Data::from(false));
                    }
                    left = right;
                }
                Ok(Data::from(true))
            }
            Expr::Test(test) => {
                let value = self.outcome(&test.expr)?;
                let against = match test.args.first() {
                    Some(CallArg::Pos(argument)) => Some(self.value(argument)?),
                    _ => None,
                };
                tested(test.name, value, against.as_ref(), self.meter).map(Data::from)
            }
            Expr::List(list) => self.list(&list.items),
            Expr::Tuple(tuple) => self.list(&tuple.items),
            Expr::Map(map) => {
                let mut object = Object::new(self.meter)?;
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let key = self.value(key)?;
                    let value = self.value(value)?;
                    let Repr::Text(name) = key.repr() else {
                        return Err(Fault::refused(format!("an object's names are texts, not {}", key.kind())));
                    };
                    object.insert(self.meter, name.clone(), value)?;
                }
                Ok(object.finish())
            }
            Expr::Slice(slice) => {
                let value = self.value(&slice.expr)?;
                let mut bound = |bound: &Option<Expr<'_>>| match bound {
                    Some(bound) => self.value(bound).map(|value| (!value.is_null()).then_some(value)),
                    None => Ok(None),
                };
                let bounds = (bound(&slice.start)?, bound(&slice.stop)?, bound(&slice.step)?);
                let whole = |value: Option<Data>| match value {
                    Some(value) => match Number::strictly_of(&value).and_then(Number::whole) {
                        Some(index) => Ok(Some(index)),
                        None => Err(Fault::refused(format!("a slice's bounds are integers, not {}", value.kind()))),
                    },
                    None => Ok(None),
                };
                sliced(&value, whole(bounds.0)?, whole(bounds.1)?, whole(bounds.2)?, self.meter)
            }
            _ => Err(Fault::refused("it is of no known form")),
        }
    }

    fn list(&mut self, items: &[Expr<'_>]) -> Result<Data, Fault> {
        let mut list = List::new(self.meter)?;
        for item in items {
            let item = self.value(item)?;
            list.push(self.meter, item)?;
        }
        Ok(list.finish())
    }

    fn item(&mut self, whole: &Expr<'_>, parent: &Expr<'_>, key: &Expr<'_>) -> Result<Outcome, Fault> {
        let parent = self.value(parent)?;
        let key = self.value(key)?;
        let found = match (key.as_text(), Number::strictly_of(&key).and_then(Number::whole)) {
            (Some(name), _) => parent.member(name),
            (None, Some(index)) => self.at(&parent, index)?,
            (None, None) => return Err(Fault::refused(format!("{} is neither a name nor an index", key.kind()))),
        };
        Ok(found.map_or_else(|| missing(whole), Outcome::Value))
    }

    fn at(&mut self, parent: &Data, index: i128) -> Result<Option<Data>, Fault> {
        if let Some(text) = parent.as_text() {
            self.meter.work(text.len())?;
            let character = match usize::try_from(index) {
                Ok(index) => text.chars().nth(index),
                Err(_) => usize::try_from(-1 - index).ok().and_then(|index| text.chars().nth_back(index)),
            };
            return Ok(character.map(|character| Data::text(character.to_string())));
        }
        Ok(parent.as_list().and_then(|items| nth(items, index)).cloned())
    }

    fn filter(&mut self, name: &str, value: &Expr<'_>, given: &[CallArg<'_>]) -> Result<Outcome, Fault> {
        let filter = filters::find(name).ok_or_else(|| Fault::refused(format!("there is no filter `{name}`")))?;
        let value = self.outcome(value)?;
        let arguments = self.arguments(filter, given)?;
        if filter.name == "default" {
            return filters::default(value, &arguments);
        }
        (filter.run)(&value.needed()?, &arguments, self.meter).map_err(|fault| match fault {
            Fault::Refused(reason) => Fault::Refused(format!("`{name}`: {reason}")),
            missing @ Fault::Missing(_) => missing,
        })
    }

    fn arguments(&mut self, filter: &'static Filter, given: &[CallArg<'_>]) -> Result<Arguments, Fault> {
        let mut arguments = Arguments::new(filter);
        for (position, argument) in given.iter().enumerate() {
            match argument {
                CallArg::Pos(value) => arguments.set(position, self.value(value)?),
                CallArg::Kwarg(parameter, value) => {
                    let position = filter.parameters.iter().position(|known| known == parameter);
                    arguments.set(position.unwrap_or(usize::MAX), self.value(value)?);
                }
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return Err(Fault::refused("`*` can't be used on arguments"));
                }
            }
        }
        Ok(arguments)
    }

    fn binary(&mut self, kind: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) -> Result<Data, Fault> {
        let left = self.value(left)?;
        match kind {
            BinOpKind::ScAnd if !left.is_true() => return Ok(left),
            BinOpKind::ScOr if left.is_true() => return Ok(left),
            _ => {}
        }
        let right = self.value(right)?;
        let operator = match kind {
            BinOpKind::ScAnd | BinOpKind::ScOr => return Ok(right),
            BinOpKind::Concat => return joined(&left, &right, self.meter),
            BinOpKind::Eq => return self.compared(CompareOpKind::Eq, &left, &right).map(Data::from),
            BinOpKind::Ne => return self.compared(CompareOpKind::Ne, &left, &right).map(Data::from),
            BinOpKind::Lt => return self.compared(CompareOpKind::Lt, &left, &right).map(Data::from),
            BinOpKind::Lte => return self.compared(CompareOpKind::Lte, &left, &right).map(Data::from),
            BinOpKind::Gt => return self.compared(CompareOpKind::Gt, &left, &right).map(Data::from),
            BinOpKind::Gte => return self.compared(CompareOpKind::Gte, &left, &right).map(Data::from),
            BinOpKind::In => return self.compared(CompareOpKind::In, &left, &right).map(Data::from),
            BinOpKind::Add => Operator::Add,
            BinOpKind::Sub => Operator::Subtract,
            BinOpKind::Mul => Operator::Multiply,
            BinOpKind::Div => Operator::Divide,
            BinOpKind::FloorDiv => Operator::DivideWhole,
            BinOpKind::Rem => Operator::Remainder,
            BinOpKind::Pow => Operator::Power,
        };
        calculated(operator, &left, &right, self.meter)
    }

    fn compared(&mut self, kind: CompareOpKind, left: &Data, right: &Data) -> Result<bool, Fault> {
        let test = match kind {
            CompareOpKind::Eq => "eq",
            CompareOpKind::Ne => "ne",
            CompareOpKind::Lt => "lt",
            CompareOpKind::Lte => "le",
            CompareOpKind::Gt => "gt",
            CompareOpKind::Gte => "ge",
            CompareOpKind::In => "in",
            CompareOpKind::NotIn => return holds(right, left, self.meter).map(|holds| !holds),
        };
        relates(test, left, right, self.meter)
    }
}

fn missing(expression: &Expr<'_>) -> Outcome {
    Outcome::Missing(written(expression).map_or_else(|| "a part of it".to_owned(), |path| format!("`{path}`")))
}

/// An item of a list, counted from its end where the index is negative.
pub(super) fn nth(items: &[Data], index: i128) -> Option<&Data> {
    let index = if index < 0 { index + i128::try_from(items.len()).ok()? } else { index };
    items.get(usize::try_from(index).ok()?)
}

fn calculated(operator: Operator, left: &Data, right: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    if let (Some(left), Some(right)) = (Number::of(left), Number::of(right)) {
        return operator.apply(left, right);
    }
    if operator == Operator::Add {
        if let (Some(_), Some(_)) = (left.as_text(), right.as_text()) {
            return joined(left, right, meter);
        }
        if let (Some(left), Some(right)) = (left.as_list(), right.as_list()) {
            return meter_list(left.iter().chain(right), meter);
        }
    }
    let hint = match operator {
        Operator::Add => "; join texts with `~`",
        Operator::Multiply => "; texts and lists can't be repeated",
        _ => "",
    };
    let (left, right, sign) = (left.kind(), right.kind(), operator.sign());
    Err(Fault::refused(format!("`{sign}` needs numbers, not {left} and {right}{hint}")))
}

fn meter_list<'a>(items: impl Iterator<Item = &'a Data>, meter: &mut Meter) -> Result<Data, Fault> {
    let mut list = List::new(meter)?;
    for item in items {
        list.push(meter, item.clone())?;
    }
    Ok(list.finish())
}

fn joined(left: &Data, right: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    let mut text = Text::default();
    filters::write(left, &mut text, meter)?;
    filters::write(right, &mut text, meter)?;
    text.finish(meter)
}

/// Whether two values stand to each other as a test says.
pub(super) fn relates(test: &str, left: &Data, right: &Data, meter: &mut Meter) -> Result<bool, Fault> {
    if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
        meter.work(left.len().min(right.len()))?;
    }
    match test {
        "equalto" | "eq" => left.equals(right, meter),
        "ne" => left.equals(right, meter).map(|equal| !equal),
        "lt" => numbers::compare(left, right).map(Ordering::is_lt),
        "le" => numbers::compare(left, right).map(Ordering::is_le),
        "gt" => numbers::compare(left, right).map(Ordering::is_gt),
        "ge" => numbers::compare(left, right).map(Ordering::is_ge),
        "in" => holds(right, left, meter),
        "startingwith" | "endingwith" => match (left.as_text(), right.as_text()) {
            (Some(text), Some(end)) if test == "startingwith" => Ok(text.starts_with(end)),
            (Some(text), Some(end)) => Ok(text.ends_with(end)),
            _ => Err(Fault::refused(format!("`{test}` needs two texts, not {} and {}", left.kind(), right.kind()))),
        },
        _ => Err(Fault::refused(format!("there is no test `{test}`"))),
    }
}

/// Whether a value is as a test says.
pub(super) fn tested(test: &str, value: Outcome, against: Option<&Data>, meter: &mut Meter) -> Result<bool, Fault> {
    match test {
        "defined" => return Ok(matches!(value, Outcome::Value(_))),
        "undefined" => return Ok(matches!(value, Outcome::Missing(_))),
        _ => {}
    }
    let value = value.needed()?;
    if let Some(against) = against {
        return relates(test, &value, against, meter);
    }
    match (test, value.repr()) {
        ("none", Repr::Null)
        | ("boolean", Repr::Bool(_))
        | ("number", Repr::Int(_) | Repr::Wide(_) | Repr::Float(_))
        | ("integer", Repr::Int(_) | Repr::Wide(_))
        | ("float", Repr::Float(_))
        | ("string", Repr::Text(_))
        | ("sequence", Repr::List(_))
        | ("mapping", Repr::Object(_) | Repr::Lazy(_)) => Ok(true),
        ("empty", Repr::Null) => Ok(true),
        ("empty", Repr::Text(_) | Repr::List(_) | Repr::Object(_) | Repr::Lazy(_)) => Ok(!value.is_true()),
        _ if TESTS.contains(&test) => Ok(false),
        _ => Err(Fault::refused(format!("there is no test `{test}`"))),
    }
}

fn holds(container: &Data, value: &Data, meter: &mut Meter) -> Result<bool, Fault> {
    match container.repr() {
        Repr::Text(text) => match value.as_text() {
            Some(part) => {
                meter.work(text.len() + part.len())?;
                Ok(text.contains(part))
            }
            None => Err(Fault::refused(format!("a text holds texts, not {}", value.kind()))),
        },
        Repr::List(_) => {
            for item in container.as_list().unwrap_or_default() {
                if item.equals(value, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Repr::Object(_) | Repr::Lazy(_) => Ok(value.as_text().is_some_and(|name| container.member(name).is_some())),
        _ => Err(Fault::refused(format!("nothing is `in` {}", container.kind()))),
    }
}

/// A part of a text or list, as Python slices.
pub(super) fn sliced(
    value: &Data,
    start: Option<i128>,
    stop: Option<i128>,
    step: Option<i128>,
    meter: &mut Meter,
) -> Result<Data, Fault> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::refused("a slice's step can't be 0"));
    }
    if let Some(text) = value.as_text() {
        meter.work(text.len())?;
        // Of each character only where it starts: four bytes instead of a whole one a character.
        meter.take(text.len() * size_of::<u32>())?;
        let starts: Vec<u32> = text.char_indices().filter_map(|(at, _)| u32::try_from(at).ok()).collect();
        let mut part = Text::default();
        for index in indices(starts.len(), start, stop, step) {
            if let Some(character) = text[starts[index] as usize..].chars().next() {
                part.push_char(character)?;
            }
        }
        return part.finish(meter);
    }
    let Some(items) = value.as_list() else {
        return Err(Fault::refused(format!("only texts and lists can be sliced, not {}", value.kind())));
    };
    meter_list(indices(items.len(), start, stop, step).map(|index| &items[index]), meter)
}

/// The indices of a slice, all of them in bounds.
fn indices(length: usize, start: Option<i128>, stop: Option<i128>, step: i128) -> impl Iterator<Item = usize> {
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    let (least, most) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let within = |bound: i128| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(least, most);
    let start = start.map_or(if step > 0 { least } else { most }, within);
    let stop = stop.map_or(if step > 0 { most } else { least }, within);
    let mut next = Some(start);
    std::iter::from_fn(move || {
        let index = next.filter(|index| if step > 0 { *index < stop } else { *index > stop })?;
        next = index.checked_add(step);
        usize::try_from(index).ok()
    })
}
