//! Filters with regular expressions. Matching takes time proportional to the text's length times the pattern's size,
//! so both are bounded together.

use regex::{Captures, Regex, RegexBuilder};

use super::{Arguments, text};
use crate::expression::MAX_TEXT_BYTES;
use crate::expression::data::Data;
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, List, Meter, Text};

/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// How large a compiled pattern may be, in bytes. `\w` alone takes over 32 KB, because it knows all alphabets.
const SIZES: [usize; 10] = {
    let mut sizes = [8 * 1024; 10];
    let mut index = 1;
    while index < sizes.len() {
        sizes[index] = sizes[index - 1] * 2;
        index += 1;
    }
    sizes
};
/// What a compiled pattern's size times the text's length may be: 8 KB on a text of 1 MiB, 4 MB on one of 2 KB.
const MAX_PRODUCT: usize = 8 * 1024 * MAX_TEXT_BYTES;
/// A byte of text costs a unit for so many bytes of the pattern: the slowest of regex's engines visits each of its
/// states at each byte.
const PER_UNIT: usize = 128;
/// What a byte of a compiled pattern costs.
const COMPILE_WORK: usize = 2;
/// What finding a match takes beyond the text.
const MATCH_WORK: usize = 64;

/// A pattern of at most so many bytes once it is compiled; none where it would be larger.
fn compile(pattern: &str, size: usize) -> Result<Option<Regex>, Fault> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(Fault::refused(format!("a pattern may have at most {MAX_PATTERN_BYTES} bytes")));
    }
    let mut builder = RegexBuilder::new(pattern);
    match builder.size_limit(size).dfa_size_limit(1024 * 1024).nest_limit(50).build() {
        Ok(pattern) => Ok(Some(pattern)),
        Err(regex::Error::CompiledTooBig(_)) => Ok(None),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(Fault::refused(format!("the pattern can't be used: {reason}")))
        }
    }
}

/// Checks a pattern that stands in a definition.
pub(super) fn check(pattern: &str) -> Result<(), Fault> {
    let [.., largest] = SIZES;
    compile(pattern, largest)?.map(drop).ok_or_else(|| Fault::refused("the pattern is too large; repeat less in it"))
}

fn prepare(arguments: &Arguments, text: &str, meter: &mut Meter) -> Result<Regex, Fault> {
    let pattern = arguments.needed_text("pattern")?;
    for size in SIZES {
        if text.len() * size > MAX_PRODUCT {
            break;
        }
        meter.work(size * COMPILE_WORK)?;
        if let Some(pattern) = compile(pattern, size)? {
            meter.work((text.len() + 1) * (size / PER_UNIT))?;
            return Ok(pattern);
        }
    }
    Err(Fault::refused(format!(
        "the pattern is too large for a text of {} bytes; repeat less in it, use [a-z0-9_] instead of \\w, or cut the text",
        text.len()
    )))
}

fn group(arguments: &Arguments, pattern: &Regex) -> Result<usize, Fault> {
    let group = arguments.integer("group")?.unwrap_or(0);
    usize::try_from(group).ok().filter(|group| *group < pattern.captures_len()).ok_or_else(|| {
        Fault::refused(format!("the pattern has groups 0 to {}, not {group}", pattern.captures_len() - 1))
    })
}

pub(super) fn matches(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    let pattern = prepare(arguments, text, meter)?;
    Ok(Data::from(pattern.is_match(text)).into())
}

pub(super) fn find(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    let pattern = prepare(arguments, text, meter)?;
    let group = group(arguments, &pattern)?;
    match pattern.captures(text).and_then(|captures| captures.get(group)) {
        Some(found) => Ok(meter.text(found.as_str())?.into()),
        None => Ok(Outcome::Missing("what the pattern looks for".to_owned())),
    }
}

pub(super) fn find_all(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    let pattern = prepare(arguments, text, meter)?;
    let group = group(arguments, &pattern)?;
    let mut list = List::new(meter)?;
    for captures in pattern.captures_iter(text) {
        meter.work(MATCH_WORK)?;
        if let Some(found) = captures.get(group) {
            let found = meter.text(found.as_str())?;
            list.push(meter, found)?;
        }
    }
    Ok(list.finish().into())
}

pub(super) fn replace(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text(value, meter)?;
    let pattern = prepare(arguments, text, meter)?;
    let replacement = arguments.needed_text("replacement")?;
    let mut out = Text::default();
    let mut done = 0;
    for captures in pattern.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        meter.work(MATCH_WORK + replacement.len())?;
        out.push(&text[done..whole.start()])?;
        expand(replacement, &captures, &mut out)?;
        done = whole.end();
    }
    out.push(&text[done..])?;
    Ok(out.finish(meter)?.into())
}

/// Writes a replacement: `$1` and `${name}` are groups, `$$` is `$`.
fn expand(replacement: &str, captures: &Captures<'_>, out: &mut Text) -> Result<(), Fault> {
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at])?;
        let behind = &rest[at + 1..];
        if let Some(behind) = behind.strip_prefix('$') {
            out.push("$")?;
            rest = behind;
            continue;
        }
        let (name, behind) = match behind.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = behind.find(|character: char| !character.is_ascii_digit()).unwrap_or(behind.len());
                behind.split_at(end)
            }
        };
        if name.is_empty() {
            out.push("$")?;
        } else {
            let found = name.parse().map_or_else(|_| captures.name(name), |index| captures.get(index));
            out.push(found.map_or("", |found| found.as_str()))?;
        }
        rest = behind;
    }
    out.push(rest)
}
