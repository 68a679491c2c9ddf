//! `kill -9` at random moments: nothing accepted is lost, nothing finished is done again.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]
#![expect(clippy::print_stdout, reason = "shown where the test fails: the seed, and how far it was")]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::{join, join_all, try_join_all};
use serde_json::{Value, json};
use tidegate_scenarios::{Api, Server, Sink};

const RUNS: usize = 500;
const STEPS: [&str; 2] = ["first", "second"];
const ROUNDS: u64 = 3;
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_accepted_run_and_repeats_no_finished_step() {
    let mut random = Random::from_settings();
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    for round in 0..ROUNDS {
        // Every call of the runs is a place to die, the time before the first and after the last included.
        let calls_before_kill = random.below(RUNS * STEPS.len() + 1);
        println!("round {round}: kill after {calls_before_kill} answered calls");
        let sink = Sink::start(Duration::from_millis(5)).await.unwrap();
        let server = Server::start(binary, folder.path()).await.unwrap();
        let api = Api::register(server.url()).await.unwrap();
        let runs = accept_runs(&api, &sink).await;

        sink.open();
        sink.answered().wait_for(|answered| *answered >= calls_before_kill).await.unwrap();
        let killed_at_ms = now_ms();
        server.kill().await.unwrap();

        let server = Server::start(binary, folder.path()).await.unwrap();
        let api = api.at(server.url());
        // One by one: those that are done already cost a request each.
        let mut records = HashMap::new();
        for (order, run) in &runs {
            records.insert(order.as_str(), api.finished_run(run, DEADLINE).await.unwrap());
        }
        check(&records, &sink, killed_at_ms);
        server.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_amid_posts_loses_none_that_was_accepted() {
    let mut random = Random::from_settings();
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    for round in 0..ROUNDS {
        let posts_before_kill = 1 + random.below(300);
        let server = Server::start(binary, folder.path()).await.unwrap();
        let api = Api::register(server.url()).await.unwrap();
        let workflow = two_calls(&api, &sink).await;
        let accepted = tokio::sync::watch::Sender::new(Vec::new());
        // Each posts until the server is gone.
        let posting = join_all((0..16).map(async |poster| {
            for number in 0.. {
                let body = json!({"order": format!("order-{round}-{poster}-{number}")}).to_string();
                let Ok(run) = api.post_webhook(&workflow, "application/json", &[], &body).await else { return };
                accepted.send_modify(|accepted| accepted.push(run));
            }
        }));
        let killing = async {
            accepted.subscribe().wait_for(|accepted| accepted.len() >= posts_before_kill).await.unwrap();
            server.kill().await.unwrap();
        };
        join(posting, killing).await;

        let runs = accepted.borrow().clone();
        println!("round {round}: killed with {} runs accepted", runs.len());
        let server = Server::start(binary, folder.path()).await.unwrap();
        let api = api.at(server.url());
        for run in runs {
            let record = api.finished_run(&run, DEADLINE).await.unwrap();
            assert_eq!(record["status"], "succeeded", "{record}");
        }
        server.kill().await.unwrap();
    }
}

/// A vendor sends again until it is answered: between the note that a delivery came and its message, and anywhere else, a kill
/// loses none and doubles none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_are_sent_again_after_a_kill_run_once() {
    const KILLS: usize = 15;
    const SENDERS: usize = 8;
    /// A run that dies five times without getting on is given up, so all may end before every third kill.
    const BREATH: usize = 3;
    let mut random = Random::from_settings();
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let mut server = Server::start(binary, folder.path()).await.unwrap();
    let mut api = Api::register(server.url()).await.unwrap();
    let request = json!({"method": "POST", "url": sink.url("/order"), "json": {"order": "{{order}}"}});
    let workflow = json!({
        "name": "Orders",
        "trigger": {"type": "webhook", "deduplicate": {"by": "idempotency_key"}},
        "steps": [{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 60_000}],
    });
    let workflow = api.post("/api/workflows", workflow).await.unwrap()["id"].as_str().unwrap().to_owned();
    let address = format!("/api/webhooks/{workflow}");
    // What each sender sends next, and what was answered to whom.
    let next: Vec<_> = (0..SENDERS).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
    let answers = tokio::sync::watch::Sender::new(Vec::<(String, String)>::new());
    for kill in 0..=KILLS {
        let enough = answers.borrow().len() + 1 + random.below(60);
        let sending = join_all(next.iter().enumerate().map(async |(sender, next)| {
            loop {
                let number = next.load(std::sync::atomic::Ordering::SeqCst);
                let key = format!("{sender}-{number}");
                let headers = [("content-type", "application/json"), ("idempotency-key", &*key)];
                let body = json!({"order": key}).to_string();
                // Without an answer the same one is sent again, after the kill.
                let Ok((200, answer)) = api.send(http::Method::POST, &address, &headers, body).await else { return };
                let run = answer["run_id"].as_str().unwrap().to_owned();
                answers.send_modify(|answers| answers.push((key, run)));
                next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                // No more than what is worked off.
                let most = if kill == KILLS { enough } else { enough + 100 };
                if answers.borrow().len() > most {
                    return;
                }
            }
        }));
        let killing = async {
            answers.subscribe().wait_for(|answers| answers.len() >= enough).await.unwrap();
            if kill % BREATH == BREATH - 1 {
                let answered = answers.borrow().clone();
                for (_, run) in answered {
                    api.finished_run(&run, DEADLINE).await.unwrap();
                }
            }
            if kill < KILLS {
                server.signal("KILL").unwrap();
            }
        };
        join(sending, killing).await;
        if kill < KILLS {
            server.kill().await.unwrap();
            server = Server::start(binary, folder.path()).await.unwrap();
            api = api.at(server.url());
        }
    }

    let answers = answers.borrow().clone();
    let mut runs = HashMap::new();
    for (key, run) in &answers {
        assert_eq!(runs.insert(key.as_str(), run.as_str()), None, "{key} was answered once");
        let record = api.finished_run(run, DEADLINE).await.unwrap();
        assert_eq!(record["status"], "succeeded", "{record}");
        assert_eq!(record["input"]["body"]["order"], key.as_str());
    }
    // No call of another run has an order that was answered: what was sent again is the run that it was.
    for call in sink.received_at("/order") {
        let order = serde_json::from_slice::<Value>(&call.body).unwrap()["order"].as_str().unwrap().to_owned();
        let run = call.header("idempotency-key").unwrap().split(':').next().unwrap().to_owned();
        if let Some(answered) = runs.get(order.as_str()) {
            assert_eq!(*answered, run, "{order} ran twice");
        }
    }
    println!("{KILLS} kills, {} deliveries", answers.len());
    server.kill().await.unwrap();
}

/// A hundred kills, one after the other, of a process that is being posted to all the time and works on what it has
/// accepted: branches, a list, calls at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_under_load_lose_nothing() {
    const KILLS: usize = 100;
    /// A run that dies five times without getting on is given up, as it should be. So that kills in quick succession don't
    /// do that, all runs may end before every third one.
    const BREATH: usize = 3;
    let mut random = Random::from_settings();
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let sink = Sink::start(Duration::from_millis(2)).await.unwrap();
    let mut server = Server::start(binary, folder.path()).await.unwrap();
    let mut api = Api::register(server.url()).await.unwrap();
    let workflow = branches(&api, &sink).await;
    let accepted = tokio::sync::watch::Sender::new(Vec::new());
    let mut ended = 0;
    for kill in 0..KILLS {
        let before_kill = accepted.borrow().len() + 1 + random.below(25);
        let answered = *sink.answered().borrow() + random.below(60);
        let posting = join_all((0..4).map(async |poster| {
            for number in 0.. {
                let body = json!({"order": format!("{kill}-{poster}-{number}")}).to_string();
                let Ok(run) = api.post_webhook(&workflow, "application/json", &[], &body).await else { return };
                accepted.send_modify(|accepted| accepted.push(run));
                // No more than what is worked off: otherwise a hundred rounds pile up.
                let enough = before_kill + 50;
                if accepted.borrow().len() > enough {
                    return;
                }
            }
        }));
        let killing = async {
            accepted.subscribe().wait_for(|accepted| accepted.len() >= before_kill).await.unwrap();
            // With a backlog left the calls come by themselves; without one there may be fewer of them.
            let calls = sink.answered();
            drop(
                tokio::time::timeout(Duration::from_millis(500), calls.clone().wait_for(|now| *now >= answered)).await,
            );
            if kill % BREATH == BREATH - 1 {
                let open = accepted.borrow()[ended..].to_vec();
                ended += open.len();
                for run in open {
                    api.finished_run(&run, DEADLINE).await.unwrap();
                }
            }
            server.kill().await.unwrap();
        };
        join(posting, killing).await;
        server = Server::start(binary, folder.path()).await.unwrap();
        api = api.at(server.url());
    }

    let mut calls: HashMap<String, usize> = HashMap::new();
    let runs = accepted.borrow().clone();
    let mut interrupted = 0;
    let mut expected = HashMap::new();
    for run in &runs {
        let record = api.finished_run(run, DEADLINE).await.unwrap();
        assert_eq!(record["status"], "succeeded", "{record}");
        for step in record["steps"].as_array().unwrap().iter().filter(|step| step["uses"] == "http.request") {
            let id = step["id"].as_str().unwrap();
            let items = step["items"].as_array().into_iter().flatten();
            let items = items.map(|item| (format!("{run}:{id}:{}", item["index"]), item["attempts"].clone()));
            for (key, attempts) in items.chain([(format!("{run}:{id}"), step["attempts"].clone())]) {
                let attempts = attempts.as_array().unwrap();
                interrupted += attempts.iter().filter(|attempt| attempt["interrupted"] == true).count();
                if !attempts.is_empty() {
                    expected.insert(key, attempts.len());
                }
            }
        }
    }
    for call in sink.received() {
        *calls.entry(call.header("idempotency-key").expect("an idempotency key").to_owned()).or_default() += 1;
    }
    // A run whose acceptance nobody heard of runs all the same.
    let known: HashSet<_> = runs.iter().map(String::as_str).collect();
    calls.retain(|key, _| key.split(':').next().is_some_and(|run| known.contains(run)));
    for (key, made) in &calls {
        let attempts = expected.get(key).unwrap_or_else(|| panic!("{key} is no step's that was told"));
        assert!(made <= attempts, "{key} was called {made} times in {attempts} attempts");
    }
    assert!(expected.keys().all(|key| calls.contains_key(key)), "a step succeeded without its call");
    let repeats: usize = calls.values().map(|made| made - 1).sum();
    println!(
        "{KILLS} kills, {} runs accepted and succeeded, {interrupted} calls in flight at a kill, {repeats} repeated",
        runs.len()
    );
    assert!(interrupted > KILLS / 2, "the kills came while calls were in flight");
    server.kill().await.unwrap();
}

/// Two branches at the same time, one with a list, and what joins them.
async fn branches(api: &Api, sink: &Sink) -> String {
    let call = |id: &str| {
        let with = json!({"method": "POST", "url": sink.url(&format!("/{id}")), "json": {"order": "{{order}}"}});
        json!({"id": id, "uses": "http.request", "with": with, "timeout_ms": 60_000})
    };
    let mut steps = vec![call("first"), call("left"), call("right"), call("join"), call("never")];
    steps[1]["after"] = json!(["first"]);
    steps[2]["after"] = json!(["first"]);
    steps[2]["foreach"] = json!({"items": [1, 2, 3], "concurrency": 2});
    steps[3]["after"] = json!(["left", "right"]);
    let check = json!({"id": "check", "uses": "logic.if", "with": {"condition": "order == ''"}, "after": ["join"]});
    steps[4]["after"] = json!(["check.true"]);
    steps.push(check);
    api.create_workflow("Branches", json!(steps)).await.unwrap()
}

/// Posts 500 orders while the sink holds all answers back, so that every run is still in flight when the last one is
/// accepted. Order and run of each.
async fn accept_runs(api: &Api, sink: &Sink) -> Vec<(String, String)> {
    sink.close();
    let workflow = two_calls(api, sink).await;
    let mut runs = Vec::with_capacity(RUNS);
    for batch in (0..RUNS).collect::<Vec<_>>().chunks(50) {
        let posts = batch.iter().map(async |number| {
            let order = format!("order-{number}");
            let body = json!({"order": order}).to_string();
            api.post_webhook(&workflow, "application/json", &[], &body).await.map(|run| (order, run))
        });
        runs.extend(try_join_all(posts).await.unwrap());
    }
    runs
}

/// A workflow that calls the sink twice.
async fn two_calls(api: &Api, sink: &Sink) -> String {
    let steps = STEPS.map(|step| {
        let request = json!({"method": "POST", "url": sink.url(&format!("/{step}")), "json": {"order": "{{order}}"}});
        json!({"id": step, "uses": "http.request", "with": request, "timeout_ms": 60_000})
    });
    api.create_workflow("Two calls", json!(steps)).await.unwrap()
}

fn check(records: &HashMap<&str, Value>, sink: &Sink, killed_at_ms: i64) {
    let mut calls: HashMap<(String, String), Vec<String>> = HashMap::new();
    for call in sink.received() {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let key = call.header("idempotency-key").expect("an idempotency key").to_owned();
        let step = call.path.trim_start_matches('/').to_owned();
        let order = body["order"].as_str().unwrap().to_owned();
        // The second call is made only once the first one's result is in the journal.
        let second_began = calls.contains_key(&(order.clone(), STEPS[1].to_owned()));
        assert!(
            step != STEPS[0] || !second_began,
            "{order}: the first step was called again after its result was kept"
        );
        calls.entry((order, step)).or_default().push(key);
    }

    assert_eq!(records.len(), RUNS);
    let mut finished_before_kill = 0;
    for (order, record) in records {
        assert_eq!(record["status"], "succeeded", "{record}");
        for (index, step) in STEPS.into_iter().enumerate() {
            let record = &record["steps"][index];
            let keys = &calls[&((*order).to_owned(), step.to_owned())];
            assert!(keys.iter().all(|key| *key == keys[0]), "{order} {step}: repeated under another key: {keys:?}");
            // A result that was known before the kill and is in the record now was in the journal then.
            let attempt = record["attempts"].as_array().unwrap().last().unwrap();
            let finished_at = attempt["finished_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            if finished_at.as_millisecond() < killed_at_ms {
                finished_before_kill += 1;
                assert_eq!(keys.len(), 1, "{order} {step}: finished before the kill, called again: {record}");
            }
        }
    }
    let keys: HashSet<_> = calls.values().map(|keys| &keys[0]).collect();
    assert_eq!(keys.len(), RUNS * STEPS.len(), "two calls share an idempotency key");
    let repeats = calls.values().map(|keys| keys.len() - 1).sum::<usize>();
    let in_flight = sink.most_in_flight();
    println!("finished before the kill: {finished_before_kill} steps; repeated: {repeats}; in flight: {in_flight}");
    assert!(repeats <= in_flight, "{repeats} calls were repeated, of at most {in_flight} in flight");
}

#[expect(clippy::disallowed_methods, reason = "the test compares the process's times with its own")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// Numbers from a printed seed (xorshift64*, <https://en.wikipedia.org/wiki/Xorshift>), so that a failure can be had
/// again: set `TIDEGATE_CRASH_SEED`.
struct Random(u64);

impl Random {
    #[expect(clippy::disallowed_methods, reason = "the test's own setting")]
    fn from_settings() -> Self {
        let seed = match std::env::var("TIDEGATE_CRASH_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => getrandom::u64().unwrap() | 1,
        };
        println!("TIDEGATE_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bound = u64::try_from(bound).unwrap();
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound).try_into().unwrap()
    }
}
