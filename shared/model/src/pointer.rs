//! JSON pointers (RFC 6901) and the errors that name a field by one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in a JSON document something is: `/steps/0/uses`. Empty for the document itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pointer(String);

impl Pointer {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The pointer to a member or element below this one; `~` and `/` in the name are escaped.
    #[must_use]
    pub fn push(&self, token: impl fmt::Display) -> Self {
        let token = token.to_string().replace('~', "~0").replace('/', "~1");
        Self(format!("{}/{token}", self.0))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Pointer {
    /// Takes a pointer that is already in its text form.
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with one field of a document, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer to the field.
    #[schema(value_type = String, examples("/steps/0/uses"))]
    pub pointer: Pointer,
    /// What is wrong, for a person.
    pub detail: String,
}

impl FieldError {
    /// An error at a place.
    pub fn new(pointer: Pointer, detail: impl Into<String>) -> Self {
        Self { pointer, detail: detail.into() }
    }
}
