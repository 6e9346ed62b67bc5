//! The data directory as facts, and what they add up to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Fact;
use crate::lineage::{Lsn, Sidecar};

/// What is at the path of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// Nothing, or a directory with nothing in it.
    Empty {
        /// Whether another file system is mounted there.
        mount_point: bool,
    },
    /// A file, or a directory that holds something else than a database: what.
    NotOurs(String),
    /// A database.
    Cluster(Box<Cluster>),
}

/// A data directory that holds a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `PG_VERSION`.
    pub major: u32,
    /// `pg_control`, as pg_controldata reads it; `Unknown`: it cannot be read or is damaged.
    pub control: Fact<ControlData>,
    /// `standby.signal` exists.
    pub standby_signal: bool,
    /// `recovery.signal` exists.
    pub recovery_signal: bool,
    /// `backup_label` exists.
    pub backup_label: bool,
    /// A taint marker lies beside it: a rewind or restore was interrupted.
    pub tainted: bool,
    /// Owner of the directory.
    pub owner_uid: u32,
    /// Permission bits of the directory.
    pub mode: u32,
    /// Whether another file system is mounted there, so that the directory cannot be renamed.
    pub mount_point: bool,
    /// The sidecar; `Known(None)`: there is none.
    pub sidecar: Fact<Option<Sidecar>>,
    /// Names set in `postgresql.auto.conf`, which beats every other configuration file.
    pub auto_conf_names: Vec<String>,
}

/// The cluster state in `pg_control` (`DBState` in PostgreSQL's pg_control.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// "starting up"
    StartingUp,
    /// "shut down"
    ShutDown,
    /// "shut down in recovery"
    ShutDownInRecovery,
    /// "shutting down"
    ShuttingDown,
    /// "in crash recovery"
    InCrashRecovery,
    /// "in archive recovery"
    InArchiveRecovery,
    /// "in production": running, or crashed while it was.
    InProduction,
}

/// What we read from `pg_control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// The database's identity.
    pub system_identifier: String,
    /// Its state when last written.
    pub state: ClusterState,
    /// Start of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// The larger of the checkpoint's timeline and the minimum recovery point's: the checkpoint's alone is stale
    /// after a promotion.
    pub timeline: u32,
    /// What a standby must not have lower.
    pub needed: Parameters,
}

/// The parameters that a standby must not have lower than its primary: lower at its start it does not start, raised
/// later it stops replaying, and a promotion then shuts it down (POSTGRES-FACTS 9 and 38).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// `max_connections`
    pub max_connections: u32,
    /// `max_worker_processes`
    pub max_worker_processes: u32,
    /// `max_wal_senders`
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: u32,
}

impl Parameters {
    /// Each with its name.
    pub const fn named(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

/// What the copy is, while no server runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// Nothing is there.
    Empty,
    /// Something is there that is no database.
    NotOurs(String),
    /// A rewind or restore of it was interrupted.
    Tainted,
    /// A copy that was written to.
    Primary {
        /// Its server did not shut down.
        crashed: bool,
    },
    /// A copy that follows another.
    Replica,
    /// A copy in the middle of a recovery from a backup.
    Recovering,
    /// The marks contradict each other: which, in words.
    Unclear(Contradiction),
}

/// What a copy is, in one word of the status document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataState {
    /// See [`Data::Empty`].
    Empty,
    /// See [`Data::NotOurs`].
    NotOurs,
    /// See [`Data::Tainted`].
    Tainted,
    /// See [`Data::Primary`].
    Primary,
    /// See [`Data::Replica`].
    Replica,
    /// See [`Data::Recovering`].
    Recovering,
    /// See [`Data::Unclear`].
    Unclear,
    /// It could not be seen.
    Unknown,
}

impl DataState {
    /// Whether there is a database to copy, or that could be ahead of another.
    pub const fn holds_data(self) -> bool {
        match self {
            Self::Primary | Self::Replica | Self::Recovering => true,
            Self::Empty | Self::NotOurs | Self::Tainted | Self::Unclear | Self::Unknown => false,
        }
    }
}

impl fmt::Display for DataState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::NotOurs => "not a database",
            Self::Tainted => "half-made",
            Self::Primary => "a primary's",
            Self::Replica => "a standby's",
            Self::Recovering => "in the middle of a recovery",
            Self::Unclear => "unclear",
            Self::Unknown => "not visible",
        })
    }
}

impl Data {
    /// The same in one word.
    pub const fn state(&self) -> DataState {
        match self {
            Self::Empty => DataState::Empty,
            Self::NotOurs(_) => DataState::NotOurs,
            Self::Tainted => DataState::Tainted,
            Self::Primary { .. } => DataState::Primary,
            Self::Replica => DataState::Replica,
            Self::Recovering => DataState::Recovering,
            Self::Unclear(_) => DataState::Unclear,
        }
    }
}

/// Marks of a data directory that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Contradiction {
    /// It followed another server, and `standby.signal` is gone. Started like this it would write on a timeline that
    /// the other server writes too (POSTGRES-FACTS 1).
    SignalFileGone,
    /// `backup_label` without a signal file: a copy of which nobody knows whether it is complete, or a primary that
    /// crashed during an exclusive backup.
    BackupLabel,
    /// `pg_control` could not be read: why.
    ControlUnreadable(String),
}

impl DataDirectory {
    /// What the copy is, going by its marks. While a server runs, the server's own word counts instead.
    pub fn state(&self) -> Data {
        match self {
            Self::Empty { .. } => Data::Empty,
            Self::NotOurs(what) => Data::NotOurs(what.clone()),
            Self::Cluster(cluster) => cluster.state(),
        }
    }

    /// The database, if there is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Empty { .. } | Self::NotOurs(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        }
    }
}

impl Cluster {
    /// What the copy is, going by its marks.
    pub fn state(&self) -> Data {
        if self.tainted {
            return Data::Tainted;
        }
        let control = match &self.control {
            Fact::Known(control) => control,
            Fact::Unknown(why) => return Data::Unclear(Contradiction::ControlUnreadable(why.clone())),
        };
        // With both files PostgreSQL enters standby mode.
        match (self.standby_signal, self.recovery_signal) {
            (true, _) => return Data::Replica,
            (false, true) => return Data::Recovering,
            (false, false) => {}
        }
        match control.state {
            ClusterState::ShutDownInRecovery | ClusterState::InArchiveRecovery => {
                Data::Unclear(Contradiction::SignalFileGone)
            }
            _ if self.backup_label => Data::Unclear(Contradiction::BackupLabel),
            ClusterState::ShutDown => Data::Primary { crashed: false },
            ClusterState::StartingUp
            | ClusterState::ShuttingDown
            | ClusterState::InCrashRecovery
            | ClusterState::InProduction => Data::Primary { crashed: true },
        }
    }

    /// The sidecar, if it is there, readable and about this database.
    pub fn trusted_sidecar(&self) -> Option<&Sidecar> {
        let identifier = &self.control.known()?.system_identifier;
        self.sidecar
            .known()?
            .as_ref()
            .filter(|sidecar| sidecar.belongs_to(identifier))
    }
}
