//! `role: standby`: this laptop follows the other one. Pure.
//!
//! A pushed file that says `standby` cannot take the event down: a writable server hands over as soon as there is
//! somebody to hand over to, and keeps serving until then (see `handover`).

use super::action::{Plan, Reason};
use super::blocked::Blocked;
use super::end::{End, Waiting};
use super::local::Situation;
use super::pair::{block, blocked, wait, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::Role;
use crate::observed::{Data, DataState, Flag, Peer, PeerFacts, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.server {
        Server::Writable => situation.give(),
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::ReadOnly { .. } if matches!(situation.data, Data::Recovering | Data::Tainted) => {
            situation.unusable()
        }
        Server::ReadOnly { .. } => replica(situation),
        Server::Down => match &situation.data {
            Data::Empty => empty(situation, Reason::PeerHasDatabase),
            Data::Tainted => empty(situation, Reason::HalfMade),
            Data::Replica => replica(situation),
            Data::Primary { crashed } => primary(situation, *crashed),
            Data::Recovering | Data::NotOurs(_) | Data::Unclear(_) => situation.unusable(),
        },
    }
}

/// No copy, or a half-made one.
fn empty(situation: &Situation<'_>, reason: Reason) -> Plan {
    match situation.peer {
        Peer::None => Plan::blocked(Blocked::StandbyWithoutPeer),
        Peer::Unknown(silence) => waiting(PeerWait::Unreachable(silence.why.clone())),
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Known(facts) if facts.writable() => situation.clone_from(facts, reason, End::Converged),
        Peer::Known(facts) if facts.data.holds_data() => waiting(PeerWait::NotServing),
        Peer::Known(facts) if facts.role == Some(Role::Standby) => blocked(PeerBlock::BothStandby),
        Peer::Known(_) => waiting(PeerWait::NoDatabaseYet),
    }
}

fn replica(situation: &Situation<'_>) -> Plan {
    match situation.peer {
        Peer::None => situation.read_only_with(End::Blocked(Blocked::StandbyWithoutPeer)),
        Peer::Unknown(silence) => {
            let away = wait(PeerWait::Away(silence.why.clone()));
            let end = situation.nobody_took().filter(|_| silence.settled);
            situation.read_only_with(end.unwrap_or(away))
        }
        Peer::Unauthenticated { why } => situation.read_only_with(block(situation.unauthenticated(why))),
        Peer::Known(facts) if facts.writable() => situation.follow(facts, End::Converged),
        Peer::Known(facts) => beside_a_silent_server(situation, facts),
    }
}

/// The other laptop answers, but is not written to.
fn beside_a_silent_server(situation: &Situation<'_>, facts: &PeerFacts) -> Plan {
    if let Some(plan) = situation.take_back(facts) {
        return plan;
    }
    let end = match (facts.role, facts.data) {
        // That one is never started again.
        (_, DataState::Primary) if situation.is_newer() => block(PeerBlock::PeerSuperseded),
        (Some(Role::Standby), DataState::Primary) => wait(PeerWait::NotServing),
        (Some(Role::Standby), _) => block(PeerBlock::BothStandby),
        (Some(Role::Primary | Role::Failover), DataState::Replica)
            if situation.observed.handed_over().is_some() =>
        {
            wait(PeerWait::TakesHandover)
        }
        (Some(Role::Primary | Role::Failover | Role::Recovery) | None, _) => wait(PeerWait::NotServing),
    };
    situation.read_only_with(end)
}

/// A primary's copy that is not superseded, and its server is down.
fn primary(situation: &Situation<'_>, crashed: bool) -> Plan {
    let start = || {
        let then = End::Waiting(Waiting::NoSuccessor);
        situation.announced(Flag::Starting, situation.start_writing(crashed, then))
    };
    // It went down under our eyes, so no other laptop was writing meanwhile.
    let served = situation.observed.served;
    match situation.peer {
        Peer::None if served => situation.start_writing(crashed, End::Waiting(Waiting::NoSuccessor)),
        Peer::None => Plan::blocked(Blocked::StandbyWithoutPeer),
        Peer::Unauthenticated { why } => blocked(situation.unauthenticated(why)),
        Peer::Unknown(silence) if !silence.settled => waiting(PeerWait::Unsettled(silence.why.clone())),
        Peer::Unknown(_) => match situation.memory_unreadable() {
            Some(unreadable) => unreadable,
            None if served && !situation.may_have_taken_over() => start(),
            None => blocked(PeerBlock::PrimaryCopy),
        },
        Peer::Known(facts) => {
            if !facts.at_rest() && situation.is_newer() {
                return waiting(PeerWait::StepsDown);
            }
            if let Some(plan) = situation.finish_handover(facts) {
                return plan;
            }
            if situation.may_be_a_successor(facts) {
                return waiting(PeerWait::ServerUnclear);
            }
            if let Some(plan) = situation.must_not_start_beside(facts) {
                return plan;
            }
            if facts.role == Some(Role::Failover)
                && matches!(facts.data, DataState::Replica | DataState::Unknown)
            {
                return waiting(PeerWait::TakesOver);
            }
            start()
        }
    }
}
