//! The environment that `template.yaml` gives a function; read here and nowhere else.

use std::str::FromStr;

/// A setting that is missing or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The variable is not there.
    #[error("the environment variable {0} is not set; template.yaml sets it for the functions that need it")]
    Missing(&'static str),
    /// The variable holds something else than it should.
    #[error("the environment variable {name} is {value:?}: {reason}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        reason: String,
    },
}

/// A setting, if it is there and not empty.
pub(crate) fn optional(name: &'static str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads settings on Lambda")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A setting that must be there.
pub(crate) fn required(name: &'static str) -> Result<String, SettingError> {
    optional(name).ok_or(SettingError::Missing(name))
}

/// A setting of another type than text, which must be there.
pub(crate) fn parsed<T: FromStr<Err: ToString>>(name: &'static str) -> Result<T, SettingError> {
    optional_parsed(name)?.ok_or(SettingError::Missing(name))
}

/// A setting of another type than text, if it is there and not empty.
pub(crate) fn optional_parsed<T: FromStr<Err: ToString>>(name: &'static str) -> Result<Option<T>, SettingError> {
    let Some(value) = optional(name) else { return Ok(None) };
    let parsed = value.parse();
    parsed.map(Some).map_err(|error: T::Err| SettingError::Invalid { name, reason: error.to_string(), value })
}
