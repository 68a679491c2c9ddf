//! Imports an OpenAPI document and prints what came of it, and what it took:
//! `cargo run --release -p tidegate-connectors --example import_openapi -- FILE [INCLUDE…]`. With `SERVER` given as
//! `--server=URL` the document's servers don't count, with `--manifest` the manifest is printed instead.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::Value;
use tidegate_connectors::{ImportOptions, Imported, import_openapi};

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
            ExitCode::SUCCESS
        }
    }
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
