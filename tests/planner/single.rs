//! Single stories: facts that cannot be seen, a crash, an end, a pause, a vanished disk; the gate over time; the
//! application behind it.

use std::time::Duration;

use camino::Utf8PathBuf;
use paceline::desired::Role;
use paceline::lineage::Origin;
use paceline::observed::{
    AppFacts, AppState, Data, DataState, Fact, Flag, Moment, Observed, Remembered, Server, Unanswered,
};
use paceline::plan::app::{AppStep, app_step, backoff};
use paceline::plan::gate::HOLD;
use paceline::plan::{Action, Blocked, End, Gate, gate, plan};

use super::product::{Heard, Other, Remembers, SERVERS, Stands, all_data};
use super::world::{Copy, ROLES, desired, has, now};

/// One laptop alone.
fn alone(role: Role, data: Data, server: Server) -> Observed {
    Copy::new(data, server).observed(&desired(role, false))
}

/// Whatever cannot be seen adds no step: a fact that is missing is never taken for "no" (promise 5).
#[test]
fn what_cannot_be_seen_is_never_taken_for_no() {
    let known = |role, data, server, stands| Other::Known {
        role: Some(role),
        data,
        server: Some(server),
        stands: Some(stands),
        flag: None,
    };
    let others = [
        Other::None,
        Other::Silent {
            how: Unanswered::Silent,
            settled: true,
            memory: Remembers::Standby,
        },
        known(Role::Standby, DataState::Replica, Server::Down, Stands::Ahead),
        known(
            Role::Primary,
            DataState::Primary,
            Server::Writable,
            Stands::Behind,
        ),
        known(
            Role::Primary,
            DataState::Primary,
            Server::Writable,
            Stands::Ancestor,
        ),
        known(Role::Primary, DataState::Primary, Server::Down, Stands::Equal),
        known(
            Role::Failover,
            DataState::Primary,
            Server::Writable,
            Stands::Forked,
        ),
    ];
    let blinds: [fn(&mut Observed); 13] = [
        |o| o.data.fact = Fact::Unknown("blind".to_owned()),
        |o| o.postmaster.fact = Fact::Unknown("blind".to_owned()),
        |o| o.server.fact = Fact::Unknown("blind".to_owned()),
        |o| o.configuration.fact = Fact::Unknown("blind".to_owned()),
        |o| o.database.fact = Fact::Unknown("blind".to_owned()),
        |o| o.installations.fact = Fact::Unknown("blind".to_owned()),
        |o| o.remembered.fact = Fact::Unknown("blind".to_owned()),
        |o| o.server_user.fact = Fact::Unknown("blind".to_owned()),
        |o| o.replication.fact = Fact::Unknown("blind".to_owned()),
        |o| o.secret.fact = Fact::Unknown("blind".to_owned()),
        |o| o.peer_memory.fact = Fact::Unknown("blind".to_owned()),
        |o| o.handover_intention.fact = Fact::Unknown("blind".to_owned()),
        |o| o.consents.fact = Fact::Unknown("blind".to_owned()),
    ];
    for role in ROLES {
        for other in &others {
            let desired = desired(role, *other != Other::None);
            for data in all_data() {
                for server in SERVERS {
                    for flag in [Flag::Starting, Flag::Taking] {
                        let mut copy = Copy::new(data.clone(), server);
                        let observed = other.seen(&mut copy, Some((flag, Heard::Repeated)), &desired);
                        let full = plan(&desired, &observed, now());
                        for (number, blind) in blinds.into_iter().enumerate() {
                            let mut less = observed.clone();
                            blind(&mut less);
                            for step in &plan(&desired, &less, now()).steps {
                                // What may be lost is for people only.
                                let promotes = |action: &Action| matches!(action, Action::Promote(_));
                                assert!(
                                    full.steps.contains(step)
                                        || (promotes(&step.action) && has(&full, promotes)),
                                    "{role} {data:?} {server} {other:?}: blind {number} adds {}",
                                    step.action
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A pushed file that still says `standby` must not take the event down, not even together with a crash.
#[test]
fn a_server_that_crashes_under_a_declared_standby_is_started_again() {
    let desired = desired(Role::Standby, false);
    let mut seen = alone(desired.role, Data::Primary { crashed: true }, Server::Down);
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
    let mut desired = desired(Role::Primary, false);
    let mut seen = alone(desired.role, Data::Primary { crashed: false }, Server::Writable);
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
    let desired = desired(Role::Primary, false);
    let mut seen = alone(desired.role, Data::Empty, Server::Down);
    seen.remembered.fact = Fact::Known(Some(Remembered {
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
    let desired = desired(Role::Primary, false);
    let up = alone(desired.role, Data::Primary { crashed: false }, Server::Writable);
    let down = alone(desired.role, Data::Primary { crashed: true }, Server::Down);
    let read_only = alone(
        desired.role,
        Data::Primary { crashed: false },
        Server::ReadOnly { streaming: false },
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
    let desired = desired(Role::Primary, false);
    let up = alone(desired.role, Data::Primary { crashed: false }, Server::Writable);
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
