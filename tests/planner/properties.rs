//! What holds in every combination of facts. Each property is a function with a name; a test per role goes through the
//! whole product once and says which property is broken where.

use std::time::Duration;

use paceline::desired::Role;
use paceline::lineage::Lsn;
use paceline::lineage::{Held, Relation};
use paceline::observed::{
    Answer, AppState, Data, DataState, Fact, Flag, Observed, Peer, PeerFacts, Server, Unanswered,
};
use paceline::plan::{Action, End, Plan, Waiting, check as check_plan, plan};

use super::gates;
use super::product::{Case, Extra, Heard, every};
use super::world::{consented, has, makes_writable, memory, now, seen, silence};

/// `Err`: what is wrong.
pub type Verdict = Result<(), String>;

pub fn ensure(holds: bool, otherwise: &str) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

type Property = fn(&Case<'_>, &Plan) -> Verdict;

const PROPERTIES: [(&str, Property); 18] = [
    ("the plan checker finds nothing", the_checker_finds_nothing),
    ("the same facts give the same plan", deterministic),
    ("a block, or a long wait, says what to do", a_block_has_a_hint),
    ("promise 1: no promotion beside a writable peer", promise_1),
    ("nobody known to be there, nothing begun", nothing_begins_unasked),
    ("what is superseded is not written to", superseded_is_not_written),
    ("superseded and writable: stopped first", superseded_is_stopped),
    ("announced, then looked, then done", announced_before),
    ("nobody acts while the peer announces", not_beside_an_announcement),
    ("a start is what the signal file says", starts_fit_the_signal_file),
    ("a copy replaces only what nobody misses", clones_replace_nothing),
    ("a server is stopped for a reason", stops_have_a_reason),
    ("handed over only to a successor", handed_over_only_to_a_successor),
    ("consent: needed, recorded, once", consent_is_needed),
    ("a silent peer adds nothing dangerous", silence_adds_nothing),
    (
        "an unknown fact of the peer adds nothing dangerous",
        unknown_adds_nothing,
    ),
    (
        "the gate: closed unless all is well",
        gates::open_only_when_all_is_well,
    ),
    (
        "the gate: twins and strangers change nothing",
        gates::twins_change_nothing,
    ),
];

fn check(role: Role) {
    let mut broken = Vec::new();
    let count = every(role, |case| {
        let planned = plan(case.desired, &case.observed, now());
        for (name, property) in PROPERTIES {
            if let Err(why) = property(case, &planned)
                && broken.iter().filter(|(broken, _)| *broken == name).count() < 5
            {
                broken.push((name, format!("{why}\n    {}", case.context(&planned))));
            }
        }
    });
    assert!(count > 30_000, "the product shrank to {count}");
    let text: Vec<String> = broken
        .iter()
        .map(|(name, what)| format!("{name}: {what}"))
        .collect();
    assert!(broken.is_empty(), "\n{}", text.join("\n"));
}

#[test]
fn everything_holds_for_primary() {
    check(Role::Primary);
}

#[test]
fn everything_holds_for_standby() {
    check(Role::Standby);
}

#[test]
fn everything_holds_for_failover() {
    check(Role::Failover);
}

#[test]
fn everything_holds_for_recovery() {
    check(Role::Recovery);
}

fn the_checker_finds_nothing(case: &Case<'_>, planned: &Plan) -> Verdict {
    check_plan(case.desired, &case.observed, planned, now()).map_err(|fault| fault.to_string())?;
    let stops = |action: &Action| matches!(action, Action::StopServer | Action::FastShutdown);
    if !has(planned, stops) {
        return Ok(());
    }
    let mut with_app = case.observed.clone();
    with_app.app.state = AppState::Running {
        pid: 9,
        port: 1,
        declaration: "x".to_owned(),
        since: now(),
    };
    let planned = plan(case.desired, &with_app, now());
    check_plan(case.desired, &with_app, &planned, now())
        .map_err(|fault| format!("with an application: {fault}"))
}

fn deterministic(case: &Case<'_>, first: &Plan) -> Verdict {
    if !announced(case) || case.extra != Extra::Nothing {
        return Ok(());
    }
    let again = plan(case.desired, &case.observed, now());
    ensure(*first == again, "the second time it was another plan")
}

fn a_block_has_a_hint(_: &Case<'_>, plan: &Plan) -> Verdict {
    match &plan.end {
        End::Blocked(blocked) => ensure(!blocked.hint().is_empty(), "no hint"),
        End::Waiting(waiting) => {
            let passes = match waiting {
                Waiting::Peer(wait) => wait.is_brief(),
                Waiting::ServerStarting | Waiting::ServerStopping | Waiting::DatabaseUnseen(_) => true,
                _ => false,
            };
            ensure(
                passes || waiting.hint().is_some(),
                "it may wait for long, and says nothing of it",
            )
        }
        End::Converged => Ok(()),
    }
}

fn known(observed: &Observed) -> Option<&PeerFacts> {
    match &observed.peer {
        Peer::Known(facts) => Some(facts),
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => None,
    }
}

fn promise_1(case: &Case<'_>, plan: &Plan) -> Verdict {
    let writes = known(&case.observed).is_some_and(PeerFacts::writable);
    let promotes = has(plan, |action| matches!(action, Action::Promote(_)));
    ensure(
        !(writes && promotes) || consented(&case.observed, plan),
        "a promotion",
    )
}

fn nothing_begins_unasked(case: &Case<'_>, plan: &Plan) -> Verdict {
    let begins = has(plan, makes_writable) && !consented(&case.observed, plan);
    let conflict = matches!(
        case.observed.relation(),
        Some(Relation::Twins | Relation::Stranger)
    );
    ensure(!(begins && conflict), "it becomes writable beside a conflict")?;
    match &case.observed.peer {
        Peer::Unknown(silence) if !silence.settled => {
            ensure(!begins, "it becomes writable before the silence is settled")
        }
        // The one row: a person said that the other laptop is gone, and this copy needs no promotion.
        Peer::Unauthenticated { .. } => ensure(
            !begins || (case.role == Role::Failover && matches!(case.data, Data::Primary { .. })),
            "it becomes writable beside somebody with another secret",
        ),
        Peer::None | Peer::Unknown(_) | Peer::Known(_) => Ok(()),
    }
}

fn superseded_is_not_written(case: &Case<'_>, plan: &Plan) -> Verdict {
    // What is restored is another copy, on an epoch of its own.
    let begins = has(plan, makes_writable) && !has(plan, restores) && !consented(&case.observed, plan);
    let primary = matches!(case.data, Data::Primary { .. });
    ensure(
        !(primary && begins && case.observed.superseded()),
        "a superseded primary's copy becomes writable",
    )?;
    let forked = matches!(case.observed.relation(), Some(Relation::Older(Held::Something)));
    ensure(!(forked && begins), "a forked copy becomes writable")
}

fn superseded_is_stopped(case: &Case<'_>, planned: &Plan) -> Verdict {
    if case.server != Server::Writable || !case.observed.superseded() {
        return Ok(());
    }
    let first = planned.first().map(|step| &step.action);
    ensure(first == Some(&Action::StopServer), "the server is not stopped")?;
    let mut with_app = case.observed.clone();
    with_app.app.state = AppState::Running {
        pid: 9,
        port: 1,
        declaration: "x".to_owned(),
        since: now(),
    };
    let planned = plan(case.desired, &with_app, now());
    let actions: Vec<&Action> = planned.steps.iter().map(|step| &step.action).collect();
    ensure(
        actions == [&Action::StopApp, &Action::StopServer],
        "not the application first, then the server",
    )
}

fn announced_before(case: &Case<'_>, plan: &Plan) -> Verdict {
    let (Some(facts), Some(first)) = (known(&case.observed), plan.first()) else {
        return Ok(());
    };
    if !makes_writable(&first.action) {
        return Ok(());
    }
    let flag = match first.action {
        Action::Promote(_) => Flag::Taking,
        _ => Flag::Starting,
    };
    ensure(
        plan.flag == Some(flag),
        "it does not announce what it does while it does it",
    )?;
    let Some((_, since)) = case.observed.flag.filter(|(shown, _)| *shown == flag) else {
        return Err("it was not announced".to_owned());
    };
    ensure(facts.asked_at >= since, "nobody looked since it was announced")?;
    let repeated = facts.sees.as_ref().is_some_and(|sees| sees.flag == Some(flag));
    let waited = now().since(since) > Duration::from_secs(2);
    ensure(
        repeated || waited,
        "the other laptop may rely on our silence of a moment ago",
    )
}

fn not_beside_an_announcement(case: &Case<'_>, plan: &Plan) -> Verdict {
    let announces = known(&case.observed).is_some_and(|facts| facts.flag.is_some());
    let acts = plan.first().is_some_and(|first| makes_writable(&first.action));
    ensure(
        !(announces && acts),
        "it acts beside the other one's announcement",
    )
}

fn starts_fit_the_signal_file(case: &Case<'_>, plan: &Plan) -> Verdict {
    let signal = case
        .observed
        .cluster()
        .is_some_and(|cluster| cluster.standby_signal);
    let mut expected = signal;
    for step in &plan.steps {
        match &step.action {
            Action::Clone(_) | Action::Rewind(_) | Action::PlaceStandbySignal { .. } => expected = true,
            Action::CreateCluster(_) | Action::Restore(_) => expected = false,
            Action::StartServer(start) => ensure(
                start.standby == expected,
                "the signal file says the opposite of the start",
            )?,
            _ => {}
        }
    }
    Ok(())
}

/// The standby's WAL is gone on the other laptop, as that one says.
fn without_wal(observed: &Observed) -> Observed {
    let mut observed = observed.clone();
    if let Fact::Known(Answer::Facts(facts)) = &mut observed.server.fact {
        facts.streaming = false;
    }
    if let Peer::Known(facts) = &mut observed.peer {
        facts.oldest_wal = Some(Lsn(u64::MAX));
    }
    observed
}

fn clones_replace_nothing(case: &Case<'_>, planned: &Plan) -> Verdict {
    clone_is_harmless(case, &case.observed, planned, false)?;
    if !matches!(case.server, Server::ReadOnly { .. }) {
        return Ok(());
    }
    let observed = without_wal(&case.observed);
    let planned = plan(case.desired, &observed, now());
    clone_is_harmless(case, &observed, &planned, true)
}

fn clone_is_harmless(case: &Case<'_>, observed: &Observed, planned: &Plan, wal_gone: bool) -> Verdict {
    let source = planned.steps.iter().find_map(|step| match &step.action {
        Action::Clone(source) => Some(source),
        _ => None,
    });
    let Some(source) = source else {
        return Ok(());
    };
    ensure(
        source.replaces == case.data.state(),
        "it does not say what it replaces",
    )?;
    match case.data {
        Data::Empty | Data::Tainted => {}
        Data::Replica => {
            let forked = matches!(observed.relation(), Some(Relation::Older(Held::Something)));
            ensure(
                wal_gone || forked || consented(observed, planned),
                "a standby's copy is replaced that could go on",
            )?;
        }
        Data::Primary { .. } => ensure(
            matches!(observed.relation(), Some(Relation::Older(_))) || consented(observed, planned),
            "it replaces a primary's copy that is not superseded",
        )?,
        Data::NotOurs(_) | Data::Recovering | Data::Unclear(_) => {
            return Err("it replaces a copy that somebody may miss".to_owned());
        }
    }
    ensure(
        !matches!(observed.relation(), Some(Relation::Twins | Relation::Stranger))
            || consented(observed, planned),
        "a copy is made beside a conflict",
    )?;
    ensure(
        known(observed).is_some_and(PeerFacts::writable),
        "nobody writes what is copied",
    )
}

/// A handover: declared standby, with somebody who is ready to take over.
fn gives(case: &Case<'_>, plan: &Plan) -> bool {
    case.role == Role::Standby
        && case.extra == Extra::Ready
        && has(plan, |action| *action == Action::FastShutdown)
}

fn handed_over_only_to_a_successor(case: &Case<'_>, plan: &Plan) -> Verdict {
    let gives = has(plan, |action| {
        matches!(action, Action::FastShutdown | Action::PromiseHandover(_))
    });
    if !gives {
        return Ok(());
    }
    let Some(facts) = known(&case.observed) else {
        return Err("nobody is there to take over".to_owned());
    };
    ensure(case.role == Role::Standby, "nobody asked for it")?;
    ensure(
        matches!(facts.role, Some(Role::Primary | Role::Failover)) && facts.data == DataState::Replica,
        "the other laptop is not told to take over",
    )?;
    ensure(
        matches!(case.observed.relation(), Some(Relation::Same(_))),
        "the other laptop's copy is another history",
    )?;
    let bound: Vec<usize> = ["promise_handover", "place_standby_signal", "start_server"]
        .iter()
        .filter_map(|name| plan.steps.iter().position(|step| step.action.name() == *name))
        .collect();
    ensure(
        bound.is_sorted() && bound.len() >= 2,
        "the order of binding is wrong",
    )
}

/// Without a consent that is good nothing is done that needs one, and a token opens nothing but what it was shown for.
fn consent_is_needed(case: &Case<'_>, plan: &Plan) -> Verdict {
    let records = has(plan, |action| matches!(action, Action::RecordConsent(_)));
    match case.extra {
        Extra::Given => ensure(
            matches!(
                plan.first().map(|step| &step.action),
                Some(Action::RecordConsent(_))
            ),
            "the token is not recorded before anything else",
        ),
        Extra::Granted => ensure(
            !records && plan.offer.is_none(),
            "it is recorded again, or asked for again",
        ),
        Extra::ConsentsUnreadable => ensure(
            plan.offer.is_none()
                && !has(plan, makes_writable)
                && !has(plan, |action| {
                    matches!(action, Action::Clone(_) | Action::Restore(_))
                }),
            "it acts without knowing which tokens were used",
        ),
        Extra::Nothing
        | Extra::TheyGave
        | Extra::TheyGavePart
        | Extra::WeGave
        | Extra::BothGave
        | Extra::Ready => ensure(!records, "a consent that nobody gave is recorded"),
    }
}

fn restores(action: &Action) -> bool {
    matches!(action, Action::Restore(_))
}

fn stops_have_a_reason(case: &Case<'_>, plan: &Plan) -> Verdict {
    let stops = has(plan, |action| {
        matches!(action, Action::StopServer | Action::StopApp)
    });
    ensure(
        !stops
            || has(plan, restores)
            || case.observed.superseded()
            || consented(&case.observed, plan)
            || gives(case, plan),
        "nobody asked for a stop",
    )
}

/// What must never be added because a fact is missing.
fn dangerous(action: &Action) -> bool {
    makes_writable(action) || matches!(action, Action::Clone(_) | Action::Restore(_) | Action::Rewind(_))
}

/// As the link leaves it on disk with every answer.
fn remembered(facts: &PeerFacts) -> Fact<Option<paceline::observed::PeerMemory>> {
    let mut memory = memory(facts.role, facts.data, facts.lineage.clone(), facts.flag);
    memory.writable = facts.writable();
    Fact::Known(Some(memory))
}

/// Whether an act would have been announced and answered: without that nothing could be added.
fn announced(case: &Case<'_>) -> bool {
    matches!(case.ours, Some((Flag::Starting | Flag::Taking, Heard::Repeated)))
}

fn silence_adds_nothing(case: &Case<'_>, _: &Plan) -> Verdict {
    let Some(facts) = known(&case.observed) else {
        return Ok(());
    };
    if !announced(case) || matches!(case.extra, Extra::Given | Extra::Granted) {
        return Ok(());
    }
    let mut less = case.observed.clone();
    less.peer_memory = seen(remembered(facts));
    less.peer = silence(Unanswered::Silent, false);
    let planned = plan(case.desired, &less, now());
    ensure(
        !has(&planned, dangerous),
        "silence that is not settled lets it act",
    )?;
    less.peer = silence(Unanswered::Silent, true);
    let planned = plan(case.desired, &less, now());
    ensure(
        !has(&planned, |action| {
            matches!(action, Action::Clone(_) | Action::Rewind(_))
        }),
        "a copy of a silent laptop",
    )?;
    // The rows that name a silent peer.
    let named = match (case.role, case.data) {
        (Role::Primary, Data::Primary { crashed }) => !crashed || facts.lineage.is_none(),
        (Role::Failover, Data::Primary { .. } | Data::Replica) => true,
        _ => case.role == Role::Failover && matches!(case.server, Server::ReadOnly { .. }),
    };
    ensure(
        named || !has(&planned, makes_writable),
        "no row lets it act while the other laptop is silent",
    )?;
    let may_have = facts.flag == Some(Flag::Taking)
        || (facts.data == DataState::Replica && facts.role == Some(Role::Failover));
    ensure(
        !(may_have
            && has(
                &planned,
                |action| matches!(action, Action::StartServer(start) if !start.standby),
            )),
        "the other laptop may have taken over since",
    )
}

type Blind = fn(&mut PeerFacts);

fn unknown_adds_nothing(case: &Case<'_>, full: &Plan) -> Verdict {
    let Some(facts) = known(&case.observed) else {
        return Ok(());
    };
    if !announced(case) {
        return Ok(());
    }
    // (A daemon that shows no promise has given none; that its last checkpoint is not said is asked in the rewind itself.)
    let blinds: [(&str, Blind); 8] = [
        ("server", |facts| facts.server = Fact::Unknown("blind".to_owned())),
        ("history", |facts| facts.lineage = None),
        ("position", |facts| {
            if let Some(lineage) = &mut facts.lineage {
                lineage.position = None;
            }
        }),
        ("copy", |facts| facts.data = DataState::Unknown),
        // Its daemon is gone, its server answers.
        ("daemon", |facts| {
            facts.role = None;
            facts.flag = None;
            facts.sees = None;
        }),
        ("view of us", |facts| facts.sees = None),
        ("slots", |facts| facts.slots = None),
        ("oldest WAL", |facts| facts.oldest_wal = None),
    ];
    let names = |plan: &Plan| -> Vec<&'static str> {
        let dangerous = plan.steps.iter().filter(|step| dangerous(&step.action));
        dangerous.map(|step| step.action.name()).collect()
    };
    let before = names(full);
    for (name, blind) in blinds {
        if name == "daemon"
            && !matches!(
                facts.server,
                Fact::Known(Server::Writable | Server::ReadOnly { .. })
            )
        {
            continue;
        }
        let mut less = case.observed.clone();
        less.peer_memory = seen(remembered(facts));
        if let Peer::Known(facts) = &mut less.peer {
            blind(facts);
        }
        if less.peer == case.observed.peer {
            continue;
        }
        let planned = plan(case.desired, &less, now());
        // Without a proven position the other one does not take over, so a primary's copy may go first.
        let goes_first = |action: &str| {
            let start = action == "start_server";
            // Without its daemon it cannot take over what would be handed to it.
            start && (name == "position" || name == "daemon" && case.role == Role::Standby)
        };
        for action in names(&planned) {
            ensure(
                before.contains(&action) || goes_first(action),
                &format!(
                    "without the other one's {name}: {}, instead of {}",
                    super::world::shown(&planned),
                    super::world::shown(full),
                ),
            )?;
        }
    }
    Ok(())
}
