//! What happened on this laptop, for people: one JSON object per line in `home`, only ever appended to.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use camino::{Utf8Path, Utf8PathBuf};

/// Where it is.
pub fn path(home: &Utf8Path) -> Utf8PathBuf {
    home.join("history.jsonl")
}

/// Appends an event. It is not waited for the disk, and one that is full must not keep a laptop from taking over: a
/// failure is only said.
pub fn append(home: &Utf8Path, event: &serde_json::Value) {
    let path = path(home);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        // One write: a line is there whole or not at all.
        file.write_all(format!("{event}\n").as_bytes())
    };
    if let Err(error) = write() {
        tracing::warn!("cannot write {path}: {error}; this is not recorded: {event}");
    }
}
