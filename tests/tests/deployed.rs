//! A deployed stack, driven as its users do and looked at as its operators do. `scripts/test-deployed` deploys it to an
//! emulator that enforces policies, and runs these.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_types::SdkConfig;
use aws_types::region::Region;
use serde_json::{Value, json};
use tidegate_scenarios::{Api, Sink, scenario, triggers, until};
use tidegate_testing::emulator;

/// A killed worker's message comes back after 45 s.
const DEADLINE: Duration = Duration::from_secs(150);

/// The stack, by what `scripts/deploy outputs` prints.
struct Stack {
    outputs: Value,
}

/// A function's process.
struct Process {
    pid: u32,
    environment: HashMap<String, String>,
}

impl Stack {
    fn new() -> Self {
        Self { outputs: serde_json::from_str(&setting("TIDEGATE_TEST_STACK")).unwrap() }
    }

    fn output(&self, name: &str) -> &str {
        self.outputs[name].as_str().unwrap_or_else(|| panic!("the stack has no output {name}"))
    }

    async fn api(&self) -> Api {
        let (email, password) = (setting("TIDEGATE_TEST_OWNER"), setting("TIDEGATE_TEST_PASSWORD"));
        Api::log_in(self.output("ApiUrl"), &email, &password).await.unwrap()
    }

    /// The processes that run a function now.
    fn processes(&self, function: &str) -> Vec<Process> {
        let endpoint = setting("TIDEGATE_TEST_AWS_ENDPOINT");
        let name = self.output(function);
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // Processes of others can't be read, and some end meanwhile.
            let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
            let variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
            let environment: HashMap<_, _> =
                variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let is = |variable: &str, value: &str| environment.get(variable).is_some_and(|it| it == value);
            let ours = is("AWS_LAMBDA_FUNCTION_NAME", name) && is("AWS_ENDPOINT_URL", &endpoint);
            ours.then_some(Process { pid, environment })
        });
        processes.collect()
    }

    /// What the SDK needs to act as a function, with the credentials that Lambda gave its process.
    fn as_function(&self, function: &str) -> SdkConfig {
        let process = self.processes(function).into_iter().next();
        let process = process.unwrap_or_else(|| panic!("no process of {function} runs"));
        let variable = |name: &str| process.environment[name].clone();
        let credentials = aws_credential_types::Credentials::from_keys(
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
            Some(variable("AWS_SESSION_TOKEN")),
        );
        let credentials = aws_credential_types::provider::SharedCredentialsProvider::new(credentials);
        emulator::sdk_config()
            .into_builder()
            .credentials_provider(credentials)
            .region(Region::new(variable("AWS_REGION")))
            .build()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads what scripts/test-deployed sets")]
fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run scripts/emulator run --iam scripts/test-deployed"))
}

#[tokio::test]
async fn a_webhook_greets_on_slack() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::greeting(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn people_decide_and_cancel() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::decisions(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn people_and_machines_are_told_apart() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let (email, password) = (setting("TIDEGATE_TEST_OWNER"), setting("TIDEGATE_TEST_PASSWORD"));
    scenario::identity(&Stack::new().api().await, &sink, &email, &password).await.unwrap();
}

#[tokio::test]
async fn a_connector_that_is_uploaded_is_used_at_once_and_keeps_to_its_hosts() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::connectors(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn vendors_deliveries_start_workflows() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    scenario::vendors(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn a_thousand_deliveries_of_a_hundred_ids_are_a_hundred_runs() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    triggers::deliveries(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn a_file_is_uploaded_processed_stored_and_told_of() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    triggers::uploads(&Stack::new().api().await, &sink).await.unwrap();
}

#[tokio::test]
async fn a_webhook_answers_with_its_runs_output() {
    triggers::answers(&Stack::new().api().await).await.unwrap();
}

#[tokio::test]
async fn the_account_is_still_there_and_the_installation_describes_itself() {
    let stack = Stack::new();
    let api = stack.api().await;
    assert_eq!(api.get("/q/health").await.unwrap()["status"], "UP");
    assert_eq!(api.get("/api/auth/me").await.unwrap()["user"]["email"], setting("TIDEGATE_TEST_OWNER"));
    let document = api.get("/api/openapi.json").await.unwrap();
    assert!(document["paths"].get("/api/webhooks/{id}").is_some());
    let refused = Api::register(stack.output("ApiUrl")).await.err().unwrap();
    assert!(format!("{refused:#}").contains("registration_closed"), "{refused:#}");
}

/// A body over 8 KB goes through the bucket, to the call and into the record.
#[tokio::test]
async fn a_large_body_reaches_its_step() {
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let api = Stack::new().api().await;
    let large = "x".repeat(100_000);
    let request = json!({"method": "POST", "url": sink.url("/large"), "json": {"text": "{{text}}"}});
    let steps = json!([{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 5_000}]);
    let workflow = api.create_workflow("Large", steps).await.unwrap();
    let body = json!({"text": large}).to_string();
    let run = api.post_webhook(&workflow, "application/json", &[], &body).await.unwrap();
    let record = api.finished_run(&run, DEADLINE).await.unwrap();
    assert_eq!(record["status"], "succeeded", "{record}");
    assert_eq!(sink.received_at("/large")[0].body, body);
    assert_eq!(record["input"]["body"]["text"], large.as_str());
}

/// The emulator knows no time zones and takes what AWS refuses, so what it was asked for is looked at.
#[tokio::test]
async fn a_schedule_is_made_as_aws_documents_it_and_fires() {
    let stack = Stack::new();
    let api = stack.api().await;
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let request = json!({"method": "POST", "url": sink.url("/tick"), "json": {"at": "{{scheduled_time}}"}});
    let workflow = json!({
        "name": "Every minute",
        "trigger": {"type": "schedule", "every": "1m"},
        "steps": [{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 5_000}],
    });
    let id = api.post("/api/workflows", workflow).await.unwrap()["id"].as_str().unwrap().to_owned();

    let scheduler = aws_sdk_scheduler::Client::new(&emulator::sdk_config());
    let group = stack.output("ScheduleGroup");
    let listed = scheduler.list_schedules().group_name(group).send().await.unwrap().schedules;
    let name = listed.iter().filter_map(|schedule| schedule.name()).find(|name| name.ends_with(&id)).unwrap();
    let schedule = scheduler.get_schedule().group_name(group).name(name).send().await.unwrap();
    assert_eq!(schedule.schedule_expression(), Some("rate(1 minute)"));
    assert_eq!(schedule.flexible_time_window().unwrap().mode().as_str(), "OFF");
    let target = schedule.target().unwrap();
    assert_eq!(target.arn(), "arn:aws:scheduler:::aws-sdk:sqs:sendMessage");
    assert_eq!(target.role_arn(), stack.output("ScheduleRoleArn"));
    let input: Value = serde_json::from_str(target.input().unwrap()).unwrap();
    let tenant = api.get("/api/auth/me").await.unwrap()["tenant"]["id"].clone();
    assert_eq!((&input["QueueUrl"], &input["MessageGroupId"]), (&json!(stack.output("RunQueueUrl")), &tenant));
    let message: Value = serde_json::from_str(input["MessageBody"].as_str().unwrap()).unwrap();
    assert_eq!(message["scheduled_time"], "<aws.scheduler.scheduled-time>", "{message}");
    let dead_letters = target.dead_letter_config().unwrap().arn().unwrap();
    assert!(stack.output("DeadLetterQueueUrl").ends_with(dead_letters.rsplit(':').next().unwrap()));

    let path = format!("/api/runs?workflow_id={id}&status=succeeded");
    let ran = until("the schedule's first run", DEADLINE, async || {
        let runs = api.get(&path).await?;
        Ok(runs["items"].get(0).cloned())
    });
    assert_eq!(ran.await.unwrap()["trigger"], "schedule");
    let sent: Value = serde_json::from_slice(&sink.received_at("/tick")[0].body).unwrap();
    assert!(sent["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{sent}");

    api.delete(&format!("/api/workflows/{id}")).await.unwrap();
    let gone = scheduler.get_schedule().group_name(group).name(name).send().await.unwrap_err();
    assert_eq!(gone.code(), Some("ResourceNotFoundException"));
}

/// Whether a schedule of the stack's group exists.
async fn is_there(scheduler: &aws_sdk_scheduler::Client, group: &str, name: &str) -> bool {
    match scheduler.get_schedule().group_name(group).name(name).send().await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), Some("ResourceNotFoundException"));
            false
        }
    }
}

#[tokio::test]
async fn an_expression_fires_until_it_is_switched_off_and_what_is_left_behind_is_removed() {
    let stack = Stack::new();
    let api = stack.api().await;
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let request = json!({"method": "POST", "url": sink.url("/cron"), "json": {"at": "{{scheduled_time}}"}});
    let workflow = json!({
        "name": "Each minute",
        "trigger": {"type": "schedule", "cron": "* * * * *", "timezone": "Europe/Berlin", "end": "2090-01-01T00:00:00Z"},
        "steps": [{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 5_000}],
    });
    let made = api.post("/api/workflows", workflow).await.unwrap();
    let id = made["id"].as_str().unwrap();
    let next: Vec<jiff::Timestamp> = serde_json::from_value(made["next_firings"].clone()).unwrap();
    assert_eq!(next.len(), 5, "{made}");
    assert!(next.iter().all(|at| at.as_second() % 60 == 0), "{next:?}");

    let scheduler = aws_sdk_scheduler::Client::new(&emulator::sdk_config());
    let group = stack.output("ScheduleGroup");
    let listed = scheduler.list_schedules().group_name(group).send().await.unwrap().schedules;
    let name = listed.iter().filter_map(|schedule| schedule.name()).find(|name| name.ends_with(id)).unwrap();
    let schedule = scheduler.get_schedule().group_name(group).name(name).send().await.unwrap();
    assert_eq!(schedule.schedule_expression(), Some("cron(* * * * ? *)"));
    assert_eq!(schedule.schedule_expression_timezone(), Some("Europe/Berlin"));
    // Half a minute after the last firing.
    let last: jiff::Timestamp = "2089-12-31T23:59:30Z".parse().unwrap();
    assert_eq!(schedule.end_date().map(|end| end.secs()), Some(last.as_second()));

    let path = format!("/api/runs?workflow_id={id}&status=succeeded");
    let ran = until("the expression's first run", DEADLINE, async || {
        let runs = api.get(&path).await?;
        Ok(runs["items"].get(0).cloned())
    });
    assert_eq!(ran.await.unwrap()["trigger"], "schedule");

    let toggle = format!("/api/workflows/{id}/toggle");
    api.put(&toggle, "*", json!({"active": false})).await.unwrap();
    assert!(!is_there(&scheduler, group, name).await, "a workflow that is switched off has no schedule");
    assert_eq!(api.get(&format!("/api/workflows/{id}")).await.unwrap()["next_firings"], Value::Null);

    // As a function leaves it that dies between two writes.
    let left = scheduler.create_schedule().group_name(group).name(name).schedule_expression("rate(365 days)");
    let window = schedule.flexible_time_window().unwrap().clone();
    left.flexible_time_window(window).target(schedule.target().unwrap().clone()).send().await.unwrap();
    let queue = aws_sdk_sqs::Client::new(&emulator::sdk_config());
    let message = queue.send_message().queue_url(stack.output("RunQueueUrl")).message_body(r#"{"kind":"reconcile"}"#);
    message.send().await.unwrap();
    let removed = until("the schedule that was left behind to be removed", DEADLINE, async || {
        Ok((!is_there(&scheduler, group, name).await).then_some(()))
    });
    removed.await.unwrap();

    let daily = scheduler.get_schedule().group_name(group).name("reconcile").send().await.unwrap();
    assert_eq!(daily.schedule_expression(), Some("rate(1 day)"));
    let input: Value = serde_json::from_str(daily.target().unwrap().input().unwrap()).unwrap();
    assert_eq!(input["QueueUrl"], stack.output("RunQueueUrl"));
    assert_eq!(
        serde_json::from_str::<Value>(input["MessageBody"].as_str().unwrap()).unwrap(),
        json!({"kind": "reconcile"})
    );
}

/// The queue delivers at least once; the row's conditional write makes it one run.
#[tokio::test]
async fn a_message_that_is_delivered_twice_is_one_run() {
    let stack = Stack::new();
    let api = stack.api().await;
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let request = json!({"method": "POST", "url": sink.url("/once"), "json": {}});
    let steps = json!([{"id": "call", "uses": "http.request", "with": request, "timeout_ms": 5_000}]);
    let workflow = api.create_workflow("Once", steps).await.unwrap();
    let tenant = api.get("/api/auth/me").await.unwrap()["tenant"]["id"].as_str().unwrap().to_owned();
    let ids = tidegate_platform::Ids::new(tidegate_platform::Clock::system());
    let run = ids.run(tenant.parse().unwrap()).to_string();
    let message = json!({
        "kind": "start", "run_id": run, "tenant_id": tenant, "workflow_id": workflow, "version": 1,
        "trigger": {"type": "webhook", "content_type": "application/json", "body": {"inline": {}}},
        "accepted_at": tidegate_platform::Clock::system().now(),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    });
    let queue = aws_sdk_sqs::Client::new(&emulator::sdk_config());
    for _ in 0..5 {
        let send = queue.send_message().queue_url(stack.output("RunQueueUrl")).message_body(message.to_string());
        send.message_group_id(&tenant).send().await.unwrap();
    }
    assert_eq!(api.finished_run(&run, DEADLINE).await.unwrap()["status"], "succeeded");
    until("the queue to be empty", DEADLINE, async || {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible,
        };
        let counts = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
        let asked = queue.get_queue_attributes().queue_url(stack.output("RunQueueUrl"));
        let answer = asked.set_attribute_names(Some(counts.to_vec())).send().await?;
        let left: Vec<_> = answer.attributes.unwrap_or_default().into_values().collect();
        Ok(left.iter().all(|count| count == "0").then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(sink.received_at("/once").len(), 1);
}

#[tokio::test]
async fn a_function_is_refused_what_it_does_not_need() {
    let stack = Stack::new();
    let sink = Sink::start(Duration::ZERO).await.unwrap();
    let api = stack.api().await;
    // Every function has run once then, and so has a process.
    scenario::greeting(&api, &sink).await.unwrap();
    let me = api.get("/api/auth/me").await.unwrap();
    let connection = api.get("/api/connections").await.unwrap()["items"][0]["id"].clone();
    let workflow = api.get("/api/workflows").await.unwrap()["items"][0]["id"].clone();
    let of = |kind: &str, id: &Value| format!("{kind}#{}", id.as_str().unwrap());
    let (user, credentials) = (of("user", &me["user"]["id"]), of("cred", &me["user"]["id"]));
    let sessions = of("ses", &me["user"]["id"]);
    let (connection, workflow) = (of("conn", &connection), of("wf", &workflow));
    let run = format!("{}#0", of("run", &me["tenant"]["id"]));
    let journal = run.replacen("run", "journal", 1);
    let (config, history) = ("ConfigTable", "HistoryTable");
    // What a function may read, and what it may not.
    let cases = [
        (
            "WebhooksFunction",
            (config, &workflow),
            vec![
                (config, &connection),
                (config, &user),
                (config, &credentials),
                (config, &sessions),
                (history, &journal),
            ],
        ),
        ("AuthFunction", (config, &credentials), vec![(history, &run), (config, &connection), (config, &workflow)]),
        ("WorkerFunction", (config, &connection), vec![(config, &user), (config, &credentials), (config, &sessions)]),
        ("RunsFunction", (history, &run), vec![(config, &connection), (config, &user), (config, &credentials)]),
        ("WorkflowsFunction", (config, &connection), vec![(config, &user), (config, &credentials), (history, &run)]),
        (
            "AdminFunction",
            (config, &user),
            vec![(config, &credentials), (config, &connection), (config, &workflow), (history, &run)],
        ),
    ];
    for (function, (table, key), refused) in cases {
        let client = aws_sdk_dynamodb::Client::new(&stack.as_function(function));
        let read = async |table: &str, key: &str| {
            let request = client.get_item().table_name(stack.output(table));
            let text = |value: &str| AttributeValue::S(value.to_owned());
            request.key("pk", text(key)).key("sk", text("head")).send().await
        };
        read(table, key).await.unwrap_or_else(|error| panic!("{function} may read {key}: {error:?}"));
        for (table, key) in refused {
            let error = read(table, key).await.err().unwrap_or_else(|| panic!("{function} has read {key}"));
            assert_eq!(error.code(), Some("AccessDeniedException"), "{function} reading {key}");
        }
        let audit = client.delete_item().table_name(stack.output(history));
        let audit = audit.key("pk", AttributeValue::S("audit#platform".to_owned()));
        let error = audit.key("sk", AttributeValue::S("aud_0".to_owned())).send().await.unwrap_err();
        assert_eq!(error.code(), Some("AccessDeniedException"), "{function} deleting from the audit log");
        let scan = client.scan().table_name(stack.output(config)).send().await;
        assert_eq!(scan.unwrap_err().code(), Some("AccessDeniedException"), "{function} scanning");
    }
}

#[tokio::test]
async fn a_run_whose_worker_is_killed_is_resumed_and_repeats_no_finished_step() {
    let stack = Stack::new();
    let api = stack.api().await;
    let (first, second) = (Sink::start(Duration::ZERO).await.unwrap(), Sink::start(Duration::ZERO).await.unwrap());
    let call = |id: &str, sink: &Sink| {
        let request = json!({"method": "POST", "url": sink.url("/"), "json": {}});
        json!({"id": id, "uses": "http.request", "with": request, "timeout_ms": 8_000})
    };
    let steps = json!([call("first", &first), call("second", &second)]);
    let workflow = api.create_workflow("Two calls", steps).await.unwrap();
    second.close();
    let run = api.post_webhook(&workflow, "application/json", &[], "{}").await.unwrap();
    let called = async || Ok(second.received().first().map(|_| ()));
    until("the second call", DEADLINE, called).await.unwrap();
    let workers = stack.processes("WorkerFunction");
    assert!(!workers.is_empty());
    for worker in workers {
        let killed =
            std::process::Command::new("sh").arg("-c").arg(format!("kill -9 {}", worker.pid)).status().unwrap();
        assert!(killed.success());
    }
    second.open();

    let record = api.finished_run(&run, DEADLINE).await.unwrap();
    assert_eq!(record["status"], "succeeded", "{record}");
    assert_eq!(first.received().len(), 1, "its result was in the journal");
    let keys: Vec<_> =
        second.received().iter().map(|call| call.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]), "the call in flight is repeated under its key");
    assert_eq!(record["steps"][1]["attempts"].as_array().unwrap().len(), 2, "{record}");
}
