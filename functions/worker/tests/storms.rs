//! Whatever happens to its workers, its messages and its store, a run ends as it would have undisturbed, and nothing whose
//! result is in the journal is called again.
//!
//! Each case is a random definition, run once in peace and once in a storm: workers die between any two of their writes,
//! messages come twice, in any order and to two workers at once, the store throttles and loses answers. The cases are
//! drawn from a seed that a failure names; `STORM_CASES=100000 STORM_SEED=7` runs more of them, or others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the other tests use the rest")]
mod world;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidegate_model::{
    Attempt, Decided, Definition, Message, Payload, RunDetail, RunId, RunStatus, StartMessage, StepRecord, Workflow,
    WorkflowId,
};
use tidegate_platform::Blobs;
use tidegate_platform::queue::{OutgoingMessage, Queue, ReceivedMessage};
use tidegate_store::RunFilter;
use tidegate_worker::{Deps, Settings, Source, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use world::{World, handle, wake};

/// How many cases each of the four tests runs by default.
const CASES: u64 = 2_500;
/// How many worlds one test keeps.
const WORLDS: usize = 3;
/// So few that no run is given up for them: that takes five claims without progress.
const MAX_DEATHS: u32 = 4;
const MAX_ROUNDS: u32 = 500;

#[tokio::test]
async fn first_quarter() {
    storms(1).await;
}

#[tokio::test]
async fn second_quarter() {
    storms(2).await;
}

#[tokio::test]
async fn third_quarter() {
    storms(3).await;
}

#[tokio::test]
async fn last_quarter() {
    storms(4).await;
}

async fn storms(quarter: u64) {
    #[expect(clippy::disallowed_methods, reason = "the test's own settings")]
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = number("STORM_CASES").map_or(CASES, |cases| cases.div_ceil(4));
    let first = number("STORM_SEED").unwrap_or(20_261_121) + quarter * 1_000_000_000;
    // Several worlds at once, since a storm is mostly waited for.
    let worlds = (0..WORLDS).map(|world| async move {
        let mut gale = None;
        for (count, case) in (0..cases).skip(world).step_by(WORLDS).enumerate() {
            // A world that many runs went through only costs memory.
            if count % 250 == 0 {
                gale = Some(Gale::new().await);
            }
            let outcome = gale.as_mut().unwrap().case(Dice(first + case)).await;
            let seed = first + case - 1_000_000_000;
            assert!(outcome.is_ok(), "STORM_SEED={seed} STORM_CASES=1, first_quarter: {outcome:?}");
        }
    });
    futures::future::join_all(worlds).await;
}

/// Draws from a seed: splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound.
    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(u32::try_from(of.len()).unwrap()) as usize]
    }
}

/// A target that answers by its path, `/{what}/{slot}`, and counts calls by their keys.
#[derive(Clone, Default)]
struct Target {
    calls: Arc<Mutex<HashMap<String, u32>>>,
}

impl Target {
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(target.clone().serve(stream));
            }
        });
        format!("http://{address}")
    }

    async fn serve(self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut read = Vec::new();
        let mut chunk = [0; 8_192];
        loop {
            let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(head) = head else {
                match stream.read(&mut chunk).await {
                    Ok(length) if length > 0 => read.extend_from_slice(&chunk[..length]),
                    _ => return,
                }
                continue;
            };
            let text = String::from_utf8_lossy(&read[..head]).into_owned();
            let header = |name: &str| {
                let lines = text.lines().filter_map(|line| line.split_once(": "));
                lines.into_iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
            while read.len() < head + 4 + length {
                match stream.read(&mut chunk).await {
                    Ok(length) if length > 0 => read.extend_from_slice(&chunk[..length]),
                    _ => return,
                }
            }
            read.drain(..head + 4 + length);
            let key = header("idempotency-key").unwrap();
            *self.calls.lock().unwrap().entry(key).or_default() += 1;
            let what = text.split('/').nth(1).unwrap_or_default();
            let (status, body) = match what {
                "missing" => ("404 Not Found", "no".to_owned()),
                "busy" => ("503 Service Unavailable", "no".to_owned()),
                "large" => ("200 OK", "x".repeat(9_000)),
                _ => ("200 OK", "ok".to_owned()),
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A world in which definitions are run twice.
struct Gale {
    world: World,
    target: Target,
    url: String,
    /// Workflows to call: one that succeeds, one that fails.
    called: [WorkflowId; 2],
    processes: u32,
}

/// What a run came to, without what differs from run to run.
#[derive(Debug, PartialEq)]
struct Ending {
    status: RunStatus,
    failed_step: Option<String>,
    steps: BTreeMap<String, Value>,
    output: Option<Value>,
}

impl Gale {
    async fn new() -> Self {
        let world = World::new().await;
        world.make_tenant().await;
        let target = Target::default();
        let url = target.listen().await;
        let mut called = Vec::new();
        for what in ["ok", "missing"] {
            let steps = json!([call(&url, "inner", what)]);
            let output = json!({"n": "{{ n }}"});
            called.push(store(&world, steps, Some(output)).await);
        }
        Self { world, target, url, called: called.try_into().unwrap(), processes: 0 }
    }

    async fn case(&mut self, mut dice: Dice) -> Result<(), String> {
        let steps = self.steps(&mut dice);
        let output = dice.one_in(2).then(|| json!({"last": "{{ steps.s0.status }}"}));
        let workflow = store(&self.world, steps.clone(), output).await;
        let calm = self.run(workflow, &steps, None).await.map_err(|why| format!("in peace: {why}; {steps}"))?;
        let stormy =
            self.run(workflow, &steps, Some(&mut dice)).await.map_err(|why| format!("in the storm: {why}; {steps}"))?;
        if calm != stormy {
            return Err(format!("ended otherwise: {stormy:#?}, in peace {calm:#?}; {steps}"));
        }
        Ok(())
    }

    /// One to six steps, in a line or as a graph. Only in a line may a failure stop the run: which of two branches is
    /// faster may differ.
    fn steps(&self, dice: &mut Dice) -> Value {
        let count = 1 + dice.below(6);
        let line = dice.one_in(2);
        let mut steps: Vec<Value> = Vec::new();
        for index in 0..count {
            let id = format!("s{index}");
            let what = *dice.choose(&["ok", "ok", "ok", "large", "missing", "busy"]);
            let mut step = match dice.below(20) {
                0 | 1 => json!({"uses": "logic.if", "with": {"condition": format!("n == {}", dice.below(2))}}),
                2 => json!({"uses": "data.set", "with": {"n": "{{ n }}", "text": "x".repeat(10)}}),
                3 => json!({"uses": "time.delay", "with": {"duration": dice.below(100)}}),
                4 => json!({"uses": "approval.wait", "with": {"message": "{{ n }}"}}),
                5 | 6 => json!({
                    "uses": "workflow.call",
                    "with": {"workflow": dice.choose(&self.called), "body": {"n": "{{ n }}"}},
                }),
                7..=9 => {
                    let mut step = call(&self.url, &id, what);
                    let items: Vec<_> = (0..dice.below(4)).collect();
                    let failure = if line { *dice.choose(&["stop", "continue"]) } else { "continue" };
                    // Of items that are called together it may differ which fails first.
                    let concurrency = if failure == "stop" { 1 } else { 1 + dice.below(3) };
                    step["foreach"] = json!({"items": items, "concurrency": concurrency, "on_item_failure": failure});
                    step
                }
                _ => call(&self.url, &id, what),
            };
            step["id"] = json!(id);
            step["retry"] = json!({"max_attempts": 1 + dice.below(3), "initial_delay_ms": 20_000});
            step["on_failure"] = json!(if line && dice.one_in(2) { "stop" } else { "continue" });
            if !line {
                let mut after = Vec::new();
                for earlier in steps.iter().filter(|_| dice.one_in(2)).take(3).collect::<Vec<_>>() {
                    let outlet = match earlier["uses"].as_str() {
                        Some("logic.if") => *dice.choose(&["", ".true", ".false"]),
                        Some("approval.wait") => *dice.choose(&["", ".approved", ".rejected"]),
                        _ => "",
                    };
                    after.push(format!("{}{outlet}", earlier["id"].as_str().unwrap()));
                }
                step["after"] = json!(after);
            }
            steps.push(step);
        }
        json!(steps)
    }

    fn worker(&mut self) -> Deps {
        self.processes += 1;
        let process = format!("p{}", self.processes);
        let settings =
            Settings { in_place: Duration::ZERO, insistence: Duration::ZERO, ..Settings::new(process, false) };
        let mut worker = self.world.worker_with(settings);
        // What becomes of a run must not depend on how other runs' calls fail.
        worker.connections = worker.connections.opening_after(u32::MAX);
        worker
    }

    async fn run(
        &mut self,
        workflow: WorkflowId,
        steps: &Value,
        mut storm: Option<&mut Dice>,
    ) -> Result<Ending, String> {
        let start = self.world.start(workflow);
        self.world.send(&Message::Start(Box::new(start.clone()))).await;
        let of = |uses: &str| {
            let steps = steps.as_array().into_iter().flatten().filter(|step| step["uses"] == uses);
            steps.map(|step| step["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let asks = of("approval.wait");
        let mut workers = [self.worker(), self.worker()];
        let mut deaths = 0;
        for _ in 0..MAX_ROUNDS {
            if let Some(dice) = storm.as_deref_mut() {
                if deaths < MAX_DEATHS && dice.one_in(2) {
                    self.world.life.dies_after(dice.below(14));
                }
                if dice.one_in(3) {
                    self.world.life.faults.throttle_every(2 + dice.below(6));
                }
                if dice.one_in(3) {
                    self.world.life.faults.lose_answer_every(2 + dice.below(6));
                }
            }
            if self.deliver(&workers, storm.as_deref_mut()).await {
                deaths += 1;
                workers = [self.worker(), self.worker()];
            }
            self.world.life.revive();
            self.decide(start.run_id, &asks, storm.as_deref_mut()).await;
            if self.is_over(&start).await {
                return self.ending(&start).await;
            }
            let seconds = match storm.as_deref_mut() {
                Some(dice) => *dice.choose(&[0, 5, 60, 310]),
                None => 60,
            };
            self.world.clock.advance(Duration::from_secs(seconds));
        }
        Err(format!("the run {} never ends: {:?}", start.run_id, self.world.stored(start.run_id).await))
    }

    /// Handles up to three messages at once; tells whether the workers died.
    async fn deliver(&self, workers: &[Deps; 2], mut storm: Option<&mut Dice>) -> bool {
        let queue = &self.world.queue;
        let mut received = queue.receive(3, Duration::ZERO).await.unwrap();
        let dead = queue.dead_letters().unwrap();
        let letters = dead.receive(1, Duration::ZERO).await.unwrap();
        if storm.as_deref_mut().is_some_and(|dice| dice.one_in(2)) {
            received.reverse();
        }
        let handled = received.iter().enumerate().map(|(index, message)| {
            let worker = &workers[index % 2];
            async move { handle(worker, message, Source::Runs).await }
        });
        let verdicts = futures::future::join_all(handled).await;
        let mut of_letters = Vec::new();
        for letter in &letters {
            of_letters.push(handle(&workers[0], letter, Source::DeadLetters).await);
        }
        let died = self.world.life.is_dead();
        self.world.life.revive();
        self.settle(&**queue, &received, &verdicts, died).await;
        self.settle(dead, &letters, &of_letters, died).await;
        for message in &received {
            if storm.as_deref_mut().is_some_and(|dice| dice.one_in(6)) {
                let body = message.body.clone();
                queue.send(OutgoingMessage::new(self.world.tenant, body)).await.unwrap();
            }
        }
        died
    }

    async fn settle(&self, queue: &dyn Queue, messages: &[ReceivedMessage], verdicts: &[Verdict], died: bool) {
        for (message, verdict) in messages.iter().zip(verdicts) {
            match verdict {
                _ if died => queue.change_visibility(&message.receipt, Duration::ZERO).await.unwrap(),
                Verdict::Delete => queue.delete(&message.receipt).await.unwrap(),
                Verdict::Keep { visible_in } => {
                    queue.change_visibility(&message.receipt, *visible_in).await.unwrap();
                }
            }
        }
    }

    /// Decides what the run asks; which way is fixed by the step.
    async fn decide(&self, run: RunId, asks: &[String], mut storm: Option<&mut Dice>) {
        if asks.is_empty() {
            return;
        }
        let Some(stored) = self.world.stored(run).await else { return };
        let runs = self.world.store.runs();
        for step in asks {
            if storm.as_deref_mut().is_some_and(|dice| dice.one_in(2)) {
                continue;
            }
            let Some(approval) = runs.approval(self.world.tenant, run, step).await.unwrap() else { continue };
            if approval.decided.is_some() && storm.is_none() {
                continue;
            }
            let approved = !step.ends_with(['1', '4']);
            let decided = Decided { approved, comment: None, at: self.world.clock.now() };
            runs.decide(self.world.tenant, run, step, &decided).await.unwrap();
            if stored.row.status == RunStatus::Waiting {
                self.world.send(&wake(&stored.row, stored.row.wake)).await;
            }
        }
    }

    async fn is_over(&self, start: &StartMessage) -> bool {
        let depth = self.world.queue.depth().await.unwrap();
        let empty = depth.visible + depth.in_flight == 0;
        empty && self.world.status(start.run_id).await.is_some_and(RunStatus::is_final)
    }

    async fn ending(&self, start: &StartMessage) -> Result<Ending, String> {
        let stored = self.world.stored(start.run_id).await.unwrap();
        let detail = self.load(&stored.detail.ok_or("no record")?).await;
        let detail: RunDetail = serde_json::from_value(detail).unwrap();
        let mut steps = BTreeMap::new();
        for step in &detail.steps {
            self.check_calls(start.run_id, step)?;
            steps.insert(step.id.clone(), self.told(step).await);
        }
        if detail.steps.iter().any(|step| step.uses == "workflow.call") {
            self.check_children(start).await?;
        }
        let output = match &detail.output {
            Some(output) => Some(self.load(output).await),
            None => None,
        };
        Ok(Ending { status: stored.row.status, failed_step: stored.row.failed_step, steps, output })
    }

    async fn told(&self, step: &StepRecord) -> Value {
        let mut told = Map::new();
        told.insert("status".to_owned(), json!(step.status));
        told.insert("outlet".to_owned(), json!(step.outlet));
        told.insert("code".to_owned(), json!(step.error.as_ref().map(|error| error.code)));
        if let Some(output) = &step.output {
            let output = self.load(output).await;
            let output = match step.uses.as_str() {
                "workflow.call" => output["output"].clone(),
                "time.delay" => Value::Null,
                "approval.wait" => output["approved"].clone(),
                _ => output,
            };
            told.insert("output".to_owned(), output);
        }
        for item in &step.items {
            let output = match &item.output {
                Some(output) => self.load(output).await,
                None => Value::Null,
            };
            let made = item.attempts.iter().filter(|attempt| !attempt.interrupted).count();
            told.insert(item.index.to_string(), json!([item.status, output, made]));
        }
        let made = step.attempts.iter().filter(|attempt| !attempt.interrupted).count();
        told.insert("attempts".to_owned(), json!(made));
        Value::Object(told)
    }

    /// A call that was made has an attempt; so one whose result was journalled was not made again.
    fn check_calls(&self, run: RunId, step: &StepRecord) -> Result<(), String> {
        let items = step.items.iter().map(|item| (format!("{run}:{}:{}", step.id, item.index), &item.attempts));
        let calls = self.target.calls.lock().unwrap();
        for (key, attempts) in items.chain([(format!("{run}:{}", step.id), &step.attempts)]) {
            let made = calls.get(&key).copied().unwrap_or_default() as usize;
            let known = |attempt: &&Attempt| !attempt.interrupted && attempt.finished_at.is_some();
            let known = attempts.iter().filter(known).count();
            if made > attempts.len() || (made < known && step.uses == "http.request" && step.foreach_is_whole()) {
                return Err(format!("{key} was called {made} times, with these attempts: {attempts:?}"));
            }
        }
        Ok(())
    }

    /// A step that calls a workflow has one run of it for each attempt.
    async fn check_children(&self, start: &StartMessage) -> Result<(), String> {
        for workflow in self.called {
            let filter = RunFilter { workflow: Some(workflow), ..RunFilter::default() };
            let runs = self.world.store.runs().list(self.world.tenant, &filter, None, 100).await.unwrap().items;
            let mut seen = HashMap::new();
            for child in runs.iter().filter(|run| run.parent.as_ref().is_some_and(|p| p.run_id == start.run_id)) {
                if !child.status.is_final() {
                    return Err(format!("{} is {:?}", child.id, child.status));
                }
                *seen.entry(child.parent.as_ref().map(|parent| parent.step.clone())).or_insert(0) += 1;
            }
            if let Some((step, count)) = seen.iter().find(|(_, count)| **count > 1) {
                return Err(format!("{step:?} was called {count} times"));
            }
        }
        Ok(())
    }

    async fn load(&self, payload: &Payload) -> Value {
        match payload {
            Payload::Inline(value) => value.clone(),
            Payload::Blob(blob) => {
                serde_json::from_slice(&self.world.blobs.get(&blob.key).await.unwrap().unwrap()).unwrap()
            }
        }
    }
}

trait Whole {
    /// Whether the attempts are the step's own: with a list they are its items'.
    fn foreach_is_whole(&self) -> bool;
}

impl Whole for StepRecord {
    fn foreach_is_whole(&self) -> bool {
        self.items.is_empty()
    }
}

fn call(url: &str, id: &str, what: &str) -> Value {
    let with = json!({"method": "POST", "url": format!("{url}/{what}/{id}"), "json": {"n": "{{ n }}"}});
    json!({"id": id, "uses": "http.request", "with": with})
}

async fn store(world: &World, steps: Value, output: Option<Value>) -> WorkflowId {
    let mut document = json!({
        "name": "storm", "trigger": {"type": "webhook"}, "steps": steps, "execution_timeout": 30_000_000,
    });
    if let Some(output) = output {
        document["output"] = output;
    }
    let definition = Definition::parse(&document).unwrap();
    let now = world.clock.now();
    let workflow = Workflow {
        id: world.ids.workflow(),
        tenant: world.tenant,
        name: definition.name.clone(),
        active: true,
        version: 1,
        revision: 1,
        connections: Vec::new(),
        verification: None,
        listening_until: None,
        trigger: definition.trigger.clone(),
        created_at: now,
        updated_at: now,
    };
    world.store.workflows().create(&workflow, &definition).await.unwrap();
    workflow.id
}
