//! `role: recovery`: restore the database from a backup, once, then act as primary. Pure.
//!
//! Whether it was done is known from the restored copy itself: the sidecar carries the fingerprint of the `recovery` section
//! that asked for it. A backup that cannot be used is said before anything is stopped for it. The backup is unpacked and
//! recovered beside the data directory, and takes its place only when it is whole; what was there is set aside.

use std::fmt;

use uuid::Uuid;

use super::action::{Action, Advice, Plan, Reason, Start};
use super::blocked::Blocked;
use super::consent::Danger;
use super::end::{End, Waiting};
use super::local::{Situation, cannot_see, step};
use super::pair::{blocked, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use super::primary;
use crate::desired::{Recovery, RecoveryTarget, Role};
use crate::digest::digest;
use crate::lineage::Lineage;
use crate::observed::{BackupKind, Data, DataDirectory, DataState, Fact, Flag, Installation, Peer, Server};

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// How the backup is kept; `None`: there is none, and `restore_command` brings a copy of what is here forward.
    pub kind: Option<BackupKind>,
    /// What a person asked for.
    pub recovery: Recovery,
    /// Names that; see [`fingerprint`].
    pub fingerprint: String,
    /// What the present content of the data directory is, which must not have changed: it is set aside.
    pub replaces: DataState,
    /// The programs there are; which of them fit is known when the backup is unpacked.
    pub installations: Vec<Installation>,
    /// The epochs that this laptop's copy and the other one's hold: what the restored copy does not hold of them, its new
    /// epoch supersedes.
    pub epochs: Vec<Uuid>,
    /// The greatest number of a timeline that either laptop is known to have used: a new one must be greater.
    pub timelines: u32,
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(from), Some(kind)) = (&self.recovery.from, self.kind) {
            write!(f, "restore {from} ({kind})")?;
        } else {
            f.write_str("restore a copy of what is here")?;
        }
        if let Some(command) = &self.recovery.restore_command {
            write!(f, " with WAL by `{command}`")?;
        }
        match &self.recovery.target {
            RecoveryTarget::Latest => f.write_str(", as far as it goes"),
            RecoveryTarget::Immediate => f.write_str(", up to the moment at which the backup was complete"),
            RecoveryTarget::Time(time) => write!(f, ", up to {time}"),
            RecoveryTarget::Lsn(lsn) => write!(f, ", up to {lsn}"),
            RecoveryTarget::Name(name) => write!(f, ", up to the restore point {name:?}"),
            RecoveryTarget::Xid(xid) => write!(f, ", up to transaction {xid}"),
        }?;
        if self.replaces == DataState::Empty {
            return Ok(());
        }
        f.write_str("; what is here is set aside")
    }
}

/// Names a restore: another source, target or request is another restore.
pub fn fingerprint(recovery: &Recovery) -> String {
    let (target, value) = match &recovery.target {
        RecoveryTarget::Latest => ("latest", ""),
        RecoveryTarget::Immediate => ("immediate", ""),
        RecoveryTarget::Time(time) => ("time", time.as_str()),
        RecoveryTarget::Lsn(lsn) => ("lsn", lsn.as_str()),
        RecoveryTarget::Name(name) => ("name", name.as_str()),
        RecoveryTarget::Xid(xid) => ("xid", xid.as_str()),
    };
    digest(&[
        recovery.from.as_ref().map_or("", |from| from.as_str()),
        recovery.restore_command.as_deref().unwrap_or_default(),
        target,
        value,
        &recovery.request,
    ])
}

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    let wanted = situation.desired.recovery.as_ref().map(fingerprint);
    let done = situation
        .observed
        .cluster()
        .and_then(|cluster| cluster.trusted_sidecar())
        .and_then(|sidecar| sidecar.restored.as_ref())
        .filter(|restored| Some(&restored.fingerprint) == wanted.as_ref());
    if let Some(done) = done
        && !matches!(situation.data, Data::Recovering | Data::Tainted)
    {
        return Plan {
            advice: Some(Advice::Restored {
                time: done.time.clone(),
            }),
            ..primary::plan(situation)
        };
    }
    let restore = || situation.restore();
    // Nothing is replaced beside a laptop that may go on with what it has, unless a person consents to it.
    match situation.peer {
        Peer::None => restore(),
        Peer::Unknown(silence) if !silence.settled => waiting(PeerWait::Unsettled(silence.why.clone())),
        Peer::Unknown(silence) => {
            let resting = blocked(PeerBlock::RecoveryPeerSilent(silence.why.clone()));
            match situation.memory_unreadable() {
                Some(unreadable) => unreadable,
                None => situation.by_consent(Danger::Restore, resting, restore),
            }
        }
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Known(facts) => match facts.flag {
            Some(flag) => waiting(PeerWait::Announces(flag)),
            None if facts.role == Some(Role::Standby) && !facts.writable() => restore(),
            None => {
                let resting = blocked(PeerBlock::RecoveryBesidePeer {
                    writes: facts.writable(),
                });
                situation.by_consent(Danger::Restore, resting, restore)
            }
        },
    }
}

impl Situation<'_> {
    /// The way to the restored database, or why it cannot be gone.
    fn restore(&self) -> Plan {
        match self.server {
            Server::Starting => return Plan::waiting(Waiting::ServerStarting),
            Server::Stopping => return Plan::waiting(Waiting::ServerStopping),
            Server::Down | Server::Writable | Server::ReadOnly { .. } => {}
        }
        let Some(recovery) = &self.desired.recovery else {
            return unusable_backup("`recovery` is not declared");
        };
        let path = || self.desired.postgres.data_directory.clone();
        let mounted = match self.observed.data.known() {
            // A server runs, and its directory was taken away under it.
            Some(DataDirectory::Empty { .. }) if self.server != Server::Down => {
                return Plan::blocked(cannot_see(
                    "the data directory",
                    "a server runs, but its database is not there",
                ));
            }
            Some(DataDirectory::Empty { mount_point }) => *mount_point,
            Some(DataDirectory::Cluster(cluster)) => cluster.mount_point,
            Some(DataDirectory::NotOurs(_)) | None => return self.unusable(),
        };
        if mounted {
            return Plan::blocked(Blocked::MountPoint { path: path() });
        }
        if let Some(leftovers) = self.leftovers() {
            return Plan::waiting(leftovers);
        }
        let backup = match &self.observed.backup.fact {
            Fact::Known(backup) => backup.clone(),
            Fact::Unknown(why) => return unusable_backup(why),
        };
        if recovery.from.is_some() != backup.is_some() {
            // The declaration just changed.
            return Plan::waiting(Waiting::BackupUnseen);
        }
        // Without a backup the archive brings this copy forward, so that there has to be one.
        if backup.is_none() && !matches!(self.data, Data::Primary { .. } | Data::Replica) {
            return unusable_backup(
                "with a restore_command alone the copy that is here is brought forward, and there is none that could be",
            );
        }
        let major = match &backup {
            Some(backup) => backup.major,
            None => self.observed.cluster().map(|cluster| cluster.major),
        };
        let newest = match self.installation(major) {
            Ok(programs) => programs.clone(),
            Err(missing) => return Plan::blocked(missing),
        };
        let known = [self.observed.lineage().as_ref(), self.their_lineage()]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<Lineage>>();
        let restore = Restore {
            kind: backup.map(|backup| backup.kind),
            recovery: recovery.clone(),
            fingerprint: fingerprint(recovery),
            replaces: self.data.state(),
            installations: self.observed.installations.known().cloned().unwrap_or_default(),
            epochs: known
                .iter()
                .flat_map(Lineage::held)
                .map(|epoch| epoch.uuid)
                .collect(),
            timelines: known.iter().map(|lineage| lineage.timeline).max().unwrap_or(0),
        };
        let mut steps = self.stop(Reason::RestoreDeclared);
        steps.push(step(Action::Restore(Box::new(restore)), Reason::RestoreDeclared));
        steps.push(step(
            Action::StartServer(Start {
                programs: newest,
                standby: false,
            }),
            Reason::ServerDown,
        ));
        let plan = Plan::new(steps, End::Converged);
        match self.peer {
            Peer::None => plan,
            Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => {
                self.announced(Flag::Starting, plan)
            }
        }
    }
}

fn unusable_backup(why: &str) -> Plan {
    Plan::blocked(Blocked::Backup { why: why.to_owned() })
}
