//! One operation of a document as an action.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tidegate_egress::is_reserved_header;

use super::reader::Reader;
use super::schema::{Expansion, Kinds, MAX_DESCRIPTION, TooLarge, is_constant, list};
use super::security::Ways;
use super::server::Server;
use super::text::{clip, label};

/// The largest input of an action, in bytes of JSON.
const MAX_INPUT: usize = 64 * 1024;
/// The most fields of an action; each takes an expression, of which a step may hold 1,000.
pub(super) const MAX_FIELDS: usize = 800;
/// How much work a parameter is, next to a schema.
const PARAMETER_WORK: usize = 50;
/// The longest name of a field, and the longest path.
const MAX_NAME: usize = 100;
const MAX_PATH: usize = 1_000;
/// How deep an input is expanded: the first depth that fits is taken.
const DEPTHS: [usize; 9] = [16, 10, 7, 5, 4, 3, 2, 1, 0];

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
    pub(super) fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// A field of an action's input.
pub(super) struct Field<'d> {
    pub(super) schema: &'d Value,
    pub(super) required: bool,
    pub(super) description: Option<&'d str>,
    pub(super) example: Option<&'d Value>,
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
pub(super) struct Action<'r, 'd> {
    pub(super) reader: &'r mut Reader<'d>,
    pub(super) operation: &'r Operation<'d>,
    pub(super) fields: IndexMap<String, Field<'d>>,
    /// Lists of fields, of each of which one must be given whole.
    pub(super) choices: Vec<Value>,
    /// Expressions of the path's parameters.
    path: IndexMap<&'d str, String>,
    query: Map<String, Value>,
    pub(super) headers: Map<String, Value>,
    /// `json`, `form` or `text`, and its value.
    pub(super) body: Option<(&'static str, Value)>,
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
    if operation.path.len() > MAX_PATH {
        return Err(format!("its path has more than {MAX_PATH} bytes"));
    }
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
    action.parameters(ways)?;
    let path = action.path()?;
    action.body()?;
    let answer = action.answer();
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
    let help = text("description").and_then(|text| action.reader.plain(text, 300));
    let deprecated = (members.get("deprecated") == Some(&Value::Bool(true))).then(|| "Deprecated.".to_owned());
    let help: Vec<_> = deprecated.into_iter().chain(help).collect();
    let link = members.get("externalDocs").and_then(|docs| docs["url"].as_str());
    let title = text("summary").and_then(|text| action.reader.plain(text, 100));
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
    fn parameters(&mut self, ways: &Ways<'d>) -> Result<(), String> {
        for parameter in self.declared() {
            let Parameter { place, name, required, .. } = parameter;
            let taken = match place {
                _ if ways.fill_in(place, name) => Ok(()),
                _ if !is_name(name) => Err("has a name that can't be used".to_owned()),
                "path" => self.path_parameter(parameter),
                "query" => self.query_parameter(parameter),
                "header" => self.header_parameter(parameter),
                "cookie" => Err("goes out as a cookie, which can't be expressed".to_owned()),
                _ => Err("has no place that OpenAPI knows".to_owned()),
            };
            match taken {
                Ok(()) => {}
                Err(why) if required => {
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
        for parameter in both.take(MAX_FIELDS + 1) {
            self.reader.spend(PARAMETER_WORK);
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
        let value = written(&self.joined(parameter, ",")?);
        self.path.insert(parameter.name, value);
        Ok(())
    }

    fn header_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        let name = parameter.name;
        // These follow from the bodies and the way to sign in, or are the client's own.
        let follows = ["accept", "content-type", "authorization"].iter().any(|own| name.eq_ignore_ascii_case(own));
        if follows || is_reserved_header(name) {
            return Ok(());
        }
        if name.eq_ignore_ascii_case("idempotency-key") && !self.operation.is_read() {
            self.idempotent = true;
            return Ok(());
        }
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err("has a name that no header can have".to_owned());
        }
        let value = written(&self.joined(parameter, ",")?);
        self.headers.insert(name.to_owned(), value.into());
        Ok(())
    }

    fn query_parameter(&mut self, parameter: Parameter<'d>) -> Result<(), String> {
        let style = parameter.members["style"].as_str().unwrap_or("form");
        let explode = parameter.members["explode"].as_bool().unwrap_or(style == "form");
        let kinds = self.reader.kinds(parameter.schema);
        if style == "deepObject" && !parameter.json {
            let field = self.add_parameter(parameter);
            deep(&mut self.query, parameter.name, &field, kinds);
            return Ok(());
        }
        if style == "form" && explode && !parameter.json && kinds == (Kinds { object: true, ..Kinds::default() }) {
            return self.object_parameter(parameter);
        }
        let value = match style {
            _ if explode && !parameter.json => self.add_parameter(parameter),
            "spaceDelimited" => self.joined(parameter, " ")?,
            "pipeDelimited" => self.joined(parameter, "|")?,
            _ => self.joined(parameter, ",")?,
        };
        self.query.insert(parameter.name.to_owned(), written(&value).into());
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
                let field = self.add("query", name, Field::new(schema, required));
                self.query.insert(name.to_owned(), written(&field).into());
            }
        }
        Ok(())
    }

    /// The expression of a value that is sent as one text.
    fn joined(&mut self, parameter: Parameter<'d>, separator: &str) -> Result<String, String> {
        let kinds = self.reader.kinds(parameter.schema);
        if parameter.json {
            Ok(to_json(&self.add_parameter(parameter)))
        } else if kinds.object {
            Err("is an object in a style that can't be expressed".to_owned())
        } else {
            let field = self.add_parameter(parameter);
            Ok(if kinds.list || kinds.nested_list { join(&field, separator) } else { field })
        }
    }

    fn add_parameter(&mut self, parameter: Parameter<'d>) -> String {
        let Parameter { place, name, members, schema, required, .. } = parameter;
        let example = members.get("example").filter(|example| is_constant(example));
        self.add(place, name, Field { schema, required, description: members["description"].as_str(), example })
    }

    /// Adds a field, by another name where its own is taken; yields the expression for it.
    pub(super) fn add(&mut self, place: &str, name: &str, field: Field<'d>) -> String {
        let mut given = name.to_owned();
        while self.fields.contains_key(&given) {
            given = format!("{place}_{given}");
        }
        let expression = field_of_input(&given);
        self.fields.insert(given, field);
        expression
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
        // What some documents write behind a `#` only tells operations on the same path apart.
        let path = self.operation.path.split('#').next().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if !is_name(&name) || query.contains('{') || value.contains("{{") {
                return Err("its path has a query that can't be expressed".to_owned());
            }
            self.query.entry(name.into_owned()).or_insert_with(|| value.into());
        }
        let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '\\' | '{' | '}');
        let plain = |text: &str| match text.chars().all(is_plain) {
            true => Ok(text.to_owned()),
            false => Err("its path holds what can't stand in one, such as a space"),
        };
        let is_up = |segment: &str| matches!(segment.to_lowercase().replace("%2e", ".").as_str(), "." | "..");
        let mut filled = String::new();
        let mut rest = path;
        while let Some((before, inside)) = rest.split_once('{') {
            let (name, after) = inside.split_once('}').ok_or("its path has a `{` without its `}`")?;
            if !is_name(name) || name.contains('{') {
                return Err("its path has a parameter whose name can't be used".to_owned());
            }
            if !self.path.contains_key(name) {
                let field = self.add("path", name, Field::new(&TEXT, true));
                self.path.insert(name, written(&field));
            }
            filled = filled + &plain(before)? + &self.path[name];
            rest = after;
        }
        filled.push_str(&plain(rest)?);
        if !path.starts_with('/') || path.split('/').any(is_up) {
            return Err("its path doesn't begin with `/`, or goes up".to_owned());
        }
        Ok(filled)
    }

    /// The schema of the input, expanded as far as there is room.
    fn input(&mut self) -> Result<Value, String> {
        if self.fields.len() > MAX_FIELDS {
            return Err(format!("it takes more than {MAX_FIELDS} fields, which no step can fill in"));
        }
        for depth in DEPTHS {
            let Ok((input, is_cut)) = self.expanded(depth) else { continue };
            if is_cut && depth < DEPTHS[0] {
                let limit = MAX_INPUT / 1024;
                self.reader.note(format!("nested parts of the input are cut, as it would be larger than {limit} KB"));
            }
            return Ok(input);
        }
        Err(format!("its input is larger than {} KB", MAX_INPUT / 1024))
    }

    fn expanded(&mut self, depth: usize) -> Result<(Value, bool), TooLarge> {
        let mut expansion = Expansion::new(self.reader, depth, MAX_INPUT);
        let mut properties = Map::new();
        for (name, field) in &self.fields {
            let mut made = Map::from_iter([("title".to_owned(), Value::from(label(name)))]);
            made.extend(expansion.expand(field.schema)?.unwrap_or_default());
            let description = field.description.filter(|_| expansion.is_described());
            if let Some(description) = description.and_then(|text| expansion.reader.plain(text, MAX_DESCRIPTION)) {
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
    pub(super) fn new(schema: &'d Value, required: bool) -> Self {
        Self { schema, required, description: None, example: None }
    }
}

/// The schema of a path's parameter that isn't declared.
static TEXT: LazyLock<Value> = LazyLock::new(|| json!({ "type": "string" }));

/// A template that is this expression.
pub(super) fn written(expression: &str) -> String {
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

pub(super) fn to_json(field: &str) -> String {
    format!("{field} | to_json if {field} is not none else none")
}

pub(super) fn join(field: &str, separator: &str) -> String {
    format!("{field} | join(\"{separator}\") if {field} is sequence else {field}")
}

/// Adds a field that goes out as `deepObject`: an object's members as `name[member]`, those of a list as `name[]`.
pub(super) fn deep(members: &mut Map<String, Value>, name: &str, field: &str, kinds: Kinds) {
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
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains("{{") && !name.chars().any(char::is_control)
}

/// A media type without its parameters.
pub(super) fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

pub(super) fn is_json(kind: &str) -> bool {
    let kind = essence(kind).to_ascii_lowercase();
    kind == "application/json" || (kind.ends_with("+json") && !kind.contains('*'))
}
