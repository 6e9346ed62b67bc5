//! The handover between two healthy laptops: the giving side and what became of its promise. Pure.
//!
//! Both sides only read the other's status. The giving side closes its gate, shuts its server down so that the standby
//! gets everything, and binds itself: with the note in `home` and `standby.signal` its copy becomes writable only by a
//! promotion. It then serves what may still be missing, read-only. The taking side promotes when it holds all of it.

use super::action::{Action, Plan, Reason};
use super::end::{End, Waiting};
use super::local::{Situation, step};
use super::pair::{HARMLESS_LAG, block, wait};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::Role;
use crate::lineage::{Lsn, Relation};
use crate::observed::{Data, DataState, Fact, HandedOver, Peer, PeerFacts, Server};

/// With more WAL than this since the last checkpoint, in bytes, one is written before the server is shut down: the
/// shutdown's own checkpoint would keep both laptops closed for as long as it takes.
const MUCH_TO_WRITE: u64 = 16 << 20;

impl Situation<'_> {
    /// A writable server on a laptop that is declared standby: hands over, or says why it goes on serving.
    pub(super) fn give(&self) -> Plan {
        let ready = match self.peer {
            Peer::Known(facts) => self.can_take_over(facts),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => false,
        };
        let serving = self.serve(End::Waiting(Waiting::NoSuccessor));
        let named = self.observed.timeline_named();
        if !ready || !named {
            return no_successor(serving);
        }
        let Some(facts) = self.observed.server_facts() else {
            return no_successor(serving);
        };
        let mut steps = Vec::new();
        if self.observed.app.state.alive() {
            steps.push(step(Action::StopApp, Reason::HandingOver));
        }
        if facts.since_checkpoint > MUCH_TO_WRITE {
            steps.push(step(Action::Checkpoint, Reason::HandingOver));
        }
        steps.push(step(Action::FastShutdown, Reason::HandingOver));
        let Some(rest) = self.bind(facts.lsn) else {
            return no_successor(serving);
        };
        steps.extend(rest);
        Plan::new(steps, wait(PeerWait::TakesHandover))
    }

    /// Whether the other laptop is told to take over, follows us closely, and has seen that we are told to hand over.
    fn can_take_over(&self, facts: &PeerFacts) -> bool {
        let told = matches!(facts.role, Some(Role::Primary | Role::Failover));
        let follows = facts.data == DataState::Replica
            && facts.server == Fact::Known(Server::ReadOnly { streaming: true })
            && matches!(self.relation, Some(Relation::Same(_)));
        let saw = facts
            .sees
            .as_ref()
            .is_some_and(|sees| sees.role == Some(Role::Standby));
        told && follows && saw && facts.flag.is_none() && self.nearly_level(facts)
    }

    /// Whether the other laptop's copy, on the same history, lacks no more than what arrives in a moment.
    pub(super) fn nearly_level(&self, facts: &PeerFacts) -> bool {
        let ours = self.observed.lineage().and_then(|lineage| lineage.position);
        let theirs = facts.lineage.as_ref().and_then(|lineage| lineage.position);
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours.0.saturating_sub(theirs.0) <= HARMLESS_LAG,
            (None, _) | (_, None) => false,
        }
    }

    /// A primary's copy that was shut down cleanly, next to a standby that is told to take over and holds it but for what
    /// it can still fetch: the handover is finished, by whomever it was begun. `None`: it is something else.
    pub(super) fn finish_handover(&self, facts: &PeerFacts) -> Option<Plan> {
        let told = matches!(facts.role, Some(Role::Primary | Role::Failover));
        let follower = facts.data == DataState::Replica
            && matches!(facts.server, Fact::Known(Server::ReadOnly { .. }))
            && matches!(self.relation, Some(Relation::Same(_)));
        if !told || !follower || self.data != (Data::Primary { crashed: false }) || !self.nearly_level(facts)
        {
            return None;
        }
        let control = self.observed.cluster()?.control.known()?;
        let steps = self.bind(control.checkpoint)?;
        Some(Plan::new(steps, wait(PeerWait::TakesHandover)))
    }

    /// Whether the other laptop is told to take over, and only what its server is doing cannot be seen now.
    pub(super) fn may_be_a_successor(&self, facts: &PeerFacts) -> bool {
        matches!(facts.role, Some(Role::Primary | Role::Failover))
            && facts.data == DataState::Replica
            && matches!(facts.server, Fact::Unknown(_))
            && matches!(self.relation, Some(Relation::Same(_)))
    }

    /// From the end of the server to a standby's on the same copy, bound not to write again.
    fn bind(&self, shutdown_checkpoint_lsn: Lsn) -> Option<Vec<super::action::Step>> {
        let lineage = self.observed.lineage()?;
        let promise = HandedOver {
            system_identifier: lineage.system_identifier.clone(),
            epoch: lineage.held().last()?.uuid,
            shutdown_checkpoint_lsn,
        };
        let noted = match &self.observed.handover_intention.fact {
            Fact::Known(note) => note.as_ref() == Some(&promise),
            Fact::Unknown(_) => false,
        };
        let mut steps = Vec::new();
        if !noted {
            steps.push(step(Action::PromiseHandover(promise), Reason::HandingOver));
        }
        steps.extend(self.become_standby(Reason::HandingOver, None)?);
        Some(steps)
    }

    /// Whether the other laptop gave its copy away and ours holds all of that.
    pub(super) fn holds_all_of(&self, facts: &PeerFacts) -> bool {
        let (Some(promise), Some(ours)) = (&facts.handed_over, self.observed.lineage()) else {
            return false;
        };
        ours.system_identifier == promise.system_identifier
            && ours
                .held()
                .last()
                .is_some_and(|epoch| epoch.uuid == promise.epoch)
            && ours
                .position
                .is_some_and(|position| position > promise.shutdown_checkpoint_lsn)
    }

    /// A copy that we gave away, on a laptop that is declared standby, beside another standby's copy; `None`: we gave
    /// nothing away, or it is the other one's turn.
    pub(super) fn take_back(&self, facts: &PeerFacts) -> Option<Plan> {
        self.observed.handed_over()?;
        if facts.role != Some(Role::Standby) || facts.data != DataState::Replica {
            return None;
        }
        let theirs_to_take = facts.handed_over.is_some()
            && facts
                .node
                .as_ref()
                .is_none_or(|theirs| self.desired.node > *theirs);
        if theirs_to_take {
            return Some(self.read_only_with(wait(PeerWait::TakesBack)));
        }
        Some(match self.ahead() {
            Some(false) => self.promote(Reason::TakenBack),
            Some(true) => self.follow_read_only(facts, wait(PeerWait::CatchingUp)),
            None => self.read_only_with(wait(PeerWait::Unproven)),
        })
    }

    /// What a copy that we gave away comes to while the other laptop is silent.
    pub(super) fn nobody_took(&self) -> Option<End> {
        self.observed
            .handed_over()
            .map(|_| block(PeerBlock::HandedOverPeerSilent))
    }

    /// A standby's copy next to another one that has more of the same history and serves it read-only: what is missing is
    /// fetched from there.
    pub(super) fn follow_read_only(&self, facts: &PeerFacts, then: End) -> Plan {
        let mut plan = self.read_only_with(then);
        let serves = matches!(facts.server, Fact::Known(Server::ReadOnly { .. }));
        let streams = self.server == (Server::ReadOnly { streaming: true });
        if plan.steps.is_empty() && serves && !streams && matches!(self.server, Server::ReadOnly { .. }) {
            plan.steps.push(step(Action::WakeReceiver, Reason::NotStreaming));
        }
        plan
    }
}

/// The settings may wait for a restart; that nobody can take over is what matters here.
fn no_successor(plan: Plan) -> Plan {
    match plan.end {
        End::Waiting(Waiting::Restart(_)) => Plan {
            end: End::Waiting(Waiting::NoSuccessor),
            ..plan
        },
        End::Converged | End::Waiting(_) | End::Blocked(_) => plan,
    }
}
