//! Where a document's requests go.

use serde_json::Value;
use url::Url;

use super::reader::Reader;
use super::schema::list;
use super::text::clip;

/// How many servers are tried, and how many variables filled in.
const MAX_SERVERS: usize = 10;
const MAX_VARIABLES: usize = 20;
/// The longest address, in characters.
const MAX_URL: usize = 1_000;

/// A server's address.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Without a slash at its end.
    pub(super) url: String,
    /// `host` or `host:port`.
    pub(super) host: String,
    parsed: Url,
}

impl Server {
    /// Takes an absolute address, or one relative to another server. It is `https` unless it names a port.
    ///
    /// # Errors
    /// Why it can't be one, as what is said of it.
    pub(super) fn parse(text: &str, base: Option<&Server>) -> Result<Self, &'static str> {
        let mut parsed = match (Url::parse(text), base) {
            (Ok(parsed), _) => parsed,
            (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => {
                base.parsed.join(text).map_err(|_| "is no URL")?
            }
            (Err(url::ParseError::RelativeUrlWithoutBase), None) => return Err("is relative"),
            (Err(_), _) => return Err("is no URL"),
        };
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err("doesn't begin with https://");
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("holds a user name or password; they belong into a connection");
        }
        parsed.set_query(None);
        parsed.set_fragment(None);
        let host = parsed.host_str().ok_or("has no host")?.to_owned();
        if !host.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.:[]".contains(letter)) {
            return Err("has a host that is no name, or holds a variable or wildcard");
        }
        // A scheme's own port is dropped when a URL is parsed, but here it says that the scheme is meant.
        let is_80 =
            text.strip_prefix("http://").is_some_and(|rest| rest.split('/').next() == Some(&format!("{host}:80")));
        let (scheme, host) = match (parsed.scheme(), parsed.port()) {
            ("http", None) if is_80 => ("http", format!("{host}:80")),
            (scheme, Some(port)) => (scheme, format!("{host}:{port}")),
            (_, None) => ("https", host),
        };
        let url = format!("{scheme}://{host}{}", parsed.path().trim_end_matches('/')).replace('{', "%7B");
        Ok(Self { url, host, parsed })
    }

    /// An address that a document names, absolute or relative to the server.
    pub(super) fn link(&self, text: &str) -> Option<String> {
        let link = Url::parse(text).or_else(|_| self.parsed.join(text)).ok()?;
        (text.len() <= MAX_URL && matches!(link.scheme(), "http" | "https")).then(|| link.as_str().replace('{', "%7B"))
    }
}

impl<'d> Reader<'d> {
    /// The first of a list of servers that can be one, with its variables' defaults filled in; none where there is no
    /// list.
    ///
    /// # Errors
    /// What is wrong with the first.
    pub(super) fn server(
        &mut self,
        servers: Option<&'d Value>,
        base: Option<&Server>,
    ) -> Result<Option<Server>, String> {
        let mut parsed = list(servers).iter().take(MAX_SERVERS).map(|server| {
            let text = filled(server);
            let parsed = Server::parse(&text, base).map_err(|what| format!("{:?} {what}", clip(&text, 100)));
            parsed.map(|parsed| (parsed, server, text))
        });
        let Some(first) = parsed.next() else { return Ok(None) };
        let (server, named, text) = first.or_else(|error| parsed.find_map(Result::ok).ok_or(error))?;
        if named["variables"].as_object().is_some_and(|variables| !variables.is_empty()) {
            self.note(format!("the server is {:?}, as by default; for another, give the option `server`", server.url));
        }
        if text.starts_with("http://") && server.url.starts_with("https://") {
            self.note(format!("{text:?} became {:?}; plain HTTP is only for servers that name a port", server.url));
        }
        Ok(Some(server))
    }
}

/// A server's address with its variables' defaults filled in.
fn filled(server: &Value) -> String {
    let mut text = clip(server["url"].as_str().unwrap_or_default(), MAX_URL);
    for (name, variable) in server["variables"].as_object().into_iter().flatten().take(MAX_VARIABLES) {
        let filled = text.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default());
        text = clip(&filled, MAX_URL);
    }
    text
}
