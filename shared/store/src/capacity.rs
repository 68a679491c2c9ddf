//! Asks DynamoDB what a request has used, and adds it to [`usage`], where somebody counts.

use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::batch_get_item::{BatchGetItemInput, BatchGetItemOutput};
use aws_sdk_dynamodb::operation::delete_item::{DeleteItemInput, DeleteItemOutput};
use aws_sdk_dynamodb::operation::get_item::{GetItemInput, GetItemOutput};
use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
use aws_sdk_dynamodb::operation::query::{QueryInput, QueryOutput};
use aws_sdk_dynamodb::operation::transact_write_items::{TransactWriteItemsInput, TransactWriteItemsOutput};
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use tidegate_platform::usage;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity;

macro_rules! ask {
    ($input:expr, $($kind:ty),+) => {
        $(if let Some(input) = $input.downcast_mut::<$kind>() {
            input.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
        })+
    };
}

macro_rules! used {
    ($output:expr, $($kind:ty => $add:expr),+) => {
        $(if let Some(output) = $output.downcast_ref::<$kind>() {
            output.consumed_capacity.iter().flat_map(consumed).for_each($add);
        })+
    };
}

#[dyn_dispatch_hint]
impl Intercept for Capacity {
    fn name(&self) -> &'static str {
        "tidegate_capacity"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if usage::is_counted() {
            let input = context.input_mut();
            ask!(
                input,
                GetItemInput,
                PutItemInput,
                DeleteItemInput,
                QueryInput,
                BatchGetItemInput,
                TransactWriteItemsInput
            );
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if usage::is_counted()
            && let Ok(output) = context.output_or_error()
        {
            let read = |units| usage::add_units(units, 0.0);
            let write = |units| usage::add_units(0.0, units);
            used!(output, GetItemOutput => read, QueryOutput => read, BatchGetItemOutput => read,
                PutItemOutput => write, DeleteItemOutput => write, TransactWriteItemsOutput => write);
        }
        Ok(())
    }
}

/// The units of an answer: one report, or one for each table.
fn consumed(reports: &(impl Reports + ?Sized)) -> Vec<f64> {
    reports.reports().iter().filter_map(|report| report.capacity_units).collect()
}

trait Reports {
    fn reports(&self) -> &[ConsumedCapacity];
}

impl Reports for ConsumedCapacity {
    fn reports(&self) -> &[ConsumedCapacity] {
        std::slice::from_ref(self)
    }
}

impl Reports for Vec<ConsumedCapacity> {
    fn reports(&self) -> &[ConsumedCapacity] {
        self
    }
}
