//! `durability: sync`: what is acknowledged is on both laptops, as long as both are there; and nobody waits for one that is
//! not.

mod common;

use common::Laptop;
use common::crash_server;
use common::pair::Pair;

const SYNC: &str = "replication: { durability: sync }\n";

/// A commit means this.
fn means(laptop: &Laptop, word: &str) {
    laptop.wait(word, |status| status["server"]["durability"] == word);
}

/// A pair with a table, whose commits wait for bravo.
fn pair() -> Pair {
    let pair = Pair::with(SYNC, SYNC).into_following();
    means(&pair.alpha, "sync");
    let seen = pair
        .alpha
        .sql("select application_name || ' ' || sync_state from pg_stat_replication");
    assert_eq!(seen, "bravo sync");
    pair.alpha.sql("create table riders (bib int)");
    pair
}

/// The power of the primary goes in the moment after the last acknowledgement. (Asynchronous replication loses what is on
/// its way then.) And the laptop that takes over does not inherit the waiting: it would hang at its first commit
/// (POSTGRES-FACTS 10).
#[test]
fn what_was_acknowledged_is_on_both() {
    let mut pair = pair();
    for bib in 1..=50 {
        pair.alpha.sql(&format!("insert into riders values ({bib})"));
    }
    pair.kill_alpha();
    pair.bravo.wait_reason("waiting", "cannot be reached");
    pair.declare_bravo("failover", SYNC);
    pair.bravo.wait_serving();
    means(&pair.bravo, "degraded");
    assert_eq!(pair.bravo.sql("select count(*) from riders"), "50");
    pair.bravo.sql("insert into riders values (51)");
    // The dead one comes back as a follower, and is waited for again.
    pair.alpha.launch();
    pair.alpha
        .wait("it follows", |status| status["server"]["streaming"] == true);
    means(&pair.bravo, "sync");
}

/// A standby that vanishes keeps the commits of its primary waiting only until that is seen; and is waited for again when
/// it is level again.
#[test]
fn a_standby_that_vanishes_holds_nobody_up() {
    let mut pair = pair();
    pair.bravo.kill_daemon();
    crash_server(&pair.bravo.data());
    // This may wait for a moment, and must return.
    pair.alpha.sql("insert into riders values (1)");
    means(&pair.alpha, "degraded");
    let shown = pair.alpha.run(&["status"]);
    assert!(
        common::text(&shown.stdout).contains("DEGRADED"),
        "{}",
        common::text(&shown.stdout)
    );
    let told = pair.alpha.run(&["history"]);
    assert!(
        common::text(&told.stdout).contains("a commit does not wait for it any more"),
        "{}",
        common::text(&told.stdout)
    );
    pair.bravo.launch();
    pair.bravo.wait_streaming();
    means(&pair.alpha, "sync");
    // Declared otherwise, nobody waits any more.
    pair.declare_alpha("primary", "");
    means(&pair.alpha, "async");
}

/// A handover between two laptops that wait for each other ends like any other.
#[test]
fn a_handover_does_not_wait() {
    let pair = pair();
    pair.alpha.sql("insert into riders values (1)");
    pair.declare_bravo("primary", SYNC);
    pair.declare_alpha("standby", SYNC);
    pair.bravo.wait_serving();
    pair.alpha.wait_streaming();
    means(&pair.bravo, "sync");
    pair.bravo.sql("insert into riders values (2)");
    pair.alpha.wait_sql("select count(*) from riders", "2");
}
