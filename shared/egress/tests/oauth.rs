//! Tokens of OAuth 2.0 from a fake vendor: what it is asked, what is kept of its answers, and what its refusals mean.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::{NoResolver, Sealed, Server, Vault, all_texts, redirect, response, sent};
use tidegate_egress::{Code, Egress, EgressError, EgressSettings, Granted, TokenClient, TokenError, client_context};
use tidegate_model::{ClientAuth, OAuthClient, OAuthGrant};
use tidegate_platform::key_service::KeyContext;
use tokio::net::TcpListener;

mod support;

const TIMEOUT: Duration = Duration::from_secs(20);
const REDIRECT_URI: &str = "https://flows.example/api/oauth/callback";
const CODE: &str = "c0de c0de+/=&";
const VERIFIER: &str = "ver1fier-ver1fier-ver1fier-ver1fier-ver1fier";
const REFRESH_TOKEN: &str = "refresh one/1+=";
const CLIENT_SECRET: &str = "s3cret: s3cret&%é";
/// The same as a form has it.
const ENCODED_CLIENT_SECRET: &str = "s3cret%3A+s3cret%26%25%C3%A9";
const TOKENS: &str = r#"{"access_token":"access-two","refresh_token":"refresh-two","token_type":"Bearer"}"#;

/// A vendor whose answer a test sets.
struct Vendor {
    server: Server,
    answer: Arc<Mutex<Vec<u8>>>,
    vault: Vault,
    egress: Egress,
}

impl Vendor {
    async fn new() -> Self {
        let answer = Arc::<Mutex<Vec<u8>>>::default();
        let server = Server::start({
            let answer = Arc::clone(&answer);
            move |_| answer.lock().unwrap().clone()
        });
        let vault = Vault::new();
        let allow = vec!["127.0.0.1/32".parse().unwrap()];
        let settings = EgressSettings { allow, ..EgressSettings::default() };
        let egress = Egress::with_resolver(settings, vault.envelope.clone(), Arc::new(NoResolver));
        let vendor = Self { server: server.await, answer, vault, egress };
        vendor.answers("200 OK", TOKENS);
        vendor
    }

    fn answers(&self, status: &str, body: &str) {
        *self.answer.lock().unwrap() = response(status, "", body.as_bytes());
    }

    fn grant(&self, client_auth: ClientAuth) -> OAuthGrant {
        grant(self.server.url("/oauth/token"), client_auth)
    }

    /// What was asked last: the request, and the fields of its form.
    fn asked(&self) -> (String, BTreeMap<String, String>) {
        let request = self.server.requests().pop().unwrap();
        assert!(request.starts_with("POST /oauth/token HTTP/1.1\r\n"), "{request}");
        assert_eq!(sent(&request, "content-type"), ["application/x-www-form-urlencoded"]);
        assert_eq!(sent(&request, "accept"), ["application/json"]);
        assert_eq!(sent(&request, "idempotency-key"), [""; 0]);
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        (request, form)
    }

    /// The installation's client, its secret sealed under a context.
    async fn installation(&self, context: &KeyContext, secret: &[u8]) -> OAuthClient {
        let envelope = &self.vault.envelope;
        let data_key = envelope.new_data_key(context).await.unwrap();
        OAuthClient {
            provider: "acme".to_owned(),
            client_id: "installation".to_owned(),
            sealed: envelope.seal(&data_key, context, b"acme", secret).await.unwrap(),
            data_key,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    async fn redeem(
        &self,
        sealed: &Sealed,
        grant: &OAuthGrant,
        client: TokenClient<'_>,
    ) -> Result<Granted, TokenError> {
        let code = Code { code: CODE, redirect_uri: REDIRECT_URI, sealed: &sealed.connection.sealed };
        // What the connection had before is not opened.
        let mut connection = sealed.connection.clone();
        connection.sealed = "AAAA".to_owned();
        let before = Sealed { connection, data_key: sealed.data_key.clone() };
        self.egress.redeem(code, grant, client, before.credential().unwrap(), TIMEOUT).await
    }

    async fn refresh(
        &self,
        sealed: &Sealed,
        grant: &OAuthGrant,
        client: TokenClient<'_>,
    ) -> Result<Granted, TokenError> {
        self.egress.refresh(grant, client, sealed.credential().unwrap(), TIMEOUT).await
    }

    /// What the connection's new secret holds.
    async fn opened(&self, sealed: &Sealed, granted: &Granted) -> Value {
        let connection = &sealed.connection;
        let context = KeyContext::connections(connection.tenant);
        let id = connection.id.to_string();
        let plain = self.vault.envelope.open(&sealed.data_key, &context, id.as_bytes(), &granted.sealed).await.unwrap();
        serde_json::from_slice(&plain).unwrap()
    }
}

fn grant(token_url: String, client_auth: ClientAuth) -> OAuthGrant {
    OAuthGrant {
        token_url,
        provider: None,
        client_auth,
        scopes: Vec::new(),
        refreshable: true,
        expires_at: None,
        lifetime_seconds: None,
        refreshing: None,
    }
}

fn form(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// Nothing that was granted, or that it was granted for, can be read from what comes back.
fn nothing_in_plain(granted: &Granted) {
    let text = format!("{granted:?}");
    for secret in [CODE, VERIFIER, REFRESH_TOKEN, CLIENT_SECRET, "access-two", "refresh-two"] {
        assert!(!text.contains(secret) && !text.contains(&STANDARD.encode(secret)), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_code_brings_tokens_to_whoever_proves_to_be_the_client() {
    let vendor = Vendor::new().await;
    let installation = vendor.installation(&client_context(), CLIENT_SECRET.as_bytes()).await;
    let code = [("grant_type", "authorization_code"), ("code", CODE), ("redirect_uri", REDIRECT_URI)];
    let verifier = [("code_verifier", VERIFIER)];
    let (own, public) = ([("client_id", "o wn:1"), ("client_secret", CLIENT_SECRET)], [("client_id", "public")]);
    let tokens = json!({"access_token": "access-two", "refresh_token": "refresh-two"});
    let with = |members: &[(&str, &str)]| {
        let mut tokens = tokens.clone();
        members.iter().for_each(|&(name, value)| tokens[name] = json!(value));
        tokens
    };
    let of_installation = TokenClient::Installation(&installation);
    let installed = [("client_id", "installation"), ("client_secret", CLIENT_SECRET)];
    let cases = [
        (
            "the installation's client, in the body",
            ClientAuth::Body,
            of_installation,
            form(&verifier),
            form(&[&code[..], &verifier, &installed].concat()),
            None,
            tokens.clone(),
        ),
        (
            "the installation's client, by basic authentication",
            ClientAuth::Basic,
            of_installation,
            form(&verifier),
            form(&[&code[..], &verifier].concat()),
            Some(basic(&format!("installation:{ENCODED_CLIENT_SECRET}"))),
            tokens.clone(),
        ),
        (
            "the connection's client, in the body",
            ClientAuth::Body,
            TokenClient::Connection,
            form(&[&own[..], &verifier].concat()),
            form(&[&code[..], &verifier, &own].concat()),
            None,
            with(&own),
        ),
        (
            "the connection's client, by basic authentication",
            ClientAuth::Basic,
            TokenClient::Connection,
            form(&[&own[..], &verifier].concat()),
            form(&[&code[..], &verifier].concat()),
            Some(basic(&format!("o+wn%3A1:{ENCODED_CLIENT_SECRET}"))),
            with(&own),
        ),
        (
            "a client without a secret names itself",
            ClientAuth::Basic,
            TokenClient::Connection,
            form(&[&public[..], &verifier].concat()),
            form(&[&code[..], &verifier, &public].concat()),
            None,
            with(&public),
        ),
        (
            "without PKCE",
            ClientAuth::Body,
            TokenClient::Connection,
            form(&own),
            form(&[&code[..], &own].concat()),
            None,
            with(&own),
        ),
    ];
    for (what, client_auth, client, held, asked, authorization, kept) in cases {
        let sealed = vendor.vault.connection(&[], &json!(held).to_string()).await;
        let granted = vendor.redeem(&sealed, &vendor.grant(client_auth), client).await.unwrap();
        let (request, form) = vendor.asked();
        assert_eq!(form, asked, "{what}");
        assert_eq!(sent(&request, "authorization"), authorization.as_deref().into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(vendor.opened(&sealed, &granted).await, kept, "{what}");
        assert!(granted.refreshable, "{what}");
        nothing_in_plain(&granted);
    }
}

#[tokio::test]
async fn a_refresh_token_brings_tokens_and_stays_unless_it_is_replaced() {
    let vendor = Vendor::new().await;
    let installation = vendor.installation(&client_context(), CLIENT_SECRET.as_bytes()).await;
    let asked = [("grant_type", "refresh_token"), ("refresh_token", REFRESH_TOKEN)];
    let own = [("client_id", "own"), ("client_secret", CLIENT_SECRET)];
    let before = [("access_token", "access-one"), ("refresh_token", REFRESH_TOKEN)];
    let cases = [
        (r#"{"access_token":"access-two","refresh_token":"refresh-two"}"#, "refresh-two"),
        (r#"{"access_token":"access-two"}"#, REFRESH_TOKEN),
        (r#"{"access_token":"access-two","refresh_token":null}"#, REFRESH_TOKEN),
        (r#"{"access_token":"access-two","refresh_token":""}"#, REFRESH_TOKEN),
        ("access_token=access-two&refresh_token=refresh-two&token_type=bearer", "refresh-two"),
        ("access_token=access-two&refresh_token=&token_type=bearer", REFRESH_TOKEN),
    ];
    for (answer, refresh_token) in cases {
        vendor.answers("200 OK", answer);

        let sealed = vendor.vault.connection(&[], &json!(form(&[&own[..], &before].concat())).to_string()).await;
        let granted = vendor.refresh(&sealed, &vendor.grant(ClientAuth::Body), TokenClient::Connection).await.unwrap();
        assert_eq!(vendor.asked().1, form(&[&asked[..], &own].concat()), "{answer}");
        let kept = [("access_token", "access-two"), ("refresh_token", refresh_token)];
        assert_eq!(vendor.opened(&sealed, &granted).await, json!(form(&[&own[..], &kept].concat())), "{answer}");
        nothing_in_plain(&granted);

        let sealed = vendor.vault.connection(&[], &json!(form(&before)).to_string()).await;
        let client = TokenClient::Installation(&installation);
        let granted = vendor.refresh(&sealed, &vendor.grant(ClientAuth::Basic), client).await.unwrap();
        let (request, sent_form) = vendor.asked();
        assert_eq!(sent_form, form(&asked), "{answer}");
        let authorization = basic(&format!("installation:{ENCODED_CLIENT_SECRET}"));
        assert_eq!(sent(&request, "authorization"), [authorization.as_str()], "{answer}");
        assert_eq!(vendor.opened(&sealed, &granted).await, json!(form(&kept)), "{answer}");
        assert!(granted.refreshable, "{answer}");
        nothing_in_plain(&granted);
    }
}

#[tokio::test]
async fn answers_say_how_long_and_for_what_tokens_are_however_they_are_written() {
    let vendor = Vendor::new().await;
    let hour = Some(Duration::from_secs(3600));
    let scopes = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let cases = [
        (r#"{"access_token":"access-two","expires_in":3600,"scope":"a b"}"#, hour, scopes(&["a", "b"])),
        (r#"{"access_token":"access-two","expires_in":"3600","scope":"a,b"}"#, hour, scopes(&["a", "b"])),
        (r#"{"access_token":"access-two","expires_in":3600,"scope":"a, b "}"#, hour, scopes(&["a", "b"])),
        ("access_token=access-two&expires_in=3600&scope=repo%2Cgist", hour, scopes(&["repo", "gist"])),
        ("access_token=access-two&scope=&token_type=bearer", None, scopes(&[])),
        (r#"{"access_token":"access-two","scope":["a"]}"#, None, None),
        (r#"{"access_token":"access-two","expires_in":0}"#, None, None),
        (r#"{"access_token":"access-two","expires_in":"0"}"#, None, None),
        (r#"{"access_token":"access-two","expires_in":-1}"#, None, None),
        (r#"{"access_token":"access-two","expires_in":"soon"}"#, None, None),
        (r#"{"access_token":"access-two","expires_in":null}"#, None, None),
        (r#"{"ok":true,"access_token":"access-two","authed_user":{"id":"U1"},"team":{"id":"T1"}}"#, None, None),
        ("\r\n {\"access_token\" : \"access-two\"}\r\n", None, None),
    ];
    let own = json!({"client_id": "own", "code_verifier": VERIFIER}).to_string();
    for (answer, lifetime, scopes) in cases {
        for status in ["200 OK", "201 Created"] {
            vendor.answers(status, answer);
            let sealed = vendor.vault.connection(&[], &own).await;
            let granted = vendor.redeem(&sealed, &vendor.grant(ClientAuth::Body), TokenClient::Connection).await;
            let granted = granted.unwrap_or_else(|error| panic!("{answer}: {error}"));
            let kept = vendor.opened(&sealed, &granted).await;
            assert_eq!(kept, json!({"client_id": "own", "access_token": "access-two"}), "{answer}");
            assert_eq!((granted.refreshable, granted.lifetime), (false, lifetime), "{answer}");
            assert_eq!(granted.scopes, scopes, "{answer}");
        }
    }
}

/// What a refusal is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Refused,
    Client,
    Later,
    Egress,
}

fn kind(error: &TokenError) -> Kind {
    match error {
        TokenError::Refused(_) => Kind::Refused,
        TokenError::Client(_) => Kind::Client,
        TokenError::Later(_) => Kind::Later,
        TokenError::Egress(_) => Kind::Egress,
    }
}

#[tokio::test]
async fn refusals_tell_who_has_to_do_something() {
    use Kind::{Client, Later, Refused};
    let github_expired = r#"{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired.","error_uri":"https://docs.github.com"}"#;
    let cases = [
        // GitHub and Slack refuse with 200.
        ("200 OK", github_expired, Refused, "bad_refresh_token: The refresh token passed is incorrect or expired."),
        (
            "200 OK",
            "error=bad_verification_code&error_description=It+expired.",
            Refused,
            "bad_verification_code: It expired.",
        ),
        ("200 OK", r#"{"error":"incorrect_client_credentials"}"#, Client, "incorrect_client_credentials"),
        ("200 OK", r#"{"ok":false,"error":"invalid_code"}"#, Refused, "invalid_code"),
        ("200 OK", r#"{"ok":false,"error":"invalid_refresh_token"}"#, Refused, "invalid_refresh_token"),
        ("200 OK", r#"{"ok":false,"error":"bad_client_secret"}"#, Client, "bad_client_secret"),
        ("200 OK", r#"{"ok":false,"error":"invalid_client_id"}"#, Client, "invalid_client_id"),
        ("200 OK", r#"{"ok":false,"error":"ratelimited"}"#, Later, "ratelimited"),
        ("200 OK", r#"{"ok":false,"error":"internal_error"}"#, Later, "internal_error"),
        ("200 OK", r#"{"ok":false,"error":"fatal_error"}"#, Later, "fatal_error"),
        ("200 OK", r#"{"ok":false,"error":"request_timeout"}"#, Later, "request_timeout"),
        ("200 OK", r#"{"ok":false,"error":"service_unavailable"}"#, Later, "service_unavailable"),
        // RFC 6749, section 5.2.
        (
            "400 Bad Request",
            r#"{"error":"invalid_grant","error_description":"Token has been revoked."}"#,
            Refused,
            "invalid_grant: Token has been revoked.",
        ),
        ("400 Bad Request", r#"{"error":"invalid_request"}"#, Refused, "invalid_request"),
        ("400 Bad Request", r#"{"error":"invalid_scope"}"#, Refused, "invalid_scope"),
        ("400 Bad Request", r#"{"error":"unsupported_grant_type"}"#, Refused, "unsupported_grant_type"),
        ("400 Bad Request", r#"{"error":"invalid_client"}"#, Client, "invalid_client"),
        ("400 Bad Request", r#"{"error":"unauthorized_client"}"#, Client, "unauthorized_client"),
        (
            "401 Unauthorized",
            r#"{"error":"invalid_client","error_description":"No such client."}"#,
            Client,
            "invalid_client: No such client.",
        ),
        ("400 Bad Request", r#"{"error":"temporarily_unavailable"}"#, Later, "temporarily_unavailable"),
        ("400 Bad Request", r#"{"error":"slow_down"}"#, Later, "slow_down"),
        // Without a word that says more, the status counts.
        ("500 Internal Server Error", r#"{"error":"server_error"}"#, Later, "server_error"),
        ("502 Bad Gateway", "<html>Bad gateway</html>", Later, "it answered 502 without a token"),
        ("503 Service Unavailable", "", Later, "it answered 503 without a token"),
        ("503 Service Unavailable", r#"{"error":"invalid_grant"}"#, Later, "invalid_grant"),
        ("429 Too Many Requests", r#"{"error":"too_many"}"#, Later, "too_many"),
        ("429 Too Many Requests", "", Later, "it answered 429 without a token"),
        ("408 Request Timeout", "", Later, "it answered 408 without a token"),
        ("401 Unauthorized", "", Refused, "it answered 401 without a token"),
        ("404 Not Found", "<html>Not found</html>", Refused, "it answered 404 without a token"),
        // A success without a word of tokens is somebody else's answer: a page about maintenance, an answer cut short.
        ("200 OK", "", Later, "it answered 200 without a token"),
        ("204 No Content", "", Later, "it answered 204 without a token"),
        ("200 OK", "<html>We'll be back soon</html>", Later, "it answered 200 without a token"),
        ("200 OK", r#"{"access_token":"access-two","expires_"#, Later, "it answered 200 without a token"),
        ("200 OK", r#""access-two""#, Later, "it answered 200 without a token"),
        ("200 OK", "[]", Later, "it answered 200 without a token"),
        ("200 OK", "{}", Later, "it answered 200 without a token"),
        (
            "200 OK",
            r#"{"token_type":"bearer","refresh_token":"refresh-two"}"#,
            Later,
            "it answered 200 without a token",
        ),
        ("200 OK", r#"{"access_token":""}"#, Later, "it answered 200 without a token"),
        ("200 OK", r#"{"access_token":null}"#, Later, "it answered 200 without a token"),
        ("200 OK", r#"{"access_token":{"value":"access-two"}}"#, Later, "it answered 200 without a token"),
        // Tokens that come with a failure are none.
        ("400 Bad Request", r#"{"access_token":"access-two"}"#, Refused, "it answered 400 without a token"),
        ("500 Internal Server Error", r#"{"access_token":"access-two"}"#, Later, "it answered 500 without a token"),
    ];
    let vendor = Vendor::new().await;
    let secret = json!({"client_id": "own", "refresh_token": REFRESH_TOKEN}).to_string();
    let sealed = vendor.vault.connection(&[], &secret).await;
    let grant = vendor.grant(ClientAuth::Body);
    for (status, body, expected, said) in cases {
        vendor.answers(status, body);
        for error in [
            vendor.redeem(&sealed, &grant, TokenClient::Connection).await.unwrap_err(),
            vendor.refresh(&sealed, &grant, TokenClient::Connection).await.unwrap_err(),
        ] {
            assert_eq!(kind(&error), expected, "{status} {body}: {error}");
            assert!(error.to_string().ends_with(&format!(": {said}")), "{status} {body}: {error}");
            assert_eq!(error.is_retryable(), expected == Later, "{status} {body}");
        }
    }
}

#[tokio::test]
async fn no_vendor_is_asked_without_what_the_request_needs() {
    let vendor = Vendor::new().await;
    let grant = vendor.grant(ClientAuth::Body);
    let elsewhere = KeyContext { tenant: "platform".to_owned(), purpose: "connections".to_owned() };
    let under_another_context = vendor.installation(&elsewhere, b"x").await;
    let of_another_provider =
        OAuthClient { provider: "other".to_owned(), ..vendor.installation(&client_context(), b"x").await };
    let no_text = vendor.installation(&client_context(), b"\xff").await;
    let cases = [
        ("{}", TokenClient::Connection, Kind::Refused, Kind::Client),
        (r#"{"client_id":"own"}"#, TokenClient::Connection, Kind::Refused, Kind::Refused),
        (r#"{"refresh_token":"r"}"#, TokenClient::Connection, Kind::Client, Kind::Client),
        (r#"{"refresh_token":"r"}"#, TokenClient::Installation(&under_another_context), Kind::Egress, Kind::Egress),
        (r#"{"refresh_token":"r"}"#, TokenClient::Installation(&of_another_provider), Kind::Egress, Kind::Egress),
        (r#"{"refresh_token":"r"}"#, TokenClient::Installation(&no_text), Kind::Client, Kind::Client),
        ("no json", TokenClient::Connection, Kind::Egress, Kind::Egress),
    ];
    for (secret, client, by_refresh, by_code) in cases {
        let sealed = vendor.vault.connection(&[], secret).await;
        let error = vendor.refresh(&sealed, &grant, client).await.unwrap_err();
        assert_eq!(kind(&error), by_refresh, "{secret}: {error}");
        assert!(!error.is_retryable(), "{secret}: {error}");
        // Whoever has a client id may redeem a code.
        if by_code == Kind::Refused {
            continue;
        }
        let error = vendor.redeem(&sealed, &grant, client).await.unwrap_err();
        assert_eq!(kind(&error), by_code, "{secret}: {error}");
    }
    let sealed = vendor.vault.connection(&[], r#"{"client_id":"own","refresh_token":"r"}"#).await;
    let mut moved = Sealed { connection: sealed.connection.clone(), data_key: sealed.data_key.clone() };
    moved.connection.tenant = tidegate_model::TenantId::new(Timestamp::UNIX_EPOCH, [9; 10]);
    let error = vendor.refresh(&moved, &grant, TokenClient::Connection).await.unwrap_err();
    assert!(matches!(error, TokenError::Egress(EgressError::Connection { .. })), "another tenant's: {error}");
    assert_eq!(vendor.server.connections(), 0);
}

#[tokio::test]
async fn token_requests_follow_no_redirect() {
    let elsewhere = Server::start(|_| response("200 OK", "", TOKENS.as_bytes())).await;
    let vendor = Vendor::new().await;
    let grant = vendor.grant(ClientAuth::Basic);
    let secret = json!({"client_id": "own", "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN});
    let sealed = vendor.vault.connection(&[], &secret.to_string()).await;
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        for location in [elsewhere.url("/oauth/token"), vendor.server.url("/other")] {
            *vendor.answer.lock().unwrap() = redirect(status, &location);
            for error in [
                vendor.redeem(&sealed, &grant, TokenClient::Connection).await.unwrap_err(),
                vendor.refresh(&sealed, &grant, TokenClient::Connection).await.unwrap_err(),
            ] {
                assert_eq!(kind(&error), Kind::Refused, "{status}: {error}");
                assert!(error.to_string().contains(&status[..3]), "{status}: {error}");
            }
        }
    }
    assert_eq!(elsewhere.connections(), 0);
    assert!(vendor.server.requests().iter().all(|request| request.starts_with("POST /oauth/token ")));
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    let vendor = Vendor::new().await;
    let installation = vendor.installation(&client_context(), b"installations-hunter2").await;
    let secret = json!({
        "client_id": "own",
        "client_secret": "hunter2 client+secret",
        "code_verifier": "hunter2-verifier",
        "refresh_token": "hunter2-refresh",
        "access_token": "hunter2-access",
    });
    let sealed = vendor.vault.connection(&[], &secret.to_string()).await;
    let code = Code { code: "hunter2-code", redirect_uri: REDIRECT_URI, sealed: &sealed.connection.sealed };
    let both = async |grant: &OAuthGrant, client: TokenClient<'_>, timeout: Duration| {
        let (egress, credential) = (&vendor.egress, sealed.credential().unwrap());
        [
            egress.redeem(code, grant, client, credential, timeout).await.unwrap_err(),
            egress.refresh(grant, client, credential, timeout).await.unwrap_err(),
        ]
    };
    let check = |what: &str, errors: [TokenError; 2]| {
        for error in errors {
            let texts = all_texts(&error);
            assert!(!texts.contains("hunter2"), "{what}: {texts}");
            assert!(!texts.contains("aHVudGVyMi") && !texts.contains("aW5zdGFsbGF0aW9uOm"), "{what}: {texts}");
        }
    };

    // A vendor that quotes what it was sent.
    let echo = Server::start(|request| {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let authorization = sent(head, "authorization").join(" ");
        let fields: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        let said = format!("you sent {fields:?}, that is {body}, and {authorization}");
        let answer = match head.split(' ').nth(1).unwrap() {
            "/description" => json!({"error": "invalid_grant", "error_description": said}).to_string(),
            "/error" => json!({ "error": said }).to_string(),
            "/client" => json!({"error": "invalid_client", "error_description": said}).to_string(),
            _ => said,
        };
        response("400 Bad Request", "", answer.as_bytes())
    })
    .await;
    for path in ["/description", "/error", "/client", "/text"] {
        for client_auth in [ClientAuth::Body, ClientAuth::Basic] {
            for client in [TokenClient::Connection, TokenClient::Installation(&installation)] {
                let errors = both(&grant(echo.url(path), client_auth), client, TIMEOUT).await;
                check(path, errors);
            }
        }
    }

    // Calls that bring no answer.
    let hangs_up = Server::serve(|mut stream, _| async move { drop(support::read_request(&mut stream).await) }).await;
    let silent = Server::serve(|mut stream, _| async move {
        support::read_request(&mut stream).await;
        support::read_request(&mut stream).await;
    })
    .await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let no_answers = [
        (hangs_up.url("/hunter2"), TIMEOUT, true),
        (silent.url("/hunter2"), Duration::from_millis(100), true),
        (format!("http://{closed}/hunter2"), TIMEOUT, true),
        ("http://127.0.0.2/hunter2".to_owned(), TIMEOUT, false),
        ("https://hunter2:hunter2@127.0.0.1/".to_owned(), TIMEOUT, false),
        ("file:///hunter2".to_owned(), TIMEOUT, false),
        ("hunter2".to_owned(), TIMEOUT, false),
    ];
    for (url, timeout, is_retryable) in no_answers {
        let errors = both(&grant(url.clone(), ClientAuth::Body), TokenClient::Connection, timeout).await;
        for error in &errors {
            assert_eq!((kind(error), error.is_retryable()), (Kind::Egress, is_retryable), "{url}: {error}");
        }
        check(&url, errors);
    }
}
