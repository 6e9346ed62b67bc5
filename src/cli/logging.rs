//! The log of the daemon, on standard error: text for people, fields for the journal, or JSON for programs.
//!
//! `PACELINE_LOG` (or `RUST_LOG`) sets how much is logged, `PACELINE_LOG_FORMAT` in which form. Left to itself, a daemon
//! whose standard error is the journal sends its entries there with their fields; otherwise it is text.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, registry};

use crate::sys::clock;
use crate::sys::systemd::{self, Datagrams, put_field};

/// Begins to log.
pub(super) fn start() {
    let filter = EnvFilter::try_from_env("PACELINE_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let asked = std::env::var("PACELINE_LOG_FORMAT").unwrap_or_default();
    let journal = match asked.as_str() {
        "text" | "json" => None,
        "journald" => Some(Datagrams::to(systemd::JOURNAL.as_ref())),
        _ => systemd::stderr_is_journal().then(|| Datagrams::to(systemd::JOURNAL.as_ref())),
    };
    if let Some(Ok(journal)) = journal {
        let layer = Records(To::Journal(journal));
        registry().with(filter).with(layer).init();
    } else if asked == "json" {
        registry().with(filter).with(Records(To::Lines)).init();
    } else {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
    // A word that nobody knows must not keep a database down.
    if !["", "auto", "text", "json", "journald"].contains(&asked.as_str()) {
        tracing::warn!("PACELINE_LOG_FORMAT={asked} is not known (hint: write auto, text, journald or json)");
    }
}

/// Where records with fields go.
enum To {
    Lines,
    Journal(Datagrams),
}

struct Records(To);

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        let level = *event.metadata().level();
        match &self.0 {
            To::Lines => line(&record.json(level)),
            To::Journal(journal) => {
                if journal.send(&record.entry(level)).is_err() {
                    // Too long for a datagram, or the journal is being started anew: its stream takes it, too.
                    line(&format!("<{}>{}", priority(level), record.text()));
                }
            }
        }
    }
}

/// One write for a line; one that cannot be written is lost, like every log's.
fn line(text: &str) {
    drop(std::io::stderr().lock().write_all(format!("{text}\n").as_bytes()));
}

/// As in syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// What one event says.
#[derive(Default)]
struct Record {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    fn json(&self, level: Level) -> String {
        let mut object = Map::new();
        for (name, value) in &self.fields {
            object.insert((*name).to_owned(), value.clone());
        }
        // A field of this name must not hide what every line has.
        object.insert("time".to_owned(), clock::exact_timestamp().into());
        object.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
        object.insert("message".to_owned(), self.message.clone().into());
        Value::Object(object).to_string()
    }

    /// The message with its fields behind it, as in a text log: most people look at nothing else.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let _ = write!(text, " {name}={value}");
        }
        text
    }

    fn entry(&self, level: Level) -> Vec<u8> {
        let mut entry = Vec::new();
        put_field(&mut entry, "PRIORITY", &priority(level).to_string());
        put_field(&mut entry, "SYSLOG_IDENTIFIER", "paceline");
        put_field(&mut entry, "MESSAGE", &self.text());
        for (name, value) in &self.fields {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), ToOwned::to_owned);
            put_field(&mut entry, &name.to_ascii_uppercase(), &text);
        }
        entry
    }

    fn put(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Record {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field, text.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::time::Duration;

    use super::*;

    /// A journal of our own, under an abstract name.
    fn entry_of(log: impl FnOnce()) -> String {
        let name = format!("paceline-journal-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).expect("address");
        let journal = UnixDatagram::bind_addr(&address).expect("bind");
        journal
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("timeout");
        let datagrams = Datagrams::to(OsStr::new(&format!("@{name}"))).expect("socket");
        tracing::subscriber::with_default(registry().with(Records(To::Journal(datagrams))), log);
        let mut bytes = vec![0; 1 << 16];
        let length = journal.recv(&mut bytes).expect("an entry");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn an_entry_has_its_fields_and_its_whole_text() {
        let entry = entry_of(|| {
            tracing::warn!(action = "start_server", took_ms = 7_u64, reason = %"it is down", "doing: start");
        });
        assert_eq!(
            entry,
            "PRIORITY=4\nSYSLOG_IDENTIFIER=paceline\n\
             MESSAGE=doing: start action=\"start_server\" took_ms=7 reason=\"it is down\"\n\
             ACTION=start_server\nTOOK_MS=7\nREASON=it is down\n"
        );
    }

    /// What somebody wrote into a file must not become a field of its own.
    #[test]
    fn a_line_end_in_a_text_begins_no_field() {
        let entry = entry_of(|| tracing::error!(why = "a\nMESSAGE=b", "one\nPRIORITY=0"));
        let (head, rest) = entry.split_once("MESSAGE\n").expect("in its binary form");
        assert_eq!(head, "PRIORITY=3\nSYSLOG_IDENTIFIER=paceline\n");
        assert!(
            rest.contains("WHY\n\u{b}\0\0\0\0\0\0\0a\nMESSAGE=b\n"),
            "{rest:?}"
        );
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let mut record = Record {
            message: "two\nlines".to_owned(),
            ..Record::default()
        };
        record.fields.push(("level", "mine".into()));
        record.fields.push(("took_ms", 7.into()));
        let line = record.json(Level::INFO);
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert!(!line.contains('\n'));
        assert_eq!((&read["level"], &read["took_ms"]), (&"info".into(), &7.into()));
        assert_eq!(read["message"], "two\nlines");
    }
}
