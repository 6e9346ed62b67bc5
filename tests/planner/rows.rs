//! Single rows, each with the state that once went wrong or that a row of the design names.

use paceline::desired::{Desired, Role};
use paceline::lineage::Lsn;
use paceline::observed::{
    Answer, AppState, Data, DataState, Fact, Flag, Observed, Peer, SeesUs, Server, Unanswered,
};
use paceline::plan::{Action, Blocked, End, Gate, PeerBlock, PeerWait, Plan, Waiting, gate, plan};

use super::product::{Heard, Other, Ours, Remembers, Stands};
use super::world::{Copy, ago, desired, has, makes_writable, memory, now, pending, seen, shown, silence};

const CLEAN: Data = Data::Primary { crashed: false };
const READ_ONLY: Server = Server::ReadOnly { streaming: false };
const STARTING: Ours = Some((Flag::Starting, Heard::Repeated));
const TAKING: Ours = Some((Flag::Taking, Heard::Repeated));

fn known(role: Role, data: DataState, server: Server, stands: Stands) -> Other {
    Other::Known {
        role: Some(role),
        data,
        server: Some(server),
        stands: Some(stands),
        flag: None,
    }
}

fn look(role: Role, data: Data, server: Server, other: &Other, ours: Ours) -> (Desired, Observed) {
    let desired = desired(role, true);
    let observed = other.seen(&mut Copy::new(data, server), ours, &desired);
    (desired, observed)
}

fn decide(role: Role, data: Data, server: Server, other: &Other, ours: Ours) -> Plan {
    let (desired, observed) = look(role, data, server, other, ours);
    plan(&desired, &observed, now())
}

#[track_caller]
fn waits(plan: &Plan, wait: &PeerWait) {
    let expected = End::Waiting(Waiting::Peer(wait.clone()));
    assert!(
        plan.end == expected && !has(plan, makes_writable),
        "{}",
        shown(plan)
    );
}

#[track_caller]
fn blocks(plan: &Plan, block: &PeerBlock) {
    let expected = End::Blocked(Blocked::Peer(block.clone()));
    assert!(
        plan.end == expected && !has(plan, makes_writable),
        "{}",
        shown(plan)
    );
}

/// The other laptop may have seen us silent a moment ago, and be about to rely on that: only when it repeats what we
/// announce does it know better.
#[test]
fn a_start_waits_until_the_other_laptop_knows() {
    let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Behind);
    let fetched = Some((Flag::Starting, Heard::Fetched));
    let plan = decide(Role::Primary, CLEAN, Server::Down, &other, fetched);
    waits(&plan, &PeerWait::Announced(Flag::Starting));
    let plan = decide(Role::Primary, CLEAN, Server::Down, &other, STARTING);
    assert!(has(&plan, makes_writable), "{}", shown(&plan));
}

/// Two laptops that were installed from one image have one host name. Neither would give way to the other.
#[test]
fn namesakes_are_told_apart_by_a_person() {
    let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Behind);
    let (desired, mut observed) = look(Role::Primary, CLEAN, Server::Down, &other, STARTING);
    let node = desired.node.clone();
    if let Peer::Known(facts) = &mut observed.peer {
        facts.node = Some(node.clone());
    }
    let block = PeerBlock::SameName { node };
    blocks(&plan(&desired, &observed, now()), &block);
    // What serves goes on.
    let (desired, mut observed) = look(Role::Primary, CLEAN, Server::Writable, &other, None);
    if let Peer::Known(facts) = &mut observed.peer {
        facts.node = Some(desired.node.clone());
    }
    let plan = plan(&desired, &observed, now());
    assert!(
        !has(&plan, |action| *action == Action::StopServer),
        "{}",
        shown(&plan)
    );
    assert_eq!(plan.end, End::Blocked(Blocked::Peer(block)));
}

/// Between `pg_promote` and the name of its epoch the other laptop announces nothing and cannot be compared. Whoever
/// loses sight of it then must not start an older copy.
#[test]
fn a_laptop_last_seen_between_promotion_and_name_may_have_taken_over() {
    let other = Other::Silent {
        how: Unanswered::Silent,
        settled: true,
        memory: Remembers::TookOverUnnamed,
    };
    for role in [Role::Primary, Role::Failover] {
        let plan = decide(role, CLEAN, Server::Down, &other, STARTING);
        blocks(&plan, &PeerBlock::MayHaveTakenOver);
    }
}

/// A start under way is not announced any more, and until it is over pg_control still says "shut down".
#[test]
fn nobody_takes_over_beside_a_server_that_is_starting() {
    let other = known(Role::Primary, DataState::Primary, Server::Starting, Stands::Equal);
    let plan = decide(Role::Failover, Data::Replica, READ_ONLY, &other, TAKING);
    waits(&plan, &PeerWait::ServerUnclear);
}

/// Two that announce the same: the greater name clears its flag; the lesser one keeps its own and acts when the other
/// one's is gone, not before.
#[test]
fn the_same_announcement_on_both_is_waited_out() {
    let mut other = known(Role::Primary, DataState::Primary, Server::Down, Stands::Equal);
    if let Other::Known { flag, .. } = &mut other {
        *flag = Some(Flag::Starting);
    }
    let (mut desired, observed) = look(Role::Primary, CLEAN, Server::Down, &other, STARTING);
    let keeps = plan(&desired, &observed, now());
    waits(&keeps, &PeerWait::Announces(Flag::Starting));
    assert_eq!(keeps.flag, Some(Flag::Starting), "alpha is the lesser name");
    desired.node = "charlie".to_owned();
    let yields = plan(&desired, &observed, now());
    waits(&yields, &PeerWait::Announces(Flag::Starting));
    assert_eq!(yields.flag, None, "charlie is the greater name");
}

/// A promoter whose flag is not repeated takes the other one for silent; only `failover` takes over from a silent one.
#[test]
fn without_an_answer_to_the_flag_only_failover_takes_over() {
    let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Ahead);
    let waited = Some((Flag::Taking, Heard::Waited));
    let primary = decide(Role::Primary, Data::Replica, READ_ONLY, &other, waited);
    waits(&primary, &PeerWait::Announced(Flag::Taking));
    let failover = decide(Role::Failover, Data::Replica, READ_ONLY, &other, waited);
    assert!(
        has(&failover, |action| matches!(action, Action::Promote(_))),
        "{}",
        shown(&failover)
    );
    let heard = decide(Role::Primary, Data::Replica, READ_ONLY, &other, TAKING);
    assert!(
        has(&heard, |action| matches!(action, Action::Promote(_))),
        "{}",
        shown(&heard)
    );
}

/// A superseded laptop whose server hangs or has crashed does not keep its application for half a minute.
#[test]
fn superseded_is_no_passing_trouble() {
    let other = known(
        Role::Failover,
        DataState::Primary,
        Server::Writable,
        Stands::Forked,
    );
    for server in [Server::Down, Server::Starting, Server::Writable] {
        let crashed = Data::Primary { crashed: true };
        let (desired, mut observed) = look(Role::Primary, crashed, server, &other, None);
        if server == Server::Writable {
            observed.server = seen(Fact::Unknown("it does not answer".to_owned()));
        }
        let planned = plan(&desired, &observed, now());
        let judged = gate(&Gate::Open, &desired, &observed, &planned, now());
        assert!(matches!(judged, Gate::Closed { .. }), "{server}: {judged}");
    }
}

/// `default_transaction_read_only` does not make a primary's server harmless: a session may overrule it.
#[test]
fn a_superseded_server_that_was_told_to_refuse_writes_is_stopped() {
    let other = known(
        Role::Failover,
        DataState::Primary,
        Server::Writable,
        Stands::Forked,
    );
    let crashed = Data::Primary { crashed: true };
    let (desired, mut observed) = look(Role::Primary, crashed, Server::Writable, &other, None);
    if let Fact::Known(Answer::Facts(facts)) = &mut observed.server.fact {
        facts.read_only = true;
    }
    let planned = plan(&desired, &observed, now());
    assert_eq!(
        planned.first().map(|step| &step.action),
        Some(&Action::StopServer)
    );
}

/// The conflict is what a person has to hear, not that some setting waits for a restart.
#[test]
fn twins_are_told_before_anything_else() {
    let other = known(Role::Primary, DataState::Primary, Server::Writable, Stands::Twins);
    let crashed = Data::Primary { crashed: true };
    let (desired, mut observed) = look(Role::Primary, crashed, Server::Writable, &other, None);
    if let Fact::Known(Answer::Facts(facts)) = &mut observed.server.fact {
        facts.pending_restart = vec![pending("shared_buffers")];
    }
    blocks(&plan(&desired, &observed, now()), &PeerBlock::Twins);
}

fn without_wal(mut observed: Observed) -> Observed {
    if let Peer::Known(facts) = &mut observed.peer {
        facts.oldest_wal = Some(Lsn(u64::MAX));
    }
    observed
}

/// A standby whose WAL is gone is copied anew, but not while a fact about what would be replaced is missing.
#[test]
fn a_copy_replaces_a_standby_only_when_everything_about_it_is_known() {
    let other = known(
        Role::Primary,
        DataState::Primary,
        Server::Writable,
        Stands::Behind,
    );
    let (desired, observed) = look(Role::Standby, Data::Replica, READ_ONLY, &other, None);
    let observed = without_wal(observed);
    let clones = |observed: &Observed| {
        has(&plan(&desired, observed, now()), |action| {
            matches!(action, Action::Clone(_))
        })
    };
    assert!(clones(&observed));
    let mut less = observed.clone();
    less.configuration = seen(Fact::Unknown("blind".to_owned()));
    assert!(!clones(&less), "configuration");
    let mut less = observed.clone();
    if let Fact::Known(paceline::observed::DataDirectory::Cluster(cluster)) = &mut less.data.fact {
        cluster.sidecar = Fact::Unknown("blind".to_owned());
    }
    assert!(!clones(&less), "sidecar");
}

/// Only a running server tells that its WAL is gone: stopped first, it would be started again by the next plan, and
/// stopped again, for ever.
#[test]
fn a_standby_without_wal_is_not_stopped_before_its_copy_is_made() {
    let other = known(
        Role::Primary,
        DataState::Primary,
        Server::Writable,
        Stands::Behind,
    );
    let (desired, observed) = look(Role::Standby, Data::Replica, READ_ONLY, &other, None);
    let planned = plan(&desired, &without_wal(observed), now());
    assert!(
        matches!(planned.first().map(|step| &step.action), Some(Action::Clone(_))),
        "{}",
        shown(&planned)
    );
}

/// Restarted, a standby without its signal file would stay down.
#[test]
fn a_standby_whose_signal_file_is_gone_is_not_restarted() {
    let other = known(
        Role::Primary,
        DataState::Primary,
        Server::Writable,
        Stands::Behind,
    );
    let stops = |gone: bool| {
        let (desired, mut observed) = look(Role::Standby, Data::Replica, READ_ONLY, &other, None);
        if let Fact::Known(Answer::Facts(facts)) = &mut observed.server.fact {
            facts.pending_restart = vec![pending("shared_buffers")];
        }
        if let Fact::Known(paceline::observed::DataDirectory::Cluster(cluster)) = &mut observed.data.fact {
            cluster.standby_signal = !gone;
        }
        has(&plan(&desired, &observed, now()), |action| {
            *action == Action::StopServer
        })
    };
    assert!(stops(false));
    assert!(!stops(true));
}

/// `home` may say that this copy is forked; as long as it cannot be read, nobody takes over from a silent laptop.
#[test]
fn nobody_takes_over_without_reading_what_home_remembers() {
    let silent = |memory| Other::Silent {
        how: Unanswered::Silent,
        settled: true,
        memory,
    };
    let promotes = |memory| {
        let plan = decide(Role::Failover, Data::Replica, READ_ONLY, &silent(memory), TAKING);
        has(&plan, makes_writable)
    };
    assert!(promotes(Remembers::Nothing) && promotes(Remembers::Standby));
    assert!(!promotes(Remembers::Unreadable) && !promotes(Remembers::TookOver));
}

/// Half-made data is not promoted, even if a server runs on it; a recovery from a backup has its own way.
#[test]
fn a_server_on_half_made_data_is_not_promoted() {
    for data in [Data::Tainted, Data::Recovering] {
        for role in [Role::Primary, Role::Failover] {
            let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Ahead);
            let plan = decide(role, data.clone(), READ_ONLY, &other, TAKING);
            assert!(
                plan.steps.is_empty() && matches!(plan.end, End::Blocked(_)),
                "{}",
                shown(&plan)
            );
        }
    }
}

/// A primary's copy that we superseded is never started, so waiting for that would be waiting for ever.
#[test]
fn nobody_waits_for_a_superseded_copy_to_start() {
    let other = |role| known(role, DataState::Primary, Server::Down, Stands::Newer);
    let failover = decide(
        Role::Failover,
        Data::Replica,
        READ_ONLY,
        &other(Role::Failover),
        TAKING,
    );
    assert!(
        has(&failover, |action| matches!(action, Action::Promote(_))),
        "{}",
        shown(&failover)
    );
    let primary = decide(
        Role::Primary,
        Data::Replica,
        READ_ONLY,
        &other(Role::Standby),
        TAKING,
    );
    blocks(&primary, &PeerBlock::PeerSuperseded);
}

/// Its daemon is gone, its server answers: what the daemon was about to do is what was last seen of that.
#[test]
fn a_server_without_its_daemon_does_not_hide_that_it_was_taking_over() {
    let other = Other::Known {
        role: None,
        data: DataState::Replica,
        server: Some(READ_ONLY),
        stands: Some(Stands::Ahead),
        flag: None,
    };
    // Nobody is there to repeat what we announce.
    let waited = Some((Flag::Starting, Heard::Waited));
    let (desired, mut observed) = look(Role::Primary, CLEAN, Server::Down, &other, waited);
    assert!(has(&plan(&desired, &observed, now()), makes_writable));
    let lineage = match &observed.peer {
        Peer::Known(facts) => facts.lineage.clone(),
        _ => None,
    };
    let remembered = memory(Some(Role::Failover), DataState::Replica, lineage, None);
    observed.peer_memory = seen(Fact::Known(Some(remembered)));
    blocks(&plan(&desired, &observed, now()), &PeerBlock::MayHaveTakenOver);
}

/// A database whose directory was taken away from under its server is not replaced by an empty one here.
#[test]
fn an_empty_directory_under_a_running_server_is_no_empty_laptop() {
    let other = Other::Known {
        role: Some(Role::Standby),
        data: DataState::Empty,
        server: Some(Server::Writable),
        stands: None,
        flag: None,
    };
    waits(
        &decide(Role::Primary, Data::Empty, Server::Down, &other, STARTING),
        &PeerWait::NotServing,
    );
}

/// A new, empty database without the other laptop's word: only with a person's, and only when its silence is settled.
#[test]
fn an_empty_laptop_begins_alone_only_if_a_person_said_so() {
    let (desired, mut observed) = look(Role::Primary, Data::Empty, Server::Down, &Other::None, STARTING);
    let creates = |observed: &Observed| {
        has(&plan(&desired, observed, now()), |action| {
            matches!(action, Action::CreateCluster(_))
        })
    };
    observed.peer = silence(Unanswered::Refused, true);
    assert!(!creates(&observed));
    observed.new_database_allowed = true;
    assert!(creates(&observed));
    observed.flag = None;
    assert!(
        plan(&desired, &observed, now()).steps.is_empty(),
        "it is announced first"
    );
    observed.flag = Some((Flag::Starting, ago(1)));
    observed.peer = silence(Unanswered::Silent, false);
    assert!(!creates(&observed), "not settled");
    observed.peer = silence(Unanswered::Refused, true);
    observed.peer_memory = seen(Fact::Known(Some(memory(None, DataState::Replica, None, None))));
    assert!(!creates(&observed), "it had a database");
}

/// The server crashed under the daemon's eyes: it is started again beside a silent laptop. Otherwise it is quarantined.
#[test]
fn a_crashed_primary_beside_a_silent_laptop_that_was_its_standby() {
    let other = Other::Silent {
        how: Unanswered::Silent,
        settled: true,
        memory: Remembers::Standby,
    };
    let crashed = Data::Primary { crashed: true };
    let (mut desired, mut observed) = look(Role::Primary, crashed, Server::Down, &other, STARTING);
    blocks(&plan(&desired, &observed, now()), &PeerBlock::Quarantine);
    desired.role = Role::Failover;
    assert!(
        has(&plan(&desired, &observed, now()), makes_writable),
        "the way out"
    );
    desired.role = Role::Primary;
    observed.served = true;
    assert!(has(&plan(&desired, &observed, now()), makes_writable));
}

/// The flag is that of the plan in force: what is not asked for any more is not announced any more.
#[test]
fn a_pause_and_an_end_announce_nothing() {
    let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Ahead);
    let (mut desired, mut observed) = look(Role::Primary, CLEAN, Server::Down, &other, None);
    assert_eq!(plan(&desired, &observed, now()).flag, Some(Flag::Starting));
    desired.paused = true;
    assert_eq!(plan(&desired, &observed, now()).flag, None);
    desired.paused = false;
    observed.ending = true;
    observed.app.state = AppState::Stopped;
    assert_eq!(plan(&desired, &observed, now()).flag, None);
}

/// Nobody else may be answered for: `sees` counts only for the very flag that we show.
#[test]
fn another_flag_repeated_is_no_answer() {
    let other = known(Role::Standby, DataState::Replica, READ_ONLY, Stands::Ahead);
    let (desired, mut observed) = look(Role::Primary, Data::Replica, READ_ONLY, &other, TAKING);
    if let Peer::Known(facts) = &mut observed.peer {
        facts.sees = Some(SeesUs {
            role: Some(Role::Primary),
            flag: Some(Flag::Starting),
        });
    }
    waits(
        &plan(&desired, &observed, now()),
        &PeerWait::Announced(Flag::Taking),
    );
}
