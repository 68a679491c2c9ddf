//! Schedules: what a definition says of them, and when they fire.

mod cron;
mod eventbridge;
mod every;
mod recurrence;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::eventbridge::MAX_EXPRESSION_CHARS;
use crate::{FieldError, Pointer};

pub use cron::Cron;
pub use every::Every;
pub use recurrence::{Recurrence, Rhythm, Zone};

/// The longest jitter, in minutes (EventBridge Scheduler's longest flexible time window).
const MAX_JITTER_MINUTES: u32 = 24 * 60;

/// When the clock starts a workflow: at intervals (`every`), or where a cron expression matches (`cron`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The interval: a whole number with `m`, `h` or `d`, from `1m` to `365d`. It is counted from `start`, or from the
    /// workflow's creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, examples("10m"))]
    pub every: Option<Every>,
    /// A cron expression of five fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, examples("30 2 * * 1-5"))]
    pub cron: Option<Cron>,
    /// The IANA time zone that `cron` is read in; default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, examples("Europe/Berlin"))]
    pub timezone: Option<Zone>,
    /// It doesn't fire before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    pub start: Option<Timestamp>,
    /// It doesn't fire at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    pub end: Option<Timestamp>,
    /// How long after its time a run may begin, so that not all workflows' begin at once: `1m` to `24h`, and shorter than
    /// the time between two firings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, examples("5m"))]
    pub jitter: Option<Every>,
}

impl Schedule {
    /// When it fires, for a workflow of this age; `None` for one that [`Schedule::check`] refuses.
    pub fn recurrence(&self, created_at: Timestamp) -> Option<Recurrence> {
        let rhythm = match (&self.cron, self.every) {
            (Some(cron), _) => {
                let zone = self.timezone.clone().unwrap_or(Zone::UTC);
                Rhythm::Cron { cron: cron.clone(), zone, start: self.start }
            }
            (None, Some(interval)) => {
                let first = self.start.or_else(|| created_at.checked_add(interval.duration()).ok())?;
                Rhythm::Every { interval, first }
            }
            (None, None) => return None,
        };
        Some(Recurrence { rhythm, end: self.end, jitter: self.jitter })
    }

    /// Checks its fields against each other.
    pub fn check(&self, at: &Pointer, errors: &mut Vec<FieldError>) {
        let mut refuse = |pointer: Pointer, detail: String| errors.push(FieldError::new(pointer, detail));
        match (&self.every, &self.cron) {
            (Some(_), Some(_)) => {
                refuse(at.clone(), "has both \"every\" and \"cron\"; remove one".to_owned());
            }
            (None, None) => {
                let detail = "needs \"every\", such as \"10m\", or \"cron\", such as \"30 2 * * 1-5\"";
                refuse(at.clone(), detail.to_owned());
            }
            (Some(_), None) if self.timezone.is_some() => {
                let detail = "goes with \"cron\" only: intervals are the same in all zones; remove it";
                refuse(at.push("timezone"), detail.to_owned());
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let chars = self.cron.as_ref().map_or(0, |cron| cron.for_eventbridge().len());
        if chars > MAX_EXPRESSION_CHARS {
            let detail = format!(
                "takes {chars} characters as an expression of EventBridge Scheduler, which has room for \
                 {MAX_EXPRESSION_CHARS}; write ranges and steps in place of lists, or make two workflows"
            );
            refuse(at.push("cron"), detail);
        }
        if let (Some(start), Some(end)) = (self.start, self.end)
            && self.recurrence(start).is_some_and(|recurrence| recurrence.next_after(Timestamp::MIN).is_none())
        {
            let detail = if end <= start {
                "must be later than \"start\""
            } else {
                "is so soon after \"start\" that it never fires; set it later"
            };
            refuse(at.push("end"), detail.to_owned());
        }
        if let Some(jitter) = self.jitter {
            let gap = match (self.every, &self.cron) {
                (Some(every), _) => Some(every.minutes()),
                (None, Some(cron)) => cron.shortest_gap(),
                (None, None) => None,
            };
            if jitter.minutes() > MAX_JITTER_MINUTES {
                refuse(at.push("jitter"), "must be 1m to 24h".to_owned());
            } else if let Some(gap) = gap.filter(|gap| jitter.minutes() >= *gap) {
                let shorter = match gap {
                    1 => "it fires each minute, which leaves no room for one; remove it".to_owned(),
                    gap => format!("at most {}m", gap - 1),
                };
                let detail = format!("must be shorter than the shortest time between two firings: {shorter}");
                refuse(at.push("jitter"), detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn errors(schedule: Value) -> Vec<(String, String)> {
        let schedule: Schedule = serde_json::from_value(schedule).unwrap();
        let mut errors = Vec::new();
        schedule.check(&Pointer::root().push("trigger"), &mut errors);
        errors.into_iter().map(|error| (error.pointer.to_string(), error.detail)).collect()
    }

    /// Numbers that look random and are the same each time (SplitMix64).
    pub(super) struct Random(pub(super) u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % limit
        }

        /// Any expression that is taken.
        pub(super) fn cron(&mut self) -> String {
            let (minutes, hours, months) = (self.field(0, 59), self.field(0, 23), self.field(1, 12));
            let (days, weekdays) = match self.below(3) {
                0 => (self.field(1, 28), "*".to_owned()),
                1 => ("*".to_owned(), self.field(0, 6)),
                _ => ("*".to_owned(), "*".to_owned()),
            };
            format!("{minutes} {hours} {days} {months} {weekdays}")
        }

        fn field(&mut self, min: u64, max: u64) -> String {
            let span = max - min;
            let first = min + self.below(span);
            let last = first + 1 + self.below(max - first);
            match self.below(6) {
                0 => "*".to_owned(),
                1 => format!("*/{}", 1 + self.below(span)),
                2 => format!("{first}-{last}"),
                3 => format!("{first}-{last}/{}", 1 + self.below(last - first)),
                4 => format!("{first},{last}"),
                _ => first.to_string(),
            }
        }
    }

    #[test]
    fn fields_are_checked_against_each_other() {
        for fine in [
            json!({"every": "10m"}),
            json!({"every": "1d", "start": "2026-12-01T08:00:00Z", "end": "2026-12-01T08:00:01Z", "jitter": "23h"}),
            json!({"cron": "30 2 * * 1-5", "timezone": "Europe/Berlin", "jitter": "1439m"}),
            json!({"cron": "0 2 1 * *", "jitter": "24h"}),
            json!({"cron": "0 8 * * *", "start": "2026-12-01T08:00:00Z", "end": "2026-12-01T08:01:00Z"}),
        ] {
            assert_eq!(errors(fine.clone()), [], "{fine}");
        }
        for (wrong, pointer, told) in [
            (json!({}), "/trigger", "needs \"every\""),
            (json!({"every": "1h", "cron": "0 * * * *"}), "/trigger", "has both"),
            (
                json!({"cron": "0-28,30-59 0-10,12-20,22 1-4,6-9,11-14,16-19,21-24,26-31 * *"}),
                "/trigger/cron",
                "has room for 256",
            ),
            (json!({"every": "1h", "timezone": "UTC"}), "/trigger/timezone", "goes with \"cron\" only"),
            (
                json!({"every": "1h", "start": "2026-12-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}),
                "/trigger/end",
                "later than",
            ),
            (
                json!({"cron": "0 8 * * *", "start": "2026-12-01T09:00:00Z", "end": "2026-12-02T08:00:00Z"}),
                "/trigger/end",
                "so soon after",
            ),
            (json!({"every": "10m", "jitter": "10m"}), "/trigger/jitter", "at most 9m"),
            (json!({"every": "1m", "jitter": "1m"}), "/trigger/jitter", "fires each minute"),
            (json!({"every": "30d", "jitter": "2d"}), "/trigger/jitter", "1m to 24h"),
            (json!({"cron": "*/20 8,9 * * *", "jitter": "30m"}), "/trigger/jitter", "at most 19m"),
            (json!({"cron": "@daily", "jitter": "1d"}), "/trigger/jitter", "at most 1439m"),
        ] {
            let found = errors(wrong.clone());
            let [(at, detail)] = found.as_slice() else { panic!("{wrong}: {found:?}") };
            assert!(at == pointer && detail.contains(told), "{wrong}: {at} {detail}");
        }
    }

    #[test]
    fn an_interval_is_counted_from_the_start_or_the_creation() {
        let created: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let firings = |schedule: Value| {
            let schedule: Schedule = serde_json::from_value(schedule).unwrap();
            let recurrence = schedule.recurrence(created).unwrap();
            recurrence.firings_after(created).take(2).map(|firing| firing.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(firings(json!({"every": "1h"})), ["2026-11-21T11:00:00Z", "2026-11-21T12:00:00Z"]);
        assert_eq!(
            firings(json!({"every": "1d", "start": "2026-11-22T08:00:00+01:00"})),
            ["2026-11-22T07:00:00Z", "2026-11-23T07:00:00Z"]
        );
        assert_eq!(
            firings(json!({"cron": "0 8 * * *", "start": "2026-11-25T00:00:00Z"})),
            ["2026-11-25T08:00:00Z", "2026-11-26T08:00:00Z"]
        );
    }
}
