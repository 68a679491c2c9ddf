//! Filters with regular expressions. Matching takes time proportional to the text's length times the pattern's size,
//! so both are bounded together.

use regex::{Captures, Regex, RegexBuilder};

use super::{Arguments, text};
use crate::expression::data::Data;
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, List, Meter, Text};

/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// How large a compiled pattern may be, and how long the text that it is used on, both in bytes: the larger the one,
/// the smaller the other.
const BOUNDS: [(usize, usize); 3] = [(512 * 1024, 16 * 1024), (128 * 1024, 64 * 1024), (16 * 1024, 512 * 1024)];
/// What a use may cost: a byte of text costs as many units as the pattern's bound has kilobytes.
const PER_BYTE: usize = 1_024;
/// What finding a match takes beyond the text.
const MATCH_WORK: usize = 64;

fn compile(pattern: &str, size: usize) -> Result<Regex, Fault> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(Fault::refused(format!("a pattern may have at most {MAX_PATTERN_BYTES} bytes")));
    }
    RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(1024 * 1024).nest_limit(50).build().map_err(|error| {
        Fault::refused(match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large; repeat less in it".to_owned(),
            other => format!("the pattern can't be used: {}", other.to_string().replace('\n', " ")),
        })
    })
}

/// Checks a pattern that stands in a definition.
pub(super) fn check(pattern: &str) -> Result<(), Fault> {
    compile(pattern, BOUNDS[0].0).map(drop)
}

fn prepare(arguments: &Arguments, text: &str, meter: &mut Meter) -> Result<Regex, Fault> {
    let Some((size, _)) = BOUNDS.iter().find(|(_, longest)| text.len() <= *longest) else {
        return Err(Fault::refused(format!("the text is over {} KB; split it before", BOUNDS[2].1 / 1024)));
    };
    // Compiling costs about as much as its result is large.
    meter.work(size / 4 + (text.len() + 1) * (size / PER_BYTE))?;
    let pattern = arguments.needed_text("pattern")?;
    compile(pattern, *size).map_err(|fault| match fault {
        Fault::Refused(reason) => {
            Fault::refused(format!("{reason} (on a text of this length a pattern may take {} KB)", size / 1024))
        }
        missing @ Fault::Missing(_) => missing,
    })
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
