//! Two laptops on real servers: copy, follow, take over, and what a returning primary must not do.

mod common;

use common::pair::Pair;

#[test]
fn two_new_laptops_become_a_pair() {
    let pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (7)");
    pair.bravo.wait_sql("select bib from riders", "7");
    assert_eq!(
        pair.bravo.wait_gate("closed")["gate"]["reason"],
        "this laptop is declared standby"
    );
    let slots = pair
        .alpha
        .sql("select count(*) from pg_replication_slots where active and slot_name like 'paceline_bravo_%'");
    assert_eq!(slots, "1");
}

#[test]
fn a_standby_takes_over_when_its_file_says_so() {
    let mut pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (7)");
    pair.bravo.wait_sql("select count(*) from riders", "1");
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    let status = pair.bravo.wait_serving();
    assert_eq!(status["data"]["timeline"], 2);
    assert_eq!(status["data"]["epochs"].as_array().expect("epochs").len(), 2);
    assert_eq!(pair.bravo.sql("select bib from riders"), "7");
    assert_eq!(pair.bravo.sql("select count(*) from paceline.epoch"), "2");

    // The old primary comes back, declared what it was. It follows; how is told in `rejoin`.
    pair.alpha.launch();
    let (_, hint) = pair
        .alpha
        .wait_reason("waiting", "the other laptop serves; this one follows it");
    assert!(hint.contains("write `standby` on the other laptop"), "{hint}");
    assert_eq!(pair.alpha.sql("select pg_is_in_recovery()"), "t");
}
