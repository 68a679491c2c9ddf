//! What is left of a process's log when it dies.

use std::process::Command;

use serde_json::Value;
use tidegate_telemetry::{InitError, init};

#[test]
#[ignore = "dies; the test below runs it in a process of its own"]
fn dies() {
    init("tidegate", "info").unwrap();
    assert!(matches!(init("tidegate", "info"), Err(InitError::Twice)));
    let _span = tracing::error_span!("run", run_id = "run_1").entered();
    tracing::info!("before");
    assert!(std::panic::catch_unwind(|| panic!("out of {}", "cheese")).is_err());
    tracing::info!("after");
    std::process::abort();
}

#[test]
fn every_line_is_out_before_the_process_dies_panics_included() {
    let this = std::env::current_exe().unwrap();
    let died = Command::new(this).args(["--exact", "dies", "--ignored", "--nocapture"]).output().unwrap();
    assert!(!died.status.success());
    let text = String::from_utf8(died.stdout).unwrap();
    // The first line shares its own with the test runner's.
    let lines: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok()).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["before", "panicked", "after"], "{text}");
    let panicked = &lines[1];
    assert_eq!((&panicked["level"], &panicked["run_id"]), (&"error".into(), &"run_1".into()));
    assert_eq!(panicked["data"]["panic"], "out of cheese");
    assert!(panicked["data"]["location"].as_str().unwrap().contains("process.rs:"));
}

#[test]
fn a_filter_that_cannot_be_read_stops_the_start() {
    let error = init("tidegate", "info,worker=loud").unwrap_err();
    assert!(error.to_string().contains("\"worker=loud\""), "{error}");
}
