//! What a laptop of the small world does by itself, and what may happen to it. See `laptops`.

use paceline::desired::Role;
use paceline::observed::{Data, Server};
use paceline::plan::{Action, Gate, gate};
use uuid::Uuid;

use super::laptops::{Bases, Begun, NAMES, Node, READ_ONLY, World};
use super::world::now;

impl World {
    /// Whether an application may be writing there.
    fn serves(&self, number: usize, bases: &Bases) -> bool {
        let declared = self.declared(number, bases);
        let judged = gate(
            &Gate::Open,
            &declared,
            &self.seen(number),
            &self.plan(number, bases),
            now(),
        );
        judged.is_open()
    }

    /// Somebody was told that it is safe.
    fn acknowledge(&mut self, number: usize) {
        let node = &self.nodes[number];
        let (epoch, position) = (node.epochs[node.timeline as usize - 1], node.position);
        self.acknowledged.retain(|(known, _)| *known != epoch);
        self.acknowledged.push((epoch, position));
        self.acknowledged.sort_unstable();
    }

    pub fn crash(node: &mut Node) {
        if matches!(node.server, Server::Writable) {
            node.data = Data::Primary { crashed: true };
        }
        node.server = Server::Down;
    }

    /// A fast stop of a server that is written to: its last checkpoint, and the streaming standby has it as well, or not.
    fn shut_down(&self, number: usize) -> Vec<Self> {
        let mut alone = self.clone();
        let node = &mut alone.nodes[number];
        let wrote = node.server == Server::Writable;
        node.server = Server::Down;
        if !wrote {
            return vec![alone];
        }
        node.data = Data::Primary { crashed: false };
        node.position += 1;
        let position = node.position;
        let mut outcomes = vec![alone.clone()];
        let standby = &mut alone.nodes[1 - number];
        if self.streams(1 - number) && standby.timeline == self.nodes[number].timeline {
            standby.position = position;
            outcomes.push(alone);
        }
        outcomes
    }

    /// What a step may come to, whole or not at all, the best of it last; those that change nothing here are done when
    /// they are planned.
    pub fn carry_out(&self, number: usize, action: &Action) -> Vec<Self> {
        let mut next = self.clone();
        let mut outcomes = Vec::new();
        let other = self.nodes[1 - number].clone();
        let serves = self.link && other.server == Server::Writable;
        let node = &mut next.nodes[number];
        match action {
            Action::CreateCluster(_) => {
                node.data = Data::Primary { crashed: false };
                node.epochs = vec![1];
                node.timeline = 1;
                node.position = 10;
            }
            Action::StartServer(start) => {
                if start.standby != (node.data == Data::Replica) {
                    return Vec::new();
                }
                node.server = if start.standby {
                    READ_ONLY
                } else {
                    Server::Starting
                };
            }
            Action::StopServer | Action::FastShutdown => return self.shut_down(number),
            Action::RecordConsent(grant) => {
                if node.consented.used.contains(&grant.token) {
                    return Vec::new();
                }
                node.consented.used.push(grant.token.clone());
                node.consented.granted = Some(grant.situation.clone());
            }
            Action::PromiseHandover(given) => {
                let (epoch, at) = (given.epoch.as_u128(), given.shutdown_checkpoint_lsn.0);
                let clean = node.data == (Data::Primary { crashed: false }) && node.server == Server::Down;
                if !clean || at + 1 != node.position {
                    return Vec::new();
                }
                node.promise = Some((epoch, at));
            }
            Action::PlaceStandbySignal { .. } => {
                if node.server != Server::Down {
                    return Vec::new();
                }
                node.data = Data::Replica;
            }
            Action::Clone(_) | Action::Rewind(_) => {
                if !serves {
                    return Vec::new();
                }
                if matches!(action, Action::Rewind(_)) {
                    let mut interrupted = self.clone();
                    interrupted.nodes[number].data = Data::Tainted;
                    outcomes.push(interrupted);
                }
                node.data = Data::Replica;
                node.server = Server::Down;
                node.epochs.clone_from(&other.epochs);
                node.timeline = other.timeline;
                node.position = other.position;
                node.intended = None;
            }
            Action::RecordEpochs(epochs) => {
                node.epochs = epochs.iter().map(|epoch| epoch.uuid.as_u128()).collect();
                node.intended = None;
            }
            Action::IntendEpoch(intention) => {
                let name = next.begins.len() as u128 + 1;
                let supersedes = &intention.supersedes;
                let parent = intention.parent.map_or(0, |parent| parent.as_u128());
                next.begins.push(Begun {
                    name,
                    at: intention.position.0,
                    parent,
                    supersedes: supersedes.iter().map(Uuid::as_u128).collect(),
                });
                next.nodes[number].intended = Some(name);
            }
            Action::Promote(_) => {
                let Some(name) = node.intended.take() else {
                    return Vec::new();
                };
                let at = node.position;
                node.epochs.truncate(node.timeline as usize);
                node.epochs.push(name);
                node.timeline += 1;
                node.server = Server::Writable;
                node.data = Data::Primary { crashed: false };
                node.position += 1;
                node.served = true;
                for begun in &mut next.begins {
                    if begun.name == name {
                        begun.at = at;
                    }
                }
            }
            _ => return Vec::new(),
        }
        outcomes.push(next);
        outcomes
    }

    /// Everything that a laptop does by itself.
    pub fn steps(&self, number: usize, bases: &Bases) -> Vec<(String, Self)> {
        let mut next = Vec::new();
        let name = NAMES[number];
        let node = &self.nodes[number];
        let planned = self.plan(number, bases);
        if self.link {
            let mut world = self.clone();
            let shown = self.show(1 - number);
            let node = &mut world.nodes[number];
            node.view = Some(shown.clone());
            node.memory = Some(shown);
            node.asked = node.flag.is_some();
            next.push((format!("{name} looks"), world));
        }
        if planned.flag != node.flag {
            let mut world = self.clone();
            let node = &mut world.nodes[number];
            node.flag = planned.flag;
            node.asked = false;
            next.push((format!("{name} shows {:?}", planned.flag), world));
        }
        if let Some(first) = planned.first() {
            for world in self.carry_out(number, &first.action) {
                let what = match first.action {
                    Action::Promote(_) => format!("{name}: promote ({:?})", first.reason),
                    _ => format!("{name}: {}", first.action.name()),
                };
                next.push((what, world));
            }
        }
        if node.server == Server::Starting {
            let mut world = self.clone();
            let node = &mut world.nodes[number];
            node.server = Server::Writable;
            node.served = true;
            node.data = Data::Primary { crashed: false };
            // What recovery or the next checkpoint writes.
            node.position += 1;
            next.push((format!("{name} comes up"), world));
        }
        // A standby takes what the other one has.
        let other = &self.nodes[1 - number];
        let follows =
            self.streams(number) && (node.timeline, node.position) < (other.timeline, other.position);
        if follows {
            let mut world = self.clone();
            let node = &mut world.nodes[number];
            node.timeline = other.timeline;
            node.position = other.position;
            next.push((format!("{name} receives"), world));
        }
        next
    }

    /// What no plan asks for.
    pub fn accidents(&self, number: usize, cuts: bool, bases: &Bases) -> Vec<(String, Self)> {
        let mut next = Vec::new();
        let name = NAMES[number];
        let mut add = |what: &str, change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            if world != *self {
                next.push((format!("{name}: {what}"), world));
            }
        };
        if self.nodes[number].server == Server::Writable && self.nodes[number].position < 14 {
            add("a write of its own", &|world| world.nodes[number].position += 1);
            if self.serves(number, bases) {
                add("a write", &|world| {
                    world.nodes[number].position += 1;
                    world.acknowledge(number);
                });
            }
        }
        if self.accidents > 0 {
            add("its server crashes", &|world| {
                Self::crash(&mut world.nodes[number]);
                world.accidents -= 1;
            });
            add("power is cut", &|world| {
                let node = &mut world.nodes[number];
                Self::crash(node);
                (node.served, node.flag, node.view, node.asked) = (false, None, None, false);
                world.accidents -= 1;
            });
            if cuts && number == 0 {
                add("the link goes or comes", &|world| {
                    world.link = !world.link;
                    for node in &mut world.nodes {
                        node.view = None;
                    }
                    world.accidents -= 1;
                });
            }
        }
        if self.consents
            && let Some(offer) = &self.plan(number, bases).offer
            && self.nodes[number].consented.used.len() < 2
        {
            add("a person consents", &|world| {
                world.nodes[number].consented.word = Some(offer.token.clone());
            });
        }
        if self.edits > 0 {
            for role in [Role::Primary, Role::Standby, Role::Failover] {
                if role != self.nodes[number].role && !(self.careful && role == Role::Failover) {
                    add(&format!("declared {role}"), &|world| {
                        world.nodes[number].role = role;
                        world.edits -= 1;
                    });
                }
            }
        }
        next
    }
}
