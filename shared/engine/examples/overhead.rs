//! What the engine itself takes: CPU time per step of a run that is decided, taken in and recorded, with calls that
//! cost nothing. Prints a table, and ends with an error where a step of a long or wide run takes more than three times
//! one of a short run: the engine would not be linear.
//!
//! `cargo run -p tidegate-engine --example overhead --profile fast`. Linux only, since it reads the process's CPU time
//! from `/proc`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program that tells on the terminal")]

use std::collections::VecDeque;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_engine::{Call, Data, Decision, Facts, Plan, Run, records_of};
use tidegate_model::{Definition, Entry, Event, Payload, RunId, RunStatus, TenantId, TriggerKind, WorkflowId};

/// How often each figure is taken; the median is told.
const REPETITIONS: usize = 7;
/// Steps that one repetition takes, so that it is long against the clock's grain.
const STEPS_PER_REPETITION: usize = 50_000;
/// How much more a step of a long run may take.
const MAX_GROWTH: f64 = 3.0;

/// A kind of run to measure.
struct Shape {
    name: String,
    /// Steps, and items of lists.
    steps: usize,
    plan: Arc<Plan>,
    body: Value,
}

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("overhead: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<bool, Box<dyn Error>> {
    let mut shapes = Vec::new();
    for steps in [1, 10, 100, 1_000] {
        shapes.push(Shape::new(format!("linear, {steps}"), steps, &linear(steps), 0)?);
    }
    shapes.push(Shape::new("a list of 1000 items, 20 at once".to_owned(), 1_000, &list(), 1_000)?);
    shapes.push(Shape::new("fan-out and fan-in, 200".to_owned(), 202, &fan(200), 0)?);
    shapes.push(Shape::new("fan-out and fan-in, 998".to_owned(), 1_000, &fan(998), 0)?);
    shapes.push(Shape::new("20 calls beside 980 data.set".to_owned(), 1_000, &beside(), 0)?);
    println!("{:<34} {:>14} {:>14} {:>14}", "µs of CPU per step", "run", "resume", "records");
    let mut per_step = Vec::new();
    for shape in &shapes {
        let figures = shape.figures()?;
        println!("{:<34} {:>14.2} {:>14.2} {:>14.2}", shape.name, figures[0], figures[1], figures[2]);
        per_step.push(figures.iter().sum::<f64>());
    }
    // A run of one step is mostly its beginning.
    let growth = per_step[2..].iter().fold(0.0, |most: f64, of| most.max(of / per_step[1]));
    println!("a step takes at most {growth:.2} times one of 10 in a row (allowed: {MAX_GROWTH})");
    Ok(growth <= MAX_GROWTH)
}

impl Shape {
    fn new(name: String, steps: usize, document: &Value, lines: usize) -> Result<Self, Box<dyn Error>> {
        let definition = Definition::parse(document).map_err(|errors| format!("{errors:?}"))?;
        let plan = Arc::new(Plan::new(definition).map_err(|errors| format!("{errors:?}"))?);
        let lines: Vec<_> = (0..lines).map(|n| json!({"n": n})).collect();
        let body = json!({"user": {"name": "Alex"}, "order": {"id": 7, "total": 120.5}, "lines": lines});
        Ok(Self { name, steps, plan, body })
    }

    /// Microseconds per step: of a run from its beginning, of taking its journal in again, and of its records.
    fn figures(&self) -> Result<[f64; 3], Box<dyn Error>> {
        let rounds = (STEPS_PER_REPETITION / self.steps).max(1);
        let taken = |begin: u64, end: u64| (end - begin) as f64 / 1_000.0 / (rounds * self.steps) as f64;
        let mut figures: [Vec<f64>; 3] = Default::default();
        for _ in 0..REPETITIONS {
            let mut journals = Vec::with_capacity(rounds);
            let begin = cpu_nanoseconds()?;
            for _ in 0..rounds {
                journals.push(self.run()?);
            }
            let ran = cpu_nanoseconds()?;
            for journal in &journals {
                let mut run = Run::new(Arc::clone(&self.plan), self.facts(), Data::from(&self.body));
                journal.iter().for_each(|entry| run.apply(entry, None));
                if !matches!(run.decide(BEGINNING), Decision::Finish(_)) {
                    return Err("a journal that is read again doesn't end the run".into());
                }
            }
            let resumed = cpu_nanoseconds()?;
            for journal in &journals {
                let records = records_of(&self.plan, journal, RunStatus::Succeeded);
                if records.iter().any(|record| record.status != RunStatus::Succeeded) {
                    return Err("a step did not succeed".into());
                }
            }
            let recorded = cpu_nanoseconds()?;
            figures[0].push(taken(begin, ran));
            figures[1].push(taken(ran, resumed));
            figures[2].push(taken(resumed, recorded));
        }
        Ok(figures.map(|mut of| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        }))
    }

    /// Runs to the end, with calls that succeed in the order in which they were begun.
    fn run(&self) -> Result<Vec<Entry>, Box<dyn Error>> {
        let mut run = Run::new(Arc::clone(&self.plan), self.facts(), Data::from(&self.body));
        let mut journal = Vec::new();
        let mut under_way: VecDeque<Call> = VecDeque::new();
        let mut push = |run: &mut Run, entry: Entry| {
            run.apply(&entry, None);
            journal.push(entry);
        };
        loop {
            match run.decide(BEGINNING) {
                Decision::Record(entries) => entries.into_iter().for_each(|entry| push(&mut run, entry)),
                Decision::Call(calls) => {
                    for call in calls {
                        let input = Payload::Inline(call.input.clone());
                        push(&mut run, call.entry(BEGINNING, Event::Started { input }));
                        under_way.push_back(call);
                    }
                }
                Decision::Wait(_) => {
                    let call = under_way.pop_front().ok_or("the run waits for nothing")?;
                    let output = Payload::Inline(json!({"id": call.attempt, "ok": true}));
                    push(&mut run, call.entry(BEGINNING, Event::Succeeded { output, outlet: None }));
                }
                Decision::Finish(outcome) if outcome.status == RunStatus::Succeeded => return Ok(journal),
                Decision::Finish(outcome) => return Err(format!("{}: {outcome:?}", self.name).into()),
            }
        }
    }

    fn facts(&self) -> Facts {
        let tenant = TenantId::new(BEGINNING, [1; 10]);
        Facts {
            run_id: RunId::for_tenant(tenant, BEGINNING, [2; 10]),
            tenant_id: tenant,
            workflow_id: WorkflowId::new(BEGINNING, [3; 10]),
            version: 1,
            trigger: TriggerKind::Webhook,
            content_type: None,
            request: None,
            parameters: Map::new(),
            started_at: BEGINNING,
            approvals: std::collections::BTreeMap::new(),
        }
    }
}

const BEGINNING: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn definition(steps: &[Value]) -> Value {
    json!({"name": "overhead", "trigger": {"type": "webhook"}, "steps": steps})
}

fn linear(count: usize) -> Value {
    let steps: Vec<_> = (0..count)
        .map(|index| {
            let last = match index.checked_sub(1) {
                Some(last) => format!("{{{{ steps.s{last}.output.id }}}}"),
                None => "{{ order.id }}".to_owned(),
            };
            let with = json!({"text": "Hello {{ user.name }}! Order #{{ order.id }}", "last": last});
            json!({"id": format!("s{index}"), "uses": "http.request", "with": with})
        })
        .collect();
    definition(&steps)
}

fn list() -> Value {
    let with = json!({"text": "{{ user.name }}: {{ item.n }}", "index": "{{ index + 1 }}"});
    let foreach = json!({"items": "lines", "concurrency": 20});
    definition(&[json!({"id": "each", "uses": "http.request", "foreach": foreach, "with": with})])
}

fn fan(count: usize) -> Value {
    let mut steps = vec![json!({"id": "first", "uses": "http.request", "after": []})];
    let names: Vec<_> = (0..count).map(|index| format!("s{index}")).collect();
    steps.extend(names.iter().map(|name| {
        let with = json!({"text": "Hello {{ user.name }}!", "id": "{{ steps.first.output.id }}"});
        json!({"id": name, "uses": "http.request", "after": ["first"], "with": with})
    }));
    let with = json!({"one": "{{ steps.s0.output.ok }}"});
    steps.push(json!({"id": "last", "uses": "http.request", "after": names, "with": with}));
    definition(&steps)
}

fn beside() -> Value {
    let mut steps: Vec<_> = (0..20)
        .map(|index| {
            let with = json!({"text": "Hello {{ user.name }}! Order #{{ order.id }}"});
            json!({"id": format!("call{index}"), "uses": "http.request", "after": [], "with": with})
        })
        .collect();
    steps.push(json!({"id": "s0", "uses": "data.set", "after": [], "with": {"id": "{{ order.id }}"}}));
    steps.extend((1..980).map(|index| {
        let with = json!({"id": format!("{{{{ steps.s{}.output.id + 1 }}}}", index - 1)});
        json!({"id": format!("s{index}"), "uses": "data.set", "with": with})
    }));
    definition(&steps)
}

/// How long this process, which has one thread, has been on a CPU.
fn cpu_nanoseconds() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
