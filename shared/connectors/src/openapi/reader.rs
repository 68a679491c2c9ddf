//! Reads a document that may be wrong or hostile: follows its references, and keeps account of the work and of what is
//! to be noted.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::text::{clip, plain};

/// How many references may lead from one to the next.
const MAX_HOPS: usize = 32;
/// The longest reference, in bytes.
const MAX_REFERENCE: usize = 1_000;
/// How many values are looked at in all. The public documents that take most take a third of it.
const MAX_WORK: usize = 12_000_000;
/// How many different notes are kept, and of how many places each one tells.
const MAX_NOTES: usize = 100;
const MAX_PLACES: usize = 3;

/// The document, and what came up in reading it.
pub(super) struct Reader<'d> {
    root: &'d Value,
    work: usize,
    place: String,
    notes: IndexMap<String, Places>,
    /// Plain texts by the addresses of what they were made of: schemas are expanded more than once.
    texts: HashMap<(*const u8, usize), Option<String>>,
    /// The patterns that were checked.
    pub(super) patterns: HashMap<&'d str, bool>,
}

#[derive(Default)]
struct Places {
    first: Vec<String>,
    last: String,
    count: usize,
}

impl<'d> Reader<'d> {
    pub(super) fn new(root: &'d Value) -> Self {
        Self {
            root,
            work: MAX_WORK,
            place: String::new(),
            notes: IndexMap::new(),
            texts: HashMap::new(),
            patterns: HashMap::new(),
        }
    }

    pub(super) fn root(&self) -> &'d Value {
        self.root
    }

    /// Counts work; whether there is any left.
    pub(super) fn spend(&mut self, work: usize) -> bool {
        self.work = self.work.saturating_sub(work);
        !self.exhausted()
    }

    pub(super) fn exhausted(&self) -> bool {
        self.work == 0
    }

    /// Says where the notes that follow are taken; empty for the whole document.
    pub(super) fn enter(&mut self, place: &str) {
        place.clone_into(&mut self.place);
    }

    /// Takes a note, once a place.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if self.notes.len() == MAX_NOTES && !self.notes.contains_key(&note) {
            return;
        }
        let places = self.notes.entry(note).or_default();
        if places.count > 0 && places.last == self.place {
            return;
        }
        places.count += 1;
        places.last.clone_from(&self.place);
        if places.first.len() < MAX_PLACES && !self.place.is_empty() {
            places.first.push(self.place.clone());
        }
    }

    /// The notes as sentences.
    pub(super) fn into_notes(self) -> Vec<String> {
        let told =
            self.notes.into_iter().map(|(note, places)| match places.count - places.first.len().min(places.count) {
                _ if places.first.is_empty() => note,
                0 => format!("{note} ({})", places.first.join(", ")),
                more => format!("{note} ({} and {more} more)", places.first.join(", ")),
            });
        told.collect()
    }

    /// A text of the document as plain text of at most `max` characters.
    pub(super) fn plain(&mut self, text: &'d str, max: usize) -> Option<String> {
        self.texts.entry((text.as_ptr(), max)).or_insert_with(|| plain(text, max)).clone()
    }

    /// The value that references lead to; none, and a note, where they lead nowhere.
    pub(super) fn follow(&mut self, value: &'d Value) -> Option<&'d Value> {
        let mut value = value;
        for _ in 0..MAX_HOPS {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Some(value) };
            value = self.target(reference)?;
        }
        self.note("a reference that leads to itself is left out");
        None
    }

    /// What one reference points to; none, and a note, where that is nothing in this document.
    pub(super) fn target(&mut self, reference: &str) -> Option<&'d Value> {
        self.spend(1);
        let fragment = reference.strip_prefix('#').filter(|fragment| fragment.len() <= MAX_REFERENCE);
        let found = fragment.and_then(unescaped).and_then(|pointer| self.root.pointer(&pointer));
        if found.is_none() {
            let reference = clip(reference, 80);
            let whose = if fragment.is_some() {
                "points to nothing"
            } else {
                "leads out of the document (bundle the documents into one first, with `npx @redocly/cli bundle`)"
            };
            self.note(format!("the reference {reference:?} {whose}; what it stands for is taken as anything"));
        }
        found
    }
}

/// A URL's fragment without its percent-escapes.
fn unescaped(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
