//! The handover between two healthy laptops: nothing that was acknowledged is lost, whoever is edited first, and whatever
//! happens in the middle.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use common::pair::{Pair, yaml};
use common::{Laptop, crash_server, postgres, root, text};

/// A pair with a table on both.
fn pair_with_table() -> Pair {
    let pair = Pair::following();
    pair.alpha.sql("create table riders (bib int)");
    pair.bravo
        .wait_sql("select count(*) from pg_class where relname = 'riders'", "1");
    pair
}

/// One writes, the other follows it and has what it writes.
fn writes_and_is_followed(primary: &Laptop, standby: &Laptop) {
    primary.wait_serving();
    standby.wait_streaming();
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    primary.sql("delete from riders where bib = -1; insert into riders values (-1)");
    standby.wait_sql("select count(*) from riders where bib = -1", "1");
}

/// Its daemon knows of one that could take over.
fn sees_a_follower(primary: &Laptop) {
    primary.wait("a follower", |status| status["peer"]["streaming"] == true);
}

/// Somebody who registers without a break.
struct Writer {
    begun: Arc<AtomicBool>,
    thread: JoinHandle<i32>,
}

impl Writer {
    /// Writes numbers from `first` on, one after the other, until one is refused.
    fn begin(laptop: &Laptop, first: i32) -> Self {
        let (host, port) = (laptop.path("home/run"), laptop.port);
        let begun = Arc::new(AtomicBool::new(false));
        let said = Arc::clone(&begun);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let mut config = tokio_postgres::Config::new();
                config
                    .host_path(host)
                    .port(port)
                    .user("postgres")
                    .dbname("postgres");
                let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("connect");
                tokio::spawn(async move { drop(connection.await) });
                let mut next = first;
                while client
                    .simple_query(&format!("insert into riders values ({next})"))
                    .await
                    .is_ok()
                {
                    next += 1;
                    said.store(next > first + 20, Ordering::Relaxed);
                }
                next - 1
            })
        });
        let writer = Self { begun, thread };
        common::eventually("writes are under way", || writer.begun.load(Ordering::Relaxed));
        writer
    }

    /// The last number that was acknowledged, once one is refused.
    fn acknowledged(self) -> i32 {
        common::eventually("writes are refused", || self.thread.is_finished());
        self.thread.join().expect("the writer")
    }
}

fn nothing_is_missing(laptop: &Laptop, acknowledged: i32) {
    let missing = laptop.sql(&format!(
        "select count(*) from generate_series(1, {acknowledged}) n where n not in (select bib from riders)"
    ));
    assert_eq!(missing, "0", "of {acknowledged} acknowledged rows");
}

/// A pushed file that says `standby` cannot take the event down: the laptop hands over when there is somebody to hand
/// over to, and not before.
#[test]
fn the_giving_side_is_edited_first() {
    let pair = pair_with_table();
    let writer = Writer::begin(&pair.alpha, 1);
    pair.declare_alpha("standby", "");
    let (_, hint) = pair.alpha.wait_reason("waiting", "no successor yet");
    assert!(hint.contains("write `primary` on the other laptop"), "{hint}");
    pair.alpha.wait_gate("open");
    pair.declare_bravo("primary", "");
    let acknowledged = writer.acknowledged();
    writes_and_is_followed(&pair.bravo, &pair.alpha);
    nothing_is_missing(&pair.bravo, acknowledged);
    assert_eq!(pair.bravo.sql("select count(*) from paceline.epoch"), "2");
}

#[test]
fn the_taking_side_is_edited_first() {
    let pair = pair_with_table();
    let writer = Writer::begin(&pair.alpha, 1);
    pair.declare_bravo("primary", "");
    let (_, hint) = pair.bravo.wait_reason("waiting", "serves; this one follows it");
    assert!(hint.contains("write `standby` on the other laptop"), "{hint}");
    pair.declare_alpha("standby", "");
    let acknowledged = writer.acknowledged();
    writes_and_is_followed(&pair.bravo, &pair.alpha);
    nothing_is_missing(&pair.bravo, acknowledged);

    // And back; nobody keeps a slot that nobody streams from, which would keep WAL for ever.
    pair.declare_alpha("primary", "");
    pair.declare_bravo("standby", "");
    writes_and_is_followed(&pair.alpha, &pair.bravo);
    nothing_is_missing(&pair.alpha, acknowledged);
    assert_eq!(pair.alpha.sql("select count(*) from paceline.epoch"), "3");
    pair.bravo
        .wait_sql("select count(*) from pg_replication_slots", "0");
    pair.alpha
        .wait_sql("select count(*) from pg_replication_slots where active", "1");
}

/// The profile of both laptops, on both.
fn profile(pair: &Pair, alpha: &str, bravo: &str) {
    let entry = |laptop: &Laptop, role: &str| {
        format!(
            "{{ role: {role}, address: 127.0.0.1, port: {}, api_port: {} }}",
            laptop.port, laptop.api
        )
    };
    for (name, laptop) in [("alpha", &pair.alpha), ("bravo", &pair.bravo)] {
        laptop.write_state(&format!(
            "node: {name}\nnodes:\n  alpha: {}\n  bravo: {}\nhome: home\nsafety: {{ peer_wait: 1s }}\n",
            entry(&pair.alpha, alpha),
            entry(&pair.bravo, bravo)
        ));
    }
}

/// A standby that followed onto a new timeline, and whose primary's server crashed before the next restartpoint: without a
/// WAL receiver pg_control names the timeline of before, so that the copy looked forked and was copied anew (seen in the
/// demo).
#[test]
fn a_follower_is_not_taken_for_forked_when_its_primary_crashes() {
    let pair = pair_with_table();
    pair.declare_bravo("primary", "");
    pair.declare_alpha("standby", "");
    writes_and_is_followed(&pair.bravo, &pair.alpha);
    for bib in 1..4 {
        pair.bravo.sql(&format!("insert into riders values ({bib})"));
        pair.alpha
            .wait_sql(&format!("select count(*) from riders where bib = {bib}"), "1");
        let seen = pair.alpha.log().len();
        crash_server(&pair.bravo.data());
        pair.alpha.wait_log_after(seen, "does not serve its database");
        pair.bravo.wait_serving();
        pair.alpha.wait_streaming();
    }
    assert!(
        !pair.alpha.log().contains("action=\"clone\""),
        "{}",
        pair.alpha.log()
    );
}

/// One file for both laptops: a pull that swaps the two words does it all.
#[test]
fn a_profile_with_swapped_roles_hands_over() {
    let pair = Pair::new();
    profile(&pair, "primary", "standby");
    let pair = pair.into_following();
    pair.alpha.sql("create table riders (bib int)");
    let writer = Writer::begin(&pair.alpha, 1);
    // One edit swaps both words; the same file comes to the other laptop by git or by copying.
    sees_a_follower(&pair.alpha);
    let said = text(&pair.alpha.run(&["handover"]).stdout);
    assert!(said.contains("nodes.bravo.role: standby -> primary"), "{said}");
    let swapped = fs::read_to_string(pair.alpha.state_file()).expect("state file");
    pair.bravo
        .write_state(&swapped.replace("node: alpha", "node: bravo"));
    let acknowledged = writer.acknowledged();
    writes_and_is_followed(&pair.bravo, &pair.alpha);
    nothing_is_missing(&pair.bravo, acknowledged);
}

/// With a file for each laptop the command edits this one and says what to write on the other; it refuses what cannot come
/// to anything.
#[test]
fn the_command_makes_one_edit_and_says_the_other() {
    let mut pair = pair_with_table();
    let said = text(&pair.bravo.run(&["handover"]).stdout);
    assert!(
        said.contains("role: standby -> primary") && said.contains("paceline standby"),
        "{said}"
    );
    let note = text(&pair.alpha.run(&["standby"]).stderr);
    assert!(
        note.contains("bravo") && note.contains("declared primary"),
        "{note}"
    );
    writes_and_is_followed(&pair.bravo, &pair.alpha);

    pair.alpha.stop();
    pair.bravo
        .wait("alone", |status| status["peer"]["reachable"] == false);
    let refused = pair.bravo.run(&["handover"]);
    let why = text(&refused.stderr);
    assert!(
        !refused.status.success() && why.contains("does not answer"),
        "{why}"
    );
    let file = fs::read_to_string(pair.bravo.state_file()).expect("state file");
    assert!(file.contains("role: primary"), "nothing was changed: {file}");
}

/// A peer that the file no longer names is still asked, and its silence is not "there is none": only a person ends that.
#[test]
fn another_laptop_is_forgotten_only_when_told_to() {
    let mut pair = pair_with_table();
    let refused = text(&pair.alpha.run(&["forget-peer"]).stderr);
    assert!(refused.contains("still names another laptop"), "{refused}");
    pair.bravo.stop();
    pair.alpha.write_state(&Laptop::primary_yaml(""));
    pair.alpha
        .wait("asked all the same", |status| status["peer"]["declared"] == true);
    let said = text(&pair.alpha.run(&["forget-peer"]).stdout);
    assert!(said.contains("is forgotten"), "{said}");
    pair.alpha
        .wait("forgotten", |status| status["peer"]["declared"] == false);
    pair.alpha.wait_gate("open");
}

/// The application stops before the server, and starts on the other laptop when that may be written to: never both.
#[test]
fn the_application_changes_sides() {
    let app = "racedb: { command: [\"{dir}/app\"], working_directory: / }\n";
    let pair = Pair::with(app, app);
    for laptop in [&pair.alpha, &pair.bravo] {
        laptop.script(
            "app",
            "#!/bin/sh\ntrap 'echo stopped >> {dir}/said; exit 0' TERM\necho started >> {dir}/said\n\
             while :; do sleep 0.02; done\n",
        );
    }
    if root() {
        // The application runs as the server's user and writes into the laptop's directory.
        for laptop in [&pair.alpha, &pair.bravo] {
            let user = postgres();
            nix::unistd::chown(laptop.directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
        }
    }
    let pair = pair.into_following();
    pair.declare_bravo("primary", app);
    pair.declare_alpha("standby", app);
    pair.bravo.wait_serving();
    pair.alpha.wait_streaming();
    assert_eq!(pair.alpha.lines("said"), ["started", "stopped"]);
    assert_eq!(pair.bravo.lines("said"), ["started"]);
    let log = pair.alpha.log();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words} in\n{log}"));
    assert!(at("action=\"stop_app\"") < at("action=\"fast_shutdown\""));
}

/// Which process dies.
#[derive(Clone, Copy, Debug)]
enum Dies {
    Daemon,
    Everything,
}

/// Every step × either side killed: the handover ends as declared all the same, and nothing acknowledged is missing.
#[test]
fn it_ends_well_whoever_is_killed_when() {
    let mut pair = pair_with_table();
    let mut acknowledged = 0;
    let giving = [
        "fast_shutdown",
        "promise_handover",
        "place_standby_signal",
        "start_server",
        "record_epochs",
    ];
    let taking = ["promote", "name_epoch", "ensure_replication", "checkpoint"];
    let points = giving
        .iter()
        .map(|step| (true, *step))
        .chain(taking.iter().map(|step| (false, *step)));
    let mut alpha_gives = true;
    for (at_giver, step) in points {
        for dies in [Dies::Daemon, Dies::Everything] {
            let (giver, taker, names) = if alpha_gives {
                (&mut pair.alpha, &mut pair.bravo, ["alpha", "bravo"])
            } else {
                (&mut pair.bravo, &mut pair.alpha, ["bravo", "alpha"])
            };
            eprintln!(
                "{} gives; at {step} {dies:?} of the one that does it dies",
                names[0]
            );
            let writer = Writer::begin(giver, acknowledged + 1);
            let victim_log = if at_giver {
                giver.log().len()
            } else {
                taker.log().len()
            };
            taker.write_state(&yaml(names[1], "primary", giver, ""));
            giver.write_state(&yaml(names[0], "standby", taker, ""));
            let victim = if at_giver { &mut *giver } else { &mut *taker };
            // The server's own checkpoint may be faster than ours.
            let begun = format!("action=\"{step}\" reason");
            victim.wait_log_any(victim_log, &[&begun, "plan: converged"]);
            victim.kill_daemon();
            if matches!(dies, Dies::Everything) && victim.postmaster().is_some() {
                crash_server(&victim.data());
            }
            victim.launch();
            victim.wait_log("status is served");
            writes_and_is_followed(taker, giver);
            acknowledged = writer.acknowledged();
            nothing_is_missing(taker, acknowledged);
            alpha_gives = !alpha_gives;
        }
    }
}

/// The laptop that should take over is gone for good after the other one bound itself: that one says what to write, and
/// what it has is everything.
#[test]
fn a_vanished_successor_leaves_one_edit() {
    let mut pair = Pair::abandoned(|pair| {
        pair.alpha
            .sql("insert into riders select generate_series(2, 500)");
    });
    let (_, hint) = pair.alpha.wait_reason("blocked", "handed its copy over");
    assert!(hint.contains("`role: failover` here"), "{hint}");
    assert_eq!(pair.alpha.sql("select pg_is_in_recovery()"), "t");
    pair.declare_alpha("failover", "");
    pair.alpha.wait_serving();
    nothing_is_missing(&pair.alpha, 500);
    // Bravo comes back, still declared primary, and follows.
    pair.bravo.start();
    pair.bravo.wait_reason("waiting", "serves; this one follows it");
    pair.bravo
        .wait("streaming", |status| status["server"]["streaming"] == true);
}

/// Both are declared standby after one of them bound itself: it takes its copy back and serves on.
#[test]
fn what_nobody_takes_is_taken_back() {
    let pair = pair_with_table();
    let writer = Writer::begin(&pair.alpha, 1);
    pair.declare_bravo("primary", "");
    pair.bravo.wait_reason("waiting", "serves; this one follows it");
    let before = pair.bravo.log().len();
    pair.declare_alpha("standby", "");
    pair.alpha.wait_log("action=\"fast_shutdown\"");
    // A second thought. It may come too late.
    pair.declare_bravo("standby", "");
    let acknowledged = writer.acknowledged();
    let serves = |laptop: &Laptop| laptop.try_sql("select pg_is_in_recovery()").as_deref() == Some("f");
    common::eventually("one of them writes", || {
        serves(&pair.alpha) || serves(&pair.bravo)
    });
    let too_late = pair.bravo.log()[before..].contains("action=\"promote\"");
    let one = if too_late { &pair.bravo } else { &pair.alpha };
    let (reason, _) = one.wait_reason("waiting", "no successor yet");
    one.wait_gate("open");
    nothing_is_missing(one, acknowledged);
    assert!(reason.contains("keeps serving"), "{reason}");
}
