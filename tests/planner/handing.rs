//! Rows of the handover and of consent, each with what it is for.

use paceline::desired::{Desired, Role};
use paceline::observed::{AppState, Data, DataState, Fact, Flag, Observed, Peer, SeesUs, Server, Unanswered};
use paceline::plan::{Action, Advice, Danger, End, PeerWait, Plan, Waiting, check, plan};

use super::product::{Extra, Heard, Other, Remembers, Stands};
use super::world::{Copy, desired, has, makes_writable, now, pending, promise, shown};

const READ_ONLY: Server = Server::ReadOnly { streaming: false };
const TAKING: Option<(Flag, Heard)> = Some((Flag::Taking, Heard::Repeated));

fn names(plan: &Plan) -> Vec<&'static str> {
    plan.steps.iter().map(|step| step.action.name()).collect()
}

/// A primary's server on a laptop that is declared standby, and a standby that is told to take over.
fn giving() -> (Desired, Observed) {
    let mut desired = desired(Role::Standby, true);
    let other = Other::Known {
        role: Some(Role::Primary),
        data: DataState::Replica,
        server: Some(READ_ONLY),
        stands: Some(Stands::Equal),
        flag: None,
    };
    let crashed = Data::Primary { crashed: true };
    let mut observed = other.seen(&mut Copy::new(crashed, Server::Writable), None, &desired);
    Extra::Ready
        .apply(&mut desired, &mut observed)
        .expect("it can be so");
    (desired, observed)
}

fn peer(observed: &mut Observed) -> &mut paceline::observed::PeerFacts {
    match &mut observed.peer {
        Peer::Known(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// Application, checkpoint if there is much to write, server, and then bound not to write again: in this order.
#[test]
fn a_handover_in_order() {
    let (desired, mut observed) = giving();
    observed.app.state = AppState::Running {
        pid: 9,
        port: 1,
        declaration: "x".to_owned(),
        since: now(),
    };
    let bound = [
        "promise_handover",
        "place_standby_signal",
        "write_configuration",
        "start_server",
    ];
    let planned = plan(&desired, &observed, now());
    assert_eq!(
        names(&planned),
        [&["stop_app", "fast_shutdown"], &bound[..]].concat()
    );
    if let Fact::Known(paceline::observed::Answer::Facts(facts)) = &mut observed.server.fact {
        facts.since_checkpoint = 1 << 30;
    }
    let planned = plan(&desired, &observed, now());
    assert_eq!(
        names(&planned),
        [&["stop_app", "checkpoint", "fast_shutdown"], &bound[..]].concat()
    );
}

/// A pushed file that says `standby` takes nothing down as long as there is anything to doubt about the successor.
#[test]
fn nobody_hands_over_to_a_doubtful_successor() {
    type Doubt = fn(&mut paceline::observed::PeerFacts);
    let doubts: [(&str, Doubt); 9] = [
        ("it is declared standby", |facts| facts.role = Some(Role::Standby)),
        ("its daemon is gone", |facts| facts.role = None),
        ("it does not stream", |facts| {
            facts.server = Fact::Known(READ_ONLY);
        }),
        ("its server is silent", |facts| {
            facts.server = Fact::Unknown("it hangs".to_owned());
        }),
        ("it has not seen us", |facts| facts.sees = None),
        ("it has not seen that we are told to", |facts| {
            facts.sees = Some(SeesUs {
                role: Some(Role::Primary),
                flag: None,
            });
        }),
        ("it is far behind", |facts| {
            if let Some(lineage) = &mut facts.lineage {
                lineage.position = Some(paceline::lineage::Lsn(0));
            }
        }),
        ("how far it is cannot be told", |facts| {
            if let Some(lineage) = &mut facts.lineage {
                lineage.position = None;
            }
        }),
        ("it announces something itself", |facts| {
            facts.flag = Some(Flag::Taking);
        }),
    ];
    let (desired, observed) = giving();
    assert!(has(&plan(&desired, &observed, now()), |action| *action
        == Action::FastShutdown));
    for (why, doubt) in doubts {
        let mut observed = observed.clone();
        if let Fact::Known(paceline::observed::Answer::Facts(facts)) = &mut observed.server.fact {
            facts.lsn = paceline::lineage::Lsn(10 << 20);
        }
        let far = |facts: &mut paceline::observed::PeerFacts| {
            if let Some(lineage) = &mut facts.lineage {
                lineage.position = Some(paceline::lineage::Lsn(10 << 20));
            }
        };
        far(peer(&mut observed));
        assert!(has(&plan(&desired, &observed, now()), |action| *action
            == Action::FastShutdown));
        doubt(peer(&mut observed));
        let planned = plan(&desired, &observed, now());
        assert_eq!(
            planned.end,
            End::Waiting(Waiting::NoSuccessor),
            "{why}: {}",
            shown(&planned)
        );
        assert!(planned.steps.is_empty(), "{why}: {}", shown(&planned));
    }
}

/// Whoever took what was handed over must hold all of it; what is missing is fetched from the one who gave it.
#[test]
fn a_handover_is_taken_when_all_of_it_is_here() {
    let taking = |extra: Extra| {
        let mut desired = desired(Role::Primary, true);
        let other = Other::Known {
            role: Some(Role::Standby),
            data: DataState::Replica,
            server: Some(READ_ONLY),
            stands: Some(Stands::Equal),
            flag: None,
        };
        let mut observed = other.seen(&mut Copy::new(Data::Replica, READ_ONLY), TAKING, &desired);
        extra.apply(&mut desired, &mut observed).expect("it can be so");
        plan(&desired, &observed, now())
    };
    assert!(has(&taking(Extra::TheyGave), |action| matches!(
        action,
        Action::Promote(_)
    )));
    let lacks = taking(Extra::TheyGavePart);
    assert_eq!(names(&lacks), ["wake_receiver"], "{}", shown(&lacks));
    assert_eq!(lacks.end, End::Waiting(Waiting::Peer(PeerWait::CatchingUp)));
}

/// Both gave their copy away and both are declared standby: one takes its own back, the one with the lesser name.
#[test]
fn of_two_that_gave_one_takes_back() {
    let mut desired = desired(Role::Standby, true);
    let other = Other::Known {
        role: Some(Role::Standby),
        data: DataState::Replica,
        server: Some(READ_ONLY),
        stands: Some(Stands::Equal),
        flag: None,
    };
    let mut observed = other.seen(&mut Copy::new(Data::Replica, READ_ONLY), TAKING, &desired);
    Extra::BothGave
        .apply(&mut desired, &mut observed)
        .expect("it can be so");
    let takes = |observed: &Observed| has(&plan(&desired, observed, now()), makes_writable);
    assert!(takes(&observed), "alpha is the lesser name");
    peer(&mut observed).node = Some("aaron".to_owned());
    assert!(!takes(&observed));
}

/// The token is bound to the situation: a position that changes, another server state or an epoch more, and it is another
/// one. Once used it is never taken again.
#[test]
fn a_consent_is_for_one_situation() {
    let desired = desired(Role::Failover, true);
    let other = Other::Silent {
        how: Unanswered::Silent,
        settled: true,
        memory: Remembers::TookOver,
    };
    let observed = other.seen(&mut Copy::new(Data::Replica, READ_ONLY), TAKING, &desired);
    let offer = |observed: &Observed| plan(&desired, observed, now()).offer.expect("an offer");
    let first = offer(&observed);
    assert_eq!(first.danger, Danger::KeepThisCopy);
    assert_eq!(
        first
            .loss
            .as_ref()
            .and_then(|loss| loss.position)
            .map(|lsn| lsn.0),
        Some(50)
    );

    let mut moved = observed.clone();
    if let Fact::Known(paceline::observed::Answer::Facts(facts)) = &mut moved.server.fact {
        facts.lsn = paceline::lineage::Lsn(51);
    }
    assert_ne!(offer(&moved).token, first.token, "our position");
    let mut moved = observed.clone();
    if let Fact::Known(Some(memory)) = &mut moved.peer_memory.fact
        && let Some(lineage) = &mut memory.lineage
    {
        lineage.position = Some(paceline::lineage::Lsn(61));
    }
    assert_ne!(offer(&moved).token, first.token, "its position");
    let mut used = observed.clone();
    if let Fact::Known(consents) = &mut used.consents.fact {
        consents.used.push("000000".to_owned());
    }
    assert_ne!(
        offer(&used).token,
        first.token,
        "the same situation a second time"
    );

    let mut consenting = desired.clone();
    consenting.consent = Some(first.token.clone());
    assert!(has(&plan(&consenting, &observed, now()), |action| matches!(
        action,
        Action::Promote(_)
    )));
    assert!(!has(&plan(&consenting, &used, now()), makes_writable));
    let mut again = observed.clone();
    if let Fact::Known(consents) = &mut again.consents.fact {
        consents.used.push(first.token);
    }
    assert!(
        !has(&plan(&consenting, &again, now()), makes_writable),
        "used before"
    );
}

/// After a failover the word `failover` would go on to mean that the other laptop is gone.
#[test]
fn when_both_are_healthy_again_the_file_is_to_say_so() {
    let desired = desired(Role::Failover, true);
    let other = Other::Known {
        role: Some(Role::Standby),
        data: DataState::Replica,
        server: Some(Server::ReadOnly { streaming: true }),
        stands: Some(Stands::Ahead),
        flag: None,
    };
    let crashed = Data::Primary { crashed: true };
    let observed = other.seen(&mut Copy::new(crashed, Server::Writable), None, &desired);
    let planned = plan(&desired, &observed, now());
    assert_eq!(planned.end, End::Converged);
    assert_eq!(
        planned.advice,
        Some(Advice::MakePermanent { peer: Role::Standby })
    );
}

/// The note of a handover that a power cut ended before `standby.signal` was there is void, and the copy goes on being
/// written to in the same epoch. When it becomes a standby's later, in another way, the old note must not come to life:
/// the other laptop would take over with what it had by then.
#[test]
fn a_promise_from_before_the_last_writes_is_void() {
    let desired = desired(Role::Standby, true);
    let given = |checkpoint| {
        let mut observed = Copy::new(Data::Replica, Server::Down).observed(&desired);
        observed.handover_intention.fact = Fact::Known(Some(promise(1, checkpoint)));
        observed.handed_over().is_some()
    };
    assert!(given(49), "its shutdown");
    assert!(!given(30), "an earlier one");
}

/// Power was cut between the note and `standby.signal`: the note is not written twice, and the handover is finished.
#[test]
fn a_handover_that_was_interrupted_after_its_note_is_finished() {
    let clean = Data::Primary { crashed: false };
    let desired = desired(Role::Standby, true);
    let other = Other::Known {
        role: Some(Role::Primary),
        data: DataState::Replica,
        server: Some(READ_ONLY),
        stands: Some(Stands::Equal),
        flag: None,
    };
    let mut observed = other.seen(&mut Copy::new(clean, Server::Down), None, &desired);
    observed.handover_intention.fact = Fact::Known(Some(promise(1, 49)));
    let planned = plan(&desired, &observed, now());
    assert_eq!(names(&planned)[0], "place_standby_signal", "{}", shown(&planned));
    assert_eq!(check(&desired, &observed, &planned, now()), Ok(()));
}

/// A standby whose application has not ended yet is restarted when it has.
#[test]
fn a_standby_is_not_restarted_under_an_application_that_ends() {
    let desired = desired(Role::Standby, true);
    let other = Other::Known {
        role: Some(Role::Primary),
        data: DataState::Primary,
        server: Some(Server::Writable),
        stands: Some(Stands::Behind),
        flag: None,
    };
    let mut observed = other.seen(&mut Copy::new(Data::Replica, READ_ONLY), None, &desired);
    if let Fact::Known(paceline::observed::Answer::Facts(facts)) = &mut observed.server.fact {
        facts.pending_restart = vec![pending("shared_buffers")];
    }
    observed.app.state = AppState::Stopping;
    let planned = plan(&desired, &observed, now());
    assert_eq!(names(&planned), ["stop_app", "stop_server", "start_server"]);
    assert_eq!(check(&desired, &observed, &planned, now()), Ok(()));
}
