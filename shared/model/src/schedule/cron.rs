//! Cron expressions: which are taken, and at which civil times they match. When a civil time is, and whether it is at
//! all, [`Recurrence`](super::Recurrence) decides.
//!
//! The dialect is what cron implementations and EventBridge Scheduler agree on. What they read differently, or what can
//! only be a slip, is refused with a text that says what to write instead; so no expression means something else than its
//! author thinks, here or there.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, DateTime, date};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const MAX_CHARS: usize = 500;
const MINUTES_OF_DAY: u32 = 24 * 60;

const NICKNAMES: [(&str, &str); 5] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression of five fields: minute, hour, day of the month, month, day of the week.
///
/// A field is `*`, or a list of numbers, ranges and steps on `*` or a range; months and days of the week have names too,
/// and Sunday is 0 and 7. Only one of the two fields of days is something else than `*`. `@hourly`, `@daily`, `@weekly`,
/// `@monthly` and `@yearly` are read as what they stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    matcher: Box<croner::Cron>,
}

/// What a field takes.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of the month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "day of the week", min: 0, max: 6, names: &WEEKDAYS },
];

impl Cron {
    /// The minutes in which it matches, from 0.
    pub fn minutes(&self) -> Vec<u16> {
        self.matcher.pattern.minutes.values()
    }

    /// The hours, from 0.
    pub fn hours(&self) -> Vec<u16> {
        self.matcher.pattern.hours.values()
    }

    /// The days of the month, from 1; all where the days of the week decide.
    pub fn days(&self) -> Vec<u16> {
        self.matcher.pattern.days.values()
    }

    /// The months, from 1.
    pub fn months(&self) -> Vec<u16> {
        self.matcher.pattern.months.values()
    }

    /// The days of the week, 0 is Sunday; all where the days of the month decide.
    pub fn weekdays(&self) -> Vec<u16> {
        self.matcher.pattern.days_of_week.values()
    }

    /// The first civil time after this one at which it matches; `None` at the end of time.
    pub fn next_after(&self, time: DateTime) -> Option<DateTime> {
        self.matcher.find_next_occurrence(&time, false).ok()
    }

    /// The last civil time up to this one, itself included, at which it matches; `None` at the beginning of time.
    pub fn latest_at(&self, time: DateTime) -> Option<DateTime> {
        self.matcher.find_previous_occurrence(&time, true).ok()
    }

    /// The shortest time between two matches, in minutes of civil time, if that is a day or less.
    pub(super) fn shortest_gap(&self) -> Option<u32> {
        let minutes = self.minutes();
        let times: Vec<_> = self
            .hours()
            .into_iter()
            .flat_map(|hour| minutes.iter().map(move |minute| u32::from(hour) * 60 + u32::from(*minute)))
            .collect();
        let within = times.windows(2).map(|pair| pair[1] - pair[0]).min();
        let overnight = times.first().zip(times.last()).map(|(first, last)| MINUTES_OF_DAY - last + first);
        within.into_iter().chain(overnight.filter(|_| self.is_on_two_days_in_a_row())).min()
    }

    fn is_on_two_days_in_a_row(&self) -> bool {
        let next = |date: &Date| self.next_after(date.at(23, 59, 59, 0)).map(DateTime::date);
        // Two years, of which one has a 29 February.
        let mut dates =
            std::iter::successors(Some(date(2023, 12, 31)), next).skip(1).take_while(|date| date.year() < 2026);
        dates.any(|date| next(&date) == date.tomorrow().ok())
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_CHARS {
            return Err(format!("has more than {MAX_CHARS} characters; write ranges and steps in place of lists"));
        }
        let lower = text.trim().to_ascii_lowercase();
        let fields = match NICKNAMES.iter().find(|(name, _)| *name == lower) {
            Some((_, fields)) => *fields,
            None if lower.starts_with('@') => {
                return Err(format!(
                    "{text:?} isn't known; use @hourly, @daily, @weekly, @monthly, @yearly or five fields"
                ));
            }
            None => lower.as_str(),
        };
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        let &[_, _, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "expected five fields (minute, hour, day of the month, month, day of the week) such as \"30 2 * * 1-5\", \
                 not {}; there is none for seconds or years",
                fields.len(),
            ));
        };
        if day != "*" && weekday != "*" {
            return Err(format!(
                "has both a day of the month ({day}) and a day of the week ({weekday}), which cron reads as \"either\" and \
                 EventBridge Scheduler can't; write * for one, and make two workflows where either is meant"
            ));
        }
        let mut numbers = Vec::with_capacity(FIELDS.len());
        for (field, text) in FIELDS.iter().zip(fields) {
            numbers.push(field.numbers(text)?);
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let matcher = parser.parse(&numbers.join(" ")).map_err(|error| format!("{text:?} can't be read: {error}"))?;
        let cron = Self { text: text.trim().to_owned(), matcher: Box::new(matcher) };
        let longest = cron.months().into_iter().map(days_of).max();
        if cron.days().first() > longest.as_ref() {
            return Err(format!("never fires: no month of {month} has a day {day}; correct the day or the month"));
        }
        Ok(cron)
    }
}

fn days_of(month: u16) -> u16 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Field {
    /// Checks a field, and writes it with numbers only, in which every range goes forward.
    fn numbers(&self, text: &str) -> Result<String, String> {
        let parts = text.split(',').map(|part| {
            let (base, step) = match part.split_once('/') {
                Some((base, step)) => (base, Some(step)),
                None => (part, None),
            };
            let (first, last) = self.range(base, step)?;
            let step = step.map(|step| self.step(part, step, last - first)).transpose()?;
            Ok(match (base, step) {
                ("*", None) => "*".to_owned(),
                (_, None) if first == last => first.to_string(),
                (_, step) => format!("{first}-{last}/{}", step.unwrap_or(1)),
            })
        });
        Ok(parts.collect::<Result<Vec<_>, String>>()?.join(","))
    }

    /// The first and the last value of a part; a Sunday that ends a range is 7.
    fn range(&self, base: &str, step: Option<&str>) -> Result<(u32, u32), String> {
        if base == "*" {
            return Ok((self.min, self.max));
        }
        let Some((first, last)) = base.split_once('-') else {
            let value = self.value(base, false)?;
            if let Some(step) = step {
                let (name, max) = (self.name, self.max);
                return Err(format!(
                    "the {name} {base}/{step} has a step but no range; write {base}-{max}/{step} or */{step}"
                ));
            }
            return Ok((value, value));
        };
        // A week that begins and ends with the same Sunday is that day alone.
        let ends_range = first != last;
        let (first, last) = (self.value(first, false)?, self.value(last, ends_range)?);
        if first > last {
            let Self { name, min, max, .. } = self;
            return Err(format!("the {name} {base} goes backwards; write {first}-{max},{min}-{last}"));
        }
        Ok((first, last))
    }

    fn step(&self, part: &str, step: &str, span: u32) -> Result<u32, String> {
        let name = self.name;
        let parsed = number(step).filter(|step| *step > 0);
        let parsed = parsed.ok_or_else(|| format!("the {name} {part} has a step that is no number from 1"))?;
        if parsed > span.max(1) {
            return Err(format!(
                "the {name} {part} has a step that is longer than its range, so that only the first remains; write that, or \
                 an \"every\" in place of a cron expression"
            ));
        }
        Ok(parsed)
    }

    /// A number or a name. A range may end with a Sunday, which is 7 then.
    fn value(&self, text: &str, ends_range: bool) -> Result<u32, String> {
        let Self { name, min, max, names } = self;
        let is_weekday = names.len() == WEEKDAYS.len();
        if let Some(position) = names.iter().position(|name| *name == text) {
            let value = u32::try_from(position).unwrap_or_default() + min;
            return Ok(if is_weekday && ends_range && value == 0 { 7 } else { value });
        }
        let last = if is_weekday { 7 } else { *max };
        match number(text).filter(|value| (*min..=last).contains(value)) {
            Some(value) => Ok(value),
            None => Err(format!("the {name} {text:?} is none of {}{}", self.takes(last), hint(text))),
        }
    }

    fn takes(&self, last: u32) -> String {
        let min = self.min;
        match self.names {
            [first, .., to] => format!("{min} to {last} or {first} to {to}"),
            _ => format!("{min} to {last}"),
        }
    }
}

/// What to write in place of what other dialects know.
fn hint(text: &str) -> &'static str {
    match text {
        "" => "; remove a comma or - that stands alone",
        "?" => "; write * in its place",
        _ if text.contains('#') => {
            "; the n-th such day of a month can't be told: run on all of them and let the first step look at the date"
        }
        _ if text.ends_with('w') => {
            "; the nearest weekday can't be told: run on several days and let the first step look at the date"
        }
        _ if text.ends_with('l') => {
            "; the last day can't be told: run on 28-31 and let the first step look at the date"
        }
        _ => "",
    }
}

fn number(text: &str) -> Option<u32> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str) -> Cron {
        text.parse().unwrap()
    }

    fn next(text: &str, times: usize, from: &str) -> Vec<String> {
        let cron = cron(text);
        let from: DateTime = from.parse().unwrap();
        let times = std::iter::successors(cron.next_after(from), |time| cron.next_after(*time)).take(times);
        times.map(|time| time.strftime("%F %H:%M").to_string()).collect()
    }

    #[test]
    fn fields_are_lists_ranges_steps_and_names() {
        let fields = |text: &str| {
            let cron = cron(text);
            [cron.minutes(), cron.hours(), cron.days(), cron.months(), cron.weekdays()]
        };
        let all = |from: u16, to: u16| (from..=to).collect::<Vec<_>>();
        assert_eq!(
            fields("*/15 8-18/5,20 1,05,31 * *"),
            [vec![0, 15, 30, 45], vec![8, 13, 18, 20], vec![1, 5, 31], all(1, 12), all(0, 6)]
        );
        assert_eq!(fields(" 0\t0  * jan,MAR-May  fri-SUN ")[3..], [vec![1, 3, 4, 5], vec![0, 5, 6]]);
        for sunday in ["0", "7", "sun", "7-7", "sun-sun"] {
            assert_eq!(fields(&format!("0 0 * * {sunday}"))[4], [0], "{sunday}");
        }
        assert_eq!(fields("0 0 * * sun-tue,6-7")[4], [0, 1, 2, 6]);
        assert_eq!(fields("0 0 * * 1-7/2")[4], [0, 1, 3, 5]);
        assert_eq!(fields("0 0 * * 0-7")[4], all(0, 6));
        assert_eq!(fields("@Weekly")[4], [0]);
        assert_eq!(fields("@yearly"), fields("0 0 1 1 *"));
        assert_eq!(cron(" @daily ").to_string(), "@daily");
    }

    #[test]
    fn what_is_refused_says_what_to_write() {
        for (text, told) in [
            ("", "expected five fields"),
            ("0 30 2 * * 1", "not 6; there is none for seconds or years"),
            ("0 0 1 * 1", "write * for one, and make two workflows"),
            ("0 0 */2 * 1", "write * for one"),
            ("5/15 * * * *", "write 5-59/15 or */15"),
            ("0 22-4 * * *", "write 22-23,0-4"),
            ("0 0 * * 5-2", "write 5-6,0-2"),
            ("0 0 L * *", "run on 28-31"),
            ("0 0 15W * *", "nearest weekday"),
            ("0 0 * * 1#2", "n-th such day"),
            ("0 0 * * 5L", "the last day"),
            ("0 0 ? * 1", "has both"),
            ("0 0 * ? *", "write * in its place"),
            ("0 0 30 2 *", "never fires: no month of 2 has a day 30"),
            ("0 0 31 4,jun,9,11 *", "never fires"),
            ("60 * * * *", "the minute \"60\" is none of 0 to 59"),
            ("0 24 * * *", "the hour \"24\" is none of 0 to 23"),
            ("0 0 0 * *", "is none of 1 to 31"),
            ("0 0 * 13 *", "is none of 1 to 12 or jan to dec"),
            ("0 0 * * 8", "is none of 0 to 7 or sun to sat"),
            ("0 0 * mon *", "the month \"mon\""),
            ("0 0 * * jan", "the day of the week \"jan\""),
            ("1,,2 * * * *", "remove a comma"),
            ("-5 * * * *", "remove a comma or -"),
            ("1-2-3 * * * *", "is none of"),
            ("*/0 * * * *", "no number from 1"),
            ("*/ * * * *", "no number from 1"),
            ("*/90 * * * *", "longer than its range"),
            ("*/5/2 * * * *", "no number from 1"),
            ("+5 * * * *", "is none of"),
            ("００ * * * *", "is none of"),
            ("H * * * *", "is none of"),
            ("@reboot", "use @hourly"),
            ("@every 5m", "use @hourly"),
        ] {
            let refused = text.parse::<Cron>().expect_err(text);
            assert!(refused.contains(told), "{text}: {refused}");
        }
        assert!("0,".repeat(300).parse::<Cron>().unwrap_err().contains("500 characters"));
    }

    #[test]
    fn civil_times_are_found_in_both_directions() {
        assert_eq!(
            next("*/20 23 31 * *", 4, "2026-01-31T23:20:59"),
            ["2026-01-31 23:40", "2026-03-31 23:00", "2026-03-31 23:20", "2026-03-31 23:40"]
        );
        assert_eq!(next("0 0 29 2 *", 2, "2096-02-29T00:00"), ["2104-02-29 00:00", "2108-02-29 00:00"]);
        assert_eq!(next("30 2 * * 1-5", 2, "2026-11-20T02:30"), ["2026-11-23 02:30", "2026-11-24 02:30"]);
        assert_eq!(next("59 23 31 12 *", 1, "9999-12-31T23:59"), [""; 0], "the end of time");
        for text in ["*/20 23 31 * *", "0 0 29 2 *", "7-50/9 */5 * * 1,3", "59 23 1 1 *", "0 0 * * *"] {
            let cron = cron(text);
            let mut time: DateTime = "2023-02-27T11:11".parse().unwrap();
            for _ in 0..50 {
                let found = cron.next_after(time).unwrap();
                assert_eq!(cron.latest_at(found), Some(found), "{text}");
                let just_before = found.checked_sub(jiff::Span::new().seconds(1)).unwrap();
                assert!(cron.latest_at(just_before).is_some_and(|latest| latest <= time), "{text} {found}");
                assert_eq!(cron.next_after(just_before), Some(found), "{text}");
                time = found;
            }
        }
    }

    #[test]
    fn the_shortest_gap_is_within_a_day_or_over_a_night() {
        for (text, gap) in [
            ("* * * * *", Some(1)),
            ("*/25 * * * *", Some(10)),
            ("0 8,17 * * *", Some(9 * 60)),
            ("0 1,23 * * *", Some(2 * 60)),
            ("0 1,23 * * 1", Some(22 * 60)),
            ("0 12 * * 1,2", Some(24 * 60)),
            ("0 12 * * 1,3", None),
            ("0 12 31,1 * *", Some(24 * 60)),
            ("0 12 1 * *", None),
        ] {
            assert_eq!(cron(text).shortest_gap(), gap, "{text}");
        }
    }
}
