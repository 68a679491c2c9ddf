//! Mail over SMTP (RFC 5321), encrypted from the start (RFC 8314) or by STARTTLS (RFC 3207), over a checked connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lettre::address::Envelope as MailEnvelope;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::secret::{Masks, Secret};
use crate::{Credential, Egress, EgressError};

/// How a connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// By STARTTLS, without which nothing is sent: port 587.
    StartTls,
    /// From the start: port 465.
    Tls,
    /// Not at all: without a password only.
    None,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: MailSecurity,
    /// Who signs in; the password is the field `password` of the connection's secret.
    pub username: Option<String>,
}

/// A mail as it goes out.
#[derive(Debug, Clone)]
pub struct OutboundMail {
    /// From whom and to whom.
    pub envelope: MailEnvelope,
    /// The message (RFC 5322).
    pub message: Vec<u8>,
}

impl Egress {
    /// Hands a mail over to a connection's mail server, or, without one, only signs in there. Yields the server's last answer.
    ///
    /// # Errors
    /// [`EgressError`]; what the server answered is [`EgressError::Mail`].
    pub async fn mail(
        &self,
        server: &MailServer,
        mail: Option<&OutboundMail>,
        credential: Credential<'_>,
        timeout: Duration,
    ) -> Result<String, EgressError> {
        let sent = tokio::time::timeout(timeout, self.mail_unbounded(server, mail, credential)).await;
        sent.unwrap_or(Err(EgressError::Timeout(timeout)))
    }

    async fn mail_unbounded(
        &self,
        server: &MailServer,
        mail: Option<&OutboundMail>,
        credential: Credential<'_>,
    ) -> Result<String, EgressError> {
        let limit = self.shared.settings.max_request_bytes;
        if mail.is_some_and(|mail| mail.message.len() > limit) {
            return Err(EgressError::RequestTooLarge { limit });
        }
        let target = format!("{}:{}", server.host.to_ascii_lowercase(), server.port);
        if !credential.connection.hosts.contains(&target) {
            let hosts = credential.connection.hosts.clone();
            return Err(EgressError::HostNotAllowed { target, hosts });
        }
        let mut masks = Masks::none();
        let credentials = match &server.username {
            Some(_) if server.security == MailSecurity::None => {
                let connection = credential.connection.id.to_string();
                let reason = "a password is only sent encrypted: choose starttls or tls";
                return Err(EgressError::Secret { connection, reason });
            }
            Some(username) => {
                let secret = Secret::open(&self.shared.envelope, credential).await?;
                let password = secret.field("password").ok_or_else(|| secret.unusable("it has no password"))?;
                masks = Masks::new([password.to_owned(), format!("\0{username}\0{password}")]);
                Some(Credentials::new(username.clone(), password.to_owned()))
            }
            None => None,
        };

        let stream = self.connect(&server.host, server.port).await?;
        let failed = |error: SmtpError| mail_error(server, &masks, &error);
        // Until the mail is handed over, nothing of it can have arrived.
        let failed_before = |error: SmtpError| match failed(error) {
            EgressError::Interrupted { host, reason } => EgressError::Connect { host, reason },
            other => other,
        };
        let client = ClientId::default();
        let stream: Box<dyn AsyncTokioStream> = match server.security {
            MailSecurity::Tls => Box::new(self.encrypted(server, stream).await?),
            MailSecurity::StartTls => Box::new(ByLine { stream, read: VecDeque::new() }),
            MailSecurity::None => Box::new(stream),
        };
        let connecting = AsyncSmtpConnection::connect_with_transport(stream, &client);
        let mut connection = connecting.await.map_err(failed_before)?;
        if server.security == MailSecurity::StartTls {
            if !connection.can_starttls() {
                let reason = "it offers no STARTTLS; choose tls (port 465), or another server".to_owned();
                return Err(EgressError::Mail { host: server.host.clone(), reason, kind: MailFailure::Permanent });
            }
            let parameters = self.tls_parameters(&server.host)?;
            connection.starttls(parameters, &client).await.map_err(failed_before)?;
        }
        if let Some(credentials) = credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, &credentials).await.map_err(|error| match failed_before(error) {
                EgressError::Mail { host, reason, kind: MailFailure::Permanent } => {
                    EgressError::Mail { host, reason, kind: MailFailure::Credential }
                }
                other => other,
            })?;
        }
        let answer = match mail {
            Some(mail) => {
                let response = connection.send(&mail.envelope, &mail.message).await.map_err(failed)?;
                masks.hide_in_text(response.message().collect::<Vec<_>>().join(" "))
            }
            None => String::new(),
        };
        // The mail is the server's by now, so what it says to the farewell changes nothing.
        drop(connection.quit().await);
        Ok(answer)
    }

    async fn encrypted(&self, server: &MailServer, stream: TcpStream) -> Result<Encrypted, EgressError> {
        let name =
            ServerName::try_from(server.host.clone()).map_err(|_| EgressError::InvalidUrl("its host is none"))?;
        let connector = TlsConnector::from(self.tls()?);
        let connecting = connector.connect(name, stream).await;
        connecting
            .map(Encrypted)
            .map_err(|error| EgressError::Connect { host: server.host.clone(), reason: error.to_string() })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, EgressError> {
        let setup = |error: rustls::Error| EgressError::Setup(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = self.shared.settings.extra_roots.iter().map(|root| root.clone().into());
        let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(setup)?;
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(setup)?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        Ok(Arc::new(config))
    }

    fn tls_parameters(&self, host: &str) -> Result<TlsParameters, EgressError> {
        let setup = |error: SmtpError| EgressError::Setup(error.to_string());
        let mut builder = TlsParameters::builder(host.to_owned());
        for root in &self.shared.settings.extra_roots {
            builder = builder.add_root_certificate(Certificate::from_der(root.clone()).map_err(setup)?);
        }
        builder.build_rustls().map_err(setup)
    }
}

/// What a mail server answered, by what it means for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFailure {
    /// It may take the mail later (4yz).
    Transient,
    /// It won't (5yz).
    Permanent,
    /// It refuses user name or password.
    Credential,
}

fn mail_error(server: &MailServer, masks: &Masks, error: &SmtpError) -> EgressError {
    let host = server.host.clone();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    let reason = masks.hide_in_text(reason);
    if error.is_transient() {
        return EgressError::Mail { host, reason, kind: MailFailure::Transient };
    }
    if error.is_permanent() || error.is_client() {
        return EgressError::Mail { host, reason, kind: MailFailure::Permanent };
    }
    if error.is_tls() { EgressError::Connect { host, reason } } else { EgressError::Interrupted { host, reason } }
}

/// A connection that will be encrypted, of which at most a line is read at a time. What somebody puts behind the answer to
/// STARTTLS is so not read with it and taken for the server's later (RFC 3207, section 6): it spoils the handshake.
#[derive(Debug)]
struct ByLine {
    stream: TcpStream,
    /// What came and was not asked for yet.
    read: VecDeque<u8>,
}

impl AsyncTokioStream for ByLine {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for ByLine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            let mut bytes = [0; 1024];
            let mut came = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut came))?;
            self.read.extend(came.filled());
        }
        let line = self.read.iter().position(|byte| *byte == b'\n').map_or(self.read.len(), |end| end + 1);
        let line: Vec<u8> = self.read.drain(..line.min(buffer.remaining())).collect();
        buffer.put_slice(&line);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByLine {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A connection that is encrypted from the start.
#[derive(Debug)]
struct Encrypted(TlsStream<TcpStream>);

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
