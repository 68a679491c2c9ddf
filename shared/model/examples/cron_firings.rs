//! Prints when cron expressions fire next, for `scripts/check-cron`: of each line of the standard input, such as
//! `{"cron": "30 2 * * 1-5", "timezone": "Europe/Berlin", "after": "2026-11-21T10:00:00Z"}`, the ten next firings in seconds
//! since 1970 and the expression of EventBridge Scheduler, or why it is refused.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a tool")]

use std::io::BufRead as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_model::{Pointer, Rhythm, Schedule};

fn main() {
    for line in std::io::stdin().lock().lines() {
        let mut asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let after: Timestamp = serde_json::from_value(asked["after"].take()).unwrap();
        asked.as_object_mut().unwrap().shift_remove("after");
        println!("{}", answer(asked, after).unwrap_or_else(|refused| json!({"refused": refused})));
    }
}

fn answer(schedule: Value, after: Timestamp) -> Result<Value, String> {
    let schedule: Schedule = serde_json::from_value(schedule).map_err(|error| error.to_string())?;
    let mut errors = Vec::new();
    schedule.check(&Pointer::root(), &mut errors);
    if let Some(error) = errors.first() {
        return Err(error.detail.clone());
    }
    let recurrence = schedule.recurrence(after).ok_or("it has no times")?;
    let Rhythm::Cron { cron, .. } = &recurrence.rhythm else { return Err("it is no expression".to_owned()) };
    let firings: Vec<_> = recurrence.firings_after(after).take(10).map(Timestamp::as_second).collect();
    Ok(json!({"firings": firings, "eventbridge": cron.for_eventbridge()}))
}
