//! Taking over: when it may be done, when it must not, and what stands in its way.

mod common;

use std::fs;

use common::pair::Pair;
use common::{Laptop, eventually};
use nix::sys::signal::Signal;

fn has_row(laptop: &Laptop, bib: u32) {
    laptop.wait_sql(&format!("select count(*) from riders where bib = {bib}"), "1");
}

/// A pair with a table and one row in it on both.
fn pair_with_rows() -> Pair {
    let pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    has_row(&pair.bravo, 1);
    pair
}

/// Promise 1: no promotion while the other laptop is known to be writable. When it dies, the declaration stands.
#[test]
fn nothing_takes_over_beside_a_living_primary() {
    let mut pair = pair_with_rows();
    pair.declare_bravo("failover", "");
    let (_, hint) = pair.bravo.wait_reason("blocked", "alive");
    assert!(
        hint.contains("write `standby` there and `primary` here"),
        "{hint}"
    );
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    pair.kill_alpha();
    pair.bravo.wait_serving();
    assert_eq!(pair.bravo.sql("select count(*) from riders"), "1");
    let history = fs::read_to_string(pair.bravo.path("home/history.jsonl")).expect("history");
    assert!(history.contains("\"event\":\"promotion\""), "{history}");
}

/// A laptop that lost power may come back before it can see that the other one took over (repmgr #766: two primaries
/// after a reboot).
#[test]
fn a_crashed_primary_alone_does_not_start() {
    let mut pair = pair_with_rows();
    pair.kill_alpha();
    pair.bravo.stop();
    pair.alpha.launch();
    let (_, hint) = pair.alpha.wait_reason("blocked", "did not shut down cleanly");
    assert!(hint.contains("switch the other laptop on"), "{hint}");
    assert_eq!(pair.alpha.postmaster(), None);
    // The standby answers, and did not take over.
    pair.bravo.start();
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
}

/// What was seen once is remembered over restarts, also while the laptop that took over is off. Only a person's consent
/// makes the older copy the one that goes on; then it is the other one that has to come back.
#[test]
fn a_superseded_primary_goes_on_by_consent_only() {
    let mut pair = pair_with_rows();
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    pair.declare_alpha("failover", "");
    pair.alpha.launch();
    pair.alpha.wait_log("status is served");
    let (_, hint) = pair.alpha.wait_reason("blocked", "took over");
    assert!(hint.contains("write `standby` here"), "{hint}");
    pair.bravo.stop();
    pair.declare_alpha("primary", "");
    pair.alpha.stop();
    pair.alpha.launch();
    let (_, hint) = pair.alpha.wait_reason("blocked", "took over");
    assert!(hint.contains("bring the other laptop back"), "{hint}");
    assert_eq!(pair.alpha.postmaster(), None);

    // The daemon and a dry run show the same word, and what would be lost.
    let offered = pair
        .alpha
        .wait("an offer", |status| status["plan"]["consent"].is_string());
    let token = offered["plan"]["consent"].as_str().expect("a token");
    assert!(
        offered["plan"]["loss"]["peer_position"].is_string(),
        "{offered:#}"
    );
    let dry = common::text(&pair.alpha.run(&["plan"]).stdout);
    assert!(dry.contains(token), "{token} in {dry}");

    // A word of another situation does nothing.
    pair.declare_alpha("primary", "consent: \"000000\"\n");
    pair.alpha
        .wait("the same offer", |status| status["plan"]["consent"] == token);
    pair.declare_alpha("primary", &format!("consent: \"{token}\"\n"));
    let status = pair.alpha.wait_serving();
    assert_eq!(status["data"]["epochs"].as_array().expect("epochs").len(), 2);
    assert_eq!(pair.alpha.sql("select count(*) from riders"), "1");
    let used = fs::read_to_string(pair.alpha.path("home/consents.json")).expect("consents");
    assert!(used.contains(token), "{used}");

    // Bravo sees that it was given up, and does not write any more; declared standby it comes back, and keeps what it had.
    pair.bravo.start();
    let (_, hint) = pair.bravo.wait_reason("blocked", "took over");
    assert!(hint.contains("write `standby` here"), "{hint}");
    pair.declare_bravo("standby", "");
    pair.bravo.wait_streaming();
    assert_eq!(pair.bravo.sql("select count(*) from riders"), "1");
    let kept = fs::read_dir(pair.bravo.path("home")).expect("home").flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains(".set-aside-"));
    assert!(kept.count() >= 1, "bravo's registration is kept");
}

/// A laptop that froze, or whose lid was closed, still believes to be the primary when it wakes up. It sees who took
/// over, and gives way: the application first, then the server; then it follows.
#[test]
fn a_primary_that_wakes_up_superseded_gives_way() {
    let app = "racedb: { command: [sleep, \"100000\"] }\n";
    let mut pair = Pair::with(app, app).into_following();
    pair.alpha.wait_serving();
    let daemon = pair.alpha.pid();
    let frozen = common::signal_server(&pair.alpha.data(), Signal::SIGSTOP);
    pair.alpha.signal(Signal::SIGSTOP);
    pair.bravo.wait_reason("waiting", "cannot be reached");
    pair.declare_bravo("failover", app);
    // Its application can log in at once: both laptops know its password.
    pair.bravo.wait_serving();
    for pid in frozen.into_iter().chain([daemon]) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT);
    }
    pair.alpha
        .wait_reason("waiting", "the other laptop serves; this one follows it");
    let status = pair.alpha.wait("it follows", |status| {
        status["server"]["streaming"] == true && status["app"]["state"] == "stopped"
    });
    assert_eq!(status["gate"]["state"], "closed");
    let log = pair.alpha.log();
    let place = |words: &str| log.find(words).expect(words);
    assert!(place("application stopped") < place("doing: stop the server"));
    assert_eq!(pair.bravo.wait_serving()["data"]["timeline"], 2);
    pair.alpha.stop();
}

/// A follower notes the name of a newer epoch before it has received any of it. If it never does, because that primary
/// dies at once, its own promotion must not get that name: two histories would be taken for one.
#[test]
fn a_name_that_was_only_noted_is_nobody_elses() {
    let mut pair = pair_with_rows();
    pair.bravo.kill_daemon();
    let noted = "0b8e5ad0-0000-4000-8000-000000000002";
    let path = pair.bravo.path("home/data.paceline.json");
    let mut note: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("read")).expect("JSON");
    let mut epoch = note["epochs"][0].clone();
    epoch["parent"] = epoch["uuid"].clone();
    epoch["uuid"] = noted.into();
    epoch["timeline"] = 2.into();
    epoch["begin_lsn"] = "F/0".into();
    note["epochs"].as_array_mut().expect("epochs").push(epoch);
    note["intended"] = serde_json::Value::Null;
    fs::write(&path, note.to_string()).expect("write");
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.launch();
    let status = pair.bravo.wait_serving();
    let epochs = status["data"]["epochs"].as_array().expect("epochs");
    assert_eq!(epochs.len(), 2, "{epochs:?}");
    assert_ne!(epochs[1], noted);
}

/// The trigger file of the older container set, which PostgreSQL itself dropped in 16.
#[test]
fn a_trigger_file_means_failover() {
    let trigger = "  trigger_file: \"{dir}/trigger\"\n";
    let mut pair = Pair::with("", trigger).into_following();
    pair.kill_alpha();
    pair.bravo.wait_reason("waiting", "cannot be reached");
    fs::write(pair.bravo.path("trigger"), "").expect("write");
    let status = pair.bravo.wait_serving();
    assert_eq!(status["desired"]["role"], "failover");
}

/// What would hang a promotion, or make the first start after it fail: both signal files (POSTGRES-FACTS 3), a replay
/// that somebody paused, and an inherited `synchronous_standby_names` (10).
#[test]
fn what_stands_in_the_way_of_a_promotion_is_removed() {
    let mut pair = pair_with_rows();
    pair.bravo.sql("select pg_wal_replay_pause()");
    pair.bravo.wait_reason("waiting", "paused the replay");
    pair.alpha.sql("insert into riders values (2)");
    eventually("received", || {
        pair.bravo
            .sql("select pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
            == "t"
    });
    pair.bravo
        .sql("alter system set synchronous_standby_names = 'somebody'");
    let stray = pair.bravo.data().join("recovery.signal");
    fs::write(&stray, "").expect("write");
    common::give(&stray);
    pair.bravo.wait_log("moved aside");
    fs::write(&stray, "").expect("write");
    common::give(&stray);
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
    assert_eq!(pair.bravo.sql("select count(*) from riders"), "2");
    assert!(!stray.exists());
    pair.bravo.sql("insert into riders values (3)");
    // It starts again as what it is.
    pair.bravo.stop();
    pair.bravo.start();
    pair.bravo.wait_serving();
}

/// kill -9 of the daemon in the middle of a promotion: the next one brings it to its end, under the same name. Wherever the
/// kill falls, the history tells of the new epoch: it was once recorded only by the daemon that had asked for the promotion,
/// after the server had answered, so that a kill in between left no line.
#[test]
fn a_promotion_is_ended_by_the_next_daemon() {
    let mut pair = pair_with_rows();
    pair.kill_alpha();
    pair.bravo.wait_reason("waiting", "cannot be reached");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_log("doing: promote the server");
    pair.bravo.kill_daemon();
    pair.bravo.launch();
    let status = pair.bravo.wait_serving();
    let epochs = status["data"]["epochs"].as_array().expect("epochs").clone();
    assert_eq!(epochs.len(), 2);
    let history = fs::read_to_string(pair.bravo.path("home/history.jsonl")).expect("history");
    assert!(history.contains(epochs[1].as_str().expect("name")), "{history}");
}

/// A promotion cannot be taken back. While the server is at it (a slow laptop has much to replay), a new daemon and a file
/// that says `standby` again must go on announcing it: the old primary would otherwise start, and both would write.
#[test]
fn a_promotion_under_way_stays_announced() {
    let mut pair = pair_with_rows();
    pair.kill_alpha();
    pair.bravo.wait_reason("waiting", "cannot be reached");
    let startup = common::child_called(&pair.bravo.data(), "startup");
    let signal =
        |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(startup), signal).expect("signal");
    signal(Signal::SIGSTOP);
    pair.declare_bravo("failover", "");
    pair.bravo.wait_log("doing: promote the server");
    eventually("told to", || pair.bravo.data().join("promote").exists());
    pair.bravo.kill_daemon();
    pair.declare_bravo("standby", "");
    pair.bravo.launch();
    pair.bravo.wait_reason("waiting", "is being promoted");
    pair.alpha.launch();
    pair.alpha.wait("it gives way", |status| {
        status["peer"]["flag"] == "taking" && status["server"]["state"] == "down"
    });
    signal(Signal::SIGCONT);
    pair.bravo.wait_log("action=\"name_epoch\"");
    // Alpha comes back as a follower, and then bravo, which is declared standby, hands over to it.
    let status = pair.alpha.wait_serving();
    assert_eq!(status["data"]["timeline"], 3);
    pair.bravo.wait_streaming();
}

/// kill -9 of the daemon in the middle of a copy: no tool is left behind, nothing half-made is trusted.
#[test]
fn a_copy_that_was_interrupted_is_made_again() {
    let mut pair = Pair::new();
    pair.alpha.start();
    pair.bravo.launch();
    pair.alpha.wait_serving();
    pair.bravo.wait_log("doing: copy the database");
    pair.bravo.kill_daemon();
    let data = pair.bravo.path("home/data");
    eventually("the tool is gone", || {
        !fs::read_dir("/proc").expect("/proc").flatten().any(|entry| {
            fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| {
                line.contains("pg_basebackup") && line.contains(&data.display().to_string())
            })
        })
    });
    pair.bravo.launch();
    pair.bravo.wait_streaming();
}
