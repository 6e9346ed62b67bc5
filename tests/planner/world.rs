//! Facts for the planner's tests: a laptop described in a few words, as the probes and the link would show it.

use std::time::Duration;

use paceline::desired::{self, Desired, PeerAddress, Recovery, RecoveryTarget, Role, Surroundings};
use paceline::lineage::{Epoch, Lineage, Lsn, Origin, Sidecar};
use paceline::observed::{
    Answer, AppFacts, Backup, BackupKind, Cluster, ClusterState, Configuration, Consents, Contradiction,
    ControlData, Data, DataDirectory, DataState, DatabaseFacts, Fact, Flag, HandedOver, Installation, Login,
    Moment, Observed, Parameters, Peer, PeerFacts, PeerMemory, PendingSetting, Postmaster, Remembered,
    ReplicationFacts, RunningServer, Secret, Seen, Server, ServerFacts, ServerPhase, ServerUser, Silence,
    Slot, Unanswered,
};
use paceline::plan::configuration::{About, render, slot_name};
use paceline::plan::{Action, End, Plan};
use uuid::Uuid;

pub fn desired(role: Role, peer: bool) -> Desired {
    let surroundings = Surroundings {
        path: "/event/state.yaml".into(),
        root: true,
        user: "root".to_owned(),
        hostname: "alpha".to_owned(),
        node: None,
        addresses: Vec::new(),
        state_home: "/var/lib/nobody/state".into(),
    };
    let peer = if peer { "peer: 192.168.40.17\n" } else { "" };
    let text =
        format!("role: primary\nhome: /home\n{peer}racedb: {{ command: [app], working_directory: / }}\n");
    let mut desired = desired::validate(&text, &surroundings).expect("valid");
    desired.role = role;
    if role == Role::Recovery {
        desired.recovery = Some(Recovery {
            from: Some("/media/usb/racedb".into()),
            restore_command: None,
            target: RecoveryTarget::Latest,
            request: "1".to_owned(),
        });
    }
    desired
}

pub fn now() -> Moment {
    Moment::from_boot(Duration::from_secs(1000))
}

/// So many seconds ago.
pub fn ago(seconds: u64) -> Moment {
    Moment::from_boot(Duration::from_secs(1000 - seconds))
}

pub fn seen<T>(fact: Fact<T>) -> Seen<T> {
    Seen::new(fact, now())
}

pub fn installation() -> Installation {
    Installation {
        bin_directory: "/pg/bin".into(),
        major: 15,
        version: "15.1".to_owned(),
    }
}

/// The epoch called `name`, on this timeline from this position.
pub fn epoch(name: u128, timeline: u32, begin: u64, parent: Option<u128>) -> Epoch {
    Epoch {
        uuid: Uuid::from_u128(name),
        parent: parent.map(Uuid::from_u128),
        supersedes: Vec::new(),
        begin_lsn: Lsn(begin),
        timeline,
        node: "alpha".to_owned(),
        time: "2026-06-06T14:05:00Z".to_owned(),
    }
}

/// One laptop's copy and its server.
#[derive(Clone, Debug)]
pub struct Copy {
    pub data: Data,
    pub server: Server,
    pub system_identifier: String,
    pub epochs: Vec<Epoch>,
    pub timeline: u32,
    pub position: u64,
    pub intended: Option<Epoch>,
}

impl Copy {
    /// On the first epoch, at position 50.
    pub fn new(data: Data, server: Server) -> Self {
        Self {
            data,
            server,
            system_identifier: "7".to_owned(),
            epochs: vec![epoch(1, 1, 1, None)],
            timeline: 1,
            position: 50,
            intended: None,
        }
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            major: 15,
            control: Fact::Known(ControlData {
                system_identifier: self.system_identifier.clone(),
                state: ClusterState::ShutDown,
                checkpoint: Lsn(self.position - 1),
                timeline: self.timeline,
                needed: Parameters::default(),
            }),
            standby_signal: false,
            recovery_signal: false,
            backup_label: false,
            tainted: false,
            owner_uid: 101,
            mode: 0o700,
            mount_point: false,
            sidecar: Fact::Known(Some(Sidecar {
                format: 1,
                system_identifier: self.system_identifier.clone(),
                origin: Origin::Created,
                epochs: self.epochs.clone(),
                intended: self.intended.clone(),
                restored: None,
            })),
            auto_conf_names: Vec::new(),
        }
    }

    /// The directory that shows this state.
    fn directory(&self) -> DataDirectory {
        let with = |change: &dyn Fn(&mut Cluster)| {
            let mut cluster = self.cluster();
            change(&mut cluster);
            DataDirectory::Cluster(Box::new(cluster))
        };
        let state = |cluster: &mut Cluster, state| {
            if let Fact::Known(control) = &mut cluster.control {
                control.state = state;
            }
        };
        match &self.data {
            Data::Empty => DataDirectory::Empty { mount_point: false },
            Data::NotOurs(what) => DataDirectory::NotOurs(what.clone()),
            Data::Tainted => with(&|cluster| cluster.tainted = true),
            Data::Primary { crashed: false } => with(&|_| {}),
            Data::Primary { crashed: true } => with(&|cluster| state(cluster, ClusterState::InProduction)),
            Data::Replica => with(&|cluster| {
                cluster.standby_signal = true;
                state(cluster, ClusterState::ShutDownInRecovery);
            }),
            Data::Recovering => with(&|cluster| cluster.recovery_signal = true),
            Data::Unclear(Contradiction::SignalFileGone) => {
                with(&|cluster| state(cluster, ClusterState::InArchiveRecovery))
            }
            Data::Unclear(Contradiction::BackupLabel) => with(&|cluster| cluster.backup_label = true),
            Data::Unclear(Contradiction::ControlUnreadable(why)) => {
                with(&|cluster| cluster.control = Fact::Unknown(why.clone()))
            }
        }
    }

    fn facts(&self, configuration: &str) -> ServerFacts {
        let read_only = matches!(self.server, Server::ReadOnly { .. });
        ServerFacts {
            in_recovery: read_only,
            read_only,
            streaming: matches!(self.server, Server::ReadOnly { streaming: true }),
            system_identifier: self.system_identifier.clone(),
            timeline: self.timeline,
            lsn: Lsn(self.position),
            position_proven: true,
            promoting: false,
            oldest_wal: None,
            checkpoint_timeline: self.timeline,
            since_checkpoint: 0,
            synchronous: false,
            replay_paused: false,
            replayed_until: None,
            receiver: None,
            version: "15.1".to_owned(),
            configuration: Some(configuration.to_owned()),
            auto_conf_in_force: Vec::new(),
            pending_restart: Vec::new(),
            configuration_errors: Vec::new(),
            epochs: self.epochs.clone(),
        }
    }

    /// What this laptop sees of itself, with everything in order that has nothing to do with the copy.
    pub fn observed(&self, desired: &Desired) -> Observed {
        let follows = match self.server {
            Server::Writable => false,
            Server::ReadOnly { .. } => true,
            Server::Down | Server::Starting | Server::Stopping => self.data == Data::Replica,
        };
        let about = About {
            major: 15,
            own: None,
            replica: follows,
            follows: self.epochs.last().map(|epoch| epoch.uuid),
            needed: None,
            synchronous: None,
        };
        let files = render(desired, &about, &Configuration::default());
        let running = |phase| {
            Postmaster::Running(RunningServer {
                pid: 7,
                started: 70,
                port: 5432,
                phase,
                ours: true,
                command_line: "postgres".to_owned(),
            })
        };
        let answer = match self.server {
            Server::Writable | Server::ReadOnly { .. } => Answer::Facts(Box::new(self.facts(&files.digest))),
            Server::Down | Server::Starting | Server::Stopping => Answer::NotAsked,
        };
        let postmaster = match self.server {
            Server::Down => Postmaster::Down {
                leftovers: Vec::new(),
            },
            Server::Starting => running(ServerPhase::Starting),
            Server::Stopping => running(ServerPhase::Stopping),
            Server::Writable | Server::ReadOnly { .. } => running(ServerPhase::Ready),
        };
        let slot = self.epochs.last().map(|epoch| Slot {
            name: slot_name(&other(&desired.node), epoch.uuid),
            active: true,
            lost: false,
        });
        let remembered = match self.data {
            Data::Empty | Data::NotOurs(_) => None,
            _ => Some(Remembered {
                system_identifier: self.system_identifier.clone(),
                data_directory: "/home/data".into(),
                origin: Origin::Created,
            }),
        };
        Observed {
            data: seen(Fact::Known(self.directory())),
            postmaster: seen(Fact::Known(postmaster)),
            server: seen(Fact::Known(answer)),
            configuration: seen(Fact::Known(Configuration {
                postgresql_conf: Some(files.postgresql_conf),
                pg_hba: Some(files.pg_hba),
                pg_ident: Some(files.pg_ident),
                ..Configuration::default()
            })),
            database: seen(Fact::Known(DatabaseFacts {
                about: ("racedb".to_owned(), "racedb".to_owned()),
                role: true,
                owner: Some("racedb".to_owned()),
                login: Login::Works,
            })),
            installations: seen(Fact::Known(vec![installation()])),
            remembered: seen(Fact::Known(remembered)),
            server_user: seen(Fact::Known(Some(ServerUser {
                name: "postgres".to_owned(),
                uid: 101,
            }))),
            replication: seen(Fact::Known(ReplicationFacts {
                role: true,
                login: Login::Works,
                slots: slot.into_iter().collect(),
            })),
            secret: seen(Fact::Known(Secret::There {
                passfile_current: true,
            })),
            peer: Peer::None,
            peer_memory: seen(Fact::Known(None)),
            handover_intention: seen(Fact::Known(None)),
            consents: seen(Fact::Known(Consents::default())),
            flag: None,
            new_database_allowed: false,
            backup: seen(Fact::Known(
                desired
                    .recovery
                    .as_ref()
                    .and_then(|recovery| recovery.from.as_ref())
                    .map(|_| backup()),
            )),
            restart: seen(Fact::Known(None)),
            triggered: false,
            app: AppFacts::default(),
            served: false,
            ending: false,
        }
    }
}

/// A backup that can be restored.
pub fn backup() -> Backup {
    Backup {
        kind: BackupKind::Directory,
        bytes: 40 << 20,
        major: Some(installation().major),
    }
}

/// A setting that waits for a restart.
pub fn pending(name: &str) -> PendingSetting {
    PendingSetting {
        name: name.to_owned(),
        in_force: Some("16MB".to_owned()),
        wanted: Some("32MB".to_owned()),
    }
}

/// The other laptop's name.
pub fn other(node: &str) -> String {
    if node == "alpha" { "bravo" } else { "alpha" }.to_owned()
}

/// A promise for this database: of this epoch, shut down with this checkpoint.
pub fn promise(epoch: u128, shutdown_checkpoint_lsn: u64) -> HandedOver {
    HandedOver {
        system_identifier: "7".to_owned(),
        epoch: Uuid::from_u128(epoch),
        shutdown_checkpoint_lsn: Lsn(shutdown_checkpoint_lsn),
    }
}

/// An answer of bravo, which holds nothing, is stopped, and was asked just now.
pub fn answer(role: Option<Role>, data: DataState, server: Server) -> PeerFacts {
    PeerFacts {
        at: now(),
        asked_at: now(),
        node: Some("bravo".to_owned()),
        role,
        data,
        crashed: false,
        major: Some(15),
        server: Fact::Known(server),
        lineage: None,
        flag: None,
        handed_over: None,
        checkpoint_timeline: None,
        gate_open: false,
        oldest_wal: None,
        slots: None,
        sees: None,
    }
}

pub fn history(epochs: &[Epoch], timeline: u32, position: Option<u64>) -> Lineage {
    Lineage {
        system_identifier: "7".to_owned(),
        epochs: epochs.to_vec(),
        timeline,
        position: position.map(Lsn),
    }
}

pub fn memory(
    role: Option<Role>,
    data: DataState,
    lineage: Option<Lineage>,
    flag: Option<Flag>,
) -> PeerMemory {
    PeerMemory {
        format: 1,
        address: PeerAddress {
            host: "192.168.40.17".to_owned(),
            port: 5432,
            api_port: 8432,
        },
        node: Some("bravo".to_owned()),
        role,
        data,
        writable: false,
        lineage,
        flag,
        handed_over: None,
        position: None,
        seen: "2026-06-06T14:05:00Z".to_owned(),
    }
}

pub fn silence(how: Unanswered, settled: bool) -> Peer {
    Peer::Unknown(Silence {
        how,
        why: "no route to host".to_owned(),
        since: ago(60),
        position: None,
        settled,
    })
}

/// The steps of a plan and what they come to; what a person is told to do stands apart (see `table`).
pub fn shown(plan: &Plan) -> String {
    let mut text: Vec<String> = plan
        .steps
        .iter()
        .map(|step| match &step.action {
            Action::StartServer(start) if start.standby => "start_standby".to_owned(),
            action => action.name().to_owned(),
        })
        .collect();
    text.push(match &plan.end {
        End::Converged => "converged".to_owned(),
        End::Waiting(waiting) => format!("waiting: {waiting}"),
        End::Blocked(blocked) => format!("BLOCKED: {blocked}"),
    });
    let offer = plan
        .offer
        .as_ref()
        .map(|offer| format!(" [consent: {}]", offer.danger.word()));
    let flag = plan.flag.map(|flag| format!("({}) ", flag.word()));
    flag.unwrap_or_default() + &text.join(" → ") + &offer.unwrap_or_default()
}

pub fn has(plan: &Plan, wanted: impl Fn(&Action) -> bool) -> bool {
    plan.steps.iter().any(|step| wanted(&step.action))
}

/// Whether a person's consent was recorded, or is about to be.
pub fn consented(observed: &Observed, plan: &Plan) -> bool {
    let granted = observed
        .consents
        .known()
        .is_some_and(|consents| consents.granted.is_some());
    granted || has(plan, |action| matches!(action, Action::RecordConsent(_)))
}

/// Whether a server becomes writable by this action.
pub fn makes_writable(action: &Action) -> bool {
    match action {
        Action::Promote(_) | Action::CreateCluster(_) => true,
        Action::StartServer(start) => !start.standby,
        _ => false,
    }
}

pub const ROLES: [Role; 4] = [Role::Primary, Role::Standby, Role::Failover, Role::Recovery];
