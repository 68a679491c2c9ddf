//! `email.send`: makes the message and hands it to the connection's mail server.

use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, Message, MessageBuilder, MultiPart, SinglePart};
use serde_json::{Map, Value, json};
use tidegate_egress::{Credential, MailSecurity, MailServer, OutboundMail};
use tidegate_model::{ErrorCode, FieldError, Pointer, StepError};
use tokio::time::Instant;

use crate::call::connected;
use crate::failure::failure;
use crate::{Action, CallOptions, Failure, Outside};

/// To how many addresses one mail goes.
const MAX_RECIPIENTS: usize = 100;
/// What the files of one mail have together, in bytes: as Base64 it is what egress takes.
const MAX_ATTACHED_BYTES: u64 = 4_500_000;

pub(crate) async fn send(
    action: &Action,
    outside: Outside<'_>,
    input: &Value,
    credential: Option<Credential<'_>>,
    options: &CallOptions,
    deadline: Instant,
) -> Result<Value, Failure> {
    let credential = connected(action, credential)?;
    action.check_connection(Some(credential.connection))?;
    action.check_input(input)?;
    let server = server(&credential.connection.settings)?;
    let from = credential.connection.settings.get("from").and_then(Value::as_str);
    let message = message(action, outside, input, from, options.idempotency_key.as_deref()).await?;
    let mail = OutboundMail { envelope: message.envelope().clone(), message: message.formatted() };
    let timeout = deadline.saturating_duration_since(Instant::now());
    let answer = outside.egress.mail(&server, Some(&mail), credential, timeout).await.map_err(failure)?;
    let id = message.headers().get_raw("Message-ID").map(str::to_owned);
    Ok(
        json!({"message_id": id, "recipients": mail.envelope.to().len(), "answer": tidegate_model::masked_snippet(&answer)}),
    )
}

/// Signs in and sends nothing.
pub(crate) async fn test(outside: Outside<'_>, credential: Credential<'_>, deadline: Instant) -> Result<(), Failure> {
    let server = server(&credential.connection.settings)?;
    let timeout = deadline.saturating_duration_since(Instant::now());
    outside.egress.mail(&server, None, credential, timeout).await.map(drop).map_err(failure)
}

fn server(settings: &Map<String, Value>) -> Result<MailServer, StepError> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str);
    let unusable = |reason: &str| StepError::terminal(ErrorCode::ConnectionUnusable, reason.to_owned());
    let port = text("port").and_then(|port| port.parse().ok());
    Ok(MailServer {
        host: text("host").ok_or_else(|| unusable("the connection names no mail server"))?.to_owned(),
        port: port.ok_or_else(|| unusable("the connection's port is no number from 1 to 65535"))?,
        security: match text("security") {
            Some("tls") => MailSecurity::Tls,
            Some("none") => MailSecurity::None,
            _ => MailSecurity::StartTls,
        },
        username: text("username").filter(|name| !name.is_empty()).map(str::to_owned),
    })
}

async fn message(
    action: &Action,
    outside: Outside<'_>,
    input: &Value,
    default_from: Option<&str>,
    key: Option<&str>,
) -> Result<Message, StepError> {
    let fault = |pointer: Pointer, detail: String| action.input_error(&[FieldError::new(pointer, detail)]);
    let at = |field: &str| Pointer::root().push(field);
    let text = |field: &str| input.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mailbox = |text: &str, pointer: Pointer| {
        let parsed = text.parse::<Mailbox>();
        parsed.map_err(|_| {
            fault(pointer, "is no address, such as `orders@example.com` or `Orders <orders@example.com>`".to_owned())
        })
    };
    let from = text("from").or(default_from);
    let from = from.ok_or_else(|| fault(at("from"), "is required: the connection has no sender".to_owned()))?;
    let from = mailbox(from, at("from"))?;
    let mut builder = Message::builder().from(from.clone()).subject(text("subject").unwrap_or_default());
    let mut recipients = 0;
    for (field, add) in [
        ("to", MessageBuilder::to as fn(MessageBuilder, Mailbox) -> MessageBuilder),
        ("cc", MessageBuilder::cc),
        ("bcc", MessageBuilder::bcc),
    ] {
        let listed = match input.get(field) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) if !text.is_empty() => vec![text.as_str()],
            _ => Vec::new(),
        };
        for (index, address) in listed.iter().enumerate() {
            builder = add(builder, mailbox(address, at(field).push(index))?);
            recipients += 1;
        }
    }
    if recipients > MAX_RECIPIENTS {
        return Err(fault(at("to"), format!("more than {MAX_RECIPIENTS} recipients; send several mails")));
    }
    if let Some(reply_to) = text("reply_to") {
        builder = builder.reply_to(mailbox(reply_to, at("reply_to"))?);
    }
    // The same for each attempt, so that a mail that went out twice can be told to be one.
    if let Some(key) = key {
        let domain = from.email.domain();
        let plain: String = key
            .chars()
            .map(|char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '.' })
            .collect();
        builder = builder.message_id(Some(format!("<{plain}@{domain}>")));
    }
    for (name, value) in input.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let pointer = at("headers").push(name);
        if is_own_header(name) {
            return Err(fault(pointer, "is made of the mail's other fields".to_owned()));
        }
        let value = crate::form::scalar(value);
        if value.contains(['\r', '\n']) {
            return Err(fault(pointer, "must be one line".to_owned()));
        }
        let parsed =
            HeaderName::new_from_ascii(name.clone()).map_err(|_| fault(pointer, "is no header's name".to_owned()))?;
        builder = builder.raw_header(HeaderValue::new(parsed, value));
    }
    // No mail may have a NUL, nor a carriage return alone (RFC 5322, section 2.3), which is a line's end as well.
    let lines = |text: &str| text.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n");
    let alternatives = match (text("text").map(lines), text("html").map(lines)) {
        (Some(plain), Some(html)) => MultiPart::alternative_plain_html(plain, html).into(),
        (None, Some(html)) => Part::Single(SinglePart::html(html)),
        (plain, None) => Part::Single(SinglePart::plain(plain.unwrap_or_default())),
    };
    let attachments = input.get("attachments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut total = 0;
    for path in attachments.iter().filter_map(|attachment| attachment.get("file")?.as_str()) {
        total += outside.files.size(path).await?;
        if total > MAX_ATTACHED_BYTES {
            let detail = format!("its files have more than {MAX_ATTACHED_BYTES} bytes together; send a link");
            return Err(fault(at("attachments"), detail));
        }
    }
    let built = if attachments.is_empty() {
        match alternatives {
            Part::Single(part) => builder.singlepart(part),
            Part::Multi(parts) => builder.multipart(parts),
        }
    } else {
        let mut mixed = match alternatives {
            Part::Single(part) => MultiPart::mixed().singlepart(part),
            Part::Multi(parts) => MultiPart::mixed().multipart(parts),
        };
        for (index, attachment) in attachments.iter().enumerate() {
            mixed = mixed.singlepart(attached(action, outside, attachment, &at("attachments").push(index)).await?);
        }
        builder.multipart(mixed)
    };
    built.map_err(|error| fault(Pointer::root(), format!("makes no mail: {error}")))
}

/// Whether a header is made of the other fields: one of a step's own would change the recipients, or how the mail is read.
fn is_own_header(name: &str) -> bool {
    const NAMES: [&str; 9] = ["bcc", "cc", "from", "message-id", "mime-version", "reply-to", "sender", "subject", "to"];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || name.starts_with("content-")
}

enum Part {
    Single(SinglePart),
    Multi(MultiPart),
}

impl From<MultiPart> for Part {
    fn from(parts: MultiPart) -> Self {
        Self::Multi(parts)
    }
}

async fn attached(
    action: &Action,
    outside: Outside<'_>,
    attachment: &Value,
    at: &Pointer,
) -> Result<SinglePart, StepError> {
    let fault = |pointer: Pointer, detail: &str| action.input_error(&[FieldError::new(pointer, detail)]);
    let text = |field: &str| attachment.get(field).and_then(Value::as_str);
    let content: Vec<u8> = match (text("file"), text("base64"), text("content")) {
        (Some(path), ..) => outside.files.get(path).await?.into(),
        (None, Some(encoded), _) => {
            crate::storage::decoded(encoded).map_err(|_| fault(at.push("base64"), "is not base64"))?.into()
        }
        (None, None, content) => content.unwrap_or_default().as_bytes().to_vec(),
    };
    let mut content_type = text("content_type").unwrap_or("application/octet-stream").to_owned();
    let lower = content_type.to_ascii_lowercase();
    if text("content").is_some() && lower.starts_with("text/") && !lower.contains("charset") {
        // Without it the text would be ASCII (RFC 2046, section 4.1.2).
        content_type.push_str("; charset=utf-8");
    }
    let content_type = ContentType::parse(&content_type)
        .map_err(|_| fault(at.push("content_type"), "is no content type, such as text/csv"))?;
    let filename = text("filename").or(text("file").and_then(|path| path.rsplit('/').next())).unwrap_or("attachment");
    // Always base64: as it is, the end of a mail could stand in it for servers that take a line feed alone for a line's end.
    let body = Body::new_with_encoding(content, ContentTransferEncoding::Base64);
    let body = body.map_err(|_| fault(at.clone(), "can't be encoded"))?;
    Ok(Attachment::new(filename.to_owned()).body(body, content_type))
}
