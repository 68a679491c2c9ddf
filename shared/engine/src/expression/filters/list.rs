//! Filters on lists and objects.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use super::{Arguments, find, shown, unsuitable, write};
use crate::expression::data::{Data, Repr};
use crate::expression::evaluate::{self, Outcome, TESTS, VALUE_TESTS, nth, tested};
use crate::expression::meter::{Fault, List, Meter, Object, Text};
use crate::expression::numbers::{self, Number, Operator};

/// What looking at an item takes.
const ITEM_WORK: usize = 24;

fn list_of<'d>(value: &'d Data, meter: &mut Meter) -> Result<&'d [Data], Fault> {
    let items = value.as_list().ok_or_else(|| unsuitable("a list", value))?;
    meter.work(items.len() * ITEM_WORK)?;
    Ok(items)
}

fn object_of(value: &Data, meter: &mut Meter) -> Result<Data, Fault> {
    let object = value.clone().settle(meter)?;
    let fields = object.as_fields().ok_or_else(|| unsuitable("an object", value))?;
    meter.work(fields.len() * ITEM_WORK)?;
    Ok(object)
}

/// What stands at a dotted path below a value.
fn attribute(value: &Data, path: &str) -> Option<Data> {
    path.split('.').try_fold(value.clone(), |value, name| match value.as_list() {
        Some(items) => nth(items, name.parse().ok()?).cloned(),
        None => value.member(name),
    })
}

/// What a filter looks at of an item: the item, or what stands at `attribute` below it.
fn key(item: &Data, path: Option<&str>, meter: &mut Meter) -> Result<Data, Fault> {
    match path {
        Some(path) => {
            meter.work(path.len())?;
            attribute(item, path).ok_or_else(|| Fault::Missing(format!("`{path}` of an item")))
        }
        None => Ok(item.clone()),
    }
}

pub(super) fn first(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    end(value, meter, |items| items.first(), |text| text.chars().next())
}

pub(super) fn last(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    end(value, meter, |items| items.last(), |text| text.chars().next_back())
}

fn end(
    value: &Data,
    meter: &mut Meter,
    of_list: fn(&[Data]) -> Option<&Data>,
    of_text: fn(&str) -> Option<char>,
) -> Result<Outcome, Fault> {
    let found = match (value.as_list(), value.as_text()) {
        (Some(items), _) => of_list(items).cloned(),
        (None, Some(text)) => of_text(text).map(|character| meter.text(character.to_string())).transpose()?,
        (None, None) => return Err(unsuitable("a list or a text", value)),
    };
    Ok(found.map_or_else(|| Outcome::Missing(format!("an item of {} that is empty", value.kind())), Outcome::Value))
}

pub(super) fn length(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let length = match value.repr() {
        Repr::Text(text) => {
            meter.work(text.len())?;
            text.chars().count()
        }
        Repr::List(_) => list_of(value, meter)?.len(),
        Repr::Object(_) | Repr::Lazy(_) => object_of(value, meter)?.as_fields().map_or(0, |fields| fields.len()),
        _ => return Err(Fault::refused("only texts, lists and objects have a length")),
    };
    Ok(Data::integer(i128::try_from(length).unwrap_or(i128::MAX)).into())
}

pub(super) fn join(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let separator = arguments.text("separator")?.unwrap_or_default();
    let path = arguments.text("attribute")?;
    let mut joined = Text::default();
    for (index, item) in list_of(value, meter)?.iter().enumerate() {
        if index > 0 {
            joined.push(separator)?;
        }
        write(&key(item, path, meter)?, &mut joined, meter)?;
    }
    Ok(joined.finish(meter)?.into())
}

pub(super) fn reverse(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    Ok(evaluate::sliced(value, None, None, Some(-1), meter)?.into())
}

pub(super) fn batch(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let size = arguments.integer("size")?.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let size = size.ok_or_else(|| Fault::refused("`size` is at least 1"))?;
    let mut batches = List::new(meter)?;
    for items in list_of(value, meter)?.chunks(size) {
        let batch = meter.list(items.iter().cloned().map(Ok))?;
        batches.push(meter, batch)?;
    }
    Ok(batches.finish().into())
}

pub(super) fn map(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.text("attribute")?;
    let filter = match (arguments.text("filter")?, path) {
        (Some(name), None) => {
            let found = find(name).filter(|filter| filter.required == 0);
            Some(found.ok_or_else(|| Fault::refused(format!("there is no filter `{name}` that takes nothing")))?)
        }
        (None, Some(_)) => None,
        _ => return Err(Fault::refused("it takes either `attribute`, or a filter's name such as \"upper\"")),
    };
    let mut mapped = List::new(meter)?;
    for item in list_of(value, meter)? {
        let mapped_item = match filter {
            Some(filter) => (filter.run)(item, &Arguments::new(filter), meter)?.needed(),
            None => key(item, path, meter),
        };
        let item = match (mapped_item, arguments.get("default")) {
            (Err(Fault::Missing(_)), Some(default)) => default.clone(),
            (mapped_item, _) => mapped_item?,
        };
        mapped.push(meter, item)?;
    }
    Ok(mapped.finish().into())
}

pub(super) fn select(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    chosen(value, None, true, arguments, meter)
}

pub(super) fn reject(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    chosen(value, None, false, arguments, meter)
}

pub(super) fn selectattr(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    chosen(value, Some(arguments.needed_text("attribute")?), true, arguments, meter)
}

pub(super) fn rejectattr(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    chosen(value, Some(arguments.needed_text("attribute")?), false, arguments, meter)
}

fn chosen(
    value: &Data,
    path: Option<&str>,
    wanted: bool,
    arguments: &Arguments,
    meter: &mut Meter,
) -> Result<Outcome, Fault> {
    let test = arguments.text("test")?;
    let against = arguments.get("value");
    if let Some(test) = test {
        let known = if against.is_some() { VALUE_TESTS.contains(&test) } else { TESTS.contains(&test) };
        if !known {
            let takes = if against.is_some() { "a value" } else { "nothing" };
            return Err(Fault::refused(format!("there is no test `{test}` that takes {takes}")));
        }
    }
    let mut list = List::new(meter)?;
    for item in list_of(value, meter)? {
        let found = match path {
            Some(path) => {
                meter.work(path.len())?;
                attribute(item, path).map_or_else(|| Outcome::Missing(format!("`{path}` of an item")), Outcome::Value)
            }
            None => Outcome::Value(item.clone()),
        };
        let is = match (test, found) {
            (Some("defined" | "undefined"), found) => tested(test.unwrap_or_default(), found, None, meter)?,
            // An item without the attribute is none of those that were asked for.
            (_, Outcome::Missing(_)) => false,
            (Some(test), found) => tested(test, found, against, meter)?,
            (None, Outcome::Value(found)) => found.is_true(),
        };
        if is == wanted {
            list.push(meter, item.clone())?;
        }
    }
    Ok(list.finish().into())
}

pub(super) fn sort(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.text("attribute")?;
    let keyed: Result<Vec<_>, Fault> =
        list_of(value, meter)?.iter().map(|item| Ok((key(item, path, meter)?, item.clone()))).collect();
    let mut keyed = keyed?;
    ordered(keyed.iter().map(|(key, _)| key), meter)?;
    meter.take(keyed.len() * 2 * size_of::<Data>())?;
    let descending = arguments.flag("reverse");
    keyed.sort_by(|(one, _), (other, _)| {
        let order = numbers::compare(one, other).unwrap_or(Ordering::Equal);
        if descending { order.reverse() } else { order }
    });
    Ok(meter.list(keyed.into_iter().map(|(_, item)| Ok(item)))?.into())
}

/// Checks that values have an order among each other, and charges for sorting them.
fn ordered<'d>(keys: impl Iterator<Item = &'d Data> + Clone, meter: &mut Meter) -> Result<(), Fault> {
    let mut bytes = 0;
    for (one, other) in keys.clone().zip(keys.clone().skip(1)) {
        // Of two texts the order is known to exist without comparing them.
        if one.as_text().is_none() || other.as_text().is_none() {
            numbers::compare(one, other)?;
        }
    }
    let mut count = 0_usize;
    for key in keys {
        bytes += key.size().bytes + ITEM_WORK;
        count += 1;
    }
    meter.work(bytes * (usize::BITS - count.leading_zeros()) as usize)
}

pub(super) fn unique(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.text("attribute")?;
    let mut seen = HashSet::new();
    let mut list = List::new(meter)?;
    for item in list_of(value, meter)? {
        let key = key(item, path, meter)?;
        let identity = match Number::strictly_of(&key).and_then(Number::whole) {
            // 1 and 1.0 are the same number.
            Some(whole) => whole.to_string(),
            None => {
                let mut text = Text::default();
                meter.work(key.size().bytes)?;
                key.write_json(&mut text).map_err(|_| Fault::long_text())?;
                meter.take(key.size().bytes + 2 * ITEM_WORK)?;
                text.into_string()
            }
        };
        meter.take(identity.len() + ITEM_WORK)?;
        if seen.insert(identity) {
            list.push(meter, item.clone())?;
        }
    }
    Ok(list.finish().into())
}

pub(super) fn min(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    extreme(value, Ordering::Less, arguments, meter)
}

pub(super) fn max(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    extreme(value, Ordering::Greater, arguments, meter)
}

fn extreme(value: &Data, wanted: Ordering, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.text("attribute")?;
    let mut best: Option<(Data, &Data)> = None;
    for item in list_of(value, meter)? {
        let key = key(item, path, meter)?;
        meter.work(key.size().bytes)?;
        let better = match &best {
            Some((known, _)) => numbers::compare(&key, known)? == wanted,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or_else(
        || Outcome::Missing("an item of a list that is empty".to_owned()),
        |(_, item)| item.clone().into(),
    ))
}

pub(super) fn sum(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.text("attribute")?;
    let mut sum = match arguments.get("start") {
        Some(start) => start.clone(),
        None => Data::integer(0),
    };
    for item in list_of(value, meter)? {
        let item = key(item, path, meter)?;
        let (Some(before), Some(number)) = (Number::strictly_of(&sum), Number::strictly_of(&item)) else {
            return Err(unsuitable("numbers", &item));
        };
        sum = Operator::Add.apply(before, number)?;
    }
    Ok(sum.into())
}

pub(super) fn group_by(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let path = arguments.needed_text("attribute")?;
    let mut groups: indexmap::IndexMap<Arc<str>, List> = indexmap::IndexMap::new();
    for item in list_of(value, meter)? {
        let key = key(item, Some(path), meter)?;
        let name = shown(&key, meter)?;
        meter.work(name.len())?;
        if !groups.contains_key(&*name) {
            meter.take(name.len() + 4 * ITEM_WORK)?;
            groups.insert(Arc::from(&*name), List::new(meter)?);
        }
        if let Some(group) = groups.get_mut(&*name) {
            group.push(meter, item.clone())?;
        }
    }
    let mut object = Object::new(meter)?;
    for (name, group) in groups {
        object.insert(meter, name, group.finish())?;
    }
    Ok(object.finish().into())
}

pub(super) fn keys(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let object = object_of(value, meter)?;
    let names = object.as_fields().into_iter().flatten().map(|(name, _)| Ok(Data::text(name.clone())));
    Ok(meter.list(names)?.into())
}

pub(super) fn values(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let object = object_of(value, meter)?;
    Ok(meter.list(object.as_fields().into_iter().flatten().map(|(_, value)| Ok(value.clone())))?.into())
}

pub(super) fn items(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let object = object_of(value, meter)?;
    let mut pairs = List::new(meter)?;
    for (name, value) in object.as_fields().into_iter().flatten() {
        let pair = meter.list([Ok(Data::text(name.clone())), Ok(value.clone())])?;
        pairs.push(meter, pair)?;
    }
    Ok(pairs.finish().into())
}

pub(super) fn merge(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let (one, other) = (object_of(value, meter)?, object_of(arguments.needed("other")?, meter)?);
    let mut merged = Object::new(meter)?;
    for (name, value) in [&one, &other].into_iter().filter_map(|object| object.as_fields()).flatten() {
        merged.insert(meter, name.clone(), value.clone())?;
    }
    Ok(merged.finish().into())
}
