//! Settings and restarts: what waits for a person, what a person asked for, what the server's parser refused.

use paceline::desired::Role;
use paceline::observed::{
    Answer, AppState, Data, DataState, Fact, Flag, Observed, RestartAsked, Server, Unanswered,
};
use paceline::plan::{Action, Blocked, End, Gate, PeerWait, Plan, Reason, Waiting, check, gate, plan};
use uuid::Uuid;

use super::product::{Heard, Other, Remembers, Stands, every};
use super::world::{Copy, ROLES, desired, has, now, pending, seen, shown};

const ID: Uuid = Uuid::from_u128(9);
const RUNS: Data = Data::Primary { crashed: true };
const READ_ONLY: Server = Server::ReadOnly { streaming: false };

fn ask(observed: &mut Observed, about_running: bool) {
    observed.restart = seen(Fact::Known(Some(RestartAsked {
        id: ID,
        about_running,
        port_taken: None,
    })));
}

/// A look with a request in it; `change` is made to it first.
fn asked(role: Role, data: Data, server: Server, other: &Other, change: impl Fn(&mut Observed)) -> Plan {
    let desired = desired(role, *other != Other::None);
    let mut observed = other.seen(&mut Copy::new(data, server), None, &desired);
    ask(&mut observed, true);
    change(&mut observed);
    plan(&desired, &observed, now())
}

fn stops(plan: &Plan) -> bool {
    has(plan, |action| *action == Action::StopServer)
}

fn silent(memory: Remembers) -> Other {
    Other::Silent {
        how: Unanswered::Silent,
        settled: true,
        memory,
    }
}

fn known(role: Role, data: DataState, server: Server, stands: Stands) -> Other {
    Other::Known {
        role: Some(role),
        data,
        server: Some(server),
        stands: Some(stands),
        flag: None,
    }
}

#[test]
fn a_restart_is_application_server_start() {
    let run = |observed: &mut Observed| {
        observed.app.state = AppState::Running {
            pid: 9,
            port: 1,
            declaration: "x".to_owned(),
            since: now(),
        };
    };
    let desired = desired(Role::Primary, false);
    let planned = asked(Role::Primary, RUNS, Server::Writable, &Other::None, run);
    assert_eq!(
        shown(&planned),
        "stop_app → stop_server → start_server → converged"
    );
    assert!(
        planned
            .steps
            .iter()
            .all(|step| step.reason == Reason::RestartRequested),
        "{planned:?}"
    );
    let mut observed = Copy::new(RUNS, Server::Writable).observed(&desired);
    ask(&mut observed, true);
    let judged = gate(&Gate::Open, &desired, &observed, &planned, now());
    assert_eq!(judged.word(), "closed");
}

/// Whoever did it, it was done: nothing is restarted twice, and a daemon that was killed in between goes on with the
/// start like after any stop.
#[test]
fn a_request_about_another_server_is_done() {
    let other = |observed: &mut Observed| ask(observed, false);
    for (data, server, about) in [
        (RUNS, Server::Writable, "forget_restart → converged"),
        (
            Data::Primary { crashed: false },
            Server::Down,
            "start_server → converged",
        ),
    ] {
        let planned = asked(Role::Primary, data, server, &Other::None, other);
        assert_eq!(shown(&planned), about);
    }
    let silent = asked(
        Role::Standby,
        Data::Replica,
        READ_ONLY,
        &silent(Remembers::Standby),
        other,
    );
    assert!(!stops(&silent) && has(&silent, |action| *action == Action::ForgetRestart(ID)));
}

/// What the new server reads is written first.
#[test]
fn the_configuration_is_written_before_a_restart() {
    let planned = asked(Role::Primary, RUNS, Server::Writable, &Other::None, |observed| {
        if let Fact::Known(found) = &mut observed.configuration.fact {
            found.postgresql_conf = Some("port = 1".to_owned());
        }
    });
    assert!(
        !stops(&planned) && matches!(planned.steps[0].action, Action::WriteConfiguration(_)),
        "{}",
        shown(&planned)
    );
}

/// A restart must not be how an event ends: what would not come up again is not stopped.
#[test]
fn what_would_not_be_started_again_is_not_stopped() {
    let held = |planned: &Plan, words: &str| {
        assert!(!stops(planned), "{}", shown(planned));
        let text = shown(planned);
        assert!(text.contains(words), "{text}");
    };
    let nothing = |_: &mut Observed| {};
    let port = |observed: &mut Observed| {
        observed.restart = seen(Fact::Known(Some(RestartAsked {
            id: ID,
            about_running: true,
            port_taken: Some("python3 (process 4711)".to_owned()),
        })));
    };
    held(
        &asked(Role::Primary, RUNS, Server::Writable, &Other::None, port),
        "a restart was asked for, but the server would not be started again now: port 5432 is in use by python3",
    );
    // It would take over from a server that is down.
    let failover = known(Role::Failover, DataState::Replica, READ_ONLY, Stands::Equal);
    held(
        &asked(Role::Primary, RUNS, Server::Writable, &failover, nothing),
        "the other laptop is declared failover and would take over",
    );
    // It may be a primary by now.
    held(
        &asked(
            Role::Primary,
            RUNS,
            Server::Writable,
            &silent(Remembers::Taking),
            nothing,
        ),
        "would not be started again now",
    );
    let twins = known(Role::Primary, DataState::Primary, Server::Writable, Stands::Twins);
    held(
        &asked(Role::Primary, RUNS, Server::Writable, &twins, nothing),
        "BLOCKED",
    );
    // It would come back as a standby.
    held(
        &asked(
            Role::Primary,
            Data::Replica,
            Server::Writable,
            &Other::None,
            nothing,
        ),
        "BLOCKED",
    );
    // The directory was taken away from under it: an empty one is no restart.
    held(
        &asked(
            Role::Primary,
            Data::Empty,
            Server::Writable,
            &Other::None,
            nothing,
        ),
        "BLOCKED",
    );
    let none_declared = asked(Role::Standby, RUNS, Server::Writable, &Other::None, nothing);
    held(&none_declared, "would not be started again now");
    let unknown = asked(Role::Primary, RUNS, Server::Writable, &Other::None, |observed| {
        observed.restart = seen(Fact::Unknown("it is damaged".to_owned()));
    });
    assert_eq!(shown(&unknown), "converged");
}

/// The same for everything that can be beside it: stopped for a restart is only what the planner, shown the stopped
/// server, starts as what it was.
#[test]
fn whatever_is_beside_it_a_restart_ends_with_a_start() {
    let mut restarts = 0;
    for role in ROLES {
        every(role, |case| {
            let writes = match case.server {
                Server::Writable => true,
                Server::ReadOnly { .. } => false,
                Server::Down | Server::Starting | Server::Stopping => return,
            };
            // How far an announcement has come makes no difference to a server that runs.
            if !matches!(case.ours, None | Some((_, Heard::Repeated))) {
                return;
            }
            let mut observed = case.observed.clone();
            ask(&mut observed, true);
            let planned = plan(case.desired, &observed, now());
            let restart = |step: &paceline::plan::Step| step.reason == Reason::RestartRequested;
            if !planned
                .steps
                .iter()
                .any(|step| step.action == Action::StopServer && restart(step))
            {
                return;
            }
            restarts += 1;
            let fault = check(case.desired, &observed, &planned, now());
            assert_eq!(fault, Ok(()), "{}", case.context(&planned));
            assert!(!writes || !observed.superseded(), "{}", case.context(&planned));
            let data = if writes {
                Data::Primary { crashed: false }
            } else {
                Data::Replica
            };
            let mut copy = Copy::new(data, Server::Down);
            let mut stopped = case.other.seen(&mut copy, case.ours, case.desired);
            stopped.peer = observed.peer.clone();
            stopped.consents = observed.consents.clone();
            stopped.handover_intention = observed.handover_intention.clone();
            let then = plan(case.desired, &stopped, now());
            let starts = has(
                &then,
                |action| matches!(action, Action::StartServer(start) if start.standby != writes),
            );
            let announced = End::Waiting(Waiting::Peer(PeerWait::Announced(Flag::Starting)));
            // Its position there is not the one that a stop leaves; an own one is fetched by then.
            assert!(
                starts || then.end == announced,
                "{}\nthen {}",
                case.context(&planned),
                shown(&then)
            );
        });
    }
    assert!(restarts > 100, "{restarts}");
}

/// Without it a start would fail; the one that works stays.
#[test]
fn a_configuration_that_was_refused_is_not_written_again() {
    let refused = |role: Role, data: Data, server: Server, other: &Other, on_disk: bool| {
        let mut desired = desired(role, *other != Other::None);
        let mut observed = other.seen(&mut Copy::new(data, server), None, &desired);
        desired
            .postgres
            .settings
            .insert("work_mem".to_owned(), "plenty".to_owned());
        // What it wants to write is what is refused.
        let wanted = plan(&desired, &observed, now())
            .steps
            .iter()
            .find_map(|step| match &step.action {
                Action::WriteConfiguration(files) => Some(files.digest.clone()),
                _ => None,
            });
        if let Fact::Known(found) = &mut observed.configuration.fact {
            found.refused = Some(paceline::observed::Refused {
                configuration: wanted.expect("a configuration is to be written"),
                version: "15.1".to_owned(),
                errors: vec!["work_mem: plenty".to_owned()],
            });
            if !on_disk {
                found.postgresql_conf = None;
            }
        }
        (plan(&desired, &observed, now()), desired, observed)
    };
    let rejected = End::Blocked(Blocked::ConfigurationRejected {
        errors: vec!["work_mem: plenty".to_owned()],
    });
    let clean = Data::Primary { crashed: false };
    let quiet = |planned: &Plan, steps: &[&str]| {
        let names: Vec<&str> = planned.steps.iter().map(|step| step.action.name()).collect();
        assert_eq!((names.as_slice(), &planned.end), (steps, &rejected));
    };
    let (running, desired, mut observed) = refused(Role::Primary, RUNS, Server::Writable, &Other::None, true);
    quiet(&running, &[]);
    // Corrected programs may judge otherwise.
    if let Fact::Known(found) = &mut observed.configuration.fact
        && let Some(refused) = &mut found.refused
    {
        refused.version = "15.0".to_owned();
    }
    let again = plan(&desired, &observed, now());
    assert!(has(&again, |action| matches!(
        action,
        Action::WriteConfiguration(_)
    )));

    let (down, ..) = refused(Role::Primary, clean.clone(), Server::Down, &Other::None, true);
    quiet(&down, &["start_server"]);
    let (never, ..) = refused(Role::Primary, clean, Server::Down, &Other::None, false);
    quiet(&never, &[]);
    let (new, ..) = refused(Role::Primary, Data::Empty, Server::Down, &Other::None, true);
    quiet(&new, &[]);
    let alpha = known(
        Role::Primary,
        DataState::Primary,
        Server::Writable,
        Stands::Behind,
    );
    let (standby, ..) = refused(Role::Standby, Data::Replica, Server::Down, &alpha, true);
    quiet(&standby, &["start_server"]);
}

/// It serves, and somebody has to hear which setting waits, and for what.
#[test]
fn a_pending_restart_is_named_with_both_values() {
    let desired = desired(Role::Primary, false);
    let mut observed = Copy::new(RUNS, Server::Writable).observed(&desired);
    if let Fact::Known(Answer::Facts(facts)) = &mut observed.server.fact {
        facts.pending_restart = vec![pending("shared_buffers")];
    }
    let planned = plan(&desired, &observed, now());
    assert_eq!(
        shown(&planned),
        "waiting: these settings take effect when the server is next restarted: shared_buffers (16MB -> 32MB)"
    );
    let hint = match planned.end {
        End::Waiting(waiting) => waiting.hint(),
        End::Converged | End::Blocked(_) => None,
    };
    assert!(hint.is_some_and(|hint| hint.contains("paceline restart")));
}
