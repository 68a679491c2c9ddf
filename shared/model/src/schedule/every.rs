//! Intervals of whole minutes, hours or days, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A schedule's interval: whole minutes, hours or days, from `1m` to `365d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    amount: u32,
    unit: char,
}

impl Every {
    /// So many minutes; `None` where they are none or more than 365 days.
    pub fn from_minutes(minutes: u32) -> Option<Self> {
        (1..=365 * 24 * 60).contains(&minutes).then_some(Self { amount: minutes, unit: 'm' })
    }

    /// So many days.
    pub(crate) const fn days(amount: u32) -> Self {
        Self { amount, unit: 'd' }
    }

    /// The interval in minutes.
    pub fn minutes(self) -> u32 {
        let minutes = match self.unit {
            'd' => 24 * 60,
            'h' => 60,
            _ => 1,
        };
        self.amount.saturating_mul(minutes)
    }

    /// The interval's length.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.minutes()) * 60)
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.amount, self.unit)
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("expected an interval such as \"10m\", \"2h\" or \"1d\" (1m to 365d), not {text:?}");
        let unit = text.chars().last().filter(|unit| matches!(unit, 'm' | 'h' | 'd')).ok_or_else(error)?;
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let every = Self { amount: digits.parse().map_err(|_| error())?, unit };
        Self::from_minutes(every.minutes()).map(|_| every).ok_or_else(error)
    }
}

impl Serialize for Every {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_whole_minutes_hours_or_days() {
        assert_eq!("90m".parse::<Every>().unwrap().duration(), Duration::from_secs(5_400));
        assert_eq!("1d".parse::<Every>().unwrap().to_string(), "1d");
        for bad in ["", "m", "0m", "10s", "-1m", "1.5h", "366d", "9999999m", "999999d", "1m ", "１m"] {
            assert!(bad.parse::<Every>().is_err(), "{bad}");
        }
    }
}
