//! Mail that the platform itself sends: invitations, and links that verify an address or set a new password.

pub mod ses;
#[cfg(feature = "smtp")]
pub mod smtp;

use std::fmt;

use async_trait::async_trait;

use crate::PortError;

/// A mail, in plain text. What is in it may be a secret: the `Debug` text doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// The address that it goes to.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
}

impl Mail {
    /// Refuses an address or subject of more than one line: what follows would be read as headers of the mail.
    ///
    /// # Errors
    /// One has a control character.
    pub fn check(&self) -> Result<(), PortError> {
        let Self { to, subject, text: _ } = self;
        for (what, line) in [("address", to), ("subject", subject)] {
            if line.is_empty() || line.contains(char::is_control) {
                return Err(PortError::new("send mail", format!("the {what} isn't one line")));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Sends mail.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Hands a mail over to whoever delivers it.
    ///
    /// # Errors
    /// Nobody took it.
    async fn send(&self, mail: Mail) -> Result<(), PortError>;
}

/// Writes mails into the log, where no mail server is set: on one's own machine, whose log nobody else reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogMailer;

#[async_trait]
impl Mailer for LogMailer {
    async fn send(&self, mail: Mail) -> Result<(), PortError> {
        let Mail { to, subject, text } = mail;
        tracing::info!(component = "mail", to, subject, text, "no mail server is set, so here is the mail");
        Ok(())
    }
}

/// Sends nothing, where an installation has no way to send mail.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMailer;

#[async_trait]
impl Mailer for NoMailer {
    async fn send(&self, _mail: Mail) -> Result<(), PortError> {
        Err(PortError::new("send mail", "nothing sends mail here; `MailFrom` of template.yaml says from whom"))
    }
}
