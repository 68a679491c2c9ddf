//! Where a document's requests go.

use serde_json::Value;
use url::Url;

use super::reader::Reader;
use super::schema::list;

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

    /// An address of this server's vendor that a document names, absolute or relative to the server.
    pub(super) fn link(&self, text: &str) -> Option<String> {
        let link = Url::parse(text).or_else(|_| self.parsed.join(text)).ok()?;
        (link.scheme() == "https" || link.port().is_some()).then(|| link.as_str().replace('{', "%7B"))
    }
}

impl<'d> Reader<'d> {
    /// The first of a list of servers with its variables' defaults filled in; none where there is no list.
    ///
    /// # Errors
    /// Its place in the list and what is wrong with it.
    pub(super) fn server(
        &mut self,
        servers: Option<&'d Value>,
        base: Option<&Server>,
    ) -> Result<Option<Server>, String> {
        let Some(server) = list(servers).first() else { return Ok(None) };
        let mut text = server["url"].as_str().unwrap_or_default().to_owned();
        for (name, variable) in server["variables"].as_object().into_iter().flatten() {
            let default = variable["default"].as_str().unwrap_or_default();
            let placeholder = format!("{{{name}}}");
            if text.len() <= 2_000 && text.contains(&placeholder) {
                text = text.replace(&placeholder, default);
                self.note(format!(
                    "the server's variable {name:?} is its default {default:?}; for another, give the option `server`"
                ));
            }
        }
        let server = Server::parse(&text, base).map_err(|what| format!("{text:?} {what}"))?;
        if text.starts_with("http://") && server.url.starts_with("https://") {
            self.note(format!("{text:?} became {:?}; plain HTTP is only for servers that name a port", server.url));
        }
        Ok(Some(server))
    }
}
