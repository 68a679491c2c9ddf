//! Mail by an SMTP server of the operator's choice. It is no target of a workflow, so it may be at any address.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use url::Url;

use super::{Mail, Mailer};
use crate::PortError;

/// A server that hasn't answered by then won't.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends mail by one SMTP server, from one address; a connection for each.
#[derive(Clone)]
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// Why mail can't be sent so. No text in it holds the server's password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMailSettings {
    /// The URL names no server.
    #[error("the mail server's address can't be read; expected smtp://user:password@host:587 or smtps://…:465")]
    Url,
    /// The URL asks for a connection that others can read.
    #[error("`tls=none` is for a mail server on this machine alone: smtp://127.0.0.1:1025?tls=none")]
    Unencrypted,
    /// The sender is no address.
    #[error("the sender isn't one; expected `no-reply@example.com` or `Tidegate <no-reply@example.com>`")]
    From,
}

impl SmtpMailer {
    /// By the server at a URL: `smtps://user:password@host:465` for TLS from the start, `smtp://user:password@host:587` for
    /// STARTTLS, without which nothing is sent, and `smtp://127.0.0.1:1025?tls=none` for a server on this machine. From an
    /// address with or without a name.
    ///
    /// # Errors
    /// The URL or the address can't be read, or TLS is to be left out to another machine.
    pub fn new(url: &str, from: &str) -> Result<Self, InvalidMailSettings> {
        let url = transport_url(url)?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.as_str());
        // Its reason may quote the URL.
        let transport = transport.map_err(|_| InvalidMailSettings::Url)?.timeout(Some(TIMEOUT)).build();
        Ok(Self { transport, from: from.parse().map_err(|_| InvalidMailSettings::From)? })
    }
}

/// The URL as the transport reads it, to which one without a word about TLS means none.
fn transport_url(url: &str) -> Result<Url, InvalidMailSettings> {
    let mut url: Url = url.trim().parse().map_err(|_| InvalidMailSettings::Url)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(InvalidMailSettings::Url)?;
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(InvalidMailSettings::Url);
    }
    // A name alone would be dropped, and mail go out without signing in.
    if url.username().is_empty() != url.password().is_none() {
        return Err(InvalidMailSettings::Url);
    }
    match (url.scheme(), url.query()) {
        ("smtps", None) => {}
        ("smtp", None) => url.set_query(Some("tls=required")),
        ("smtp", Some("tls=none")) if is_here => url.set_query(None),
        ("smtp", Some("tls=none")) => return Err(InvalidMailSettings::Unencrypted),
        _ => return Err(InvalidMailSettings::Url),
    }
    Ok(url)
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: Mail) -> Result<(), PortError> {
        const OPERATION: &str = "send mail by SMTP";
        mail.check()?;
        let Mail { to, subject, text } = mail;
        let to: Address =
            to.parse().map_err(|error: lettre::address::AddressError| PortError::new(OPERATION, error))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|error| PortError::new(OPERATION, error))?;
        self.transport.send(message).await.map_err(|error| PortError::new(OPERATION, error))?;
        Ok(())
    }
}

impl fmt::Debug for SmtpMailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpMailer").field("from", &self.from.to_string()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_unencrypted_to_another_machine() {
        let read = |url: &str| transport_url(url).map(|url| url.to_string());
        let with_tls = "smtp://user:pass@mail.example.com:587";
        assert_eq!(read(with_tls), Ok(format!("{with_tls}?tls=required")));
        assert_eq!(read("smtps://mail.example.com"), Ok("smtps://mail.example.com".to_owned()));
        for here in ["127.0.0.1:1025", "localhost", "[::1]:1025"] {
            assert_eq!(read(&format!("smtp://{here}?tls=none")), Ok(format!("smtp://{here}")));
        }
        for elsewhere in ["mail.example.com", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com"] {
            assert_eq!(read(&format!("smtp://{elsewhere}?tls=none")), Err(InvalidMailSettings::Unencrypted));
        }
        for bad in [
            "",
            "mail.example.com",
            "http://mail.example.com",
            "smtp://",
            "smtp://mail.example.com?tls=opportunistic",
            "smtps://mail.example.com?tls=none",
            "smtp://127.0.0.1?tls=none&x=1",
            "smtp://mail.example.com/helo",
            "smtp://user@mail.example.com",
        ] {
            assert_eq!(read(bad), Err(InvalidMailSettings::Url), "{bad}");
        }
    }

    #[test]
    fn no_text_holds_the_password() {
        let mailer =
            SmtpMailer::new("smtps://user:hunter2@mail.example.com", "Tidegate <no-reply@example.com>").unwrap();
        assert!(!format!("{mailer:?}").contains("hunter2"));
        let sender = SmtpMailer::new("smtps://user:hunter2@mail.example.com", "nobody").unwrap_err();
        assert_eq!(sender, InvalidMailSettings::From);
    }
}
