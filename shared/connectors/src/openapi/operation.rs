//! One operation of a document as an action.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tidegate_egress::is_reserved_header;

use super::reader::Reader;
use super::schema::{Expansion, Extent, Kinds, TooLarge, is_constant, list};
use super::security::Ways;
use super::server::Server;
use super::text::{clip, label, plain};

/// The largest input of an action, in bytes of JSON.
const MAX_INPUT: usize = 64 * 1024;
/// The most fields of an action; each takes an expression, of which a step may hold 1,000.
const MAX_FIELDS: usize = 800;
/// The longest name of a field, and the longest path.
const MAX_NAME: usize = 100;
const MAX_PATH: usize = 1_000;
/// How far an input is expanded: the first extent that fits is taken.
const EXTENTS: [Extent; 10] = [
    Extent { depth: 16, described: true },
    Extent { depth: 10, described: true },
    Extent { depth: 7, described: true },
    Extent { depth: 5, described: true },
    Extent { depth: 5, described: false },
    Extent { depth: 4, described: false },
    Extent { depth: 3, described: false },
    Extent { depth: 2, described: false },
    Extent { depth: 1, described: false },
    Extent { depth: 0, described: false },
];

/// An operation of a document.
pub(super) struct Operation<'d> {
    /// The method, in capitals.
    pub(super) method: String,
    pub(super) path: &'d str,
    /// What stands at the path, the operation among it.
    pub(super) item: &'d Map<String, Value>,
    pub(super) members: &'d Map<String, Value>,
    /// The action's name.
    pub(super) name: String,
}

impl Operation<'_> {
    fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// A field of an action's input.
struct Field<'d> {
    schema: &'d Value,
    required: bool,
    description: Option<&'d str>,
    example: Option<&'d Value>,
}

/// A parameter of the operation; `place` is `path`, `query` or `header`.
#[derive(Clone, Copy)]
struct Parameter<'d> {
    place: &'d str,
    name: &'d str,
    members: &'d Value,
    schema: &'d Value,
    /// Whether it goes out as JSON.
    json: bool,
    required: bool,
}

/// The input and the request of an action, as they come together.
struct Action<'r, 'd> {
    reader: &'r mut Reader<'d>,
    operation: &'r Operation<'d>,
    fields: IndexMap<String, Field<'d>>,
    /// Lists of fields, of each of which one must be given whole.
    choices: Vec<Value>,
    /// Expressions of the path's parameters.
    path: IndexMap<&'d str, String>,
    query: Map<String, Value>,
    headers: Map<String, Value>,
    /// `json`, `form` or `text`, and its value.
    body: Option<(&'static str, Value)>,
    idempotent: bool,
}

/// Makes an action of an operation; adds its server's host to `hosts`.
///
/// # Errors
/// Why it is left out.
pub(super) fn action<'d>(
    reader: &mut Reader<'d>,
    operation: &Operation<'d>,
    server: &Server,
    ways: &Ways<'d>,
    hosts: &mut Vec<String>,
) -> Result<Value, String> {
    if !matches!(operation.method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE") {
        return Err(format!("a step can't send {}", operation.method));
    }
    let members = operation.members;
    let access = ways.access(reader, members);
    let mut action = Action {
        reader,
        operation,
        fields: IndexMap::new(),
        choices: Vec::new(),
        path: IndexMap::new(),
        query: Map::new(),
        headers: Map::new(),
        body: None,
        idempotent: false,
    };
    action.parameters()?;
    action.body()?;
    let answer = action.answer();
    let path = action.path()?;
    let input = action.input()?;
    let own = members.get("servers").or_else(|| operation.item.get("servers"));
    let own = action.reader.server(own, Some(server)).map_err(|what| format!("its server {what}"))?;
    let mut request = Map::from_iter([("method".to_owned(), Value::from(operation.method.as_str()))]);
    match own.filter(|own| own.url != server.url) {
        None => request.insert("path".to_owned(), path.into()),
        Some(own) => {
            if !hosts.contains(&own.host) {
                action.reader.note(format!("a connection's secret may also go to the host {:?}", own.host));
                hosts.push(own.host);
            }
            request.insert("url".to_owned(), format!("{}{path}", own.url).into())
        }
    };
    for (name, part) in [("query", action.query), ("headers", action.headers)] {
        if !part.is_empty() {
            request.insert(name.to_owned(), part.into());
        }
    }
    request.extend(action.body.map(|(kind, body)| (kind.to_owned(), body)));

    let text = |field: &str| members.get(field).and_then(Value::as_str);
    let help = text("description").and_then(|text| plain(text, 300));
    let deprecated = (members.get("deprecated") == Some(&Value::Bool(true))).then(|| "Deprecated.".to_owned());
    let help: Vec<_> = deprecated.into_iter().chain(help).collect();
    let link = members.get("externalDocs").and_then(|docs| docs["url"].as_str());
    let title = text("summary").and_then(|text| plain(text, 100));
    let parts: [(&str, Option<Value>); 10] = [
        ("title", Some(title.unwrap_or_else(|| label(text("operationId").unwrap_or(&operation.name))).into())),
        ("help", (!help.is_empty()).then(|| help.join(" ").into())),
        ("docs", link.and_then(|link| server.link(link)).map(Value::from)),
        ("effect", Some(if operation.is_read() { "read" } else { "write" }.into())),
        ("idempotent", action.idempotent.then(|| true.into())),
        ("auth", access.ways.map(Value::from)),
        ("connection", access.optional.then(|| "optional".into())),
        ("input", Some(input)),
        ("request", Some(request.into())),
        ("answer", answer.map(Value::from)),
    ];
    Ok(parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?))).collect::<Map<_, _>>().into())
}

impl<'d> Action<'_, 'd> {
    fn parameters(&mut self) -> Result<(), String> {
        for parameter in self.declared() {
            let Parameter { place, name, required, .. } = parameter;
            let taken = match place {
                _ if !is_name(name) => Err("has a name that can't be used".to_owned()),
                "path" => self.path_parameter(parameter),
                "query" => self.query_parameter(parameter),
                "header" => self.header_parameter(parameter),
                "cookie" => Err("goes out as a cookie, which can't be expressed".to_owned()),
                _ => Err("has no place that OpenAPI knows".to_owned()),
            };
            match taken {
                Ok(()) => {}
                Err(why) if required && place != "cookie" => {
                    return Err(format!("its parameter {:?} {why}", clip(name, 60)));
                }
                Err(why) => self.reader.note(format!("the parameter {:?} {why}; it is left out", clip(name, 60))),
            }
        }
        Ok(())
    }

    /// The parameters, those of the operation winning over those of its path.
    fn declared(&mut self) -> Vec<Parameter<'d>> {
        let mut declared = IndexMap::new();
        let (item, operation) = (self.operation.item, self.operation.members);
        let both = list(item.get("parameters")).iter().chain(list(operation.get("parameters")));
        for parameter in both.take(2 * MAX_FIELDS) {
            let Some(members) = self.reader.follow(parameter) else { continue };
            let (Some(place), Some(name)) = (members["in"].as_str(), members["name"].as_str()) else { continue };
            let content = members["content"].as_object().and_then(|content| content.iter().next());
            let schema = content.map_or(&members["schema"], |(_, media)| &media["schema"]);
            let json = content.is_some_and(|(kind, _)| is_json(kind));
            let required = place == "path" || members["required"] == Value::Bool(true);
            declared.insert((place, name), Parameter { place, name, members, schema, json, required });
        }
        declared.into_values().collect()
    }

    fn path_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        if !self.operation.path.contains(&format!("{{{}}}", parameter.name)) {
            return Ok(());
        }
        if parameter.members["style"].as_str().is_some_and(|style| style != "simple") {
            return Err("goes out in a style that can't be expressed".to_owned());
        }
        let field = self.add_parameter(parameter);
        let value = written(&self.joined(parameter, &field, ","));
        self.path.insert(parameter.name, value);
        Ok(())
    }

    fn header_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        let name = parameter.name;
        // OpenAPI has these three ignored; what they are follows from the bodies and the way to sign in.
        if ["accept", "content-type", "authorization"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Ok(());
        }
        if name.eq_ignore_ascii_case("idempotency-key") && !self.operation.is_read() {
            self.idempotent = true;
            return Ok(());
        }
        if HeaderName::from_bytes(name.as_bytes()).is_err() || is_reserved_header(name) {
            return Err("is a header that can't be set".to_owned());
        }
        let field = self.add_parameter(parameter);
        let value = written(&self.joined(parameter, &field, ","));
        self.headers.insert(name.to_owned(), value.into());
        Ok(())
    }

    fn query_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        let style = parameter.members["style"].as_str().unwrap_or("form");
        let explode = parameter.members["explode"].as_bool().unwrap_or(style == "form");
        let kinds = self.reader.kinds(parameter.schema);
        if parameter.json {
            let field = self.add_parameter(parameter);
            let value = format!("{field} | to_json if {field} is not none else none");
            self.query.insert(parameter.name.to_owned(), written(&value).into());
        } else if style == "deepObject" {
            let field = self.add_parameter(parameter);
            deep(&mut self.query, parameter.name, &field, kinds);
        } else if style == "form" && explode && kinds == (Kinds { object: true, ..Kinds::default() }) {
            return self.object_parameter(parameter);
        } else {
            let separator = match style {
                "spaceDelimited" => " ",
                "pipeDelimited" => "|",
                _ => ",",
            };
            let field = self.add_parameter(parameter);
            let value = if explode { field } else { self.joined(parameter, &field, separator) };
            self.query.insert(parameter.name.to_owned(), written(&value).into());
        }
        Ok(())
    }

    /// An object whose members are parameters of their own.
    fn object_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        let flat = self.reader.flat(parameter.schema);
        if flat.properties.is_empty() {
            return Err("is an object without named members".to_owned());
        }
        for (name, schema) in flat.properties {
            let required = parameter.required && flat.required.contains(name);
            if is_name(name) && !self.query.contains_key(name) {
                let field = self.add("query", name, Field { schema, required, description: None, example: None });
                self.query.insert(name.to_owned(), written(&field).into());
            }
        }
        Ok(())
    }

    /// The expression of a value whose lists become one text.
    fn joined(&mut self, parameter: Parameter<'d>, field: &str, separator: &str) -> String {
        let kinds = self.reader.kinds(parameter.schema);
        if parameter.json {
            format!("{field} | to_json if {field} is not none else none")
        } else if kinds.list || kinds.nested_list {
            format!("{field} | join(\"{separator}\") if {field} is sequence else {field}")
        } else {
            field.to_owned()
        }
    }

    fn add_parameter(&mut self, parameter: Parameter<'d>) -> String {
        let Parameter { place, name, members, schema, required, .. } = parameter;
        let example = members.get("example").filter(|example| is_constant(example));
        self.add(place, name, Field { schema, required, description: members["description"].as_str(), example })
    }

    /// Adds a field, by another name where its own is taken; yields the expression for it.
    fn add(&mut self, place: &str, name: &str, field: Field<'d>) -> String {
        let mut given = name.to_owned();
        while self.fields.contains_key(&given) {
            given = format!("{place}_{given}");
        }
        let expression = field_of_input(&given);
        self.fields.insert(given, field);
        expression
    }

    fn body(&mut self) -> Result<(), String> {
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
            let field = self.add("text", "body", Field::of_body(&media["schema"], required));
            self.body = Some(("text", written(&field).into()));
            self.content_type(kind, "text/plain")
        } else {
            let kinds: Vec<_> = content.keys().map(|kind| clip(essence(kind), 60)).take(3).collect();
            Err(format!("a body of {}", kinds.join(" or ")))
        };
        match taken {
            Err(what) if required => Err(format!("it needs {what}, which a step can't send")),
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
            let field = self.add("body", name, Field { schema, required, description: None, example: None });
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
        let field = self.add("json", "body", Field::of_body(schema, required));
        self.body = Some(("json", written(&field).into()));
    }

    fn form_body(&mut self, media: &'d Value, required: bool) -> Result<(), String> {
        let flat = self.reader.flat(&media["schema"]);
        let closed = flat.get("additionalProperties") == Some(&Value::Bool(false));
        if flat.properties.is_empty() && !closed {
            return Err("a form without named fields".to_owned());
        }
        let mut form = Map::new();
        for (name, schema) in flat.properties {
            if !is_name(name) || self.reader.flat(schema).is_hidden() {
                continue;
            }
            let required = required && flat.required.contains(name);
            let field = self.add("form", name, Field { schema, required, description: None, example: None });
            let kinds = self.reader.kinds(schema);
            let encoding = &media["encoding"][name];
            if encoding["contentType"].as_str().is_some_and(is_json) {
                let value = format!("{field} | to_json if {field} is not none else none");
                form.insert(name.to_owned(), written(&value).into());
            } else if encoding["style"] == "deepObject" {
                deep(&mut form, name, &field, kinds);
            } else if encoding["explode"] == Value::Bool(false) && kinds.list {
                let value = format!("{field} | join(\",\") if {field} is sequence else {field}");
                form.insert(name.to_owned(), written(&value).into());
            } else {
                form.insert(name.to_owned(), written(&field).into());
            }
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

    /// How the answer is read, where it isn't JSON; asks for JSON where there is a choice.
    fn answer(&mut self) -> Option<&'static str> {
        let responses = self.operation.members.get("responses").and_then(Value::as_object);
        let all = || responses.into_iter().flatten();
        let mut successes: Vec<_> = all().filter(|(status, _)| status.starts_with('2')).take(10).collect();
        if successes.is_empty() {
            successes.extend(all().filter(|(status, _)| *status == "default"));
        }
        let is_empty =
            !successes.is_empty() && successes.iter().all(|(status, _)| matches!(status.as_str(), "204" | "205"));
        let mut kinds: Vec<&str> = Vec::new();
        for (_, response) in successes {
            let content = self.reader.follow(response).and_then(|response| response["content"].as_object());
            kinds.extend(content.into_iter().flat_map(Map::keys).map(|kind| essence(kind)).take(10));
        }
        match kinds.iter().find(|kind| is_json(kind)) {
            Some(json) => {
                let is_usual = kinds.iter().all(|kind| kind.eq_ignore_ascii_case("application/json"));
                if !is_usual && HeaderValue::from_str(json).is_ok() && !json.contains("{{") {
                    self.headers.insert("Accept".to_owned(), (*json).into());
                }
                None
            }
            None if kinds.is_empty() && is_empty => None,
            None if !kinds.is_empty() && kinds.iter().all(|kind| kind.starts_with("text/")) => Some("text"),
            None => Some("any"),
        }
    }

    /// The path with an expression for each of its parameters.
    fn path(&mut self) -> Result<String, String> {
        let path = self.operation.path;
        if path.len() > MAX_PATH {
            return Err(format!("its path has more than {MAX_PATH} bytes"));
        }
        let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '?' | '#' | '\\' | '{' | '}');
        let plain = |text: &str| match text.chars().all(is_plain) {
            true => Ok(text.to_owned()),
            false => Err("its path holds what can't stand in one, such as `?` or a space"),
        };
        let mut filled = String::new();
        let mut rest = path;
        while let Some((before, inside)) = rest.split_once('{') {
            let (name, after) = inside.split_once('}').ok_or("its path has a `{` without its `}`")?;
            if !is_name(name) || name.contains('{') {
                return Err("its path has a parameter whose name can't be used".to_owned());
            }
            if !self.path.contains_key(name) {
                let field = Field { schema: &TEXT, required: true, description: None, example: None };
                let field = self.add("path", name, field);
                self.path.insert(name, written(&field));
            }
            filled = filled + &plain(before)? + &self.path[name];
            rest = after;
        }
        filled.push_str(&plain(rest)?);
        if !path.starts_with('/') || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err("its path doesn't begin with `/`, or goes up".to_owned());
        }
        Ok(filled)
    }

    /// The schema of the input, expanded as far as there is room.
    fn input(&mut self) -> Result<Value, String> {
        if self.fields.len() > MAX_FIELDS {
            return Err(format!("it takes more than {MAX_FIELDS} fields, which no step can fill in"));
        }
        for (index, extent) in EXTENTS.into_iter().enumerate() {
            if let Ok((input, is_cut)) = self.expanded(extent) {
                if is_cut && index > 0 {
                    self.reader.note(format!(
                        "nested parts of the input are cut, as it would be larger than {} KB",
                        MAX_INPUT / 1024
                    ));
                }
                return Ok(input);
            }
        }
        Err(format!("its input is larger than {} KB", MAX_INPUT / 1024))
    }

    fn expanded(&mut self, extent: Extent) -> Result<(Value, bool), TooLarge> {
        let mut expansion = Expansion::new(self.reader, extent, MAX_INPUT);
        let mut properties = Map::new();
        for (name, field) in &self.fields {
            let mut made = Map::from_iter([("title".to_owned(), Value::from(label(name)))]);
            made.extend(expansion.expand(field.schema)?.unwrap_or_default());
            if let Some(description) = field.description.and_then(|description| plain(description, 300)) {
                made.insert("description".to_owned(), description.into());
            }
            if let Some(example) = field.example {
                made.entry("examples").or_insert_with(|| json!([example]));
            }
            expansion.charge(name.len() + 60 + made.get("description").map_or(0, |text| text.to_string().len()))?;
            properties.insert(name.clone(), made.into());
        }
        let required: Vec<_> = self.fields.iter().filter(|(_, field)| field.required).map(|(name, _)| name).collect();
        let mut input =
            Map::from_iter([("type".to_owned(), "object".into()), ("properties".to_owned(), properties.into())]);
        if !required.is_empty() {
            input.insert("required".to_owned(), json!(required));
        }
        if !self.choices.is_empty() {
            let choices = self.choices.iter().map(|choice| json!({ "anyOf": choice }));
            input.insert("allOf".to_owned(), choices.collect());
        }
        input.insert("additionalProperties".to_owned(), false.into());
        Ok((input.into(), expansion.cut))
    }
}

impl<'d> Field<'d> {
    fn of_body(schema: &'d Value, required: bool) -> Self {
        Self { schema, required, description: None, example: None }
    }
}

/// The schema of a path's parameter that isn't declared.
static TEXT: LazyLock<Value> = LazyLock::new(|| json!({ "type": "string" }));

/// A template that is this expression.
fn written(expression: &str) -> String {
    format!("{{{{ {expression} }}}}")
}

/// The expression for a field of the input.
fn field_of_input(name: &str) -> String {
    let is_word = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_word && !name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("input.{name}")
    } else {
        format!("input[{}]", Value::from(name))
    }
}

/// Adds a field that goes out as `deepObject`: an object's members as `name[member]`, those of a list as `name[]`.
fn deep(members: &mut Map<String, Value>, name: &str, field: &str, kinds: Kinds) {
    let (only_list, has_list) = (Kinds { list: true, ..Kinds::default() }, kinds.list && !kinds.nested_list);
    if kinds == only_list {
        members.insert(format!("{name}[]"), written(field).into());
    } else if has_list {
        members.insert(format!("{name}[]"), written(&format!("{field} if {field} is sequence else none")).into());
        members.insert(name.to_owned(), written(&format!("none if {field} is sequence else {field}")).into());
    } else {
        members.insert(name.to_owned(), written(field).into());
    }
}

/// Whether a field, parameter or member can be called so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains("{{") && !name.chars().any(char::is_control)
}

/// A media type without its parameters.
fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

fn is_json(kind: &str) -> bool {
    let kind = essence(kind).to_ascii_lowercase();
    kind == "application/json" || (kind.ends_with("+json") && !kind.contains('*'))
}

/// Alternatives that differ only in what they require, and nothing else; none where they differ in more.
fn required_only(schemas: &[Value]) -> Option<Value> {
    let each = schemas.iter().map(|schema| {
        let members = schema.as_object()?;
        let rest =
            members.keys().all(|keyword| matches!(keyword.as_str(), "required" | "title" | "description" | "type"));
        let names: Vec<_> = list(members.get("required")).iter().map(Value::as_str).collect::<Option<_>>()?;
        (rest && !names.is_empty()).then(|| json!({ "required": names }))
    });
    each.collect::<Option<Vec<_>>>().map(Value::from)
}
