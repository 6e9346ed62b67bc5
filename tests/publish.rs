//! Publish, then look: two daemons that decide at the same instant never both become writable, whoever is heard first.
//!
//! repmgr #801: the standby booted first after a power cut and was promoted while the primary came up. Two fresh looks do
//! not exclude each other's act. Here each order is forced by stopping one daemon in its tracks while the other decides.

mod common;

use common::Laptop;
use common::pair::Pair;
use nix::sys::signal::Signal;

const PAUSED: &str = "paused: true\n";

/// Alpha's server is down, its daemon looks on; bravo follows nobody. Both hold the same.
fn resting() -> Pair {
    let mut pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    pair.bravo.wait_sql("select count(*) from riders", "1");
    pair.alpha.stop();
    pair.declare_alpha("primary", PAUSED);
    pair.alpha.start();
    pair.alpha.wait_reason("waiting", "paused");
    pair.bravo.wait("alpha answers again", |status| {
        status["peer"]["reachable"] == true
    });
    pair
}

fn writes(laptop: &Laptop) -> bool {
    laptop.try_sql("select pg_is_in_recovery()").as_deref() == Some("f")
}

/// One writes, the other one follows it, and there is one history.
fn one_history(writer: &Laptop, follower: &Laptop, epochs: &str) {
    writer.wait_gate("open");
    writer.sql("insert into riders values (2)");
    follower.wait("streaming", |status| status["server"]["streaming"] == true);
    follower.wait_sql("select count(*) from riders", "2");
    assert!(!writes(follower));
    assert_eq!(writer.sql("select count(*) from paceline.epoch"), epochs);
}

#[test]
fn the_start_is_first_and_the_promotion_sees_it() {
    let pair = resting();
    pair.bravo.signal(Signal::SIGSTOP);
    pair.declare_bravo("failover", "");
    pair.declare_alpha("primary", "");
    pair.alpha.wait_log("action=\"start_server\"");
    pair.alpha.wait_gate("open");
    // What bravo knew of alpha is old by now, and must not let it promote.
    pair.bravo.signal(Signal::SIGCONT);
    pair.bravo.wait_reason("blocked", "alive");
    one_history(&pair.alpha, &pair.bravo, "1");
}

#[test]
fn the_promotion_is_first_and_the_start_sees_it() {
    let pair = resting();
    pair.alpha.signal(Signal::SIGSTOP);
    pair.declare_alpha("primary", "");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_log("action=\"promote\"");
    pair.bravo.wait_gate("open");
    pair.alpha.signal(Signal::SIGCONT);
    one_history(&pair.bravo, &pair.alpha, "2");
    assert!(
        !pair.alpha.log().contains("gate=\"open\""),
        "{}",
        pair.alpha.log()
    );
}

/// Nobody is held back: both files are saved at once, several times.
#[test]
fn both_at_once_is_one_of_the_two() {
    for _ in 0..3 {
        let pair = resting();
        pair.declare_alpha("primary", "");
        pair.declare_bravo("failover", "");
        common::eventually("one of them writes", || {
            writes(&pair.alpha) || writes(&pair.bravo)
        });
        if writes(&pair.alpha) {
            one_history(&pair.alpha, &pair.bravo, "1");
        } else {
            one_history(&pair.bravo, &pair.alpha, "2");
        }
    }
}
