//! Whatever the results and wherever the worker dies, a run that is resumed from its journal ends as it would have
//! without dying, and no step with a journalled result is called again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_engine::{Data, Decision};
use tidegate_model::{Definition, Entry, ErrorCode, Payload, RunStatus, StepError};

use driver::{Scripted, Simulation};

/// What each attempt of each step brings, deaths aside: `None` is success.
type Script = Vec<Vec<Option<bool>>>;

fn definition(script: &Script, continues: &[bool]) -> Definition {
    let steps: Vec<Value> = script
        .iter()
        .enumerate()
        .map(|(index, attempts)| {
            let previous = if index == 0 { "n".to_owned() } else { format!("steps.s{} | default(0)", index - 1) };
            json!({
                "id": format!("s{index}"),
                "uses": "http.request",
                "with": {"body": format!("{{{{ {previous} }}}}")},
                "retry": {"max_attempts": attempts.len().max(1), "initial_delay_ms": 500},
                "on_failure": if continues[index] { "continue" } else { "stop" },
            })
        })
        .collect();
    let document =
        json!({"name": "random", "trigger": {"type": "webhook"}, "steps": steps, "execution_timeout": 86400});
    Definition::parse(&document).unwrap()
}

fn result(script: &Script, step: &str, failures: usize) -> Scripted {
    let index: usize = step[1..].parse().unwrap();
    match script[index].get(failures).copied().flatten() {
        None => Scripted::Output(json!({"of": step})),
        Some(retryable) => Scripted::Error(StepError {
            code: ErrorCode::TargetFailed,
            message: "scripted".to_owned(),
            retryable,
            retry_after_ms: None,
        }),
    }
}

fn failures(entries: &[Entry], step: &str) -> usize {
    entries.iter().filter(|entry| matches!(entry, Entry::Failed { step: of, .. } if of == step)).count()
}

proptest! {
    #[test]
    fn resumed_runs_end_like_undisturbed_ones(
        script in prop::collection::vec(prop::collection::vec(prop::option::of(any::<bool>()), 1..4), 1..6),
        continues in prop::collection::vec(any::<bool>(), 6),
        deaths in prop::collection::vec(0_u8..4, 0..40),
    ) {
        let definition = definition(&script, &continues);
        let body = json!({"n": 1});
        let mut undisturbed = Simulation::new(&definition, &body);
        let mut seen = std::collections::HashMap::<String, usize>::new();
        let expected = undisturbed.run(|step, _| {
            let failures = seen.entry(step.to_owned()).or_default();
            let result = result(&script, step, *failures);
            *failures += 1;
            result
        });

        // Here a result is journalled only by the next checkpoint, as a worker does; a death loses what came since.
        let mut run = Simulation::new(&definition, &body);
        let mut stored: Vec<Entry> = Vec::new();
        let mut finished: HashSet<String> = HashSet::new();
        let mut deaths = deaths.into_iter();
        let outcome = loop {
            match run.decide() {
                Decision::Record(entry) => run.entries.push(entry),
                Decision::Wait(until) => run.now = until,
                Decision::Finish(outcome) => break outcome,
                Decision::Call(call) => {
                    prop_assert!(!finished.contains(&call.step), "{} is called again", call.step);
                    let (step, attempt, at) = (call.step.clone(), call.attempt, run.now);
                    run.entries.push(Entry::Started { step: step.clone(), attempt, at, input: Payload::Inline(call.input) });
                    stored.clone_from(&run.entries);
                    for entry in &stored {
                        if let Entry::Succeeded { step, .. } = entry {
                            finished.insert(step.clone());
                        }
                    }
                    let death = deaths.next() == Some(0);
                    let entry = match result(&script, &step, failures(&run.entries, &step)) {
                        _ if death => Entry::Interrupted { step, attempt, at, repeatable: false },
                        Scripted::Output(output) => {
                            run.outputs.insert(step.clone(), Data::from(&output));
                            Entry::Succeeded { step, attempt, at, output: Payload::Inline(output) }
                        }
                        Scripted::Error(error) => Entry::Failed { step, attempt, at, error },
                        Scripted::Death { .. } => unreachable!("deaths are drawn apart"),
                    };
                    if death {
                        run.entries.clone_from(&stored);
                    }
                    run.entries.push(entry);
                }
            }
        };
        prop_assert_eq!(&outcome.status, &expected.status);
        prop_assert_eq!(&outcome.failed_step, &expected.failed_step);
        prop_assert_eq!(run.outputs, undisturbed.outputs);
        prop_assert!(matches!(outcome.status, RunStatus::Succeeded | RunStatus::Failed));
    }
}
