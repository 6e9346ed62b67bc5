//! `role: failover`: the operator says that the other laptop is gone. Pure.

use super::action::{Advice, Plan, Reason};
use super::blocked::Blocked;
use super::consent::Danger;
use super::end::{End, Waiting};
use super::local::Situation;
use super::pair::{block, blocked, wait, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::Role;
use crate::lineage::{Held, Relation};
use crate::observed::{Data, DataState, Fact, Flag, Peer, PeerFacts, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.server {
        Server::Writable => Plan {
            advice: permanent(situation),
            ..situation.serve(End::Converged)
        },
        Server::ReadOnly { .. } if matches!(situation.data, Data::Recovering | Data::Tainted) => {
            situation.unusable()
        }
        Server::ReadOnly { .. } => replica(situation),
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::Down => match &situation.data {
            Data::Primary { crashed } => primary(situation, *crashed),
            Data::Replica => replica(situation),
            Data::Empty => Plan::blocked(Blocked::NothingToFailOverTo),
            Data::Tainted => tainted(situation),
            Data::Recovering | Data::NotOurs(_) | Data::Unclear(_) => situation.unusable(),
        },
    }
}

/// The failover is over when the other laptop follows again; the word `failover` would go on to mean that it is gone.
fn permanent(situation: &Situation<'_>) -> Option<Advice> {
    match situation.peer {
        Peer::Known(facts) if facts.server == Fact::Known(Server::ReadOnly { streaming: true }) => {
            facts.role.map(|peer| Advice::MakePermanent { peer })
        }
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => None,
    }
}

fn tainted(situation: &Situation<'_>) -> Plan {
    match situation.peer {
        Peer::Known(facts) if facts.writable() => {
            situation.clone_from(facts, Reason::HalfMade, block(PeerBlock::PeerAlive))
        }
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => situation.unusable(),
    }
}

/// A primary's copy that is not superseded, and its server is down. It is never quarantined: a person said that the
/// other laptop is gone.
fn primary(situation: &Situation<'_>, crashed: bool) -> Plan {
    let start = || situation.announced(Flag::Starting, situation.start_writing(crashed, End::Converged));
    match situation.peer {
        Peer::None => situation.start_writing(crashed, End::Converged),
        Peer::Unknown(silence) if !silence.settled => waiting(PeerWait::Unsettled(silence.why.clone())),
        Peer::Unknown(_) | Peer::Unauthenticated { .. } => {
            if let Some(unreadable) = situation.memory_unreadable() {
                unreadable
            } else if situation.may_have_taken_over() {
                keep(situation, blocked(PeerBlock::MayHaveTakenOver))
            } else {
                start()
            }
        }
        Peer::Known(facts) => situation.must_not_start_beside(facts).unwrap_or_else(start),
    }
}

fn replica(situation: &Situation<'_>) -> Plan {
    if matches!(
        situation.relation,
        Some(Relation::Older(Held::Something | Held::Unproven))
    ) && situation.server != Server::Down
        && !matches!(situation.peer, Peer::Unknown(silence) if !silence.settled)
    {
        let served = matches!(situation.peer, Peer::Known(facts) if facts.writable());
        let forked = situation.read_only_with(block(PeerBlock::Forked { served }));
        return keep(situation, forked);
    }
    match situation.peer {
        Peer::None => situation.promote(Reason::FailoverDeclared),
        Peer::Unknown(silence) if !silence.settled => {
            situation.read_only_with(wait(PeerWait::Unsettled(silence.why.clone())))
        }
        // It may say that this copy is forked.
        Peer::Unknown(_) => match situation.memory_unreadable() {
            Some(unreadable) => situation.read_only_with(unreadable.end),
            None => situation.promote(Reason::FailoverDeclared),
        },
        Peer::Unauthenticated { why } => {
            let end = block(situation.unauthenticated(why));
            match situation.memory_unreadable() {
                Some(unreadable) => situation.read_only_with(unreadable.end),
                None => keep(situation, situation.read_only_with(end)),
            }
        }
        Peer::Known(facts) if facts.writable() => {
            keep(situation, situation.read_only_with(block(PeerBlock::PeerAlive)))
        }
        Peer::Known(facts) => beside_a_silent_server(situation, facts),
    }
}

/// The other laptop answers, but is not written to.
fn beside_a_silent_server(situation: &Situation<'_>, facts: &PeerFacts) -> Plan {
    match (facts.role, facts.data) {
        // One that we superseded is never started.
        (Some(Role::Failover), DataState::Primary) if !situation.is_newer() => {
            return situation.read_only_with(wait(PeerWait::HoldsPrimary));
        }
        (Some(Role::Failover), DataState::Replica) if situation.holds_all_of(facts) => {
            return situation.promote(Reason::HandoverReceived);
        }
        (Some(Role::Failover), DataState::Replica)
            if situation.observed.handed_over().is_some() && facts.handed_over.is_none() =>
        {
            return situation.read_only_with(wait(PeerWait::TakesHandover));
        }
        (Some(Role::Failover), DataState::Replica) => {
            return situation.read_only_with(block(PeerBlock::BothFailover));
        }
        (
            Some(Role::Primary | Role::Standby | Role::Failover | Role::Recovery) | None,
            DataState::Empty
            | DataState::NotOurs
            | DataState::Tainted
            | DataState::Primary
            | DataState::Replica
            | DataState::Recovering
            | DataState::Unclear
            | DataState::Unknown,
        ) => {}
    }
    if !facts.at_rest() && facts.data != DataState::Replica {
        return situation.read_only_with(wait(PeerWait::ServerUnclear));
    }
    match situation.ahead() {
        Some(false) => situation.promote(Reason::FailoverDeclared),
        Some(true) | None => keep(situation, situation.read_only_with(block(PeerBlock::PeerAhead))),
    }
}

/// What a person may consent to here: that this copy goes on as it is, and what only the other laptop has is given up.
fn keep(situation: &Situation<'_>, resting: Plan) -> Plan {
    // Whoever is on the way to rest is not asked yet.
    if resting.steps.is_empty() {
        situation.by_consent(Danger::KeepThisCopy, resting, || situation.new_epoch())
    } else {
        resting
    }
}
