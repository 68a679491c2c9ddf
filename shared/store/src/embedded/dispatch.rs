//! From an operation's name and JSON body to a call of dynoxide, and from its answer to JSON.

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request that was read; it runs on the engine's thread.
pub(super) type Work = Box<dyn FnOnce(&Database) -> Result<Answer, DynoxideError> + Send>;

/// An answer that is yet to be written as JSON.
pub(super) type Answer = Box<dyn FnOnce() -> serde_json::Result<Vec<u8>> + Send>;

/// Reads a request.
///
/// # Errors
/// What DynamoDB answers to an unreadable or unknown request.
pub(super) fn read(operation: &str, body: &[u8]) -> Result<Work, DynoxideError> {
    match operation {
        "CreateTable" => prepare(body, Database::create_table),
        "DescribeTable" => prepare(body, Database::describe_table),
        "UpdateTimeToLive" => prepare(body, Database::update_time_to_live),
        "DescribeTimeToLive" => prepare(body, Database::describe_time_to_live),
        "GetItem" => prepare(body, Database::get_item),
        "BatchGetItem" => prepare(body, Database::batch_get_item),
        "Query" => prepare(body, Database::query),
        "PutItem" => prepare(body, Database::put_item),
        "UpdateItem" => prepare(body, Database::update_item),
        "DeleteItem" => prepare(body, Database::delete_item),
        "BatchWriteItem" => prepare(body, Database::batch_write_item),
        "TransactWriteItems" => prepare(
            body,
            |database, mut request: dynoxide::actions::transact_write_items::TransactWriteItemsRequest| {
                // dynoxide looks through every token of ten minutes at each call; what repeats is told by our conditions.
                request.client_request_token = None;
                database.transact_write_items(request)
            },
        ),
        _ => Err(DynoxideError::ValidationException(format!("{operation} is not part of the embedded database"))),
    }
}

/// Whether an operation changes rows.
pub(super) fn writes(operation: &str) -> bool {
    matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem" | "BatchWriteItem" | "TransactWriteItems")
}

/// Whether an operation reads or changes rows, and so is one that faults apply to.
pub(super) fn touches_rows(operation: &str) -> bool {
    writes(operation) || matches!(operation, "GetItem" | "BatchGetItem" | "Query")
}

fn prepare<Q, R>(
    body: &[u8],
    run: impl FnOnce(&Database, Q) -> Result<R, DynoxideError> + Send + 'static,
) -> Result<Work, DynoxideError>
where
    Q: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    let request: Q = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    Ok(Box::new(move |database| {
        let response = run(database, request)?;
        Ok(Box::new(move || serde_json::to_vec(&response)) as Answer)
    }))
}

/// dynoxide marks, in the error's text, which kind of refusal an unreadable request is.
fn unreadable(error: &serde_json::Error) -> DynoxideError {
    let text = error.to_string();
    let marked = ["VALIDATION:", "VALIDATION_REQUEST:", "VALIDATION_AS_READ:"];
    match marked.iter().find_map(|mark| text.strip_prefix(mark)) {
        Some(message) => {
            let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
            DynoxideError::ValidationException(message.to_owned())
        }
        None => DynoxideError::SerializationException(text),
    }
}
