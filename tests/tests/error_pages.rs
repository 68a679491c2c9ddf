//! Each error code has its page in `docs/errors/` and a row in the index there, and each page is of a code.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate_http::ProblemCode;
use tidegate_model::ErrorCode;

#[test]
fn pages_and_codes_match() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors");
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "README")
        .collect();
    let of_answers = ProblemCode::ALL.iter().map(|code| code.as_str().to_owned());
    let of_runs = ErrorCode::ALL.iter().map(|code| serde_json::to_value(code).unwrap().as_str().unwrap().to_owned());
    let codes: BTreeSet<String> = of_answers.chain(of_runs).collect();
    assert_eq!(pages, codes);

    let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for code in &codes {
        assert!(index.contains(&format!("[`{code}`]({code}.md)")), "{code} is missing from the index");
        let page = std::fs::read_to_string(folder.join(format!("{code}.md"))).unwrap();
        assert!(page.starts_with(&format!("# `{code}`: ")), "{code}.md has another heading");
        assert!(
            page.contains("\n## Why it happens\n") && page.contains("\n## What to do\n"),
            "{code}.md is unfinished"
        );
    }
    for code in ProblemCode::ALL {
        let row = format!("| [`{0}`]({0}.md) | {1} | {2} |", code.as_str(), code.status().as_u16(), code.title());
        assert!(index.contains(&row), "the index should have: {row}");
    }
}
