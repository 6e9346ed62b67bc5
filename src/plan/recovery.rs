//! `role: recovery`: restore the database from a backup, once, then act as primary. Pure.
//!
//! Whether it was done is known from the restored copy itself: the sidecar carries the fingerprint of the `recovery` section
//! that asked for it. The restore itself is not supported yet: where nothing else stands in its way that is said, nothing is
//! touched, and a server that runs goes on.

use super::action::{Advice, Plan};
use super::blocked::Blocked;
use super::local::Situation;
use super::pair::{blocked, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use super::primary;
use crate::desired::{Recovery, RecoveryTarget, Role};
use crate::digest::digest;
use crate::observed::{Data, Peer};

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
        && situation.data != Data::Recovering
    {
        return Plan {
            advice: Some(Advice::Restored {
                time: done.time.clone(),
            }),
            ..primary::plan(situation)
        };
    }
    let not_supported = Plan::blocked(Blocked::NotSupported {
        what: "restoring from a backup (role: recovery)",
    });
    // Nothing is replaced beside a laptop that may go on with what it has.
    match situation.peer {
        Peer::None => not_supported,
        Peer::Unknown(silence) if !silence.settled => waiting(PeerWait::Unsettled(silence.why.clone())),
        Peer::Unknown(silence) => blocked(PeerBlock::RecoveryPeerSilent(silence.why.clone())),
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Known(facts) => match facts.flag {
            Some(flag) => waiting(PeerWait::Announces(flag)),
            None if facts.role == Some(Role::Standby) && !facts.writable() => not_supported,
            None => blocked(PeerBlock::RecoveryBesidePeer {
                writes: facts.writable(),
            }),
        },
    }
}
