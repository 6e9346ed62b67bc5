//! A copy that the other laptop went beyond comes back as a follower: as it is, by a rewind, or by a new copy. Pure.
//!
//! A superseded primary's copy is never started to look (POSTGRES-FACTS 14).

use uuid::Uuid;

use super::action::{Action, Plan, Reason, RewindSource, Start, Step};
use super::blocked::Blocked;
use super::end::End;
use super::local::{Situation, step};
use super::pair::{blocked, waiting};
use super::pair_end::PeerWait;
use crate::lineage::{Epoch, Held, Lineage, Relation};
use crate::observed::{Data, PeerFacts, Server};

impl Situation<'_> {
    /// The way of this copy, which the other laptop went beyond, to a follower of that one, which is written to. No
    /// server runs on a primary's copy by now.
    pub(super) fn rejoin(&self, facts: &PeerFacts, then: End) -> Plan {
        let crashed = match self.data {
            Data::Primary { crashed } if self.server == Server::Down => crashed,
            // What a standby received is what somebody else wrote, so that a new copy loses nothing. (A rewind of a
            // crashed standby would end its recovery: POSTGRES-FACTS 12.)
            Data::Replica => return self.clone_from(facts, Reason::Superseded, then),
            Data::Primary { .. }
            | Data::Empty
            | Data::NotOurs(_)
            | Data::Tainted
            | Data::Recovering
            | Data::Unclear(_) => return self.unusable(),
        };
        let (Some(ours), Some(theirs)) = (self.observed.lineage(), facts.lineage.as_ref()) else {
            return waiting(PeerWait::Incomparable("its history is not visible".to_owned()));
        };
        if let Some(secret) = self.secret_missing() {
            return blocked(secret);
        }
        if !crashed
            && self.relation == Some(Relation::Older(Held::Nothing))
            && let Some(steps) = self.become_standby(Reason::AncestorOfPeer, Some(&theirs.epochs))
        {
            return Plan::new(steps, then);
        }
        if rewindable(&ours, theirs) {
            self.rewind(facts, theirs, then)
        } else {
            self.clone_from(facts, Reason::Superseded, then)
        }
    }

    fn rewind(&self, facts: &PeerFacts, theirs: &Lineage, then: End) -> Plan {
        let Some(peer) = &self.desired.peer else {
            return Plan::blocked(Blocked::StandbyWithoutPeer);
        };
        if let Some(leftovers) = self.leftovers() {
            return Plan::waiting(leftovers);
        }
        let Some(epoch) = theirs.held().last() else {
            return waiting(PeerWait::Incomparable("its history has no name yet".to_owned()));
        };
        // Before the first checkpoint of a new timeline a rewind finds nothing to do (POSTGRES-FACTS 8).
        if self.unprepared(facts, epoch.uuid)
            || facts
                .checkpoint_timeline
                .is_some_and(|timeline| timeline < theirs.timeline)
        {
            return waiting(PeerWait::Prepares);
        }
        let programs = match self.installation(self.observed.cluster().map(|cluster| cluster.major)) {
            Ok(programs) => programs.clone(),
            Err(missing) => return Plan::blocked(missing),
        };
        let source = RewindSource {
            peer: peer.clone(),
            programs: programs.clone(),
            system_identifier: theirs.system_identifier.clone(),
            epoch: epoch.uuid,
        };
        let start = Start {
            programs,
            standby: true,
        };
        Plan::new(
            vec![
                step(Action::Rewind(Box::new(source)), Reason::Superseded),
                step(Action::StartServer(start), Reason::StandbyCopy),
            ],
            then,
        )
    }

    /// The steps from a primary's copy that is down to a standby's server on it; `epochs`: the names that it is to follow.
    /// `None`: what the copy is cannot be seen.
    pub(super) fn become_standby(&self, reason: Reason, epochs: Option<&[Epoch]>) -> Option<Vec<Step>> {
        let cluster = self.observed.cluster()?;
        let control = cluster.control.known()?;
        let programs = self.installation(Some(cluster.major)).ok()?.clone();
        let mut steps = vec![step(
            Action::PlaceStandbySignal {
                system_identifier: control.system_identifier.clone(),
            },
            reason,
        )];
        let recorded = cluster.trusted_sidecar()?;
        let follows: Option<Uuid> = match epochs {
            Some(epochs) => {
                if recorded.epochs != epochs {
                    steps.push(step(Action::RecordEpochs(epochs.to_vec()), Reason::EpochFollowed));
                }
                epochs.last().map(|epoch| epoch.uuid)
            }
            None => recorded.epochs.last().map(|epoch| epoch.uuid),
        };
        steps.extend(self.configure_as_standby(cluster, follows));
        steps.extend(self.purge(cluster));
        steps.push(step(
            Action::StartServer(Start {
                programs,
                standby: true,
            }),
            Reason::StandbyCopy,
        ));
        Some(steps)
    }
}

/// Whether pg_rewind can tell the two histories apart: it knows timelines by their numbers only, and two that were begun
/// apart can have the same one (POSTGRES-FACTS 2).
fn rewindable(ours: &Lineage, theirs: &Lineage) -> bool {
    let known = |epoch: &Epoch| theirs.held().any(|other| other.uuid == epoch.uuid);
    let shares = ours.held().any(known);
    let collides = ours
        .held()
        .filter(|epoch| !known(epoch))
        .any(|epoch| theirs.held().any(|other| other.timeline == epoch.timeline));
    shares && !collides
}
