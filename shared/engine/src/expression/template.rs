//! Where the expressions stand in a text.

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// As it is.
    Text(&'a str),
    /// What stands in braces.
    Expression(&'a str),
}

/// Whether a text holds an expression.
pub fn contains_template(text: &str) -> bool {
    text.contains("{{")
}

/// Splits a text at its expressions. Braces and quotes inside an expression nest as they do in the language, so that
/// `{{ {"a": "}}"} }}` is one expression.
///
/// # Errors
/// Braces aren't closed.
pub fn split(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        if start > 0 {
            parts.push(Part::Text(&rest[..start]));
        }
        let inside = &rest[start + 2..];
        let end = expression_end(inside)
            .ok_or_else(|| format!("`{{{{` without its `}}}}`, at {:?}", clip(&rest[start..], 40)))?;
        parts.push(Part::Expression(&inside[..end]));
        rest = &inside[end + 2..];
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

/// An expression on its own, which may stand in braces.
pub(super) fn bare(source: &str) -> Result<&str, String> {
    if !source.trim_start().starts_with("{{") {
        return Ok(source);
    }
    match split(source.trim())?[..] {
        [Part::Expression(inside)] => Ok(inside),
        _ => Err(format!("{:?} is more than one expression; leave out the braces", clip(source, 40))),
    }
}

fn expression_end(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let mut depth = 0_usize;
    let mut quote = None;
    let mut index = 0;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (Some(_), b'\\') => index += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(index + 1) == Some(&b'}') => return Some(index),
            (None, _) => {}
        }
        index += 1;
    }
    None
}

pub(super) fn clip(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}
