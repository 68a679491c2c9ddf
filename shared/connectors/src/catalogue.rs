//! The connectors that are built in: the manifests in `manifests/`, read when they are first asked for.

use std::sync::{Arc, LazyLock, OnceLock};

use include_dir::{Dir, File, include_dir};
use tidegate_model::Publisher;

use crate::check::read_builtin;
use crate::{Action, Connector};

static MANIFESTS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/manifests");

/// A manifest, and what it is once it was read.
struct BuiltIn {
    /// The file's name, which is the connector's.
    name: &'static str,
    text: &'static str,
    ready: OnceLock<Arc<Connector>>,
}

/// Sorted by name.
static CONNECTORS: LazyLock<Vec<BuiltIn>> = LazyLock::new(|| {
    let built_in = |file: &'static File<'static>| {
        let name = file.path().file_stem()?.to_str()?;
        Some(BuiltIn { name, text: file.contents_utf8()?, ready: OnceLock::new() })
    };
    let mut connectors: Vec<_> = MANIFESTS.files().filter_map(built_in).collect();
    connectors.sort_by_key(|connector| connector.name);
    connectors
});

/// The names of the connectors that are built in, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|connector| connector.name)
}

/// The manifest of a built-in connector, as it is written.
pub fn source(name: &str) -> Option<&'static str> {
    CONNECTORS.iter().find(|connector| connector.name == name).map(|connector| connector.text)
}

/// The built-in connector of this name.
pub fn connector(name: &str) -> Option<&'static Arc<Connector>> {
    let index = CONNECTORS.binary_search_by_key(&name, |connector| connector.name).ok()?;
    let BuiltIn { text, ready, .. } = &CONNECTORS[index];
    #[expect(clippy::panic, reason = "a test reads every manifest that is built in")]
    Some(ready.get_or_init(|| match read_builtin(text) {
        Ok(manifest) => Arc::new(Connector::new(manifest, Publisher::Builtin, 1)),
        Err(errors) => panic!("the manifest of {name} can't be used: {errors:?}"),
    }))
}

/// Every built-in connector.
pub fn connectors() -> impl Iterator<Item = &'static Arc<Connector>> {
    names().filter_map(connector)
}

/// The action of a built-in connector, such as `slack.send_message`.
pub fn action(uses: &str) -> Option<&'static Arc<Action>> {
    let (name, action) = uses.split_once('.')?;
    connector(name)?.actions.get(action)
}
