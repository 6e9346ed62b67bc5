//! `role: primary`: this laptop's database is the one that is written to. Pure.

use super::action::{Plan, Reason};
use super::blocked::Blocked;
use super::consent::Danger;
use super::end::{End, Waiting};
use super::local::Situation;
use super::pair::{block, blocked, wait, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::{AfterCrash, Role};
use crate::lineage::{Position, Relation};
use crate::observed::{Data, DataState, Fact, Flag, Peer, PeerFacts, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.server {
        Server::Writable => situation.serve(End::Converged),
        Server::ReadOnly { .. } if matches!(situation.data, Data::Recovering | Data::Tainted) => {
            situation.unusable()
        }
        Server::ReadOnly { .. } => replica(situation),
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::Down => match &situation.data {
            Data::Empty => empty(situation),
            Data::Tainted => tainted(situation),
            Data::Primary { crashed } => primary(situation, *crashed),
            Data::Replica => replica(situation),
            Data::Recovering | Data::NotOurs(_) | Data::Unclear(_) => situation.unusable(),
        },
    }
}

fn empty(situation: &Situation<'_>) -> Plan {
    let create = || situation.announced(Flag::Starting, situation.create());
    match situation.peer {
        Peer::None => situation.create(),
        Peer::Unknown(silence) if !silence.settled => waiting(PeerWait::Unsettled(silence.why.clone())),
        Peer::Unknown(_) => {
            if let Some(unreadable) = situation.memory_unreadable() {
                unreadable
            } else if situation.peer_had_data() {
                situation.by_consent(Danger::NewDatabase, blocked(PeerBlock::EmptyPeerHadData), create)
            } else if situation.observed.new_database_allowed {
                create()
            } else {
                situation.by_consent(Danger::NewDatabase, blocked(PeerBlock::EmptyPeerSilent), create)
            }
        }
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Known(facts) => match facts.data {
            // Somebody took the directory away from under it.
            DataState::Empty if facts.server != Fact::Known(Server::Down) => waiting(PeerWait::NotServing),
            DataState::Empty => match facts.role {
                Some(Role::Standby) if facts.flag.is_some() => waiting(PeerWait::Announces(Flag::Starting)),
                Some(Role::Standby) => create(),
                Some(Role::Primary | Role::Failover | Role::Recovery) | None => blocked(PeerBlock::BothEmpty),
            },
            DataState::Primary | DataState::Replica if facts.writable() => {
                situation.clone_from(facts, Reason::PeerHasDatabase, wait(PeerWait::Serves))
            }
            DataState::Replica if waits_for_us(facts) => blocked(PeerBlock::EmptyBesideStandby),
            DataState::Primary | DataState::Replica | DataState::Recovering => waiting(PeerWait::NotServing),
            DataState::NotOurs | DataState::Tainted | DataState::Unclear | DataState::Unknown => {
                blocked(PeerBlock::EmptyPeerUnclear(facts.data))
            }
        },
    }
}

fn tainted(situation: &Situation<'_>) -> Plan {
    match situation.peer {
        Peer::Known(facts) if facts.writable() => {
            situation.clone_from(facts, Reason::HalfMade, wait(PeerWait::Serves))
        }
        Peer::Known(facts) if waits_for_us(facts) => blocked(PeerBlock::EmptyBesideStandby),
        Peer::Known(facts) if facts.data.holds_data() => waiting(PeerWait::NotServing),
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => situation.unusable(),
    }
}

/// Whether the other laptop has a standby's copy and follows whoever serves: it would wait for us for ever.
fn waits_for_us(facts: &PeerFacts) -> bool {
    let idle = facts.flag.is_none() && facts.at_rest();
    idle && facts.role == Some(Role::Standby) && facts.data == DataState::Replica
}

/// A primary's copy that is not superseded, and its server is down.
fn primary(situation: &Situation<'_>, crashed: bool) -> Plan {
    let start = || situation.start_writing(crashed, End::Converged);
    match situation.peer {
        Peer::None => start(),
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Unknown(silence) => {
            if !silence.settled {
                return waiting(PeerWait::Unsettled(silence.why.clone()));
            }
            if let Some(unreadable) = situation.memory_unreadable() {
                return unreadable;
            }
            if situation.may_have_taken_over() {
                let resting = blocked(PeerBlock::MayHaveTakenOver);
                return situation.by_consent(Danger::KeepThisCopy, resting, || situation.new_epoch());
            }
            let quarantined = crashed
                && !situation.observed.served
                && situation.a_standby_held_it()
                && situation.desired.safety.after_crash == AfterCrash::Quarantine;
            if quarantined {
                blocked(PeerBlock::Quarantine)
            } else {
                situation.announced(Flag::Starting, start())
            }
        }
        Peer::Known(facts) => {
            if let Some(plan) = situation.must_not_start_beside(facts) {
                return plan;
            }
            // It takes over only if we are provably not ahead.
            let ours_is_less = matches!(
                situation.relation,
                Some(Relation::Same(Position::Behind | Position::Equal))
            );
            let may_promote = matches!(facts.data, DataState::Replica | DataState::Unknown);
            if facts.role == Some(Role::Failover) && may_promote && ours_is_less {
                return waiting(PeerWait::TakesOver);
            }
            situation.announced(Flag::Starting, start())
        }
    }
}

/// A standby's copy on a laptop that is declared primary.
fn replica(situation: &Situation<'_>) -> Plan {
    match situation.peer {
        Peer::None => situation.read_only_with(block(PeerBlock::StandbyCopy)),
        Peer::Unknown(silence) if !silence.settled => {
            situation.read_only_with(wait(PeerWait::Unsettled(silence.why.clone())))
        }
        Peer::Unknown(_) => situation.read_only_with(block(PeerBlock::StandbyCopy)),
        Peer::Unauthenticated { why } => situation.read_only_with(block(situation.unauthenticated(why))),
        Peer::Known(facts) if facts.writable() => situation.follow(facts, wait(PeerWait::Serves)),
        Peer::Known(facts) => beside_a_silent_server(situation, facts),
    }
}

/// Both laptops were off, or the other one holds no primary's copy.
fn beside_a_silent_server(situation: &Situation<'_>, facts: &PeerFacts) -> Plan {
    match (facts.data, facts.role) {
        // That one is never started again.
        (DataState::Primary, _) if situation.is_newer() => {
            situation.read_only_with(block(PeerBlock::PeerSuperseded))
        }
        (DataState::Primary, _) => situation.read_only_with(wait(PeerWait::HoldsPrimary)),
        (DataState::Replica, Some(Role::Standby | Role::Primary)) if facts.handed_over.is_some() => {
            receive(situation, facts)
        }
        (DataState::Replica, Some(Role::Primary)) if situation.observed.handed_over().is_some() => {
            situation.read_only_with(wait(PeerWait::TakesHandover))
        }
        (DataState::Empty | DataState::Tainted | DataState::Replica, Some(Role::Standby)) => {
            // Of a server that runs on it nobody can say what it writes.
            if !facts.at_rest() && facts.data != DataState::Replica {
                return situation.read_only_with(wait(PeerWait::ServerUnclear));
            }
            match situation.ahead() {
                Some(false) if situation.remembered_ahead() => {
                    situation.read_only_with(block(PeerBlock::PeerAhead))
                }
                Some(false) => situation.promote(Reason::PrimaryDeclared),
                Some(true) if matches!(situation.relation, Some(Relation::Same(_))) => {
                    situation.follow_read_only(facts, wait(PeerWait::CatchingUp))
                }
                Some(true) => situation.read_only_with(block(PeerBlock::PeerAhead)),
                None => situation.read_only_with(wait(PeerWait::Unproven)),
            }
        }
        (
            DataState::Empty | DataState::Tainted | DataState::Replica,
            Some(Role::Primary | Role::Failover | Role::Recovery) | None,
        ) => situation.read_only_with(block(PeerBlock::DeclareOtherStandby)),
        (DataState::NotOurs | DataState::Recovering | DataState::Unclear | DataState::Unknown, _) => {
            situation.read_only_with(wait(PeerWait::Unproven))
        }
    }
}

/// The other laptop gave its copy away, to be taken by us.
fn receive(situation: &Situation<'_>, facts: &PeerFacts) -> Plan {
    if situation.holds_all_of(facts) {
        return situation.promote(Reason::HandoverReceived);
    }
    match &situation.relation {
        // Part of it is still on its way, and a standby serves it.
        Some(Relation::Same(_)) => situation.follow_read_only(facts, wait(PeerWait::CatchingUp)),
        Some(
            Relation::Older(_)
            | Relation::Newer(_)
            | Relation::Twins
            | Relation::Stranger
            | Relation::Unknown(_),
        )
        | None => situation.read_only_with(wait(PeerWait::Unproven)),
    }
}

impl Situation<'_> {
    /// A copy that no role can use by itself.
    pub(super) fn unusable(&self) -> Plan {
        let path = || self.desired.postgres.data_directory.clone();
        match &self.data {
            Data::Recovering => Plan::blocked(Blocked::UnfinishedRecovery {
                path: path().join("recovery.signal"),
            }),
            Data::NotOurs(what) => Plan::blocked(Blocked::NotOurs {
                path: path(),
                what: what.clone(),
            }),
            Data::Unclear(contradiction) => Plan::blocked(Blocked::Unclear {
                path: path(),
                contradiction: contradiction.clone(),
            }),
            Data::Tainted | Data::Empty | Data::Primary { .. } | Data::Replica => {
                Plan::blocked(Blocked::Tainted { path: path() })
            }
        }
    }
}
