//! Makes a connector manifest (docs/connector-manifest.md) of an OpenAPI document, 3.0 or 3.1. The document is a
//! stranger's: it may be wrong, and it may be made to harm. So work and sizes are bounded, and every `{{` of the
//! manifest is written here; what the document says never becomes an expression.
//!
//! What a document doesn't say is left out: paging, rate limits, what errors mean, recorded answers.

mod body;
mod operation;
mod reader;
mod schema;
mod security;
mod server;
mod text;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_model::{FieldError, Pointer};

use self::operation::{Operation, action};
use self::reader::Reader;
use self::schema::list;
use self::security::Ways;
use self::server::Server;
use self::text::{Names, clip, connector_name, plain, snake_case};

/// How many actions a manifest holds at most, and how many bytes of JSON they are together.
const MAX_ACTIONS: usize = 2_000;
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How many operations that are left out are told.
const MAX_LEFT_OUT: usize = 1_000;
/// The longest name of an action.
const MAX_NAME: usize = 60;

/// What is taken of a document, and how it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImportOptions {
    /// The connector's name; without it one is made of the document's title.
    pub name: Option<String>,
    /// The connector's title; without it the document's.
    pub title: Option<String>,
    /// The operations to take: `createOrder` by its `operationId` or the action's name, `tag:Orders` by a tag,
    /// `/v1/orders` or `GET /v1/orders` by the path's beginning. Empty for all.
    pub include: Vec<String>,
    /// The API's base URL, instead of the document's servers: `https://api.example.com/v1`.
    pub server: Option<String>,
}

/// A manifest, and what became of the document's operations.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Imported {
    /// The manifest.
    #[schema(value_type = Object)]
    pub manifest: Value,
    /// What was taken and what wasn't.
    pub report: ImportReport,
}

/// What an import took and what it didn't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// How many actions the manifest has.
    pub actions: usize,
    /// The operations that were chosen and couldn't be taken.
    pub left_out: Vec<LeftOut>,
    /// What is not as the document has it, or is worth a look.
    pub notes: Vec<String>,
}

/// An operation that couldn't be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LeftOut {
    /// Its method and path.
    #[schema(examples("POST /v1/files"))]
    pub at: String,
    /// Why.
    #[schema(examples("it needs a body of multipart/form-data, which a step can't send"))]
    pub reason: String,
}

/// Makes a manifest of an OpenAPI document.
///
/// # Errors
/// What is wrong with the document, by pointers into it, or with the options, by pointers such as `/options/server`.
pub fn import_openapi(document: &Value, options: &ImportOptions) -> Result<Imported, Vec<FieldError>> {
    check_version(document).map_err(|error| vec![error])?;
    let mut reader = Reader::new(document);
    let title = options.title.as_deref().or_else(|| document["info"]["title"].as_str()).unwrap_or_default();
    let title = plain(title, 80).filter(|title| !title.is_empty()).unwrap_or_else(|| "Imported API".to_owned());
    let mut errors = Vec::new();
    let mut keep = |result: Result<_, FieldError>| result.map_err(|error| errors.push(error)).ok();
    let name = keep(name(options, &title));
    let server = server(&mut reader, options).map_err(|error| errors.push(error)).ok();
    let chosen = operations(&mut reader).and_then(|all| chosen(all, options)).map_err(|more| errors.extend(more)).ok();
    let (Some(name), Some(server), Some(chosen)) = (name, server, chosen) else { return Err(errors) };

    let ways = Ways::read(&mut reader, chosen.iter().map(|operation| operation.members), &server);
    let mut hosts = vec![server.host.clone()];
    let mut actions = Map::new();
    let mut left_out = Vec::new();
    let (mut bytes, mut more) = (0, 0);
    for operation in chosen {
        let at = format!("{} {}", operation.method, clip(operation.path, 200));
        reader.enter(&at);
        let made = if actions.len() == MAX_ACTIONS || bytes >= MAX_BYTES || reader.exhausted() {
            Err("it is more than one import takes; choose by `include`, and import the others as another connector"
                .to_owned())
        } else {
            action(&mut reader, &operation, &server, &ways, &mut hosts)
        };
        match made {
            Ok(action) => {
                bytes += action.to_string().len();
                actions.insert(operation.name, action);
            }
            Err(_) if left_out.len() == MAX_LEFT_OUT => more += 1,
            Err(reason) => left_out.push(LeftOut { at, reason }),
        }
    }
    reader.enter("");
    if more > 0 {
        reader.note(format!("{more} more operations are left out"));
    }
    if actions.is_empty() {
        let told = left_out.iter().take(5).map(|LeftOut { at, reason }| format!("{at}: {reason}"));
        let detail = format!("has no operation that can be imported ({})", told.collect::<Vec<_>>().join("; "));
        return Err(vec![FieldError::new(Pointer::root().push("paths"), detail)]);
    }
    let report = ImportReport { actions: actions.len(), left_out, notes: reader.into_notes() };

    let help = document["info"]["description"].as_str().and_then(|text| plain(text, 300));
    let docs = document["externalDocs"]["url"].as_str().and_then(|link| server.link(link));
    let parts = [
        ("format", Some(json!(1))),
        ("name", Some(name.into())),
        ("title", Some(title.into())),
        ("help", help.map(Value::from)),
        ("docs", docs.map(Value::from)),
        ("category", Some("other".into())),
        ("hosts", Some(hosts.into())),
        ("base_url", Some(server.url.into())),
        ("auth", Some(ways.to_auth())),
        ("actions", Some(actions.into())),
    ];
    let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
    Ok(Imported { manifest: Value::Object(parts.collect()), report })
}

fn check_version(document: &Value) -> Result<(), FieldError> {
    let wrong = |field: &str, detail: String| Err(FieldError::new(Pointer::root().push(field), detail));
    if !document.is_object() {
        return Err(FieldError::new(Pointer::root(), "expected an OpenAPI document, which is an object"));
    }
    if let Some(version) = document.get("swagger") {
        return wrong(
            "swagger",
            format!(
                "is Swagger {}; convert the document to OpenAPI 3 first, for example with `npx swagger2openapi`",
                clip(version.as_str().unwrap_or_default(), 20)
            ),
        );
    }
    match document["openapi"].as_str() {
        Some(version) if version.starts_with("3.0.") || version.starts_with("3.1.") => Ok(()),
        Some(version) => wrong(
            "openapi",
            format!(
                "is version {:?}; only 3.0 and 3.1 are read, so convert the document to one of these",
                clip(version, 20)
            ),
        ),
        None => wrong("openapi", "is required; it names the version of OpenAPI, such as \"3.1.0\"".to_owned()),
    }
}

fn name(options: &ImportOptions, title: &str) -> Result<String, FieldError> {
    let Some(name) = &options.name else { return Ok(connector_name(title)) };
    if (2..=40).contains(&name.len()) && snake_case(name, 40).as_ref() == Some(name) {
        return Ok(name.clone());
    }
    Err(option_error("name", "must be 2 to 40 of a-z, 0-9 and _, a letter first"))
}

fn option_error(option: &str, detail: impl Into<String>) -> FieldError {
    FieldError::new(Pointer::root().push("options").push(option), detail)
}

fn server(reader: &mut Reader<'_>, options: &ImportOptions) -> Result<Server, FieldError> {
    const EXAMPLE: &str = "such as https://api.example.com/v1";
    if let Some(server) = &options.server {
        return Server::parse(server, None)
            .map_err(|what| option_error("server", format!("{what}; give the API's base URL, {EXAMPLE}")));
    }
    let error = |what: String| {
        let detail = format!("{what}; give the API's base URL as the option `server`, {EXAMPLE}");
        FieldError::new(Pointer::root().push("servers"), detail)
    };
    let servers = reader.root().get("servers");
    let server = reader.server(servers, None).map_err(error)?;
    let names = list(servers).iter().filter_map(|server| server["url"].as_str()).map(|url| clip(url, 100));
    let names: Vec<_> = names.take(5).collect();
    if let (Some(server), [_, _, ..]) = (&server, names.as_slice()) {
        let names = names.join(", ");
        reader.note(format!(
            "of several servers {} is taken; for another, give the option `server` ({names})",
            server.url
        ));
    }
    server.ok_or_else(|| error("the document names no server".to_owned()))
}

/// All operations, in the document's order, with the actions' names: they don't depend on which are chosen.
fn operations<'d>(reader: &mut Reader<'d>) -> Result<Vec<Operation<'d>>, Vec<FieldError>> {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let at = Pointer::root().push("paths");
    let Some(paths) = reader.root().get("paths").and_then(Value::as_object) else {
        return Err(vec![FieldError::new(at, "is required; it holds the operations")]);
    };
    let mut names = Names::default();
    let mut operations = Vec::new();
    for (path, item) in paths {
        reader.enter(&clip(path, 200));
        let Some(item) = reader.follow(item).and_then(Value::as_object) else { continue };
        for (method, members) in item.iter().filter(|(method, _)| METHODS.contains(&method.as_str())) {
            let Some(members) = members.as_object() else { continue };
            let id = members.get("operationId").and_then(Value::as_str);
            let name = id.and_then(|id| snake_case(id, MAX_NAME));
            let name = name.or_else(|| snake_case(&format!("{method} {path}"), MAX_NAME)).unwrap_or_default();
            let name = names.unique(name, MAX_NAME);
            operations.push(Operation { method: method.to_uppercase(), path, item, members, name });
        }
    }
    reader.enter("");
    if operations.is_empty() { Err(vec![FieldError::new(at, "holds no operation")]) } else { Ok(operations) }
}

fn chosen<'d>(all: Vec<Operation<'d>>, options: &ImportOptions) -> Result<Vec<Operation<'d>>, Vec<FieldError>> {
    if options.include.is_empty() {
        return Ok(all);
    }
    let mut chosen = HashSet::new();
    let mut errors = Vec::new();
    for (index, wanted) in options.include.iter().enumerate() {
        let found: Vec<_> = (0..all.len()).filter(|index| is_wanted(&all[*index], wanted)).collect();
        if found.is_empty() {
            let at = Pointer::root().push("options").push("include").push(index);
            let detail = "fits no operation; name an operationId, a tag as `tag:Orders`, or how a path begins, as \
                          `/v1/orders` or `GET /v1/orders`";
            errors.push(FieldError::new(at, detail));
        }
        chosen.extend(found);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(all
        .into_iter()
        .enumerate()
        .filter(|(index, _)| chosen.contains(index))
        .map(|(_, operation)| operation)
        .collect())
}

fn is_wanted(operation: &Operation<'_>, wanted: &str) -> bool {
    let begins = |prefix: &str| {
        let rest = operation.path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
    };
    if let Some(tag) = wanted.strip_prefix("tag:") {
        list(operation.members.get("tags")).iter().any(|own| own.as_str() == Some(tag.trim()))
    } else if let Some((method, prefix)) = wanted.split_once(' ').filter(|(_, prefix)| prefix.starts_with('/')) {
        operation.method.eq_ignore_ascii_case(method) && begins(prefix.trim())
    } else if wanted.starts_with('/') {
        begins(wanted)
    } else {
        operation.name == wanted || operation.members.get("operationId").and_then(Value::as_str) == Some(wanted)
    }
}
