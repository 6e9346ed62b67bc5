//! Two laptops in one small world: what each shows and has seen of the other, what its plan does to it, what may happen
//! to it. See `pair` for where that leads.

use std::cell::RefCell;
use std::collections::HashMap;

use paceline::desired::{Desired, Role};
use paceline::lineage::{Epoch, Lineage, Lsn, Relation, relation};
use paceline::observed::{
    Data, Fact, Flag, Observed, Peer, PeerFacts, PeerMemory, SeesUs, Server, Unanswered,
};
use paceline::plan::{Action, Plan, plan};

use super::world::{Copy, ago, answer, desired, epoch, memory, now, seen, silence};

pub const NAMES: [&str; 2] = ["alpha", "bravo"];
const READ_ONLY: Server = Server::ReadOnly { streaming: false };

/// What a laptop shows to the other one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shown {
    pub role: Role,
    pub data: Data,
    pub server: Server,
    pub epochs: Vec<u128>,
    pub timeline: u32,
    pub position: Option<u64>,
    pub flag: Option<Flag>,
    /// Which flag of the other one it has seen.
    pub sees: Option<Flag>,
}

/// A laptop: its disk, its server, its daemon.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Node {
    pub role: Role,
    pub data: Data,
    pub server: Server,
    /// The epochs' names; the one called `n` is on the timeline that has its place in the list.
    pub epochs: Vec<u128>,
    pub timeline: u32,
    pub position: u64,
    pub intended: Option<u128>,
    pub served: bool,
    pub flag: Option<Flag>,
    /// What the other one showed when it was last asked.
    pub view: Option<Shown>,
    /// Whether it was asked since the flag is shown.
    pub asked: bool,
    /// The same on disk, which a power cut leaves.
    pub memory: Option<Shown>,
}

/// Of every epoch: its name, where it begins, the one it branched off (0: none).
pub type Begins = Vec<(u128, u64, u128)>;

/// Both laptops' declarations, by role.
pub type Bases = [[Desired; 3]; 2];

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub nodes: [Node; 2],
    pub link: bool,
    /// Where each epoch begins, by its name.
    pub begins: Begins,
    /// How often something may still happen that no plan asks for.
    pub accidents: u8,
    pub edits: u8,
}

impl Node {
    pub fn new(role: Role, data: Data, server: Server) -> Self {
        Self {
            role,
            data,
            server,
            epochs: vec![1],
            timeline: 1,
            position: 10,
            intended: None,
            served: server == Server::Writable,
            flag: None,
            view: None,
            asked: false,
            memory: None,
        }
    }

    pub fn empty(role: Role) -> Self {
        Self {
            epochs: Vec::new(),
            ..Self::new(role, Data::Empty, Server::Down)
        }
    }
}

impl World {
    pub fn new(nodes: [Node; 2], accidents: u8, edits: u8) -> Self {
        Self {
            nodes,
            link: true,
            begins: vec![(1, 1, 0)],
            accidents,
            edits,
        }
    }

    pub fn epochs(&self, names: &[u128]) -> Vec<Epoch> {
        let one = |(place, name): (usize, &u128)| {
            let (_, begin, parent) = self
                .begins
                .iter()
                .find(|(known, ..)| known == name)
                .expect("begun");
            let timeline = u32::try_from(place).expect("few") + 1;
            epoch(*name, timeline, *begin, (*parent != 0).then_some(*parent))
        };
        names.iter().enumerate().map(one).collect()
    }

    pub fn lineage(&self, names: &[u128], timeline: u32, position: Option<u64>) -> Option<Lineage> {
        (!names.is_empty()).then(|| Lineage {
            system_identifier: "7".to_owned(),
            epochs: self.epochs(names),
            timeline,
            position: position.map(Lsn),
        })
    }

    pub fn show(&self, number: usize) -> Shown {
        let node = &self.nodes[number];
        let observed = self.observed(number);
        Shown {
            role: node.role,
            data: node.data.clone(),
            server: node.server,
            epochs: node.epochs.clone(),
            timeline: node.timeline,
            position: observed
                .lineage()
                .and_then(|lineage| lineage.position)
                .map(|position| position.0),
            flag: node.flag,
            sees: node.view.as_ref().and_then(|view| view.flag),
        }
    }

    pub fn facts(&self, shown: &Shown, number: usize, asked: bool) -> PeerFacts {
        let mut facts = answer(Some(shown.role), shown.data.state(), shown.server);
        facts.node = Some(NAMES[1 - number].to_owned());
        facts.crashed = shown.data == Data::Primary { crashed: true };
        facts.lineage = self.lineage(&shown.epochs, shown.timeline, shown.position);
        facts.flag = shown.flag;
        facts.asked_at = if asked { now() } else { ago(2) };
        facts.sees = Some(SeesUs {
            role: None,
            flag: shown.sees,
        });
        facts
    }

    pub fn remembered(&self, number: usize) -> Option<PeerMemory> {
        let node = &self.nodes[number];
        let shown = node.memory.as_ref()?;
        let lineage = self.lineage(&shown.epochs, shown.timeline, shown.position);
        let mut memory = memory(Some(shown.role), shown.data.state(), lineage, shown.flag);
        memory.writable = shown.server == Server::Writable;
        Some(memory)
    }

    pub fn declared<'a>(&self, number: usize, bases: &'a Bases) -> &'a Desired {
        let role = match self.nodes[number].role {
            Role::Primary => 0,
            Role::Standby => 1,
            Role::Failover | Role::Recovery => 2,
        };
        &bases[number][role]
    }

    /// Of itself.
    pub fn observed(&self, number: usize) -> Observed {
        thread_local! {
            static MADE: RefCell<HashMap<(usize, Node, Begins), Observed>> = RefCell::default();
        }
        let node = &self.nodes[number];
        let alone = Node {
            role: Role::Primary,
            served: false,
            flag: None,
            view: None,
            asked: false,
            memory: None,
            ..node.clone()
        };
        let key = (number, alone, self.begins.clone());
        let make = || {
            let intended = node.intended.map(|name| {
                let (_, begin, parent) = self
                    .begins
                    .iter()
                    .find(|(known, ..)| *known == name)
                    .expect("begun");
                epoch(name, node.timeline + 1, *begin, Some(*parent))
            });
            let copy = Copy {
                data: node.data.clone(),
                server: node.server,
                system_identifier: "7".to_owned(),
                epochs: self.epochs(&node.epochs),
                timeline: node.timeline,
                position: node.position,
                intended,
            };
            let mut desired = desired(Role::Primary, true);
            NAMES[number].clone_into(&mut desired.node);
            copy.observed(&desired)
        };
        MADE.with_borrow_mut(|made| made.entry(key).or_insert_with(make).clone())
    }

    /// Of itself and of the other one.
    pub fn seen(&self, number: usize) -> Observed {
        let node = &self.nodes[number];
        let mut observed = self.observed(number);
        observed.served = node.served;
        observed.flag = node.flag.map(|flag| (flag, ago(1)));
        observed.peer_memory = seen(Fact::Known(self.remembered(number)));
        observed.peer = match (&node.view, self.link) {
            (Some(shown), _) => Peer::Known(Box::new(self.facts(shown, number, node.asked))),
            (None, true) => silence(Unanswered::NotYet, false),
            (None, false) => silence(Unanswered::Silent, true),
        };
        observed
    }

    pub fn plan(&self, number: usize, bases: &Bases) -> Plan {
        thread_local! {
            static PLANNED: RefCell<HashMap<(usize, Node, bool, Begins), Plan>> = RefCell::default();
        }
        let key = (number, self.nodes[number].clone(), self.link, self.begins.clone());
        let make = || plan(self.declared(number, bases), &self.seen(number), now());
        PLANNED.with_borrow_mut(|planned| planned.entry(key).or_insert_with(make).clone())
    }

    pub fn relation(&self) -> Option<Relation> {
        let lineage = |number| self.observed(number).lineage();
        Some(relation(&lineage(0)?, &lineage(1)?))
    }

    pub fn crash(node: &mut Node) {
        if matches!(node.server, Server::Writable) {
            node.data = Data::Primary { crashed: true };
        }
        node.server = Server::Down;
    }

    /// The effect of a step, whole or not at all; those that change nothing here are done when they are planned.
    pub fn carry_out(&self, number: usize, action: &Action) -> Option<Self> {
        let mut next = self.clone();
        let other = self.nodes[1 - number].clone();
        let node = &mut next.nodes[number];
        match action {
            Action::CreateCluster(_) => {
                node.data = Data::Primary { crashed: false };
                node.epochs = vec![1];
                node.timeline = 1;
                node.position = 10;
            }
            Action::StartServer(start) => {
                node.server = if start.standby {
                    READ_ONLY
                } else {
                    Server::Starting
                };
            }
            Action::StopServer => {
                if node.server == Server::Writable {
                    node.data = Data::Primary { crashed: false };
                }
                node.server = Server::Down;
            }
            Action::Clone(_) => {
                if !self.link || other.server != Server::Writable {
                    return None;
                }
                node.data = Data::Replica;
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
                let parent = intention.parent.map_or(0, |parent| parent.as_u128());
                next.begins.push((name, intention.position.0, parent));
                next.nodes[number].intended = Some(name);
            }
            Action::Promote(_) => {
                let name = node.intended.take()?;
                let at = node.position;
                node.epochs.truncate(node.timeline as usize);
                node.epochs.push(name);
                node.timeline += 1;
                node.server = Server::Writable;
                node.data = Data::Primary { crashed: false };
                node.position += 1;
                node.served = true;
                for begun in &mut next.begins {
                    if begun.0 == name {
                        begun.1 = at;
                    }
                }
            }
            _ => return None,
        }
        Some(next)
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
        if let Some(first) = planned.first()
            && let Some(world) = self.carry_out(number, &first.action)
        {
            next.push((format!("{name}: {}", first.action.name()), world));
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
        let follows = node.server == READ_ONLY
            && self.link
            && other.server == Server::Writable
            && other.epochs.starts_with(&node.epochs[..node.timeline as usize])
            && node.epochs == other.epochs
            && (node.timeline, node.position) < (other.timeline, other.position);
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
    pub fn accidents(&self, number: usize, cuts: bool) -> Vec<(String, Self)> {
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
            add("a write", &|world| world.nodes[number].position += 1);
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
        if self.edits > 0 {
            for role in [Role::Primary, Role::Standby, Role::Failover] {
                if role != self.nodes[number].role {
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
