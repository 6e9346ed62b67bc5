//! What was measured: plain facts, each `Known` or `Unknown` with the reason, each with the moment it was seen.
//!
//! Probes fill this in and decide nothing; the planner and the gate read it and measure nothing. The few functions
//! here only name what the facts add up to (is this a primary's copy? is the server writable?), so that everybody
//! names it alike.

use std::fmt;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::lineage::{Epoch, Lineage, Lsn, Sidecar};

/// A moment, as time since boot (CLOCK_BOOTTIME: suspended time counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment this long after boot.
    pub const fn from_boot(since: Duration) -> Self {
        Self(since)
    }

    /// How long ago `earlier` was; zero if it was not.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment, so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// Something that was looked at: what was seen, or why nothing could be. `Unknown` is never the same as "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// It was seen.
    Known(T),
    /// It could not be seen, and why.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> From<anyhow::Result<T>> for Fact<T> {
    fn from(result: anyhow::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(format!("{error:#}")),
        }
    }
}

/// A fact and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// What was seen.
    pub fact: Fact<T>,
    /// When.
    pub at: Moment,
}

impl<T> Seen<T> {
    /// Puts a fact together with its moment.
    pub fn new(fact: Fact<T>, at: Moment) -> Self {
        Self { fact, at }
    }

    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        self.fact.known()
    }

    /// How old the fact is.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.at)
    }
}

/// Everything that was measured, at one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The data directory and what lies beside it.
    pub data: Seen<DataDirectory>,
    /// The server's process.
    pub postmaster: Seen<Postmaster>,
    /// What the server says of itself.
    pub server: Seen<Answer>,
    /// The configuration files in `home`.
    pub configuration: Seen<Configuration>,
    /// The application's database inside the server; `Unknown` unless the server is writable.
    pub database: Seen<DatabaseFacts>,
    /// The PostgreSQL programs on this laptop.
    pub installations: Seen<Vec<Installation>>,
    /// The database that `home` remembers to have been in the data directory; `Known(None)`: none ever was.
    pub remembered: Seen<Option<Remembered>>,
    /// The user that the server runs as; `Known(None)`: there is no such user.
    pub server_user: Seen<Option<ServerUser>>,
    /// The other laptop.
    pub peer: Peer,
    /// The gated application.
    pub app: AppFacts,
    /// Whether this daemon has seen the server writable: one that is down now went down under its eyes.
    pub served: bool,
    /// Whether the daemon was asked to end (SIGTERM).
    pub ending: bool,
}

/// What `home` remembers of the data directory, so that an unmounted disk is not taken for a new laptop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which database.
    pub system_identifier: String,
    /// Where it was.
    pub data_directory: Utf8PathBuf,
}

impl Remembered {
    /// The file in `home`.
    pub const FILE: &'static str = "database.json";
}

/// The user that the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
}

/// One set of PostgreSQL programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// Where its programs are.
    pub bin_directory: Utf8PathBuf,
    /// Its major version.
    pub major: u32,
    /// What it calls itself, such as `15.18`.
    pub version: String,
}

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
    fn state(&self) -> Data {
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
    /// Position written or replayed.
    pub lsn: Lsn,
    /// `server_version`.
    pub version: String,
    /// The configuration it has loaded: `paceline.configuration`; `None`: not one of ours.
    pub configuration: Option<String>,
    /// Settings that wait for a restart.
    pub pending_restart: Vec<String>,
    /// Mistakes in its configuration files, in its words.
    pub configuration_errors: Vec<String>,
    /// The rows of `paceline.epoch`, oldest first; empty also when there is no such table.
    pub epochs: Vec<Epoch>,
}

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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

/// The configuration files that Paceline writes, as text; `None`: missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// `postgresql.conf`
    pub postgresql_conf: Option<String>,
    /// `pg_hba.conf`
    pub pg_hba: Option<String>,
    /// `pg_ident.conf`
    pub pg_ident: Option<String>,
    /// Lines of the own files of an adopted cluster that stay in force.
    pub adopted_hba: Option<String>,
    /// Likewise of its `pg_ident.conf`.
    pub adopted_ident: Option<String>,
    /// This laptop's time zone, by its IANA name, if it is known.
    pub time_zone: Option<String>,
    /// The system's own socket directory, if the server's user may use it (`/var/run/postgresql`).
    pub system_socket_directory: Option<Utf8PathBuf>,
}

/// The application's database, role and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// For which declaration this was looked up: database and owner.
    pub about: (String, String),
    /// The role exists.
    pub role: bool,
    /// The owner of the database; `None`: the database does not exist.
    pub owner: Option<String>,
    /// Whether the role can log in with the password in the file.
    pub login: Login,
}

/// Whether the application's role can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// It can.
    Works,
    /// The server refuses the password.
    WrongPassword,
    /// There is no password file.
    NoPasswordFile,
    /// The password file is there and cannot be used: why.
    BadPasswordFile(String),
    /// Not tried, because the role or the database does not exist.
    NotTried,
    /// The login failed in another way: the server's words.
    Failed(String),
}

/// The other laptop, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// There is none and never was.
    None,
    /// It cannot be seen.
    Unknown {
        /// Why.
        why: String,
    },
}

/// The gated application, as its supervisor knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppFacts {
    /// What it is doing.
    pub state: AppState,
    /// How often it ended by itself since it last ran for a minute.
    pub failures: u32,
    /// How it last ended, in words.
    pub last_end: Option<String>,
}

/// What the application is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AppState {
    /// Not running.
    #[default]
    Stopped,
    /// Running.
    Running {
        /// Its process id.
        pid: i32,
        /// The port that was filled in for `{port}`.
        port: u16,
        /// Digest of the declaration it was started from.
        declaration: String,
        /// Since when.
        since: Moment,
    },
    /// Asked to stop, not gone yet.
    Stopping,
    /// It ended by itself, or could not be started; not before this moment it is started again.
    BackingOff {
        /// When the next start is due.
        until: Moment,
    },
}

impl AppState {
    /// Whether any process of the application may be alive.
    pub fn alive(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Stopping)
    }
}

impl Observed {
    /// What the server is doing: its own word where it gave one, otherwise the process's.
    pub fn server_state(&self) -> Fact<Server> {
        let running = match &self.postmaster.fact {
            Fact::Known(Postmaster::Down { .. }) => return Fact::Known(Server::Down),
            Fact::Known(Postmaster::Running(running)) => running,
            Fact::Unknown(why) => return Fact::Unknown(why.clone()),
        };
        match running.phase {
            ServerPhase::Stopping => return Fact::Known(Server::Stopping),
            ServerPhase::Starting => return Fact::Known(Server::Starting),
            ServerPhase::Ready => {}
        }
        match &self.server.fact {
            Fact::Known(Answer::Facts(facts)) if facts.in_recovery || facts.read_only => {
                Fact::Known(Server::ReadOnly {
                    streaming: facts.streaming,
                })
            }
            Fact::Known(Answer::Facts(_)) => Fact::Known(Server::Writable),
            Fact::Known(Answer::Refused(why)) => Fact::Unknown(format!("the server turned us away: {why}")),
            Fact::Known(Answer::NotAsked) => Fact::Unknown("the server was not asked yet".to_owned()),
            Fact::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// What the server said of itself, if it answered.
    pub fn server_facts(&self) -> Option<&ServerFacts> {
        match self.server.known()? {
            Answer::Facts(facts) => Some(facts),
            Answer::Refused(_) | Answer::NotAsked => None,
        }
    }

    /// The running server, if one was verified.
    pub fn running(&self) -> Option<&RunningServer> {
        match self.postmaster.known()? {
            Postmaster::Running(running) => Some(running),
            Postmaster::Down { .. } => None,
        }
    }

    /// The database on disk, if there is one and it was seen.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.data.known()?.cluster()
    }

    /// Which history the copy holds: the server's own word where it answers, otherwise what lies on disk.
    pub fn lineage(&self) -> Option<Lineage> {
        if let Some(facts) = self.server_facts() {
            return Some(Lineage {
                system_identifier: facts.system_identifier.clone(),
                epochs: facts.epochs.clone(),
                timeline: facts.timeline,
                position: Some(facts.lsn),
            });
        }
        let cluster = self.cluster()?;
        let control = cluster.control.known()?;
        Some(Lineage {
            system_identifier: control.system_identifier.clone(),
            epochs: cluster
                .trusted_sidecar()
                .map(|sidecar| sidecar.epochs.clone())
                .unwrap_or_default(),
            timeline: control.timeline,
            // A clean shutdown ends with its checkpoint.
            position: (cluster.state() == Data::Primary { crashed: false }).then_some(control.checkpoint),
        })
    }

    /// Whether the timeline that the server writes has a recorded name. Only meaningful while it answers.
    pub fn timeline_named(&self) -> bool {
        self.server_facts()
            .is_some_and(|facts| facts.epochs.iter().any(|epoch| epoch.timeline == facts.timeline))
    }
}
