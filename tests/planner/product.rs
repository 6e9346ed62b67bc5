//! Every combination of facts that matters: our copy and server, the other laptop, what we announce.

use paceline::desired::{Desired, Role};
use paceline::lineage::{Lineage, Lsn};
use paceline::observed::{
    Consents, Contradiction, Data, DataState, Fact, Flag, HandedOver, Moment, Observed, Peer, PeerMemory,
    SeesUs, Server, Unanswered,
};

use paceline::plan::{Action, plan};

use super::world::{Copy, ago, answer, desired, epoch, history, memory, now, seen, silence};

/// How our copy shall stand to the other one's, where both are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stands {
    Behind,
    Equal,
    Ahead,
    Unproven,
    Ancestor,
    Forked,
    Newer,
    NewerForked,
    Twins,
    Stranger,
    Unnamed,
    NoHistory,
}

pub const STANDS: [Stands; 12] = [
    Stands::Behind,
    Stands::Equal,
    Stands::Ahead,
    Stands::Unproven,
    Stands::Ancestor,
    Stands::Forked,
    Stands::Newer,
    Stands::NewerForked,
    Stands::Twins,
    Stands::Stranger,
    Stands::Unnamed,
    Stands::NoHistory,
];

impl Stands {
    /// Puts our copy on the history that this takes, and gives the other one's.
    pub fn place(self, copy: &mut Copy) -> Option<Lineage> {
        let first = epoch(1, 1, 1, None);
        let second = |begin| epoch(2, 2, begin, Some(1));
        if matches!(self, Self::Newer | Self::NewerForked | Self::Twins) {
            copy.epochs = vec![first.clone(), second(45)];
            copy.timeline = 2;
        }
        let same = |position| Some(history(std::slice::from_ref(&first), 1, position));
        match self {
            Self::Behind => same(Some(60)),
            Self::Equal => same(Some(50)),
            Self::Ahead => same(Some(40)),
            Self::Unproven => same(None),
            Self::Ancestor => Some(history(&[first, second(55)], 2, Some(60))),
            Self::Forked => Some(history(&[first, second(45)], 2, Some(60))),
            Self::Newer => same(Some(45)),
            Self::NewerForked => same(Some(60)),
            Self::Twins => Some(history(&[first, epoch(3, 2, 45, Some(1))], 2, Some(60))),
            Self::Stranger => Some(Lineage {
                system_identifier: "8".to_owned(),
                ..history(&[first], 1, Some(60))
            }),
            Self::Unnamed => Some(history(&[first], 2, Some(60))),
            Self::NoHistory => None,
        }
    }
}

/// Whether the other laptop's answer to what we announce came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was asked before we announced it.
    Before,
    /// It was asked since, and does not repeat it.
    Fetched,
    /// Likewise, for more than two seconds.
    Waited,
    /// It repeats it.
    Repeated,
}

/// What we announce.
pub type Ours = Option<(Flag, Heard)>;

/// What this copy could have reason to announce, and one thing that an earlier plan may have left.
fn ours(data: &Data, server: Server) -> &'static [Ours] {
    match (data, server) {
        (Data::Empty | Data::Primary { .. }, Server::Down) => &[
            None,
            Some((Flag::Starting, Heard::Before)),
            Some((Flag::Starting, Heard::Fetched)),
            Some((Flag::Taking, Heard::Fetched)),
        ],
        (_, Server::ReadOnly { streaming: false }) => &[
            None,
            Some((Flag::Taking, Heard::Before)),
            Some((Flag::Taking, Heard::Fetched)),
            Some((Flag::Taking, Heard::Waited)),
            Some((Flag::Taking, Heard::Repeated)),
            Some((Flag::Starting, Heard::Fetched)),
        ],
        _ => &[None],
    }
}

/// The other laptop.
#[derive(Clone, Debug, PartialEq)]
pub enum Other {
    None,
    Silent {
        how: Unanswered,
        settled: bool,
        memory: Remembers,
    },
    Unauthenticated(Remembers),
    Known {
        role: Option<Role>,
        data: DataState,
        /// `None`: it runs and does not answer.
        server: Option<Server>,
        /// `None`: it has no copy.
        stands: Option<Stands>,
        flag: Option<Flag>,
    },
}

/// What `home` remembers of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembers {
    Nothing,
    /// It cannot be read.
    Unreadable,
    /// A standby's copy of this history, declared so.
    Standby,
    /// It was about to promote.
    Taking,
    /// A standby's copy, declared failover.
    Failover,
    /// A primary's copy on an epoch that we lack.
    TookOver,
    /// Likewise, before that epoch had its name.
    TookOverUnnamed,
    Twins,
    Stranger,
}

pub const REMEMBERS: [Remembers; 9] = [
    Remembers::Nothing,
    Remembers::Unreadable,
    Remembers::Standby,
    Remembers::Taking,
    Remembers::Failover,
    Remembers::TookOver,
    Remembers::TookOverUnnamed,
    Remembers::Twins,
    Remembers::Stranger,
];

impl Remembers {
    fn fact(self, copy: &mut Copy) -> Fact<Option<PeerMemory>> {
        let replica = |role, flag, copy: &mut Copy| {
            Some(memory(
                Some(role),
                DataState::Replica,
                Stands::Ahead.place(copy),
                flag,
            ))
        };
        let primary = |stands: Stands, copy: &mut Copy| {
            Some(memory(
                Some(Role::Failover),
                DataState::Primary,
                stands.place(copy),
                None,
            ))
        };
        Fact::Known(match self {
            Self::Nothing => None,
            Self::Unreadable => return Fact::Unknown("it is damaged".to_owned()),
            Self::Standby => replica(Role::Standby, None, copy),
            Self::Taking => replica(Role::Standby, Some(Flag::Taking), copy),
            Self::Failover => replica(Role::Failover, None, copy),
            Self::TookOver => primary(Stands::Forked, copy),
            Self::TookOverUnnamed => primary(Stands::Unnamed, copy),
            Self::Twins => primary(Stands::Twins, copy),
            Self::Stranger => primary(Stands::Stranger, copy),
        })
    }
}

impl Other {
    /// As it would be seen, with our copy put where that takes it.
    pub fn seen(&self, copy: &mut Copy, ours: Ours, desired: &Desired) -> Observed {
        self.place(copy);
        let mut observed = copy.observed(desired);
        self.beside(copy, &mut observed, ours, desired);
        observed
    }

    /// The same, beside what we see of ourselves.
    fn beside(&self, copy: &mut Copy, observed: &mut Observed, ours: Ours, desired: &Desired) {
        let mut memory = Fact::Known(None);
        let peer = match self {
            Self::None => Peer::None,
            Self::Silent {
                how,
                settled,
                memory: remembers,
            } => {
                memory = remembers.fact(copy);
                silence(*how, *settled)
            }
            Self::Unauthenticated(remembers) => {
                memory = remembers.fact(copy);
                Peer::Unauthenticated {
                    why: "the other laptop has another secret".to_owned(),
                }
            }
            Self::Known {
                role,
                data,
                server,
                stands,
                flag,
            } => {
                let mut facts = answer(*role, *data, Server::Down);
                facts.server = server.map_or_else(|| Fact::Unknown("it hangs".to_owned()), Fact::Known);
                facts.lineage = stands.and_then(|stands| stands.place(copy));
                facts.flag = *flag;
                facts.asked_at = ago(1);
                if ours.is_some_and(|(_, heard)| heard == Heard::Repeated) {
                    facts.sees = Some(SeesUs {
                        role: Some(desired.role),
                        flag: ours.map(|(flag, _)| flag),
                    });
                }
                Peer::Known(Box::new(facts))
            }
        };
        observed.peer = peer;
        observed.peer_memory = seen(memory);
        observed.flag = ours.map(|(flag, heard)| (flag, announced_at(heard)));
    }

    /// Which history our copy has to be on.
    fn place(&self, copy: &mut Copy) {
        match self {
            Self::None => {}
            Self::Silent { memory, .. } | Self::Unauthenticated(memory) => drop(memory.fact(copy)),
            Self::Known { stands, .. } => drop(stands.map(|stands| stands.place(copy))),
        }
    }

    /// Whether only few of our own states are looked at beside it.
    fn common(&self) -> bool {
        matches!(
            self,
            Self::Known {
                server: Some(Server::Down | Server::Writable),
                flag: None,
                ..
            }
        )
    }
}

fn announced_at(heard: Heard) -> Moment {
    match heard {
        Heard::Before => now(),
        Heard::Fetched | Heard::Repeated => ago(2),
        Heard::Waited => ago(3),
    }
}

/// All states of the data directory.
pub fn all_data() -> Vec<Data> {
    vec![
        Data::Empty,
        Data::NotOurs("it holds holiday.jpg".to_owned()),
        Data::Tainted,
        Data::Primary { crashed: false },
        Data::Primary { crashed: true },
        Data::Replica,
        Data::Recovering,
        Data::Unclear(Contradiction::SignalFileGone),
        Data::Unclear(Contradiction::BackupLabel),
        Data::Unclear(Contradiction::ControlUnreadable("it is damaged".to_owned())),
    ]
}

pub const SERVERS: [Server; 6] = [
    Server::Down,
    Server::Starting,
    Server::Writable,
    Server::ReadOnly { streaming: false },
    Server::ReadOnly { streaming: true },
    Server::Stopping,
];

/// The combinations of directory and server that occur. The others (marks and server are looked at one after the
/// other) are looked at with fewer other laptops.
pub fn usual() -> Vec<(Data, Server)> {
    let mut usual: Vec<(Data, Server)> = all_data().into_iter().map(|data| (data, Server::Down)).collect();
    for server in [Server::Starting, Server::Writable, Server::Stopping] {
        usual.push((Data::Primary { crashed: true }, server));
    }
    for server in [
        Server::Starting,
        Server::ReadOnly { streaming: false },
        Server::ReadOnly { streaming: true },
        Server::Stopping,
    ] {
        usual.push((Data::Replica, server));
    }
    usual
}

/// The other laptop, while it does not answer, or not with our secret.
pub fn silent() -> Vec<Other> {
    let mut others = vec![Other::None];
    for memory in REMEMBERS {
        for (how, settled) in [
            (Unanswered::NotYet, false),
            (Unanswered::Silent, false),
            (Unanswered::Silent, true),
        ] {
            others.push(Other::Silent { how, settled, memory });
        }
        others.push(Other::Unauthenticated(memory));
    }
    others
}

/// The other laptop, while it answers.
pub fn known() -> Vec<Other> {
    let mut others = Vec::new();
    let roles = [
        None,
        Some(Role::Primary),
        Some(Role::Standby),
        Some(Role::Failover),
    ];
    for role in roles {
        for flag in [None, Some(Flag::Starting), Some(Flag::Taking)] {
            // Only a daemon announces anything.
            if role.is_none() && flag.is_some() {
                continue;
            }
            let mut add = |data, server, stands| {
                others.push(Other::Known {
                    role,
                    data,
                    server,
                    stands,
                    flag,
                });
            };
            for data in [
                DataState::Empty,
                DataState::Tainted,
                DataState::Unclear,
                DataState::Unknown,
            ] {
                for server in [Some(Server::Down), Some(Server::Writable), None] {
                    add(data, server, None);
                }
            }
            for stands in STANDS {
                for server in [Some(Server::Down), Some(Server::Starting), None] {
                    add(DataState::Primary, server, Some(stands));
                    add(DataState::Replica, server, Some(stands));
                }
                add(DataState::Primary, Some(Server::Writable), Some(stands));
                let read_only = Some(Server::ReadOnly { streaming: false });
                add(DataState::Replica, read_only, Some(stands));
            }
        }
    }
    others
}

/// What else may be true of the two, besides what they hold and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Nothing,
    /// The other laptop handed its copy over, and we hold all of it.
    TheyGave,
    /// Likewise, and a part is missing here.
    TheyGavePart,
    /// We handed our copy over.
    WeGave,
    BothGave,
    /// The other laptop streams from us and has seen that we are declared standby.
    Ready,
    /// A person wrote the token that was shown.
    Given,
    /// That was recorded.
    Granted,
    /// Which tokens were used cannot be read.
    ConsentsUnreadable,
}

pub const EXTRAS: [Extra; 5] = [
    Extra::TheyGave,
    Extra::TheyGavePart,
    Extra::WeGave,
    Extra::BothGave,
    Extra::Ready,
];

impl Extra {
    /// Makes it so; `None`: it cannot be so here.
    pub fn apply(self, desired: &mut Desired, observed: &mut Observed) -> Option<()> {
        let promise = |lineage: &Lineage, lsn: u64| {
            Some(HandedOver {
                system_identifier: lineage.system_identifier.clone(),
                epoch: lineage.held().last()?.uuid,
                shutdown_checkpoint_lsn: Lsn(lsn),
            })
        };
        match self {
            Self::Nothing => {}
            Self::TheyGave | Self::TheyGavePart | Self::BothGave => {
                let ours = observed.lineage()?.position.map_or(50, |position| position.0);
                let Peer::Known(facts) = &mut observed.peer else {
                    return None;
                };
                if facts.data != DataState::Replica || facts.role.is_none() {
                    return None;
                }
                let lsn = if self == Self::TheyGavePart {
                    ours + 5
                } else {
                    ours - 1
                };
                facts.handed_over = Some(promise(facts.lineage.as_ref()?, lsn)?);
                if self == Self::BothGave {
                    return Self::WeGave.apply(desired, observed);
                }
            }
            Self::WeGave => {
                let lineage = observed.lineage()?;
                let position = lineage.position.map_or(50, |position| position.0);
                observed.handover_intention = seen(Fact::Known(Some(promise(&lineage, position - 1)?)));
                observed.handed_over()?;
            }
            Self::Ready => {
                let flag = observed.flag.map(|(flag, _)| flag);
                let Peer::Known(facts) = &mut observed.peer else {
                    return None;
                };
                if facts.server != Fact::Known(Server::ReadOnly { streaming: false }) || facts.role.is_none()
                {
                    return None;
                }
                facts.server = Fact::Known(Server::ReadOnly { streaming: true });
                facts.sees = Some(SeesUs {
                    role: Some(desired.role),
                    flag,
                });
            }
            Self::Given => {
                desired.consent = Some(plan(desired, observed, now()).offer?.token);
            }
            Self::Granted => {
                Self::Given.apply(desired, observed)?;
                let planned = plan(desired, observed, now());
                let Some(Action::RecordConsent(grant)) = planned.first().map(|step| &step.action) else {
                    panic!("the token that was shown is not taken: {planned:?}");
                };
                observed.consents = seen(Fact::Known(Consents {
                    used: vec![grant.token.clone()],
                    granted: Some(grant.situation.clone()),
                }));
            }
            Self::ConsentsUnreadable => {
                Self::Given.apply(desired, observed)?;
                observed.consents = seen(Fact::Unknown("it is damaged".to_owned()));
            }
        }
        Some(())
    }
}

/// One combination.
pub struct Case<'a> {
    pub role: Role,
    pub data: &'a Data,
    pub server: Server,
    pub other: &'a Other,
    pub ours: Ours,
    pub extra: Extra,
    pub desired: &'a Desired,
    pub observed: Observed,
}

impl Case<'_> {
    /// For a message.
    pub fn context(&self, plan: &paceline::plan::Plan) -> String {
        format!(
            "declared {}, {:?}, server {}, {:?}, we announce {:?}, {:?}, relation {:?}: {}",
            self.role,
            self.data,
            self.server,
            self.other,
            self.ours,
            self.extra,
            self.observed.relation(),
            super::world::shown(plan)
        )
    }
}

/// Visits every combination for one role.
pub fn every(role: Role, mut visit: impl FnMut(&Case<'_>)) -> usize {
    let (alone, paired) = (desired(role, false), desired(role, true));
    let (silent, known, usual) = (silent(), known(), usual());
    let mut count = 0;
    for data in &all_data() {
        for server in SERVERS {
            let usual = usual.contains(&(data.clone(), server));
            // What we see of ourselves takes long to make and is the same beside most of them.
            let mut made: Vec<(u32, &Desired, Observed)> = Vec::new();
            for other in silent.iter().chain(&known) {
                if !usual && matches!(other, Other::Known { .. }) && !other.common() {
                    continue;
                }
                let desired = if *other == Other::None { &alone } else { &paired };
                let mut copy = Copy::new(data.clone(), server);
                other.place(&mut copy);
                let fits = |(timeline, of, _): &&(u32, &Desired, Observed)| {
                    *timeline == copy.timeline && std::ptr::eq(*of, desired)
                };
                let base = match made.iter().find(fits) {
                    Some((_, _, observed)) => observed.clone(),
                    None => {
                        let observed = copy.observed(desired);
                        made.push((copy.timeline, desired, observed.clone()));
                        observed
                    }
                };
                for ours in ours(data, server) {
                    let mut observed = base.clone();
                    other.beside(&mut copy, &mut observed, *ours, desired);
                    let mut visit = |extra, desired: &Desired, observed| {
                        count += 1;
                        visit(&Case {
                            role,
                            data,
                            server,
                            other,
                            ours: *ours,
                            extra,
                            desired,
                            observed,
                        });
                    };
                    let offers = plan(desired, &observed, now()).offer.is_some();
                    let consents = [Extra::Given, Extra::Granted, Extra::ConsentsUnreadable];
                    let extras = EXTRAS
                        .iter()
                        .filter(|_| usual && matches!(other, Other::Known { .. }));
                    for extra in consents.iter().filter(|_| offers).chain(extras) {
                        let (mut desired, mut observed) = (desired.clone(), observed.clone());
                        if extra.apply(&mut desired, &mut observed).is_some() {
                            visit(*extra, &desired, observed);
                        }
                    }
                    visit(Extra::Nothing, desired, observed);
                }
            }
        }
    }
    count
}
