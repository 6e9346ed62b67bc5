//! What holds in every combination of facts. Each property is a function with a name; a test per role goes through the
//! whole product once and says which property is broken where.

use std::time::Duration;

use paceline::desired::Role;
use paceline::lineage::Lsn;
use paceline::lineage::{Held, Relation};
use paceline::observed::{
    Answer, AppState, Data, DataState, Fact, Flag, Observed, Peer, PeerFacts, Server, Unanswered,
};
use paceline::plan::{Action, End, Plan, plan};

use super::gates;
use super::product::{Case, Heard, every};
use super::world::{has, makes_writable, memory, now, seen, silence};

/// `Err`: what is wrong.
pub type Verdict = Result<(), String>;

pub fn ensure(holds: bool, otherwise: &str) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

type Property = fn(&Case<'_>, &Plan) -> Verdict;

const PROPERTIES: [(&str, Property); 15] = [
    ("the same facts give the same plan", deterministic),
    ("a block says what to do", a_block_has_a_hint),
    ("promise 1: no promotion beside a writable peer", promise_1),
    ("nobody known to be there, nothing begun", nothing_begins_unasked),
    ("what is superseded is not written to", superseded_is_not_written),
    ("superseded and writable: stopped first", superseded_is_stopped),
    ("announced, then looked, then done", announced_before),
    ("nobody acts while the peer announces", not_beside_an_announcement),
    ("a start is what the signal file says", starts_fit_the_signal_file),
    ("a copy replaces only what nobody misses", clones_replace_nothing),
    ("a server is stopped for a reason", stops_have_a_reason),
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

fn deterministic(case: &Case<'_>, first: &Plan) -> Verdict {
    if case.ours.is_none() {
        return Ok(());
    }
    let again = plan(case.desired, &case.observed, now());
    ensure(*first == again, "the second time it was another plan")
}

fn a_block_has_a_hint(_: &Case<'_>, plan: &Plan) -> Verdict {
    match &plan.end {
        End::Blocked(blocked) => ensure(!blocked.hint().is_empty(), "no hint"),
        End::Converged | End::Waiting(_) => Ok(()),
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
    ensure(!(writes && promotes), "a promotion")
}

fn nothing_begins_unasked(case: &Case<'_>, plan: &Plan) -> Verdict {
    let begins = has(plan, makes_writable);
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
    let begins = has(plan, makes_writable);
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
            Action::Clone(_) => expected = true,
            Action::CreateCluster(_) => expected = false,
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
            ensure(wal_gone, "a standby's copy is replaced that could go on")?;
            ensure(
                matches!(
                    observed.relation(),
                    Some(Relation::Same(_) | Relation::Older(Held::Nothing))
                ),
                "a standby's copy is replaced that holds something of its own",
            )?;
        }
        Data::Primary { .. } | Data::NotOurs(_) | Data::Recovering | Data::Unclear(_) => {
            return Err("it replaces a copy that somebody may miss".to_owned());
        }
    }
    ensure(
        !matches!(observed.relation(), Some(Relation::Twins | Relation::Stranger)),
        "a copy is made beside a conflict",
    )?;
    ensure(
        known(observed).is_some_and(PeerFacts::writable),
        "nobody writes what is copied",
    )
}

fn stops_have_a_reason(case: &Case<'_>, plan: &Plan) -> Verdict {
    let stops = has(plan, |action| {
        matches!(action, Action::StopServer | Action::StopApp)
    });
    ensure(!stops || case.observed.superseded(), "nobody asked for a stop")
}

/// What must never be added because a fact is missing.
fn dangerous(action: &Action) -> bool {
    makes_writable(action) || matches!(action, Action::Clone(_))
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
    if !announced(case) {
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
        !has(&planned, |action| matches!(action, Action::Clone(_))),
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
    if !announced(case) || has(full, dangerous) || full.flag.is_some() {
        return Ok(());
    }
    let blinds: [(&str, Blind); 5] = [
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
    ];
    for (name, blind) in blinds {
        let mut less = case.observed.clone();
        less.peer_memory = seen(remembered(facts));
        if let Peer::Known(facts) = &mut less.peer {
            blind(facts);
        }
        let planned = plan(case.desired, &less, now());
        // Without a proven position the other one does not take over, so a primary's copy may go first.
        let goes_first = |action: &Action| {
            name == "position" && matches!(action, Action::StartServer(start) if !start.standby)
        };
        ensure(
            !has(&planned, |action| dangerous(action) && !goes_first(action)),
            &format!(
                "without the other one's {name}: {}",
                super::world::shown(&planned)
            ),
        )?;
    }
    Ok(())
}
