//! What was measured: plain facts, each `Known` or `Unknown` with the reason, each with the moment it was seen.
//!
//! Probes fill this in and decide nothing; the planner and the gate read it and measure nothing. The few functions
//! here only name what the facts add up to (is this a primary's copy? is the server writable?), so that everybody
//! names it alike.

mod data;
mod server;

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

pub use self::data::{Cluster, ClusterState, Contradiction, ControlData, Data, DataDirectory};
pub use self::server::{Answer, Postmaster, RunningServer, Server, ServerFacts, ServerPhase};
use crate::lineage::{Lineage, Origin};

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
    /// Where it comes from, in case its sidecar gets lost.
    pub origin: Origin,
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
