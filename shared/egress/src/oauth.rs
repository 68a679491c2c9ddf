//! Tokens of OAuth 2.0 (RFC 6749): for the code that a sign-in brought, and for a refresh token. Client secrets, codes and tokens
//! are opened and sealed here and are seen nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tidegate_model::{ClientAuth, Connection, OAuthClient, OAuthGrant, masked_snippet};
use tidegate_platform::key_service::KeyContext;
use url::form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

use crate::secret::{Masks, PURPOSE, Secret};
use crate::{Credential, Effect, Egress, EgressError, OutboundRequest};

/// The context under which the secrets of the installation's own clients are sealed.
pub fn client_context() -> KeyContext {
    KeyContext { tenant: "platform".to_owned(), purpose: "oauth".to_owned() }
}

/// Who asks for tokens.
#[derive(Debug, Clone, Copy)]
pub enum TokenClient<'a> {
    /// The installation's own client.
    Installation(&'a OAuthClient),
    /// That of the connection: `client_id` and `client_secret` of its secret.
    Connection,
}

/// What came of a sign-in.
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    /// The code that the vendor sent along.
    pub code: &'a str,
    /// Where it sent the browser back to.
    pub redirect_uri: &'a str,
    /// The PKCE verifier (RFC 7636) and, where the client is the tenant's own, `client_id` and `client_secret`: sealed as a connection's
    /// secret is.
    pub sealed: &'a str,
}

/// Tokens, sealed.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The connection's new secret.
    pub sealed: String,
    /// Whether there is a refresh token.
    pub refreshable: bool,
    /// How long the access token lasts, where the vendor says so.
    pub lifetime: Option<Duration>,
    /// What was granted, where the vendor says so.
    pub scopes: Option<Vec<String>>,
}

/// Why there are no tokens.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// The vendor refuses, and would again: somebody has to sign in anew.
    #[error("{0}")]
    Refused(String),
    /// It refuses the client: whoever set it up has to look at it.
    #[error("{0}")]
    Client(String),
    /// It may pass.
    #[error("{0}")]
    Later(String),
    /// No call was made, or it brought no answer.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

impl TokenError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Later(_) => true,
            Self::Egress(error) => error.is_retryable(),
            Self::Refused(_) | Self::Client(_) => false,
        }
    }
}

impl Egress {
    /// Tokens for a code. They become the secret of the credential's connection, whose own is not opened.
    ///
    /// # Errors
    /// [`TokenError`]
    pub async fn redeem(
        &self,
        code: Code<'_>,
        grant: &OAuthGrant,
        client: TokenClient<'_>,
        credential: Credential<'_>,
        timeout: Duration,
    ) -> Result<Granted, TokenError> {
        let opened = Connection { sealed: code.sealed.to_owned(), ..credential.connection.clone() };
        let secret = Secret::open(&self.shared.envelope, Credential { connection: &opened, ..credential }).await?;
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.code.to_owned()),
            ("redirect_uri", code.redirect_uri.to_owned()),
        ];
        if let Some(verifier) = secret.field("code_verifier") {
            form.push(("code_verifier", verifier.to_owned()));
        }
        self.tokens(form, grant, client, &secret, credential, timeout).await
    }

    /// New tokens for a connection's refresh token.
    ///
    /// # Errors
    /// [`TokenError`]
    pub async fn refresh(
        &self,
        grant: &OAuthGrant,
        client: TokenClient<'_>,
        credential: Credential<'_>,
        timeout: Duration,
    ) -> Result<Granted, TokenError> {
        let secret = Secret::open(&self.shared.envelope, credential).await?;
        let token = secret.field("refresh_token");
        let token = token.ok_or_else(|| TokenError::Refused("there is no refresh token".to_owned()))?;
        let form = vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", token.to_owned())];
        self.tokens(form, grant, client, &secret, credential, timeout).await
    }

    async fn tokens(
        &self,
        mut form: Vec<(&'static str, String)>,
        grant: &OAuthGrant,
        client: TokenClient<'_>,
        secret: &Secret<'_>,
        credential: Credential<'_>,
        timeout: Duration,
    ) -> Result<Granted, TokenError> {
        let envelope = &self.shared.envelope;
        let (client_id, client_secret) = match client {
            TokenClient::Installation(client) => {
                let associated = client.provider.as_bytes();
                let opened = envelope.open(&client.data_key, &client_context(), associated, &client.sealed).await;
                let connection = credential.connection.id.to_string();
                let opened = opened.map_err(|source| EgressError::Connection { connection, source })?;
                let text = String::from_utf8(opened.to_vec()).map(Zeroizing::new);
                let text =
                    text.map_err(|_| TokenError::Client("the installation's client can't be read".to_owned()))?;
                (client.client_id.clone(), Some(text))
            }
            TokenClient::Connection => {
                let id = secret.field("client_id");
                let id = id.ok_or_else(|| TokenError::Client("the connection has no client_id".to_owned()))?;
                (id.to_owned(), secret.field("client_secret").map(|text| Zeroizing::new(text.to_owned())))
            }
        };
        let sent = form.iter().filter(|(name, _)| matches!(*name, "code" | "code_verifier" | "refresh_token"));
        let mut hidden: Vec<String> = sent.map(|(_, value)| value.clone()).collect();
        hidden.extend(client_secret.as_ref().map(|secret| secret.to_string()));
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ]);
        match (grant.client_auth, &client_secret) {
            (ClientAuth::Basic, Some(client_secret)) => {
                // Both are form-encoded first (RFC 6749, section 2.3.1).
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = Zeroizing::new(format!("{}:{}", encoded(&client_id), encoded(client_secret)));
                let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())));
                let mut value = value.map_err(|_| TokenError::Client("the client can't be sent".to_owned()))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
                hidden.push(pair.to_string());
            }
            (_, client_secret) => {
                form.push(("client_id", client_id));
                form.extend(client_secret.as_ref().map(|secret| ("client_secret", secret.to_string())));
            }
        }
        let body = Serializer::new(String::new()).extend_pairs(&form).finish();
        let request = OutboundRequest {
            method: Method::POST,
            url: grant.token_url.clone(),
            headers,
            body: Some(Bytes::from(body)),
            timeout,
            effect: Effect::Write,
            idempotency_key: None,
            traceparent: None,
        };
        let response = self.send(request, None).await?;
        let answer = answer(&response.body);
        let access_token = answer.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
        let Some(access_token) = access_token.filter(|_| (200..=299).contains(&response.status)) else {
            return Err(refusal(response.status, &answer, &Masks::new(hidden)));
        };
        let kept = |name: &str| secret.field(name).map(|text| (name.to_owned(), json!(text)));
        let mut fields: Map<String, Value> =
            ["client_id", "client_secret", "refresh_token"].into_iter().filter_map(kept).collect();
        fields.insert("access_token".to_owned(), json!(access_token));
        if let Some(token) = answer.get("refresh_token").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            fields.insert("refresh_token".to_owned(), json!(token));
        }
        let refreshable = fields.contains_key("refresh_token");
        let plain = Zeroizing::new(Value::Object(fields).to_string());
        let connection = credential.connection;
        let context = KeyContext { tenant: connection.tenant.to_string(), purpose: PURPOSE.to_owned() };
        let associated = connection.id.to_string();
        let sealed = envelope.seal(credential.data_key, &context, associated.as_bytes(), plain.as_bytes()).await;
        let sealed = sealed.map_err(|source| EgressError::Connection { connection: associated, source })?;
        let seconds = answer.get("expires_in").and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        });
        let scopes = answer
            .get("scope")
            .and_then(Value::as_str)
            .map(|scope| scope.split([' ', ',']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect());
        Ok(Granted {
            sealed,
            refreshable,
            lifetime: seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            scopes,
        })
    }
}

/// The members of an answer: JSON, or a form, as some vendors answer whatever is asked.
fn answer(body: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => members,
        Ok(_) => Map::new(),
        Err(_) => {
            let pairs: BTreeMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
            pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
        }
    }
}

/// What an answer without tokens means, whatever its status: some vendors refuse with 200. What they quote of the request is
/// hidden.
fn refusal(status: u16, answer: &Map<String, Value>, masks: &Masks) -> TokenError {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    let (error, description) = (text("error"), text("error_description"));
    let said = match (error, description) {
        ("", "") => format!("it answered {status} without a token"),
        (error, "") => error.to_owned(),
        (error, description) => format!("{error}: {description}"),
    };
    let said = masked_snippet(&masks.hide_in_text(said));
    match error {
        "invalid_client"
        | "unauthorized_client"
        | "bad_client_secret"
        | "incorrect_client_credentials"
        | "invalid_client_id" => TokenError::Client(format!("the vendor refuses the OAuth client: {said}")),
        "temporarily_unavailable"
        | "server_error"
        | "slow_down"
        | "ratelimited"
        | "internal_error"
        | "fatal_error"
        | "request_timeout"
        | "service_unavailable" => TokenError::Later(format!("the vendor gives no token now: {said}")),
        _ if status == 408 || status == 429 || status >= 500 => {
            TokenError::Later(format!("the vendor gives no token now: {said}"))
        }
        // A success without a word of tokens: a page about maintenance, or an answer that was cut short.
        "" if status < 300 => TokenError::Later(format!("the vendor gives no token now: {said}")),
        "" if status < 400 => TokenError::Refused(format!("the vendor gives no token: {said}")),
        _ => TokenError::Refused(format!("the vendor refuses: {said}")),
    }
}
