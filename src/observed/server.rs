//! The server as facts: its process, its own word, and what they add up to.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lineage::{Epoch, Lsn};

/// The server's process, as `postmaster.pid` and `/proc` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Postmaster {
    /// No server runs on the data directory.
    Down {
        /// Processes of a dead server that still hold it; a new one cannot start before they are gone.
        leftovers: Vec<i32>,
    },
    /// A server runs.
    Running(RunningServer),
}

/// A verified postmaster: a live process (no thread, no zombie) that runs `postgres` in this data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningServer {
    /// Its process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot: together with the number that names one process.
    pub started: u64,
    /// Its TCP port.
    pub port: u16,
    /// Line 8 of `postmaster.pid`.
    pub phase: ServerPhase,
    /// Whether it was started with the configuration in our home; otherwise somebody else runs it.
    pub ours: bool,
    /// How it was started.
    pub command_line: String,
}

/// What the postmaster wrote of itself into `postmaster.pid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerPhase {
    /// Not ready for connections yet.
    Starting,
    /// Shutting down.
    Stopping,
    /// Ready; read-write or, as a standby, read-only.
    Ready,
}

/// What the server says over its unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered.
    Facts(Box<ServerFacts>),
    /// It turned us away: its words.
    Refused(String),
    /// No server runs, so none was asked.
    NotAsked,
}

/// What the server said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// `transaction_read_only`.
    pub read_only: bool,
    /// A WAL receiver is streaming.
    pub streaming: bool,
    /// From `pg_control_system()`.
    pub system_identifier: String,
    /// The timeline being written or received.
    pub timeline: u32,
    /// Position written, or received and replayed.
    pub lsn: Lsn,
    /// Whether the copy goes no further: a standby that has just started answers before it has replayed what it holds.
    pub position_proven: bool,
    /// The timeline of the last checkpoint: behind `timeline` until the first one after a promotion.
    pub checkpoint_timeline: u32,
    /// How many bytes of WAL were written since the last checkpoint began: what a stop has to write out first.
    pub since_checkpoint: u64,
    /// Still in recovery, but told to end it, which cannot be taken back.
    pub promoting: bool,
    /// A commit waits for a standby: `synchronous_standby_names` is set.
    pub synchronous: bool,
    /// Replay is paused, by a person or because of [`super::Parameters`].
    pub replay_paused: bool,
    /// When the last transaction that was replayed had been committed; for people.
    pub replayed_until: Option<String>,
    /// Why the WAL receiver does not stream, in the words of the server's log; for people only, since strangers can write
    /// there (a failed login is logged with the name that was tried).
    pub receiver: Option<String>,
    /// Where the WAL begins that it still has; of a server that is written to.
    pub oldest_wal: Option<Lsn>,
    /// `server_version`.
    pub version: String,
    /// The configuration it has loaded: `paceline.configuration`; `None`: not one of ours.
    pub configuration: Option<String>,
    /// Settings whose value in force comes from `postgresql.auto.conf`.
    pub auto_conf_in_force: Vec<String>,
    /// Settings that wait for a restart.
    pub pending_restart: Vec<PendingSetting>,
    /// Mistakes in its configuration files, in its words.
    pub configuration_errors: Vec<String>,
    /// The rows of `paceline.epoch`, oldest first; empty also when there is no such table.
    pub epochs: Vec<Epoch>,
}

/// A setting that takes effect at the next start of the server only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSetting {
    /// Its name.
    pub name: String,
    /// The value that the server runs with; `None`: it is not shown, since an extension's setting may hold a secret.
    pub in_force: Option<String>,
    /// The value that it will start with; likewise.
    pub wanted: Option<String>,
}

impl fmt::Display for PendingSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.in_force, &self.wanted) {
            (Some(in_force), Some(wanted)) => {
                let shown = |value: &str| {
                    if value.is_empty() {
                        "''".to_owned()
                    } else {
                        value.to_owned()
                    }
                };
                write!(f, "{} ({} -> {})", self.name, shown(in_force), shown(wanted))
            }
            (Some(_), None) | (None, _) => f.write_str(&self.name),
        }
    }
}

/// What `paceline restart` leaves in `home`: which server is to be replaced by a new one. Any other server that runs
/// means that this was done, so that nothing is ever restarted twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRequest {
    /// Its name.
    pub id: Uuid,
    /// The server's process.
    pub pid: i32,
    /// When that started, in clock ticks since boot.
    pub started: u64,
    /// Of which boot; numbers and times come again after another.
    pub boot: String,
}

impl RestartRequest {
    /// The file in `home`.
    pub const FILE: &'static str = "restart-request";
}

/// A request to restart the server, as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartAsked {
    /// Its name.
    pub id: Uuid,
    /// Whether it is about the server that runs now.
    pub about_running: bool,
    /// Who has the port that the new server would listen on, if it is another one and somebody has it.
    pub port_taken: Option<String>,
}

/// What the other laptop needs of a server that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationFacts {
    /// The role as which the other laptop logs in exists, may replicate and may do what it needs.
    pub role: bool,
    /// Whether that login works with our secret.
    pub login: super::Login,
    /// Replication slots whose name begins with `paceline_`.
    pub slots: Vec<Slot>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Somebody streams from it.
    pub active: bool,
    /// Its WAL is gone (`wal_status` is `lost`).
    pub lost: bool,
}

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// Not running.
    Down,
    /// Starting or recovering from a crash.
    Starting,
    /// It may be written to.
    Writable,
    /// It answers, but may not be written to.
    ReadOnly {
        /// It receives WAL from another server.
        streaming: bool,
    },
    /// Shutting down.
    Stopping,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Writable => "writable",
            Self::ReadOnly { .. } => "read_only",
            Self::Stopping => "stopping",
        })
    }
}
