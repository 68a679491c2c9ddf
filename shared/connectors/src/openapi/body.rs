//! An operation's body as fields of an action's input.

use http::HeaderValue;
use indexmap::IndexSet;
use serde_json::{Map, Value, json};

use super::operation::{Action, Field, MAX_FIELDS, deep, essence, is_json, is_name, join, to_json, written};
use super::schema::{Kinds, list};
use super::text::clip;

impl<'d> Action<'_, 'd> {
    /// Takes the operation's body in, or notes that it can't be.
    ///
    /// # Errors
    /// Why it can't be, where it is needed.
    pub(super) fn body(&mut self) -> Result<(), String> {
        let Some(body) = self.operation.members.get("requestBody") else { return Ok(()) };
        let Some(body) = self.reader.follow(body) else { return Ok(()) };
        let Some(content) = body["content"].as_object().filter(|content| !content.is_empty()) else { return Ok(()) };
        let required = body["required"] == Value::Bool(true);
        let of = |fits: fn(&str) -> bool| content.iter().find(|(kind, _)| fits(essence(kind)));
        let plain_json = of(|kind| kind.eq_ignore_ascii_case("application/json"));
        let is_form = |kind: &str| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let taken = if self.operation.is_read() {
            let is_empty = content.values().all(|media| {
                let flat = self.reader.flat(&media["schema"]);
                flat.properties.is_empty() && flat.get("additionalProperties") == Some(&Value::Bool(false))
            });
            if is_empty { Ok(()) } else { Err(format!("a body of {}", self.operation.method)) }
        } else if let Some((kind, media)) = plain_json.or_else(|| of(is_json)).or_else(|| of(|kind| kind == "*/*")) {
            self.json_body(media, required);
            self.content_type(kind, "application/json")
        } else if let Some((_, media)) = of(is_form) {
            self.form_body(media, required)
        } else if let Some((kind, media)) = of(|kind| kind.starts_with("text/")) {
            let field = self.add("text", "body", Field::new(&media["schema"], required));
            self.body = Some(("text", written(&field).into()));
            self.content_type(kind, "text/plain")
        } else {
            let kinds: Vec<_> = content.keys().map(|kind| clip(essence(kind), 60)).take(3).collect();
            Err(format!("a body of {}", kinds.join(" or ")))
        };
        match taken {
            // A write whose only body can't be sent does nothing that anybody wants.
            Err(what) if required || matches!(&*self.operation.method, "POST" | "PUT" | "PATCH") => {
                Err(format!("it needs {what}, which a step can't send"))
            }
            Err(what) => {
                self.reader.note(format!("{what} can't be sent; it is left out"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// A JSON object's members become fields, where they can; else the body is one field.
    fn json_body(&mut self, media: &'d Value, required: bool) {
        let schema = &media["schema"];
        let flat = self.reader.flat(schema);
        let is_object = self.reader.kinds(schema) == Kinds { object: true, ..Kinds::default() };
        let choices: Option<Vec<_>> = flat.alternatives.iter().map(|schemas| required_only(schemas)).collect();
        // A body that need not be there must be possible to leave out, and an object of any members to send.
        let is_open = flat.get("additionalProperties").is_some_and(Value::is_object);
        let leaves_out = !required && self.operation.method == "DELETE";
        let clashes = flat.properties.keys().any(|name| !is_name(name) || self.fields.contains_key(*name));
        let fits = self.fields.len() + flat.properties.len() <= MAX_FIELDS;
        let Some(choices) = choices.filter(|_| is_object && !is_open && !leaves_out && !clashes && fits) else {
            return self.whole_body(schema, required);
        };
        if flat.properties.is_empty() {
            if flat.get("additionalProperties") != Some(&Value::Bool(false)) {
                self.whole_body(schema, required);
            }
            return;
        }
        let mut json = Map::new();
        let alone = self.fields.is_empty();
        for (name, schema) in flat.properties {
            if self.reader.flat(schema).is_hidden() {
                continue;
            }
            let required = required && flat.required.contains(name);
            let field = self.add("body", name, Field::new(schema, required));
            json.insert(name.to_owned(), written(&field).into());
        }
        let known = |choice: &&Value| {
            list(Some(choice)).iter().all(|each| {
                list(each.get("required")).iter().all(|name| name.as_str().is_some_and(|name| json.contains_key(name)))
            })
        };
        self.choices.extend(choices.iter().filter(|_| required).filter(known).cloned());
        let json = if alone { written("input").into() } else { json.into() };
        self.body = Some(("json", json));
    }

    fn whole_body(&mut self, schema: &'d Value, required: bool) {
        let field = self.add("json", "body", Field::new(schema, required));
        self.body = Some(("json", written(&field).into()));
    }

    fn form_body(&mut self, media: &'d Value, required: bool) -> Result<(), String> {
        let flat = self.reader.flat(&media["schema"]);
        let closed = flat.get("additionalProperties") == Some(&Value::Bool(false));
        if flat.properties.is_empty() && !closed {
            return Err("a form without named fields".to_owned());
        }
        if flat.properties.len() > MAX_FIELDS {
            return Err(format!("a form of more than {MAX_FIELDS} fields"));
        }
        let mut form = Map::new();
        for (name, schema) in flat.properties {
            if !is_name(name) || self.reader.flat(schema).is_hidden() {
                continue;
            }
            let required = required && flat.required.contains(name);
            let field = self.add("form", name, Field::new(schema, required));
            let kinds = self.reader.kinds(schema);
            let encoding = &media["encoding"][name];
            let value = if encoding["contentType"].as_str().is_some_and(is_json) {
                to_json(&field)
            } else if encoding["style"] == "deepObject" {
                deep(&mut form, name, &field, kinds);
                continue;
            } else if encoding["explode"] == Value::Bool(false) && kinds.list {
                join(&field, ",")
            } else {
                field
            };
            form.insert(name.to_owned(), written(&value).into());
        }
        self.body = (!form.is_empty()).then(|| ("form", form.into()));
        Ok(())
    }

    /// Sets the header where a body's type isn't the usual one.
    fn content_type(&mut self, kind: &str, usual: &str) -> Result<(), String> {
        let kind = essence(kind);
        if self.body.is_some() && !kind.eq_ignore_ascii_case(usual) && !kind.contains('*') {
            if HeaderValue::from_str(kind).is_err() || kind.contains("{{") {
                return Err("a body of a type that no header can carry".to_owned());
            }
            self.headers.insert("Content-Type".to_owned(), kind.into());
        }
        Ok(())
    }
}

/// Alternatives that differ only in what they require, and nothing else; none where they differ in more.
fn required_only(schemas: &[Value]) -> Option<Value> {
    const MAX: usize = 50;
    let each = schemas.iter().map(|schema| {
        let members = schema.as_object()?;
        let plain = |keyword: &String| matches!(keyword.as_str(), "required" | "title" | "description" | "type");
        let names = list(members.get("required")).iter().take(MAX + 1).map(Value::as_str);
        let names: IndexSet<&str> = names.collect::<Option<_>>()?;
        let fits = members.keys().all(plain) && (1..=MAX).contains(&names.len());
        fits.then(|| json!({ "required": names.into_iter().collect::<Vec<_>>() }))
    });
    each.take(MAX + 1).collect::<Option<Vec<_>>>().filter(|each| each.len() <= MAX).map(Value::from)
}
