//! Two laptops in one small world: what each shows and has seen of the other, what its plan does to it, what may happen
//! to it. See `happenings` for what becomes of them, `explorer` for where that leads.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use paceline::desired::{Desired, Role};
use paceline::lineage::{Epoch, Lineage, Lsn, Relation, relation};
use paceline::observed::{
    Consents, Data, Fact, Flag, Observed, Peer, PeerFacts, PeerMemory, SeesUs, Server, Unanswered,
};
use paceline::plan::{Plan, check, plan};

use uuid::Uuid;

use super::world::{Copy, ago, answer, desired, epoch, memory, now, promise, seen, silence};

pub const NAMES: [&str; 2] = ["alpha", "bravo"];
pub const READ_ONLY: Server = Server::ReadOnly { streaming: false };

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
    /// What it gave away: epoch and shutdown checkpoint.
    pub handed_over: Option<(u128, u64)>,
    /// Which flag of the other one it has seen.
    pub sees: Option<Flag>,
    /// As what it has seen the other one declared.
    pub sees_role: Option<Role>,
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
    /// The note that it gave its copy away: epoch and shutdown checkpoint.
    pub promise: Option<(u128, u64)>,
    pub consented: Consented,
    pub served: bool,
    pub flag: Option<Flag>,
    /// What the other one showed when it was last asked.
    pub view: Option<Shown>,
    /// Whether it was asked since the flag is shown.
    pub asked: bool,
    /// The same on disk, which a power cut leaves.
    pub memory: Option<Shown>,
}

/// An epoch: its name, where it begins, the one it branched off (0: none), those that were given up for it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Begun {
    pub name: u128,
    pub at: u64,
    pub parent: u128,
    pub supersedes: Vec<u128>,
}

impl Begun {
    fn epoch(&self, timeline: u32) -> Epoch {
        let parent = (self.parent != 0).then_some(self.parent);
        Epoch {
            supersedes: self.supersedes.iter().copied().map(Uuid::from_u128).collect(),
            ..epoch(self.name, timeline, self.at, parent)
        }
    }
}

/// Every epoch that was ever named.
pub type Begins = Vec<Begun>;

/// What a person consented to.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Consented {
    /// The word in the state file.
    pub word: Option<String>,
    pub used: Vec<String>,
    pub granted: Option<String>,
}

/// Everything that a plan of the model depends on.
type Known = (usize, Node, Server, bool, Begins);

/// Both laptops' declarations, by role.
pub type Bases = [[Desired; 3]; 2];

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub nodes: [Node; 2],
    pub link: bool,
    /// Where each epoch begins, by its name.
    pub begins: Begins,
    /// Of each epoch, how far somebody was told that it is safe.
    pub acknowledged: Vec<(u128, u64)>,
    /// How often something may still happen that no plan asks for.
    pub accidents: u8,
    pub edits: u8,
    /// Persons consent to what is offered.
    pub consents: bool,
    /// Nobody ever declares failover, so nothing may be lost.
    pub careful: bool,
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
            promise: None,
            consented: Consented::default(),
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
            begins: vec![Begun {
                name: 1,
                at: 1,
                parent: 0,
                supersedes: Vec::new(),
            }],
            acknowledged: Vec::new(),
            accidents,
            edits,
            consents: false,
            careful: false,
        }
    }

    pub fn epochs(&self, names: &[u128]) -> Vec<Epoch> {
        let one = |(place, name): (usize, &u128)| {
            let begun = self.begun(*name);
            let timeline = u32::try_from(place).expect("few") + 1;
            begun.epoch(timeline)
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
            server: self.server(number),
            epochs: node.epochs.clone(),
            timeline: node.timeline,
            position: observed
                .lineage()
                .and_then(|lineage| lineage.position)
                .map(|position| position.0),
            flag: node.flag,
            handed_over: observed
                .handed_over()
                .map(|promise| (promise.epoch.as_u128(), promise.shutdown_checkpoint_lsn.0)),
            sees: node.view.as_ref().and_then(|view| view.flag),
            sees_role: node.view.as_ref().map(|view| view.role),
        }
    }

    /// Its server, which streams or does not.
    pub fn server(&self, number: usize) -> Server {
        match self.nodes[number].server {
            Server::ReadOnly { .. } => Server::ReadOnly {
                streaming: self.streams(number),
            },
            server => server,
        }
    }

    /// Whether its standby's server gets what the other one has: of one that is written to, or what it lacks of another
    /// standby.
    pub fn streams(&self, number: usize) -> bool {
        let (node, other) = (&self.nodes[number], &self.nodes[1 - number]);
        let place = |node: &Node| (node.timeline, node.position);
        let serves = match other.server {
            Server::Writable => place(node) <= place(other),
            Server::ReadOnly { .. } => node.timeline == other.timeline && node.position < other.position,
            Server::Down | Server::Starting | Server::Stopping => false,
        };
        self.link && node.server == READ_ONLY && serves && node.epochs == other.epochs
    }

    /// Whether its copy holds this epoch up to this position.
    pub fn holds(&self, number: usize, epoch: u128, position: u64) -> bool {
        let node = &self.nodes[number];
        let path = &node.epochs[..(node.timeline as usize).min(node.epochs.len())];
        let Some(place) = path.iter().position(|name| *name == epoch) else {
            return false;
        };
        let end = match path.get(place + 1) {
            Some(next) => self.begun(*next).at,
            None => node.position,
        };
        position <= end
    }

    /// Whether its copy holds everything that the other one's holds.
    pub fn holds_all_of_the_other(&self, number: usize) -> bool {
        let other = &self.nodes[1 - number];
        match (&other.data, other.epochs.get(other.timeline as usize - 1)) {
            (Data::Primary { .. } | Data::Replica, Some(last)) => self.holds(number, *last, other.position),
            _ => true,
        }
    }

    fn begun(&self, name: u128) -> &Begun {
        self.begins
            .iter()
            .find(|begun| begun.name == name)
            .expect("begun")
    }

    pub fn facts(&self, shown: &Shown, number: usize, asked: bool) -> PeerFacts {
        let mut facts = answer(Some(shown.role), shown.data.state(), shown.server);
        facts.node = Some(NAMES[1 - number].to_owned());
        facts.crashed = shown.data == Data::Primary { crashed: true };
        facts.lineage = self.lineage(&shown.epochs, shown.timeline, shown.position);
        facts.flag = shown.flag;
        facts.asked_at = if asked { now() } else { ago(2) };
        facts.handed_over = shown.handed_over.map(|(epoch, at)| promise(epoch, at));
        facts.sees = Some(SeesUs {
            role: shown.sees_role,
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
        memory.handed_over = shown.handed_over.map(|(epoch, at)| promise(epoch, at));
        Some(memory)
    }

    pub fn declared<'a>(&self, number: usize, bases: &'a Bases) -> Cow<'a, Desired> {
        let role = match self.nodes[number].role {
            Role::Primary => 0,
            Role::Standby => 1,
            Role::Failover | Role::Recovery => 2,
        };
        let declared = &bases[number][role];
        match &self.nodes[number].consented.word {
            None => Cow::Borrowed(declared),
            word => Cow::Owned(Desired {
                consent: word.clone(),
                ..declared.clone()
            }),
        }
    }

    /// Of itself.
    pub fn observed(&self, number: usize) -> Observed {
        thread_local! {
            static MADE: RefCell<HashMap<(usize, Node, Begins), Observed>> = RefCell::default();
        }
        let node = &self.nodes[number];
        let server = self.server(number);
        let alone = Node {
            role: Role::Primary,
            server,
            served: false,
            flag: None,
            view: None,
            asked: false,
            memory: None,
            consented: Consented::default(),
            ..node.clone()
        };
        let key = (number, alone, self.begins.clone());
        let make = || {
            let intended = node
                .intended
                .map(|name| self.begun(name).epoch(node.timeline + 1));
            let copy = Copy {
                data: node.data.clone(),
                server,
                system_identifier: "7".to_owned(),
                epochs: self.epochs(&node.epochs),
                timeline: node.timeline,
                position: node.position,
                intended,
            };
            let mut desired = desired(Role::Primary, true);
            NAMES[number].clone_into(&mut desired.node);
            let mut observed = copy.observed(&desired);
            let intention = node.promise.map(|(epoch, at)| promise(epoch, at));
            observed.handover_intention = seen(Fact::Known(intention));
            observed
        };
        MADE.with_borrow_mut(|made| made.entry(key).or_insert_with(make).clone())
    }

    /// Of itself and of the other one.
    pub fn seen(&self, number: usize) -> Observed {
        let node = &self.nodes[number];
        let mut observed = self.observed(number);
        observed.served = node.served;
        observed.consents = seen(Fact::Known(Consents {
            used: node.consented.used.clone(),
            granted: node.consented.granted.clone(),
        }));
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
            static PLANNED: RefCell<HashMap<Known, Plan>> = RefCell::default();
        }
        let node = self.nodes[number].clone();
        let key = (number, node, self.server(number), self.link, self.begins.clone());
        let make = || {
            let (declared, seen) = (self.declared(number, bases), self.seen(number));
            let planned = plan(&declared, &seen, now());
            if let Err(fault) = check(&declared, &seen, &planned, now()) {
                panic!("{fault}: {planned:?}");
            }
            planned
        };
        PLANNED.with_borrow_mut(|planned| planned.entry(key).or_insert_with(make).clone())
    }

    pub fn relation(&self) -> Option<Relation> {
        let lineage = |number| self.observed(number).lineage();
        Some(relation(&lineage(0)?, &lineage(1)?))
    }
}
