//! The server as facts: its process, its own word, and what they add up to.

use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// Still in recovery, but told to end it, which cannot be taken back.
    pub promoting: bool,
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
    pub pending_restart: Vec<String>,
    /// Mistakes in its configuration files, in its words.
    pub configuration_errors: Vec<String>,
    /// The rows of `paceline.epoch`, oldest first; empty also when there is no such table.
    pub epochs: Vec<Epoch>,
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
