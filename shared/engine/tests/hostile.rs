//! Expressions and inputs made to hurt: each is evaluated in a process of its own under a memory limit, has to end with
//! a value or an error within a deadline, and may not take over 64 MiB beyond what the process held before.
//!
//! `cargo test -p tidegate-engine --test hostile -- --nocapture` prints what each took.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tidegate_engine::{Data, Scope, transform};
use tidegate_model::Pointer;

/// What an evaluation may take beyond its input.
const MAX_GROWTH_KIB: u64 = 64 * 1024;
/// What a process may map at all.
const MAX_ADDRESSES_KIB: u64 = 1024 * 1024;
/// When a process is given up.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the expressions see.
fn names() -> Vec<(String, Data)> {
    let row = |id: usize| json!({"id": id, "name": format!("name {}", id % 997), "tags": [id]});
    let nested = (0..98).fold(json!(1), |inner, _| json!([inner]));
    // Zeros and ones as if by chance: what a lazy automaton can't remember.
    let digit = |at: u64| if at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 0 { '0' } else { '1' };
    let digits = |length: u64| (0..length).map(|at| digit(at * at)).collect::<String>();
    let names = json!({
        "text": "x".repeat(1_000_000),
        "kb": "x".repeat(1_000),
        "big": "x y ".repeat(1_000_000),
        "words": (0..90_000).map(|word| format!("{word:09}")).collect::<Vec<_>>().join(" "),
        "digits_16": digits(16_384),
        "digits_2": digits(2_048),
        "digits_64": digits(65_536),
        "digits_256": digits(262_144),
        "digits_512": digits(524_288),
        "controls": "\u{0}".repeat(300_000),
        "unicode": "ßΐŉİ".repeat(40_000),
        "ones": vec![1; 99_998],
        "rows": (0..16_000).map(row).collect::<Vec<_>>(),
        "texts": (0..3).map(|last| format!("{}{last}", "x".repeat(1_000_000))).collect::<Vec<_>>(),
        "nested": nested,
        "user": {"a": {"a": 1}},
        "now": "2026-11-21T10:00:00Z",
    });
    let data = Data::from(&names);
    let members = names.as_object().unwrap().keys().map(|name| (name.clone(), data.member(name).unwrap())).collect();
    // What is freed here could be taken again without being counted.
    std::mem::forget(names);
    members
}

/// Writes out `⟨100:x⟩`, a hundred times `x`.
fn expanded(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some((before, inside)) = rest.split_once('⟨') {
        let (inside, behind) = inside.split_once('⟩').unwrap();
        let (count, repeated) = inside.split_once(':').unwrap();
        out.push_str(before);
        out.push_str(&repeated.repeat(count.parse().unwrap()));
        rest = behind;
    }
    out + rest
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Case {
    Expression(String),
    Query(String),
    Input(Map<String, Value>),
    /// Takes so many bytes: what the bounds are there to prevent.
    Take(usize),
}

fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".json") {
            let case: Value = serde_json::from_str(&expanded(&text)).unwrap();
            let count = usize::try_from(case["repeat"].as_u64().unwrap()).unwrap();
            let with = Map::from_iter([("list".to_owned(), Value::Array(vec![case["with"].clone(); count]))]);
            cases.push((name.to_owned(), Case::Input(with)));
            continue;
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let case = if name == "queries.txt" { Case::Query } else { Case::Expression };
            cases.push((line.to_owned(), case(expanded(line))));
        }
    }
    cases
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Evaluates one case, which comes on standard input, and says what it took.
#[test]
#[ignore = "run by `hostile_expressions_end`, one process a case"]
fn one_case() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let case: Case = serde_json::from_str(&text).unwrap();
    let names = names();
    let query_data = Data::object(names.clone());
    let scope = Scope::new(names);
    // Forgets the highest mark so far.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let started = Instant::now();
    let outcome = match case {
        Case::Expression(source) => scope.evaluate(&source),
        Case::Query(query) => transform(&query, &query_data),
        Case::Input(with) => scope.fill(&with, &Pointer::root()).map_err(|error| error.to_string()),
        Case::Take(bytes) => Ok(Value::from(vec![1_u8; bytes].iter().filter(|byte| **byte == 1).count())),
    };
    let took = started.elapsed().as_millis();
    let growth = status("VmHWM:").saturating_sub(before);
    let said = match outcome {
        Ok(value) => format!("value of {} bytes", value.to_string().len()),
        Err(error) => format!("refused: {}", error.split("can't be used: ").last().unwrap()),
    };
    let said: String = said.chars().take(160).collect();
    println!("\nresult {}", json!([took, growth, said]));
}

/// What a case took: milliseconds, KiB and what it said; or how it died.
type Taken = Result<(u64, u64, String), String>;

/// Runs all cases, as many at a time as there are processors.
fn run_all(cases: &[(String, Case)]) -> Vec<Taken> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, case)) = cases.get(index) else { return done };
            done.push((index, run(case)));
        }
    };
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, taken)| taken).collect()
}

fn run(case: &Case) -> Taken {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -v {MAX_ADDRESSES_KIB}; exec \"$0\" --exact one_case --ignored --nocapture --test-threads 1"
        ))
        .arg(this)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(case).unwrap().as_bytes()).unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (send, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut out, mut errors) = (String::new(), String::new());
        stdout.read_to_string(&mut out).unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        send.send((out, errors)).unwrap();
    });
    let Ok((out, errors)) = received.recv_timeout(DEADLINE) else {
        child.kill().unwrap();
        child.wait().unwrap();
        return Err(format!("does not end within {DEADLINE:?}"));
    };
    reader.join().unwrap();
    let status = child.wait().unwrap();
    let result = out.lines().find_map(|line| line.strip_prefix("result "));
    match result {
        Some(result) if status.success() => Ok(serde_json::from_str(result).unwrap()),
        _ => Err(format!("{status}: {errors}")),
    }
}

#[test]
fn hostile_expressions_end() {
    let idle = run(&Case::Expression("1".to_owned())).unwrap();
    println!("idle: {} ms, {} KiB", idle.0, idle.1);
    let cases = cases();
    assert!(cases.len() >= 40);
    let mut wrong = Vec::new();
    let (mut slowest, mut largest) = ((0, String::new()), (0, String::new()));
    let mut values = 0;
    for ((name, _), result) in cases.iter().zip(run_all(&cases)) {
        let short: String = name.chars().take(100).collect();
        match result {
            Ok((took, growth, said)) => {
                println!("{took:>6} ms {growth:>7} KiB  {short}  →  {said}");
                slowest = slowest.max((took, short.clone()));
                largest = largest.max((growth, short.clone()));
                values += usize::from(said.starts_with("value"));
                if growth.saturating_sub(idle.1) > MAX_GROWTH_KIB {
                    wrong.push(format!("{short} takes {growth} KiB"));
                }
            }
            Err(death) => wrong.push(format!("{short}: {death}")),
        }
    }
    println!("{} cases, {values} with a value", cases.len());
    println!("slowest: {} ms, {}\nlargest: {} KiB, {}", slowest.0, slowest.1, largest.0, largest.1);
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_process_that_takes_too_much_is_noticed() {
    let (_, growth, _) = run(&Case::Take(80 << 20)).unwrap();
    assert!(growth > MAX_GROWTH_KIB, "{growth} KiB");
    let death = run(&Case::Take(2 << 30)).unwrap_err();
    assert!(death.contains("memory allocation"), "{death}");
}
