//! Which lines are written: a level for everything and one for each component that needs another.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The prefix of our packages; a component is named without it.
pub(crate) const PACKAGE_PREFIX: &str = "tidegate_";

/// Levels by component, read from text such as `info,worker=debug,store::runs=trace`: a bare level is for everything
/// that isn't named, `off` silences, the longest matching name wins. Unnamed and without a bare level means `info`.
#[derive(Debug, Clone)]
pub struct Filter(pub(crate) Targets);

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "log filter: {directive:?} is neither a level (off, error, warn, info, debug, trace) nor of the form component=level"
)]
pub struct FilterError {
    directive: String,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let error = || FilterError { directive: directive.to_owned() };
            let level = |text: &str| text.trim().parse::<LevelFilter>().map_err(|_| error());
            targets = match directive.split_once('=') {
                None => targets.with_default(level(directive)?),
                Some((component, text)) => {
                    let component = component.trim();
                    if component.is_empty() {
                        return Err(error());
                    }
                    let level = level(text)?;
                    targets.with_target(component, level).with_target(format!("{PACKAGE_PREFIX}{component}"), level)
                }
            };
        }
        Ok(Self(targets))
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_component_is_named_with_or_without_the_package_prefix() {
        let filter: Filter = "warn, worker=debug,store::runs=trace,hyper=off".parse().unwrap();
        let enabled = |target: &str, level: Level| filter.0.would_enable(target, &level);
        assert!(enabled("tidegate_worker::claim", Level::DEBUG) && !enabled("tidegate_worker", Level::TRACE));
        assert!(enabled("worker", Level::DEBUG));
        assert!(enabled("tidegate_store::runs", Level::TRACE) && !enabled("tidegate_store::accounts", Level::INFO));
        assert!(!enabled("hyper::proto", Level::ERROR));
    }

    #[test]
    fn an_empty_filter_is_info() {
        let filter: Filter = "".parse().unwrap();
        assert!(filter.0.would_enable("any", &Level::INFO) && !filter.0.would_enable("any", &Level::DEBUG));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in ["loud", "worker=loud", "=debug", "worker=debug=info"] {
            let error = format!("info,{bad}").parse::<Filter>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}
