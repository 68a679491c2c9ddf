//! A header that there has to be once: with two of them a proxy and we could each believe another.

use http::{HeaderMap, HeaderName};

/// A header as it was found.
pub(crate) enum Found<'a> {
    Missing,
    Unreadable(&'static str),
    Text(&'a str),
}

pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Found::Missing,
        (Some(_), Some(_)) => Found::Unreadable("there is more than one"),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Found::Text(text),
            Err(_) => Found::Unreadable("it has characters beyond ASCII"),
        },
    }
}
