//! JSON log lines: one object a line, its known fields first, everything else under `data`.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Mutex;

use serde_json::{Map, Value};
use tidegate_platform::Clock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::filter::{Filter, FilterError, PACKAGE_PREFIX};

/// Fields that stand at the top of a line; all others go under `data`.
const KNOWN: [&str; 5] = ["user_id", "tenant_id", "workflow_id", "run_id", "trace_id"];
/// Longer values are cut: CloudWatch refuses events over 256 KB, and a log is not where payloads belong.
const MAX_VALUE_BYTES: usize = 4 * 1024;

/// Logging couldn't be started.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter can't be read.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Something else has already taken the process's log.
    #[error("logging was started twice")]
    Twice,
}

/// Logs to standard output for the rest of the process, panics included. Each line is one `write`: nothing waits in a
/// buffer, so a process that is killed, or frozen by Lambda, has lost no line.
///
/// # Errors
/// The filter can't be read, or logging has been started before.
pub fn init(service: &'static str, filter: &str) -> Result<(), InitError> {
    let subscriber = subscriber(service, filter.parse()?, Clock::system(), io::stdout());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| InitError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What [`init`] installs, writing elsewhere: one call of `write_all` a line.
///
/// A line is `{"timestamp": RFC 3339 with milliseconds, "level", "message", "service", "component", "user_id"?,
/// "tenant_id"?, "workflow_id"?, "run_id"?, "trace_id"?, "data": {…}?}`. Fields come from the event and the spans around
/// it, the inner winning. `component` is the module without the package's prefix, unless a field says otherwise.
pub fn subscriber(
    service: &'static str,
    filter: Filter,
    clock: Clock,
    writer: impl Write + Send + 'static,
) -> impl Subscriber + Send + Sync {
    let lines = Lines { service, clock, writer: Mutex::new(Box::new(writer)) };
    Registry::default().with(lines.with_filter(filter.0))
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let panic = info.payload_as_str().unwrap_or("not a text");
    tracing::error!(component = "panic", panic, location, "panicked");
}

struct Lines {
    service: &'static str,
    clock: Clock,
    writer: Mutex<Box<dyn Write + Send>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        // Read before the span is locked: formatting a value may itself log.
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = context.span(id) {
            let mut extensions = span.extensions_mut();
            match extensions.get_mut::<Fields>() {
                Some(known) => known.override_with(&fields),
                None => extensions.insert(fields),
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.override_with(outer);
            }
        }
        let mut own = Fields::default();
        event.record(&mut own);
        fields.override_with(&own);
        let line = self.line(event, fields);
        let mut writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Where the log can't be written there is nowhere left to say so.
        drop(writer.write_all(line.as_bytes()));
    }
}

impl Lines {
    fn line(&self, event: &Event<'_>, mut fields: Fields) -> String {
        let metadata = event.metadata();
        let module = metadata.target().strip_prefix(PACKAGE_PREFIX).unwrap_or(metadata.target());
        let mut line = String::with_capacity(512);
        line.push('{');
        push(&mut line, "timestamp", &format!("{:.3}", self.clock.now()).into());
        push(&mut line, "level", &metadata.level().as_str().to_ascii_lowercase().into());
        push(&mut line, "message", &fields.message.take().unwrap_or_default().into());
        push(&mut line, "service", &self.service.into());
        push(&mut line, "component", &fields.component.take().unwrap_or_else(|| module.to_owned()).into());
        for (name, value) in KNOWN.iter().zip(fields.known) {
            if let Some(value) = value {
                push(&mut line, name, &value);
            }
        }
        if !fields.data.is_empty() {
            push(&mut line, "data", &Value::Object(fields.data));
        }
        line.push_str("}\n");
        line
    }
}

fn push(line: &mut String, name: &str, value: &Value) {
    if line.len() > 1 {
        line.push(',');
    }
    // Names are identifiers of the source: nothing in them needs escaping.
    line.push('"');
    line.push_str(name);
    line.push_str("\":");
    line.push_str(&value.to_string());
}

#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    component: Option<String>,
    known: [Option<Value>; KNOWN.len()],
    data: Map<String, Value>,
}

impl Fields {
    fn override_with(&mut self, inner: &Fields) {
        if inner.message.is_some() {
            self.message.clone_from(&inner.message);
        }
        if inner.component.is_some() {
            self.component.clone_from(&inner.component);
        }
        for (known, inner) in self.known.iter_mut().zip(&inner.known) {
            if inner.is_some() {
                known.clone_from(inner);
            }
        }
        self.data.extend(inner.data.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if let Some(position) = KNOWN.iter().position(|known| *known == name) {
            self.known[position] = Some(value);
        } else {
            self.data.insert(name.to_owned(), value);
        }
    }

    fn set_text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_VALUE_BYTES {
            text.truncate(text.floor_char_boundary(MAX_VALUE_BYTES));
            text.push('…');
        }
        match field.name() {
            "message" => self.message = Some(text),
            "component" => self.component = Some(text),
            _ => self.set(field, Value::String(text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let cause = error.to_string();
            // Libraries that show their source in their own text would have it twice.
            if !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            source = error.source();
        }
        self.set_text(field, text);
    }
}
