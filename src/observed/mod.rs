//! What was measured: plain facts, each `Known` or `Unknown` with the reason, each with the moment it was seen.
//!
//! Probes fill this in and decide nothing; the planner and the gate read it and measure nothing. The few functions
//! here only name what the facts add up to (is this a primary's copy? is the server writable?), so that everybody
//! names it alike.

mod backup;
mod data;
mod peer;
mod promise;
mod server;

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

pub use self::backup::{Backup, BackupKind};
pub use self::data::{
    Cluster, ClusterState, Contradiction, ControlData, Data, DataDirectory, DataState, Parameters,
};
pub use self::peer::{
    FAILED_ATTEMPTS, Failed, Failing, Flag, KNOWN_FOR, Link, Peer, PeerFacts, PeerMemory, SeesUs, Silence,
    Unanswered,
};
pub use self::promise::{Consents, HandedOver};
pub use self::server::{
    Answer, PendingSetting, Postmaster, ReplicationFacts, RestartAsked, RestartRequest, RunningServer,
    Server, ServerFacts, ServerPhase, Slot,
};
use crate::lineage::{Epoch, Lineage, Lsn, Origin, Relation, relation};

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
    /// What the other laptop needs of our server; `Unknown` unless the server is writable and a peer is declared.
    pub replication: Seen<ReplicationFacts>,
    /// The password that both laptops share.
    pub secret: Seen<Secret>,
    /// The other laptop.
    pub peer: Peer,
    /// What `home` remembers of it.
    pub peer_memory: Seen<Option<PeerMemory>>,
    /// The note in `home` that this copy was handed over; it counts only as [`Observed::handed_over`] says.
    pub handover_intention: Seen<Option<HandedOver>>,
    /// What persons consented to.
    pub consents: Seen<Consents>,
    /// What we announce, and since when: shown to the other laptop before it is done.
    pub flag: Option<(Flag, Moment)>,
    /// A person allowed a new, empty database here although the other laptop does not answer (`paceline init`).
    pub new_database_allowed: bool,
    /// The backup at `recovery: from:`; `Known(None)`: none is declared, or nothing is to be restored.
    pub backup: Seen<Option<Backup>>,
    /// A restart of the server that a person asked for.
    pub restart: Seen<Option<RestartAsked>>,
    /// The trigger file of the older container set exists.
    pub triggered: bool,
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
    /// The configuration that PostgreSQL's own parser refused last; it was not written.
    pub refused: Option<Refused>,
    /// What was taken out of `postgresql.auto.conf` lately.
    pub purged: Option<Purged>,
}

/// A configuration that PostgreSQL's own parser refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which one, by its digest.
    pub configuration: String,
    /// By which version; another one may judge otherwise.
    pub version: String,
    /// In its words.
    pub errors: Vec<String>,
}

impl Refused {
    /// The file beside the configuration.
    pub const FILE: &'static str = "refused.json";
}

/// What was taken out of `postgresql.auto.conf`, where it would have won over the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The settings.
    pub names: Vec<String>,
    /// When, RFC 3339; for people.
    pub time: String,
}

impl Purged {
    /// The file beside the configuration.
    pub const FILE: &'static str = "purged.json";
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

/// The password of the role as which one laptop logs in to the other's server. Never the password itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// There is no such file.
    Missing,
    /// The file cannot be used: why.
    Bad(String),
    /// It is there.
    There {
        /// The server's passfile in `home` has it.
        passfile_current: bool,
    },
}

/// The file in `home` by which a person allows a new, empty database although the other laptop does not answer.
pub const NEW_DATABASE_FILE: &str = "new-database";

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
        let cluster = self.cluster()?;
        if let Some(facts) = self.server_facts() {
            // A standby gets a row some time after the timeline that it names; the sidecar had the name before.
            let recorded = cluster.trusted_sidecar().filter(|_| facts.in_recovery);
            let mut epochs = facts.epochs.clone();
            for epoch in recorded.map_or(&[][..], |sidecar| &sidecar.epochs) {
                if !epochs.iter().any(|row| row.uuid == epoch.uuid) {
                    epochs.push(epoch.clone());
                }
            }
            epochs.sort_by_key(|epoch| (epoch.timeline, epoch.begin_lsn));
            return Some(Lineage {
                system_identifier: facts.system_identifier.clone(),
                epochs,
                timeline: facts.timeline,
                position: facts.position_proven.then_some(facts.lsn),
            });
        }
        let control = cluster.control.known()?;
        let sidecar = cluster.trusted_sidecar();
        let mut epochs = sidecar.map(|sidecar| sidecar.epochs.clone()).unwrap_or_default();
        // A promotion that ended before its row was written: the intention is the name. (A standby's names nothing yet.)
        if !cluster.standby_signal
            && let Some(intended) = sidecar.and_then(|sidecar| sidecar.intended.as_ref())
            && intended.parent == epochs.last().map(|epoch| epoch.uuid)
            && epochs.iter().all(|epoch| epoch.timeline < control.timeline)
        {
            epochs.push(Epoch {
                timeline: control.timeline,
                ..intended.clone()
            });
        }
        Some(Lineage {
            system_identifier: control.system_identifier.clone(),
            epochs,
            timeline: control.timeline,
            // pg_control names the start of the shutdown record (POSTGRES-FACTS 33); the copy goes on beyond that.
            position: (cluster.state() == Data::Primary { crashed: false })
                .then_some(Lsn(control.checkpoint.0 + 1)),
        })
    }

    /// How our copy stands to the other laptop's: to what it says, or, while it is silent, to what `home` remembers of
    /// it. `None`: one of the two has no history.
    pub fn relation(&self) -> Option<Relation> {
        let ours = self.lineage()?;
        let (theirs, writable) = match &self.peer {
            Peer::Known(facts) => (facts.lineage.as_ref(), facts.writable()),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => {
                (self.remembered_lineage(), false)
            }
        };
        let relation = relation(&ours, theirs?);
        let both_write = writable && self.server_state() == Fact::Known(Server::Writable);
        Some(match relation {
            Relation::Same(_) if both_write => Relation::Twins,
            relation => relation,
        })
    }

    /// Whether the other laptop, by its word or by what `home` remembers, has epochs that a primary's copy here lacks:
    /// such a copy must not be written to any more.
    pub fn superseded(&self) -> bool {
        let older = |relation: Option<Relation>| matches!(relation, Some(Relation::Older(_)));
        let by_memory = || Some(relation(&self.lineage()?, self.remembered_lineage()?));
        older(self.relation()) || older(by_memory())
    }

    fn remembered_lineage(&self) -> Option<&Lineage> {
        self.peer_memory.known()?.as_ref()?.lineage.as_ref()
    }

    /// Whether this copy was handed over and not taken since: the intention names it, its last checkpoint is the one that
    /// was promised, and `standby.signal` exists. It ends when the copy follows a newer epoch, promotes, is started as a
    /// primary's (and writes another checkpoint) or is replaced.
    pub fn handed_over(&self) -> Option<&HandedOver> {
        let intention = self.handover_intention.known()?.as_ref()?;
        let cluster = self
            .cluster()
            .filter(|cluster| cluster.state() == Data::Replica)?;
        let sidecar = cluster.trusted_sidecar()?;
        let last = sidecar.epochs.last()?;
        // A promise that was made before the copy was written to again promises less than is there by now.
        let checkpoint = cluster.control.known()?.checkpoint;
        let writes = self.server_facts().is_some_and(|facts| !facts.in_recovery);
        (!writes
            && checkpoint == intention.shutdown_checkpoint_lsn
            && sidecar.system_identifier == intention.system_identifier
            && last.uuid == intention.epoch)
            .then_some(intention)
    }

    /// How many bytes we are behind the other laptop, measured against its own position: ours alone cannot tell
    /// (a WAL receiver that died keeps its last figures for ever). `None`: one of the two is not known.
    pub fn lag(&self) -> Option<u64> {
        let Peer::Known(peer) = &self.peer else {
            return None;
        };
        let theirs = peer.lineage.as_ref().filter(|_| peer.writable())?.position?;
        let facts = self.server_facts().filter(|facts| facts.in_recovery)?;
        Some(theirs.0.saturating_sub(facts.lsn.0))
    }

    /// How many bytes the other laptop's copy is behind ours, while that is written to and the other one answers.
    pub fn peer_lag(&self) -> Option<u64> {
        let Peer::Known(peer) = &self.peer else {
            return None;
        };
        let theirs = peer.lineage.as_ref().filter(|_| !peer.writable())?.position?;
        let ours = self.server_facts().filter(|facts| !facts.in_recovery)?;
        Some(ours.lsn.0.saturating_sub(theirs.0))
    }

    /// Whether the timeline that the server writes has a recorded name. Only meaningful while it answers.
    pub fn timeline_named(&self) -> bool {
        self.server_facts()
            .is_some_and(|facts| facts.epochs.iter().any(|epoch| epoch.timeline == facts.timeline))
    }
}
