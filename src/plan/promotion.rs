//! The end of recovery: announced and named before it happens. Pure.

use super::action::{Action, Intention, Loss, Plan, Reason, Step};
use super::blocked::Blocked;
use super::end::End;
use super::local::{Situation, cannot_see, step};
use super::pair::wait;
use super::pair_end::PeerWait;
use crate::observed::{Flag, Peer, Server, ServerFacts};

impl Situation<'_> {
    /// What a promotion now may lose.
    fn loss(&self, server: &ServerFacts) -> Loss {
        let memory = self.memory();
        let remembered = memory
            .and_then(|memory| memory.lineage.as_ref())
            .and_then(|lineage| lineage.position);
        let (answered, since) = match self.peer {
            Peer::Known(facts) => (
                facts.lineage.as_ref().and_then(|lineage| lineage.position),
                Some(facts.at),
            ),
            Peer::Unknown(silence) if silence.position.is_some() => (silence.position, Some(silence.since)),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => (None, None),
        };
        Loss {
            position: server.lsn,
            replayed_until: server.replayed_until.clone(),
            peer_position: answered.or(remembered),
            peer_silent_since: since,
            peer_seen: memory.map(|memory| memory.seen.clone()),
        }
    }

    /// The name for the epoch that a promotion of this standby's copy would begin, if it has none yet.
    pub(super) fn intention(&self, reason: Reason) -> Option<Step> {
        let sidecar = self.observed.cluster()?.trusted_sidecar()?;
        let server = self.observed.server_facts()?;
        let lineage = self.observed.lineage()?;
        let parent = lineage
            .epochs
            .iter()
            .rfind(|epoch| epoch.timeline <= lineage.timeline)
            .map(|epoch| epoch.uuid);
        let named = sidecar
            .intended
            .as_ref()
            .is_some_and(|intended| intended.parent == parent && intended.timeline > lineage.timeline);
        let intention = Intention {
            system_identifier: lineage.system_identifier,
            parent,
            timeline: lineage.timeline,
            position: server.lsn,
        };
        (!named).then(|| step(Action::IntendEpoch(Box::new(intention)), reason))
    }

    /// The end of recovery, announced and named beforehand. `reason`: who asked for it.
    pub(super) fn promote(&self, reason: Reason) -> Plan {
        let Server::ReadOnly { .. } = self.server else {
            // First it has to run, so that its position is proven.
            let then = wait(PeerWait::Announced(Flag::Taking));
            return self.read_only_with(then);
        };
        let (Some(cluster), Some(server)) = (self.observed.cluster(), self.observed.server_facts()) else {
            return Plan::blocked(cannot_see(
                "the data directory",
                "a server runs, but its database is not there",
            ));
        };
        if !server.in_recovery {
            return Plan::blocked(Blocked::ToldToBeReadOnly);
        }
        if cluster.trusted_sidecar().is_none() {
            // A standby that Paceline did not make.
            return self.read_only_with(wait(PeerWait::Announced(Flag::Taking)));
        }
        let mut steps = Vec::new();
        if cluster.recovery_signal {
            steps.push(step(Action::RemoveRecoverySignal, Reason::BothSignalFiles));
        }
        if server.replay_paused {
            // Because of a parameter (then only a restart helps), or because of a person.
            let restart = self.read_only_with(End::Converged);
            if !restart.steps.is_empty() {
                return restart;
            }
            steps.push(step(Action::ResumeReplay, Reason::ReplayPaused));
        }
        steps.extend(self.intention(reason));
        steps.push(step(Action::Promote(Box::new(self.loss(server))), reason));
        steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
        self.announced(Flag::Taking, Plan::new(steps, End::Converged))
    }
}
