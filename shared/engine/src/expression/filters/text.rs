//! Filters on texts.

use super::{Arguments, shown, text as text_of};
use crate::expression::data::Data;
use crate::expression::evaluate::Outcome;
use crate::expression::meter::{Fault, Meter, Text};

pub(super) fn upper(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    each(value, meter, |character, out| character.to_uppercase().try_for_each(|upper| out.push_char(upper)))
}

pub(super) fn lower(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    // As a whole, because a sigma at a word's end is another letter. Three bytes become at most five.
    meter.take(text.len() * 2)?;
    Ok(meter.text(text.to_lowercase())?.into())
}

pub(super) fn capitalize(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let mut first = true;
    each(value, meter, |character, out| recase(character, std::mem::take(&mut first), out))
}

pub(super) fn title(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let mut first = true;
    each(value, meter, |character, out| {
        recase(character, first, out)?;
        first = !character.is_alphanumeric() && character != '\'';
        Ok(())
    })
}

pub(super) fn trim(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    Ok(meter.text(text.trim())?.into())
}

pub(super) fn string(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    Ok(meter.text(&*text)?.into())
}

pub(super) fn slugify(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let mut gap = false;
    let mut any = false;
    each(value, meter, |character, out| {
        if !character.is_alphanumeric() {
            gap = any;
            return Ok(());
        }
        if std::mem::take(&mut gap) {
            out.push_char('-')?;
        }
        any = true;
        character.to_lowercase().try_for_each(|lower| out.push_char(lower))
    })
}

pub(super) fn replace(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text_of(value, meter)?;
    let (from, to) = (arguments.needed_text("from")?, arguments.needed_text("to")?);
    let mut out = Text::default();
    let mut done = 0;
    for (at, found) in text.match_indices(from) {
        meter.work(8)?;
        out.push(&text[done..at])?;
        out.push(to)?;
        done = at + found.len();
    }
    out.push(&text[done..])?;
    Ok(out.finish(meter)?.into())
}

pub(super) fn truncate(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    let end = arguments.text("end")?.unwrap_or("...");
    let length = usize::try_from(arguments.integer("length")?.unwrap_or(0))
        .map_err(|_| Fault::refused("`length` can't be negative"))?;
    if text.chars().count() <= length {
        return Ok(meter.text(&*text)?.into());
    }
    meter.work(end.len())?;
    let kept = length.saturating_sub(end.chars().count());
    let mut out = Text::default();
    text.chars().take(kept).chain(end.chars().take(length)).try_for_each(|character| out.push_char(character))?;
    Ok(out.finish(meter)?.into())
}

pub(super) fn split(value: &Data, arguments: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text_of(value, meter)?;
    let most = match arguments.integer("limit")? {
        Some(limit) => usize::try_from(limit).map_err(|_| Fault::refused("`limit` can't be negative"))?,
        None => usize::MAX - 1,
    };
    let pieces: Box<dyn Iterator<Item = &str>> = match arguments.text("separator")? {
        None => Box::new(text.split_whitespace()),
        Some("") => Box::new(text.split("").filter(|piece| !piece.is_empty())),
        Some(separator) => Box::new(text.splitn(most + 1, separator)),
    };
    pieces_of(pieces, meter)
}

pub(super) fn lines(value: &Data, _: &Arguments, meter: &mut Meter) -> Result<Outcome, Fault> {
    let text = text_of(value, meter)?;
    pieces_of(text.lines(), meter)
}

fn pieces_of<'t>(pieces: impl Iterator<Item = &'t str>, meter: &mut Meter) -> Result<Outcome, Fault> {
    let mut list = crate::expression::meter::List::new(meter)?;
    for piece in pieces {
        let piece = meter.text(piece)?;
        list.push(meter, piece)?;
    }
    Ok(list.finish().into())
}

fn each(
    value: &Data,
    meter: &mut Meter,
    mut change: impl FnMut(char, &mut Text) -> Result<(), Fault>,
) -> Result<Outcome, Fault> {
    let text = shown(value, meter)?;
    let mut out = Text::default();
    text.chars().try_for_each(|character| change(character, &mut out))?;
    Ok(out.finish(meter)?.into())
}

fn recase(character: char, upper: bool, out: &mut Text) -> Result<(), Fault> {
    if upper {
        character.to_uppercase().try_for_each(|upper| out.push_char(upper))
    } else {
        character.to_lowercase().try_for_each(|lower| out.push_char(lower))
    }
}
