//! Both laptops were promoted apart from each other. PostgreSQL cannot tell that: the timelines have the same number and
//! identical history files, pg_rewind finds nothing to do, and one would stream from the other with other rows in it
//! (POSTGRES-FACTS 2). Here nothing is touched until a person has chosen.

mod common;

use std::fs;

use common::pair::Pair;

/// Alpha bound itself in a handover, bravo vanished before it took over; each was then told, alone, that the other one is
/// gone. Bravo writes, alpha is off.
fn twins() -> Pair {
    let mut pair = Pair::abandoned(|_| {});
    pair.alpha.wait_reason("blocked", "handed its copy over");
    pair.declare_alpha("failover", "");
    pair.alpha.wait_serving();
    pair.alpha.sql("insert into riders values (100)");
    pair.alpha.stop();
    pair.declare_bravo("failover", "");
    pair.bravo.start();
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (200)");
    pair
}

#[test]
fn a_person_chooses_the_copy_to_give_up() {
    let mut pair = twins();
    pair.alpha.start();
    let (_, hint) = pair.alpha.wait_reason("blocked", "written to apart");
    assert!(
        hint.contains("write `standby` on the laptop whose copy is to go"),
        "{hint}"
    );
    pair.bravo.wait_reason("blocked", "written to apart");
    // What serves goes on serving, and what does not is not started.
    assert_eq!(pair.bravo.wait_gate("open")["server"]["state"], "writable");
    assert_eq!(pair.alpha.postmaster(), None);
    let timelines = [&pair.alpha, &pair.bravo].map(|laptop| {
        laptop.wait("timeline", |status| status["data"]["timeline"].is_number())["data"]["timeline"].clone()
    });
    assert_eq!(timelines[0], timelines[1], "only the epochs tell them apart");

    pair.declare_alpha("standby", "");
    let status = pair
        .alpha
        .wait("an offer", |status| status["plan"]["consent"].is_string());
    let token = status["plan"]["consent"].as_str().expect("a token").to_owned();
    assert_eq!(pair.alpha.postmaster(), None);
    pair.declare_alpha("standby", &format!("consent: \"{token}\"\n"));
    pair.alpha.wait_streaming();
    pair.alpha.wait_sql(
        "select string_agg(bib::text, ',' order by bib) from riders",
        "1,200",
    );
    // Never by pg_rewind, which would have found nothing to do; and what alpha had is set aside.
    let log = pair.alpha.log();
    assert!(
        log.contains("action=\"clone\"") && !log.contains("action=\"rewind\""),
        "{log}"
    );
    let set_aside = fs::read_dir(pair.alpha.path("home")).expect("home").flatten();
    let mut set_aside = set_aside.filter(|entry| entry.file_name().to_string_lossy().contains("set-aside"));
    assert!(set_aside.any(|entry| entry.path().join("PG_VERSION").exists()));
    pair.bravo.wait_serving();
}

#[test]
fn a_person_chooses_the_copy_to_keep() {
    let mut pair = twins();
    pair.bravo.stop();
    pair.declare_bravo("standby", "");
    pair.declare_alpha("primary", "");
    pair.alpha.start();
    pair.bravo.start();
    pair.alpha.wait_reason("blocked", "written to apart");
    let status = pair
        .alpha
        .wait("an offer", |status| status["plan"]["consent"].is_string());
    let token = status["plan"]["consent"].as_str().expect("a token").to_owned();
    pair.declare_alpha("primary", &format!("consent: \"{token}\"\n"));
    // A new epoch that gives bravo's up: bravo's copy is an older one by that, and comes back by itself.
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
    pair.bravo.wait_sql(
        "select string_agg(bib::text, ',' order by bib) from riders",
        "1,100",
    );
}
