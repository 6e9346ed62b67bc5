//! The planner and the gate over every combination of facts: total, deterministic, and never dangerous. The rendered
//! table per role is committed, for a person to review.

use std::fmt::Write as _;
use std::time::Duration;

use camino::Utf8PathBuf;
use paceline::desired::{self, Desired, Role, Surroundings};
use paceline::lineage::{Epoch, Lsn, Origin, Sidecar};
use paceline::observed::{
    Answer, AppFacts, AppState, Cluster, ClusterState, Configuration, ControlData, Data, DataDirectory,
    DatabaseFacts, Fact, Installation, Login, Moment, Observed, Peer, Postmaster, RunningServer, Seen,
    Server, ServerFacts, ServerPhase, ServerUser,
};
use paceline::plan::app::{AppStep, app_step, backoff};
use paceline::plan::configuration::render;
use paceline::plan::gate::HOLD;
use paceline::plan::{Action, Blocked, End, Gate, Plan, gate, plan};

fn desired(role: Role) -> Desired {
    let surroundings = Surroundings {
        path: "/event/state.yaml".into(),
        root: true,
        user: "root".to_owned(),
        hostname: "alpha".to_owned(),
        node: None,
        addresses: Vec::new(),
        state_home: "/var/lib/nobody/state".into(),
    };
    let text = "role: primary\nhome: /home\nracedb: { command: [app], working_directory: / }\n";
    let mut desired = desired::validate(text, &surroundings).expect("valid");
    desired.role = role;
    desired
}

fn now() -> Moment {
    Moment::from_boot(Duration::from_secs(1000))
}

fn seen<T>(fact: Fact<T>) -> Seen<T> {
    Seen::new(fact, now())
}

fn installation() -> Installation {
    Installation {
        bin_directory: "/pg/bin".into(),
        major: 15,
        version: "15.1".to_owned(),
    }
}

fn epoch() -> Epoch {
    Epoch {
        uuid: "0b8e5ad0-0000-4000-8000-000000000001".parse().expect("uuid"),
        parent: None,
        supersedes: Vec::new(),
        begin_lsn: Lsn(1),
        timeline: 1,
        node: "alpha".to_owned(),
        time: "2026-06-06T14:05:00Z".to_owned(),
    }
}

fn cluster() -> Cluster {
    Cluster {
        major: 15,
        control: Fact::Known(ControlData {
            system_identifier: "7".to_owned(),
            state: ClusterState::ShutDown,
            checkpoint: Lsn(1),
            timeline: 1,
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
            system_identifier: "7".to_owned(),
            origin: Origin::Created,
            epochs: vec![epoch()],
            intended: None,
        })),
        auto_conf_names: Vec::new(),
    }
}

/// The directory that shows this state.
fn directory(data: &Data) -> DataDirectory {
    let with = |change: &dyn Fn(&mut Cluster)| {
        let mut cluster = cluster();
        change(&mut cluster);
        DataDirectory::Cluster(Box::new(cluster))
    };
    let state = |cluster: &mut Cluster, state| {
        if let Fact::Known(control) = &mut cluster.control {
            control.state = state;
        }
    };
    match data {
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
        Data::Unclear(paceline::observed::Contradiction::SignalFileGone) => {
            with(&|cluster| state(cluster, ClusterState::InArchiveRecovery))
        }
        Data::Unclear(paceline::observed::Contradiction::BackupLabel) => {
            with(&|cluster| cluster.backup_label = true)
        }
        Data::Unclear(paceline::observed::Contradiction::ControlUnreadable(why)) => {
            with(&|cluster| cluster.control = Fact::Unknown(why.clone()))
        }
    }
}

fn data_states() -> Vec<Data> {
    use paceline::observed::Contradiction;
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

fn server_states() -> Vec<Server> {
    vec![
        Server::Down,
        Server::Starting,
        Server::Writable,
        Server::ReadOnly { streaming: false },
        Server::ReadOnly { streaming: true },
        Server::Stopping,
    ]
}

fn peers() -> Vec<Peer> {
    vec![
        Peer::None,
        Peer::Unknown {
            why: "not supported yet".to_owned(),
        },
    ]
}

fn facts(server: Server, configuration: &str) -> ServerFacts {
    ServerFacts {
        in_recovery: matches!(server, Server::ReadOnly { .. }),
        read_only: matches!(server, Server::ReadOnly { .. }),
        streaming: matches!(server, Server::ReadOnly { streaming: true }),
        system_identifier: "7".to_owned(),
        timeline: 1,
        lsn: Lsn(5),
        version: "15.1".to_owned(),
        configuration: Some(configuration.to_owned()),
        auto_conf_in_force: Vec::new(),
        pending_restart: Vec::new(),
        configuration_errors: Vec::new(),
        epochs: vec![epoch()],
    }
}

fn observed(desired: &Desired, data: &Data, server: Server, peer: Peer) -> Observed {
    let files = render(desired, 15, None, &Configuration::default());
    let running = |phase| {
        Postmaster::Running(RunningServer {
            pid: 7,
            port: 5432,
            phase,
            ours: true,
            command_line: "postgres".to_owned(),
        })
    };
    let answer = match server {
        Server::Writable | Server::ReadOnly { .. } => Answer::Facts(Box::new(facts(server, &files.digest))),
        Server::Down | Server::Starting | Server::Stopping => Answer::NotAsked,
    };
    Observed {
        data: seen(Fact::Known(directory(data))),
        postmaster: seen(Fact::Known(match server {
            Server::Down => Postmaster::Down {
                leftovers: Vec::new(),
            },
            Server::Starting => running(ServerPhase::Starting),
            Server::Stopping => running(ServerPhase::Stopping),
            Server::Writable | Server::ReadOnly { .. } => running(ServerPhase::Ready),
        })),
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
        remembered: seen(Fact::Known(match data {
            Data::Empty | Data::NotOurs(_) => None,
            _ => Some(paceline::observed::Remembered {
                system_identifier: "7".to_owned(),
                data_directory: "/home/data".into(),
                origin: Origin::Created,
            }),
        })),
        server_user: seen(Fact::Known(Some(ServerUser {
            name: "postgres".to_owned(),
            uid: 101,
        }))),
        peer,
        app: AppFacts::default(),
        served: false,
        ending: false,
    }
}

fn shown(plan: &Plan) -> String {
    let mut text: Vec<String> = plan
        .steps
        .iter()
        .map(|step| step.action.name().to_owned())
        .collect();
    text.push(match &plan.end {
        End::Converged => "converged".to_owned(),
        End::Waiting(waiting) => format!("waiting: {waiting}"),
        End::Blocked(blocked) => format!("BLOCKED: {blocked} [{}]", blocked.hint()),
    });
    text.join(" → ")
}

fn every(mut visit: impl FnMut(Role, &Data, Server, &Peer, &Desired, Observed)) {
    for role in [Role::Primary, Role::Standby, Role::Failover, Role::Recovery] {
        let desired = desired(role);
        for data in data_states() {
            for server in server_states() {
                for peer in peers() {
                    let observed = observed(&desired, &data, server, peer.clone());
                    assert_eq!(
                        observed.data.known().map(DataDirectory::state).as_ref(),
                        Some(&data),
                        "the model's own"
                    );
                    visit(role, &data, server, &peer, &desired, observed);
                }
            }
        }
    }
}

/// One line for each combination; those that look alike for every kind of data or peer are folded.
#[test]
fn the_whole_table() {
    for role in [Role::Primary, Role::Standby, Role::Failover, Role::Recovery] {
        let mut table = String::new();
        let mut last = String::new();
        every(|of, data, server, peer, desired, observed| {
            if of != role {
                return;
            }
            let peer = match peer {
                Peer::None => "no peer",
                Peer::Unknown { .. } => "peer unknown",
            };
            let what = shown(&plan(desired, &observed, now()));
            let row = format!("{server} | {what}");
            if row != last {
                let _ = writeln!(table, "{data:?} | {server} | {peer} | {what}");
            }
            last = row;
        });
        insta::assert_snapshot!(format!("table_{role}"), table);
    }
}

#[test]
fn nothing_dangerous_in_any_combination() {
    let mut combinations = 0;
    every(|role, data, server, peer, desired, observed| {
        combinations += 1;
        let first = plan(desired, &observed, now());
        assert_eq!(first, plan(desired, &observed, now()), "not deterministic");
        let has = |wanted: &dyn Fn(&Action) -> bool| first.steps.iter().any(|step| wanted(&step.action));
        let context = format!("{role} {data:?} {server} {peer:?}: {}", shown(&first));

        let creates = has(&|action| matches!(action, Action::CreateCluster(_)));
        assert_eq!(
            creates,
            role == Role::Primary && *data == Data::Empty && server == Server::Down && *peer == Peer::None,
            "{context}"
        );
        if has(&|action| matches!(action, Action::StartServer(_))) {
            assert_eq!(server, Server::Down, "{context}");
            assert!(
                creates || matches!(data, Data::Primary { .. } | Data::Replica),
                "{context}"
            );
        }
        assert!(
            !has(&|action| matches!(action, Action::StopServer | Action::StopApp)),
            "{context}"
        );
        if let End::Blocked(blocked) = &first.end {
            assert!(!blocked.hint().is_empty(), "{context}");
        }

        // The gate is open only over a writable server of a writing role, with nothing pending that touches it.
        for previous in [
            Gate::Open,
            Gate::closed("test"),
            Gate::Holding {
                since: now(),
                reason: "test".to_owned(),
            },
        ] {
            let judged = gate(&previous, desired, &observed, &first, now());
            if judged.is_open() {
                assert_eq!(server, Server::Writable, "{context}");
                assert!(
                    !first.steps.iter().any(|step| step.action.touches_server()),
                    "{context}"
                );
                assert!(
                    matches!(data, Data::Primary { .. } | Data::Unclear(_)),
                    "{context}"
                );
            }
        }
    });
    assert_eq!(combinations, 4 * 10 * 6 * 2);
}

/// Whatever cannot be seen adds no step: a fact that is missing is never taken for "no" (promise 5).
#[test]
fn what_cannot_be_seen_is_never_taken_for_no() {
    every(|role, data, server, peer, desired, observed| {
        let full = plan(desired, &observed, now());
        let blinds: Vec<fn(&mut Observed)> = vec![
            |o| o.data.fact = Fact::Unknown("blind".to_owned()),
            |o| o.postmaster.fact = Fact::Unknown("blind".to_owned()),
            |o| o.server.fact = Fact::Unknown("blind".to_owned()),
            |o| o.configuration.fact = Fact::Unknown("blind".to_owned()),
            |o| o.database.fact = Fact::Unknown("blind".to_owned()),
            |o| o.installations.fact = Fact::Unknown("blind".to_owned()),
            |o| o.remembered.fact = Fact::Unknown("blind".to_owned()),
            |o| o.server_user.fact = Fact::Unknown("blind".to_owned()),
        ];
        for (number, blind) in blinds.into_iter().enumerate() {
            let mut less = observed.clone();
            blind(&mut less);
            let planned = plan(desired, &less, now());
            for step in &planned.steps {
                assert!(
                    full.steps.contains(step),
                    "{role} {data:?} {server} {peer:?}: blind {number} adds {}",
                    step.action
                );
            }
        }
    });
}

/// A pushed file that still says `standby` must not take the event down, not even together with a crash.
#[test]
fn a_server_that_crashes_under_a_declared_standby_is_started_again() {
    let desired = desired(Role::Standby);
    let mut seen = observed(
        &desired,
        &Data::Primary { crashed: true },
        Server::Down,
        Peer::None,
    );
    assert!(
        plan(&desired, &seen, now()).steps.is_empty(),
        "nobody knows what happened while no daemon looked"
    );
    seen.served = true;
    let planned = plan(&desired, &seen, now());
    assert!(
        matches!(planned.steps[0].action, Action::StartServer(_)),
        "{planned:?}"
    );
    // The application goes on meanwhile.
    assert!(matches!(
        gate(&Gate::Open, &desired, &seen, &planned, now()),
        Gate::Holding { .. }
    ));
}

#[test]
fn an_end_is_application_then_server_and_a_pause_touches_nothing() {
    let mut desired = desired(Role::Primary);
    let mut seen = observed(
        &desired,
        &Data::Primary { crashed: false },
        Server::Writable,
        Peer::None,
    );
    seen.ending = true;
    seen.app.state = AppState::Running {
        pid: 9,
        port: 1,
        declaration: "x".to_owned(),
        since: now(),
    };
    let ending = plan(&desired, &seen, now());
    assert_eq!(
        ending
            .steps
            .iter()
            .map(|step| step.action.clone())
            .collect::<Vec<_>>(),
        [Action::StopApp, Action::StopServer]
    );
    assert!(matches!(
        gate(&Gate::Open, &desired, &seen, &ending, now()),
        Gate::Closed { .. }
    ));

    desired.paused = true;
    let paused = plan(&desired, &seen, now());
    assert!(paused.steps.is_empty());
    assert_eq!(gate(&Gate::Open, &desired, &seen, &paused, now()), Gate::Open);
}

/// An unmounted disk looks like a new laptop: it must not get a new, empty database.
#[test]
fn a_database_that_vanished_is_not_replaced_by_an_empty_one() {
    let desired = desired(Role::Primary);
    let mut seen = observed(&desired, &Data::Empty, Server::Down, Peer::None);
    seen.remembered.fact = Fact::Known(Some(paceline::observed::Remembered {
        system_identifier: "7".to_owned(),
        data_directory: Utf8PathBuf::from("/home/data"),
        origin: Origin::Created,
    }));
    let planned = plan(&desired, &seen, now());
    assert!(
        planned.steps.is_empty() && matches!(planned.end, End::Blocked(Blocked::DataGone { .. })),
        "{planned:?}"
    );
}

#[test]
fn the_gate_holds_over_a_crash_for_half_a_minute_and_not_longer() {
    let desired = desired(Role::Primary);
    let up = observed(
        &desired,
        &Data::Primary { crashed: false },
        Server::Writable,
        Peer::None,
    );
    let down = observed(
        &desired,
        &Data::Primary { crashed: true },
        Server::Down,
        Peer::None,
    );
    let read_only = observed(
        &desired,
        &Data::Primary { crashed: false },
        Server::ReadOnly { streaming: false },
        Peer::None,
    );
    let judge = |previous: &Gate, seen: &Observed, at: Moment| {
        gate(previous, &desired, seen, &plan(&desired, seen, at), at)
    };

    assert_eq!(judge(&Gate::closed("start"), &up, now()), Gate::Open);
    let held = judge(&Gate::Open, &down, now());
    assert!(matches!(held, Gate::Holding { .. }), "{held}");
    let looked = |seen: &Observed, at: Moment| {
        let mut seen = seen.clone();
        seen.server.at = at;
        seen
    };
    let at = now().after(HOLD);
    assert!(matches!(
        judge(&held, &looked(&down, at), at),
        Gate::Holding { .. }
    ));
    let at = now().after(HOLD + Duration::from_millis(1));
    let late = judge(&held, &looked(&down, at), at);
    assert!(matches!(late, Gate::Closed { .. }), "{late}");
    assert_eq!(judge(&held, &up, now()), Gate::Open);
    // Closed stays closed over a crash, and read-only is no crash.
    assert!(matches!(
        judge(&Gate::closed("before"), &down, now()),
        Gate::Closed { .. }
    ));
    assert!(matches!(
        judge(&Gate::Open, &read_only, now()),
        Gate::Closed { .. }
    ));
}

/// After a lid was closed and opened again the last look is old: the application goes on, nothing is started.
#[test]
fn an_old_look_does_not_keep_the_gate_open() {
    let desired = desired(Role::Primary);
    let up = observed(
        &desired,
        &Data::Primary { crashed: false },
        Server::Writable,
        Peer::None,
    );
    let planned = plan(&desired, &up, now());
    let later = now().after(Duration::from_secs(11));
    assert!(matches!(
        gate(&Gate::Open, &desired, &up, &planned, later),
        Gate::Holding { .. }
    ));
    assert!(matches!(
        gate(&Gate::closed("test"), &desired, &up, &planned, later),
        Gate::Closed { .. }
    ));
}

#[test]
fn the_application_follows_the_gate() {
    let stopped = AppFacts::default();
    let running = AppFacts {
        state: AppState::Running {
            pid: 9,
            port: 1,
            declaration: "a".to_owned(),
            since: now(),
        },
        ..AppFacts::default()
    };
    let holding = Gate::Holding {
        since: now(),
        reason: "crash".to_owned(),
    };
    let closed = Gate::closed("test");
    let step = |wanted, gate: &Gate, app: &AppFacts| app_step(wanted, false, gate, app, now());
    assert_eq!(step(Some("a"), &Gate::Open, &stopped), AppStep::Start);
    assert_eq!(step(Some("a"), &holding, &stopped), AppStep::Nothing(None));
    assert_eq!(step(Some("a"), &closed, &stopped), AppStep::Nothing(None));
    assert_eq!(step(Some("a"), &Gate::Open, &running), AppStep::Nothing(None));
    assert_eq!(step(Some("a"), &holding, &running), AppStep::Nothing(None));
    assert!(matches!(step(Some("a"), &closed, &running), AppStep::Stop(_)));
    assert!(matches!(step(None, &Gate::Open, &running), AppStep::Stop(_)));
    assert!(matches!(step(Some("b"), &Gate::Open, &running), AppStep::Stop(_)));
    // While the database is away it could not be started again.
    assert_eq!(step(Some("b"), &holding, &running), AppStep::Nothing(None));
    assert_eq!(
        app_step(Some("a"), true, &closed, &running, now()),
        AppStep::Nothing(None),
        "paused"
    );
    let due = now().after(Duration::from_secs(1));
    let backing = AppFacts {
        state: AppState::BackingOff { until: due },
        ..AppFacts::default()
    };
    assert_eq!(
        step(Some("a"), &Gate::Open, &backing),
        AppStep::Nothing(Some(due))
    );
    assert_eq!(
        app_step(Some("a"), false, &Gate::Open, &backing, due),
        AppStep::Start
    );
    assert_eq!(
        [1, 2, 3, 4, 99].map(|failures| backoff(failures).as_secs()),
        [1, 2, 5, 10, 10]
    );
}
