//! Where a redirect leads, and what goes along. Credentials never do.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, LOCATION};
use url::Url;

use crate::EgressError;
use crate::headers::keep_anonymous;

/// How many redirects one call follows.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// The URL that a response redirects to; `None` where it isn't a redirect that can be followed.
pub(crate) fn target(from: &Url, status: u16, headers: &HeaderMap) -> Result<Option<Url>, EgressError> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let refused = |reason| EgressError::Redirect { host: from.host_str().unwrap_or_default().to_owned(), reason };
    let location = location.to_str().map_err(|_| refused("to what is not a URL"))?;
    let to = from.join(location).map_err(|_| refused("to what is not a URL"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(to)),
        ("https", "http") => Err(refused("from https to http, which is not followed")),
        _ => Err(refused("to a scheme other than http and https")),
    }
}

/// Takes out of the headers what must not follow a redirect: the connection's secret always, and to another origin all
/// that says who asks.
pub(crate) fn trim(headers: &mut HeaderMap, secrets: &[http::HeaderName], from: &Url, to: &Url) {
    for name in secrets {
        headers.remove(name);
    }
    if from.origin() != to.origin() {
        headers.remove(AUTHORIZATION);
        headers.remove(COOKIE);
        keep_anonymous(headers);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn leads(from: &str, status: u16, location: &str) -> Result<Option<String>, String> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_bytes(location.as_bytes()).unwrap())]);
        match target(&Url::parse(from).unwrap(), status, &headers) {
            Ok(to) => Ok(to.map(String::from)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn leads_where_it_says_but_never_from_https_to_http() {
        let ok = |url: &str| Ok(Some(url.to_owned()));
        for status in [301, 302, 303, 307, 308] {
            assert_eq!(leads("https://a.test/x/y?q", status, "z"), ok("https://a.test/x/z"));
        }
        assert_eq!(leads("https://a.test/x", 302, "//b.test/"), ok("https://b.test/"));
        assert_eq!(leads("http://a.test/x", 302, "https://a.test/x"), ok("https://a.test/x"));
        assert_eq!(leads("http://a.test/x", 302, "http://b.test"), ok("http://b.test/"));
        assert_eq!(leads("https://a.test/x", 302, "HTTPS://b.test"), ok("https://b.test/"));
        for status in [200, 201, 300, 304, 305, 306, 404] {
            assert_eq!(leads("https://a.test/x", status, "z"), Ok(None));
        }
        let refused = |reason: &str| Err(format!("a.test redirects {reason}"));
        let downgrade = "from https to http, which is not followed";
        assert_eq!(leads("https://a.test/", 302, "http://a.test/"), refused(downgrade));
        for scheme in ["file:///etc/passwd", "ftp://a.test/", "gopher://a.test/", "data:,x", "javascript:1", "ws://a/"]
        {
            assert_eq!(leads("http://a.test/", 302, scheme), refused("to a scheme other than http and https"));
        }
        assert_eq!(leads("http://a.test/", 302, "http://[::1"), refused("to what is not a URL"));
        assert_eq!(leads("http://a.test/", 302, "http://ä.test/"), refused("to what is not a URL"));
    }

    #[test]
    fn what_says_who_asks_stays_behind() {
        let secret = HeaderName::from_static("x-secret");
        let all = [
            "accept",
            "accept-language",
            "authorization",
            "cookie",
            "idempotency-key",
            "traceparent",
            "user-agent",
            "x-api-key",
            "x-secret",
        ];
        let kept = |from: &str, to: &str| {
            let mut headers: HeaderMap =
                all.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v"))).collect();
            trim(&mut headers, std::slice::from_ref(&secret), &Url::parse(from).unwrap(), &Url::parse(to).unwrap());
            let mut kept: Vec<String> = headers.keys().map(ToString::to_string).collect();
            kept.sort();
            kept
        };
        assert_eq!(kept("https://a.test/1", "https://a.test:443/2"), all[..8]);
        for to in ["https://b.test/", "https://sub.a.test/", "https://a.test:8443/", "http://a.test/"] {
            assert_eq!(kept("https://a.test/", to), ["accept", "accept-language", "traceparent", "user-agent"], "{to}");
        }
    }
}
