//! JMESPath. The parser is the `jmespath` crate's; its interpreter bounds nothing (`[@, @]` piped forty times is a
//! value of a billion parts), so queries are evaluated here, on the same [`Meter`] as expressions.

use std::cmp::Ordering;

use jmespath::Variable;
use jmespath::ast::{Ast, Comparator};

use super::MAX_EXPRESSION_BYTES;
use super::data::{Data, Repr};
use super::evaluate::{nth, sliced};
use super::filters;
use super::meter::{Fault, List, Meter, Object, Text};
use super::numbers::{self, Number, Operator};

/// How many operators, dots and brackets a query may hold: it bounds how deep its tree is.
const MAX_OPERATORS: usize = 250;
/// What evaluating a node takes.
const NODE_WORK: usize = 48;

/// The functions of the specification, with how many arguments they take.
const FUNCTIONS: [(&str, usize, usize); 26] = [
    ("abs", 1, 1),
    ("avg", 1, 1),
    ("ceil", 1, 1),
    ("contains", 2, 2),
    ("ends_with", 2, 2),
    ("floor", 1, 1),
    ("join", 2, 2),
    ("keys", 1, 1),
    ("length", 1, 1),
    ("map", 2, 2),
    ("max", 1, 1),
    ("max_by", 2, 2),
    ("merge", 1, usize::MAX),
    ("min", 1, 1),
    ("min_by", 2, 2),
    ("not_null", 1, usize::MAX),
    ("reverse", 1, 1),
    ("sort", 1, 1),
    ("sort_by", 2, 2),
    ("starts_with", 2, 2),
    ("sum", 1, 1),
    ("to_array", 1, 1),
    ("to_number", 1, 1),
    ("to_string", 1, 1),
    ("type", 1, 1),
    ("values", 1, 1),
];

/// Checks a query: its syntax, and that its functions exist and take what they are given.
pub(super) fn check(query: &str) -> Result<(), String> {
    parse(query).map(drop)
}

/// Evaluates a query on a value.
pub(super) fn search(query: &str, value: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    meter.work(16 * query.len())?;
    let ast = parse(query).map_err(Fault::Refused)?;
    evaluate(&ast, value, meter)
}

fn parse(query: &str) -> Result<Ast, String> {
    if query.len() > MAX_EXPRESSION_BYTES {
        return Err(format!("a query may have at most {MAX_EXPRESSION_BYTES} bytes"));
    }
    if operators(query) > MAX_OPERATORS {
        return Err(format!("a query may hold at most {MAX_OPERATORS} operators, dots and brackets; split it"));
    }
    let ast = jmespath::parse(query).map_err(|error| {
        let text = error.to_string();
        let reason = text.split('\n').next().unwrap_or_default().to_owned();
        format!("the query can't be used: {reason}")
    })?;
    check_functions(&ast, false)?;
    Ok(ast)
}

/// Counts what can make the tree deeper, outside of quotes.
fn operators(query: &str) -> usize {
    let mut count = 0;
    let mut quote = None;
    let mut escaped = false;
    for byte in query.bytes() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') => quote = Some(byte),
            (None, b'.' | b'[' | b'{' | b'(' | b'*' | b'|' | b'&' | b'!' | b'<' | b'>' | b'=') => count += 1,
            (None, _) => {}
        }
    }
    count
}

fn check_functions(ast: &Ast, argument: bool) -> Result<(), String> {
    let parts: Vec<&Ast> = match ast {
        Ast::Function { name, args, .. } => {
            let Some((_, least, most)) = FUNCTIONS.iter().find(|(known, ..)| known == name) else {
                let names: Vec<_> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
                return Err(format!("JMESPath has no function `{name}`; it has {}", names.join(", ")));
            };
            if args.len() < *least || args.len() > *most {
                return Err(format!("`{name}` takes {least} arguments, not {}", args.len()));
            }
            return args.iter().try_for_each(|ast| check_functions(ast, true));
        }
        Ast::Expref { .. } if !argument => {
            return Err("`&` stands before the argument of a function only".to_owned());
        }
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => vec![lhs, rhs],
        Ast::Condition { predicate, then, .. } => vec![predicate, then],
        Ast::Expref { ast, .. } => vec![ast],
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => vec![node],
        Ast::MultiList { elements, .. } => elements.iter().collect(),
        Ast::MultiHash { elements, .. } => elements.iter().map(|element| &element.value).collect(),
        Ast::Slice { step: 0, .. } => return Err("a slice's step can't be 0".to_owned()),
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => {
            Vec::new()
        }
    };
    parts.into_iter().try_for_each(|ast| check_functions(ast, false))
}

fn evaluate(ast: &Ast, value: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    meter.work(NODE_WORK)?;
    match ast {
        Ast::Identity { .. } => Ok(value.clone()),
        Ast::Field { name, .. } => Ok(value.member(name).unwrap_or(Data::NULL)),
        Ast::Index { idx, .. } => {
            let item = value.as_list().and_then(|items| nth(items, i128::from(*idx)));
            Ok(item.cloned().unwrap_or(Data::NULL))
        }
        Ast::Literal { value, .. } => literal(value, meter),
        Ast::Subexpr { lhs, rhs, .. } => {
            let value = evaluate(lhs, value, meter)?;
            evaluate(rhs, &value, meter)
        }
        Ast::And { lhs, rhs, .. } => {
            let left = evaluate(lhs, value, meter)?;
            if is_true(&left) { evaluate(rhs, value, meter) } else { Ok(left) }
        }
        Ast::Or { lhs, rhs, .. } => {
            let left = evaluate(lhs, value, meter)?;
            if is_true(&left) { Ok(left) } else { evaluate(rhs, value, meter) }
        }
        Ast::Not { node, .. } => Ok(Data::from(!is_true(&evaluate(node, value, meter)?))),
        Ast::Condition { predicate, then, .. } => {
            if is_true(&evaluate(predicate, value, meter)?) {
                evaluate(then, value, meter)
            } else {
                Ok(Data::NULL)
            }
        }
        _ => evaluate_built(ast, value, meter),
    }
}

#[inline(never)]
fn evaluate_built(ast: &Ast, value: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    match ast {
        Ast::Comparison { comparator, lhs, rhs, .. } => {
            let (left, right) = (evaluate(lhs, value, meter)?, evaluate(rhs, value, meter)?);
            compared(comparator, &left, &right, meter)
        }
        Ast::ObjectValues { node, .. } => {
            let object = evaluate(node, value, meter)?.settle(meter)?;
            match object.as_fields() {
                Some(fields) => meter.list(fields.values().cloned().map(Ok)),
                None => Ok(Data::NULL),
            }
        }
        Ast::Projection { lhs, rhs, .. } => {
            let projected = evaluate(lhs, value, meter)?;
            let Some(items) = projected.as_list() else { return Ok(Data::NULL) };
            let mut list = List::new(meter)?;
            for item in items {
                let found = evaluate(rhs, item, meter)?;
                if !found.is_null() {
                    list.push(meter, found)?;
                }
            }
            Ok(list.finish())
        }
        Ast::Flatten { node, .. } => {
            let nested = evaluate(node, value, meter)?;
            let Some(items) = nested.as_list() else { return Ok(Data::NULL) };
            let mut list = List::new(meter)?;
            for item in items {
                match item.as_list() {
                    Some(inner) => {
                        for item in inner {
                            list.push(meter, item.clone())?;
                        }
                    }
                    None => list.push(meter, item.clone())?,
                }
            }
            Ok(list.finish())
        }
        Ast::MultiList { .. } | Ast::MultiHash { .. } if value.is_null() => Ok(Data::NULL),
        Ast::MultiList { elements, .. } => {
            let mut list = List::new(meter)?;
            for element in elements {
                let item = evaluate(element, value, meter)?;
                list.push(meter, item)?;
            }
            Ok(list.finish())
        }
        Ast::MultiHash { elements, .. } => {
            let mut object = Object::new(meter)?;
            for element in elements {
                let member = evaluate(&element.value, value, meter)?;
                meter.take(element.key.len())?;
                object.insert(meter, element.key.as_str().into(), member)?;
            }
            Ok(object.finish())
        }
        Ast::Slice { start, stop, step, .. } => match value.as_list() {
            Some(_) => sliced(value, start.map(i128::from), stop.map(i128::from), Some(i128::from(*step)), meter),
            None => Ok(Data::NULL),
        },
        Ast::Function { name, args, .. } => call(name, args, value, meter).map_err(|fault| match fault {
            Fault::Refused(reason) => Fault::Refused(format!("in JMESPath's `{name}`: {reason}")),
            missing @ Fault::Missing(_) => missing,
        }),
        _ => Err(Fault::refused("`&` stands before the argument of a function only")),
    }
}

fn literal(value: &Variable, meter: &mut Meter) -> Result<Data, Fault> {
    meter.work(NODE_WORK)?;
    match value {
        Variable::Null | Variable::Expref(_) => Ok(Data::NULL),
        Variable::Bool(value) => Ok(Data::from(*value)),
        Variable::Number(number) => Ok(Data::from(&serde_json::Value::Number(number.clone()))),
        Variable::String(text) => meter.text(text.as_str()),
        Variable::Array(items) => {
            let mut list = List::new(meter)?;
            for item in items {
                let item = literal(item, meter)?;
                list.push(meter, item)?;
            }
            Ok(list.finish())
        }
        Variable::Object(fields) => {
            let mut object = Object::new(meter)?;
            for (name, value) in fields {
                let value = literal(value, meter)?;
                meter.take(name.len())?;
                object.insert(meter, name.as_str().into(), value)?;
            }
            Ok(object.finish())
        }
    }
}

/// JMESPath's truth: unlike in expressions, 0 is true.
fn is_true(value: &Data) -> bool {
    Number::strictly_of(value).is_some() || value.is_true()
}

fn compared(comparator: &Comparator, left: &Data, right: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    let wanted: fn(Ordering) -> bool = match comparator {
        Comparator::Equal => return left.equals(right, meter).map(Data::from),
        Comparator::NotEqual => return left.equals(right, meter).map(|equal| Data::from(!equal)),
        Comparator::LessThan => Ordering::is_lt,
        Comparator::LessThanEqual => Ordering::is_le,
        Comparator::GreaterThan => Ordering::is_gt,
        Comparator::GreaterThanEqual => Ordering::is_ge,
    };
    Ok(match (Number::strictly_of(left), Number::strictly_of(right)) {
        (Some(left), Some(right)) => Data::from(wanted(left.compare(right))),
        _ => Data::NULL,
    })
}

fn call(name: &str, arguments: &[Ast], value: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    match (name, arguments) {
        ("map", [each, list]) => {
            let each = reference(each)?;
            let list = evaluate(list, value, meter)?;
            let mut mapped = List::new(meter)?;
            for item in list_of(&list)? {
                let item = evaluate(each, item, meter)?;
                mapped.push(meter, item)?;
            }
            Ok(mapped.finish())
        }
        ("sort_by" | "max_by" | "min_by", [list, by]) => {
            let by = reference(by)?;
            let list = evaluate(list, value, meter)?;
            let mut keyed = Vec::new();
            for item in list_of(&list)? {
                meter.take(2 * size_of::<Data>())?;
                keyed.push((evaluate(by, item, meter)?, item.clone()));
            }
            if name == "sort_by" { sorted(keyed, meter) } else { extreme(keyed, name == "max_by", meter) }
        }
        ("not_null", _) => {
            for argument in arguments {
                let found = evaluate(argument, value, meter)?;
                if !found.is_null() {
                    return Ok(found);
                }
            }
            Ok(Data::NULL)
        }
        _ => {
            let mut values = Vec::new();
            for argument in arguments {
                if matches!(argument, Ast::Expref { .. }) {
                    return Err(Fault::refused("it takes values, not an expression behind `&`"));
                }
                values.push(evaluate(argument, value, meter)?);
            }
            call_on(name, &values, meter)
        }
    }
}

fn call_on(name: &str, arguments: &[Data], meter: &mut Meter) -> Result<Data, Fault> {
    let first = arguments.first().ok_or_else(|| Fault::refused("it takes an argument"))?;
    let second = arguments.get(1).unwrap_or(&Data::NULL);
    match name {
        "abs" => match number_of(first)? {
            Number::Int(integer) => {
                integer.checked_abs().map(Data::integer).ok_or_else(|| Fault::refused("the number is too large"))
            }
            Number::Float(float) => Number::Float(float.abs()).data(),
        },
        "ceil" | "floor" => match number_of(first)? {
            Number::Float(float) => {
                let rounded = Number::Float(if name == "ceil" { float.ceil() } else { float.floor() });
                rounded.whole().map_or_else(|| rounded.data(), |whole| Ok(Data::integer(whole)))
            }
            Number::Int(_) => Ok(first.clone()),
        },
        "sum" | "avg" => {
            let items = list_of(first)?;
            meter.work(items.len() * 8)?;
            let mut sum = Number::Int(0);
            for item in items {
                let added = Operator::Add.apply(sum, number_of(item)?)?;
                sum = number_of(&added)?;
            }
            match (name, items.len()) {
                ("avg", 0) => Ok(Data::NULL),
                ("avg", count) => {
                    let count = Number::Int(i128::try_from(count).unwrap_or(i128::MAX));
                    Operator::Divide.apply(sum, count)
                }
                _ => sum.data(),
            }
        }
        "contains" => match (first.as_list(), first.as_text()) {
            (Some(items), _) => {
                for item in items {
                    if item.equals(second, meter)? {
                        return Ok(Data::from(true));
                    }
                }
                Ok(Data::from(false))
            }
            (None, Some(text)) => {
                meter.work(text.len())?;
                Ok(Data::from(second.as_text().is_some_and(|part| text.contains(part))))
            }
            (None, None) => Err(unfit("a list or a text", first)),
        },
        "starts_with" | "ends_with" => {
            let (text, end) = (text_of(first)?, text_of(second)?);
            meter.work(end.len())?;
            Ok(Data::from(if name == "starts_with" { text.starts_with(end) } else { text.ends_with(end) }))
        }
        "join" => {
            let separator = text_of(first)?;
            let mut joined = Text::default();
            for (index, item) in list_of(second)?.iter().enumerate() {
                if index > 0 {
                    joined.push(separator)?;
                }
                joined.push(text_of(item)?)?;
            }
            joined.finish(meter)
        }
        "keys" | "values" => {
            let object = first.clone().settle(meter)?;
            let fields = object.as_fields().ok_or_else(|| unfit("an object", first))?;
            match name {
                "keys" => meter.list(fields.keys().map(|name| Ok(Data::text(name.clone())))),
                _ => meter.list(fields.values().cloned().map(Ok)),
            }
        }
        "length" => {
            let object = first.clone().settle(meter)?;
            let length = match object.repr() {
                Repr::Text(text) => {
                    meter.work(text.len())?;
                    text.chars().count()
                }
                Repr::List(_) => list_of(&object)?.len(),
                Repr::Object(_) => object.as_fields().map_or(0, |fields| fields.len()),
                _ => return Err(unfit("a text, list or object", first)),
            };
            Ok(Data::integer(i128::try_from(length).unwrap_or(i128::MAX)))
        }
        "max" | "min" | "sort" => {
            let items = list_of(first)?;
            meter.take(items.len() * 2 * size_of::<Data>())?;
            let keyed = items.iter().map(|item| (item.clone(), item.clone())).collect();
            if name == "sort" { sorted(keyed, meter) } else { extreme(keyed, name == "max", meter) }
        }
        "merge" => {
            let mut merged = Object::new(meter)?;
            for argument in arguments {
                let object = argument.clone().settle(meter)?;
                for (name, value) in object.as_fields().ok_or_else(|| unfit("objects", argument))? {
                    merged.insert(meter, name.clone(), value.clone())?;
                }
            }
            Ok(merged.finish())
        }
        "reverse" => sliced(first, None, None, Some(-1), meter),
        "to_array" if first.as_list().is_some() => Ok(first.clone()),
        "to_array" => meter.list([Ok(first.clone())]),
        "to_number" => Ok(match (Number::strictly_of(first), first.as_text()) {
            (Some(_), _) => first.clone(),
            (None, Some(text)) if text.len() < 400 => match serde_json::from_str::<serde_json::Number>(text) {
                Ok(number) => Data::from(&serde_json::Value::Number(number)),
                Err(_) => Data::NULL,
            },
            (None, _) => Data::NULL,
        }),
        "to_string" if first.as_text().is_some() => Ok(first.clone()),
        "to_string" => {
            let mut text = Text::default();
            filters::write(&first.clone().settle(meter)?, &mut text, meter)?;
            text.finish(meter)
        }
        "type" => Ok(Data::text(match first.repr() {
            Repr::Null => "null",
            Repr::Bool(_) => "boolean",
            Repr::Int(_) | Repr::Wide(_) | Repr::Float(_) => "number",
            Repr::Text(_) => "string",
            Repr::List(_) => "array",
            Repr::Object(_) | Repr::Lazy(_) => "object",
        })),
        _ => Err(Fault::refused("there is no such function")),
    }
}

fn sorted(mut keyed: Vec<(Data, Data)>, meter: &mut Meter) -> Result<Data, Fault> {
    ordered(&keyed, meter)?;
    keyed.sort_by(|(one, _), (other, _)| numbers::compare(one, other).unwrap_or(Ordering::Equal));
    meter.list(keyed.into_iter().map(|(_, item)| Ok(item)))
}

fn extreme(keyed: Vec<(Data, Data)>, greatest: bool, meter: &mut Meter) -> Result<Data, Fault> {
    ordered(&keyed, meter)?;
    let best = keyed.into_iter().reduce(|best, next| {
        let order = numbers::compare(&next.0, &best.0).unwrap_or(Ordering::Equal);
        if if greatest { order.is_gt() } else { order.is_lt() } { next } else { best }
    });
    Ok(best.map_or(Data::NULL, |(_, item)| item))
}

/// Checks that all keys are numbers or all are texts, and charges for ordering them.
fn ordered(keyed: &[(Data, Data)], meter: &mut Meter) -> Result<(), Fault> {
    let mut bytes = 0;
    let numbers = keyed.first().is_some_and(|(key, _)| Number::strictly_of(key).is_some());
    for (key, _) in keyed {
        let fits = if numbers { Number::strictly_of(key).is_some() } else { key.as_text().is_some() };
        if !fits {
            return Err(unfit("numbers only or texts only", key));
        }
        bytes += key.size().bytes + NODE_WORK;
    }
    meter.work(bytes * (usize::BITS - keyed.len().leading_zeros()) as usize)
}

fn reference(argument: &Ast) -> Result<&Ast, Fault> {
    match argument {
        Ast::Expref { ast, .. } => Ok(ast),
        _ => Err(Fault::refused("it takes an expression behind `&`, such as `&name`")),
    }
}

fn list_of(value: &Data) -> Result<&[Data], Fault> {
    value.as_list().ok_or_else(|| unfit("a list", value))
}

fn text_of(value: &Data) -> Result<&str, Fault> {
    value.as_text().ok_or_else(|| unfit("a text", value))
}

fn number_of(value: &Data) -> Result<Number, Fault> {
    Number::strictly_of(value).ok_or_else(|| unfit("a number", value))
}

fn unfit(needed: &str, value: &Data) -> Fault {
    Fault::refused(format!("it needs {needed}, not {}", value.kind()))
}
