//! Logging as go-plugin reads it: one JSON object a line on stderr, which SPIRE turns into a line of its own log.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Longest line written. SPIRE reads lines of 64 KiB and logs the pieces of a longer one raw.
const LINE_LIMIT: usize = 60 * 1024; // bytes

/// What stays of the message in a line that was too long; each character can take six bytes in JSON.
const MESSAGE_LIMIT: usize = 8 * 1024; // bytes

/// Largest integer written as a number: SPIRE reads numbers as 64-bit floats, and prints those of seven digits and
/// more as `1.234567e+06`.
const PLAIN_INTEGER: u64 = 999_999;

/// Sends every log line, and every panic, to SPIRE.
pub(crate) fn install() {
    let ours = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(["keyd", "plugin"].map(|prefix| (prefix, LevelFilter::DEBUG)));
    // A second installation fails; the first then goes on serving.
    let _ = tracing_subscriber::registry().with(Hclog { sink: std::io::stderr }.with_filter(ours)).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let message = format!("the plugin panicked: {}", panic.to_string().replace('\n', " "));
        write(std::io::stderr(), Fields { message, rest: Map::new() }.into_line(Level::ERROR));
    }));
}

/// A [`Layer`] that writes hclog's JSON.
struct Hclog<F> {
    sink: F,
}

impl<S, F, W> Layer<S> for Hclog<F>
where
    S: Subscriber,
    F: Fn() -> W + 'static,
    W: Write,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        write((self.sink)(), fields.into_line(*event.metadata().level()));
    }
}

/// One write a line, so that lines of several threads stay apart. Nobody can be told when it fails.
fn write(mut sink: impl Write, line: Vec<u8>) {
    let _ = sink.write_all(&line);
}

// === Fields ===

/// An event's message and the rest of its fields.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    /// The line, its newline included. SPIRE panics when one of the three `@` values is no string.
    fn into_line(mut self, level: Level) -> Vec<u8> {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut timestamp = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut line = self.line(level, &timestamp);
        if line.len() > LINE_LIMIT {
            self.rest.clear();
            let cut = self.message.floor_char_boundary(MESSAGE_LIMIT);
            self.message.truncate(cut);
            self.rest.insert("cut".to_owned(), "the line was too long".into());
            line = self.line(level, &timestamp);
        }
        line
    }

    fn line(&self, level: &str, timestamp: &str) -> Vec<u8> {
        let mut object = self.rest.clone();
        object.insert("@level".to_owned(), level.into());
        object.insert("@message".to_owned(), self.message.as_str().into());
        object.insert("@timestamp".to_owned(), timestamp.into());
        let mut line = Value::Object(object).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => drop(self.rest.insert(name.to_owned(), format!("{value:?}").into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => drop(self.rest.insert(name.to_owned(), value.into())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let plain = value.unsigned_abs() <= PLAIN_INTEGER;
        let value = if plain { Value::from(value) } else { value.to_string().into() };
        self.rest.insert(field.name().to_owned(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = if value <= PLAIN_INTEGER { Value::from(value) } else { value.to_string().into() };
        self.rest.insert(field.name().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The raw line, and the object in it, that `emit` logs.
    fn logged(emit: impl FnOnce()) -> (String, Map<String, Value>) {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(Hclog { sink: move || writer.clone() });
        tracing::subscriber::with_default(subscriber, emit);
        let line = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let object = serde_json::from_str(&line).unwrap();
        (line, object)
    }

    #[test]
    fn a_line_has_string_level_message_and_timestamp() {
        let (line, object) = logged(|| tracing::warn!(key = "a/b", "signing\nis slow"));
        assert_eq!(line.matches('\n').count(), 1, "one line an event: {line}");
        assert_eq!(object["@level"], "warn");
        assert_eq!(object["@message"], "signing\nis slow");
        assert_eq!(object["key"], "a/b");
        // 2006-01-02T15:04:05.000000Z
        let timestamp = object["@timestamp"].as_str().unwrap();
        assert_eq!(timestamp.len(), 27, "{timestamp}");
        assert!(timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T', "{timestamp}");
    }

    #[test]
    fn large_numbers_keep_their_digits() {
        let (_, object) = logged(|| {
            tracing::info!(bytes = 4096u64, serial = 12_345_678_901_234_567_u64, low = -7_000_000i64)
        });
        assert_eq!(object["bytes"], 4096);
        assert_eq!(object["serial"], "12345678901234567");
        assert_eq!(object["low"], "-7000000");
    }

    #[test]
    fn a_huge_event_is_cut_to_one_line_that_spire_reads() {
        // A control character takes six bytes in JSON.
        let huge = "\u{1}".repeat(200_000);
        let (line, object) = logged(|| tracing::error!(field = huge, "{huge}"));
        assert!(line.len() <= LINE_LIMIT, "{}", line.len());
        assert_eq!(object["@level"], "error");
        assert_eq!(object["cut"], "the line was too long");
    }

    #[test]
    fn an_event_cannot_replace_the_level() {
        let (_, object) = logged(|| tracing::info!("@level" = 7, "m"));
        assert_eq!(object["@level"], "info");
    }
}
