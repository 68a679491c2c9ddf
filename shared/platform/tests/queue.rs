//! The queue's contract, run against every implementation, and what is particular to the embedded one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test panics")]

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::TenantId;
use tidegate_platform::queue::{EmbeddedQueue, EmbeddedSettings, MAX_BODY_BYTES, OutgoingMessage, ReceivedMessage};
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
        mod embedded_contract {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::embedded()).await;
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
    subject.queue.send(message(r#"{"text":"<>&\" ü \u0000 \n"}"#)).await.unwrap();
    let received = subject.receive().await;
    assert_eq!(received.body, r#"{"text":"<>&\" ü \u0000 \n"}"#);
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

const SETTINGS: EmbeddedSettings = EmbeddedSettings { visibility_timeout: VISIBILITY, max_receive_count: 2 };

fn manual_clock() -> Clock {
    Clock::manual("2026-11-21T10:00:00Z".parse().unwrap())
}

fn embedded() -> Subject {
    let clock = manual_clock();
    Subject { queue: Box::new(EmbeddedQueue::in_memory(SETTINGS, clock.clone()).unwrap()), clock }
}
