//! A standby's copy: made, started, kept following. Pure.

use super::action::{Action, CloneSource, Plan, Reason, Start, Step};
use super::blocked::Blocked;
use super::configuration::slot_name;
use super::end::{End, Waiting};
use super::local::{Situation, cannot_see, step};
use super::pair::{HARMLESS_LAG, block, blocked, wait, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::Role;
use crate::lineage::{Held, Position, Relation};
use crate::observed::{Data, DataDirectory, DataState, Fact, Peer, PeerFacts, Secret, Server, ServerFacts};

/// The newest epoch of the other laptop.
fn lineage_end(facts: &PeerFacts) -> Option<uuid::Uuid> {
    Some(facts.lineage.as_ref()?.epochs.last()?.uuid)
}

impl Situation<'_> {
    /// A copy of the other laptop's database in place of what is here; `then`: what it comes to.
    pub(super) fn clone_from(&self, facts: &PeerFacts, reason: Reason, then: End) -> Plan {
        let Some(peer) = &self.desired.peer else {
            return Plan::blocked(Blocked::StandbyWithoutPeer);
        };
        if let Some(secret) = self.secret_missing() {
            return blocked(secret);
        }
        if let Some(DataDirectory::Empty { mount_point: true }) = self.observed.data.known() {
            return Plan::blocked(Blocked::MountPoint {
                path: self.desired.postgres.data_directory.clone(),
            });
        }
        if let Some(waiting) = self.leftovers() {
            return Plan::waiting(waiting);
        }
        let Some((lineage, epoch)) = facts
            .lineage
            .as_ref()
            .and_then(|lineage| Some((lineage, lineage.epochs.last()?)))
            .filter(|(lineage, epoch)| lineage.timeline == epoch.timeline)
        else {
            return waiting(PeerWait::Incomparable("its history has no name yet".to_owned()));
        };
        let programs = match self.installation(facts.major) {
            Ok(programs) => programs.clone(),
            Err(missing) => return Plan::blocked(missing),
        };
        if self.unprepared(facts, epoch.uuid) {
            return waiting(PeerWait::Prepares);
        }
        let clone = CloneSource {
            peer: peer.clone(),
            programs: programs.clone(),
            system_identifier: lineage.system_identifier.clone(),
            epoch: epoch.uuid,
            replaces: self.data.state(),
        };
        let start = Start {
            programs,
            standby: true,
        };
        // What is replaced is served until the copy is complete, so there is no step to stop it.
        Plan::new(
            vec![
                step(Action::Clone(Box::new(clone)), reason),
                step(Action::StartServer(start), Reason::StandbyCopy),
            ],
            then,
        )
    }

    /// Whether the other laptop says that it has no slot for us yet. It makes one as soon as it sees us.
    pub(super) fn unprepared(&self, facts: &PeerFacts, epoch: uuid::Uuid) -> bool {
        let slot = slot_name(&self.desired.node, epoch);
        facts.slots.as_ref().is_some_and(|slots| !slots.contains(&slot))
    }

    pub(super) fn secret_missing(&self) -> Option<PeerBlock> {
        let path = self.desired.replication.password_file.clone();
        match &self.observed.secret.fact {
            Fact::Known(Secret::There { .. }) => None,
            Fact::Known(Secret::Missing) => Some(PeerBlock::Secret {
                path,
                why: "there is no such file".to_owned(),
            }),
            Fact::Known(Secret::Bad(why)) | Fact::Unknown(why) => Some(PeerBlock::Secret {
                path,
                why: why.clone(),
            }),
        }
    }

    /// A standby's copy next to a laptop that is written to: what it takes to follow, and what that comes to.
    pub(super) fn follow(&self, facts: &PeerFacts, then: End) -> Plan {
        match &self.relation {
            Some(Relation::Same(_) | Relation::Older(Held::Nothing)) => {}
            // Its position is proven as soon as it runs.
            Some(Relation::Older(Held::Unproven)) if self.server == Server::Down => {}
            Some(Relation::Older(Held::Unproven)) => return self.read_only_with(wait(PeerWait::Unproven)),
            Some(Relation::Older(Held::Something)) => return self.rejoin(facts, then),
            Some(Relation::Newer(_)) => return self.read_only_with(wait(PeerWait::StepsDown)),
            Some(Relation::Unknown(why)) => {
                return self.read_only_with(wait(PeerWait::Incomparable(why.clone())));
            }
            Some(Relation::Twins | Relation::Stranger) | None => {
                let why = "its history is not visible".to_owned();
                return self.read_only_with(wait(PeerWait::Incomparable(why)));
            }
        }
        if let Some(secret) = self.secret_missing() {
            return self.read_only_with(block(secret));
        }
        let mut plan = self.read_only_with(then);
        let recorded = self
            .observed
            .cluster()
            .and_then(|cluster| cluster.trusted_sidecar());
        if let Some(lineage) = &facts.lineage
            && recorded.is_some_and(|sidecar| sidecar.epochs != lineage.epochs)
        {
            // Before its timeline is followed: the slot is called after it.
            plan.steps.insert(
                0,
                step(
                    Action::RecordEpochs(lineage.epochs.clone()),
                    Reason::EpochFollowed,
                ),
            );
        }
        // Beside what cannot be seen nothing is replaced.
        if !plan.steps.is_empty() || matches!(plan.end, End::Blocked(_)) {
            return plan;
        }
        let Some(server) = self.observed.server_facts() else {
            return plan;
        };
        // By the other laptop's word, not by what our server's log says: strangers can write there.
        let gone = !server.streaming
            && server.position_proven
            && facts.oldest_wal.is_some_and(|oldest| server.lsn < oldest);
        // The marks are another look than the server's word; both have to say that this is a standby's copy.
        if gone && self.data == Data::Replica {
            return self.clone_from(facts, Reason::WalGone, plan.end);
        }
        match (server.streaming, self.observed.lag()) {
            (false, _) if lineage_end(facts).is_some_and(|epoch| self.unprepared(facts, epoch)) => {
                waiting(PeerWait::Prepares)
            }
            (false, _) => {
                let said = server.receiver.clone();
                Plan::new(
                    vec![step(Action::WakeReceiver, Reason::NotStreaming)],
                    wait(PeerWait::NotStreaming(said)),
                )
            }
            (true, _) if server.replay_paused => waiting(PeerWait::ReplayPaused),
            (true, Some(lag)) if lag > HARMLESS_LAG => waiting(PeerWait::CatchingUp),
            (true, _) => {
                // What a failover waits for comes first.
                let mut steps: Vec<Step> = self
                    .intention(Reason::ReadyToTakeOver, Vec::new())
                    .into_iter()
                    .collect();
                steps.extend(self.replication_on_standby(false));
                Plan::new(steps, plan.end)
            }
        }
    }

    /// A standby's copy, started or kept running as it should; `then`: what it comes to.
    pub(super) fn read_only_with(&self, then: End) -> Plan {
        match self.server {
            Server::Down => return self.start(Reason::StandbyCopy, then),
            Server::Starting => return Plan::waiting(Waiting::ServerStarting),
            Server::Stopping => return Plan::waiting(Waiting::ServerStopping),
            Server::Writable | Server::ReadOnly { .. } => {}
        }
        let (Some(cluster), Some(server)) = (self.observed.cluster(), self.observed.server_facts()) else {
            return Plan::blocked(cannot_see(
                "the data directory",
                "a server runs, but its database is not there",
            ));
        };
        if !server.in_recovery {
            return Plan::blocked(Blocked::ToldToBeReadOnly);
        }
        if let Fact::Unknown(why) = &cluster.sidecar {
            return Plan::blocked(cannot_see("the note beside the data directory", why));
        }
        let mut steps = match self.configure(cluster) {
            Ok(steps) => steps,
            Err(blocked) => return Plan::blocked(blocked),
        };
        if cluster.recovery_signal {
            steps.push(step(Action::RemoveRecoverySignal, Reason::BothSignalFiles));
        }
        steps.extend(self.load_on_standby(server, &steps));
        steps.extend(self.slot_for_the_successor());
        Plan::new(steps, then)
    }

    /// Another standby that has less of the same history and is told to take over fetches what it lacks from here.
    fn slot_for_the_successor(&self) -> Option<Step> {
        let Peer::Known(facts) = self.peer else {
            return None;
        };
        let less = matches!(self.relation, Some(Relation::Same(Position::Ahead)));
        let told = matches!(facts.role, Some(Role::Primary | Role::Failover));
        if facts.data == DataState::Replica && !facts.writable() && less && told {
            self.replication_on_standby(true)
        } else {
            None
        }
    }

    /// What makes a running standby take its configuration: a reload, or a restart, which on a standby nobody minds.
    fn load_on_standby(&self, server: &ServerFacts, before: &[Step]) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(cluster) = self.observed.cluster() else {
            return steps;
        };
        steps.extend(self.purge(cluster));
        let written = before.iter().find_map(|step| match &step.action {
            Action::WriteConfiguration(files) => Some(files.digest.clone()),
            _ => None,
        });
        let in_force = || self.rendered_digest(cluster);
        let Some(digest) = written.or_else(in_force) else {
            return steps;
        };
        if server.configuration.as_ref() != Some(&digest) || !steps.is_empty() {
            steps.push(step(
                Action::ReloadServer {
                    configuration: digest,
                },
                Reason::NotLoaded,
            ));
        } else if !server.pending_restart.is_empty()
            // Without it a standby would go down and could not be started again.
            && cluster.standby_signal
            && let Ok(programs) = self.installation(Some(cluster.major))
        {
            steps.extend(self.stop(Reason::RestartNeeded));
            steps.push(step(
                Action::StartServer(Start {
                    programs: programs.clone(),
                    standby: true,
                }),
                Reason::StandbyCopy,
            ));
        }
        steps
    }
}
