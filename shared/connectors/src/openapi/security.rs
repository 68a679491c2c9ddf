//! Ways to sign in, of a document's security schemes and requirements.

use std::collections::HashSet;

use http::HeaderName;
use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value, json};
use tidegate_egress::is_reserved_header;
use url::Url;

use super::reader::Reader;
use super::schema::list;
use super::server::Server;
use super::text::{Names, clip, label, plain, snake_case};

/// How many ways to sign in are made, and how many scopes one asks for.
const MAX_WAYS: usize = 20;
const MAX_SCOPES: usize = 100;

/// The ways to sign in: by the names of the schemes that are used together, the id of each and what it is; none of what
/// can't be expressed.
#[derive(Default)]
pub(super) struct Ways<'d>(IndexMap<Vec<&'d str>, Option<(String, Value)>>);

/// What an operation says of signing in.
pub(super) struct Access {
    /// The ways that it works with, where these aren't all.
    pub(super) ways: Option<Vec<String>>,
    /// Whether it works without any.
    pub(super) optional: bool,
}

impl<'d> Ways<'d> {
    /// The ways that a document and these operations name, the document's own first.
    pub(super) fn read(
        reader: &mut Reader<'d>,
        operations: impl Iterator<Item = &'d Map<String, Value>>,
        server: &Server,
    ) -> Self {
        let mut wanted: IndexMap<Vec<&str>, IndexSet<&str>> = IndexMap::new();
        let own = operations.filter_map(|operation| operation.get("security"));
        for requirement in
            reader.root().get("security").into_iter().chain(own).flat_map(|security| list(Some(security)))
        {
            let scopes = wanted.entry(schemes(requirement)).or_default();
            let named = requirement.as_object().into_iter().flat_map(|schemes| schemes.values());
            scopes.extend(named.flat_map(|scopes| list(Some(scopes))).filter_map(Value::as_str).take(MAX_SCOPES));
        }
        let defined = reader.root()["components"]["securitySchemes"].as_object();
        let used: HashSet<&str> = wanted.keys().flatten().copied().collect();
        let unused = defined.into_iter().flat_map(Map::keys).map(String::as_str).filter(|name| !used.contains(name));
        wanted.extend(unused.map(|name| (vec![name], IndexSet::new())));
        let mut ways = Self::default();
        let mut ids = Names::default();
        for (schemes, scopes) in wanted.into_iter().filter(|(schemes, _)| !schemes.is_empty()).take(MAX_WAYS) {
            let named = schemes.join(" and ");
            let found = schemes.iter().map(|name| Some((*name, reader.follow(defined?.get(*name)?)?)));
            let way = match found.collect::<Option<Vec<_>>>().as_deref() {
                None => Err("is not defined".to_owned()),
                Some([(_, scheme)]) => single(reader, scheme, &scopes, server),
                // Flows of one scheme that some documents make schemes of.
                Some(several) if several.iter().all(|(_, scheme)| scheme["type"] == "oauth2") => {
                    let flow = several.iter().find(|(_, scheme)| scheme["flows"]["authorizationCode"].is_object());
                    single(reader, flow.unwrap_or(&several[0]).1, &scopes, server)
                }
                Some(several) => combined(several),
            };
            let way = way.map_err(|why| reader.note(format!("the way to sign in {} {why}", shown(&named)))).ok();
            let way = way.map(|mut way| {
                let id = ids.unique(snake_case(&named, 40).unwrap_or_else(|| "key".to_owned()), 40);
                way.insert("title".to_owned(), plain(&named, 60).unwrap_or_else(|| label(&id)).into());
                let mut whole = Map::from_iter([("id".to_owned(), Value::from(id.as_str()))]);
                whole.extend(way);
                (id, Value::Object(whole))
            });
            ways.0.insert(schemes, way);
        }
        if ways.made().next().is_none() {
            reader.note("no way to sign in is known; add one to `auth` if the API wants one");
        }
        ways
    }

    /// The manifest's `auth`.
    pub(super) fn to_auth(&self) -> Value {
        let ways: Vec<_> = self.made().map(|(_, way)| way.clone()).collect();
        if ways.is_empty() { json!([{ "id": "none", "type": "none" }]) } else { ways.into() }
    }

    /// Whether a way to sign in fills in this parameter.
    pub(super) fn fill_in(&self, place: &str, name: &str) -> bool {
        let part = if place == "header" { "headers" } else { place };
        self.made().any(|(_, way)| {
            let own = way["name"].as_str().filter(|_| way["in"] == place);
            let mut all =
                own.into_iter().chain(way[part].as_object().into_iter().flat_map(Map::keys).map(String::as_str));
            all.any(|own| own.eq_ignore_ascii_case(name))
        })
    }

    fn made(&self) -> impl Iterator<Item = &(String, Value)> {
        self.0.values().flatten()
    }

    /// What an operation, or else the document, says of signing in.
    pub(super) fn access(&self, reader: &mut Reader<'d>, operation: &'d Map<String, Value>) -> Access {
        let any = Access { ways: None, optional: false };
        let Some(security) = operation.get("security").or_else(|| reader.root().get("security")) else { return any };
        let requirements: Vec<_> = list(Some(security)).iter().map(schemes).collect();
        let optional = requirements.iter().all(Vec::is_empty) || requirements.contains(&Vec::new());
        let ways = requirements.iter().filter_map(|schemes| self.0.get(schemes)?.as_ref()).map(|(id, _)| id.clone());
        let ways: IndexSet<String> = ways.collect();
        if ways.is_empty() && !optional && self.made().next().is_some() {
            reader.note("none of the ways to sign in that it takes can be expressed; try one of the others");
        }
        let some = !ways.is_empty() && ways.len() < self.made().count();
        Access { ways: some.then(|| ways.into_iter().collect()), optional: optional && self.made().next().is_some() }
    }
}

/// The names of the schemes that a requirement wants together.
fn schemes(requirement: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        requirement.as_object().into_iter().flat_map(Map::keys).map(String::as_str).take(8).collect();
    names.sort_unstable();
    names
}

fn shown(name: &str) -> String {
    format!("{:?}", clip(name, 80))
}

fn single(
    reader: &mut Reader<'_>,
    scheme: &Value,
    scopes: &IndexSet<&str>,
    server: &Server,
) -> Result<Map<String, Value>, String> {
    let text = |field: &str| scheme[field].as_str().unwrap_or_default();
    let mut way = match (text("type"), text("scheme").to_ascii_lowercase().as_str(), text("in")) {
        ("http", "bearer", _) => json!({ "type": "bearer" }),
        ("http", "basic", _) => json!({ "type": "basic" }),
        ("http", other, _) => return Err(format!("uses the HTTP scheme {}, which can't be expressed", shown(other))),
        ("apiKey", _, place @ ("header" | "query")) => {
            let name = key_name(text("name"), place)?;
            json!({ "type": "api_key", "in": place, "name": name })
        }
        ("apiKey", _, _) => return Err("goes out as a cookie, which can't be expressed".to_owned()),
        ("oauth2", _, _) => oauth2(reader, &scheme["flows"]["authorizationCode"], scopes, server)?,
        ("openIdConnect", _, _) => {
            return Err("is OpenID Connect, whose addresses the document doesn't name; add it as `oauth2`".to_owned());
        }
        (other, _, _) => return Err(format!("is of the type {}, which can't be expressed", shown(other))),
    };
    if let Some(help) = scheme["description"].as_str().and_then(|text| plain(text, 300)) {
        way["help"] = help.into();
    }
    Ok(Map::from_iter(way.as_object().cloned().into_iter().flatten()))
}

fn oauth2(reader: &mut Reader<'_>, flow: &Value, scopes: &IndexSet<&str>, server: &Server) -> Result<Value, String> {
    if flow.is_null() {
        return Err("is OAuth without its flow `authorizationCode`; only that can be expressed".to_owned());
    }
    let link = |field: &str| flow[field].as_str().and_then(|text| server.link(text)).filter(|link| is_safe(link));
    let (Some(authorization_url), Some(token_url)) = (link("authorizationUrl"), link("tokenUrl")) else {
        return Err("is OAuth whose `authorizationUrl` or `tokenUrl` is no https URL".to_owned());
    };
    let is_scope = |scope: &&&str| !scope.is_empty() && scope.len() <= 200 && !scope.contains("{{");
    let scopes: Vec<_> = scopes.iter().filter(is_scope).take(MAX_SCOPES).collect();
    if scopes.is_empty() && flow["scopes"].as_object().is_some_and(|offered| !offered.is_empty()) {
        reader
            .note("the operations don't say which OAuth scopes they need, so none are asked for; add them to `scopes`");
    }
    Ok(json!({
        "type": "oauth2", "authorization_url": authorization_url, "token_url": token_url, "scopes": scopes,
    }))
}

/// Whether a URL is `https` or names a port.
fn is_safe(link: &str) -> bool {
    Url::parse(link).is_ok_and(|url| url.scheme() == "https" || url.port().is_some())
}

/// Several schemes at once: a field for each.
fn combined(several: &[(&str, &Value)]) -> Result<Map<String, Value>, String> {
    let (mut fields, mut headers, mut query) = (Map::new(), Map::new(), Map::new());
    let mut names = Names::default();
    for (name, scheme) in several {
        let text = |field: &str| scheme[field].as_str().unwrap_or_default();
        let field = names.unique(snake_case(name, 40).unwrap_or_else(|| "key".to_owned()), 40);
        let value = format!("{{{{ secret.{field} }}}}");
        match (text("type"), text("scheme").to_ascii_lowercase().as_str(), text("in")) {
            ("http", "bearer", _) => headers.insert("Authorization".to_owned(), format!("Bearer {value}").into()),
            ("apiKey", _, "header") => headers.insert(key_name(text("name"), "header")?.to_owned(), value.into()),
            ("apiKey", _, "query") => query.insert(key_name(text("name"), "query")?.to_owned(), value.into()),
            _ => return Err("takes ways together of which one can't be expressed within `custom`".to_owned()),
        };
        let mut described = Map::from_iter([("title".to_owned(), Value::from(label(name)))]);
        if let Some(help) = scheme["description"].as_str().and_then(|text| plain(text, 300)) {
            described.insert("help".to_owned(), help.into());
        }
        fields.insert(field, described.into());
    }
    let parts: [(&str, Value); 4] =
        [("type", "custom".into()), ("fields", fields.into()), ("headers", headers.into()), ("query", query.into())];
    let used = parts.into_iter().filter(|(_, part)| part.as_object().is_none_or(|part| !part.is_empty()));
    Ok(used.map(|(name, part)| (name.to_owned(), part)).collect())
}

/// The name of a header or parameter that carries a key.
fn key_name<'n>(name: &'n str, place: &str) -> Result<&'n str, String> {
    let fits = match place {
        "header" => HeaderName::from_bytes(name.as_bytes()).is_ok() && !is_reserved_header(name),
        _ => !name.is_empty() && name.len() <= 100 && !name.contains("{{") && !name.chars().any(char::is_control),
    };
    if fits { Ok(name) } else { Err(format!("goes out as {}, which can't be set", shown(name))) }
}
