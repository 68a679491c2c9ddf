//! Golden cases: each file in `cases/` is a definition, a body and scripted results; its snapshot is the trace and the
//! step records.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tidegate_model::Definition;

use driver::{Scripted, Simulation};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    definition: Value,
    #[serde(default)]
    body: Value,
    /// Results by step, one per attempt.
    #[serde(default)]
    results: BTreeMap<String, Vec<Scripted>>,
}

#[test]
fn cases() {
    insta::glob!("cases/*.json", |path| {
        let mut case: Case = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let definition = Definition::parse(&case.definition).unwrap();
        let mut simulation = Simulation::new(&definition, &case.body);
        let outcome = simulation.run(|step, attempt| {
            let results = case.results.get_mut(step).unwrap_or_else(|| panic!("no result for {step} #{attempt}"));
            assert!(!results.is_empty(), "no result left for {step} #{attempt}");
            results.remove(0)
        });
        assert!(case.results.values().all(Vec::is_empty), "results nobody asked for");
        let records = tidegate_engine::records(&definition, &simulation.entries, outcome.status);
        let records: Vec<_> = records
            .iter()
            .map(|record| {
                let attempts: Vec<_> = record
                    .attempts
                    .iter()
                    .map(|attempt| match (&attempt.error, attempt.interrupted) {
                        (_, true) => "interrupted".to_owned(),
                        (Some(error), _) => format!("{:?}", error.code),
                        (None, _) => "ok".to_owned(),
                    })
                    .collect();
                format!("{} {:?} {attempts:?}", record.id, record.status)
            })
            .collect();
        insta::assert_snapshot!(format!("{}\n--\n{}", simulation.trace.join("\n"), records.join("\n")));
    });
}
