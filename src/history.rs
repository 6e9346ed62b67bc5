//! What happened on this laptop, for people: one JSON object per line in `home`, appended to, kept small, readable after a
//! crash. A line for each change, none for each look.
//!
//! It is not waited for the disk, and one that is full must not keep a laptop from taking over: a failure is only said.
//! Whatever stands here may be read by anybody who reads the status, so that no secret ever gets in.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::sys::clock;
use crate::sys::files::read_end;

/// How large the file may get, in bytes, before it becomes the older one, of which there is one.
const LIMIT: u64 = 4 << 20;
/// How much of the end of a file is read at most, in bytes.
const READ: u64 = 1 << 20;

/// Where it is.
pub fn path(home: &Utf8Path) -> Utf8PathBuf {
    home.join("history.jsonl")
}

fn older(home: &Utf8Path) -> Utf8PathBuf {
    home.join("history.jsonl.1")
}

/// Records an event with its moment: `what` in a word, and the fields of a JSON object.
pub fn record(home: &Utf8Path, what: &str, fields: &Value) {
    let mut event = json!({ "time": clock::timestamp(), "event": what });
    if let (Some(event), Some(fields)) = (event.as_object_mut(), fields.as_object()) {
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        event.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    }
    if let Err(error) = append(home, &event) {
        tracing::warn!(
            "cannot write {}: {error}; this is not recorded: {event}",
            path(home)
        );
    }
}

fn append(home: &Utf8Path, event: &Value) -> io::Result<()> {
    let path = path(home);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() >= LIMIT) {
        fs::rename(&path, older(home))?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)?;
    // After a power cut the last line may have no end; the next one is to be whole all the same.
    let begin = if torn(&mut file)? { "\n" } else { "" };
    // One write: a line is there whole or not at all.
    file.write_all(format!("{begin}{event}\n").as_bytes())
}

fn torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

/// The newest `count` events, oldest first. What cannot be understood (the line of a power cut) is left out.
pub fn read(home: &Utf8Path, count: usize) -> io::Result<Vec<Value>> {
    let mut events = Vec::new();
    for path in [older(home), path(home)] {
        match read_end(&path, READ) {
            Ok(text) => events.extend(text.lines().filter_map(event)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    events.drain(..events.len().saturating_sub(count));
    Ok(events)
}

fn event(line: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line)
        .ok()
        .filter(|event| event["event"].is_string())
}

/// An event in one line for people.
pub fn shown(event: &Value) -> String {
    let text = |name: &str| match &event[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(list) => {
            let list: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            list.join(", then ")
        }
        other => other.to_string(),
    };
    let with = |word: String, name: &str| match text(name) {
        more if more.is_empty() => word,
        more => format!("{word}: {more}"),
    };
    let what = match event["event"].as_str().unwrap_or_default() {
        "plan" if event["steps"].as_array().is_some_and(|steps| !steps.is_empty()) => {
            format!("plan: {}", text("steps"))
        }
        "plan" => with(format!("plan: {}", text("state")), "reason"),
        "gate" => with(format!("gate {}", text("state")), "reason"),
        "begun" => with(text("what"), "reason"),
        "done" => format!("done: {} ({} ms)", text("what"), text("took_ms")),
        "failed" => format!("FAILED: {}: {}", text("what"), text("error")),
        "state_file" => match text("error") {
            error if error.is_empty() => format!("state file read: {}", text("role")),
            error => format!("state file not taken: {error}"),
        },
        "peer" => with(format!("the other laptop {}", text("state")), "reason"),
        "promotion" => format!(
            "promotion at {}; the other laptop was last known at {} ({})",
            text("position"),
            text("peer_position"),
            text("peer_seen")
        ),
        "epoch" => format!(
            "epoch {} is written: timeline {}, begun at {}, by {}",
            text("epoch"),
            text("timeline"),
            text("begin_lsn"),
            text("node")
        ),
        "restored" => with(
            format!(
                "a backup is in place of what was here; what was here: {}",
                text("set_aside")
            ),
            "epoch",
        ),
        "daemon" => format!("paceline {}", text("state")),
        other => format!("{other}: {event}"),
    };
    format!("{}  {what}", text("time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_left_out_and_ends_where_the_next_one_begins() {
        let directory = tempfile::tempdir().expect("directory");
        let home = Utf8Path::from_path(directory.path()).expect("UTF-8");
        assert_eq!(read(home, 10).expect("nothing yet"), Vec::<Value>::new());
        record(home, "gate", &json!({ "state": "open", "reason": null }));
        let mut file = OpenOptions::new().append(true).open(path(home)).expect("open");
        file.write_all(b"{\"time\": \"2026-06-0").expect("write");
        record(home, "gate", &json!({ "state": "closed" }));
        let events = read(home, 10).expect("read");
        let states: Vec<&str> = events
            .iter()
            .filter_map(|event| event["state"].as_str())
            .collect();
        assert_eq!(states, ["open", "closed"]);
        assert!(events[0].get("reason").is_none());
        assert_eq!(read(home, 1).expect("read").len(), 1);
    }

    #[test]
    fn it_stays_small_and_keeps_one_older_part() {
        let directory = tempfile::tempdir().expect("directory");
        let home = Utf8Path::from_path(directory.path()).expect("UTF-8");
        let filler = "x".repeat(usize::try_from(LIMIT).expect("small"));
        fs::write(
            path(home),
            format!("{{\"event\":\"gate\",\"state\":\"old\"}}\n{filler}\n"),
        )
        .expect("write");
        record(home, "gate", &json!({ "state": "new" }));
        assert!(fs::metadata(path(home)).expect("new").len() < 1000);
        assert!(fs::metadata(older(home)).expect("older").len() > LIMIT);
        assert_eq!(
            read(home, 10).expect("read").len(),
            1,
            "only the end of a file is read"
        );
    }

    #[test]
    fn every_event_has_words() {
        let event = json!({ "time": "T", "event": "done", "what": "promote the server", "took_ms": 19 });
        assert_eq!(shown(&event), "T  done: promote the server (19 ms)");
        let event = json!({ "time": "T", "event": "plan", "state": "waiting", "reason": "no successor yet", "steps": [] });
        assert_eq!(shown(&event), "T  plan: waiting: no successor yet");
    }
}
