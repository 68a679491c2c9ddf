//! One call, from the action's request to the response.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method};
use reqwest::redirect::Policy;
use url::{Host, Url};

use crate::headers::outgoing;
use crate::redirect::{self, MAX_REDIRECTS};
use crate::resolver::{Connector, GuardedResolver};
use crate::secret::{Injected, Masks, Secret, check_host};
use crate::{Credential, Effect, Egress, EgressError, OutboundRequest, OutboundResponse};

/// A request ready to go: checked, and with the secret in it.
struct Prepared {
    url: Url,
    headers: HeaderMap,
    /// The headers that hold the secret.
    secrets: Vec<HeaderName>,
    masks: Masks,
}

impl Egress {
    /// Makes a call and returns the response, whatever its status. Dropping the future drops the call.
    ///
    /// # Errors
    /// [`EgressError`]; [`EgressError::is_retryable`] and [`EgressError::may_have_arrived`] sort them.
    pub async fn send(
        &self,
        request: OutboundRequest,
        credential: Option<Credential<'_>>,
    ) -> Result<OutboundResponse, EgressError> {
        self.send_up_to(request, credential, self.shared.settings.max_response_bytes).await
    }

    /// The same for a body that is made of files and may be larger.
    ///
    /// # Errors
    /// As [`Egress::send`].
    pub async fn send_files(
        &self,
        request: OutboundRequest,
        credential: Option<Credential<'_>>,
    ) -> Result<OutboundResponse, EgressError> {
        let settings = &self.shared.settings;
        self.send_within(request, credential, settings.max_file_request_bytes, settings.max_response_bytes).await
    }

    /// The same with a bound of its own on the response's body, in bytes: for the few that are known to be large.
    ///
    /// # Errors
    /// As [`Egress::send`].
    pub async fn send_up_to(
        &self,
        request: OutboundRequest,
        credential: Option<Credential<'_>>,
        max_response_bytes: usize,
    ) -> Result<OutboundResponse, EgressError> {
        self.send_within(request, credential, self.shared.settings.max_request_bytes, max_response_bytes).await
    }

    async fn send_within(
        &self,
        request: OutboundRequest,
        credential: Option<Credential<'_>>,
        limit: usize,
        max_response_bytes: usize,
    ) -> Result<OutboundResponse, EgressError> {
        if request.body.as_ref().is_some_and(|body| body.len() > limit) {
            return Err(EgressError::RequestTooLarge { limit });
        }
        let timeout = request.timeout;
        let called = tokio::time::timeout(timeout, self.call(request, credential, max_response_bytes)).await;
        called.unwrap_or(Err(EgressError::Timeout(timeout)))
    }

    async fn call(
        &self,
        mut request: OutboundRequest,
        credential: Option<Credential<'_>>,
        max_response_bytes: usize,
    ) -> Result<OutboundResponse, EgressError> {
        let headers = outgoing(&mut request)?;
        let Prepared { mut url, mut headers, secrets, masks } = self.prepare(&request, headers, credential).await?;
        let may_follow = request.effect == Effect::Read && matches!(request.method, Method::GET | Method::HEAD);

        let mut redirects = 0;
        loop {
            let response = self.exchange(&request, &url, headers.clone()).await?;
            let next = match may_follow {
                true => redirect::target(&url, response.status().as_u16(), response.headers())?,
                false => None,
            };
            let Some(next) = next else {
                check_readable(&url, &response, credential.is_some())?;
                let mut response = self.receive(&url, response, max_response_bytes).await?;
                masks.hide_in_headers(&mut response.headers);
                response.body = masks.hide_in_body(response.body);
                return Ok(response);
            };
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                let reason = "more than five times, which is not followed";
                return Err(EgressError::Redirect { host: host_of(&url), reason });
            }
            self.check_url(&next)?;
            redirect::trim(&mut headers, &secrets, &url, &next);
            if url.origin() != next.origin() {
                request.body = None;
            }
            url = next;
        }
    }

    /// Checks the URL, and opens the secret only for a host that it may go to.
    async fn prepare(
        &self,
        request: &OutboundRequest,
        mut headers: HeaderMap,
        credential: Option<Credential<'_>>,
    ) -> Result<Prepared, EgressError> {
        if credential.is_some() && headers.contains_key(http::header::RANGE) {
            // Pieces of an echoed secret couldn't be told for what they are.
            let reason = "it has a Range header, which a call with a connection can't; remove it";
            return Err(EgressError::InvalidRequest(reason.to_owned()));
        }
        let Some(credential) = credential else {
            return Ok(Prepared { url: self.parse(&request.url)?, headers, secrets: Vec::new(), masks: Masks::none() });
        };
        let envelope = &self.shared.envelope;
        if credential.connection.placement.url.is_some() {
            let Injected { url, masks, .. } = Secret::open(envelope, credential).await?.inject()?;
            let url = self.parse(url.as_deref().map_or("", |url| url.as_str()))?;
            check_host(&credential, &url, true)?;
            return Ok(Prepared { url, headers, secrets: Vec::new(), masks });
        }
        let mut url = self.parse(&request.url)?;
        check_host(&credential, &url, false)?;
        if credential.connection.placement.is_empty() {
            return Ok(Prepared { url, headers, secrets: Vec::new(), masks: Masks::none() });
        }
        let injected = Secret::open(envelope, credential).await?.inject()?;
        let mut secrets = Vec::new();
        for (name, value) in injected.headers {
            secrets.push(name.clone());
            headers.insert(name, value);
        }
        if !injected.query.is_empty() {
            url.query_pairs_mut().extend_pairs(injected.query.iter().map(|(name, value)| (name, value.as_str())));
        }
        Ok(Prepared { url, headers, secrets, masks: injected.masks })
    }

    fn parse(&self, url: &str) -> Result<Url, EgressError> {
        let url = Url::parse(url).map_err(|_| EgressError::InvalidUrl("it is not an absolute URL"))?;
        self.check_url(&url)?;
        Ok(url)
    }

    /// Refuses a URL that may not be called. The connector resolves names through the guard but connects to literal
    /// addresses straight away, so these are checked here.
    fn check_url(&self, url: &Url) -> Result<(), EgressError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::InvalidUrl("it must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::InvalidUrl("it has a user name or password; use a connection for these"));
        }
        let address: IpAddr = match url.host() {
            None => return Err(EgressError::InvalidUrl("it names no host")),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
        };
        self.checked(&host_of(url), address).map(drop)
    }

    /// One request, up to the response's headers.
    async fn exchange(
        &self,
        request: &OutboundRequest,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<reqwest::Response, EgressError> {
        let mut outgoing = reqwest::Request::new(request.method.clone(), url.clone());
        *outgoing.headers_mut() = headers;
        *outgoing.body_mut() = request.body.clone().map(Into::into);
        self.client()?.execute(outgoing).await.map_err(|error| broken(url, &error))
    }

    /// The rest of the response, counted as it comes out of decompression.
    async fn receive(
        &self,
        url: &Url,
        mut response: reqwest::Response,
        limit: usize,
    ) -> Result<OutboundResponse, EgressError> {
        let too_large = || EgressError::ResponseTooLarge { host: host_of(url), limit };
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        // Most bodies are one chunk, which needs no copy.
        let mut body = Bytes::new();
        let mut joined = BytesMut::new();
        let mut received = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(url, &error))? {
            received += chunk.len();
            if received > limit {
                return Err(too_large());
            }
            if received == chunk.len() {
                body = chunk;
                continue;
            }
            if joined.is_empty() {
                joined.extend_from_slice(&body);
            }
            joined.extend_from_slice(&chunk);
        }
        if !joined.is_empty() {
            body = joined.freeze();
        }
        let status = response.status().as_u16();
        Ok(OutboundResponse { status, headers: std::mem::take(response.headers_mut()), body })
    }

    pub(crate) fn resolver(&self) -> GuardedResolver {
        GuardedResolver { resolver: Arc::clone(&self.shared.resolver), guard: Arc::clone(&self.shared.guard) }
    }

    fn client(&self) -> Result<&reqwest::Client, EgressError> {
        let shared = &self.shared;
        let client = shared.client.get_or_init(|| {
            let roots = shared.settings.extra_roots.iter().map(|root| reqwest::Certificate::from_der(root));
            let roots = roots.collect::<Result<Vec<_>, _>>().map_err(|error| EgressError::Setup(innermost(&error)))?;
            #[expect(clippy::disallowed_methods, reason = "this is the one client, with the guard in its connector")]
            reqwest::Client::builder()
                .no_proxy()
                .redirect(Policy::none())
                .referer(false)
                .tls_certs_merge(roots)
                .dns_resolver(Connector(Arc::new(self.resolver())))
                .connect_timeout(shared.settings.connect_timeout)
                .pool_idle_timeout(shared.settings.idle_timeout)
                .build()
                .map_err(|error| EgressError::Setup(innermost(&error)))
        });
        client.as_ref().map_err(Clone::clone)
    }
}

/// In an answer that is packed in a way that wasn't asked for, an echoed secret couldn't be found and hidden.
fn check_readable(url: &Url, response: &reqwest::Response, has_secret: bool) -> Result<(), EgressError> {
    let encoding = response.headers().get(http::header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    match encoding {
        Some(encoding) if has_secret && !encoding.eq_ignore_ascii_case("identity") => {
            Err(EgressError::Encoded { host: host_of(url), encoding: encoding.chars().take(40).collect() })
        }
        _ => Ok(()),
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// Sorts the client's errors by what they say of the request. Of their texts only the innermost is kept, because the
/// outermost quotes the URL.
fn broken(url: &Url, error: &reqwest::Error) -> EgressError {
    let guards = chain(error).find_map(|error| error.downcast_ref::<EgressError>());
    match guards {
        Some(refused) => refused.clone(),
        None if error.is_builder() => EgressError::InvalidUrl("it can't be written in a request"),
        None if error.is_connect() => EgressError::Connect { host: host_of(url), reason: innermost(error) },
        None => EgressError::Interrupted { host: host_of(url), reason: innermost(error) },
    }
}

fn innermost(error: &reqwest::Error) -> String {
    match chain(error).skip(1).last() {
        Some(error) => error.to_string(),
        None => "the request could not be made".to_owned(),
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
