//! What `home` remembers of the other laptop: on disk before it takes effect, so that a restart in the middle of an
//! outage knows what was last seen.

use std::fmt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::desired::PeerAddress;
use crate::observed::{Fact, Moment, PeerFacts, PeerMemory};
use crate::sys::{clock, files};

/// Positions change all the time: they are written no more often than this.
const POSITIONS_EVERY: Duration = Duration::from_secs(30);

/// Why the memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    why: String,
    /// Its content is rubbish, so that nothing is lost when it is replaced.
    damaged: bool,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unreadable {}

/// Reads the memory in `home`; `None`: there never was another laptop. One that cannot be understood is an error, never
/// "there is none".
pub fn read(home: &Utf8Path) -> Result<Option<PeerMemory>, Unreadable> {
    let path = home.join(PeerMemory::FILE);
    let unreadable = |damaged: bool, why: String| Unreadable { why, damaged };
    let damaged = |error: serde_json::Error| {
        unreadable(
            true,
            format!(
                "{path}, which says what was last seen of the other laptop, is damaged: {error}; it is made again when \
                 that laptop answers (`paceline forget-peer`, if there is none any more)"
            ),
        )
    };
    let text = match files::read_if_there(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(error) => return Err(unreadable(false, format!("cannot read {path}: {error}"))),
    };
    // The format number is read first: a newer file may have another shape.
    let value: Value = serde_json::from_str(&text).map_err(damaged)?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format > u64::from(PeerMemory::FORMAT) => {
            return Err(unreadable(
                false,
                format!("{path} has format {format}: it was written by a newer Paceline; use that version"),
            ));
        }
        Some(_) | None => {}
    }
    serde_json::from_value(value).map(Some).map_err(damaged)
}

/// Keeps the memory.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Utf8PathBuf,
    /// What is known, whether it could be written or not.
    known: Option<PeerMemory>,
    /// What is on disk, and since when.
    written: Option<(PeerMemory, Moment)>,
    /// Why the disk does not have it.
    trouble: Option<Unreadable>,
}

impl Keeper {
    pub(super) fn open(home: &Utf8Path) -> Self {
        let mut keeper = Self {
            path: home.join(PeerMemory::FILE),
            known: None,
            written: None,
            trouble: None,
        };
        keeper.read(home);
        keeper
    }

    /// Reads it (again): `paceline forget-peer` may have removed it.
    pub(super) fn read(&mut self, home: &Utf8Path) {
        match read(home) {
            Ok(memory) => {
                self.written = memory.clone().map(|memory| (memory, clock::now()));
                self.known = memory;
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    /// What is on disk.
    pub(super) fn fact(&self) -> Fact<Option<PeerMemory>> {
        match &self.trouble {
            Some(trouble) => Fact::Unknown(trouble.why.clone()),
            None => Fact::Known(self.written.as_ref().map(|(memory, _)| memory.clone())),
        }
    }

    /// The address that is remembered.
    pub(super) fn address(&self) -> Option<&PeerAddress> {
        self.known.as_ref().map(|memory| &memory.address)
    }

    /// Takes facts in, and has them on disk when it returns, if they are news.
    pub(super) async fn keep(&mut self, facts: &PeerFacts, address: &PeerAddress) {
        let damaged = self.trouble.as_ref().is_some_and(|trouble| trouble.damaged);
        // A memory that only cannot be written is written as soon as it can be; one that cannot be read stays, unless a
        // daemon's word, which is complete, makes it superfluous.
        if self.unread() && !(damaged && facts.node.is_some()) {
            return;
        }
        let next = remember(self.known.as_ref(), facts, address, clock::timestamp());
        self.known = Some(next.clone());
        let due = match &self.written {
            None => true,
            Some((before, at)) => {
                differs(before, &next)
                    || (*before != seen_as(before, &next) && facts.at.since(*at) >= POSITIONS_EVERY)
            }
        };
        if !due {
            // What could not be written is not what is on disk: then it is due.
            self.trouble = None;
            return;
        }
        match write(self.path.clone(), next.clone(), damaged).await {
            Ok(()) => {
                self.written = Some((next, facts.at));
                self.trouble = None;
            }
            // A newer position alone decides nothing: a full disk must not keep the other laptop from being failed over.
            Err(_)
                if self
                    .written
                    .as_ref()
                    .is_some_and(|(before, _)| !differs(before, &next)) =>
            {
                self.trouble = None;
            }
            Err(why) => {
                let why = format!("what is known of the other laptop is not on disk: {why}");
                if self.trouble.as_ref().is_none_or(|trouble| trouble.why != why) {
                    tracing::error!("{why}");
                }
                self.trouble = Some(Unreadable { why, damaged });
            }
        }
    }

    /// Whether the file was removed since it was written. One that could not be written yet is not gone.
    pub(super) fn gone(&self) -> bool {
        self.written.is_some()
            && std::fs::symlink_metadata(&self.path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Whether what is known is not on disk, or what is there cannot be read.
    pub(super) fn troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// Whether the file could not be read, so that what it says is not known.
    fn unread(&self) -> bool {
        self.trouble.is_some() && self.known.is_none()
    }
}

/// `next`, as if it had been seen when `before` was: they are equal if not even a position changed.
fn seen_as(before: &PeerMemory, next: &PeerMemory) -> PeerMemory {
    PeerMemory {
        seen: before.seen.clone(),
        ..next.clone()
    }
}

/// Whether more than position and time changed.
fn differs(before: &PeerMemory, next: &PeerMemory) -> bool {
    let lasting = |memory: &PeerMemory| {
        let mut lasting = seen_as(before, memory);
        lasting.position = None;
        if let Some(lineage) = &mut lasting.lineage {
            lineage.position = None;
        }
        lasting
    };
    lasting(before) != lasting(next)
}

/// What is remembered after these facts. What somebody could not tell does not erase what was known.
fn remember(
    before: Option<&PeerMemory>,
    facts: &PeerFacts,
    address: &PeerAddress,
    seen: String,
) -> PeerMemory {
    // A daemon of another name is another laptop: what was known of the first is not about it.
    let before = before.filter(|before| match (&before.node, &facts.node) {
        (Some(before), Some(now)) => before == now,
        (None, _) | (_, None) => true,
    });
    let daemon = facts.node.is_some();
    PeerMemory {
        format: PeerMemory::FORMAT,
        address: address.clone(),
        node: facts.node.clone().or_else(|| before?.node.clone()),
        role: facts.role.or_else(|| before?.role),
        data: facts.data,
        writable: facts.writable(),
        lineage: facts.lineage.clone().or_else(|| before?.lineage.clone()),
        flag: if daemon {
            facts.flag
        } else {
            before.and_then(|before| before.flag)
        },
        position: facts
            .lineage
            .as_ref()
            .and_then(|lineage| lineage.position)
            .or_else(|| before?.position),
        handed_over: if daemon {
            facts.handed_over.clone()
        } else {
            before.and_then(|before| before.handed_over.clone())
        },
        seen,
    }
}

async fn write(path: Utf8PathBuf, memory: PeerMemory, keep_damaged: bool) -> Result<(), String> {
    let write = move || -> anyhow::Result<()> {
        if keep_damaged {
            drop(std::fs::rename(&path, format!("{path}.damaged")));
        }
        files::write_durably(&path, &serde_json::to_vec_pretty(&memory)?, 0o644, None)
    };
    // A slow disk must not keep the gate from closing.
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(error) => Err(error.to_string()),
    }
}
