//! Cron expressions as EventBridge Scheduler reads them
//! (<https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based>): six fields, the last for
//! years; days of the week from 1 for Sunday; and `?` in that field of days which doesn't decide.
//!
//! Only what that page spells out is written: `*`, a range, a start with a step (`0/15`; not for days of the week), or a
//! list of numbers. What fits none of the first three is a list, and a very irregular expression has no room.

use super::Cron;

/// The longest `ScheduleExpression`
/// (<https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html>).
pub(super) const MAX_EXPRESSION_CHARS: usize = 256;

impl Cron {
    /// The same for EventBridge Scheduler: `cron(30 2 ? * 2-6 *)`.
    pub fn for_eventbridge(&self) -> String {
        let from_sunday: Vec<_> = self.weekdays().into_iter().map(|day| day + 1).collect();
        let (days, weekdays) = match field(&from_sunday, 1, 7, false).as_str() {
            "*" => (field(&self.days(), 1, 31, true), "?".to_owned()),
            weekdays => ("?".to_owned(), weekdays.to_owned()),
        };
        let minutes = field(&self.minutes(), 0, 59, true);
        let hours = field(&self.hours(), 0, 23, true);
        let months = field(&self.months(), 1, 12, true);
        format!("cron({minutes} {hours} {days} {months} {weekdays} *)")
    }
}

/// One field with these values, which rise.
fn field(values: &[u16], min: u16, max: u16, may_step: bool) -> String {
    let list = || values.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let [first, second, .., last] = values else { return list() };
    let step = second - first;
    if values.windows(2).any(|pair| pair[1] - pair[0] != step) {
        return list();
    }
    match step {
        1 if (*first, *last) == (min, max) => "*".to_owned(),
        1 => format!("{first}-{last}"),
        _ if may_step && last + step > max => format!("{first}/{step}"),
        _ => list(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;

    use super::*;

    fn translated(text: &str) -> String {
        text.parse::<Cron>().unwrap().for_eventbridge()
    }

    #[test]
    fn each_field_means_the_same_there() {
        for (text, there) in [
            ("* * * * *", "cron(* * * * ? *)"),
            ("30 2 * * 1-5", "cron(30 2 ? * 2-6 *)"),
            ("30 2 * * mon-sun", "cron(30 2 * * ? *)"),
            ("0 0 * * 0", "cron(0 0 ? * 1 *)"),
            ("0 0 * * 7", "cron(0 0 ? * 1 *)"),
            ("0 0 * * 5-7", "cron(0 0 ? * 1,6,7 *)"),
            ("0 0 * * 1,3,5", "cron(0 0 ? * 2,4,6 *)"),
            ("0 0 * * */2", "cron(0 0 ? * 1,3,5,7 *)"),
            ("0 0 1 1 *", "cron(0 0 1 1 ? *)"),
            ("*/15 8-18 * * *", "cron(0/15 8-18 * * ? *)"),
            ("5-59/20 */2 * * *", "cron(5/20 0/2 * * ? *)"),
            ("0-30/15 9-17/4 * * *", "cron(0,15,30 9,13,17 * * ? *)"),
            ("*/25 0,12 */10 */3 *", "cron(0/25 0,12 1/10 1/3 ? *)"),
            ("0 0 28-31 2,4 *", "cron(0 0 28-31 2,4 ? *)"),
            ("0 0 1-31 * *", "cron(0 0 * * ? *)"),
        ] {
            assert_eq!(translated(text), there, "{text}");
        }
    }

    /// A reader of what AWS documents, which knows nothing of how it was written.
    struct Theirs([Vec<u32>; 3], Option<Vec<u32>>, Option<Vec<u32>>);

    impl Theirs {
        fn read(expression: &str) -> Self {
            assert!(expression.len() <= MAX_EXPRESSION_CHARS, "{expression}");
            let fields = expression.strip_prefix("cron(").unwrap().strip_suffix(')').unwrap();
            let fields: Vec<_> = fields.split(' ').collect();
            let [minutes, hours, days, months, weekdays, "*"] = fields.as_slice() else { panic!("{expression}") };
            assert_eq!([days, weekdays].iter().filter(|field| ***field == "?").count(), 1, "{expression}");
            let days_of = |field: &str, max| (field != "?").then(|| Self::values(field, 1, max));
            let times = [Self::values(minutes, 0, 59), Self::values(hours, 0, 23), Self::values(months, 1, 12)];
            Self(times, days_of(days, 31), days_of(weekdays, 7))
        }

        fn values(field: &str, min: u32, max: u32) -> Vec<u32> {
            let number = |text: &str| {
                let number: u32 = text.parse().unwrap_or_else(|_| panic!("{field}"));
                assert!((min..=max).contains(&number), "{field}");
                number
            };
            if field == "*" {
                return (min..=max).collect();
            }
            if let Some((first, step)) = field.split_once('/') {
                return (number(first)..=max).step_by(step.parse().unwrap()).collect();
            }
            if let Some((first, last)) = field.split_once('-') {
                return (number(first)..=number(last)).collect();
            }
            field.split(',').map(number).collect()
        }

        fn matches(&self, time: DateTime) -> bool {
            let Self([minutes, hours, months], days, weekdays) = self;
            let number = |part: i8| u32::from(part.unsigned_abs());
            let weekday = number(time.weekday().to_sunday_one_offset());
            minutes.contains(&number(time.minute()))
                && hours.contains(&number(time.hour()))
                && months.contains(&number(time.month()))
                && days.as_ref().is_none_or(|days| days.contains(&number(time.day())))
                && weekdays.as_ref().is_none_or(|weekdays| weekdays.contains(&weekday))
        }
    }

    #[test]
    fn read_back_it_fires_at_the_same_times() {
        let mut random = crate::schedule::tests::Random(26);
        for _ in 0..300 {
            let text = random.cron();
            let cron: Cron = text.parse().unwrap();
            let theirs = Theirs::read(&cron.for_eventbridge());
            let mut time: DateTime = "2027-12-30T22:00".parse().unwrap();
            for _ in 0..200 {
                let next = cron.next_after(time).unwrap();
                assert!(theirs.matches(next), "{text}: not at {next}");
                let mut between = time;
                // What lies far ahead is looked at in part.
                for _ in 0..120 {
                    between = between.checked_add(jiff::Span::new().minutes(1)).unwrap();
                    if between >= next {
                        break;
                    }
                    assert!(!theirs.matches(between), "{text}: also at {between}");
                }
                time = next;
            }
        }
    }
}
