//! Where the output of server and application goes: plain files that stay open when the daemon dies, kept small.
//!
//! The programs append (O_APPEND), so the file can be emptied under them after its content was copied to `<name>.1`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// How large a file may get, in bytes, before it is moved aside. Two of them are kept.
pub const LIMIT: u64 = 8 << 20;

/// One output file.
#[derive(Clone, Debug)]
pub struct Output {
    path: Utf8PathBuf,
}

impl Output {
    /// The file at this path.
    pub fn new(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Opens it for a program to write to.
    pub fn open(&self) -> Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.path)
            .with_context(|| format!("cannot open the log {}", self.path))
    }

    /// Its size in bytes; 0 if there is none.
    pub fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the content aside if there is too much of it. What is written between the copy and the cut is lost.
    pub fn keep_small(&self) -> Result<()> {
        if self.len() <= LIMIT {
            return Ok(());
        }
        let old = format!("{}.1", self.path);
        // On a full disk the copy fails, and it is this file that fills it.
        if let Err(error) = fs::copy(&self.path, &old) {
            tracing::warn!("cannot keep the older part of {} as {old}: {error}", self.path);
        }
        OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_len(0))
            .with_context(|| format!("cannot empty {}", self.path))
    }

    /// What a PostgreSQL server complained about since the file had this size, in few words.
    pub fn complaints_since(&self, position: u64) -> String {
        let text = self.read_since(position).unwrap_or_default();
        let mut words = vec!["PANIC:", "FATAL:", "ERROR:", "DETAIL:", "HINT:"];
        // What is wrong in a configuration file is said at the level LOG, before the end.
        if text.contains("contains errors") {
            words.push("LOG:");
        }
        let mut complaints: Vec<&str> = text
            .lines()
            .filter_map(|line| {
                words
                    .iter()
                    .filter_map(|word| line.find(word))
                    .min()
                    .map(|at| &line[at..])
            })
            .collect();
        if complaints.is_empty() {
            complaints = text.lines().filter(|line| !line.trim().is_empty()).collect();
        }
        if complaints.is_empty() {
            return "it wrote nothing".to_owned();
        }
        let skip = complaints.len().saturating_sub(4);
        complaints[skip..]
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(" / ")
    }

    fn read_since(&self, position: u64) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        // The file may have been emptied meanwhile, and may hold more than anybody wants to see.
        let from = if position > end { 0 } else { position }.max(end.saturating_sub(64 << 10));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
