//! What one run may do to others: ten of as many tenants in one batch, of which one ends its process whenever it is
//! executed. Processes are real ones over one folder, each of them handling what the queue hands on, as AWS starts a
//! new one for each that died; the clock is moved by the queue's visibility timeout in between.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, Uri};
use axum::{Json, Router};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_model::{
    BlobRef, Entry, ErrorCode, Event, Message, Payload, RunId, RunRow, RunStatus, StartMessage, TenantId,
};
use tidegate_platform::blobs::UploadLink;
use tidegate_platform::queue::{Depth, Queue};
use tidegate_platform::{Blobs, PortError};
use tidegate_store::JournalItem;
use tidegate_worker::{Deps, Settings, Source, handle_batch};
use tokio::sync::watch;
use wiremock::ResponseTemplate;

use crate::steps;
use crate::world::{BEGINNING, VISIBILITY, World, wake};

const TENANTS: usize = 10;
/// Which of them has the run that ends its process: there are others before and after it.
const FATAL: usize = 4;
/// Claims without progress after which a run is given up.
const CLAIMS: u32 = 5;
/// What a process may map at all.
const MAX_ADDRESSES_KIB: u64 = 512 * 1024;
/// The worker's timeout, as in the template.
const TIMEOUT: Duration = Duration::from_secs(300);
/// So large that it is kept as a blob.
const LARGE: usize = 20_000;
/// What the blobs of a run are called.
const INPUT: &str = "/input";
const FIRST_ANSWER: &str = "/a.output";
const SECOND_ANSWER: &str = "/b.output";

/// How a run ends its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    /// It takes memory until there is no more.
    Memory,
    /// It aborts.
    Abort,
    /// It panics; that doesn't end the process.
    Panic,
}

/// The blob at which a run ends its process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fatal {
    end: End,
    run: RunId,
    blob: String,
}

/// How often a run dies at a blob. By the second answer its first claim has brought it forward, which makes that one no
/// claim without progress.
fn expected_deaths(blob: &str) -> u32 {
    CLAIMS + u32::from(blob == SECOND_ANSWER)
}

impl Fatal {
    fn touch(&self, key: &str) {
        if !(key.contains(&self.run.to_string()) && key.ends_with(&self.blob)) {
            return;
        }
        match self.end {
            End::Memory => exhaust_memory(),
            End::Abort => std::process::abort(),
            End::Panic => panic!("{key} is fatal"),
        }
    }
}

fn exhaust_memory() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; 1024 * 1024]);
    }
}

/// Blobs of which one is fatal to whoever reads or writes it.
struct FatalBlobs {
    blobs: Arc<dyn Blobs>,
    fatal: Fatal,
}

#[async_trait]
impl Blobs for FatalBlobs {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError> {
        self.fatal.touch(key);
        self.blobs.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError> {
        self.fatal.touch(key);
        self.blobs.get(key).await
    }

    async fn get_up_to(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, PortError> {
        self.fatal.touch(key);
        self.blobs.get_up_to(key, max_bytes).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, PortError> {
        self.blobs.size(key).await
    }

    async fn link(&self, key: &str, expires_in: Duration, filename: &str) -> Result<String, PortError> {
        self.blobs.link(key, expires_in, filename).await
    }

    async fn upload_link(
        &self,
        key: &str,
        expires_in: Duration,
        bytes: u64,
        content_type: &str,
    ) -> Result<UploadLink, PortError> {
        self.blobs.upload_link(key, expires_in, bytes, content_type).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool, PortError> {
        self.blobs.copy(from, to).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError> {
        self.blobs.rename(from, to).await
    }

    async fn delete(&self, key: &str) -> Result<(), PortError> {
        self.blobs.delete(key).await
    }
}

/// What a process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Life {
    folder: PathBuf,
    name: String,
    now: Timestamp,
    fatal: Fatal,
}

/// Handles batches until the queue hands out no more, or dies of it. What to do comes on standard input.
#[tokio::test]
#[ignore = "dies; the tests below run it, in processes of its own"]
async fn one_process() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let life: Life = serde_json::from_str(&text).unwrap();
    let world = World::in_folder(&life.folder, life.now).await;
    let deps = worker(&world, &life.name, life.fatal);
    while handle_next(&world, &deps).await {}
}

/// One of many workers: leases of the others are theirs until they run out.
fn worker(world: &World, name: &str, fatal: Fatal) -> Deps {
    let mut deps = world.worker_with(Settings::on_lambda(name, TIMEOUT));
    deps.blobs = Arc::new(FatalBlobs { blobs: Arc::clone(&deps.blobs), fatal });
    deps
}

/// Handles a batch as the event source mapping does: nothing is deleted before all are handled. Tells whether there was
/// one.
async fn handle_next(world: &World, deps: &Deps) -> bool {
    let messages = world.queue.receive(TENANTS, Duration::ZERO).await.unwrap();
    let receipts: Vec<_> = messages.iter().map(|message| message.receipt.clone()).collect();
    let again = handle_batch(deps, Source::Runs, messages, TIMEOUT, TENANTS).await;
    for receipt in receipts.iter().filter(|receipt| !again.contains(receipt)) {
        world.queue.delete(receipt).await.unwrap();
    }
    !receipts.is_empty()
}

/// Runs a process to its end: how it ended, and what it said.
fn run_process(life: &Life) -> (ExitStatus, String) {
    let arguments = "--exact blast::one_process --ignored --nocapture --test-threads 1";
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -c 0; ulimit -v {MAX_ADDRESSES_KIB}; exec \"$0\" {arguments}"))
        .arg(std::env::current_exe().unwrap())
        // Else glibc reserves 64 MiB of addresses for each thread.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(life).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What the runs call; each tenant has a folder of its own.
struct Target {
    url: String,
    /// Each call's tenant, step and idempotency key.
    calls: watch::Sender<Vec<(String, String, String)>>,
}

impl Target {
    /// Where `held_for` is a tenant, the first calls of all others are never answered, and its own only once those are
    /// there.
    async fn start(held_for: Option<TenantId>) -> Self {
        let calls = watch::Sender::new(Vec::new());
        let held_for = held_for.map(|tenant| tenant.to_string());
        let sender = calls.clone();
        let answer = async move |uri: Uri, headers: HeaderMap| {
            let (tenant, step) = uri.path()[1..].split_once('/').unwrap();
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let call = (tenant.to_owned(), step.to_owned(), key);
            let is_first = !sender.borrow().contains(&call) && step == "a";
            sender.send_modify(|calls| calls.push(call));
            match &held_for {
                Some(held_for) if held_for == tenant => {
                    let others = |calls: &Vec<(String, String, String)>| {
                        calls.iter().map(|(tenant, ..)| tenant.clone()).collect::<HashSet<_>>().len() == TENANTS
                    };
                    sender.subscribe().wait_for(others).await.unwrap();
                }
                Some(_) if is_first => std::future::pending().await,
                Some(_) | None => {}
            }
            Json(json!({"text": "x".repeat(LARGE)}))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { url, calls }
    }
}

/// Sends a start for each of ten tenants, whose runs call `a`, then `b`.
async fn send_starts(world: &mut World, tenants: &[TenantId], target: &Target) -> Vec<StartMessage> {
    let mut starts = Vec::new();
    for (number, tenant) in tenants.iter().enumerate() {
        world.tenant = *tenant;
        let workflow = world.workflow(2, |document| {
            for step in document["steps"].as_array_mut().unwrap() {
                step["with"]["url"] = format!("{}/{tenant}/{}", target.url, step["id"].as_str().unwrap()).into();
            }
        });
        let mut start = world.start(workflow.await);
        if number == FATAL {
            let key = format!("live/{tenant}/{}/input", start.run_id);
            let body = json!({"n": 1}).to_string();
            let bytes = body.len() as u64;
            world.blobs.put(&key, body.into()).await.unwrap();
            start.trigger.body = Payload::Blob(BlobRef { key, bytes });
        }
        world.send(&Message::Start(Box::new(start.clone()))).await;
        starts.push(start);
    }
    starts
}

/// Holds what is left to what has to be: the one run was given up and is a dead letter, all others have succeeded, and
/// nothing was called again but what was in flight at a death. Yields how many calls of the others were repeated.
async fn check(world: &mut World, starts: &[StartMessage], target: &Target, blob: &str) -> usize {
    assert_eq!(world.queue.depth().await.unwrap(), Depth::default());
    let mut calls: HashMap<(String, String), Vec<String>> = HashMap::new();
    for (tenant, step, key) in target.calls.borrow().iter().cloned() {
        calls.entry((tenant, step)).or_default().push(key);
    }
    let mut repeated = 0;
    for (number, start) in starts.iter().enumerate() {
        world.tenant = start.tenant_id;
        let stored = world.stored(start.run_id).await.unwrap();
        let calls_of = |step: &str| calls.get(&(start.tenant_id.to_string(), step.to_owned())).map_or(&[][..], |c| c);
        for step in ["a", "b"] {
            let key = format!("{}:{step}", start.run_id);
            assert!(calls_of(step).iter().all(|used| *used == key), "{number}: {:?}", calls_of(step));
        }
        if number == FATAL {
            check_given_up(world, start, expected_deaths(blob)).await;
            continue;
        }
        assert_eq!(stored.row.status, RunStatus::Succeeded, "{number}: {:?}", stored.row);
        assert!(stored.row.fence <= 2, "{number} had to be claimed again once at most: {:?}", stored.row);
        for record in steps(world, &stored).await {
            let interrupted = record.attempts.iter().filter(|attempt| attempt.interrupted).count();
            let made = calls_of(&record.id).len();
            assert!((1..=1 + interrupted).contains(&made), "{number}: {} was called {made} times", record.id);
            repeated += made - 1;
        }
    }
    repeated
}

async fn check_given_up(world: &World, start: &StartMessage, deaths: u32) {
    let row = world.stored(start.run_id).await.unwrap().row;
    assert_eq!(row.status, RunStatus::Failed, "{row:?}");
    // The last claim is the one that gives it up.
    assert_eq!(row.fence, deaths + 1, "{row:?}");
    let error = row.error.unwrap();
    assert_eq!(error.code, ErrorCode::WorkerCrashed);
    let letter = world.store.dead_letters().get(start.tenant_id, start.run_id).await.unwrap().unwrap();
    assert_eq!((letter.code, letter.message), (error.code, error.message));
    let Payload::Inline(kept) = letter.start else { panic!("it is small") };
    let kept: StartMessage = serde_json::from_value(kept).unwrap();
    assert_eq!((kept.run_id, kept.workflow_id), (start.run_id, start.workflow_id));
    let Payload::Blob(input) = kept.trigger.body else { panic!("its input is a blob") };
    let input = world.blobs.get(&input.key).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&input).unwrap(), json!({"n": 1}));
}

/// Ten runs, one of which ends its process at this blob: what the processes said as they died, and how many calls of
/// the others were repeated. `hold`: all others have a call in flight when that happens first.
async fn deaths(end: End, blob: &str, hold: bool) -> (Vec<String>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let beginning: Timestamp = BEGINNING.parse().unwrap();
    let mut world = World::in_folder(folder.path(), beginning).await;
    let tenants: Vec<_> = (0..TENANTS).map(|_| world.ids.tenant()).collect();
    let target = Target::start(hold.then_some(tenants[FATAL])).await;
    let starts = send_starts(&mut world, &tenants, &target).await;
    drop(world);

    let fatal = Fatal { end, run: starts[FATAL].run_id, blob: blob.to_owned() };
    let mut deaths = Vec::new();
    let now = loop {
        let number = u32::try_from(deaths.len()).unwrap();
        assert!(number < 20, "they die again and again: {}", deaths.join("\n"));
        let now = beginning + VISIBILITY * number;
        let folder = folder.path().to_owned();
        let life = Life { folder, name: format!("process-{number}"), now, fatal: fatal.clone() };
        let (status, said) = tokio::task::spawn_blocking(move || run_process(&life)).await.unwrap();
        if status.success() {
            break now;
        }
        assert_eq!(status.signal(), Some(6), "it aborts: {status}, {said}");
        deaths.push(said);
    };
    assert_eq!(deaths.len(), expected_deaths(blob) as usize);
    let mut world = World::in_folder(folder.path(), now).await;
    let repeated = check(&mut world, &starts, &target, blob).await;
    (deaths, repeated)
}

fn assert_out_of_memory(deaths: &[String]) {
    assert!(deaths.iter().all(|said| said.contains("memory allocation of ")), "{deaths:?}");
}

#[tokio::test]
async fn a_run_whose_input_exhausts_memory_fails_alone() {
    let (deaths, _) = deaths(End::Memory, INPUT, false).await;
    assert_out_of_memory(&deaths);
}

#[tokio::test]
async fn a_run_whose_second_answer_exhausts_memory_fails_alone() {
    let (deaths, repeated) = deaths(End::Memory, SECOND_ANSWER, true).await;
    assert_eq!(repeated, TENANTS - 1, "each of the others was in flight at the first death, and at no other");
    assert_out_of_memory(&deaths);
}

#[tokio::test]
async fn a_run_whose_first_answer_aborts_the_process_fails_alone() {
    let (deaths, repeated) = deaths(End::Abort, FIRST_ANSWER, true).await;
    assert_eq!(repeated, TENANTS - 1);
    assert!(deaths.iter().all(|said| !said.contains("memory allocation")), "{deaths:?}");
}

#[tokio::test]
async fn a_run_that_panics_whenever_it_is_executed_fails_alone() {
    for blob in [INPUT, FIRST_ANSWER, SECOND_ANSWER] {
        let mut world = World::new().await;
        let tenants: Vec<_> = (0..TENANTS).map(|_| world.ids.tenant()).collect();
        let target = Target::start(None).await;
        let starts = send_starts(&mut world, &tenants, &target).await;
        let fatal = Fatal { end: End::Panic, run: starts[FATAL].run_id, blob: blob.to_owned() };
        let deps = worker(&world, "here", fatal);
        for _ in 0..20 {
            while handle_next(&world, &deps).await {}
            world.clock.advance(VISIBILITY);
        }
        assert_eq!(check(&mut world, &starts, &target, blob).await, 0, "{blob}: nobody else notices");
    }
}

/// A run that is parked for want of time comes again by a fresh message, so it may not come as if it had never died.
#[tokio::test]
async fn a_parking_makes_no_death_undone() {
    let world = World::new().await;
    let workflow = world.workflow(1, |_| {}).await;
    world.answers(ResponseTemplate::new(200).set_body_string("x".repeat(LARGE))).await;
    let start = world.start(workflow);
    let row = RunRow { claims: CLAIMS, wake: 1, ..world.row(&start, RunStatus::Waiting) };
    world.store.runs().create(&row, None).await.unwrap();
    let event = Event::Started { input: Payload::Inline(json!({"method": "POST"})) };
    let entry = Entry { step: "a".to_owned(), item: None, attempt: 1, at: world.clock.now(), event };
    let item = JournalItem { input: Some(start.trigger.clone()), entries: vec![entry] };
    world.store.runs().append_journal(world.tenant, row.id, 0, &item, world.clock.now()).await.unwrap();
    world.send(&wake(&row, 1)).await;

    let fatal = Fatal { end: End::Panic, run: row.id, blob: FIRST_ANSWER.to_owned() };
    let deps = worker(&world, "here", fatal);
    assert!(handle_next(&world, &deps).await);
    assert_eq!(world.status(row.id).await, Some(RunStatus::Running), "the last claim panicked");
    world.clock.advance(VISIBILITY);
    assert!(handle_next(&world, &deps).await);
    let error = world.stored(row.id).await.unwrap().row.error;
    assert_eq!(error.map(|error| error.code), Some(ErrorCode::WorkerCrashed));
}
