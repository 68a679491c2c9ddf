//! docs/expressions.md says what is: each of its examples is evaluated, and it has each filter with what it takes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::expression::filters::FILTERS;
use crate::expression::{Data, Scope, transform};

const PAGE: &str = include_str!("../../../../../docs/expressions.md");

/// The cells of the page's tables below a heading, without the quotes of code.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = PAGE.split_once(heading).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = |line: &str| {
        let line = line.trim_matches('|').replace("\\|", "\u{0}");
        line.split('|').map(|cell| cell.trim().trim_matches('`').trim().replace('\u{0}', "|")).collect()
    };
    rows.map(cells).collect()
}

fn names() -> Data {
    let block = PAGE.split_once("```json scope\n").unwrap().1.split_once("```").unwrap().0;
    Data::from(&serde_json::from_str::<Value>(block).unwrap())
}

#[test]
fn each_filter_is_on_the_page_and_its_example_is_right() {
    let scope = Scope::new(names().members());
    let mut documented = BTreeMap::new();
    for row in rows("\n## Filters\n") {
        let [filter, _, example, result] = &row[..] else { panic!("{row:?} has not four cells") };
        if filter == "filter" {
            continue;
        }
        let result: Value = serde_json::from_str(result).unwrap_or_else(|error| panic!("{result}: {error}"));
        assert_eq!(scope.evaluate(example), Ok(result), "{example}");
        let (name, parameters) = filter.trim_end_matches(')').split_once('(').unwrap_or((filter, ""));
        assert!(example.contains(&format!("| {name}")), "the example of `{name}` shows it");
        assert!(documented.insert(name.to_owned(), parameters.to_owned()).is_none(), "{name} is there twice");
    }
    let known: BTreeMap<_, _> =
        FILTERS.iter().map(|filter| (filter.name.to_owned(), filter.parameters.join(", "))).collect();
    assert_eq!(documented, known);
}

#[test]
fn each_query_on_the_page_is_right() {
    let rows = rows("\n## JMESPath\n");
    assert!(rows.len() > 3);
    for row in &rows[1..] {
        let result: Value = serde_json::from_str(&row[1]).unwrap();
        assert_eq!(transform(&row[0], &names()), Ok(result), "{}", row[0]);
    }
}
