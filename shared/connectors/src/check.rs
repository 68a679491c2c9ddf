//! Reads manifests and says what is wrong with them: their shape by the published schema, then what they mean.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tidegate_engine::{
    TemplatePart, check_expression, check_templates, expression_references, references, template_parts,
};
use tidegate_model::{Builtin, FieldError, Placeholder, Pointer, Publisher, check_json_value};
use url::Url;

use crate::manifest::{
    ActionDocument, Answers, ConnectorDocument, EffectRule, Field, Given, Hosts, KeyPlace, Manifest, NextPage,
    RequestTemplate, SignIn, SignInKind,
};
use crate::sign_in::{API_KEY, PASSWORD, TOKEN, USERNAME, parse_host};
use crate::{Action, Schema, catalogue};

/// The longest manifest, in bytes: what one request can bring.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// The largest action, in bytes of JSON: it is stored as one item.
const MAX_ACTION_BYTES: usize = 128 * 1024;
/// The largest manifest without its actions, in bytes of JSON.
const MAX_CONNECTOR_BYTES: usize = 64 * 1024;
/// More errors than these help nobody.
const MAX_ERRORS: usize = 50;
/// Compiled patterns take time and memory.
const MAX_PATTERNS: usize = 500;

static SCHEMA: Schema = Schema::new(include_str!("../../../docs/connector.schema.json"));

/// The JSON Schema of manifests.
pub fn manifest_schema() -> &'static Value {
    SCHEMA.document()
}

/// Reads a tenant's manifest: YAML, of which JSON is a part.
///
/// # Errors
/// All that is wrong with it, up to 50 places; changes nothing.
pub fn read_manifest(text: &str) -> Result<Manifest, Vec<FieldError>> {
    check_manifest(parse(text)?)
}

/// As [`read_manifest`], of a document.
///
/// # Errors
/// All that is wrong with it.
pub fn check_manifest(document: Value) -> Result<Manifest, Vec<FieldError>> {
    let manifest = typed(document)?;
    let mut check = Check { errors: Vec::new() };
    check.manifest(&manifest);
    check.tenants_own(&manifest);
    check.errors.truncate(MAX_ERRORS);
    if check.errors.is_empty() { Ok(manifest) } else { Err(check.errors) }
}

/// Reads a manifest that is built in, whose meaning a test checks.
pub(crate) fn read_builtin(text: &str) -> Result<Manifest, Vec<FieldError>> {
    let document = parse(text)?;
    serde_json::from_value(document).map_err(|error| vec![FieldError::new(Pointer::root(), error.to_string())])
}

/// All that is wrong with a manifest that is built in.
pub fn check_builtin(text: &str) -> Vec<FieldError> {
    let manifest = match parse(text).and_then(typed) {
        Ok(manifest) => manifest,
        Err(errors) => return errors,
    };
    let mut check = Check { errors: Vec::new() };
    check.manifest(&manifest);
    check.errors
}

/// Reads an OpenAPI document: JSON or YAML. Its sizes are bounded by whoever got it, and by the import itself.
///
/// # Errors
/// It is neither; a sentence that says where.
pub fn read_document(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    yaml(text).map_err(|error| format!("it is no YAML: {error}"))
}

/// YAML 1.2, to which `no` and `0123` are texts: what a value is must not depend on a country's code. The bounds on aliases and
/// nesting are the library's own, made for texts of strangers.
fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { strict_booleans: true, leading_zero_numbers_as_strings: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let told = first_line(&error);
        let told = told.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
        // What most often goes wrong in a manifest.
        let is_bare = text.lines().any(|line| line.contains(": {{") || line.contains("- {{"));
        let hint = if is_bare { "; a text that begins with `{{` has to stand in quotes" } else { "" };
        format!("{told}{hint}")
    })
}

fn parse(text: &str) -> Result<Value, Vec<FieldError>> {
    let fault = |detail: String| vec![FieldError::new(Pointer::root(), detail)];
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(fault(format!("the manifest has more than {MAX_MANIFEST_BYTES} bytes")));
    }
    let document = yaml(text).map_err(|error| fault(format!("the manifest is no YAML: {error}")))?;
    check_json_value(&document).map_err(|error| fault(format!("the manifest has {error}")))?;
    Ok(document)
}

fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn typed(document: Value) -> Result<Manifest, Vec<FieldError>> {
    let mut errors = SCHEMA.errors(&document, |_| false);
    errors.truncate(MAX_ERRORS);
    if !errors.is_empty() {
        return Err(errors);
    }
    serde_json::from_value(document).map_err(|error| vec![FieldError::new(Pointer::root(), error.to_string())])
}

struct Check {
    errors: Vec<FieldError>,
}

/// What an expression can name.
const REQUEST_NAMES: &[&str] = &["input", "connection", "now"];
const ANSWER_NAMES: &[&str] = &["status", "headers", "body", "input", "now"];
const ITEM_NAMES: &[&str] = &["status", "headers", "body", "input", "now", "item"];

impl Check {
    fn tell(&mut self, at: &Pointer, detail: impl Into<String>) {
        self.errors.push(FieldError::new(at.clone(), detail));
    }

    /// What holds for a tenant's manifests alone.
    fn tenants_own(&mut self, manifest: &Manifest) {
        let root = Pointer::root();
        let name = &manifest.connector.name;
        if is_reserved(name) {
            self.tell(
                &root.push("name"),
                format!("{name:?} is the name of a built-in connector; choose another, such as \"my_{name}\""),
            );
        }
        if manifest.actions.is_empty() {
            self.tell(&root.push("actions"), "must have at least one");
        }
        if matches!(manifest.connector.hosts, Hosts::Given(Given::Given)) {
            self.tell(
                &root.push("hosts"),
                "expected a list: only built-in connectors leave the hosts to their connections",
            );
        }
        for (index, sign_in) in manifest.connector.auth.iter().enumerate() {
            let at = root.push("auth").push(index);
            if let SignInKind::OAuth2(oauth) = &sign_in.kind
                && oauth.provider.is_some()
            {
                let detail =
                    "is for built-in connectors; give authorization_url and token_url, and each connection its client";
                self.tell(&at.push("provider"), detail);
            }
        }
        let patterns: usize = manifest.actions.values().map(|action| patterns_in(&action.input)).sum();
        if patterns > MAX_PATTERNS {
            self.tell(
                &root.push("actions"),
                format!("have {patterns} patterns; at most {MAX_PATTERNS} can be checked"),
            );
        }
        for (name, action) in &manifest.actions {
            let at = root.push("actions").push(name);
            if action.native.is_some() {
                self.tell(&at.push("native"), "is for built-in connectors; describe the request");
            }
            if action.effect == EffectRule::ByMethod {
                self.tell(&at.push("effect"), "must be read or write");
            }
        }
        if bytes(&manifest.connector) > MAX_CONNECTOR_BYTES {
            self.tell(&root, format!("has more than {MAX_CONNECTOR_BYTES} bytes besides its actions"));
        }
        for (name, action) in &manifest.actions {
            if bytes(action) > MAX_ACTION_BYTES {
                self.tell(&root.push("actions").push(name), format!("has more than {MAX_ACTION_BYTES} bytes"));
            }
        }
    }

    fn manifest(&mut self, manifest: &Manifest) {
        let root = Pointer::root();
        let connector = &manifest.connector;
        self.hosts(connector);
        self.base_url(connector);
        self.headers(&connector.headers, &root);
        self.template(&json!(connector.headers), &root.push("headers"), &["connection", "now"]);
        let mut ids = BTreeSet::new();
        for (index, sign_in) in connector.auth.iter().enumerate() {
            let at = root.push("auth").push(index);
            if !ids.insert(sign_in.id.as_str()) {
                self.tell(&at.push("id"), "is the id of an earlier one; ids must be unique");
            }
            self.sign_in(connector, sign_in, &at);
        }
        self.answers(&connector.answers, &root);
        if let Some(test) = &connector.test {
            let at = root.push("test");
            self.request(connector, &test.request, &[], test.auth.as_deref(), &at.push("request"));
            if !matches!(test.request.method.as_str(), "GET" | "HEAD" | "POST") {
                self.tell(&at.push("request").push("method"), "must be GET, HEAD or POST: the request must only read");
            }
            if let Some(account) = &test.account {
                self.template(&json!(account), &at.push("account"), ANSWER_NAMES);
            }
            self.ids(&ids, test.auth.as_deref(), &at);
        }
        for (name, action) in &manifest.actions {
            let at = root.push("actions").push(name);
            self.ids(&ids, action.auth.as_deref(), &at);
            self.action(manifest, name, action, &at);
        }
    }

    fn hosts(&mut self, connector: &ConnectorDocument) {
        let Hosts::Listed(hosts) = &connector.hosts else { return };
        for (index, host) in hosts.iter().enumerate() {
            let at = Pointer::root().push("hosts").push(index);
            match self.probe(connector, host, &at) {
                Some(probe) if parse_host(&probe).is_none() => {
                    let detail = "expected a host such as \"api.example.com\" or \"api.example.com:8443\", \
                                  without scheme, path or wildcard";
                    self.tell(&at, detail);
                }
                _ => {}
            }
        }
    }

    /// A text as it could look once its settings are filled in; `None` where it can't be read, which is told.
    fn probe(&mut self, connector: &ConnectorDocument, text: &str, at: &Pointer) -> Option<String> {
        let is_setting = |name: &str| {
            let fields = connector.auth.iter().filter_map(|sign_in| sign_in.all_fields().get(name).cloned());
            fields.into_iter().any(|field| !field.secret)
        };
        let filled = Placeholder::fill(text, |name| is_setting(name).then(|| "443".to_owned()));
        filled.map_err(|error| self.tell(at, error.to_string())).ok()
    }

    fn base_url(&mut self, connector: &ConnectorDocument) {
        let Some(base) = &connector.base_url else { return };
        let at = Pointer::root().push("base_url");
        if base.contains(['?', '#']) {
            self.tell(&at, "must not have a query or fragment");
        }
        self.probe(connector, base, &at);
        self.address(connector, base, &at);
    }

    /// A URL has to be on one of the connector's hosts, as both are written.
    fn address(&mut self, connector: &ConnectorDocument, url: &str, at: &Pointer) {
        let Some((scheme, rest)) = url.split_once("://") else { return };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if scheme != "https" && !host.contains(':') {
            self.tell(at, "must begin with https://; plain http is only for a host with its port");
        }
        if let Hosts::Listed(hosts) = &connector.hosts {
            let plain = |host: &str| host.to_ascii_lowercase().trim_end_matches(":443").replace(' ', "");
            if !hosts.iter().any(|known| plain(known) == plain(host)) {
                self.tell(at, format!("goes to {host:?}, which is none of the connector's hosts"));
            }
        }
    }

    fn ids(&mut self, known: &BTreeSet<&str>, named: Option<&[String]>, at: &Pointer) {
        for (index, id) in named.unwrap_or_default().iter().enumerate() {
            if !known.contains(id.as_str()) {
                self.tell(&at.push("auth").push(index), format!("there is no way to sign in {id:?}"));
            }
        }
    }

    fn sign_in(&mut self, connector: &ConnectorDocument, sign_in: &SignIn, at: &Pointer) {
        let fields = sign_in.all_fields();
        for (name, field) in &sign_in.fields {
            self.field(field, &at.push("fields").push(name));
        }
        let mut texts: Vec<(Pointer, &str)> = Vec::new();
        match &sign_in.kind {
            SignInKind::None => {}
            SignInKind::Url => {
                if fields.get("webhook_url").is_none_or(|field| !field.secret) {
                    self.tell(&at.push("fields").push("webhook_url"), "must be secret");
                }
            }
            SignInKind::ApiKey { place, name, prefix, value } => {
                if *place == KeyPlace::Header {
                    self.header(name, &at.push("name"));
                }
                texts.push((at.push("prefix"), prefix));
                texts.push((at.push("value"), value.as_deref().unwrap_or(API_KEY)));
            }
            SignInKind::Bearer { token } => texts.push((at.push("token"), token.as_deref().unwrap_or(TOKEN))),
            SignInKind::Basic { username, password } => {
                texts.push((at.push("username"), username.as_deref().unwrap_or(USERNAME)));
                texts.push((at.push("password"), password.as_deref().unwrap_or(PASSWORD)));
            }
            SignInKind::OAuth2(oauth) => {
                if oauth.provider.is_none() && (oauth.authorization_url.is_none() || oauth.token_url.is_none()) {
                    self.tell(at, "needs authorization_url and token_url");
                }
                for (name, url) in [("authorization_url", &oauth.authorization_url), ("token_url", &oauth.token_url)] {
                    let Some(url) = url else { continue };
                    let at = at.push(name);
                    let Some(probe) = self.probe(connector, url, &at) else { continue };
                    let parsed = Url::parse(&probe).ok();
                    if !parsed
                        .is_some_and(|url| url.scheme() == "https" || (url.scheme() == "http" && url.port().is_some()))
                    {
                        self.tell(&at, "expected a URL that begins with https://");
                    }
                }
            }
            SignInKind::Custom { headers, query } => {
                for (part, values) in [("headers", headers), ("query", query)] {
                    for (name, value) in values {
                        let at = at.push(part).push(name);
                        texts.push((at.clone(), value));
                        // A name is shown, so it holds no secret.
                        let setting =
                            |setting: &str| fields.get(setting).filter(|field| !field.secret).map(|_| "x".to_owned());
                        match Placeholder::fill(name, setting) {
                            Ok(name) if part == "headers" => self.header(&name, &at),
                            Ok(_) => {}
                            Err(error) => self.tell(&at, error.to_string()),
                        }
                    }
                }
            }
        }
        for (at, text) in texts {
            match Placeholder::split(text) {
                Err(error) => self.tell(&at, error.to_string()),
                Ok(pieces) => {
                    for piece in pieces {
                        let (name, secret) = match piece {
                            Placeholder::Text(_) => continue,
                            Placeholder::Secret(name) => (name, true),
                            Placeholder::Setting(name) => (name, false),
                        };
                        let of = if secret { "secret" } else { "connection" };
                        match fields.get(name) {
                            None => self.tell(&at, format!("names `{of}.{name}`, but there is no field {name:?}")),
                            Some(field) if field.secret != secret => {
                                let is = if field.secret { "is secret" } else { "isn't secret" };
                                let write = if field.secret { "secret" } else { "connection" };
                                self.tell(
                                    &at,
                                    format!("names `{of}.{name}`, but the field {is}: write `{write}.{name}`"),
                                );
                            }
                            Some(_) => {}
                        }
                    }
                }
            }
        }
    }

    fn field(&mut self, field: &Field, at: &Pointer) {
        if let Some(pattern) = &field.pattern
            && let Err(error) = regex::Regex::new(pattern)
        {
            self.tell(&at.push("pattern"), format!("is no regular expression: {}", first_line(&error)));
        }
        if field.secret && field.default.is_some() {
            self.tell(&at.push("default"), "must be left out: a secret has none");
        }
    }

    fn answers(&mut self, answers: &Answers, at: &Pointer) {
        for (index, rule) in answers.errors.iter().enumerate() {
            let at = at.push("errors").push(index);
            self.expression(&rule.when, &at.push("when"), ANSWER_NAMES);
            self.told(&rule.message, &at.push("message"));
            self.waited(&rule.retry_after, &at.push("retry_after"));
        }
        self.told(&answers.error_message, &at.push("error_message"));
        self.waited(&answers.retry_after, &at.push("retry_after"));
    }

    fn told(&mut self, template: &Option<String>, at: &Pointer) {
        if let Some(template) = template {
            self.template(&json!(template), at, ANSWER_NAMES);
        }
    }

    fn waited(&mut self, expression: &Option<String>, at: &Pointer) {
        if let Some(expression) = expression {
            self.expression(expression, at, ANSWER_NAMES);
        }
    }

    fn expression(&mut self, source: &str, at: &Pointer, names: &[&str]) {
        check_expression(source, at, &mut self.errors);
        for reference in expression_references(source, at) {
            self.name(&reference.path, at, names);
        }
    }

    fn template(&mut self, template: &Value, at: &Pointer, names: &[&str]) {
        check_templates(template, at, &mut self.errors);
        for reference in references(template, at) {
            self.name(&reference.path, &reference.pointer, names);
        }
    }

    fn name(&mut self, path: &[String], at: &Pointer, names: &[&str]) {
        if let Some(name) = path.first()
            && !names.contains(&name.as_str())
        {
            let detail = match name.as_str() {
                "secret" => "names `secret`, which only `auth` can".to_owned(),
                _ => format!("names `{name}`; there is only {}", names.join(", ")),
            };
            self.tell(at, detail);
        }
    }

    fn request(
        &mut self,
        connector: &ConnectorDocument,
        request: &RequestTemplate,
        declared: &[String],
        auth: Option<&[String]>,
        at: &Pointer,
    ) {
        let by_url =
            |sign_in: &SignIn| sign_in.kind == SignInKind::Url && auth.is_none_or(|ids| ids.contains(&sign_in.id));
        let all_by_url = connector.auth.iter().filter(|sign_in| auth.is_none_or(|ids| ids.contains(&sign_in.id)));
        let all_by_url = all_by_url.clone().count() > 0 && all_by_url.clone().all(by_url);
        match (&request.path, &request.url) {
            (Some(_), Some(_)) => self.tell(at, "takes only one of path, url"),
            (None, None) if !all_by_url => self.tell(at, "needs a path or url"),
            (Some(_), _) | (_, Some(_)) if connector.auth.iter().any(by_url) => {
                self.tell(at, "must not have a path or url: the connection's secret is the URL; name in `auth` the ways to sign in that it is for");
            }
            (Some(path), None) => {
                if connector.base_url.is_none() {
                    self.tell(&at.push("path"), "needs a base_url at the connector");
                }
                self.path(path, &at.push("path"));
            }
            (None, Some(url)) => {
                let at = at.push("url");
                self.address(connector, url, &at);
                self.path(url, &at);
            }
            (None, None) => {}
        }
        if [request.json.is_some(), request.form.is_some(), request.text.is_some()].iter().filter(|is| **is).count() > 1
        {
            self.tell(at, "takes only one of json, form, text");
        }
        self.headers(&request.headers, at);
        let template = json!({
            "path": request.path, "url": request.url, "query": request.query, "headers": request.headers,
            "json": request.json, "form": request.form, "text": request.text,
        });
        self.template(&template, at, REQUEST_NAMES);
        for reference in references(&template, at) {
            if let [scope, name, ..] = &reference.path[..]
                && scope == "input"
                && !declared.contains(name)
            {
                self.tell(&reference.pointer, format!("names `input.{name}`, which the input doesn't declare"));
            }
        }
    }

    fn headers(&mut self, headers: &Map<String, Value>, at: &Pointer) {
        for name in headers.keys() {
            self.header(name, &at.push("headers").push(name));
        }
    }

    fn header(&mut self, name: &str, at: &Pointer) {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.tell(at, "is not a header's name");
        } else if tidegate_egress::is_reserved_header(name) {
            self.tell(at, "is set by the client itself; remove it");
        }
    }

    fn path(&mut self, path: &str, at: &Pointer) {
        let parts = template_parts(path).unwrap_or_default();
        let texts: String = parts
            .iter()
            .map(|part| match part {
                TemplatePart::Text(text) => text,
                TemplatePart::Expression(_) => "x",
            })
            .collect();
        if texts.contains(['{', '}']) {
            self.tell(at, "has braces: write `{{ input.name }}` where a field of the input goes");
        }
        if texts.contains(['?', '#']) {
            self.tell(at, "must not have a query or fragment; write the query as `query`");
        }
        // A URL takes the one for a slash, and drops the others.
        if texts.contains(|char: char| char == '\\' || char.is_control()) {
            self.tell(at, "must not have a backslash or control character");
        }
        let after_scheme = texts.split_once("://").map_or(texts.as_str(), |(_, rest)| rest);
        if texts.contains("://") && !after_scheme.contains('/') {
            self.tell(at, "needs a path after its host");
        }
        let is_first_text = matches!(parts.first(), Some(TemplatePart::Text(text)) if !text.contains("://") || text[text.find("://").unwrap_or(0) + 3..].contains('/'));
        if !is_first_text && !parts.is_empty() {
            self.tell(at, "can't have an expression before its path");
        }
    }

    fn action(&mut self, manifest: &Manifest, name: &str, action: &ActionDocument, at: &Pointer) {
        let connector = &manifest.connector;
        let is_sound = self.schema(&action.input, &at.push("input"));
        let declared: Vec<String> =
            action.input["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
        match (&action.request, action.native) {
            (Some(_), Some(_)) => self.tell(at, "takes only one of request, native"),
            (Some(request), None) => {
                let paged = action.paging.iter().map(|_| "max_items".to_owned());
                let declared: Vec<_> = declared.iter().cloned().chain(paged).collect();
                self.request(connector, request, &declared, action.auth.as_deref(), &at.push("request"));
            }
            (None, _) => {}
        }
        self.answers(&action.answers, at);
        let output_names = if action.paging.is_some() { ITEM_NAMES } else { ANSWER_NAMES };
        if let Some(output) = &action.output {
            self.template(output, &at.push("output"), output_names);
        }
        if let Some(paging) = &action.paging {
            let at = at.push("paging");
            if declared.iter().any(|name| name == "max_items") {
                self.tell(&at, "brings a field max_items; remove that of the input");
            }
            if action.effect != EffectRule::Read {
                self.tell(&at, "is only for actions that read");
            }
            self.expression(&paging.items, &at.push("items"), ANSWER_NAMES);
            match &paging.next {
                NextPage::Cursor { value, .. } => {
                    self.expression(value, &at.push("cursor").push("value"), ANSWER_NAMES);
                }
                NextPage::NextUrl(value) => self.expression(value, &at.push("next_url"), ANSWER_NAMES),
                NextPage::Link(_) | NextPage::Page { .. } | NextPage::Offset { .. } => {}
            }
        }
        if action.input["additionalProperties"] == json!(false) {
            let required = action.input["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for name in required.filter(|name| !declared.iter().any(|known| known == name)) {
                let at = at.push("input").push("required");
                self.tell(&at, format!("names {name:?}, which isn't among the properties, so that no input could fit"));
            }
        }
        self.options(manifest, &action.input, &at.push("input"));
        if let Some(example) = action.example.as_ref().filter(|_| is_sound) {
            let ready = Action::new(Arc::new(connector.clone()), name, action.clone(), Publisher::Tenant);
            for error in ready.input.errors(&Value::Object(example.input.clone()), |_| false) {
                let pointer = Pointer::from(format!("{}{}", at.push("example").push("input"), error.pointer).as_str());
                self.errors.push(FieldError::new(pointer, error.detail));
            }
        }
    }

    /// A schema that any input can be checked against at a bounded cost: no references, which may go round in circles.
    /// Tells whether it is one.
    fn schema(&mut self, schema: &Value, at: &Pointer) -> bool {
        let before = self.errors.len();
        if let Some(at) = reference_in(schema, at) {
            self.tell(&at, "can't be used in a manifest; write out what it refers to");
        } else if let Some(fault) = Schema::of(schema.clone()).fault() {
            self.tell(at, format!("is no JSON Schema (draft 2020-12): {fault}"));
        }
        self.errors.len() == before
    }

    /// Choices come from another action that only reads.
    fn options(&mut self, manifest: &Manifest, schema: &Value, at: &Pointer) {
        match schema {
            Value::Object(members) => {
                for (name, member) in members {
                    let at = at.push(name);
                    if name != "x-options" {
                        self.options(manifest, member, &at);
                        continue;
                    }
                    let action = member["action"].as_str().and_then(|name| manifest.actions.get(name));
                    match action {
                        Some(action) if action.effect == EffectRule::Read => {}
                        Some(_) => self.tell(&at.push("action"), "must name an action that only reads"),
                        None => self.tell(&at.push("action"), "must name an action of this connector"),
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.options(manifest, item, &at.push(index));
                }
            }
            _ => {}
        }
    }
}

/// Whether a name is taken by what is built in.
pub fn is_reserved(name: &str) -> bool {
    let of_engine = Builtin::ALL.into_iter().any(|builtin| builtin.name().split('.').next() == Some(name));
    of_engine || catalogue::names().any(|known| known == name) || matches!(name, "event" | "code")
}

/// How many regular expressions a schema has.
fn patterns_in(schema: &Value) -> usize {
    match schema {
        Value::Object(members) => {
            let own = usize::from(members.get("pattern").is_some_and(Value::is_string));
            let by_name = members.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
            own + by_name + members.values().map(patterns_in).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(patterns_in).sum(),
        _ => 0,
    }
}

fn reference_in(schema: &Value, at: &Pointer) -> Option<Pointer> {
    match schema {
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let at = at.push(name);
            match name.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" if member.is_string() => Some(at),
                _ => reference_in(member, &at),
            }
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| reference_in(item, &at.push(index))),
        _ => None,
    }
}

/// How large something is as JSON.
fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}
