//! A client of Tidegate's API, as a caller with nothing but its documentation would write it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Body, Client, Method, Response};
use serde_json::{Value, json};

use crate::until;

/// A tenant's owner, signed in.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base_url: String,
    token: String,
}

impl Api {
    /// Nobody: calls without a token.
    ///
    /// # Errors
    /// There can be no client.
    pub fn anonymous(base_url: &str) -> anyhow::Result<Self> {
        Ok(Self { client: http_client()?, base_url: base_url.to_owned(), token: String::new() })
    }

    /// Registers a new tenant with its owner and signs in.
    ///
    /// # Errors
    /// The server is away, or answers anything but what the API promises.
    pub async fn register(base_url: &str) -> anyhow::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let email = format!("alex-{:016x}@example.com", u64::from_be_bytes(random));
        let password = "correct horse battery staple";
        let api = Self::anonymous(base_url)?;
        let account = json!({"email": email, "password": password, "name": "Alex", "tenant_name": "Example"});
        api.post("/api/auth/register", account).await?;
        Self::log_in(base_url, &email, password).await
    }

    /// Signs in.
    ///
    /// # Errors
    /// The server is away, or answers anything but what the API promises.
    pub async fn log_in(base_url: &str, email: &str, password: &str) -> anyhow::Result<Self> {
        let mut api = Self::anonymous(base_url)?;
        let login = api.post("/api/auth/login", json!({"email": email, "password": password})).await?;
        api.token = text(&login, "/access_token")?.to_owned();
        Ok(api)
    }

    /// Whoever has this token or API key.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Where the API is.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The same account on a server that has moved: a restarted one listens on another port.
    #[must_use]
    pub fn at(&self, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned(), ..self.clone() }
    }

    /// `GET`; the answer's JSON.
    ///
    /// # Errors
    /// The answer is not a success: the error has its body.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// `POST` of JSON; the answer's JSON.
    ///
    /// # Errors
    /// The answer is not a success: the error has its body.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `POST` of a form; the answer's JSON.
    ///
    /// # Errors
    /// The answer is not a success: the error has its body.
    pub async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.post(format!("{}{path}", self.base_url)).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        json_of(request.send().await.with_context(|| format!("POST {path}"))?).await
    }

    /// `DELETE`.
    ///
    /// # Errors
    /// The answer is not a success: the error has its body.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.client.delete(format!("{}{path}", self.base_url)).bearer_auth(&self.token);
        let response = request.send().await.with_context(|| format!("DELETE {path}"))?;
        let status = response.status();
        if !status.is_success() {
            bail!("DELETE {path} answered {status}: {}", response.text().await?);
        }
        Ok(())
    }

    /// Replaces a thing in this version; the answer.
    ///
    /// # Errors
    /// It was refused: the error has the problem document.
    pub async fn put(&self, path: &str, version: &str, body: Value) -> anyhow::Result<Value> {
        let request = self.client.put(format!("{}{path}", self.base_url)).header("if-match", format!("\"{version}\""));
        let request =
            request.bearer_auth(&self.token).header("content-type", "application/json").body(body.to_string());
        json_of(request.send().await.with_context(|| format!("put {path}"))?).await
    }

    /// What is behind a link, which needs no token.
    ///
    /// # Errors
    /// It isn't there.
    pub async fn download(&self, url: &str) -> anyhow::Result<Vec<u8>> {
        let response = self.client.get(url).send().await.context("download")?.error_for_status()?;
        Ok(response.bytes().await?.into())
    }

    /// Creates a workflow that a webhook starts; its id.
    ///
    /// # Errors
    /// The definition was refused: the error has the problem document.
    pub async fn create_workflow(&self, name: &str, steps: Value) -> anyhow::Result<String> {
        let definition = json!({"name": name, "trigger": {"type": "webhook"}, "steps": steps});
        Ok(text(&self.post("/api/workflows", definition).await?, "/id")?.to_owned())
    }

    /// Posts to a workflow's webhook, without a token as vendors do; the accepted run's id.
    ///
    /// # Errors
    /// It wasn't accepted: the error has the problem document.
    pub async fn post_webhook(
        &self,
        workflow: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<String> {
        let mut request = self
            .client
            .post(format!("{}/api/webhooks/{workflow}", self.base_url))
            .header("content-type", content_type)
            .body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = json_of(request.send().await.context("post to the webhook")?).await?;
        if answer["status"] != "accepted" {
            bail!("the webhook answered {answer}");
        }
        Ok(text(&answer, "/run_id")?.to_owned())
    }

    /// Any request, without a token, to a path of the API or an address of another's; the answer's status and its JSON or text.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn send(
        &self,
        method: Method,
        to: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> anyhow::Result<(u16, Value)> {
        let url = if to.starts_with('/') { format!("{}{to}", self.base_url) } else { to.to_owned() };
        let mut request = self.client.request(method.clone(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.with_context(|| format!("{method} {to}"))?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Waits until a run is final; its whole record.
    ///
    /// # Errors
    /// The deadline passed first, or the API answered no run.
    pub async fn finished_run(&self, run: &str, deadline: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/runs/{run}");
        until(&format!("the end of {run}"), deadline, async || {
            let record = self.get(&path).await?;
            let status = text(&record, "/status")?;
            Ok((!["queued", "running", "waiting"].contains(&status)).then_some(record))
        })
        .await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let request = self.client.request(method.clone(), format!("{}{path}", self.base_url));
        let mut request = request.header("accept", "application/json");
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        json_of(response).await.with_context(|| format!("{method} {path}"))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's client is no outbound traffic of the product")]
fn http_client() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?)
}

async fn json_of(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        bail!("answered {status}: {body}");
    }
    serde_json::from_str(&body).with_context(|| format!("answered {status} with what is no JSON: {body}"))
}

pub(crate) fn text<'a>(document: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    document.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer} in {document}"))
}
