//! A standby that follows: over restarts of either side, changed addresses and passwords, and WAL that is gone.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use common::Laptop;
use common::pair::{Pair, secret};

/// Which copy lies there: a new one has another inode.
fn copy(laptop: &Laptop) -> u64 {
    fs::metadata(laptop.data()).expect("a copy").ino()
}

fn has_row(laptop: &Laptop, bib: u32) {
    laptop.wait_sql(&format!("select count(*) from riders where bib = {bib}"), "1");
}

/// The scripts that Paceline replaces copied everything at every start, and had wiped the old copy before
/// (POSTGRES-FACTS, "what came before").
#[test]
fn a_restart_copies_nothing() {
    let mut pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    has_row(&pair.bravo, 1);
    let before = copy(&pair.bravo);
    pair.bravo.stop();
    pair.alpha.sql("insert into riders values (2)");
    pair.bravo.start();
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 2);
    // A crash of everything on the standby, too.
    pair.bravo.kill_daemon();
    common::crash_server(&pair.bravo.data());
    pair.alpha.sql("insert into riders values (3)");
    pair.bravo.start();
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 3);
    assert_eq!(copy(&pair.bravo), before);
    assert!(!pair.bravo.log().contains("action=\"clone\""));
}

#[test]
fn a_primary_that_went_away_is_followed_again() {
    let mut pair = Pair::following();
    pair.alpha.sql("create table riders (bib int)");
    pair.alpha.stop();
    let (_, hint) = pair.bravo.wait_reason("waiting", "cannot be reached");
    assert!(hint.contains("role: failover"), "{hint}");
    pair.alpha.start();
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
    pair.alpha.sql("insert into riders values (4)");
    has_row(&pair.bravo, 4);
}

#[test]
fn a_new_address_or_password_needs_no_new_copy() {
    let mut pair = Pair::following();
    pair.alpha.sql("create table riders (bib int)");
    let before = copy(&pair.bravo);

    // Another port is another address.
    pair.alpha.stop();
    pair.alpha.port = common::port();
    pair.declare_alpha("primary", "");
    pair.alpha.start();
    pair.alpha.wait_serving();
    pair.declare_bravo("standby", "");
    pair.alpha.sql("insert into riders values (5)");
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 5);

    // Another password, first on one, then on the other. Alpha's role gets it at the next thorough look.
    secret(&pair.alpha.path("home"), "another password");
    pair.alpha
        .wait_log("doing: prepare for the other laptop: role and slots");
    pair.bravo.wait_log("not with our replication secret");
    secret(&pair.bravo.path("home"), "another password");
    pair.bravo.wait_streaming();
    pair.alpha
        .sql("select pg_terminate_backend(pid) from pg_stat_replication; insert into riders values (6)");
    has_row(&pair.bravo, 6);
    assert_eq!(copy(&pair.bravo), before);
}

/// A standby that was away for longer than its slot holds WAL back: an endless error in the log of others (patroni
/// #3641), a new copy here. The old one is set aside.
#[test]
fn a_standby_whose_wal_is_gone_is_copied_anew() {
    let keep_nothing = "  settings: { wal_keep_size: 0 }\n";
    let mut pair = Pair::with(keep_nothing, "").into_following();
    pair.alpha.sql("create table riders (bib int)");
    pair.bravo.stop();
    let before = copy(&pair.bravo);
    pair.alpha
        .sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    for _ in 0..5 {
        pair.alpha.sql("insert into riders values (7)");
        pair.alpha.sql("select pg_switch_wal()");
        pair.alpha.sql("checkpoint");
    }
    pair.bravo.start();
    pair.bravo
        .wait_log("what it needs next is not on the other laptop any more");
    pair.bravo.wait_streaming();
    pair.bravo.wait_sql("select count(*) from riders", "5");
    let aside: Vec<u64> = fs::read_dir(pair.bravo.path("home"))
        .expect("home")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("data.set-aside-"))
        .map(|entry| entry.metadata().expect("metadata").ino())
        .collect();
    assert!(aside.contains(&before), "the old copy is kept");
}

/// POSTGRES-FACTS 9: a standby with lower values does not start, or stops replaying, and its promotion shuts it down.
#[test]
fn parameters_of_the_primary_are_kept_up_with() {
    let mut pair = Pair::following();
    pair.alpha.sql("create table riders (bib int)");
    pair.alpha.stop();
    pair.declare_alpha("primary", "  settings: { max_connections: 150 }\n");
    pair.alpha.start();
    pair.alpha.wait_serving();
    pair.alpha.sql("insert into riders values (8)");
    has_row(&pair.bravo, 8);
    pair.bravo.wait_streaming();
    pair.bravo.wait_sql("show max_connections", "150");
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
}

/// A wrong password is one clear message, nothing is touched, and the right one makes it go on by itself.
#[test]
fn another_secret_is_said_in_plain_words() {
    let mut pair = Pair::new();
    secret(&pair.bravo.path("home"), "not the same");
    pair.alpha.launch();
    pair.bravo.launch();
    let (_, hint) = pair
        .bravo
        .wait_reason("blocked", "not with our replication secret");
    assert!(hint.contains("paceline join"), "{hint}");
    assert!(!pair.bravo.data().exists());
    secret(&pair.bravo.path("home"), common::pair::SECRET);
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
}
