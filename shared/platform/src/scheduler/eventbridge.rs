//! The scheduler on Amazon EventBridge Scheduler: each timer is a schedule that sends straight to the run queue.
//!
//! The universal target `sqs:sendMessage`
//! (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-targets-universal.html>) is used rather than the
//! templated one, because only it gives a standard queue's message its group. All timers of an installation lie in one
//! schedule group (an account has 500 groups at first, and a tenant each would soon need more), named by tenant and
//! name: `{the tenant's UUID as 22 base64url characters}.{name}`. A firing comes within a minute of its time, or of its
//! window.

use async_trait::async_trait;
use aws_sdk_scheduler::Client;
use aws_sdk_scheduler::config::Builder;
use aws_sdk_scheduler::operation::create_schedule::builders::CreateScheduleFluentBuilder;
use aws_sdk_scheduler::types::{
    ActionAfterCompletion, DeadLetterConfig, FlexibleTimeWindow, FlexibleTimeWindowMode, RetryPolicy, Target,
};
use aws_types::SdkConfig;
use jiff::Timestamp;
use tidegate_model::{Every, Rhythm, TenantId};

use super::{Scheduler, Timer, TimerPage, When, ceil_to_second, check, from_full_name, full_name};
use crate::{Clock, PortError, usage};

const SEND_MESSAGE: &str = "arn:aws:scheduler:::aws-sdk:sqs:sendMessage";
/// How far ahead of now a one-time schedule is made at least: one in the past would not fire.
const LEAD_SECONDS: i64 = 5;
/// Whether a start or an end of its own belongs to a schedule's time isn't told for cron expressions. So starts are so
/// much before the first firing, and ends so much after the last.
const CLEARANCE_SECONDS: i64 = 30;
/// EventBridge Scheduler's own maxima: a queue that is away for hours loses no firing.
const RETRY_FOR_SECONDS: i32 = 24 * 60 * 60;
const RETRIES: i32 = 185;
/// The longest page of a list of schedules.
const PAGE: i32 = 100;

/// Where timers live and send.
#[derive(Debug, Clone)]
pub struct EventBridgeSettings {
    /// The schedule group.
    pub group: String,
    /// The role that EventBridge Scheduler takes on to send to the queue.
    pub role_arn: String,
    /// The run queue.
    pub queue_url: String,
    /// The queue for firings that couldn't be sent.
    pub dead_letter_arn: String,
}

/// Timers on EventBridge Scheduler. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct EventBridgeScheduler {
    client: Client,
    settings: EventBridgeSettings,
    clock: Clock,
}

impl EventBridgeScheduler {
    /// A scheduler over an existing schedule group, role and queue.
    pub fn new(config: &SdkConfig, settings: EventBridgeSettings, clock: Clock) -> Self {
        let client = Client::from_conf(Builder::from(config).interceptor(usage::Calls).build());
        Self { client, settings, clock }
    }

    fn target(&self, timer: &Timer) -> Result<Target, PortError> {
        let input = serde_json::json!({
            "QueueUrl": self.settings.queue_url,
            "MessageBody": timer.body,
            "MessageGroupId": timer.tenant.to_string(),
        });
        Target::builder()
            .arn(SEND_MESSAGE)
            .role_arn(&self.settings.role_arn)
            .input(input.to_string())
            .retry_policy(
                RetryPolicy::builder()
                    .maximum_event_age_in_seconds(RETRY_FOR_SECONDS)
                    .maximum_retry_attempts(RETRIES)
                    .build(),
            )
            .dead_letter_config(DeadLetterConfig::builder().arn(&self.settings.dead_letter_arn).build())
            .build()
            .map_err(|error| PortError::new("build a schedule's target", error))
    }

    /// The request for a timer; `None` where it has no firing left.
    fn create(&self, timer: &Timer) -> Result<Option<CreateScheduleFluentBuilder>, PortError> {
        let now = self.clock.now();
        let request = self
            .client
            .create_schedule()
            .group_name(&self.settings.group)
            .name(full_name(timer.tenant, &timer.name))
            .target(self.target(timer)?);
        let recurrence = match &timer.when {
            When::At(at) => {
                let second = ceil_to_second(*at).max(now.as_second() + LEAD_SECONDS);
                let at =
                    Timestamp::from_second(second).map_err(|error| PortError::new("read a timer's time", error))?;
                let request = request
                    .flexible_time_window(window(None)?)
                    .schedule_expression(format!("at({})", at.strftime("%Y-%m-%dT%H:%M:%S")))
                    .action_after_completion(ActionAfterCompletion::Delete);
                return Ok(Some(request));
            }
            When::Recurring(recurrence) => recurrence,
        };
        let Some(first) = recurrence.next_after(now) else { return Ok(None) };
        let last = recurrence.end.and_then(|end| recurrence.latest_at(end));
        let request = request
            .flexible_time_window(window(recurrence.jitter)?)
            .set_end_date(last.map(|last| date(last.as_second() + CLEARANCE_SECONDS)));
        Ok(Some(match &recurrence.rhythm {
            Rhythm::Every { interval, .. } => {
                let minutes = interval.minutes();
                let unit = if minutes == 1 { "minute" } else { "minutes" };
                // Where it begins is what its firings are counted from.
                request.schedule_expression(format!("rate({minutes} {unit})")).start_date(date(first.as_second()))
            }
            Rhythm::Cron { cron, zone, start } => {
                let start = start.filter(|start| *start > now).map(|_| date(first.as_second() - CLEARANCE_SECONDS));
                request
                    .schedule_expression(cron.for_eventbridge())
                    .schedule_expression_timezone(zone.name())
                    .set_start_date(start)
            }
        }))
    }
}

fn window(jitter: Option<Every>) -> Result<FlexibleTimeWindow, PortError> {
    let window = match jitter {
        Some(jitter) => FlexibleTimeWindow::builder()
            .mode(FlexibleTimeWindowMode::Flexible)
            .maximum_window_in_minutes(i32::try_from(jitter.minutes()).unwrap_or(i32::MAX)),
        None => FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off),
    };
    window.build().map_err(|error| PortError::new("build a schedule's window", error))
}

fn date(seconds: i64) -> aws_smithy_types::DateTime {
    aws_smithy_types::DateTime::from_secs(seconds)
}

#[async_trait]
impl Scheduler for EventBridgeScheduler {
    async fn put(&self, timer: Timer) -> Result<(), PortError> {
        check(&timer)?;
        let Some(request) = self.create(&timer)? else { return self.delete(timer.tenant, &timer.name).await };
        let wanted = request.as_input().clone();
        let failed = |operation: &str, source: Box<dyn std::error::Error + Send + Sync>| {
            PortError::new(format!("{operation} schedule {}", timer.name), source)
        };
        match request.send().await {
            Ok(_) => return Ok(()),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_conflict_exception()) => {}
            Err(error) => return Err(failed("create", error.into())),
        }
        self.client
            .update_schedule()
            .set_group_name(wanted.get_group_name().clone())
            .set_name(wanted.get_name().clone())
            .set_flexible_time_window(wanted.get_flexible_time_window().clone())
            .set_target(wanted.get_target().clone())
            .set_schedule_expression(wanted.get_schedule_expression().clone())
            .set_schedule_expression_timezone(wanted.get_schedule_expression_timezone().clone())
            .set_start_date(*wanted.get_start_date())
            .set_end_date(*wanted.get_end_date())
            .set_action_after_completion(wanted.get_action_after_completion().clone())
            .send()
            .await
            .map_err(|error| failed("update", error.into()))?;
        Ok(())
    }

    async fn delete(&self, tenant: TenantId, name: &str) -> Result<(), PortError> {
        let request = self.client.delete_schedule().group_name(&self.settings.group).name(full_name(tenant, name));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => {
                Ok(())
            }
            Err(error) => Err(PortError::new(format!("delete schedule {name}"), error)),
        }
    }

    async fn list(&self, cursor: Option<&str>) -> Result<TimerPage, PortError> {
        let request = self.client.list_schedules().group_name(&self.settings.group).max_results(PAGE);
        let page = request.set_next_token(cursor.map(str::to_owned)).send().await;
        let page = page.map_err(|error| PortError::new("list schedules", error))?;
        let names = page.schedules.iter().filter_map(|schedule| schedule.name());
        // Others in the group are the installation's own.
        let timers = names.filter_map(from_full_name).map(|(tenant, name)| (tenant, name.to_owned())).collect();
        Ok(TimerPage { timers, next_cursor: page.next_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::MAX_NAME_CHARS;

    #[test]
    fn the_longest_name_fits() {
        let tenant = TenantId::new(Timestamp::UNIX_EPOCH, [0xff; 10]);
        let name = full_name(tenant, &"x".repeat(MAX_NAME_CHARS));
        assert_eq!(name.len(), 64);
        assert_eq!(from_full_name(&name), Some((tenant, &*"x".repeat(MAX_NAME_CHARS))));
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(name.chars().all(allowed), "{name}");
    }
}
