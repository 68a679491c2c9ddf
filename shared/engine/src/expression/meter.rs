//! What evaluating may cost. Every value that an expression builds goes through a [`Meter`], which refuses it before
//! it grows past its bound; and everything that takes time is charged before it is done.

use std::sync::Arc;

use indexmap::IndexMap;

use super::data::{Data, Fields, Size};
use super::{MAX_RESULT_BYTES, MAX_TEXT_BYTES};
use tidegate_model::{MAX_JSON_DEPTH, MAX_JSON_VALUES};

/// Work that one step's expressions, or one expression on its own, may take. A unit is about a byte that is looked at.
const MAX_WORK: u64 = 96 * 1024 * 1024;
/// What one expression may build, in bytes, whether it keeps it or not.
const MAX_BUILT_BYTES: usize = 20 * 1024 * 1024;
/// What an item of a list takes.
const ITEM_BYTES: usize = size_of::<Data>();
/// What a member of an object takes, without its name: the entry and its place in the index.
const MEMBER_BYTES: usize = 96;
/// What a text, list or object takes beyond what it holds.
const HEAD_BYTES: usize = 64;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// This is not there.
    Missing(String),
    /// It can't be evaluated; a clause that says why.
    Refused(String),
}

impl Fault {
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Fault::Refused(reason.into())
    }

    pub(super) fn long_text() -> Self {
        Fault::refused("a text would be over 1 MiB; make it shorter, or split the step")
    }
}

/// What is left to an evaluation.
#[derive(Debug)]
pub(super) struct Meter {
    work: u64,
    bytes: usize,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { work: MAX_WORK, bytes: MAX_BUILT_BYTES }
    }

    /// Before the next expression of a step: what the one before built is gone, the time it took is not.
    pub(super) fn next_expression(&mut self) {
        self.bytes = MAX_BUILT_BYTES;
    }

    /// Charges time: about a unit a byte, some for each value.
    pub(super) fn work(&mut self, units: usize) -> Result<(), Fault> {
        let left = self.work.checked_sub(units as u64);
        self.work = left.ok_or_else(|| Fault::refused("it takes too long; make it simpler, or split the step"))?;
        Ok(())
    }

    /// Charges memory before it is taken.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.ok_or_else(|| Fault::refused("it builds too much on the way; split the step"))?;
        self.work(bytes)
    }

    /// A text of at most 1 MiB, which [`Text`] has kept to already.
    pub(super) fn text(&mut self, text: impl Into<Arc<str>> + AsRef<str>) -> Result<Data, Fault> {
        let length = text.as_ref().len();
        if length > MAX_TEXT_BYTES {
            return Err(Fault::long_text());
        }
        self.take(length + HEAD_BYTES)?;
        Ok(Data::text(text))
    }

    /// A list of what an iterator yields.
    pub(super) fn list<I>(&mut self, items: I) -> Result<Data, Fault>
    where
        I: IntoIterator<Item = Result<Data, Fault>>,
    {
        let mut list = List::new(self)?;
        for item in items {
            list.push(self, item?)?;
        }
        Ok(list.finish())
    }
}

/// A text that grows within bounds.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn push(&mut self, piece: &str) -> Result<(), Fault> {
        if self.0.len() + piece.len() > MAX_TEXT_BYTES {
            return Err(Fault::long_text());
        }
        self.0.push_str(piece);
        Ok(())
    }

    pub(super) fn push_char(&mut self, character: char) -> Result<(), Fault> {
        self.push(character.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn finish(self, meter: &mut Meter) -> Result<Data, Fault> {
        meter.text(self.0)
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        self.push(piece).map_err(|_| std::fmt::Error)
    }
}

/// A list that grows within bounds.
#[derive(Debug)]
pub(super) struct List {
    items: Vec<Data>,
    size: Size,
}

impl List {
    pub(super) fn new(meter: &mut Meter) -> Result<Self, Fault> {
        meter.take(HEAD_BYTES)?;
        Ok(Self { items: Vec::new(), size: Size::EMPTY })
    }

    pub(super) fn push(&mut self, meter: &mut Meter, item: Data) -> Result<(), Fault> {
        let item = item.settle(meter)?;
        self.size = grown(self.size, item.size(), 1)?;
        meter.take(ITEM_BYTES)?;
        self.items.push(item);
        Ok(())
    }

    pub(super) fn finish(self) -> Data {
        Data::sized_list(self.items, self.size)
    }
}

/// An object that grows within bounds; a member that comes again replaces the one before.
#[derive(Debug)]
pub(super) struct Object {
    fields: Fields,
    size: Size,
}

impl Object {
    pub(super) fn new(meter: &mut Meter) -> Result<Self, Fault> {
        meter.take(HEAD_BYTES)?;
        Ok(Self { fields: IndexMap::new(), size: Size::EMPTY })
    }

    pub(super) fn insert(&mut self, meter: &mut Meter, name: Arc<str>, value: Data) -> Result<(), Fault> {
        if name.len() > MAX_TEXT_BYTES {
            return Err(Fault::long_text());
        }
        let value = value.settle(meter)?;
        self.size = grown(self.size, value.size(), name.len() + 4)?;
        meter.take(MEMBER_BYTES)?;
        self.fields.insert(name, value);
        Ok(())
    }

    pub(super) fn finish(self) -> Data {
        Data::sized_object(self.fields, self.size)
    }
}

/// The size of a list or object with one more inside. No value is larger *as a tree*, so nothing that walks one needs
/// a bound of its own, however often a part of it is shared.
fn grown(size: Size, inside: Size, overhead: usize) -> Result<Size, Fault> {
    let size = size.with(inside, overhead);
    if size.values > MAX_JSON_VALUES {
        return Err(Fault::refused(format!(
            "a list or object would hold over {MAX_JSON_VALUES} values; split the step"
        )));
    }
    if size.bytes > MAX_RESULT_BYTES {
        return Err(Fault::refused("a list or object would be over 6 MiB; split the step"));
    }
    if size.levels > MAX_JSON_DEPTH {
        return Err(Fault::refused(format!("a value would be nested over {MAX_JSON_DEPTH} levels")));
    }
    Ok(size)
}
