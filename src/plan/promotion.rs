//! The end of recovery: announced and named before it happens; and the way of a primary's copy to a new epoch. Pure.

use uuid::Uuid;

use super::action::{Action, Intention, Loss, Plan, Reason, Step};
use super::blocked::Blocked;
use super::end::End;
use super::local::{Situation, cannot_see, step};
use super::pair::{wait, waiting};
use super::pair_end::PeerWait;
use crate::desired::Role;
use crate::observed::{Data, Flag, Peer, Server};

impl Situation<'_> {
    /// What is lost if this copy goes on alone.
    pub(super) fn loss(&self) -> Loss {
        let memory = self.memory();
        let remembered = memory.and_then(|memory| memory.position);
        let (answered, since) = match self.peer {
            Peer::Known(facts) => {
                let position = facts.lineage.as_ref().and_then(|lineage| lineage.position);
                // One that it cannot prove now is remembered from another time.
                (position, position.map(|_| facts.at))
            }
            Peer::Unknown(silence) if silence.position.is_some() => (silence.position, Some(silence.since)),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => (None, None),
        };
        let server = self.observed.server_facts();
        Loss {
            position: match server {
                Some(server) => Some(server.lsn),
                None => self.observed.lineage().and_then(|lineage| lineage.position),
            },
            replayed_until: server.and_then(|server| server.replayed_until.clone()),
            peer_position: answered.or(remembered),
            peer_silent_since: since,
            peer_seen: memory.map(|memory| memory.seen.clone()),
        }
    }

    /// The name for the epoch that a promotion of this standby's copy would begin, if it has none yet.
    pub(super) fn intention(&self, reason: Reason, supersedes: Vec<Uuid>) -> Option<Step> {
        let sidecar = self.observed.cluster()?.trusted_sidecar()?;
        let lineage = self.observed.lineage()?;
        let position = self
            .observed
            .server_facts()
            .map(|server| server.lsn)
            .or(lineage.position);
        let parent = lineage.held().last().map(|epoch| epoch.uuid);
        let named = sidecar.intended.as_ref().is_some_and(|intended| {
            intended.parent == parent
                && intended.timeline > lineage.timeline
                && intended.supersedes == supersedes
        });
        let intention = Intention {
            system_identifier: lineage.system_identifier,
            parent,
            timeline: lineage.timeline,
            position: position.unwrap_or_default(),
            supersedes,
        };
        (!named).then(|| step(Action::IntendEpoch(Box::new(intention)), reason))
    }

    /// The end of recovery, announced and named beforehand, unless the other laptop is the one to go on. `reason`: who
    /// asked for it.
    pub(super) fn promote(&self, reason: Reason) -> Plan {
        self.promote_superseding(reason, Vec::new())
    }

    /// The same; the new epoch gives these of the other laptop's up.
    fn promote_superseding(&self, reason: Reason, supersedes: Vec<Uuid>) -> Plan {
        if let Peer::Known(facts) = self.peer {
            match facts.flag {
                // A primary's copy gives way to a laptop in failover; until it has, nobody acts. Otherwise we do.
                Some(Flag::Starting) => {
                    let plan = self.read_only_with(wait(PeerWait::Announces(Flag::Starting)));
                    return match self.desired.role {
                        Role::Failover => plan.announcing(Flag::Taking),
                        Role::Primary | Role::Standby | Role::Recovery => plan,
                    };
                }
                Some(Flag::Taking) if self.gives_way_to(facts, Flag::Taking) => {
                    return self.read_only_with(wait(PeerWait::Announces(Flag::Taking)));
                }
                Some(Flag::Taking) | None => {}
            }
        }
        let Server::ReadOnly { .. } = self.server else {
            // First it has to run, so that its position is proven.
            return self.read_only_with(wait(PeerWait::Announced(Flag::Taking)));
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
        steps.extend(self.intention(reason, supersedes));
        steps.push(step(Action::Promote(Box::new(self.loss())), reason));
        steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
        let plan = Plan::new(steps, End::Converged);
        match reason {
            // A person has seen that the other one may not listen.
            Reason::Consented => self.announced_to(Flag::Taking, true, plan),
            _ => self.announced(Flag::Taking, plan),
        }
    }

    /// The way of this copy, whatever it is, to a new epoch that supersedes what the other laptop has: a primary's copy
    /// becomes a standby's first, since only a promotion begins a new timeline.
    pub(super) fn new_epoch(&self) -> Plan {
        match (&self.data, self.server) {
            (Data::Primary { .. }, Server::Down) => {
                let Some(mut steps) = self.become_standby(Reason::Consented, None) else {
                    return waiting(PeerWait::Incomparable(
                        "its own history is not visible".to_owned(),
                    ));
                };
                steps.extend(self.intention(Reason::Consented, self.given_up()));
                steps.push(step(Action::Promote(Box::new(self.loss())), Reason::Consented));
                steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
                Plan::new(steps, End::Converged)
            }
            (
                Data::Empty
                | Data::NotOurs(_)
                | Data::Tainted
                | Data::Primary { .. }
                | Data::Replica
                | Data::Recovering
                | Data::Unclear(_),
                _,
            ) => self.promote_superseding(Reason::Consented, self.given_up()),
        }
    }
}
