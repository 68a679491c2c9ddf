//! What the AWS SDK's clients are asked while some work is done: calls by service, and DynamoDB's capacity units.
//!
//! [`scope`] counts for the work inside it. Clients count by an interceptor: [`Calls`] on every client, and the store
//! adds the units that DynamoDB says it has used. Outside a scope neither does anything.

use std::cell::RefCell;
use std::collections::BTreeMap;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// What some work asked of AWS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Requests by service and operation, such as `("DynamoDB", "PutItem")`; repetitions by the SDK included.
    pub calls: BTreeMap<(String, String), u64>,
    /// DynamoDB's read units, indexes included.
    pub read_units: f64,
    /// DynamoDB's write units, indexes included. A write whose condition failed uses some too, of which DynamoDB doesn't
    /// tell; they are missing here.
    pub write_units: f64,
}

impl Usage {
    /// How many requests a service got.
    pub fn calls_to(&self, service: &str) -> u64 {
        self.calls.iter().filter(|((of, _), _)| of == service).map(|(_, calls)| calls).sum()
    }

    /// How many requests there were.
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    fn add(&mut self, other: &Self) {
        for (call, count) in &other.calls {
            *self.calls.entry(call.clone()).or_default() += count;
        }
        self.read_units += other.read_units;
        self.write_units += other.write_units;
    }
}

tokio::task_local! {
    static USAGE: RefCell<Usage>;
}

/// Does some work and tells what it asked of AWS; what it spawns is not counted. Inside another scope it counts for that
/// one too, once it is done.
pub async fn scope<F: Future>(work: F) -> (F::Output, Usage) {
    let counted = async {
        let output = work.await;
        (output, USAGE.with(RefCell::take))
    };
    let (output, usage) = USAGE.scope(RefCell::default(), counted).await;
    // Without an outer scope nobody else wants to know.
    USAGE.try_with(|outer| outer.borrow_mut().add(&usage)).ok();
    (output, usage)
}

/// What the work so far has asked of AWS; `None` outside a scope.
pub fn so_far() -> Option<Usage> {
    USAGE.try_with(|usage| usage.borrow().clone()).ok()
}

/// Whether somebody counts.
pub fn is_counted() -> bool {
    USAGE.try_with(|_| ()).is_ok()
}

/// Adds capacity units that DynamoDB has used.
pub fn add_units(read: f64, write: f64) {
    let add = |usage: &RefCell<Usage>| {
        let mut usage = usage.borrow_mut();
        usage.read_units += read;
        usage.write_units += write;
    };
    // Outside a scope nobody wants to know.
    USAGE.try_with(add).ok();
}

/// Counts a client's requests.
#[derive(Debug, Clone, Copy)]
pub struct Calls;

#[dyn_dispatch_hint]
impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "tidegate_calls"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if is_counted()
            && let Some(operation) = config.load::<Metadata>()
        {
            let key = (operation.service().to_owned(), operation.name().to_owned());
            USAGE.try_with(|usage| *usage.borrow_mut().calls.entry(key).or_default() += 1).ok();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scope_within_another_counts_for_both() {
        let (inner, outer) = scope(async {
            add_units(1.0, 0.0);
            let ((), inner) = scope(async { add_units(0.5, 2.0) }).await;
            inner
        })
        .await;
        assert_eq!((inner.read_units, inner.write_units), (0.5, 2.0));
        assert_eq!((outer.read_units, outer.write_units), (1.5, 2.0));
    }
}
