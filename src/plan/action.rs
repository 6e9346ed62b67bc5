//! The vocabulary of a plan: actions, each with its reason. What it waits for or is blocked by: see `end`.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do.

use std::fmt;

use uuid::Uuid;

pub use super::reason::Reason;

use super::blocked::Blocked;
use super::end::{End, Waiting};
use super::recovery::Restore;
use crate::desired::{PeerAddress, Role};
use crate::lineage::{Epoch, Lsn};
use crate::observed::{DataState, Flag, HandedOver, Installation, Moment};

use super::consent::{Grant, Offer};

/// Ordered actions, and what the plan comes to when they are done. Only the first action is ever carried out; then
/// the world is looked at again. The rest is a forecast for people.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Where it stops.
    pub end: End,
    /// What to announce to the other laptop, before and while the steps are taken.
    pub flag: Option<Flag>,
    /// What a person may consent to, so that it goes on all the same.
    pub offer: Option<Box<Offer>>,
    /// What would be good to write, though nothing has to be.
    pub advice: Option<Advice>,
}

/// One action and why it is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Plan {
    /// These steps, and what they come to.
    pub fn new(steps: Vec<Step>, end: End) -> Self {
        Self {
            steps,
            end,
            flag: None,
            offer: None,
            advice: None,
        }
    }

    /// The same, announced.
    pub fn announcing(self, flag: Flag) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    /// The same; a person may consent to this.
    pub(super) fn offering(self, offer: Option<Offer>) -> Self {
        Self {
            offer: offer.map(Box::new),
            ..self
        }
    }

    /// Nothing to do.
    pub fn converged() -> Self {
        Self::new(Vec::new(), End::Converged)
    }

    /// Nothing to do until something happens by itself.
    pub fn waiting(waiting: Waiting) -> Self {
        Self::new(Vec::new(), End::Waiting(waiting))
    }

    /// Nothing to do until a person acts.
    pub fn blocked(blocked: Blocked) -> Self {
        Self::new(Vec::new(), End::Blocked(blocked))
    }

    /// The action to carry out now.
    pub fn first(&self) -> Option<&Step> {
        self.steps.first()
    }
}

/// What would be good to write, although everything is as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// After a failover both laptops are healthy again: which edit makes the new order permanent.
    MakePermanent {
        /// The other laptop's declared role.
        peer: Role,
    },
    /// The restore that was asked for is done.
    Restored {
        /// When, RFC 3339.
        time: String,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakePermanent { peer: Role::Standby } => f.write_str(
                "the other laptop follows again: write `primary` here to make this order permanent",
            ),
            Self::MakePermanent { .. } => f.write_str(
                "the other laptop follows again. To make this order permanent write `primary` here and `standby` there; to \
                 let the other one take over again write `standby` here",
            ),
            Self::Restored { time } => write!(f, "restored at {time}; you may write `primary` now"),
        }
    }
}

/// Something that Paceline can do. Each is idempotent, checks its own preconditions again and verifies its result;
/// none decides anything (see `exec`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a new, empty database with these programs.
    CreateCluster(Installation),
    /// Take over a database that Paceline did not make: write the sidecar beside it; its data is not touched.
    AdoptCluster,
    /// Write the server's configuration files in `home`.
    WriteConfiguration(Box<ConfigurationFiles>),
    /// Take these names out of `postgresql.auto.conf`, which beats every other file.
    PurgeAutoConf(Vec<String>),
    /// Start the server.
    StartServer(Start),
    /// Let the running server read its configuration again.
    ReloadServer {
        /// What it must have loaded afterwards.
        configuration: String,
    },
    /// Copy the other laptop's database, in place of what is here, which is set aside. A server that runs on that goes on
    /// while the copy is made and is stopped when it is complete.
    Clone(Box<CloneSource>),
    /// Unpack a backup beside the data directory, recover it up to the declared moment and to an epoch of its own, and put
    /// it in the place of what is here, which is set aside. No server runs here meanwhile.
    Restore(Box<Restore>),
    /// Bring this copy, a primary's that is down, onto the other laptop's history with pg_rewind; what was only here is
    /// kept. A failure leaves it tainted, and then it is copied anew.
    Rewind(Box<RewindSource>),
    /// Note in `home` that this copy, whose server was shut down, is handed over. Without `standby.signal` it does not
    /// count yet.
    PromiseHandover(HandedOver),
    /// Make this copy, whose server is down, a standby's: from then on it becomes writable only by a promotion.
    PlaceStandbySignal {
        /// Of which database.
        system_identifier: String,
    },
    /// Note in `home` that a person's consent was taken, before anything is done with it.
    RecordConsent(Grant),
    /// Note the names of these epochs beside the data directory, before their timeline is followed.
    RecordEpochs(Vec<Epoch>),
    /// Tell a waiting WAL receiver to try again at once.
    WakeReceiver,
    /// Move a leftover `recovery.signal` beside `standby.signal` aside: it would survive a promotion.
    RemoveRecoverySignal,
    /// Let a paused replay go on, so that everything received is replayed.
    ResumeReplay,
    /// Note the name of the epoch that a promotion would begin: while there is time for it, so that a failover does not
    /// wait for the disk.
    IntendEpoch(Box<Intention>),
    /// End recovery: from then on the server may be written to, on a timeline of its own.
    Promote(Box<Loss>),
    /// Record the name of the epoch that the server writes: sidecar first, then the row.
    NameEpoch,
    /// Create the role and the slot that the other laptop needs, or put them right.
    EnsureReplication(Box<ReplicationNeed>),
    /// Write a checkpoint: before the first one after a promotion the other laptop cannot rewind.
    Checkpoint,
    /// Create the application's role and database, or put them right.
    EnsureDatabase,
    /// Wait until the application, which the closed gate stops, is gone.
    StopApp,
    /// Stop the server: fast; after a long while immediately, never by SIGKILL.
    StopServer,
    /// Stop the server for a handover: fast, so that the standby gets everything, and never otherwise.
    FastShutdown,
    /// Remove the request of this name to restart the server, which was done.
    ForgetRestart(Uuid),
}

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// With these programs.
    pub programs: Installation,
    /// As what: with `standby.signal` a copy is only read, without it is written to. If that file came or went since the
    /// plan was made, nothing is started: a copy never becomes writable by the loss of a file.
    pub standby: bool,
}

/// Where a copy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSource {
    /// The other laptop.
    pub peer: PeerAddress,
    /// Programs of its major version.
    pub programs: Installation,
    /// Which database it must be.
    pub system_identifier: String,
    /// The epoch that it must be writing, or following: the last one of its history.
    pub epoch: Uuid,
    /// What the present content of the data directory is, which must not have changed: it is set aside.
    pub replaces: DataState,
}

/// What a former primary's copy is brought onto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewindSource {
    /// The other laptop.
    pub peer: PeerAddress,
    /// Programs of the data's major version.
    pub programs: Installation,
    /// Which database both are.
    pub system_identifier: String,
    /// The epoch that the other laptop must be writing.
    pub epoch: Uuid,
}

/// The epoch that a promotion would begin. Without a promotion it never exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intention {
    /// Of which database.
    pub system_identifier: String,
    /// The epoch that it branches off.
    pub parent: Option<Uuid>,
    /// The timeline that it leaves.
    pub timeline: u32,
    /// How far the copy goes now; where the epoch begins is known only afterwards.
    pub position: Lsn,
    /// Epochs of the other laptop that a person gave up for it.
    pub supersedes: Vec<Uuid>,
}

/// What a promotion may lose: how far this copy goes, and how far the other laptop was last known to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How far this copy goes; `None`: that is not proven before its server runs.
    pub position: Option<Lsn>,
    /// When the last transaction in this copy was committed.
    pub replayed_until: Option<String>,
    /// The other laptop's last known position.
    pub peer_position: Option<Lsn>,
    /// When it told this daemon that.
    pub peer_silent_since: Option<Moment>,
    /// When it last told an earlier one, RFC 3339.
    pub peer_seen: Option<String>,
}

/// What the other laptop needs on a server that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationNeed {
    /// Role, rights and password are to be put right.
    pub role: bool,
    /// A slot to be made.
    pub create_slot: Option<String>,
    /// Slots of ours that nobody needs any more.
    pub drop_slots: Vec<String>,
}

/// The server's configuration, as it shall be in `home`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFiles {
    /// `postgresql.conf`
    pub postgresql_conf: String,
    /// `pg_hba.conf`
    pub pg_hba: String,
    /// `pg_ident.conf`
    pub pg_ident: String,
    /// Whether the passfile of the server, which has the password of the replication, is to be written as well. It is
    /// no part of the digest: the server reads it whenever it connects.
    pub passfile: bool,
    /// The programs whose parser is to judge it first; `None`: they were not found.
    pub programs: Option<Installation>,
    /// A digest of the three texts, which the server shows as `paceline.configuration` once it has loaded them.
    pub digest: String,
}

impl Action {
    /// A short, stable name for logs and the status document.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateCluster(_) => "create_cluster",
            Self::AdoptCluster => "adopt_cluster",
            Self::WriteConfiguration(_) => "write_configuration",
            Self::PurgeAutoConf(_) => "purge_auto_conf",
            Self::StartServer(_) => "start_server",
            Self::ReloadServer { .. } => "reload_server",
            Self::Clone(_) => "clone",
            Self::Restore(_) => "restore",
            Self::Rewind(_) => "rewind",
            Self::PromiseHandover(_) => "promise_handover",
            Self::PlaceStandbySignal { .. } => "place_standby_signal",
            Self::RecordConsent(_) => "record_consent",
            Self::RecordEpochs(_) => "record_epochs",
            Self::WakeReceiver => "wake_receiver",
            Self::RemoveRecoverySignal => "remove_recovery_signal",
            Self::ResumeReplay => "resume_replay",
            Self::IntendEpoch(_) => "intend_epoch",
            Self::Promote(_) => "promote",
            Self::NameEpoch => "name_epoch",
            Self::EnsureReplication(_) => "ensure_replication",
            Self::Checkpoint => "checkpoint",
            Self::EnsureDatabase => "ensure_database",
            Self::StopApp => "stop_app",
            Self::StopServer => "stop_server",
            Self::FastShutdown => "fast_shutdown",
            Self::ForgetRestart(_) => "forget_restart",
        }
    }

    /// Whether a look at what changes by itself suffices afterwards. On the way to a promotion every millisecond counts.
    pub const fn changes_little(&self) -> bool {
        match self {
            Self::IntendEpoch(_)
            | Self::Promote(_)
            | Self::ResumeReplay
            | Self::RemoveRecoverySignal
            | Self::NameEpoch
            | Self::PromiseHandover(_)
            | Self::RecordConsent(_)
            | Self::ForgetRestart(_)
            | Self::WakeReceiver => true,
            Self::CreateCluster(_)
            | Self::AdoptCluster
            | Self::WriteConfiguration(_)
            | Self::PurgeAutoConf(_)
            | Self::StartServer(_)
            | Self::ReloadServer { .. }
            | Self::Clone(_)
            | Self::Restore(_)
            | Self::Rewind(_)
            | Self::PlaceStandbySignal { .. }
            | Self::RecordEpochs(_)
            | Self::EnsureReplication(_)
            | Self::Checkpoint
            | Self::EnsureDatabase
            | Self::StopApp
            | Self::StopServer
            | Self::FastShutdown => false,
        }
    }

    /// What it is announced by: what stays announced while it runs, whatever is planned meanwhile.
    pub const fn flag(&self) -> Option<Flag> {
        match self {
            Self::Promote(_) => Some(Flag::Taking),
            Self::CreateCluster(_) | Self::Restore(_) | Self::StartServer(Start { standby: false, .. }) => {
                Some(Flag::Starting)
            }
            Self::AdoptCluster
            | Self::WriteConfiguration(_)
            | Self::PurgeAutoConf(_)
            | Self::StartServer(_)
            | Self::ReloadServer { .. }
            | Self::Clone(_)
            | Self::Rewind(_)
            | Self::PromiseHandover(_)
            | Self::PlaceStandbySignal { .. }
            | Self::RecordConsent(_)
            | Self::RecordEpochs(_)
            | Self::WakeReceiver
            | Self::RemoveRecoverySignal
            | Self::ResumeReplay
            | Self::IntendEpoch(_)
            | Self::NameEpoch
            | Self::EnsureReplication(_)
            | Self::Checkpoint
            | Self::EnsureDatabase
            | Self::StopApp
            | Self::StopServer
            | Self::FastShutdown
            | Self::ForgetRestart(_) => None,
        }
    }

    /// Whether it takes long and leaves nothing behind when it is given up.
    pub const fn may_be_given_up(&self) -> bool {
        matches!(self, Self::Clone(_))
    }

    /// Whether it makes, starts or stops the server, so that the gate must not be open beside it.
    pub const fn touches_server(&self) -> bool {
        match self {
            Self::CreateCluster(_)
            | Self::Clone(_)
            | Self::Restore(_)
            | Self::StartServer(_)
            | Self::StopServer
            | Self::FastShutdown
            | Self::StopApp
            | Self::Rewind(_)
            | Self::PromiseHandover(_)
            | Self::PlaceStandbySignal { .. }
            | Self::RemoveRecoverySignal
            | Self::ResumeReplay
            | Self::Promote(_) => true,
            Self::AdoptCluster
            | Self::RecordConsent(_)
            | Self::RecordEpochs(_)
            | Self::IntendEpoch(_)
            | Self::WakeReceiver
            | Self::EnsureReplication(_)
            | Self::Checkpoint
            | Self::WriteConfiguration(_)
            | Self::PurgeAutoConf(_)
            | Self::ReloadServer { .. }
            | Self::NameEpoch
            | Self::ForgetRestart(_)
            | Self::EnsureDatabase => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateCluster(programs) => {
                write!(
                    f,
                    "create a new, empty database with PostgreSQL {}",
                    programs.version
                )
            }
            Self::AdoptCluster => f.write_str("adopt the existing database (its data is not touched)"),
            Self::WriteConfiguration(_) => f.write_str("write the server's configuration"),
            Self::PurgeAutoConf(names) => write!(f, "remove {} from postgresql.auto.conf", names.join(", ")),
            Self::StartServer(start) => write!(f, "start PostgreSQL {}", start.programs.version),
            Self::ReloadServer { .. } => f.write_str("reload the server's configuration"),
            Self::Clone(source) => write!(
                f,
                "copy the database of {} with PostgreSQL {}",
                source.peer.host, source.programs.version
            ),
            Self::Restore(restore) => restore.fmt(f),
            Self::Rewind(source) => write!(
                f,
                "bring this copy onto the history of {} (what is only here is kept)",
                source.peer.host
            ),
            Self::PromiseHandover(_) => f.write_str("note that this copy is handed over"),
            Self::PlaceStandbySignal { .. } => f.write_str("make this copy a standby's"),
            Self::RecordConsent(_) => f.write_str("note that the consent was taken"),
            Self::RecordEpochs(_) => f.write_str("note the name of the epoch that is followed"),
            Self::WakeReceiver => f.write_str("let the standby connect again at once"),
            Self::RemoveRecoverySignal => f.write_str("move recovery.signal aside"),
            Self::ResumeReplay => f.write_str("let the paused replay go on"),
            Self::IntendEpoch(_) => f.write_str("note the name of the epoch that a promotion would begin"),
            Self::Promote(_) => f.write_str("promote the server"),
            Self::EnsureReplication(need) => match &need.create_slot {
                Some(slot) => write!(f, "prepare for the other laptop: role and slot {slot}"),
                None => f.write_str("prepare for the other laptop: role and slots"),
            },
            Self::Checkpoint => f.write_str("write a checkpoint"),
            Self::NameEpoch => f.write_str("record the name of the database's epoch"),
            Self::EnsureDatabase => {
                f.write_str("create the application's database and role, or put them right")
            }
            Self::StopApp => f.write_str("stop the application"),
            Self::StopServer => f.write_str("stop the server"),
            Self::FastShutdown => {
                f.write_str("shut the server down, so that the other laptop has everything")
            }
            Self::ForgetRestart(_) => f.write_str("note that the restart is done"),
        }
    }
}
