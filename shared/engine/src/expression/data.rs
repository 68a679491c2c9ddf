//! The values that expressions work on: JSON, shared, with its size known without looking.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Number, Value};
use tidegate_model::{MAX_JSON_DEPTH, MAX_JSON_VALUES, check_json_value};

use super::MAX_RESULT_BYTES;
use super::meter::{Fault, Meter, Object};

/// The members of an object, in order.
pub(super) type Fields = IndexMap<Arc<str>, Data>;

/// Names that are looked up when an expression names them, so that making a scope of them costs nothing.
pub trait Names: Send + Sync {
    /// The value of a name, where there is one. Called as often as the name is read; the same each time.
    fn get(&self, name: &str) -> Option<Data>;

    /// All names, in the order in which an expression lists them. [`Names::get`] knows each.
    fn names(&self) -> Vec<String>;
}

/// A JSON value made ready for expressions, once; cloning it is cheap.
#[derive(Clone)]
pub struct Data(Repr);

#[derive(Clone)]
pub(super) enum Repr {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`.
    Wide(Arc<i128>),
    /// Always finite.
    Float(f64),
    Text(Arc<str>),
    List(Arc<Node<Vec<Data>>>),
    Object(Arc<Node<Fields>>),
    Lazy(Arc<dyn Names>),
}

pub(super) struct Node<T> {
    inner: T,
    size: Size,
}

/// What a value takes as JSON, as a tree: what is shared counts each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: usize,
    pub(super) values: usize,
    pub(super) levels: usize,
}

impl Size {
    /// Of a list or object without anything inside.
    pub(super) const EMPTY: Size = Size { bytes: 2, values: 1, levels: 1 };

    fn scalar(bytes: usize) -> Self {
        Size { bytes, values: 1, levels: 0 }
    }

    pub(super) fn with(self, inside: Size, overhead: usize) -> Self {
        Size {
            bytes: self.bytes.saturating_add(inside.bytes).saturating_add(overhead),
            values: self.values.saturating_add(inside.values),
            levels: self.levels.max(inside.levels.saturating_add(1)),
        }
    }
}

impl From<&Value> for Data {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Data::NULL,
            Value::Bool(value) => Data::from(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), _, _) => Data(Repr::Int(integer)),
                (None, Some(integer), _) => Data::integer(i128::from(integer)),
                (None, None, Some(float)) => Data(Repr::Float(float)),
                (None, None, None) => Data::NULL,
            },
            Value::String(text) => Data::text(text.as_str()),
            Value::Array(items) => Data::list(items.iter().map(Data::from)),
            Value::Object(fields) => {
                Data::of_fields(fields.iter().map(|(name, value)| (Arc::from(name.as_str()), Data::from(value))))
            }
        }
    }
}

impl From<bool> for Data {
    fn from(value: bool) -> Self {
        Data(Repr::Bool(value))
    }
}

impl Data {
    pub(super) const NULL: Data = Data(Repr::Null);

    /// A list of these.
    pub fn list(items: impl IntoIterator<Item = Data>) -> Self {
        let items: Vec<Data> = items.into_iter().collect();
        let size = items.iter().fold(Size::EMPTY, |size, item| size.with(item.size(), 1));
        Data::sized_list(items, size)
    }

    /// An object of these members; of two with one name the later wins.
    pub fn object(members: impl IntoIterator<Item = (String, Data)>) -> Self {
        Data::of_fields(members.into_iter().map(|(name, value)| (Arc::from(name), value)))
    }

    /// An object whose members are looked up when an expression names them.
    pub fn lazy(names: Arc<dyn Names>) -> Self {
        Data(Repr::Lazy(names))
    }

    /// The items of a list, without copying them; none of anything else.
    pub fn items(&self) -> Option<Vec<Data>> {
        self.as_list().map(<[Data]>::to_vec)
    }

    /// A member of an object, without copying it.
    pub fn member(&self, name: &str) -> Option<Data> {
        match &self.0 {
            Repr::Object(node) => node.inner.get(name).cloned(),
            Repr::Lazy(names) => names.get(name),
            _ => None,
        }
    }

    /// The members of an object; none of anything else.
    pub(crate) fn members(&self) -> Vec<(String, Data)> {
        match &self.0 {
            Repr::Object(node) => node.inner.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            Repr::Lazy(names) => {
                names.names().into_iter().filter_map(|name| names.get(&name).map(|value| (name, value))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The value as JSON, within the bounds of what a step may yield: 6 MiB, 100,000 values, 100 levels.
    ///
    /// # Errors
    /// It is out of bounds, an integer beyond 64 bits, or has a name that is reserved; a clause that says which.
    pub fn to_json(&self) -> Result<Value, String> {
        let value = self.to_json_within(&mut Room::new())?;
        check_json_value(&value).map_err(|error| format!("has {error}"))?;
        Ok(value)
    }

    pub(super) fn to_json_within(&self, room: &mut Room) -> Result<Value, String> {
        room.take(0, 1)?;
        match &self.0 {
            Repr::Null | Repr::Bool(_) => room.take(5, 0)?,
            Repr::Int(_) | Repr::Wide(_) | Repr::Float(_) => room.take(8, 0)?,
            Repr::Text(text) => room.take(text.len() + 2, 0)?,
            Repr::List(_) | Repr::Object(_) | Repr::Lazy(_) => room.take(2, 0)?,
        }
        match &self.0 {
            Repr::Null => Ok(Value::Null),
            Repr::Bool(value) => Ok(Value::Bool(*value)),
            Repr::Int(integer) => Ok(Value::from(*integer)),
            Repr::Wide(integer) => match u64::try_from(**integer) {
                Ok(integer) => Ok(Value::from(integer)),
                Err(_) => Err("is not a number that JSON can hold".to_owned()),
            },
            Repr::Float(float) => match Number::from_f64(*float) {
                Some(number) => Ok(Value::Number(number)),
                None => Err("is not a number that JSON can hold".to_owned()),
            },
            Repr::Text(text) => Ok(Value::String(text.to_string())),
            Repr::List(node) => room.inside(|room| {
                room.check(node.size)?;
                let mut items = Vec::with_capacity(node.inner.len());
                for item in &node.inner {
                    room.take(1, 0)?;
                    items.push(item.to_json_within(room)?);
                }
                Ok(Value::Array(items))
            }),
            Repr::Object(node) => room.inside(|room| {
                room.check(node.size)?;
                let mut fields = Map::with_capacity(node.inner.len());
                for (name, value) in &node.inner {
                    room.take(name.len() + 4, 0)?;
                    fields.insert(name.to_string(), value.to_json_within(room)?);
                }
                Ok(Value::Object(fields))
            }),
            Repr::Lazy(names) => room.inside(|room| {
                let mut fields = Map::new();
                for name in names.names() {
                    if let Some(value) = names.get(&name) {
                        room.take(name.len() + 4, 0)?;
                        fields.insert(name, value.to_json_within(room)?);
                    }
                }
                Ok(Value::Object(fields))
            }),
        }
    }

    /// Writes the value as it stands in a text: a text as it is, everything else as JSON.
    pub(super) fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self.as_text() {
            Some(text) => out.write_str(text),
            None => self.write_json(out),
        }
    }

    pub(super) fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match &self.0 {
            Repr::Null => out.write_str("null"),
            Repr::Bool(value) => write!(out, "{value}"),
            Repr::Int(integer) => write!(out, "{integer}"),
            Repr::Wide(integer) => write!(out, "{integer}"),
            Repr::Float(float) => match Number::from_f64(*float) {
                Some(number) => write!(out, "{number}"),
                None => Err(fmt::Error),
            },
            Repr::Text(text) => write_json_text(text, out),
            Repr::List(node) => {
                out.write_char('[')?;
                for (index, item) in node.inner.iter().enumerate() {
                    if index > 0 {
                        out.write_char(',')?;
                    }
                    item.write_json(out)?;
                }
                out.write_char(']')
            }
            Repr::Object(node) => {
                write_json_object(node.inner.iter().map(|(name, value)| (&**name, value.clone())), out)
            }
            Repr::Lazy(names) => {
                let all = names.names();
                write_json_object(all.iter().filter_map(|name| Some((name.as_str(), names.get(name)?))), out)
            }
        }
    }

    pub(super) fn repr(&self) -> &Repr {
        &self.0
    }

    pub(super) fn text(text: impl Into<Arc<str>>) -> Self {
        Data(Repr::Text(text.into()))
    }

    pub(super) fn integer(integer: i128) -> Self {
        Data(match i64::try_from(integer) {
            Ok(integer) => Repr::Int(integer),
            Err(_) => Repr::Wide(Arc::new(integer)),
        })
    }

    /// A number; none where it is infinite or no number.
    pub(super) fn float(float: f64) -> Option<Self> {
        float.is_finite().then_some(Data(Repr::Float(float)))
    }

    pub(super) fn sized_list(items: Vec<Data>, size: Size) -> Self {
        Data(Repr::List(Arc::new(Node { inner: items, size })))
    }

    pub(super) fn sized_object(fields: Fields, size: Size) -> Self {
        Data(Repr::Object(Arc::new(Node { inner: fields, size })))
    }

    fn of_fields(members: impl IntoIterator<Item = (Arc<str>, Data)>) -> Self {
        let fields: Fields = members.into_iter().collect();
        let sum = |size: Size, (name, value): (&Arc<str>, &Data)| size.with(value.size(), name.len() + 4);
        let size = fields.iter().fold(Size::EMPTY, sum);
        Data::sized_object(fields, size)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Repr::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Data]> {
        match &self.0 {
            Repr::List(node) => Some(&node.inner),
            _ => None,
        }
    }

    pub(super) fn as_fields(&self) -> Option<&Fields> {
        match &self.0 {
            Repr::Object(node) => Some(&node.inner),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.0, Repr::Null)
    }

    /// The size of a value. An object that is looked up counts as empty until [`Data::settle`] has made it one.
    pub(super) fn size(&self) -> Size {
        match &self.0 {
            Repr::Null | Repr::Bool(_) => Size::scalar(5),
            Repr::Int(_) | Repr::Wide(_) | Repr::Float(_) => Size::scalar(8),
            Repr::Text(text) => Size::scalar(text.len() + 2),
            Repr::List(node) => node.size,
            Repr::Object(node) => node.size,
            Repr::Lazy(_) => Size::EMPTY,
        }
    }

    /// The value with its members looked up.
    pub(super) fn settle(self, meter: &mut Meter) -> Result<Data, Fault> {
        let Repr::Lazy(names) = &self.0 else { return Ok(self) };
        let mut object = Object::new(meter)?;
        for name in names.names() {
            if let Some(value) = names.get(&name) {
                object.insert(meter, Arc::from(name), value)?;
            }
        }
        Ok(object.finish())
    }

    pub(super) fn is_true(&self) -> bool {
        match &self.0 {
            Repr::Null => false,
            Repr::Bool(value) => *value,
            Repr::Int(integer) => *integer != 0,
            Repr::Wide(_) => true,
            Repr::Float(float) => *float != 0.0,
            Repr::Text(text) => !text.is_empty(),
            Repr::List(node) => !node.inner.is_empty(),
            Repr::Object(node) => !node.inner.is_empty(),
            Repr::Lazy(names) => !names.names().is_empty(),
        }
    }

    /// What kind of value it is, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match &self.0 {
            Repr::Null => "null",
            Repr::Bool(_) => "true or false",
            Repr::Int(_) | Repr::Wide(_) | Repr::Float(_) => "a number",
            Repr::Text(_) => "a text",
            Repr::List(_) => "a list",
            Repr::Object(_) | Repr::Lazy(_) => "an object",
        }
    }

    /// Whether two values are the same JSON; `1` and `1.0` are.
    pub(super) fn equals(&self, other: &Data, meter: &mut Meter) -> Result<bool, Fault> {
        meter.work(8)?;
        match (&self.0, &other.0) {
            (Repr::Null, Repr::Null) => Ok(true),
            (Repr::Bool(one), Repr::Bool(other)) => Ok(one == other),
            (Repr::Text(one), Repr::Text(other)) => {
                meter.work(if one.len() == other.len() { one.len() } else { 0 })?;
                Ok(one == other)
            }
            (Repr::List(one), Repr::List(other)) => {
                if one.inner.len() != other.inner.len() {
                    return Ok(false);
                }
                for (one, other) in one.inner.iter().zip(&other.inner) {
                    if !one.equals(other, meter)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Repr::Object(one), Repr::Object(other)) => {
                if one.inner.len() != other.inner.len() {
                    return Ok(false);
                }
                for (name, one) in &one.inner {
                    meter.work(name.len())?;
                    match other.inner.get(name) {
                        Some(other) if one.equals(other, meter)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            (Repr::Lazy(_), _) => {
                let one = self.clone().settle(meter)?;
                one.equals(other, meter)
            }
            (_, Repr::Lazy(_)) => {
                let other = other.clone().settle(meter)?;
                self.equals(&other, meter)
            }
            (Repr::Int(one), Repr::Int(other)) => Ok(one == other),
            (Repr::Wide(one), Repr::Wide(other)) => Ok(one == other),
            (Repr::Float(one), Repr::Float(other)) => Ok(one == other),
            (Repr::Int(integer), Repr::Float(float)) | (Repr::Float(float), Repr::Int(integer)) => {
                Ok(same(i128::from(*integer), *float))
            }
            (Repr::Wide(integer), Repr::Float(float)) | (Repr::Float(float), Repr::Wide(integer)) => {
                Ok(same(**integer, *float))
            }
            _ => Ok(false),
        }
    }
}

/// Whether an integer and a float are the same number, exactly.
#[expect(clippy::cast_possible_truncation, reason = "a float beyond the range becomes its end, which is then unequal")]
fn same(integer: i128, float: f64) -> bool {
    float.trunc() == float && float.abs() < 1.7e38 && float as i128 == integer
}

/// What is left for JSON that leaves the expressions.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    values: usize,
    levels: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { bytes: MAX_RESULT_BYTES, values: MAX_JSON_VALUES, levels: MAX_JSON_DEPTH }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn take(&mut self, bytes: usize, values: usize) -> Result<(), String> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or("is too large")?;
        self.values = self.values.checked_sub(values).ok_or("is too large: it holds too many values")?;
        Ok(())
    }

    /// Refuses at once what wouldn't fit.
    fn check(&self, size: Size) -> Result<(), String> {
        if size.bytes > self.bytes + 2 {
            return Err("is too large".to_owned());
        }
        if size.values > self.values + 1 {
            return Err("is too large: it holds too many values".to_owned());
        }
        Ok(())
    }

    fn inside(&mut self, fill: impl FnOnce(&mut Self) -> Result<Value, String>) -> Result<Value, String> {
        self.levels = self.levels.checked_sub(1).ok_or("is nested too deeply")?;
        let filled = fill(self);
        self.levels += 1;
        filled
    }
}

fn write_json_object<'a>(members: impl Iterator<Item = (&'a str, Data)>, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('{')?;
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        write_json_text(name, out)?;
        out.write_char(':')?;
        value.write_json(out)?;
    }
    out.write_char('}')
}

fn write_json_text(text: &str, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_char('"')?;
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(&text[plain..index])?;
        plain = index + 1;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            0x08 => out.write_str("\\b")?,
            0x0c => out.write_str("\\f")?,
            _ => write!(out, "\\u{byte:04x}")?,
        }
    }
    out.write_str(&text[plain..])?;
    out.write_char('"')
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Lazy(names) => f.debug_tuple("Lazy").field(&names.names()).finish(),
            _ => self.write_json(f),
        }
    }
}

impl PartialEq for Data {
    /// Whether both are the same JSON. Costs up to the size of the smaller.
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::List(one), Repr::List(other)) => one.inner == other.inner,
            (Repr::Object(one), Repr::Object(other)) => one.inner == other.inner,
            (Repr::Lazy(_), _) | (_, Repr::Lazy(_)) => {
                let sorted = |value: &Data| {
                    let mut members = value.members();
                    members.sort_by(|(one, _), (other, _)| one.cmp(other));
                    members
                };
                self.kind() == other.kind() && sorted(self) == sorted(other)
            }
            _ => self.equals(other, &mut Meter::new()).unwrap_or(false),
        }
    }
}
