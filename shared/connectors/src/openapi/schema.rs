//! Schemas of OpenAPI 3.0 and 3.1 as JSON Schemas of draft 2020-12 that stand on their own, for input: references are
//! followed, `allOf` is merged, what only answers hold is left out.
//!
//! What is made never refuses what the document allows: where something can't be said, or takes too much, it is left
//! out. So `oneOf` becomes `anyOf`, and `not`, `if` and the like are gone; the API itself still checks them.

use indexmap::{IndexMap, IndexSet};
use jsonschema::PatternOptions;
use serde_json::{Map, Value, json};

use super::reader::Reader;

/// How many schemas are merged into one.
const MAX_MERGED: usize = 256;
/// The largest default or example, in bytes and levels, and the largest `enum`.
const MAX_CONSTANT: usize = 500;
const MAX_ENUM: usize = 16 * 1024;
const MAX_CONSTANT_DEPTH: usize = 8;
/// The longest pattern, in bytes; the largest that it may be once compiled; and how many different ones are taken.
const MAX_PATTERN: usize = 500;
const MAX_COMPILED: usize = 256 * 1024;
const MAX_PATTERNS: usize = 500;
/// The longest description of a field, in characters.
pub(super) const MAX_DESCRIPTION: usize = 250;
/// The least depth of an expansion in which fields within fields are described too.
const DESCRIBED_DEPTH: usize = 5;

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
const COUNTS: [&str; 6] = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"];

/// A schema without references and `allOf`: what it and all that it refers to say, the later and the outer winning.
#[derive(Default)]
pub(super) struct Flat<'d> {
    pub(super) properties: IndexMap<&'d str, &'d Value>,
    pub(super) required: IndexSet<&'d str>,
    /// The lists of `anyOf` and `oneOf`, all of which count.
    pub(super) alternatives: Vec<&'d [Value]>,
    keywords: IndexMap<&'d str, &'d Value>,
    nullable: bool,
    /// `false`: nothing fits it.
    never: bool,
    /// Made of parts, each of which would refuse the others' properties.
    composed: bool,
    merged: Vec<*const Value>,
}

impl<'d> Flat<'d> {
    pub(super) fn get(&self, keyword: &str) -> Option<&'d Value> {
        self.keywords.get(keyword).copied()
    }

    /// Whether it has no place in a request.
    pub(super) fn is_hidden(&self) -> bool {
        self.never || self.get("readOnly") == Some(&Value::Bool(true))
    }

    /// The types that it names, or that its other keywords mean.
    fn types(&self) -> Vec<&'d str> {
        let named = match self.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let known: IndexSet<&str> = named.into_iter().filter(|name| TYPES.contains(name)).collect();
        match () {
            () if !known.is_empty() => known.into_iter().collect(),
            () if !self.properties.is_empty() => vec!["object"],
            () if self.get("items").is_some() => vec!["array"],
            () => Vec::new(),
        }
    }
}

/// What kinds of values a schema allows.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kinds {
    pub(super) scalar: bool,
    /// Lists of scalars.
    pub(super) list: bool,
    /// Lists of objects or lists.
    pub(super) nested_list: bool,
    pub(super) object: bool,
}

/// A schema takes more bytes than there are.
pub(super) struct TooLarge;

/// Expands the schemas of one action's input.
pub(super) struct Expansion<'r, 'd> {
    pub(super) reader: &'r mut Reader<'d>,
    depth: usize,
    bytes: usize,
    /// The schemas that are being expanded, the outermost first.
    open: Vec<*const Value>,
    /// Whether a part was left out for its depth.
    pub(super) cut: bool,
}

impl<'d> Reader<'d> {
    /// What a schema and all that it refers to say.
    pub(super) fn flat(&mut self, schema: &'d Value) -> Flat<'d> {
        let mut flat = Flat::default();
        self.merge(schema, &[], &mut flat);
        flat
    }

    /// Merges a schema into a flat one. Those that are `open` don't give their alternatives: an alternative that refers
    /// back to its base would else hold itself and all others.
    fn merge(&mut self, schema: &'d Value, open: &[*const Value], flat: &mut Flat<'d>) {
        let address: *const Value = schema;
        if flat.merged.len() == MAX_MERGED || flat.merged.contains(&address) || !self.spend(1) {
            return;
        }
        flat.merged.push(address);
        flat.never |= schema == &Value::Bool(false);
        let Some(members) = schema.as_object() else { return };
        if let Some(target) = members.get("$ref").and_then(Value::as_str).and_then(|reference| self.target(reference)) {
            self.merge(target, open, flat);
        }
        flat.composed |= members.contains_key("allOf") || (members.contains_key("$ref") && members.len() > 1);
        for part in list(members.get("allOf")) {
            self.merge(part, open, flat);
        }
        for (keyword, value) in members {
            self.spend(1);
            match (keyword.as_str(), value) {
                ("$ref" | "allOf", _) => {}
                ("properties", Value::Object(properties)) => {
                    self.spend(properties.len());
                    let named = properties.iter().map(|(name, schema)| (name.as_str(), schema));
                    flat.properties.extend(named.filter(|(name, _)| !name.contains("{{")));
                }
                ("required", Value::Array(names)) => {
                    let names = names.iter().filter_map(Value::as_str);
                    flat.required.extend(names.filter(|name| !name.contains("{{")));
                }
                ("anyOf" | "oneOf", Value::Array(schemas)) if !schemas.is_empty() => {
                    if !open.contains(&address) {
                        flat.alternatives.push(schemas);
                    }
                }
                ("nullable", value) => flat.nullable |= value == &Value::Bool(true),
                (keyword, value) => {
                    flat.keywords.insert(keyword, value);
                }
            }
        }
    }

    /// What kinds of values a schema allows; what says nothing allows texts.
    pub(super) fn kinds(&mut self, schema: &'d Value) -> Kinds {
        let mut kinds = Kinds::default();
        self.add_kinds(schema, 3, &mut kinds);
        if kinds == Kinds::default() { Kinds { scalar: true, ..kinds } } else { kinds }
    }

    fn add_kinds(&mut self, schema: &'d Value, depth: usize, kinds: &mut Kinds) {
        let flat = self.flat(schema);
        for name in flat.types() {
            match name {
                "object" => kinds.object = true,
                "array" => {
                    let items = flat.get("items").filter(|_| depth > 0).map(|items| self.kinds_below(items, depth));
                    let items = items.unwrap_or_default();
                    let nested = items.list || items.nested_list || items.object;
                    kinds.nested_list |= nested;
                    kinds.list |= items.scalar || !nested;
                }
                "null" => {}
                _ => kinds.scalar = true,
            }
        }
        kinds.scalar |= flat.get("enum").is_some() || flat.get("const").is_some();
        for schema in flat.alternatives.into_iter().flatten().filter(|_| depth > 0) {
            self.add_kinds(schema, depth - 1, kinds);
        }
    }

    fn kinds_below(&mut self, items: &'d Value, depth: usize) -> Kinds {
        let mut kinds = Kinds::default();
        self.add_kinds(items, depth - 1, &mut kinds);
        kinds
    }

    /// Whether a pattern is one that a schema can be compiled with and that never takes long.
    fn is_pattern(&mut self, pattern: &'d str) -> bool {
        if pattern.len() > MAX_PATTERN || pattern.contains("{{") {
            return false;
        }
        if let Some(known) = self.patterns.get(pattern) {
            return *known;
        }
        if self.patterns.len() == MAX_PATTERNS {
            self.note(format!("only the first {MAX_PATTERNS} patterns are checked, the others are left out"));
            return false;
        }
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex().size_limit(MAX_COMPILED));
        let fits = options.build(&json!({ "pattern": pattern })).is_ok();
        self.patterns.insert(pattern, fits);
        fits
    }
}

impl<'r, 'd> Expansion<'r, 'd> {
    /// An expansion to at most so many bytes of JSON, and so many schemas within each other.
    pub(super) fn new(reader: &'r mut Reader<'d>, depth: usize, bytes: usize) -> Self {
        Self { reader, depth, bytes, open: Vec::new(), cut: false }
    }

    /// Expands a schema; `None` where it has no place in a request.
    ///
    /// # Errors
    /// It takes more bytes than there are.
    pub(super) fn expand(&mut self, schema: &'d Value) -> Result<Option<Map<String, Value>>, TooLarge> {
        let address: *const Value = self.reader.follow(schema).unwrap_or(schema);
        let mut flat = Flat::default();
        self.reader.merge(schema, &self.open, &mut flat);
        if flat.is_hidden() {
            return Ok(None);
        }
        let mut made = self.simple(&flat)?;
        let is_nested = !flat.properties.is_empty()
            || !flat.alternatives.is_empty()
            || ["items", "prefixItems", "additionalProperties"]
                .iter()
                .any(|keyword| flat.get(keyword).is_some_and(Value::is_object));
        if self.open.contains(&address) || self.open.len() >= self.depth {
            self.cut |= is_nested;
        } else {
            self.open.push(address);
            let nested = self.nested(&flat, &mut made);
            self.open.pop();
            nested?;
        }
        Ok(Some(made))
    }

    /// Whether what is expanded now is described: with little room only the outermost fields are, and with least none.
    pub(super) fn is_described(&self) -> bool {
        self.depth >= DESCRIBED_DEPTH || (self.depth > 0 && self.open.is_empty())
    }

    /// Takes bytes for a member of what is made.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.reader.spend(1 + bytes / 8);
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TooLarge)?;
        Ok(())
    }

    fn put(&mut self, made: &mut Map<String, Value>, keyword: &str, value: Value) -> Result<(), TooLarge> {
        self.charge(keyword.len() + 4 + value.to_string().len())?;
        made.insert(keyword.to_owned(), value);
        Ok(())
    }

    /// Everything but the schemas within it.
    fn simple(&mut self, flat: &Flat<'d>) -> Result<Map<String, Value>, TooLarge> {
        self.charge(2)?;
        let mut made = Map::new();
        let text = |keyword: &str| flat.get(keyword).and_then(Value::as_str);
        // One that is a single word is the type's name in somebody's program.
        if let Some(title) =
            text("title").filter(|title| title.contains(' ')).and_then(|title| self.reader.plain(title, 60))
        {
            self.put(&mut made, "title", title.into())?;
        }
        let description = text("description").filter(|_| self.is_described());
        if let Some(description) = description.and_then(|text| self.reader.plain(text, MAX_DESCRIPTION)) {
            self.put(&mut made, "description", description.into())?;
        }
        let types = flat.types();
        if !types.is_empty() {
            let mut types = types;
            if flat.nullable && !types.contains(&"null") {
                types.push("null");
            }
            let types = if let [only] = types[..] { json!(only) } else { json!(types) };
            self.put(&mut made, "type", types)?;
        }
        if let Some(format) = text("format").filter(|format| format.len() <= 60 && !format.contains("{{")) {
            self.put(&mut made, "format", format.into())?;
        }
        if let Some(pattern) = text("pattern").filter(|pattern| self.reader.is_pattern(pattern)) {
            self.put(&mut made, "pattern", pattern.into())?;
        }
        for keyword in COUNTS {
            if let Some(count) = flat.get(keyword).and_then(Value::as_u64) {
                self.put(&mut made, keyword, count.into())?;
            }
        }
        for (keyword, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            let keyword =
                if flat.get(exclusive) == Some(&Value::Bool(true)) { [keyword, exclusive] } else { [keyword; 2] };
            for (from, to) in [(keyword[0], keyword[1]), (exclusive, exclusive)] {
                if let Some(number) = flat.get(from).filter(|number| number.is_number()) {
                    self.put(&mut made, to, number.clone())?;
                }
            }
        }
        if let Some(number) = flat.get("multipleOf").filter(|number| number.as_f64().is_some_and(|number| number > 0.0))
        {
            self.put(&mut made, "multipleOf", number.clone())?;
        }
        if flat.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.put(&mut made, "uniqueItems", true.into())?;
        }
        self.constants(flat, &mut made)?;
        Ok(made)
    }

    /// `enum`, `const`, default and an example.
    fn constants(&mut self, flat: &Flat<'d>, made: &mut Map<String, Value>) -> Result<(), TooLarge> {
        let values = list(flat.get("enum"));
        if !values.is_empty() && values.iter().try_fold(MAX_ENUM, |left, value| room_left(value, left)).is_some() {
            let mut values = values.to_vec();
            if flat.nullable && !values.contains(&Value::Null) {
                values.push(Value::Null);
            }
            self.put(made, "enum", values.into())?;
        }
        if let Some(value) = flat.get("const").filter(|value| is_constant(value) && !flat.nullable) {
            self.put(made, "const", value.clone())?;
        }
        if let Some(value) = flat.get("default").filter(|value| is_constant(value) && !value.is_null()) {
            self.put(made, "default", value.clone())?;
        }
        let example = flat.get("example").or_else(|| list(flat.get("examples")).first());
        if let Some(value) = example.filter(|value| is_constant(value) && !value.is_null()) {
            self.put(made, "examples", json!([value]))?;
        }
        Ok(())
    }

    /// The schemas within it.
    fn nested(&mut self, flat: &Flat<'d>, made: &mut Map<String, Value>) -> Result<(), TooLarge> {
        let mut properties = Map::new();
        let mut hidden = IndexSet::new();
        for (name, schema) in &flat.properties {
            self.charge(name.len() + 4)?;
            match self.expand(schema)? {
                Some(property) => {
                    properties.insert((*name).to_owned(), property.into());
                }
                None => {
                    hidden.insert(*name);
                }
            }
        }
        if !properties.is_empty() {
            self.charge("properties".len() + 6)?;
            made.insert("properties".to_owned(), properties.into());
        }
        let required: Vec<_> = flat.required.iter().filter(|name| !hidden.contains(*name)).collect();
        if !required.is_empty() {
            self.put(made, "required", json!(required))?;
        }
        for keyword in ["items", "additionalProperties"] {
            let Some(schema) = flat.get(keyword) else { continue };
            if let Some(schema) = self.expand(schema)?.filter(|schema| !schema.is_empty()) {
                self.charge(keyword.len() + 4)?;
                made.insert(keyword.to_owned(), schema.into());
            }
        }
        let is_whole = !flat.composed && flat.get("patternProperties").is_none();
        if is_whole && flat.get("additionalProperties") == Some(&Value::Bool(false)) {
            self.put(made, "additionalProperties", false.into())?;
        }
        let mut choices = Vec::new();
        for schemas in &flat.alternatives {
            choices.extend(self.choice(schemas, flat)?);
        }
        match <[Value; 1]>::try_from(choices) {
            Ok([choice]) => made.insert("anyOf".to_owned(), choice),
            Err(choices) if choices.is_empty() => None,
            Err(choices) => {
                let choices = choices.into_iter().map(|choice| json!({ "anyOf": choice }));
                made.insert("allOf".to_owned(), choices.collect())
            }
        };
        Ok(())
    }

    /// Alternatives as the value of an `anyOf`; none where one of them allows everything.
    fn choice(&mut self, schemas: &'d [Value], flat: &Flat<'d>) -> Result<Option<Value>, TooLarge> {
        let mut choice: Vec<Value> = Vec::new();
        for schema in schemas {
            self.charge(2)?;
            let Some(schema) = self.expand(schema)? else { continue };
            if schema.is_empty() {
                return Ok(None);
            }
            choice.push(schema.into());
        }
        if flat.nullable && flat.types().is_empty() {
            choice.push(json!({ "type": "null" }));
        }
        self.charge("anyOf".len() + 10)?;
        Ok((!choice.is_empty()).then(|| choice.into()))
    }
}

/// The elements of what may be a list.
pub(super) fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a value of the document may be given to people to use as it is: it is small, and no expression begins in it.
pub(super) fn is_constant(value: &Value) -> bool {
    room_left(value, MAX_CONSTANT).is_some()
}

/// How many of some bytes a value leaves; none where it takes more, is deep, or an expression begins in it.
fn room_left(value: &Value, bytes: usize) -> Option<usize> {
    fn left(value: &Value, levels: usize, bytes: usize) -> Option<usize> {
        let levels = levels.checked_sub(1)?;
        let bytes = bytes.checked_sub(4)?;
        let text = |text: &str, bytes: usize| bytes.checked_sub(text.len()).filter(|_| !text.contains("{{"));
        match value {
            Value::String(value) => text(value, bytes),
            Value::Array(items) => items.iter().try_fold(bytes, |bytes, item| left(item, levels, bytes)),
            Value::Object(members) => {
                members.iter().try_fold(bytes, |bytes, (name, value)| left(value, levels, text(name, bytes)?))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Some(bytes),
        }
    }
    left(value, MAX_CONSTANT_DEPTH, bytes)
}
