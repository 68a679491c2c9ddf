//! The queue's contract, run against every implementation, and what is particular to the embedded one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test panics")]

mod subjects;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::TenantId;
use tidegate_platform::queue::{
    Depth, EmbeddedQueue, EmbeddedSettings, MAX_BODY_BYTES, OutgoingMessage, ReceivedMessage,
};
use tidegate_platform::{Clock, Queue};

/// A queue under test: two receives before a message is dead, a visibility timeout of two seconds.
struct Subject {
    queue: Box<dyn Queue>,
    /// The clock that the queue goes by, where it can be moved.
    clock: Clock,
}

const VISIBILITY: Duration = Duration::from_secs(2);
/// Long enough for what must come; only a failure takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

impl Subject {
    /// Moves the clock where it can be moved. Elsewhere the next [`Subject::receive`] waits.
    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn receive(&self) -> ReceivedMessage {
        receive_one(&*self.queue).await
    }

    async fn receive_dead(&self) -> ReceivedMessage {
        receive_one(self.queue.dead_letters().unwrap()).await
    }

    async fn assert_nothing_visible(&self) {
        assert_eq!(self.queue.receive(10, Duration::ZERO).await.unwrap(), []);
    }

    /// Receives a message until it is dead.
    async fn kill(&self, body: &str) {
        for count in 1..=2 {
            let message = self.receive().await;
            assert_eq!((message.body.as_str(), message.receive_count), (body, count));
            self.queue.change_visibility(&message.receipt, Duration::ZERO).await.unwrap();
        }
        self.assert_nothing_visible().await;
    }
}

async fn receive_one(queue: &dyn Queue) -> ReceivedMessage {
    queue.receive(1, PATIENCE).await.unwrap().pop().expect("a message in time")
}

fn tenant(number: u8) -> TenantId {
    TenantId::new(Timestamp::UNIX_EPOCH, [number; 10])
}

fn message(body: &str) -> OutgoingMessage {
    OutgoingMessage::new(tenant(1), body)
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod embedded_keeps_the_contract {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::embedded()).await;
            })*
        }

        mod sqs_keeps_the_contract {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::sqs().await).await;
            })*
        }
    };
}

contract! {
    a_message_is_received_and_deleted
    a_receive_takes_no_more_than_asked
    a_message_not_deleted_comes_again
    visibility_can_be_shortened_and_prolonged
    a_delayed_message_comes_when_due
    an_old_receipt_deletes_nothing
    deleting_twice_succeeds
    after_its_receives_a_message_is_dead_and_can_be_redriven
    a_dead_letter_can_be_deleted
    a_waiting_receive_wakes_on_a_send
    limits_are_enforced
    concurrent_receivers_share_the_messages
}

async fn a_message_is_received_and_deleted(subject: Subject) {
    let body = serde_json::json!({ "text": "<>&\" ü \0 \n \u{7f} \u{fffe} \u{ffff} \u{10ffff}" });
    subject.queue.send(message(&body.to_string())).await.unwrap();
    let received = subject.receive().await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&received.body).unwrap(), body);
    assert_eq!(received.receive_count, 1);
    subject.assert_nothing_visible().await;
    subject.queue.delete(&received.receipt).await.unwrap();
    subject.pass(VISIBILITY);
    subject.queue.send(message("next")).await.unwrap();
    assert_eq!(subject.receive().await.body, "next");
}

async fn a_receive_takes_no_more_than_asked(subject: Subject) {
    let mut bodies = HashSet::new();
    for number in 0..12 {
        subject.queue.send(message(&number.to_string())).await.unwrap();
        bodies.insert(number.to_string());
    }
    assert!(subject.queue.receive(0, PATIENCE).await.unwrap().len() == 1, "at least one");
    assert!(subject.queue.receive(2, PATIENCE).await.unwrap().len() <= 2);
    assert!(subject.queue.receive(100, PATIENCE).await.unwrap().len() <= 10, "never more than ten");
}

async fn a_message_not_deleted_comes_again(subject: Subject) {
    subject.queue.send(message("again")).await.unwrap();
    let first = subject.receive().await;
    subject.assert_nothing_visible().await;
    subject.pass(VISIBILITY);
    let second = subject.receive().await;
    assert_eq!((second.body.as_str(), second.receive_count), ("again", 2));
    assert_ne!(first.receipt, second.receipt);
}

async fn visibility_can_be_shortened_and_prolonged(subject: Subject) {
    subject.queue.send(message("a")).await.unwrap();
    let first = subject.receive().await;
    subject.queue.change_visibility(&first.receipt, Duration::from_secs(600)).await.unwrap();
    subject.pass(VISIBILITY);
    subject.queue.send(message("b")).await.unwrap();
    assert_eq!(subject.receive().await.body, "b", "a is invisible for longer than the queue's timeout");
    subject.queue.change_visibility(&first.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(subject.receive().await.body, "a");
}

async fn a_delayed_message_comes_when_due(subject: Subject) {
    subject.queue.send(OutgoingMessage { delay: Duration::from_secs(2), ..message("later") }).await.unwrap();
    subject.assert_nothing_visible().await;
    subject.pass(Duration::from_secs(2));
    let received = subject.receive().await;
    assert_eq!((received.body.as_str(), received.receive_count), ("later", 1));
}

async fn an_old_receipt_deletes_nothing(subject: Subject) {
    subject.queue.send(message("kept")).await.unwrap();
    let first = subject.receive().await;
    subject.queue.change_visibility(&first.receipt, Duration::ZERO).await.unwrap();
    let second = subject.receive().await;
    subject.queue.delete(&first.receipt).await.unwrap();
    subject.queue.change_visibility(&second.receipt, Duration::ZERO).await.unwrap();
    subject.assert_nothing_visible().await;
    assert_eq!(subject.receive_dead().await.body, "kept");
}

async fn deleting_twice_succeeds(subject: Subject) {
    subject.queue.send(message("once")).await.unwrap();
    let received = subject.receive().await;
    subject.queue.delete(&received.receipt).await.unwrap();
    subject.queue.delete(&received.receipt).await.unwrap();
    subject.queue.change_visibility(&received.receipt, Duration::ZERO).await.unwrap();
    subject.assert_nothing_visible().await;
}

async fn after_its_receives_a_message_is_dead_and_can_be_redriven(subject: Subject) {
    subject.queue.send(message("poison")).await.unwrap();
    subject.kill("poison").await;
    let dead = subject.receive_dead().await;
    assert_eq!(dead.body, "poison");
    let dead_letters = subject.queue.dead_letters().unwrap();
    dead_letters.change_visibility(&dead.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(subject.queue.redrive(10).await.unwrap(), 1);
    assert_eq!(subject.queue.redrive(10).await.unwrap(), 0);
    let back = subject.receive().await;
    assert_eq!((back.body.as_str(), back.receive_count), ("poison", 1), "its count starts over");
    assert!(dead_letters.dead_letters().is_none() && dead_letters.redrive(1).await.is_err());
}

async fn a_dead_letter_can_be_deleted(subject: Subject) {
    subject.queue.send(message("poison")).await.unwrap();
    subject.kill("poison").await;
    let dead = subject.receive_dead().await;
    subject.queue.dead_letters().unwrap().delete(&dead.receipt).await.unwrap();
    assert_eq!(subject.queue.redrive(10).await.unwrap(), 0);
}

async fn a_waiting_receive_wakes_on_a_send(subject: Subject) {
    let (received, sent) = tokio::join!(biased; subject.receive(), subject.queue.send(message("wake up")));
    sent.unwrap();
    assert_eq!(received.body, "wake up");
}

async fn limits_are_enforced(subject: Subject) {
    subject.queue.send(message(&"x".repeat(MAX_BODY_BYTES))).await.unwrap();
    assert!(subject.queue.send(message(&"x".repeat(MAX_BODY_BYTES + 1))).await.is_err());
    let received = subject.receive().await;
    assert_eq!(received.body.len(), MAX_BODY_BYTES);
    let too_long = Duration::from_secs(12 * 60 * 60 + 1);
    assert!(subject.queue.change_visibility(&received.receipt, too_long).await.is_err());
}

async fn concurrent_receivers_share_the_messages(subject: Subject) {
    let queue: &dyn Queue = &*subject.queue;
    let send = async |group: u8| {
        for number in 0..10 {
            queue.send(OutgoingMessage::new(tenant(group), format!("{group}-{number}"))).await.unwrap();
        }
    };
    tokio::join!(send(1), send(2), send(3));
    let receive = async || {
        let mut bodies = Vec::new();
        while bodies.len() < 10 {
            for message in queue.receive(10 - bodies.len(), PATIENCE).await.unwrap() {
                queue.delete(&message.receipt).await.unwrap();
                bodies.push(message.body);
            }
        }
        bodies
    };
    let (a, b, c) = tokio::join!(receive(), receive(), receive());
    let distinct: HashSet<_> = [a, b, c].concat().into_iter().collect();
    assert_eq!(distinct.len(), 30, "no message went to two receivers");
    subject.assert_nothing_visible().await;
}

async fn sqs() -> Subject {
    Subject { queue: Box::new(subjects::sqs_queue(VISIBILITY, 2).await.queue), clock: Clock::system() }
}

#[tokio::test]
async fn sqs_refuses_a_delay_that_only_the_scheduler_takes() {
    let queue = sqs().await.queue;
    let longest = OutgoingMessage { delay: Duration::from_secs(900), ..message("later") };
    queue.send(longest.clone()).await.unwrap();
    let too_long = OutgoingMessage { delay: Duration::from_secs(901), ..longest };
    let error = queue.send(too_long).await.unwrap_err();
    assert!(error.source.to_string().contains("scheduler"), "{error:?}");
}

const SETTINGS: EmbeddedSettings = EmbeddedSettings { visibility_timeout: VISIBILITY, max_receive_count: 2 };

fn embedded() -> Subject {
    let clock = subjects::manual_clock();
    Subject { queue: Box::new(EmbeddedQueue::in_memory(SETTINGS, clock.clone()).unwrap()), clock }
}

fn open(folder: &Path, clock: &Clock) -> EmbeddedQueue {
    EmbeddedQueue::open(&folder.join("queue.db"), SETTINGS, clock.clone()).unwrap()
}

async fn send_all(queue: &EmbeddedQueue, group: u8, bodies: impl Iterator<Item = String>) {
    let sends: Vec<_> = bodies
        .map(|body| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.send(OutgoingMessage::new(tenant(group), body)).await })
        })
        .collect();
    for send in sends {
        send.await.unwrap().unwrap();
    }
}

async fn receive_all(queue: &dyn Queue) -> Vec<ReceivedMessage> {
    let mut all = Vec::new();
    loop {
        let batch = queue.receive(10, Duration::ZERO).await.unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

/// What a kill leaves is what the files hold at that moment.
#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = subjects::manual_clock();
    let queue = open(folder.path(), &clock);
    send_all(&queue, 1, (0..300).map(|number| number.to_string())).await;
    let later = OutgoingMessage { delay: Duration::from_secs(30 * 86_400), ..message("next month") };
    queue.send(later).await.unwrap();
    let mut deleted = HashSet::new();
    for message in queue.receive(10, PATIENCE).await.unwrap() {
        queue.delete(&message.receipt).await.unwrap();
        deleted.insert(message.body);
    }
    let in_flight: HashSet<_> = queue.receive(10, PATIENCE).await.unwrap().into_iter().map(|m| m.body).collect();

    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let revived = open(copy.path(), &clock);
    let received = receive_all(&revived).await;
    let expected: HashSet<_> = (0..300).map(|n| n.to_string()).filter(|body| !deleted.contains(body)).collect();
    assert_eq!(received.iter().map(|m| m.body.clone()).collect::<HashSet<_>>(), expected);
    assert_eq!(received.len(), expected.len());
    for message in received {
        let count = if in_flight.contains(&message.body) { 2 } else { 1 };
        assert_eq!(message.receive_count, count, "what was in flight is visible at once, its receives counted");
    }
    clock.advance(Duration::from_secs(30 * 86_400));
    assert!(receive_all(&revived).await.iter().any(|message| message.body == "next month"));
}

#[tokio::test]
async fn a_message_that_kills_its_receiver_is_dead_after_its_receives() {
    let folder = tempfile::tempdir().unwrap();
    let clock = subjects::manual_clock();
    open(folder.path(), &clock).send(message("poison")).await.unwrap();
    for count in 1..=2 {
        let queue = open(folder.path(), &clock);
        assert_eq!(receive_one(&queue).await.receive_count, count);
    }
    let queue = open(folder.path(), &clock);
    assert_eq!(receive_all(&queue).await, []);
    assert_eq!(receive_one(queue.dead_letters().unwrap()).await.body, "poison");
}

#[tokio::test]
async fn a_file_is_open_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), &Clock::system());
    assert!(EmbeddedQueue::open(&folder.path().join("queue.db"), SETTINGS, Clock::system()).is_err());
    queue.send(message("still works")).await.unwrap();
}

#[tokio::test]
async fn a_backlog_does_not_delay_another_group() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(folder.path(), &Clock::system());
    send_all(&queue, 1, (0..10_000).map(|number| number.to_string())).await;
    assert_eq!(queue.receive(10, PATIENCE).await.unwrap().len(), 10);
    send_all(&queue, 2, std::iter::once("the other's".to_owned())).await;
    assert_eq!(receive_one(&queue).await.body, "the other's");
    let depth = queue.depth().await.unwrap();
    assert_eq!(depth, Depth { visible: 9_990, in_flight: 11, delayed: 0, dead: 0 });
}

#[tokio::test]
async fn a_waiting_receive_wakes_when_a_message_comes_due() {
    let Subject { queue, clock } = embedded();
    queue.send(OutgoingMessage { delay: Duration::from_secs(3600), ..message("in an hour") }).await.unwrap();
    let (received, ()) = tokio::join!(biased; receive_one(&*queue), async { clock.advance(Duration::from_secs(3600)) });
    assert_eq!(received.body, "in an hour");
}

#[tokio::test]
async fn with_the_systems_clock_a_waiting_receive_wakes_when_a_message_comes_due() {
    let queue = EmbeddedQueue::in_memory(SETTINGS, Clock::system()).unwrap();
    queue.send(OutgoingMessage { delay: Duration::from_millis(50), ..message("soon") }).await.unwrap();
    assert_eq!(receive_one(&queue).await.body, "soon");
}

#[tokio::test]
async fn a_receive_that_is_given_up_keeps_no_message() {
    let queue = EmbeddedQueue::in_memory(SETTINGS, subjects::manual_clock()).unwrap();
    {
        let mut given_up = pin!(queue.receive(1, PATIENCE));
        assert!(poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context).is_pending())).await);
        queue.send(message("not lost")).await.unwrap();
        assert_eq!(queue.depth().await.unwrap().in_flight, 1, "it is on its way to whoever waits");
    }
    let received = receive_one(&queue).await;
    assert_eq!((received.body.as_str(), received.receive_count), ("not lost", 1));

    assert!(poll_fn(|context| Poll::Ready(pin!(queue.receive(1, PATIENCE)).poll(context).is_pending())).await);
    queue.send(message("for the next")).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 1, in_flight: 1, delayed: 0, dead: 0 });
}

#[tokio::test]
async fn depth_tells_where_messages_are() {
    let clock = subjects::manual_clock();
    let queue = EmbeddedQueue::in_memory(SETTINGS, clock.clone()).unwrap();
    for body in ["a", "b", "c"] {
        queue.send(message(body)).await.unwrap();
    }
    queue.send(OutgoingMessage { delay: Duration::from_secs(60), ..message("d") }).await.unwrap();
    receive_one(&queue).await;
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 2, in_flight: 1, delayed: 1, dead: 0 });
    clock.advance(Duration::from_secs(60));
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 4, in_flight: 0, delayed: 0, dead: 0 });
    for _ in 0..2 {
        receive_all(&queue).await;
        clock.advance(VISIBILITY);
    }
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 0, in_flight: 0, delayed: 0, dead: 4 });
}
