//! Golden cases: each file in `cases/` is a definition, a body, parameters and scripted results; its snapshot is the
//! trace and the step records. A snapshot is read before it is accepted: it says what a user gets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_engine::{Data, Decision, Plan, Run};
use tidegate_model::{Attempt, Definition, Entry, ErrorCode, Event, Payload, RunStatus, StepError};

use driver::facts::BEGINNING;
use driver::{Scripted, Simulation};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    definition: Value,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    parameters: Map<String, Value>,
    /// Results by step (`step[0]` for items), one per attempt.
    #[serde(default)]
    results: BTreeMap<String, Vec<Scripted>>,
    /// When the records are looked at while the run goes on, in milliseconds from its beginning.
    #[serde(default)]
    look_at_ms: Vec<u64>,
}

#[test]
fn cases() {
    insta::glob!("cases/*.json", |path| {
        // Shown where the case fails.
        println!("{}", path.display());
        let mut case: Case = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let definition = match Definition::parse(&case.definition) {
            Ok(definition) => definition,
            Err(errors) => {
                let told: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect();
                assert!(case.results.is_empty(), "what is refused never runs");
                insta::assert_snapshot!(format!("refused\n{}", told.join("\n")));
                return;
            }
        };
        let beginning: Timestamp = BEGINNING.parse().unwrap();
        let mut looks = case.look_at_ms.iter().map(|ms| beginning + Duration::from_millis(*ms)).peekable();
        let mut simulation = Simulation::new(&definition, &case.body, &case.parameters);
        let outcome = simulation.run(
            |slot, attempt| {
                let results = case.results.get_mut(slot).unwrap_or_else(|| panic!("no result for {slot} #{attempt}"));
                assert!(!results.is_empty(), "no result left for {slot} #{attempt}");
                results.remove(0)
            },
            |simulation, until| {
                while let Some(at) = looks.next_if(|at| *at < until) {
                    let ms = at.as_millisecond() - beginning.as_millisecond();
                    simulation.trace.push(format!("{ms} ms: look at the records"));
                    let records = told(&definition, &simulation.entries, RunStatus::Running);
                    simulation.trace.extend(records.into_iter().map(|line| format!("  {line}")));
                }
            },
        );
        assert!(looks.next().is_none(), "the run was over before a look");
        case.results.retain(|_, results| !results.is_empty());
        assert!(case.results.is_empty(), "results nobody asked for: {:?}", case.results);
        let records = told(&definition, &simulation.entries, outcome.status);
        insta::assert_snapshot!(format!("{}\n--\n{}", simulation.trace.join("\n"), records.join("\n")));
    });
}

#[test]
fn granted_time_is_the_runs_until_it_has_failed() {
    let document = json!({"name": "n", "trigger": {"type": "webhook"}, "steps": [{"id": "a", "uses": "x.y"}]});
    let plan = Arc::new(Plan::new(Definition::parse(&document).unwrap()).unwrap());
    let facts = driver::facts::facts(&plan, &Map::new());
    let after = |seconds| facts.started_at + Duration::from_secs(seconds);
    let mut run = Run::new(Arc::clone(&plan), facts.clone(), Data::from(&Value::Null));
    assert!(matches!(run.decide(after(300)), Decision::Finish(outcome) if outcome.status == RunStatus::TimedOut));

    run.grant(Duration::from_secs(330));
    assert_eq!(run.latest_end(), after(630));
    let Decision::Call(calls) = run.decide(after(629)) else { panic!("there is time") };
    assert_eq!(calls[0].timeout, Duration::from_secs(1));
    assert!(matches!(run.decide(after(630)), Decision::Finish(outcome) if outcome.status == RunStatus::TimedOut));

    // Cut off by the run's end; a death before that is told changes nothing about it.
    run.apply(&calls[0].entry(after(629), Event::Started { input: Payload::Inline(Value::Null) }), None);
    let error = StepError::terminal(ErrorCode::StepTimeout, "no answer");
    run.apply(&calls[0].entry(after(630), Event::Failed { error }), None);
    run.grant(Duration::from_secs(330));
    assert!(matches!(run.decide(after(960)), Decision::Finish(outcome) if outcome.status == RunStatus::TimedOut));
}

/// The records, a line for each step and item.
fn told(definition: &Definition, entries: &[Entry], run: RunStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for record in tidegate_engine::records(definition, entries, run) {
        let outlet = record.outlet.map(|outlet| format!(" → {outlet}")).unwrap_or_default();
        let shown = shown(record.output.as_ref(), record.error.as_ref());
        lines.push(format!("{} {:?}{outlet} {:?}{shown}", record.id, record.status, attempts(&record.attempts)));
        for item in record.items {
            let shown = self::shown(item.output.as_ref(), item.error.as_ref());
            lines.push(format!("  [{}] {:?} {:?}{shown}", item.index, item.status, attempts(&item.attempts)));
        }
    }
    lines
}

fn attempts(attempts: &[Attempt]) -> Vec<String> {
    let told = attempts.iter().map(|attempt| match (&attempt.error, attempt.interrupted) {
        (_, true) => "interrupted".to_owned(),
        (Some(error), _) => format!("{:?}", error.code),
        (None, _) if attempt.finished_at.is_none() => "open".to_owned(),
        (None, _) => "ok".to_owned(),
    });
    told.collect()
}

fn shown(output: Option<&Payload>, error: Option<&StepError>) -> String {
    let output = match output {
        Some(Payload::Inline(value)) => format!(" = {value}"),
        _ => String::new(),
    };
    // The attempts have the code, and the trace the whole text.
    let error = error.map(|error| format!(" ! {}", error.message.chars().take(60).collect::<String>()));
    format!("{output}{}", error.unwrap_or_default())
}
