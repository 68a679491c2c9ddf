//! Imports an OpenAPI document and prints what came of it, and what it took:
//! `cargo run --release -p tidegate-connectors --example import_openapi -- FILE [INCLUDE…]`. With `SERVER` given as
//! `--server=URL` the document's servers don't count, with `--manifest` the manifest is printed instead. `--call=ACTION=INPUT` calls
//! an action, with its input in JSON, against a server here, and prints what that is sent. `scripts/check-imports` runs this over
//! the documents of some large APIs.

#![expect(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, reason = "a tool")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use tidegate_connectors::manifest::SignInKind;
use tidegate_connectors::{Connector, ImportOptions, Imported, check_manifest, import_openapi};
use tidegate_model::Publisher;
use wiremock::matchers::any;
use wiremock::{Mock, ResponseTemplate};

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> ExitCode {
    let (flags, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|text| text.starts_with("--"));
    let Some((file, include)) = arguments.split_first() else {
        eprintln!("give the file of a document in JSON");
        return ExitCode::FAILURE;
    };
    let read = std::fs::read(file).map_err(|error| error.to_string());
    let document: Value = match read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let server = flags.iter().find_map(|flag| flag.strip_prefix("--server=")).map(str::to_owned);
    let options = ImportOptions { include: include.to_vec(), server, ..ImportOptions::default() };
    let before = memory("VmRSS");
    let start = Instant::now();
    match import_openapi(&document, &options) {
        Err(errors) => {
            for error in errors {
                eprintln!("{file}: {} {}", error.pointer, error.detail);
            }
            ExitCode::FAILURE
        }
        Ok(imported) if flags.iter().any(|flag| flag == "--manifest") => {
            println!("{:#}", imported.manifest);
            ExitCode::SUCCESS
        }
        Ok(imported) => {
            let took = start.elapsed();
            println!("{file}");
            println!("  time: {} ms", took.as_millis());
            println!("  memory: {} before, {} at most", before, memory("VmHWM"));
            tell(&imported);
            let calls = flags.iter().filter_map(|flag| flag.strip_prefix("--call=")?.split_once('='));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let done: Result<Vec<()>, String> =
                calls.map(|(action, input)| runtime.block_on(call(imported.manifest.clone(), action, input))).collect();
            match done {
                Ok(_) => ExitCode::SUCCESS,
                Err(fault) => {
                    eprintln!("{file}: {fault}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Calls an action at a server here, with a made-up credential.
async fn call(mut manifest: Value, action: &str, input: &str) -> Result<(), String> {
    let setup = support::setup(support::LOOPBACK).await;
    let (url, host) = (setup.server.uri(), setup.server.address().to_string());
    let base = manifest["base_url"].as_str().ok_or("the manifest has no base_url")?;
    let path =
        base.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path).unwrap_or_default();
    manifest["base_url"] = json!(format!("{url}/{path}"));
    manifest["hosts"] = json!([host]);
    // The document's own may be that of a built-in connector.
    manifest["name"] = json!("imported");
    // Those of operations with a server of their own stay where they are.
    let kept = |action: &mut Value| action["request"].get("url").is_none();
    let actions = manifest["actions"].as_object_mut().ok_or("the manifest has no actions")?;
    actions.retain(|_, action| kept(action));
    let manifest = check_manifest(manifest).map_err(|errors| format!("the manifest can't be used: {errors:?}"))?;
    let connector = Connector::new(manifest, Publisher::Tenant, 1);
    let action = connector.actions.get(action).ok_or_else(|| format!("there is no action {action}"))?;
    let sign_in = connector.document.auth.iter().find(|sign_in| sign_in.kind != SignInKind::None);
    let made = match sign_in {
        Some(sign_in) => {
            let fields = sign_in.all_fields().into_iter().map(|(name, _)| (name, json!("made-up-secret")));
            Some(setup.connection(&connector, &sign_in.id, &fields.collect(), &[]).await)
        }
        None => None,
    };
    let answer = ResponseTemplate::new(200).set_body_json(json!({"id": "made up"}));
    Mock::given(any()).respond_with(answer).mount(&setup.server).await;
    let input: Value = serde_json::from_str(input).map_err(|error| format!("the input: {error}"))?;
    let output = setup.call(action, &input, made.as_ref()).await.map_err(|failure| failure.error.message)?;
    let sent =
        setup.server.received_requests().await.and_then(|mut requests| requests.pop()).ok_or("nothing was sent")?;
    let authorization = sent.headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
    let body = String::from_utf8_lossy(&sent.body);
    println!("  called {}: {} {} {body}", action.name, sent.method, &sent.url[url::Position::BeforePath..]);
    println!("    authorization: {}; yields {output}", authorization.unwrap_or("none"));
    Ok(())
}

fn tell(Imported { manifest, report }: &Imported) {
    println!("  manifest: {} KB", manifest.to_string().len() / 1024);
    println!("  actions: {}", report.actions);
    println!("  auth: {}", manifest["auth"]);
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for left_out in &report.left_out {
        reasons.entry(&left_out.reason).or_default().push(&left_out.at);
    }
    println!("  left out: {}", report.left_out.len());
    for (reason, places) in reasons {
        println!("    {} times: {reason} ({} …)", places.len(), places[0]);
    }
    println!("  notes: {}", report.notes.len());
    for note in &report.notes {
        println!("    {note}");
    }
}

/// A line of the process's status, in Linux.
fn memory(line: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.map_or_else(|| "unknown".to_owned(), |rest| rest.trim().to_owned())
}
