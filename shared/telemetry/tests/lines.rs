//! Log lines as an operator's tools read them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_platform::Clock;
use tidegate_telemetry::{TraceContext, subscriber};

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines_of(filter: &str, work: impl FnOnce()) -> Vec<String> {
    let clock = Clock::manual("2026-11-21T08:30:00.120Z".parse::<Timestamp>().unwrap());
    let capture = Capture::default();
    tracing::subscriber::with_default(subscriber("tidegate", filter.parse().unwrap(), clock, capture.clone()), work);
    let text = String::from_utf8(capture.0.lock().unwrap().clone()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn parsed(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("send to queue runs failed")]
struct Outer(#[source] Middle);

#[derive(Debug, thiserror::Error)]
#[error("dispatch failure: {0}")]
struct Middle(#[source] io::Error);

#[test]
fn known_fields_are_inherited_and_the_rest_is_data() {
    let lines = lines_of("info", || {
        let outer =
            tracing::error_span!("request", tenant_id = "ten_1", trace_id = "t", run_id = tracing::field::Empty);
        let _outer = outer.enter();
        outer.record("run_id", "run_1");
        let _inner = tracing::error_span!("step", trace_id = "u", step = "notify").entered();
        tracing::info!(target: "tidegate_worker::claim", duration_ms = 12, ok = true, "run \"finished\"\n");
        tracing::warn!(component = "queue", step = "other", "slow");
    });
    assert_eq!(
        lines[0],
        r#"{"timestamp":"2026-11-21T08:30:00.120Z","level":"info","message":"run \"finished\"\n","service":"tidegate","component":"worker::claim","tenant_id":"ten_1","run_id":"run_1","trace_id":"u","data":{"step":"notify","duration_ms":12,"ok":true}}"#
    );
    let second = &parsed(&lines)[1];
    assert_eq!((&second["component"], &second["level"]), (&json!("queue"), &json!("warn")));
    assert_eq!(second["data"], json!({"step": "other"}));
}

#[test]
fn an_error_shows_its_chain_once() {
    let lines = lines_of("info", || {
        let error = Outer(Middle(io::Error::other("connection refused")));
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
    });
    assert_eq!(
        parsed(&lines)[0]["data"],
        json!({"error": "send to queue runs failed: dispatch failure: connection refused"})
    );
}

#[test]
fn a_component_has_its_own_level() {
    let lines = lines_of("warn,worker=debug", || {
        tracing::info!(target: "tidegate_store::runs", "dropped");
        tracing::debug!(target: "tidegate_worker", "kept");
        tracing::trace!(target: "tidegate_worker", "dropped");
        tracing::error!(target: "tidegate_store::runs", "kept");
    });
    assert_eq!(lines.len(), 2);
    assert!(parsed(&lines).iter().all(|line| line["message"] == "kept"));
}

#[test]
fn a_normal_line_is_under_400_bytes_and_a_long_value_is_cut() {
    let lines = lines_of("info", || {
        let trace_id = TraceContext::new_root().trace_id();
        let id = "0198c5a0a1b27c3d8e4f5a6b7c8d9e0f";
        let _span = tracing::error_span!(
            "run",
            %trace_id,
            tenant_id = format!("ten_{id}"),
            workflow_id = format!("wf_{id}"),
            run_id = format!("run_{id}"),
        )
        .entered();
        tracing::info!(target: "tidegate_worker::execute", duration_ms = 1234, status = "succeeded", steps = 1, "run ended");
        tracing::info!(text = "é".repeat(100_000), "long");
    });
    assert!(lines[0].len() <= 400, "{}", lines[0].len());
    assert!(lines[1].len() < 5_000 && parsed(&lines)[1]["data"]["text"].as_str().unwrap().ends_with('…'));
}

#[test]
fn lines_of_many_threads_never_mix() {
    let clock = Clock::manual(Timestamp::UNIX_EPOCH);
    let capture = Capture::default();
    let dispatch = tracing::Dispatch::new(subscriber("tidegate", "info".parse().unwrap(), clock, capture.clone()));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let dispatch = dispatch.clone();
            scope.spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || {
                    for number in 0..200 {
                        tracing::info!(thread, number, "line");
                    }
                });
            });
        }
    });
    let text = String::from_utf8(capture.0.lock().unwrap().clone()).unwrap();
    let lines = parsed(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(lines.len(), 1600);
    for thread in 0..8 {
        let numbers: Vec<_> = lines.iter().filter(|line| line["data"]["thread"] == thread).collect();
        assert!(numbers.iter().enumerate().all(|(position, line)| line["data"]["number"] == position));
        assert_eq!(numbers.len(), 200);
    }
}
