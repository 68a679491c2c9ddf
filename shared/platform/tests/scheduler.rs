//! The scheduler's contract, run against every implementation, and what is particular to each.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test panics")]

mod subjects;

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_model::{Every, Recurrence, Rhythm, TenantId};
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings, OutgoingMessage};
use tidegate_platform::scheduler::{
    EventBridgeScheduler, EventBridgeSettings, MAX_NAME_CHARS, SCHEDULED_TIME, Timer, When,
};
use tidegate_platform::{Clock, Ids, Queue, Scheduler};
use tidegate_testing::emulator;

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// A scheduler under test and the queue that it sends to.
struct Subject {
    scheduler: Box<dyn Scheduler>,
    queue: Box<dyn Queue>,
    clock: Clock,
}

impl Subject {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn put(&self, name: &str, when: When, body: &str) {
        self.scheduler.put(timer(1, name, when, body)).await.unwrap();
    }

    /// The next message's body.
    async fn fired(&self) -> String {
        let message = self.queue.receive(1, PATIENCE).await.unwrap().pop().expect("a firing in time");
        self.queue.delete(&message.receipt).await.unwrap();
        message.body
    }

    async fn assert_nothing_more(&self) {
        assert_eq!(self.queue.receive(10, Duration::ZERO).await.unwrap(), []);
    }
}

fn tenant(number: u8) -> TenantId {
    TenantId::new(Timestamp::UNIX_EPOCH, [number; 10])
}

fn timer(tenant_number: u8, name: &str, when: When, body: &str) -> Timer {
    Timer { tenant: tenant(tenant_number), name: name.to_owned(), when, body: body.to_owned() }
}

/// At each `from + k * interval`, k ≥ 1.
fn every(interval: &str, from: Timestamp) -> When {
    let interval: Every = interval.parse().unwrap();
    let first = from.checked_add(interval.duration()).unwrap();
    When::Recurring(Box::new(Recurrence::every(interval, first)))
}

fn cron(expression: &str, zone: &str) -> Recurrence {
    let rhythm = Rhythm::Cron { cron: expression.parse().unwrap(), zone: zone.parse().unwrap(), start: None };
    Recurrence { rhythm, end: None, jitter: None }
}

fn recurring(recurrence: &Recurrence) -> When {
    When::Recurring(Box::new(recurrence.clone()))
}

fn in_an_hour(now: Timestamp) -> When {
    When::At(now + SignedDuration::from_hours(1))
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod embedded_keeps_the_contract {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::embedded()).await;
            })*
        }

        mod eventbridge_keeps_the_contract {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::eventbridge().await.0).await;
            })*
        }
    };
}

contract! {
    a_timer_fires_once_with_its_planned_time
    a_time_in_the_past_means_now
    putting_again_replaces
    a_deleted_timer_does_not_fire
    names_are_per_tenant
    what_has_no_firing_left_is_no_timer
    all_timers_are_listed_page_by_page
    what_no_scheduler_takes_is_refused
}

async fn a_timer_fires_once_with_its_planned_time(subject: Subject) {
    // Long enough that EventBridge takes the time as it is; a fraction of a second rounds up.
    let at = Timestamp::from_second(subject.now().as_second() + 7).unwrap();
    let body = format!(r#"{{"kind":"schedule","at":"{SCHEDULED_TIME}","again":"{SCHEDULED_TIME}"}}"#);
    subject.put("once", When::At(at - SignedDuration::from_millis(300)), &body).await;
    subject.assert_nothing_more().await;
    subject.clock.advance(Duration::from_secs(7));
    assert_eq!(subject.fired().await, format!(r#"{{"kind":"schedule","at":"{at}","again":"{at}"}}"#));
    subject.clock.advance(HOUR);
    subject.assert_nothing_more().await;
}

async fn a_time_in_the_past_means_now(subject: Subject) {
    subject.put("late", When::At(subject.now() - SignedDuration::from_hours(1)), "late").await;
    assert_eq!(subject.fired().await, "late");
    subject.assert_nothing_more().await;
}

async fn putting_again_replaces(subject: Subject) {
    let now = subject.now();
    subject.put("same", in_an_hour(now), "old").await;
    subject.put("same", every("1h", now), "old too").await;
    subject.put("same", When::At(now), "new").await;
    assert_eq!(subject.fired().await, "new");
    subject.clock.advance(2 * HOUR);
    subject.assert_nothing_more().await;
}

async fn a_deleted_timer_does_not_fire(subject: Subject) {
    let now = subject.now();
    subject.put("gone", When::At(now + SignedDuration::from_secs(6)), "gone").await;
    subject.scheduler.delete(tenant(1), "gone").await.unwrap();
    subject.scheduler.delete(tenant(1), "gone").await.unwrap();
    subject.put("kept", When::At(now + SignedDuration::from_secs(7)), "kept").await;
    subject.clock.advance(Duration::from_secs(7));
    assert_eq!(subject.fired().await, "kept");
    subject.assert_nothing_more().await;
}

async fn names_are_per_tenant(subject: Subject) {
    let when = When::At(subject.now() + SignedDuration::from_secs(6));
    for number in [1, 2, 3] {
        subject.scheduler.put(timer(number, "same", when.clone(), &format!("of {number}"))).await.unwrap();
    }
    subject.scheduler.delete(tenant(3), "same").await.unwrap();
    subject.clock.advance(Duration::from_secs(7));
    let mut fired = [subject.fired().await, subject.fired().await];
    fired.sort();
    assert_eq!(fired, ["of 1", "of 2"]);
    subject.assert_nothing_more().await;
}

async fn what_has_no_firing_left_is_no_timer(subject: Subject) {
    let now = subject.now();
    subject.put("over", in_an_hour(now), "old").await;
    let mut over = cron("* * * * *", "UTC");
    over.end = Some(now - SignedDuration::from_hours(1));
    subject.put("over", recurring(&over), "new").await;
    assert_eq!(subject.scheduler.list(None).await.unwrap().timers, []);
    subject.clock.advance(2 * HOUR);
    subject.assert_nothing_more().await;
}

async fn all_timers_are_listed_page_by_page(subject: Subject) {
    let when = in_an_hour(subject.now());
    let mut expected = Vec::new();
    for number in 0..102_u8 {
        let (of, name) = (number % 3 + 1, format!("timer-{number}"));
        subject.scheduler.put(timer(of, &name, when.clone(), "{}")).await.unwrap();
        expected.push((tenant(of), name));
    }
    let first = subject.scheduler.list(None).await.unwrap();
    assert!(first.timers.len() <= 100);
    let (mut listed, mut cursor) = (first.timers, first.next_cursor);
    while let Some(next) = cursor {
        let page = subject.scheduler.list(Some(&next)).await.unwrap();
        listed.extend(page.timers);
        cursor = page.next_cursor;
    }
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

async fn what_no_scheduler_takes_is_refused(subject: Subject) {
    let now = subject.now();
    let long = "x".repeat(MAX_NAME_CHARS + 1);
    for name in ["", "a.b", "a/b", "ä", "a b", long.as_str()] {
        let refused = subject.scheduler.put(timer(1, name, in_an_hour(now), "{}")).await;
        assert!(refused.is_err(), "{name:?}");
    }
    let wake = format!("{}-9999", Ids::new(Clock::system()).run(tenant(1)));
    subject.put(&wake, in_an_hour(now), "{}").await;
}

const SETTINGS: EmbeddedSettings = EmbeddedSettings { visibility_timeout: HOUR, max_receive_count: 3 };

fn embedded() -> Subject {
    let clock = subjects::manual_clock();
    over(EmbeddedQueue::in_memory(SETTINGS, clock.clone()).unwrap(), clock)
}

fn open(folder: &Path, clock: &Clock) -> Subject {
    over(EmbeddedQueue::open(&folder.join("queue.db"), SETTINGS, clock.clone()).unwrap(), clock.clone())
}

fn over(queue: EmbeddedQueue, clock: Clock) -> Subject {
    Subject { scheduler: Box::new(queue.scheduler()), queue: Box::new(queue), clock }
}

#[tokio::test]
async fn an_interval_fires_on_its_grid() {
    let subject = embedded();
    let from = subject.now() - SignedDuration::from_mins(25);
    subject.put("every", every("10m", from), SCHEDULED_TIME).await;
    subject.assert_nothing_more().await;
    subject.clock.advance(Duration::from_secs(300));
    assert_eq!(subject.fired().await, "2026-11-21T10:05:00Z");
    subject.assert_nothing_more().await;
    subject.clock.advance(Duration::from_secs(600));
    assert_eq!(subject.fired().await, "2026-11-21T10:15:00Z");
    subject.assert_nothing_more().await;
}

#[tokio::test]
async fn what_was_missed_while_down_fires_once_and_the_grid_stays() {
    let folder = tempfile::tempdir().unwrap();
    let clock = subjects::manual_clock();
    {
        let subject = open(folder.path(), &clock);
        let from = subject.now();
        subject.put("every", every("10m", from), SCHEDULED_TIME).await;
        subject.put("once", When::At(from + SignedDuration::from_mins(4)), SCHEDULED_TIME).await;
    }
    clock.advance(Duration::from_secs(35 * 60));
    let subject = open(folder.path(), &clock);
    assert_eq!(subject.fired().await, "2026-11-21T10:04:00Z");
    assert_eq!(subject.fired().await, "2026-11-21T10:30:00Z", "the latest that was missed");
    subject.assert_nothing_more().await;
    clock.advance(Duration::from_secs(5 * 60));
    assert_eq!(subject.fired().await, "2026-11-21T10:40:00Z");
    subject.assert_nothing_more().await;
}

/// Moves the clock by minutes, and tells what came when.
async fn fired_within(subject: &Subject, minutes: u32) -> Vec<String> {
    let mut fired = Vec::new();
    for _ in 0..minutes {
        subject.clock.advance(Duration::from_secs(60));
        for message in subject.queue.receive(10, Duration::ZERO).await.unwrap() {
            subject.queue.delete(&message.receipt).await.unwrap();
            fired.push(message.body);
        }
    }
    fired
}

/// 02:15 and 02:45 are skipped and shown twice in Berlin, 01:30 to 02:00 on Lord Howe Island; New York is behind Greenwich.
#[tokio::test]
async fn across_the_setting_of_clocks_what_is_skipped_fires_not_and_what_comes_twice_fires_once() {
    for (zone, expression, from, expected) in [
        ("Europe/Berlin", "15,45 2 * * *", "2026-03-28T20:00:00Z", ["2026-03-30T00:15:00Z", "2026-03-30T00:45:00Z"]),
        ("Europe/Berlin", "15,45 2 * * *", "2026-10-24T20:00:00Z", ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"]),
        ("America/New_York", "30 1,2 * * *", "2026-03-08T00:00:00Z", ["2026-03-08T06:30:00Z", "2026-03-09T05:30:00Z"]),
        ("America/New_York", "30 1,2 * * *", "2026-11-01T00:00:00Z", ["2026-11-01T05:30:00Z", "2026-11-01T07:30:00Z"]),
        (
            "Australia/Lord_Howe",
            "45 1,2 * * *",
            "2026-04-04T10:00:00Z",
            ["2026-04-04T14:45:00Z", "2026-04-04T16:15:00Z"],
        ),
        (
            "Australia/Lord_Howe",
            "15 1,2 * * *",
            "2026-10-03T10:00:00Z",
            ["2026-10-03T14:45:00Z", "2026-10-04T14:15:00Z"],
        ),
    ] {
        let clock = Clock::manual(from.parse().unwrap());
        let subject = over(EmbeddedQueue::in_memory(SETTINGS, clock.clone()).unwrap(), clock);
        subject.put("cron", recurring(&cron(expression, zone)), SCHEDULED_TIME).await;
        let fired = fired_within(&subject, 36 * 60).await;
        assert_eq!(fired.get(..2), Some(&expected.map(str::to_owned)[..]), "{zone} from {from}: {fired:?}");
    }
}

#[tokio::test]
async fn a_cron_timer_makes_up_for_one_missed_time_and_ends_with_its_last() {
    let folder = tempfile::tempdir().unwrap();
    let clock = subjects::manual_clock();
    {
        let subject = open(folder.path(), &clock);
        let mut hourly = cron("0 * * * *", "Asia/Kolkata");
        hourly.end = Some("2026-11-21T14:31:00Z".parse().unwrap());
        subject.put("hourly", recurring(&hourly), SCHEDULED_TIME).await;
    }
    clock.advance(3 * HOUR);
    let subject = open(folder.path(), &clock);
    assert_eq!(subject.fired().await, "2026-11-21T12:30:00Z", "the latest that was missed, and no other");
    subject.assert_nothing_more().await;
    assert_eq!(fired_within(&subject, 300).await, ["2026-11-21T13:30:00Z", "2026-11-21T14:30:00Z"]);
    assert_eq!(subject.scheduler.list(None).await.unwrap().timers, []);
}

#[tokio::test]
async fn jitter_puts_a_firing_off_and_neither_its_time_nor_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let clock = subjects::manual_clock();
    let mut hourly = cron("0 * * * *", "UTC");
    hourly.jitter = Some("50m".parse().unwrap());
    let mut came = Vec::new();
    for hour in 11..15 {
        // A restart, and setting it again while it is put off, change nothing.
        let subject = open(folder.path(), &clock);
        for minute in 0..60 {
            subject.put("hourly", recurring(&hourly), SCHEDULED_TIME).await;
            if !fired_within(&subject, 1).await.is_empty() {
                came.push((hour, minute));
            }
        }
    }
    let [.., last] = came.as_slice() else { panic!("nothing came") };
    assert_eq!((came.len(), last.0), (3, 14), "one in each hour from 11:00 on: {came:?}");
    assert!(came.iter().any(|(_, minute)| *minute != came[0].1), "not all at the same minute: {came:?}");
}

#[tokio::test]
async fn a_firing_is_neither_lost_nor_doubled_by_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = subjects::manual_clock();
    {
        let subject = open(folder.path(), &clock);
        subject.put("once", When::At(subject.now()), "fired").await;
        // The next command's transaction has fired it.
        subject.queue.send(OutgoingMessage::new(tenant(2), "other")).await.unwrap();
    }
    let subject = open(folder.path(), &clock);
    let mut bodies = [subject.fired().await, subject.fired().await];
    bodies.sort();
    assert_eq!(bodies, ["fired", "other"]);
    subject.assert_nothing_more().await;
}

#[tokio::test]
async fn with_the_systems_clock_a_timer_wakes_the_queue() {
    let subject = over(EmbeddedQueue::in_memory(SETTINGS, Clock::system()).unwrap(), Clock::system());
    subject.put("soon", When::At(subject.now() + SignedDuration::from_millis(10)), "soon").await;
    assert_eq!(subject.fired().await, "soon");
}

async fn eventbridge() -> (Subject, EventBridgeSettings) {
    let sqs = subjects::sqs_queue(HOUR, 3).await;
    let config = emulator::sdk_config();
    let client = aws_sdk_scheduler::Client::new(&config);
    let settings = EventBridgeSettings {
        group: format!("test-{}", Ids::new(Clock::system()).workflow()),
        role_arn: format!("arn:aws:iam::{}:role/scheduler", emulator::ACCOUNT),
        queue_url: sqs.url,
        dead_letter_arn: sqs.dead_letter_arn,
    };
    client.create_schedule_group().name(&settings.group).send().await.unwrap();
    let clock = Clock::system();
    let scheduler = EventBridgeScheduler::new(&config, settings.clone(), clock.clone());
    (Subject { scheduler: Box::new(scheduler), queue: Box::new(sqs.queue), clock }, settings)
}

/// The emulator counts a rate from a schedule's creation instead of its start, so what it was asked for is looked at.
#[tokio::test]
async fn an_interval_is_a_rate_from_its_next_time_on_the_grid() {
    let (subject, settings) = eventbridge().await;
    let client = aws_sdk_scheduler::Client::new(&emulator::sdk_config());
    let now = Timestamp::from_second(subject.now().as_second()).unwrap();
    for (interval, past_minutes, next_minutes, rate) in
        [("1m", 0, 1, "rate(1 minute)"), ("10m", 25, 5, "rate(10 minutes)"), ("1d", 60, 1380, "rate(1440 minutes)")]
    {
        let from = now - SignedDuration::from_mins(past_minutes);
        subject.put("every", every(interval, from), r#"{"at":"<aws.scheduler.scheduled-time>"}"#).await;

        let listed = client.list_schedules().group_name(&settings.group).send().await.unwrap().schedules;
        let [schedule] = listed.as_slice() else { panic!("one schedule, not {listed:?}") };
        let name = schedule.name().unwrap();
        let schedule = client.get_schedule().group_name(&settings.group).name(name).send().await.unwrap();
        assert_eq!(schedule.schedule_expression(), Some(rate));
        assert_eq!(schedule.start_date().unwrap().secs(), now.as_second() + next_minutes * 60);
        let target = schedule.target().unwrap();
        assert_eq!(target.role_arn(), settings.role_arn);
        assert_eq!(target.dead_letter_config().unwrap().arn(), Some(settings.dead_letter_arn.as_str()));
        let input: serde_json::Value = serde_json::from_str(target.input().unwrap()).unwrap();
        assert_eq!(
            input,
            serde_json::json!({
                "QueueUrl": settings.queue_url,
                "MessageBody": r#"{"at":"<aws.scheduler.scheduled-time>"}"#,
                "MessageGroupId": tenant(1).to_string(),
            })
        );
    }
}

#[tokio::test]
async fn an_expression_is_sent_with_its_zone_its_bounds_and_its_window() {
    let (subject, settings) = eventbridge().await;
    let client = aws_sdk_scheduler::Client::new(&emulator::sdk_config());
    let mut weekdays = cron("30 2 * * 1-5", "Europe/Berlin");
    let Rhythm::Cron { start, .. } = &mut weekdays.rhythm else { unreachable!("it is an expression") };
    *start = Some("2090-01-01T00:00:00Z".parse().unwrap());
    weekdays.end = Some("2090-01-04T01:30:00Z".parse().unwrap());
    weekdays.jitter = Some("2h".parse().unwrap());
    let get = async || {
        let listed = client.list_schedules().group_name(&settings.group).send().await.unwrap().schedules;
        let [schedule] = listed.as_slice() else { panic!("one schedule, not {listed:?}") };
        client.get_schedule().group_name(&settings.group).name(schedule.name().unwrap()).send().await.unwrap()
    };
    // Made, and then changed from something else.
    for _ in 0..2 {
        subject.put("weekdays", recurring(&weekdays), "{}").await;
        let sent = get().await;
        assert_eq!(sent.schedule_expression(), Some("cron(30 2 ? * 2-6 *)"));
        assert_eq!(sent.schedule_expression_timezone(), Some("Europe/Berlin"));
        // Monday the 2nd at 01:30 UTC is the first, Tuesday the 3rd the last: half a minute around them.
        let date = |text: &str| Some(text.parse::<Timestamp>().unwrap().as_second());
        assert_eq!(sent.start_date().map(|at| at.secs()), date("2090-01-02T01:29:30Z"));
        assert_eq!(sent.end_date().map(|at| at.secs()), date("2090-01-03T01:30:30Z"));
        let window = sent.flexible_time_window().unwrap();
        assert_eq!((window.mode().as_str(), window.maximum_window_in_minutes()), ("FLEXIBLE", Some(120)));

        subject.put("weekdays", recurring(&cron("@hourly", "UTC")), "{}").await;
        let sent = get().await;
        assert_eq!(sent.schedule_expression(), Some("cron(0 * * * ? *)"));
        assert_eq!((sent.start_date(), sent.end_date()), (None, None));
        assert_eq!(sent.flexible_time_window().unwrap().mode().as_str(), "OFF");
    }
}
