//! The times at which a schedule fires.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Cron, Every};

const JUST_BEFORE: SignedDuration = SignedDuration::from_nanos(-1);

/// A time zone of the IANA database, which is part of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Its name as the database spells it: `Europe/Berlin`.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The time that clocks show there.
    pub fn civil(&self, time: Timestamp) -> DateTime {
        self.0.to_datetime(time)
    }

    /// When clocks there show a time for the first time; `None` where they never do, because they are set forward over it.
    pub fn first(&self, civil: DateTime) -> Option<Timestamp> {
        let ambiguous = self.0.to_ambiguous_timestamp(civil);
        if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
            return None;
        }
        ambiguous.earlier().ok()
    }

    /// The last of the civil times that clocks there have shown by now: later than what they show where they were just set
    /// back.
    fn latest_civil(&self, time: Timestamp) -> DateTime {
        let civil = self.civil(time);
        match self.0.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Fold { before, .. } => before.to_datetime(time).max(civil),
            AmbiguousOffset::Gap { .. } | AmbiguousOffset::Unambiguous { .. } => civil,
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zone = TimeZone::get(text).ok().filter(|zone| zone.iana_name().is_some() && !zone.is_unknown());
        zone.map(Self).ok_or_else(|| {
            format!("{text:?} is no time zone of the IANA database; write one such as \"Europe/Berlin\" or \"UTC\"")
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What fires again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurrence {
    /// When, but for the end.
    pub rhythm: Rhythm,
    /// No firing is at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// How long after its time a firing may come, so that not all come at once. The time that it tells stays its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Every>,
}

/// The times of a recurrence without an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rhythm {
    /// At each `first + k * interval`, k ≥ 0, in whole seconds.
    Every {
        /// The interval.
        interval: Every,
        /// The first firing; a fraction of a second rounds up.
        first: Timestamp,
    },
    /// Where an expression matches a zone's civil time. A civil time that the clocks are set forward over is skipped; one
    /// that they show twice counts once, the first time. EventBridge Scheduler does the same
    /// (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#daylist-savings-time>).
    Cron {
        /// The expression.
        cron: Cron,
        /// Where.
        zone: Zone,
        /// No firing is before this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<Timestamp>,
    },
}

impl Recurrence {
    /// Without an end, at each `first + k * interval`, k ≥ 0.
    pub fn every(interval: Every, first: Timestamp) -> Self {
        Self { rhythm: Rhythm::Every { interval, first }, end: None, jitter: None }
    }

    /// The first firing after a time, as planned; `None` where none is left.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let next = match &self.rhythm {
            Rhythm::Every { interval, first } => {
                let first = ceil_to_second(*first)?;
                let passed = seconds(first, time).div_euclid(interval_seconds(*interval)) + 1;
                nth(first, *interval, passed.max(0))?
            }
            Rhythm::Cron { cron, zone, start } => {
                let just_before_start = start.and_then(|start| start.checked_add(JUST_BEFORE).ok());
                let after = just_before_start.map_or(time, |before| before.max(time));
                let civil = std::iter::successors(cron.next_after(zone.civil(after)), |civil| cron.next_after(*civil));
                civil.filter_map(|civil| zone.first(civil)).find(|firing| *firing > after)?
            }
        };
        self.end.is_none_or(|end| next < end).then_some(next)
    }

    /// The last firing at a time or before, as planned; `None` where none was.
    pub fn latest_at(&self, time: Timestamp) -> Option<Timestamp> {
        let just_before_end = self.end.and_then(|end| end.checked_add(JUST_BEFORE).ok());
        let by = just_before_end.map_or(time, |before| before.min(time));
        match &self.rhythm {
            Rhythm::Every { interval, first } => {
                let first = ceil_to_second(*first)?;
                let passed = seconds(first, by).div_euclid(interval_seconds(*interval));
                (passed >= 0).then(|| nth(first, *interval, passed)).flatten()
            }
            Rhythm::Cron { cron, zone, start } => {
                let before = |civil: &DateTime| {
                    let minute_before = civil.checked_sub(jiff::Span::new().minutes(1)).ok()?;
                    cron.latest_at(minute_before)
                };
                let civil = std::iter::successors(cron.latest_at(zone.latest_civil(by)), before);
                let latest = civil.filter_map(|civil| zone.first(civil)).find(|firing| *firing <= by)?;
                start.is_none_or(|start| latest >= start).then_some(latest)
            }
        }
    }

    /// The firings after a time, as planned.
    pub fn firings_after(&self, time: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(time), |firing| self.next_after(*firing))
    }
}

fn ceil_to_second(time: Timestamp) -> Option<Timestamp> {
    let seconds = time.as_millisecond().saturating_add(999).div_euclid(1000);
    Timestamp::from_second(seconds).ok()
}

fn interval_seconds(interval: Every) -> i64 {
    i64::from(interval.minutes()) * 60
}

/// Whole seconds from one time to another, rounded down.
fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond().div_euclid(1000) - from.as_second()
}

fn nth(first: Timestamp, interval: Every, number: i64) -> Option<Timestamp> {
    let after = interval_seconds(interval).checked_mul(number)?;
    Timestamp::from_second(first.as_second().checked_add(after)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(text: &str, zone: &str) -> Recurrence {
        let rhythm = Rhythm::Cron { cron: text.parse().unwrap(), zone: zone.parse().unwrap(), start: None };
        Recurrence { rhythm, end: None, jitter: None }
    }

    fn firings(recurrence: &Recurrence, after: &str, count: usize) -> Vec<String> {
        recurrence.firings_after(time(after)).take(count).map(|firing| firing.to_string()).collect()
    }

    #[test]
    fn an_interval_fires_on_its_grid_from_its_first_time_to_its_end() {
        let rhythm = Rhythm::Every { interval: "10m".parse().unwrap(), first: time("2026-11-21T10:00:00.5Z") };
        let mut every = Recurrence { rhythm, end: None, jitter: None };
        assert_eq!(
            firings(&every, "2026-11-21T10:00:00.5Z", 2),
            ["2026-11-21T10:00:01Z", "2026-11-21T10:10:01Z"],
            "a fraction rounds up"
        );
        assert_eq!(firings(&every, "2020-01-01T00:00:00Z", 1), ["2026-11-21T10:00:01Z"], "none before the first");
        assert_eq!(firings(&every, "2026-11-21T10:10:01Z", 1), ["2026-11-21T10:20:01Z"]);
        assert_eq!(every.latest_at(time("2026-11-21T10:00:00.9Z")), None);
        assert_eq!(every.latest_at(time("2026-11-21T10:20:00Z")), Some(time("2026-11-21T10:10:01Z")));
        assert_eq!(every.latest_at(time("2026-11-21T10:20:01Z")), Some(time("2026-11-21T10:20:01Z")));
        every.end = Some(time("2026-11-21T10:20:01Z"));
        assert_eq!(firings(&every, "2026-11-21T10:00:00Z", 9), ["2026-11-21T10:00:01Z", "2026-11-21T10:10:01Z"]);
        assert_eq!(every.latest_at(time("2027-01-01T00:00:00Z")), Some(time("2026-11-21T10:10:01Z")));
    }

    #[test]
    fn an_expression_fires_between_its_start_and_its_end() {
        let mut daily = cron("30 2 * * *", "Europe/Berlin");
        daily.end = Some(time("2026-07-03T00:30:00Z"));
        let Rhythm::Cron { start, .. } = &mut daily.rhythm else { unreachable!("it is an expression") };
        *start = Some(time("2026-07-01T00:30:00Z"));
        assert_eq!(firings(&daily, "2020-01-01T00:00:00Z", 9), ["2026-07-01T00:30:00Z", "2026-07-02T00:30:00Z"]);
        assert_eq!(daily.latest_at(time("2026-07-01T00:29:59Z")), None);
        assert_eq!(daily.latest_at(time("2030-01-01T00:00:00Z")), Some(time("2026-07-02T00:30:00Z")));
    }

    #[test]
    fn a_time_that_is_skipped_fires_not_and_one_that_comes_twice_fires_once() {
        // Berlin: 2026-03-29 from 02:00 to 03:00, 2026-10-25 from 03:00 back to 02:00.
        let berlin = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            firings(&berlin, "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
        assert_eq!(
            firings(&berlin, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            "once, when it is 02:30 for the first time"
        );
        let often = cron("*/30 * * * *", "Europe/Berlin");
        assert_eq!(
            firings(&often, "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"],
            "nothing in the hour that is repeated"
        );
        assert_eq!(firings(&often, "2026-03-29T00:30:00Z", 2), ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
        // Lord Howe moves by half an hour: 2026-04-05 from 02:00 back to 01:30, 2026-10-04 from 02:00 to 02:30.
        let island = cron("*/15 1,2 * * *", "Australia/Lord_Howe");
        assert_eq!(
            firings(&island, "2026-04-04T14:30:00Z", 3),
            ["2026-04-04T14:45:00Z", "2026-04-04T15:30:00Z", "2026-04-04T15:45:00Z"]
        );
        assert_eq!(
            firings(&island, "2026-10-03T15:15:00Z", 2),
            ["2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z"],
            "after 01:45 comes 02:30"
        );
        // Samoa had no 30 December 2011.
        let apia = cron("0 12 * * *", "Pacific/Apia");
        assert_eq!(firings(&apia, "2011-12-29T00:00:00Z", 2), ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]);
    }

    #[test]
    fn the_latest_firing_is_the_one_that_no_other_follows() {
        let of = [
            cron("*/30 * * * *", "Europe/Berlin"),
            cron("17 2 * * *", "America/New_York"),
            cron("*/15 1,2 * * *", "Australia/Lord_Howe"),
            cron("0 12 * * *", "Pacific/Apia"),
        ];
        let from = ["2026-10-24T20:00:00Z", "2026-10-31T20:00:00Z", "2026-04-04T10:00:00Z", "2011-12-28T10:00:00Z"];
        for (recurrence, from) in of.iter().zip(from) {
            let mut latest = recurrence.latest_at(time(from));
            for minutes in 0..3 * 24 * 60 {
                let now = time(from) + SignedDuration::from_mins(minutes);
                if let Some(firing) =
                    latest.and_then(|latest| recurrence.next_after(latest)).filter(|next| *next <= now)
                {
                    latest = Some(firing);
                }
                assert_eq!(recurrence.latest_at(now), latest, "{recurrence:?} at {now}");
            }
        }
    }

    #[test]
    fn zones_are_those_of_the_database() {
        assert_eq!("europe/berlin".parse::<Zone>().unwrap().name(), "Europe/Berlin");
        assert_eq!("UTC".parse::<Zone>().unwrap(), Zone::UTC);
        for bad in ["", "Berlin", "Europe/Atlantis", "Etc/Unknown", "CEST-1", "+02:00", "local"] {
            let refused = bad.parse::<Zone>().expect_err(bad);
            assert!(refused.contains("write one such as"), "{refused}");
        }
    }

    #[test]
    fn it_is_the_same_after_it_was_stored() {
        let mut stored = cron("*/5 8-18 * * mon-fri", "Asia/Kolkata");
        stored.jitter = Some("3m".parse().unwrap());
        stored.end = Some(time("2027-01-01T00:00:00Z"));
        let text = serde_json::to_string(&stored).unwrap();
        assert_eq!(serde_json::from_str::<Recurrence>(&text).unwrap(), stored, "{text}");
    }
}
