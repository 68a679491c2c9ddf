//! Filters on times. A time is a text in RFC 3339 (`2026-11-21T10:00:00Z`), RFC 9557 or RFC 2822, a day (`2026-11-21`),
//! or a number of seconds since 1970. Zones come from a database that is built in, so that every machine has the same.

use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Span, Timestamp, Zoned};

use super::{Arguments, unsuitable};
use crate::expression::data::Data;
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, Meter};
use crate::expression::numbers::Number;
use crate::expression::template::clip;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The longest text that is read as a time, and the longest format, in bytes.
const MAX_LENGTH: usize = 256;
/// What handling a time takes: a zone may have to be read.
const TIME_WORK: usize = 4_000;

/// A time zone by its name in the IANA database.
pub(super) fn zone(name: &str) -> Result<TimeZone, Fault> {
    ZONES.get(name).map_err(|_| {
        let name = clip(name, 40);
        Fault::refused(format!("there is no time zone {name:?}; write it as in \"Europe/Berlin\" or \"UTC\""))
    })
}

fn zone_of(arguments: &Arguments) -> Result<TimeZone, Fault> {
    arguments.text("timezone")?.map_or(Ok(TimeZone::UTC), zone)
}

fn format_of(arguments: &Arguments) -> Result<Option<&str>, Fault> {
    match arguments.text("format")? {
        Some(format) if format.len() > MAX_LENGTH => {
            Err(Fault::refused(format!("`format` may have at most {MAX_LENGTH} bytes")))
        }
        format => Ok(format),
    }
}

/// The time that a value is. A text without an offset is read as in `zone`.
fn time_of(value: &Data, zone: &TimeZone, meter: &mut Meter) -> Result<Timestamp, Fault> {
    meter.work(TIME_WORK)?;
    if let Some(number) = Number::strictly_of(value) {
        return match number {
            Number::Int(seconds) => {
                i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).ok_or_else(far)
            }
            Number::Float(seconds) => {
                SignedDuration::try_from_secs_f64(seconds).and_then(Timestamp::from_duration).map_err(|_| far())
            }
        };
    }
    let text = value.as_text().ok_or_else(|| unsuitable("a time: a text or seconds since 1970", value))?.trim();
    if text.len() > MAX_LENGTH {
        return Err(no_time(text));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return time.to_zoned(zone.clone()).map(|time| time.timestamp()).map_err(|_| far());
    }
    rfc2822::parse(text).map(|time| time.timestamp()).map_err(|_| no_time(text))
}

fn far() -> Fault {
    Fault::refused("the time is too far away; years go from -9999 to 9999")
}

fn no_time(text: &str) -> Fault {
    let text = clip(text, 40);
    Fault::refused(format!("{text:?} is not a time such as \"2026-11-21T10:00:00Z\"; read others with `parse_date`"))
}

pub(super) fn date(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let zone = zone_of(arguments)?;
    let time = time_of(value, &zone, meter)?.to_zoned(zone);
    let format = format_of(arguments)?.unwrap_or("%Y-%m-%d");
    let text = strtime::format(format, &time)
        .map_err(|error| Fault::refused(format!("`format` can't be used: {error}; write it as in \"%Y-%m-%d\"")))?;
    Ok(meter.text(text)?.into())
}

pub(super) fn to_timezone(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let zone = zone_of(arguments)?;
    let time = time_of(value, &zone, meter)?.to_zoned(zone);
    let text = strtime::format("%Y-%m-%dT%H:%M:%S%.f%:z", &time).map_err(|_| far())?;
    Ok(meter.text(text)?.into())
}

pub(super) fn date_add(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let zone = zone_of(arguments)?;
    let time = time_of(value, &zone, meter)?.to_zoned(zone);
    let amount = |unit| arguments.integer(unit).map(Option::unwrap_or_default);
    let (years, months, weeks) = (amount("years")?, amount("months")?, amount("weeks")?);
    let (days, hours, minutes, seconds) = (amount("days")?, amount("hours")?, amount("minutes")?, amount("seconds")?);
    let span = || {
        let days = Span::new().try_years(years)?.try_months(months)?.try_weeks(weeks)?.try_days(days)?;
        days.try_hours(hours)?.try_minutes(minutes)?.try_seconds(seconds)
    };
    let moved = span().and_then(|span| time.checked_add(span)).map_err(|_| far())?;
    instant(&moved, meter)
}

pub(super) fn date_diff(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let time = time_of(value, &TimeZone::UTC, meter)?;
    let other = time_of(arguments.needed("other")?, &TimeZone::UTC, meter)?;
    let seconds = match arguments.text("unit")? {
        None | Some("seconds") => 1,
        Some("minutes") => 60,
        Some("hours") => 3_600,
        Some("days") => 86_400,
        Some(_) => return Err(Fault::refused("`unit` is \"seconds\", \"minutes\", \"hours\" or \"days\"")),
    };
    let apart = time.duration_since(other).as_nanos();
    let unit = seconds * 1_000_000_000;
    let number = if apart % unit == 0 {
        Number::Int(apart / unit)
    } else {
        Number::Float(Number::Int(apart).float() / Number::Int(unit).float())
    };
    Ok(number.data()?.into())
}

pub(super) fn parse_date(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let zone = zone_of(arguments)?;
    let Some(format) = format_of(arguments)? else {
        let time = time_of(value, &zone, meter)?;
        return instant(&time.to_zoned(TimeZone::UTC), meter);
    };
    meter.work(TIME_WORK)?;
    let text = value.as_text().ok_or_else(|| unsuitable("a text", value))?.trim();
    let refused = |reason: &dyn std::fmt::Display| {
        let text = clip(text, 40);
        Fault::refused(format!("{text:?} is not a time in the format {format:?}: {reason}"))
    };
    if text.len() > MAX_LENGTH {
        return Err(refused(&"it is too long"));
    }
    let parsed = strtime::parse(format, text).map_err(|error| refused(&error))?;
    let time = match parsed.offset() {
        Some(_) => parsed.to_timestamp().map(|time| time.to_zoned(TimeZone::UTC)),
        None if parsed.hour().is_some() => parsed.to_datetime().and_then(|time| time.to_zoned(zone)),
        None => parsed.to_date().and_then(|day| day.to_zoned(zone)),
    };
    instant(&time.map_err(|error| refused(&error))?, meter)
}

pub(super) fn unix(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let time = time_of(value, &TimeZone::UTC, meter)?;
    Ok(Data::integer(i128::from(time.as_second())).into())
}

/// A time as texts have it everywhere: RFC 3339 in UTC.
fn instant(time: &Zoned, meter: &mut Meter) -> Result<Outcome, Fault> {
    Ok(meter.text(time.timestamp().to_string())?.into())
}
