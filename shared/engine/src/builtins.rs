//! What the engine does itself: branches, data, and the beginning and end of waits.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tidegate_model::{Builtin, ErrorCode, Event, MAX_WAIT, Payload, Pointer, RunStatus, Signal, StepError, parse_wait};

use crate::run::{Begin, expression_failed, later};
use crate::{Data, ExpressionError, Scope, transform};

/// The longest text that an approval asks with, in characters; as JSON it stays below what a journal holds itself.
const MAX_MESSAGE_CHARS: usize = 2_000;

/// What a built-in action comes to with this input.
pub(crate) fn evaluate(
    builtin: Builtin,
    with: &Map<String, Value>,
    scope: &Scope,
    now: Timestamp,
) -> Result<Begin, StepError> {
    match builtin {
        Builtin::If => {
            let result = condition(with.get("condition"), scope, "condition")?;
            Ok(succeeded(json!({"result": result}), Some(result.to_string())))
        }
        Builtin::Switch => switch(with, scope),
        Builtin::Set => Ok(succeeded(fill(with, scope)?, None)),
        Builtin::Transform => {
            let filled = fill(with, scope)?;
            let query = text(&filled, "query")?;
            let output =
                transform(query, &Data::from(&filled["input"])).map_err(|message| invalid("query", message))?;
            Ok(succeeded(output, None))
        }
        Builtin::Delay => {
            let filled = fill(with, scope)?;
            let wait = parse_wait(&filled["duration"]).map_err(|message| invalid("duration", message))?;
            Ok(begun(json!({"duration": filled["duration"], "until": later(now, wait)})))
        }
        Builtin::WaitUntil => {
            let filled = fill(with, scope)?;
            let until: Timestamp = text(&filled, "until")?.parse().map_err(|_| {
                invalid("until", "must be a time with its zone, such as \"2026-12-24T08:00:00Z\"".to_owned())
            })?;
            if until > later(now, MAX_WAIT) {
                return Err(invalid("until", format!("is {until}: more than 366 days away")));
            }
            Ok(begun(json!({"until": until})))
        }
        Builtin::Approval => {
            let mut filled = fill(with, scope)?;
            // What the journal says of a wait is small, so that it holds it itself.
            match &filled["message"] {
                Value::Null => {}
                Value::String(message) if message.chars().count() <= MAX_MESSAGE_CHARS => {}
                Value::String(_) => {
                    return Err(invalid("message", format!("must have at most {MAX_MESSAGE_CHARS} characters")));
                }
                _ => return Err(invalid("message", "must be a text; use `| string` or `| to_json`")),
            }
            if let Some(timeout) = filled.get("timeout").filter(|timeout| !timeout.is_null()) {
                let wait = parse_wait(timeout).map_err(|message| invalid("timeout", message))?;
                filled["until"] = json!(later(now, wait));
            }
            Ok(Begin::Call(filled))
        }
        Builtin::Call => Ok(Begin::Call(fill(with, scope)?)),
    }
}

/// What a signal means for the step that waits for it.
pub(crate) fn heard(signal: &Signal, output: Option<Value>) -> Event {
    match signal {
        Signal::Decided(decided) => {
            let outlet = if decided.approved { Builtin::APPROVED } else { Builtin::REJECTED };
            let output = json!({"approved": decided.approved, "comment": decided.comment, "decided_at": decided.at});
            Event::Succeeded { output: Payload::Inline(output), outlet: Some(outlet.to_owned()) }
        }
        Signal::Ended { run_id, status: RunStatus::Succeeded, .. } => {
            let output = json!({"run_id": run_id, "output": output});
            Event::Succeeded { output: Payload::Inline(output), outlet: None }
        }
        Signal::Ended { run_id, status, error, .. } => {
            let why = error.as_ref().map_or("", |error| error.message.as_str());
            let message = format!("the called run {run_id} ended as {}: {why}", name(*status));
            Event::Failed { error: StepError::terminal(ErrorCode::CalledWorkflowFailed, message) }
        }
    }
}

fn name(status: RunStatus) -> String {
    json!(status).as_str().unwrap_or_default().to_owned()
}

fn switch(with: &Map<String, Value>, scope: &Scope) -> Result<Begin, StepError> {
    let at = |field: &str| Pointer::from("/with").push(field);
    let value = match with.get("value") {
        Some(value) => Some(scope.fill_one(value, &at("value")).map_err(|error| expression_failed(&error))?),
        None => None,
    };
    for (index, case) in with.get("cases").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let name = case["name"].as_str().unwrap_or_default();
        let place = format!("cases/{index}");
        let fits = match case.get("equals") {
            Some(equals) => {
                let at = at("cases").push(index).push("equals");
                let equals = scope.fill_one(equals, &at).map_err(|error| expression_failed(&error))?;
                value.as_ref().is_some_and(|value| same(value, &equals))
            }
            None => condition(case.get("when"), scope, &format!("{place}/when"))?,
        };
        if fits {
            return Ok(succeeded(json!({"case": name}), Some(name.to_owned())));
        }
    }
    Ok(succeeded(json!({"case": Builtin::DEFAULT}), Some(Builtin::DEFAULT.to_owned())))
}

/// Whether two values are the same. A number is, however it is written: `price * 2` yields 3.0 where a case says 3.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => one == other,
    }
}

/// A condition's value: it must be true or false, since a text "false" would otherwise count as true.
fn condition(source: Option<&Value>, scope: &Scope, field: &str) -> Result<bool, StepError> {
    let value = match source {
        Some(Value::String(source)) => scope.evaluate(source).map_err(|message| {
            let pointer = Pointer::from(format!("/with/{field}").as_str());
            expression_failed(&ExpressionError { pointer, message })
        })?,
        Some(value) => value.clone(),
        None => Value::Null,
    };
    value.as_bool().ok_or_else(|| {
        let yields = match &value {
            Value::Null => "null",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
            Value::Bool(_) => "a boolean",
        };
        invalid(field, format!("yields {yields}, not true or false; compare it, such as `order.total > 100`"))
    })
}

fn fill(with: &Map<String, Value>, scope: &Scope) -> Result<Value, StepError> {
    scope.fill(with, &Pointer::from("/with")).map_err(|error| expression_failed(&error))
}

fn text<'a>(filled: &'a Value, field: &str) -> Result<&'a str, StepError> {
    filled[field].as_str().ok_or_else(|| invalid(field, "must be a text".to_owned()))
}

fn invalid(field: &str, message: impl std::fmt::Display) -> StepError {
    StepError::terminal(ErrorCode::InputInvalid, format!("/with/{field}: {message}"))
}

fn succeeded(output: Value, outlet: Option<String>) -> Begin {
    Begin::Event(Event::Succeeded { output: Payload::Inline(output), outlet })
}

fn begun(input: Value) -> Begin {
    Begin::Event(Event::Started { input: Payload::Inline(input) })
}
