//! What the roles share where there is another laptop: what is remembered of it, the announcement before a server becomes
//! writable, who gives way, who holds more, and what it needs of our server. Pure.

use std::time::Duration;

use super::action::{Action, Plan, Reason, ReplicationNeed, Step};
use super::blocked::Blocked;
use super::configuration::slot_name;
use super::end::{End, Waiting};
use super::local::{Situation, cannot_see, step};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::{Durability, Role};
use crate::lineage::{Lineage, Position, Relation, relation};
use crate::observed::{DataState, Fact, Flag, Login, Peer, PeerFacts, PeerMemory, Server, ServerFacts, Slot};

/// A standby that is no further behind than this counts as level (the handover demands the same).
pub const HARMLESS_LAG: u64 = 1 << 20;

/// How long a promoter waits for the other laptop to repeat its flag. One that does not in this time counts as silent.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn waiting(wait: PeerWait) -> Plan {
    Plan::waiting(Waiting::Peer(wait))
}

pub(super) fn blocked(block: PeerBlock) -> Plan {
    Plan::blocked(Blocked::Peer(block))
}

pub(super) fn wait(wait: PeerWait) -> End {
    End::Waiting(Waiting::Peer(wait))
}

pub(super) fn block(block: PeerBlock) -> End {
    End::Blocked(Blocked::Peer(block))
}

impl Situation<'_> {
    /// What `home` remembers of the other laptop. Where that cannot be read nothing may depend on it: see
    /// [`Self::memory_unreadable`].
    pub(super) fn memory(&self) -> Option<&PeerMemory> {
        self.observed.peer_memory.known()?.as_ref()
    }

    /// While the other laptop is silent only the memory says what it was about to do.
    pub(super) fn memory_unreadable(&self) -> Option<Plan> {
        match (&self.observed.peer_memory.fact, self.peer) {
            (Fact::Unknown(why), Peer::Unknown(_) | Peer::Unauthenticated { .. }) => Some(Plan::blocked(
                cannot_see("what home remembers of the other laptop", why),
            )),
            (Fact::Unknown(_), Peer::None | Peer::Known(_)) | (Fact::Known(_), _) => None,
        }
    }

    /// Whether the other laptop, when last seen, was taking over, or a standby that was told to, or had just done so:
    /// between a promotion and its name there is a moment in which it announces nothing and cannot be compared.
    pub(super) fn may_have_taken_over(&self) -> bool {
        let ours = self.observed.lineage().map(|lineage| lineage.timeline);
        let unnamed = |theirs: &Lineage| {
            Some(theirs.timeline) >= ours
                && theirs
                    .epochs
                    .iter()
                    .all(|epoch| epoch.timeline != theirs.timeline)
        };
        self.memory().is_some_and(|memory| {
            memory.flag == Some(Flag::Taking)
                || (memory.data == DataState::Replica && memory.role == Some(Role::Failover))
                || (memory.data == DataState::Primary && memory.lineage.as_ref().is_some_and(unnamed))
        })
    }

    /// Whether a standby ever held this copy's history, so that it may have taken over.
    pub(super) fn a_standby_held_it(&self) -> bool {
        let ours = self.observed.lineage().map(|lineage| lineage.system_identifier);
        self.memory()
            .and_then(|memory| memory.lineage.as_ref())
            .is_some_and(|theirs| Some(&theirs.system_identifier) == ours.as_ref())
    }

    pub(super) fn unauthenticated(&self, why: &str) -> PeerBlock {
        PeerBlock::Unauthenticated {
            why: why.to_owned(),
            secret: self.desired.replication.password_file.clone(),
        }
    }

    /// Two fresh looks do not exclude each other's act. So a server becomes writable in this order: announce it; fetch the
    /// other laptop's answer to that; decide again; act. While the other laptop is silent there is nothing to fetch.
    pub(super) fn announced(&self, flag: Flag, act: Plan) -> Plan {
        // Beside a silent laptop a standby's copy takes over only in `failover`.
        let may_be_silent = flag == Flag::Starting || self.desired.role == Role::Failover;
        self.announced_to(flag, may_be_silent, act)
    }

    /// The same; `may_be_silent`: another laptop that does not repeat the announcement in time counts as silent.
    pub(super) fn announced_to(&self, flag: Flag, may_be_silent: bool, act: Plan) -> Plan {
        let Some((_, since)) = self.observed.flag.filter(|(shown, _)| *shown == flag) else {
            return waiting(PeerWait::Announced(flag)).announcing(flag);
        };
        let Peer::Known(facts) = self.peer else {
            return act.announcing(flag);
        };
        // Whoever has to give way does not come here; the other one acts when it has.
        if let Some(theirs) = facts.flag {
            return waiting(PeerWait::Announces(theirs)).announcing(flag);
        }
        let fetched = facts.asked_at >= since;
        // The other one must know, so that it gives way, and relies no longer on our silence of a moment ago.
        let repeated = facts.sees.as_ref().is_some_and(|sees| sees.flag == Some(flag));
        // One that does not repeat it counts as silent.
        let waited = may_be_silent && self.now.since(since) > ACKNOWLEDGED_WITHIN;
        let heard = fetched && (repeated || waited);
        if heard {
            act.announcing(flag)
        } else {
            waiting(PeerWait::Announced(flag)).announcing(flag)
        }
    }

    /// Whether the other laptop announces the same as we would, and is the one to go on: of two, the lesser node name.
    pub(super) fn gives_way_to(&self, facts: &PeerFacts, flag: Flag) -> bool {
        facts.flag == Some(flag)
            && facts
                .node
                .as_ref()
                .is_none_or(|theirs| self.desired.node > *theirs)
    }

    /// Why a primary's copy that is not superseded must not be started next to this laptop, if it must not.
    pub(super) fn must_not_start_beside(&self, facts: &PeerFacts) -> Option<Plan> {
        if facts.flag == Some(Flag::Taking) {
            return Some(waiting(PeerWait::Announces(Flag::Taking)));
        }
        if self.gives_way_to(facts, Flag::Starting) {
            return Some(waiting(PeerWait::Announces(Flag::Starting)));
        }
        // Only its server answers: what its daemon is about to do is what was last seen of that.
        if facts.role.is_none() && self.may_have_taken_over() {
            return Some(blocked(PeerBlock::MayHaveTakenOver));
        }
        let there = facts.data.holds_data() || facts.data == DataState::Unknown;
        match &self.relation {
            Some(Relation::Same(_)) if facts.writable() => Some(blocked(PeerBlock::SameEpoch)),
            Some(Relation::Same(_)) if facts.data != DataState::Replica && !facts.at_rest() => {
                Some(waiting(PeerWait::ServerUnclear))
            }
            Some(Relation::Unknown(why)) if there => Some(waiting(PeerWait::Incomparable(why.clone()))),
            // A copy is there, and what it is cannot be seen.
            None if there || !facts.at_rest() => Some(waiting(PeerWait::Incomparable(
                "its history is not visible".to_owned(),
            ))),
            Some(
                Relation::Same(_)
                | Relation::Older(_)
                | Relation::Newer(_)
                | Relation::Twins
                | Relation::Stranger
                | Relation::Unknown(_),
            )
            | None => None,
        }
    }

    /// The start of a primary's copy.
    pub(super) fn start_writing(&self, crashed: bool, then: End) -> Plan {
        let reason = if crashed {
            Reason::ServerCrashed
        } else {
            Reason::ServerDown
        };
        self.start(reason, then)
    }

    /// Whom commits wait for on a server that is written to: the other laptop, where `durability: sync` is declared and as long
    /// as that one streams. It begins when that one is level; then it goes on until it streams no more, or answers no more,
    /// so that a commit never waits for longer than that takes to be seen.
    pub(super) fn synchronous(&self) -> Option<&str> {
        if self.desired.replication.durability != Durability::Sync || self.server != Server::Writable {
            return None;
        }
        let Peer::Known(facts) = self.peer else {
            return None;
        };
        let streams = facts.data == DataState::Replica
            && facts.server == Fact::Known(Server::ReadOnly { streaming: true })
            && matches!(self.relation, Some(Relation::Same(_)));
        let waits = self
            .observed
            .server_facts()
            .is_some_and(|facts| facts.synchronous);
        facts
            .node
            .as_deref()
            .filter(|_| streams && (waits || self.nearly_level(facts)))
    }

    /// Whether our history goes on beyond the other laptop's.
    pub(super) fn is_newer(&self) -> bool {
        matches!(self.relation, Some(Relation::Newer(_)))
    }

    /// Whether the other laptop, which answers, holds more than we do; `None`: it is not proven.
    pub(super) fn ahead(&self) -> Option<bool> {
        let Peer::Known(facts) = self.peer else {
            return None;
        };
        match facts.data {
            DataState::Empty | DataState::NotOurs | DataState::Tainted => return Some(false),
            DataState::Primary | DataState::Replica => {}
            DataState::Recovering | DataState::Unclear | DataState::Unknown => return None,
        }
        match &self.relation {
            Some(Relation::Same(Position::Ahead | Position::Equal) | Relation::Newer(_)) => Some(false),
            Some(Relation::Same(Position::Behind)) => Some(true),
            Some(Relation::Older(_)) => Some(true),
            Some(
                Relation::Same(Position::Unproven)
                | Relation::Twins
                | Relation::Stranger
                | Relation::Unknown(_),
            )
            | None => None,
        }
    }

    /// Whether the other laptop, going by what `home` remembers, may once have held more than we do now.
    pub(super) fn remembered_ahead(&self) -> bool {
        let Some(theirs) = self.memory().and_then(|memory| memory.lineage.as_ref()) else {
            return false;
        };
        !self.observed.lineage().is_some_and(|ours| {
            matches!(
                relation(&ours, theirs),
                Relation::Same(Position::Equal | Position::Ahead) | Relation::Newer(_) | Relation::Stranger
            )
        })
    }

    /// Whether the other laptop had a database when it was last seen.
    pub(super) fn peer_had_data(&self) -> bool {
        self.memory()
            .is_some_and(|memory| memory.data.holds_data() || memory.lineage.is_some())
    }

    /// Slots on a standby: one for another standby that has less and is to go on, and none that nobody needs any more, which
    /// would keep WAL for ever.
    pub(super) fn replication_on_standby(&self, serves: bool) -> Option<Step> {
        self.desired.peer.as_ref()?;
        let facts = self.observed.replication.known()?;
        let Peer::Known(peer) = self.peer else {
            return None;
        };
        let node = peer.node.as_ref()?;
        let epoch = self.observed.lineage()?.held().last()?.uuid;
        let wanted = serves.then(|| slot_name(node, epoch));
        let found = |name: &String| facts.slots.iter().any(|slot| slot.name == *name && !slot.lost);
        let need = ReplicationNeed {
            role: false,
            drop_slots: facts
                .slots
                .iter()
                .filter(|slot| !slot.active && (slot.lost || Some(&slot.name) != wanted.as_ref()))
                .filter(|_| peer.writable())
                .map(|slot| slot.name.clone())
                .collect(),
            create_slot: wanted.filter(|name| !found(name)),
        };
        let needed = need.create_slot.is_some() || !need.drop_slots.is_empty();
        needed.then(|| {
            step(
                Action::EnsureReplication(Box::new(need)),
                Reason::ReplicationDiffers,
            )
        })
    }

    /// The role as which the other laptop logs in, and its slot, on a server that is written to.
    pub(super) fn replication(&self, server: &ServerFacts) -> Option<Step> {
        self.desired.peer.as_ref()?;
        let facts = self.observed.replication.known()?;
        let wanted = match self.peer {
            Peer::Known(peer) if !peer.writable() => peer
                .node
                .as_ref()
                .zip(server.epochs.last())
                .map(|(node, epoch)| slot_name(node, epoch.uuid)),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => None,
        };
        let usable = |slot: &&Slot| Some(&slot.name) == wanted.as_ref() && !slot.lost;
        let found = facts.slots.iter().find(usable);
        let need = ReplicationNeed {
            role: !facts.role || facts.login != Login::Works,
            // Only who is known by name is cleaned up after: nobody's WAL is let go on a guess.
            drop_slots: match &wanted {
                None => Vec::new(),
                Some(_) => facts
                    .slots
                    .iter()
                    .filter(|slot| !slot.active && !usable(slot))
                    .map(|slot| slot.name.clone())
                    .collect(),
            },
            create_slot: wanted.filter(|_| found.is_none()),
        };
        let needed = need.role || need.create_slot.is_some() || !need.drop_slots.is_empty();
        needed.then(|| {
            step(
                Action::EnsureReplication(Box::new(need)),
                Reason::ReplicationDiffers,
            )
        })
    }
}
