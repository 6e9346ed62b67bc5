//! The plan checker: each of its rules is seen to find a plan that breaks it. That it finds nothing in a plan that the
//! planner makes is a property of the whole product (see `properties`) and of the model (see `laptops`).

use std::fmt::Write as _;

use paceline::desired::{Desired, Role};
use paceline::lineage::Lsn;
use paceline::observed::{AppState, Data, DataState, Flag, HandedOver, Observed, Server};
use paceline::plan::{
    Action, CloneSource, End, Gate, Grant, Intention, Loss, Plan, Reason, Restore, RewindSource, Rule, Start,
    Step, check, fingerprint, gate,
};
use uuid::Uuid;

use super::product::{Extra, Heard, Other, Stands};
use super::world::{Copy, desired, installation, now, shown};

const CLEAN: Data = Data::Primary { crashed: false };

fn plan(actions: &[Action]) -> Plan {
    let step = |action: &Action| Step {
        action: action.clone(),
        reason: Reason::HandingOver,
    };
    Plan::new(actions.iter().map(step).collect(), End::Converged)
}

fn clone_of(replaces: DataState) -> Action {
    Action::Clone(Box::new(CloneSource {
        peer: desired(Role::Standby, true).peer.expect("declared"),
        programs: installation(),
        system_identifier: "7".to_owned(),
        epoch: Uuid::from_u128(1),
        replaces,
    }))
}

fn rewind() -> Action {
    Action::Rewind(Box::new(RewindSource {
        peer: desired(Role::Standby, true).peer.expect("declared"),
        programs: installation(),
        system_identifier: "7".to_owned(),
        epoch: Uuid::from_u128(1),
    }))
}

fn restore(replaces: DataState) -> Action {
    let recovery = desired(Role::Recovery, true).recovery.expect("declared");
    Action::Restore(Box::new(Restore {
        kind: None,
        fingerprint: fingerprint(&recovery),
        recovery,
        replaces,
        installations: vec![installation()],
        epochs: Vec::new(),
        timelines: 1,
    }))
}

fn start(standby: bool) -> Action {
    Action::StartServer(Start {
        programs: installation(),
        standby,
    })
}

fn promise() -> Action {
    Action::PromiseHandover(HandedOver {
        system_identifier: "7".to_owned(),
        epoch: Uuid::from_u128(1),
        shutdown_checkpoint_lsn: Lsn(49),
    })
}

fn signal() -> Action {
    Action::PlaceStandbySignal {
        system_identifier: "7".to_owned(),
    }
}

fn promote() -> Action {
    Action::Promote(Box::new(Loss {
        position: None,
        replayed_until: None,
        peer_position: None,
        peer_silent_since: None,
        peer_seen: None,
    }))
}

fn record() -> Action {
    Action::RecordConsent(Grant {
        token: "123456".to_owned(),
        situation: "x".to_owned(),
    })
}

fn beside(role: Role, data: Data, server: Server, peer: Server, stands: Stands) -> (Desired, Observed) {
    let desired = desired(role, true);
    let other = Other::Known {
        role: Some(Role::Primary),
        data: if peer == Server::Writable {
            DataState::Primary
        } else {
            DataState::Replica
        },
        server: Some(peer),
        stands: Some(stands),
        flag: None,
    };
    let ours = Some((Flag::Taking, Heard::Repeated));
    let observed = other.seen(&mut Copy::new(data, server), ours, &desired);
    (desired, observed)
}

const NAMED: Action = Action::NameEpoch;
const READ_ONLY: Server = Server::ReadOnly { streaming: false };

fn intend() -> Action {
    Action::IntendEpoch(Box::new(Intention {
        system_identifier: "7".to_owned(),
        parent: Some(Uuid::from_u128(1)),
        timeline: 1,
        position: Lsn(50),
        supersedes: Vec::new(),
    }))
}

fn create() -> Action {
    Action::CreateCluster(installation())
}

/// Facts, the plan that is wrong there, and what is announced.
struct Wrong {
    rule: Rule,
    facts: (Desired, Observed),
    plan: Plan,
}

fn wrong(rule: Rule, facts: &(Desired, Observed), flag: Option<Flag>, actions: &[Action]) -> Wrong {
    let plan = plan(actions);
    Wrong {
        rule,
        facts: facts.clone(),
        plan: Plan { flag, ..plan },
    }
}

/// A primary's server on a laptop that is declared standby, and a standby that is ready to take over.
fn giving() -> (Desired, Observed) {
    let crashed = Data::Primary { crashed: true };
    let (mut desired, mut observed) =
        beside(Role::Standby, crashed, Server::Writable, READ_ONLY, Stands::Equal);
    Extra::Ready
        .apply(&mut desired, &mut observed)
        .expect("it can be so");
    (desired, observed)
}

fn with_app(facts: &(Desired, Observed)) -> (Desired, Observed) {
    let mut facts = facts.clone();
    facts.1.app.state = AppState::Running {
        pid: 9,
        port: 1,
        declaration: "x".to_owned(),
        since: now(),
    };
    facts
}

/// Each rule, broken in every way that it speaks of.
fn all_wrong() -> Vec<Wrong> {
    let (none, taking, starting) = (None, Some(Flag::Taking), Some(Flag::Starting));
    let writable = Server::Writable;
    let crashed = || Data::Primary { crashed: true };
    let serving = beside(Role::Primary, crashed(), writable, READ_ONLY, Stands::Ahead);
    let down = beside(Role::Standby, CLEAN, Server::Down, READ_ONLY, Stands::Equal);
    let older = beside(Role::Primary, CLEAN, Server::Down, writable, Stands::Forked);
    let older_crashed = beside(Role::Standby, crashed(), Server::Down, writable, Stands::Ancestor);
    let older_writing = beside(Role::Primary, crashed(), writable, writable, Stands::Forked);
    let follower = beside(Role::Failover, Data::Replica, READ_ONLY, writable, Stands::Equal);
    let level = beside(Role::Failover, Data::Replica, READ_ONLY, READ_ONLY, Stands::Equal);
    let lacks = beside(
        Role::Failover,
        Data::Replica,
        READ_ONLY,
        READ_ONLY,
        Stands::Behind,
    );
    let twin = beside(Role::Standby, Data::Replica, READ_ONLY, writable, Stands::Twins);
    let same = beside(Role::Standby, CLEAN, Server::Down, writable, Stands::Behind);
    let beside_writer = beside(Role::Recovery, CLEAN, Server::Down, writable, Stands::Ahead);
    let empty = beside(Role::Primary, Data::Empty, Server::Down, READ_ONLY, Stands::Equal);
    let unclear = || Data::NotOurs("it holds holiday.jpg".to_owned());
    let foreign = beside(Role::Standby, unclear(), Server::Down, writable, Stands::Equal);
    let giving = giving();
    let bound = [promise(), signal(), start(true)];
    let promotion = [intend(), promote(), NAMED];
    let list = |parts: &[&[Action]]| parts.concat();
    let mut undeclared = giving.clone();
    undeclared.0.role = Role::Primary;
    let mut unseen = giving.clone();
    if let paceline::observed::Peer::Known(facts) = &mut unseen.1.peer {
        facts.sees = None;
    }
    let mut blind = older.clone();
    blind.1.data.fact = paceline::observed::Fact::Unknown("blind".to_owned());
    vec![
        wrong(Rule::ConsentFirst, &down, none, &[start(true), record()]),
        wrong(Rule::ConsentFirst, &down, none, &[record()]),
        wrong(
            Rule::AppBeforeServer,
            &with_app(&serving),
            none,
            &[Action::StopServer],
        ),
        wrong(
            Rule::AppBeforeServer,
            &with_app(&giving),
            none,
            &list(&[&[Action::FastShutdown, Action::StopApp], &bound]),
        ),
        wrong(
            Rule::StoppedFirst,
            &older_writing,
            none,
            &[Action::StopApp, rewind()],
        )
        .or(Rule::SupersededIsStopped),
        wrong(Rule::StoppedFirst, &giving, none, &bound),
        wrong(Rule::StoppedFirst, &giving, none, &[signal()]),
        wrong(Rule::StoppedFirst, &giving, starting, &[create(), NAMED]),
        wrong(
            Rule::NothingBeforeAStop,
            &serving,
            none,
            &[NAMED, Action::StopServer],
        ),
        wrong(
            Rule::NothingBeforeAStop,
            &serving,
            none,
            &[Action::EnsureDatabase, Action::StopServer],
        ),
        wrong(
            Rule::NothingBeforeAStop,
            &serving,
            none,
            &[Action::Checkpoint, Action::StopServer],
        ),
        wrong(Rule::StartAsMarked, &serving, starting, &[start(false)]),
        wrong(Rule::StartAsMarked, &down, none, &[start(true)]),
        wrong(
            Rule::StartAsMarked,
            &giving,
            none,
            &list(&[&[Action::FastShutdown], &bound[..2], &[start(false)]]),
        ),
        wrong(Rule::Handover, &giving, none, &[Action::FastShutdown]),
        wrong(
            Rule::Handover,
            &giving,
            none,
            &[Action::FastShutdown, signal(), promise(), start(true)],
        ),
        wrong(
            Rule::Handover,
            &undeclared,
            none,
            &list(&[&[Action::FastShutdown], &bound]),
        ),
        wrong(
            Rule::Handover,
            &unseen,
            none,
            &list(&[&[Action::FastShutdown], &bound]),
        ),
        wrong(
            Rule::Handover,
            &lacks,
            none,
            &[Action::StopServer, promise(), signal()],
        ),
        wrong(Rule::Handover, &down, none, &[promise(), start(false)]),
        wrong(Rule::Handover, &down, none, &[signal(), start(true)]),
        wrong(Rule::SignalWithReason, &same, none, &[signal(), start(true)]).because(Reason::AncestorOfPeer),
        wrong(Rule::SignalWithReason, &older, none, &[signal(), start(true)]).because(Reason::AncestorOfPeer),
        wrong(
            Rule::SignalWithReason,
            &older_crashed,
            none,
            &[signal(), start(true)],
        )
        .because(Reason::AncestorOfPeer),
        wrong(
            Rule::SignalWithReason,
            &level,
            none,
            &[Action::StopServer, signal()],
        )
        .because(Reason::Consented),
        wrong(Rule::RewindOntoNewer, &down, none, &[rewind()]),
        wrong(Rule::RewindOntoNewer, &same, none, &[rewind()]),
        // Onto another epoch than the one that is written.
        wrong(Rule::RewindOntoNewer, &older, none, &[rewind()]),
        wrong(
            Rule::CloneReplacesNothing,
            &down,
            none,
            &[clone_of(DataState::Primary)],
        ),
        wrong(
            Rule::CloneReplacesNothing,
            &same,
            none,
            &[clone_of(DataState::Primary)],
        ),
        wrong(
            Rule::CloneReplacesNothing,
            &twin,
            none,
            &[clone_of(DataState::Replica)],
        ),
        wrong(
            Rule::CloneReplacesNothing,
            &foreign,
            none,
            &[clone_of(DataState::NotOurs)],
        ),
        wrong(Rule::PromoteAlone, &level, taking, &[promote(), NAMED]),
        wrong(Rule::PromoteAlone, &follower, taking, &promotion),
        wrong(Rule::PromoteAlone, &lacks, taking, &promotion),
        wrong(Rule::PromoteAlone, &down, taking, &promotion),
        wrong(Rule::CreateOnEmpty, &down, starting, &[create(), NAMED]),
        wrong(Rule::CreateOnEmpty, &empty, starting, &[create(), NAMED]),
        wrong(
            Rule::RestoreAlone,
            &down,
            starting,
            &[restore(DataState::Primary)],
        ),
        wrong(
            Rule::RestoreAlone,
            &beside_writer,
            starting,
            &[Action::StopServer, restore(DataState::Primary)],
        ),
        wrong(
            Rule::LocalFactsKnown,
            &beside_writer,
            starting,
            &[restore(DataState::Empty)],
        ),
        wrong(Rule::StartAlone, &older, starting, &[start(false)]),
        wrong(Rule::StartAlone, &same, starting, &[start(false)]),
        wrong(Rule::FlagFits, &down, none, &[start(false)]),
        wrong(Rule::FlagFits, &down, taking, &[start(false)]),
        wrong(Rule::FlagFits, &level, none, &promotion),
        wrong(Rule::FlagFits, &level, starting, &promotion),
        wrong(Rule::NamedAfter, &level, taking, &[intend(), promote()]),
        wrong(Rule::LocalFactsKnown, &blind, none, &[rewind()]),
        wrong(
            Rule::LocalFactsKnown,
            &blind,
            none,
            &[clone_of(DataState::Primary)],
        ),
        wrong(Rule::LocalFactsKnown, &same, none, &[clone_of(DataState::Empty)]),
        wrong(
            Rule::SupersededIsStopped,
            &older_writing,
            none,
            &[Action::EnsureDatabase, Action::StopServer],
        ),
    ]
}

impl Wrong {
    fn because(mut self, reason: Reason) -> Self {
        for step in &mut self.plan.steps {
            step.reason = reason;
        }
        self
    }

    /// The rule that is asked first.
    fn or(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }
}

#[test]
fn every_rule_finds_what_breaks_it() {
    let all = all_wrong();
    let mut missed = String::new();
    for wrong in &all {
        let (desired, observed) = &wrong.facts;
        let fault = check(desired, observed, &wrong.plan, now()).map_err(|fault| fault.rule);
        if fault != Err(wrong.rule) {
            let plan = shown(&wrong.plan);
            let _ = writeln!(
                missed,
                "{:?} was to be found, and was {fault:?}: {plan}",
                wrong.rule
            );
        }
    }
    assert!(missed.is_empty(), "\n{missed}");
    for rule in Rule::ALL {
        // `gate` closes beside such a step itself; see below.
        let seen = all.iter().any(|wrong| wrong.rule == rule);
        assert!(seen || rule == Rule::GateClosed, "nothing breaks {rule:?}");
    }
}

/// The gate judges the same plan, and closes beside every step that touches the server; so the rule holds as long as the
/// two agree on which steps do. A pause lets the gate as it is, and has no steps.
#[test]
fn a_step_under_an_open_gate_is_found() {
    let crashed = Data::Primary { crashed: true };
    let (mut desired, observed) = beside(Role::Primary, crashed, Server::Writable, READ_ONLY, Stands::Ahead);
    let stop = plan(&[Action::StopServer]);
    assert!(!gate(&Gate::Open, &desired, &observed, &stop, now()).is_open());
    desired.paused = true;
    let fault = check(&desired, &observed, &stop, now()).map_err(|fault| fault.rule);
    assert_eq!(fault, Err(Rule::GateClosed));
}
