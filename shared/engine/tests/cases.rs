//! Golden cases: each file in `cases/` is a definition, a body, parameters and scripted results; its snapshot is the trace
//! and the step records.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_model::{Attempt, Definition, Payload};

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
}

#[test]
fn cases() {
    insta::glob!("cases/*.json", |path| {
        let mut case: Case = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let definition = match Definition::parse(&case.definition) {
            Ok(definition) => definition,
            Err(errors) => {
                let told: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect();
                insta::assert_snapshot!(format!("refused\n{}", told.join("\n")));
                return;
            }
        };
        let mut simulation = Simulation::new(&definition, &case.body, &case.parameters);
        let outcome = simulation.run(|slot, attempt| {
            let results = case.results.get_mut(slot).unwrap_or_else(|| panic!("no result for {slot} #{attempt}"));
            assert!(!results.is_empty(), "no result left for {slot} #{attempt}");
            results.remove(0)
        });
        assert!(case.results.values().all(Vec::is_empty), "results nobody asked for");
        let mut records = Vec::new();
        for record in tidegate_engine::records(&definition, &simulation.entries, outcome.status) {
            let outlet = record.outlet.map(|outlet| format!(" → {outlet}")).unwrap_or_default();
            let output = shown(record.output.as_ref());
            records.push(format!("{} {:?}{outlet} {:?}{output}", record.id, record.status, attempts(&record.attempts)));
            for item in record.items {
                let output = shown(item.output.as_ref());
                records.push(format!("  [{}] {:?} {:?}{output}", item.index, item.status, attempts(&item.attempts)));
            }
        }
        insta::assert_snapshot!(format!("{}\n--\n{}", simulation.trace.join("\n"), records.join("\n")));
    });
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

fn shown(output: Option<&Payload>) -> String {
    match output {
        Some(Payload::Inline(value)) => format!(" = {value}"),
        _ => String::new(),
    }
}
