//! What stands above every role's table: two copies of which neither contains the other, and a primary's copy that the
//! other laptop went beyond. Pure.

use super::action::{Action, Plan, Reason, Step};
use super::consent::{Consent, Danger};
use super::end::End;
use super::local::{Situation, step};
use super::pair::{block, blocked, wait, waiting};
use super::pair_end::{PeerBlock, PeerWait};
use crate::desired::Role;
use crate::lineage::Relation;
use crate::observed::{Data, DataState, Flag, Peer, PeerFacts, Server};

impl Situation<'_> {
    /// What stands above the role's table; `None`: that counts.
    pub(super) fn above_the_roles(&self) -> Option<Plan> {
        if self.server == Server::Writable && !self.observed.timeline_named() {
            // Nothing can be compared before the timeline has its name.
            return None;
        }
        if self
            .observed
            .server_facts()
            .is_some_and(|server| server.promoting)
        {
            // Whatever the file says by now: it is about to be written to.
            return Some(waiting(PeerWait::Promoting).announcing(Flag::Taking));
        }
        if let Some(plan) = self.carries_on_with_consent() {
            return Some(plan);
        }
        match &self.relation {
            Some(Relation::Twins) => Some(self.conflict(PeerBlock::Twins)),
            Some(Relation::Stranger) => Some(self.conflict(self.stranger())),
            Some(Relation::Same(_) | Relation::Older(_) | Relation::Newer(_) | Relation::Unknown(_))
            | None => self.superseded().or_else(|| self.namesakes()),
        }
    }

    /// A consent to keep this copy is carried through, whatever the copy looks like on its way: a primary's becomes a
    /// standby's first.
    fn carries_on_with_consent(&self) -> Option<Plan> {
        let settled = !matches!(self.peer, Peer::Unknown(silence) if !silence.settled);
        let granted = || matches!(self.consent(Danger::KeepThisCopy), Consent::Granted);
        let on_the_way = self.data == Data::Replica && self.at_rest();
        (self.desired.role.writes() && settled && on_the_way && granted()).then(|| self.new_epoch())
    }

    /// Of two laptops with one name neither gives way, and both would stream from one slot.
    fn namesakes(&self) -> Option<Plan> {
        match self.peer {
            Peer::Known(facts) if facts.node.as_ref() == Some(&self.desired.node) => {
                let same = PeerBlock::SameName {
                    node: self.desired.node.clone(),
                };
                Some(self.as_it_is(same))
            }
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => None,
        }
    }

    /// What is served goes on being served, loudly; nothing else is begun.
    fn as_it_is(&self, conflict: PeerBlock) -> Plan {
        match self.server {
            // Said before anything else that it may wait for.
            Server::Writable => Plan {
                end: block(conflict),
                ..self.serve(End::Converged)
            },
            Server::Down | Server::Starting | Server::Stopping | Server::ReadOnly { .. } => blocked(conflict),
        }
    }

    /// Two copies of which neither contains the other. A person chooses: the one to give up, beside a server that is
    /// written to, or, where there is none, the one to keep.
    fn conflict(&self, conflict: PeerBlock) -> Plan {
        let served = self.served();
        let copy = matches!(self.data, Data::Primary { .. } | Data::Replica);
        let resting = self.as_it_is(conflict);
        match (self.desired.role, self.peer) {
            (Role::Standby, Peer::Known(facts)) if served && copy => {
                self.by_consent(Danger::GiveUpThisCopy, resting, || {
                    let mut plan = match self.server {
                        Server::Down => self.clone_from(facts, Reason::Consented, End::Converged),
                        // The other laptop prepares for us when it sees that we are not written to any more.
                        Server::Writable | Server::ReadOnly { .. } | Server::Starting | Server::Stopping => {
                            waiting(PeerWait::Prepares)
                        }
                    };
                    let mut steps = self.stop(Reason::Consented);
                    steps.append(&mut plan.steps);
                    Plan { steps, ..plan }
                })
            }
            (Role::Primary | Role::Failover, Peer::Known(_)) if !served && self.at_rest() => {
                self.by_consent(Danger::KeepThisCopy, resting, || self.new_epoch())
            }
            (Role::Primary | Role::Failover, Peer::Unknown(silence)) if silence.settled && self.at_rest() => {
                self.by_consent(Danger::KeepThisCopy, resting, || self.new_epoch())
            }
            (
                Role::Primary | Role::Standby | Role::Failover | Role::Recovery,
                Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_),
            ) => resting,
        }
    }

    /// Whether the other laptop's copy is written to.
    fn served(&self) -> bool {
        matches!(self.peer, Peer::Known(facts) if facts.writable())
    }

    /// Whether our copy is one that a promotion could bring to a new epoch, and is not on its way up or down.
    fn at_rest(&self) -> bool {
        match (&self.data, self.server) {
            (Data::Primary { .. } | Data::Replica, Server::Down) => true,
            (Data::Replica, Server::ReadOnly { .. }) => self.replica(),
            (
                Data::Empty
                | Data::NotOurs(_)
                | Data::Tainted
                | Data::Primary { .. }
                | Data::Replica
                | Data::Recovering
                | Data::Unclear(_),
                Server::Down
                | Server::Starting
                | Server::Stopping
                | Server::Writable
                | Server::ReadOnly { .. },
            ) => false,
        }
    }

    fn stranger(&self) -> PeerBlock {
        let ours = self.observed.lineage().map(|lineage| lineage.system_identifier);
        PeerBlock::Stranger {
            ours: ours.unwrap_or_default(),
            theirs: self
                .their_lineage()
                .map(|lineage| lineage.system_identifier.clone())
                .unwrap_or_default(),
        }
    }

    /// The application, then the server, as far as they run.
    pub(super) fn stop(&self, reason: Reason) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.server != Server::Down {
            if self.observed.app.state.alive() {
                steps.push(step(Action::StopApp, reason));
            }
            if self.server != Server::Stopping {
                steps.push(step(Action::StopServer, reason));
            }
        }
        steps
    }

    /// A primary's copy, running or not, that is older than the other laptop's: stopped, and never started again as what
    /// it is.
    fn superseded(&self) -> Option<Plan> {
        let primary = match self.server {
            Server::Writable => true,
            Server::Down => matches!(self.data, Data::Primary { .. }),
            Server::Starting | Server::Stopping => !self.replica() && self.data != Data::Recovering,
            // Or a primary's that was told to refuse writes, which any session may overrule.
            Server::ReadOnly { .. } => !self.replica(),
        };
        if !primary || !self.observed.superseded() {
            return None;
        }
        let steps = self.stop(Reason::Superseded);
        if self.server != Server::Down {
            // What comes after that is decided when it is down.
            let end = match self.superseded_end() {
                Some((end, _)) => end,
                None => wait(PeerWait::ComesBack),
            };
            return Some(Plan::new(steps, end));
        }
        if let (Peer::Known(facts), Role::Primary | Role::Standby) = (self.peer, self.desired.role)
            && facts.writable()
            && self.older_by_its_word()
        {
            let then = match self.desired.role {
                Role::Primary => wait(PeerWait::Serves),
                Role::Standby | Role::Failover | Role::Recovery => End::Converged,
            };
            return Some(self.rejoin(facts, then));
        }
        let (end, keep) = self.superseded_end()?;
        let resting = Plan::new(Vec::new(), end);
        Some(if keep {
            self.by_consent(Danger::KeepThisCopy, resting, || self.new_epoch())
        } else {
            resting
        })
    }

    /// Whether the other laptop's own word, and not only what `home` remembers, makes our copy the older one.
    fn older_by_its_word(&self) -> bool {
        matches!(self.relation, Some(Relation::Older(_)))
    }

    /// What a superseded copy waits for, or is blocked by, where it does not come back by itself, and whether a person may
    /// consent to using it all the same; `None`: it comes back by itself.
    fn superseded_end(&self) -> Option<(End, bool)> {
        let block = |served| {
            block(PeerBlock::Superseded {
                served,
                role: self.desired.role,
            })
        };
        let keeps_newer = |facts: &PeerFacts| facts.data == DataState::Primary && !facts.writable();
        match (self.desired.role, self.peer) {
            (Role::Primary | Role::Standby, Peer::Known(facts))
                if facts.writable() && self.older_by_its_word() =>
            {
                None
            }
            (Role::Primary | Role::Recovery, Peer::Known(facts)) if keeps_newer(facts) => {
                Some((wait(PeerWait::HoldsPrimary), false))
            }
            (Role::Primary | Role::Recovery, _) => {
                let settled = !matches!(self.peer, Peer::Unknown(silence) if !silence.settled);
                Some((block(self.served()), settled))
            }
            (Role::Standby, Peer::Unauthenticated { why }) => {
                Some((super::pair::block(self.unauthenticated(why)), false))
            }
            (Role::Standby, _) => Some((wait(PeerWait::HoldsNewer), false)),
            (Role::Failover, _) => {
                let settled = !matches!(self.peer, Peer::Unknown(silence) if !silence.settled);
                Some((block(self.served()), settled))
            }
        }
    }
}
