//! What stands behind a `|`. Each may be called as a function too, with its value first: `jmespath(order, "items[0]")`.
//! All are pure: the same values give the same result, on every machine.

mod coding;
mod list;
mod number;
mod pattern;
mod text;
mod time;

use std::borrow::Cow;
use std::fmt;

use super::MAX_TEXT_BYTES;
use super::data::Data;
use super::evaluate::Outcome;
use super::meter::{Fault, Meter, Text};
use super::numbers::Number;
use super::query;

type Run = fn(&Data, &Arguments, &mut Meter) -> Result<Outcome, Fault>;

/// A filter.
pub(super) struct Filter {
    pub(super) name: &'static str,
    /// What it takes, in order; each may be given by name.
    pub(super) parameters: &'static [&'static str],
    /// How many of them it needs.
    pub(super) required: usize,
    pub(super) run: Run,
}

const fn filter(name: &'static str, parameters: &'static [&'static str], required: usize, run: Run) -> Filter {
    Filter { name, parameters, required, run }
}

/// All filters. docs/expressions.md says what each does; a test holds the page to this list.
pub(super) const FILTERS: &[Filter] = &[
    filter("abs", &[], 0, number::abs),
    filter("base64_decode", &["url_safe"], 0, coding::base64_decode),
    filter("base64_encode", &["url_safe"], 0, coding::base64_encode),
    filter("batch", &["size"], 1, list::batch),
    filter("capitalize", &[], 0, text::capitalize),
    filter("ceil", &[], 0, number::ceil),
    filter("date", &["format", "timezone"], 0, time::date),
    filter(
        "date_add",
        &["days", "hours", "minutes", "seconds", "weeks", "months", "years", "timezone"],
        0,
        time::date_add,
    ),
    filter("date_diff", &["other", "unit"], 1, time::date_diff),
    filter("default", &["value", "boolean"], 1, default_of_value),
    filter("escape", &[], 0, coding::escape),
    filter("first", &[], 0, list::first),
    filter("float", &["default"], 0, number::float),
    filter("floor", &[], 0, number::floor),
    filter("format_number", &["digits", "decimal", "thousands"], 0, number::format_number),
    filter("from_json", &[], 0, coding::from_json),
    filter("group_by", &["attribute"], 1, list::group_by),
    filter("hex", &[], 0, coding::hex),
    filter("hmac_sha256", &["key", "encoding"], 1, coding::hmac_sha256),
    filter("int", &["default"], 0, number::int),
    filter("items", &[], 0, list::items),
    filter("jmespath", &["query"], 1, jmespath),
    filter("join", &["separator", "attribute"], 0, list::join),
    filter("keys", &[], 0, list::keys),
    filter("last", &[], 0, list::last),
    filter("length", &[], 0, list::length),
    filter("lines", &[], 0, text::lines),
    filter("lower", &[], 0, text::lower),
    filter("map", &["filter", "attribute", "default"], 0, list::map),
    filter("max", &["attribute"], 0, list::max),
    filter("merge", &["other"], 1, list::merge),
    filter("min", &["attribute"], 0, list::min),
    filter("number", &["decimal"], 0, number::number),
    filter("parse_date", &["format", "timezone"], 0, time::parse_date),
    filter("regex_find", &["pattern", "group"], 1, pattern::find),
    filter("regex_find_all", &["pattern", "group"], 1, pattern::find_all),
    filter("regex_match", &["pattern"], 1, pattern::matches),
    filter("regex_replace", &["pattern", "replacement"], 2, pattern::replace),
    filter("reject", &["test", "value"], 0, list::reject),
    filter("rejectattr", &["attribute", "test", "value"], 1, list::rejectattr),
    filter("replace", &["from", "to"], 2, text::replace),
    filter("reverse", &[], 0, list::reverse),
    filter("round", &["precision", "method"], 0, number::round),
    filter("select", &["test", "value"], 0, list::select),
    filter("selectattr", &["attribute", "test", "value"], 1, list::selectattr),
    filter("sha1", &["encoding"], 0, coding::sha1),
    filter("sha256", &["encoding"], 0, coding::sha256),
    filter("sha512", &["encoding"], 0, coding::sha512),
    filter("slugify", &[], 0, text::slugify),
    filter("sort", &["reverse", "attribute"], 0, list::sort),
    filter("split", &["separator", "limit"], 0, text::split),
    filter("string", &[], 0, text::string),
    filter("sum", &["attribute", "start"], 0, list::sum),
    filter("title", &[], 0, text::title),
    filter("to_json", &[], 0, coding::to_json),
    filter("to_timezone", &["timezone"], 1, time::to_timezone),
    filter("trim", &[], 0, text::trim),
    filter("truncate", &["length", "end"], 1, text::truncate),
    filter("unique", &["attribute"], 0, list::unique),
    filter("unix", &[], 0, time::unix),
    filter("upper", &[], 0, text::upper),
    filter("urldecode", &[], 0, coding::urldecode),
    filter("urlencode", &[], 0, coding::urlencode),
    filter("values", &[], 0, list::values),
];

/// The filter of a name.
pub(super) fn find(name: &str) -> Option<&'static Filter> {
    FILTERS.iter().find(|filter| filter.name == name)
}

/// All names, for an error.
pub(super) fn names() -> String {
    FILTERS.iter().map(|filter| filter.name).collect::<Vec<_>>().join(", ")
}

/// Checks an argument that stands written out in an expression, so that a definition is refused that can't work.
pub(super) fn check_argument(parameter: &str, value: &Data) -> Result<(), String> {
    let Some(text) = value.as_text() else { return Ok(()) };
    let checked = match parameter {
        "pattern" => pattern::check(text),
        "timezone" => time::zone(text).map(drop),
        "query" => return query::check(text),
        _ => Ok(()),
    };
    checked.map_err(|fault| match fault {
        Fault::Refused(reason) | Fault::Missing(reason) => reason,
    })
}

/// What a filter is given beside its value.
pub(super) struct Arguments {
    filter: &'static Filter,
    values: Vec<Option<Data>>,
}

impl Arguments {
    pub(super) fn new(filter: &'static Filter) -> Self {
        Self { filter, values: vec![None; filter.parameters.len()] }
    }

    /// Sets one by its position; what the filter doesn't take has been refused when the expression was parsed.
    pub(super) fn set(&mut self, position: usize, value: Data) {
        if let Some(slot) = self.values.get_mut(position) {
            *slot = Some(value);
        }
    }

    fn get(&self, parameter: &str) -> Option<&Data> {
        let position = self.filter.parameters.iter().position(|known| *known == parameter)?;
        self.values[position].as_ref()
    }

    fn needed(&self, parameter: &str) -> Result<&Data, Fault> {
        self.get(parameter).ok_or_else(|| Fault::refused(format!("it needs `{parameter}`")))
    }

    fn text(&self, parameter: &str) -> Result<Option<&str>, Fault> {
        match self.get(parameter) {
            Some(value) => match value.as_text() {
                Some(text) => Ok(Some(text)),
                None => Err(unfit(parameter, "a text", value)),
            },
            None => Ok(None),
        }
    }

    fn needed_text(&self, parameter: &str) -> Result<&str, Fault> {
        self.needed(parameter)?;
        Ok(self.text(parameter)?.unwrap_or_default())
    }

    fn integer(&self, parameter: &str) -> Result<Option<i64>, Fault> {
        match self.get(parameter) {
            Some(value) => {
                let whole = Number::strictly_of(value).and_then(Number::whole);
                match whole.and_then(|whole| i64::try_from(whole).ok()) {
                    Some(integer) => Ok(Some(integer)),
                    None => Err(unfit(parameter, "an integer", value)),
                }
            }
            None => Ok(None),
        }
    }

    fn flag(&self, parameter: &str) -> bool {
        self.get(parameter).is_some_and(Data::is_true)
    }
}

fn unfit(parameter: &str, needed: &str, value: &Data) -> Fault {
    Fault::refused(format!("`{parameter}` needs to be {needed}, not {}", value.kind()))
}

fn unsuitable(needed: &str, value: &Data) -> Fault {
    Fault::refused(format!("it needs {needed}, not {}", value.kind()))
}

/// Writes a value as it stands in a text.
pub(super) fn write(value: &Data, text: &mut Text, meter: &mut Meter) -> Result<(), Fault> {
    if value.size().bytes > 4 * MAX_TEXT_BYTES {
        return Err(Fault::long_text());
    }
    meter.work(value.size().bytes)?;
    value.write(text).map_err(|fmt::Error| Fault::long_text())
}

/// A value as it stands in a text: a text of at most 1 MiB as it is, everything else as JSON.
fn shown<'d>(value: &'d Data, meter: &mut Meter) -> Result<Cow<'d, str>, Fault> {
    match value.as_text() {
        Some(text) if text.len() > MAX_TEXT_BYTES => Err(Fault::refused("the text is over 1 MiB")),
        Some(text) => {
            meter.work(text.len())?;
            Ok(Cow::Borrowed(text))
        }
        None => {
            let mut text = Text::default();
            write(value, &mut text, meter)?;
            let text = text.finish(meter)?;
            Ok(Cow::Owned(text.as_text().unwrap_or_default().to_owned()))
        }
    }
}

/// A text of at most 1 MiB.
fn text<'d>(value: &'d Data, meter: &mut Meter) -> Result<&'d str, Fault> {
    match value.as_text() {
        Some(text) if text.len() > MAX_TEXT_BYTES => Err(Fault::refused("the text is over 1 MiB")),
        Some(text) => {
            meter.work(text.len())?;
            Ok(text)
        }
        None => Err(unsuitable("a text", value)),
    }
}

/// `default`, which alone takes a value that is missing.
pub(super) fn default(value: Outcome, arguments: &Arguments) -> Result<Outcome, Fault> {
    match value {
        Outcome::Value(value) if value.is_true() || !arguments.flag("boolean") => Ok(Outcome::Value(value)),
        Outcome::Value(_) | Outcome::Missing(_) => Ok(Outcome::Value(arguments.needed("value")?.clone())),
    }
}

fn default_of_value(value: &Data, arguments: &Arguments, _: &mut Meter) -> Result<Outcome, Fault> {
    default(Outcome::Value(value.clone()), arguments)
}

fn jmespath(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    query::search(arguments.needed_text("query")?, value, meter).map(Outcome::Value)
}
