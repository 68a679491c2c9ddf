//! Mail by Amazon SES
//! (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>), which makes the message itself: what is
//! given are texts, no headers.

use async_trait::async_trait;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::Builder;
use aws_sdk_sesv2::error::BuildError;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message};
use aws_types::SdkConfig;

use super::{Mail, Mailer};
use crate::{PortError, usage};

/// Sends mail by SES, from one address.
#[derive(Debug, Clone)]
pub struct SesMailer {
    client: Client,
    from: String,
}

impl SesMailer {
    /// From an address that SES knows as verified.
    pub fn new(config: &SdkConfig, from: impl Into<String>) -> Self {
        let client = Client::from_conf(Builder::from(config).interceptor(usage::Calls).build());
        Self { client, from: from.into() }
    }
}

#[async_trait]
impl Mailer for SesMailer {
    async fn send(&self, mail: Mail) -> Result<(), PortError> {
        const OPERATION: &str = "send mail by SES";
        mail.check()?;
        let Mail { to, subject, text } = mail;
        let content = |text: String| Content::builder().data(text).charset("UTF-8").build();
        let failed = |error: BuildError| PortError::new(OPERATION, error);
        let body = Body::builder().text(content(text).map_err(failed)?).build();
        let message = Message::builder().subject(content(subject).map_err(failed)?).body(body).build();
        self.client
            .send_email()
            .from_email_address(&self.from)
            .destination(Destination::builder().to_addresses(to).build())
            .content(EmailContent::builder().simple(message).build())
            .send()
            .await
            .map_err(|error| PortError::new(OPERATION, error))?;
        Ok(())
    }
}
