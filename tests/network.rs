//! Two laptops in networks of their own: power that fails, cables that are pulled, answers that get lost, addresses that
//! change. What on one loopback address always answers at once, or refuses at once, here says nothing at all.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use common::net::Network;
use common::pair::Pair;
use common::{Laptop, text};
use serde_json::Value;

const APP: &str = "racedb: { command: [sleep, \"100000\"] }\n";

fn has_row(laptop: &Laptop, bib: u32) {
    laptop.wait_sql(&format!("select count(*) from riders where bib = {bib}"), "1");
}

fn riders(laptop: &Laptop) -> String {
    laptop.sql("select string_agg(bib::text, ' ' order by bib) from riders")
}

/// A pair with a table and one row in it on both.
fn pair_with_rows(network: &Network, more: &str) -> Pair {
    let pair = network.pair(more, more).into_following();
    pair.alpha.wait_serving();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    has_row(&pair.bravo, 1);
    pair
}

/// Which copy lies there: a new one has another inode.
fn copy(laptop: &Laptop) -> u64 {
    fs::metadata(laptop.data()).expect("a copy").ino()
}

fn cannot_be_reached(laptop: &Laptop) -> String {
    laptop.wait_reason("waiting", "cannot be reached").1
}

/// Sees the other laptop, which is written to and has not the newest history any more, or has it.
fn sees_writable(status: &Value) -> bool {
    status["peer"]["reachable"] == true && status["peer"]["server"] == "writable"
}

/// Waits until a laptop that the other one superseded has given way and follows, and checks the order in which it did.
fn gives_way(laptop: &Laptop, from: usize) {
    // Promise 2, in every document that is published: whoever sees its successor has closed its gate.
    laptop.wait("it gives way", |status| {
        assert!(
            !(sees_writable(status) && status["gate"]["state"] == "open"),
            "two open gates: {status:#}"
        );
        status["server"]["streaming"] == true
    });
    let log = laptop.log();
    let news = &log[from..];
    let place = |words: &str| {
        news.find(words)
            .unwrap_or_else(|| panic!("no {words:?}:\n{news}"))
    };
    let closed = place("gate=\"closed\" reason=\"the other laptop took over\"");
    assert!(closed < place("application stopped"), "{news}");
    assert!(
        place("application stopped") < place("doing: stop the server"),
        "{news}"
    );
    assert!(!news.contains("gate=\"open\""), "{news}");
    assert_eq!(laptop.sql("select pg_is_in_recovery()"), "t");
}

/// The generator stops, and with it alpha. On one machine the dead server's kernel still says good-bye to everybody;
/// here nothing comes, and bravo's server goes on waiting for the next line of a stream that nobody sends any more.
#[test]
fn a_power_cut_of_the_primary() {
    let network = network!();
    let mut pair = pair_with_rows(&network, APP);
    network.power_cut(&mut pair.alpha);
    let hint = cannot_be_reached(&pair.bravo);
    assert!(hint.contains("role: failover"), "{hint}");
    pair.declare_bravo("failover", APP);
    let status = pair.bravo.wait_serving();
    assert_eq!(status["data"]["timeline"], 2);
    pair.bravo.sql("insert into riders values (2)");
    assert_eq!(riders(&pair.bravo), "1 2");

    // It comes back with the cable still out, so it cannot see who took over: it must not start.
    network.power_on(&pair.alpha);
    network.cut(&network.alpha);
    pair.alpha.launch();
    let (_, hint) = pair.alpha.wait_reason("blocked", "did not shut down cleanly");
    assert!(hint.contains("switch the other laptop on"), "{hint}");
    network.heal();
    pair.alpha
        .wait("it follows", |status| status["server"]["streaming"] == true);
    assert_eq!(riders(&pair.alpha), "1 2");
}

/// Both laptops lose their power, as in a tent whose generator stops. Nobody took over meanwhile, so everything goes on
/// as before; but only after the two have seen each other.
#[test]
fn a_power_cut_of_both() {
    let network = network!();
    let mut pair = pair_with_rows(&network, APP);
    let before = copy(&pair.bravo);
    network.power_cut(&mut pair.bravo);
    pair.alpha.sql("insert into riders values (2)");
    network.power_cut(&mut pair.alpha);

    network.power_on(&pair.alpha);
    pair.alpha.launch();
    pair.alpha.wait_reason("blocked", "did not shut down cleanly");
    network.power_on(&pair.bravo);
    pair.bravo.launch();
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 2);
    assert_eq!(copy(&pair.bravo), before);
}

/// Somebody pulls bravo's cable, takes bravo for the laptop that is left, and writes `failover` there. Nothing can stop
/// alpha from serving on alone: that is the limit of promise 2, and why a failover is a person's decision. From the
/// moment on in which they see each other only one of them serves, and what alpha took in alone is kept.
#[test]
fn a_cut_with_both_alive_and_what_follows() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    network.cut(&network.bravo);
    cannot_be_reached(&pair.bravo);
    pair.declare_bravo("failover", APP);
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    pair.alpha.wait_log("the other laptop does not answer");
    pair.alpha.sql("insert into riders values (3)");
    assert_eq!(pair.alpha.wait_serving()["gate"]["state"], "open");
    let at = |laptop| network.station.get(laptop, "/gate").map(|(code, _)| code);
    assert_eq!(at(&pair.alpha), Some(200));

    let (alpha, bravo) = (pair.alpha.log().len(), pair.bravo.log().len());
    network.heal();
    gives_way(&pair.alpha, alpha);
    let kept = text(&pair.alpha.run(&["set-aside"]).stdout);
    assert!(kept.contains("1 transaction that only this copy has"), "{kept}");
    // Bravo saw alpha writing, and went on all the same: its history is the newer one.
    pair.bravo.wait("alpha follows", |status| {
        assert_eq!(status["gate"]["state"], "open", "{status:#}");
        status["peer"]["reachable"] == true && status["peer"]["server"] == "read_only"
    });
    assert!(!pair.bravo.log()[bravo..].contains("gate=\"closed\""));
    assert_eq!(riders(&pair.bravo), "1 2");
    assert_eq!(
        (at(&pair.alpha), at(&pair.bravo)),
        (Some(503), Some(200)),
        "what the finish line sees"
    );
}

/// An access point that keeps its clients apart: the stations reach both laptops, and these do not see each other. It
/// looks like a dead laptop to the two, and like two laptops that serve to everybody else.
#[test]
fn laptops_that_are_kept_apart() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    network.keep_apart(&network.alpha, &network.bravo);
    cannot_be_reached(&pair.bravo);
    pair.declare_bravo("failover", APP);
    pair.bravo.wait_serving();
    let at = |laptop| network.station.get(laptop, "/gate").map(|(code, _)| code);
    assert_eq!((at(&pair.alpha), at(&pair.bravo)), (Some(200), Some(200)));
    let before = pair.alpha.log().len();
    network.heal();
    gives_way(&pair.alpha, before);
    assert_eq!((at(&pair.alpha), at(&pair.bravo)), (Some(503), Some(200)));
}

/// Packets get lost in one direction only: alpha hears every question of bravo, and its answers do not arrive. For both
/// that is silence, never half an answer; and the flag that bravo raises before it takes over cannot be repeated.
#[test]
fn what_alpha_says_is_lost() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    network.one_way(&network.alpha);
    cannot_be_reached(&pair.bravo);
    pair.alpha.wait_log("the other laptop does not answer");
    pair.declare_bravo("failover", APP);
    pair.bravo.wait_serving();
    assert_eq!(pair.alpha.wait_serving()["gate"]["state"], "open");
    let before = pair.alpha.log().len();
    network.heal();
    gives_way(&pair.alpha, before);
}

/// The same in the other direction: alpha still sends its stream, and nothing of what bravo says arrives. As long as the
/// file says `standby` nobody takes over, and everything goes on by itself afterwards.
#[test]
fn what_bravo_says_is_lost() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    let before = copy(&pair.bravo);
    network.one_way(&network.bravo);
    cannot_be_reached(&pair.bravo);
    pair.alpha.wait_log("the other laptop does not answer");
    pair.alpha.sql("insert into riders values (2)");
    assert_eq!(pair.alpha.wait_serving()["gate"]["state"], "open");
    network.heal();
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 2);
    assert_eq!(copy(&pair.bravo), before);
    assert!(
        !pair
            .alpha
            .log()
            .contains("gate=\"closed\" reason=\"the other laptop took over\"")
    );
}

/// A server that hangs (a dying disk, a laptop that swaps) is not gone: its daemon says so, and a standby that is
/// declared `failover` waits, with what to do. When the server goes on, it is as if nothing had been.
#[test]
fn a_frozen_server_is_not_gone() {
    let network = network!();
    let mut pair = pair_with_rows(&network, "");
    pair.alpha.freeze();
    pair.alpha.wait_reason("waiting", "does not answer");
    pair.declare_bravo("failover", "");
    let (reason, hint) = pair
        .bravo
        .wait_reason("waiting", "does not answer: it may be written to");
    assert!(hint.contains("switch it off"), "{reason} {hint}");
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    pair.alpha.thaw();
    pair.bravo.wait_reason("blocked", "alive");
    pair.declare_bravo("standby", "");
    pair.alpha.wait_serving();
    pair.bravo.wait_streaming();
    pair.alpha.sql("insert into riders values (2)");
    has_row(&pair.bravo, 2);

    // It hangs again, and somebody does what the hint says.
    pair.alpha.freeze();
    pair.alpha.wait_reason("waiting", "does not answer");
    pair.declare_bravo("failover", "");
    pair.bravo
        .wait_reason("waiting", "does not answer: it may be written to");
    network.power_cut(&mut pair.alpha);
    pair.bravo.wait_serving();
    assert_eq!(riders(&pair.bravo), "1 2");
}

/// Alpha's server hangs, the cable is out, bravo takes over, and the cable is put back. The application must stop at once,
/// although the server cannot be asked; and when the server goes on, it must not be written to any more.
#[test]
fn a_frozen_server_that_was_superseded() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    pair.alpha.freeze();
    pair.alpha.wait_reason("waiting", "does not answer");
    network.cut(&network.alpha);
    cannot_be_reached(&pair.bravo);
    pair.declare_bravo("failover", APP);
    pair.bravo.wait_serving();
    let before = pair.alpha.log().len();
    network.heal();
    pair.alpha.wait("the application is stopped", |status| {
        status["app"]["state"] == "stopped" && status["gate"]["reason"] == "the other laptop took over"
    });
    pair.alpha.thaw();
    gives_way(&pair.alpha, before);
}

/// The daemon dies while the cable is out, and server and application go on without it. Nobody can stop those two, but
/// nobody calls it harmless either; the next daemon looks before it opens anything.
#[test]
fn a_superseded_primary_without_its_daemon() {
    let network = network!();
    let mut pair = pair_with_rows(&network, APP);
    network.cut(&network.alpha);
    pair.alpha.kill_daemon();
    cannot_be_reached(&pair.bravo);
    pair.declare_bravo("failover", APP);
    pair.bravo.wait_serving();
    let before = pair.bravo.log().len();
    network.heal();
    pair.bravo
        .wait_log_after(before, "of the other laptop only PostgreSQL answers");
    let status = pair.bravo.wait("it is seen", sees_writable);
    assert_eq!(status["gate"]["state"], "open", "{status:#}");
    pair.alpha.launch();
    gives_way(&pair.alpha, 0);
}

/// DHCP gives bravo the address that alpha had: bravo's file now names bravo itself. Its own answer is not alpha's, and
/// alpha is not gone: nothing takes over, and the message says what to correct.
#[test]
fn the_standby_gets_the_address_of_the_primary() {
    let network = network!();
    let pair = pair_with_rows(&network, "");
    network.alpha.change_address(71);
    cannot_be_reached(&pair.bravo);
    network.bravo.change_address(1);
    let (_, hint) = pair.bravo.wait_reason("blocked", "is this very daemon");
    assert!(hint.contains("`peer`"), "{hint}");
    // The file of before: written by hand, since only this test knows the new addresses.
    let file = fs::read_to_string(pair.bravo.state_file()).expect("state file");
    pair.bravo
        .write_state(&file.replace("role: standby", "role: failover"));
    pair.bravo
        .wait("read", |status| status["desired"]["role"] == "failover");
    pair.bravo.wait_reason("blocked", "is this very daemon");
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    pair.declare_bravo("standby", "");
    pair.declare_alpha("primary", "");
    pair.alpha.sql("insert into riders values (2)");
    has_row(&pair.bravo, 2);
    pair.bravo.wait_streaming();
}

/// DHCP gives alpha another address. The crew corrects the one word in bravo's file; nothing is copied anew, and alpha
/// needs no edit at all.
#[test]
fn the_primary_gets_another_address() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    let before = copy(&pair.bravo);
    network.alpha.change_address(71);
    cannot_be_reached(&pair.bravo);
    pair.alpha.sql("insert into riders values (2)");
    pair.declare_bravo("standby", APP);
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 2);
    // The other way round: alpha looks for bravo where it was, and serves without it.
    network.bravo.change_address(72);
    pair.bravo.wait_streaming();
    pair.alpha.wait_log("the other laptop does not answer");
    pair.alpha.sql("insert into riders values (3)");
    has_row(&pair.bravo, 3);
    let from = pair.alpha.log().len();
    pair.declare_alpha("primary", APP);
    pair.alpha.wait_log_after(from, "the other laptop answers");
    pair.alpha.wait_serving();
    assert_eq!(copy(&pair.bravo), before);
    // Nobody at alpha's own stations noticed any of it.
    assert!(!pair.alpha.log().contains("application stopped"));
}

/// Somebody switches the router off and on. Each laptop is alone for longer than both ends of the stream wait; alpha
/// serves on, and afterwards bravo gets what it missed, without a person and without a new copy.
#[test]
fn the_router_is_switched_off_and_on() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    let before = copy(&pair.bravo);
    network.cut_all();
    cannot_be_reached(&pair.bravo);
    pair.alpha.wait_log("the other laptop does not answer");
    pair.bravo
        .wait("the stream ends", |status| status["server"]["streaming"] == false);
    pair.alpha
        .wait_sql("select count(*) from pg_stat_replication", "0");
    pair.alpha.sql("insert into riders values (2)");
    assert_eq!(pair.alpha.wait_serving()["gate"]["state"], "open");
    network.heal();
    pair.bravo.wait_streaming();
    has_row(&pair.bravo, 2);
    assert_eq!(copy(&pair.bravo), before);
    // It was open all the time.
    assert_eq!(pair.alpha.log().matches("gate=\"open\"").count(), 1);
}

/// A packet filter in front of alpha's daemon, and PostgreSQL answers. A laptop whose daemon is silent is not gone:
/// its server's own word says that it is written to.
#[test]
fn a_filter_in_front_of_the_daemon() {
    let network = network!();
    let pair = pair_with_rows(&network, "");
    network.alpha.close_port(pair.alpha.api);
    pair.bravo.wait_log("of the other laptop only PostgreSQL answers");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_reason("blocked", "alive");
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    pair.declare_bravo("standby", "");
    pair.alpha.sql("insert into riders values (2)");
    has_row(&pair.bravo, 2);
    network.heal();
    pair.bravo.wait_streaming();
}

/// The cable is pulled in the middle of the first copy, on a Wi-Fi so slow that it is surely under way. The tool gives up
/// by itself, nothing half-made is taken for a copy, and it is made again when the cable is back.
#[test]
fn a_copy_is_cut_off() {
    let network = network!();
    let mut pair = network.pair("", "");
    pair.alpha.start();
    network.narrow(&network.bravo, "16mbit", 400);
    pair.bravo.launch();
    pair.alpha.wait_serving();
    pair.bravo.wait_log("doing: copy the database");
    common::eventually("it arrives", || {
        fs::read_dir(pair.bravo.path("home")).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.path().join("base").exists() && entry.path() != pair.bravo.data())
        })
    });
    network.cut(&network.alpha);
    let from = pair.bravo.log().len();
    let log = pair.bravo.wait_log_after(from, "cannot be reached");
    assert!(!log.contains("is in its place"), "{log}");
    assert!(!pair.bravo.data().join("global/pg_control").exists());
    network.heal();
    pair.bravo.wait_streaming();
}

/// Everybody's entries of the morning go through a narrow Wi-Fi to a standby that has to catch up, and somebody writes
/// `failover` meanwhile. A primary that is busy sending is not a dead one.
#[test]
fn a_narrow_network_is_no_silent_one() {
    let network = network!();
    let pair = pair_with_rows(&network, "");
    let from = pair.bravo.log().len();
    network.narrow(&network.bravo, "8mbit", 400);
    // Some 7 MB, which take that many seconds: longer than silence takes to be believed.
    pair.alpha
        .sql("insert into riders select generate_series(1000, 101000); insert into riders values (2)");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_reason("blocked", "alive");
    has_row(&pair.bravo, 2);
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    let log = pair.bravo.log();
    assert!(!log[from..].contains("does not answer"), "{log}");
}

/// A Wi-Fi on which every packet is late by a good part of what the laptops wait for an answer. Late is not silent:
/// the standby follows, and does not take over.
#[test]
fn a_late_network_is_no_silent_one() {
    let network = network!();
    for host in [&network.alpha, &network.bravo] {
        if let Err(why) = host.delay(100) {
            skip!("{why}");
        }
    }
    let pair = pair_with_rows(&network, "");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_reason("blocked", "alive");
    pair.alpha.sql("insert into riders values (2)");
    has_row(&pair.bravo, 2);
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
}

/// The two change places over the network; at no moment do both let the application run.
#[test]
fn a_handover_over_the_network() {
    let network = network!();
    let pair = pair_with_rows(&network, APP);
    let (alpha, bravo) = (pair.alpha.log().len(), pair.bravo.log().len());
    pair.declare_alpha("standby", APP);
    pair.alpha.wait_reason("waiting", "no successor yet");
    pair.declare_bravo("primary", APP);
    pair.bravo.wait_serving();
    pair.alpha.wait_streaming();
    let time = |log: &str, words: &str| {
        let line = log.lines().find(|line| line.contains(words));
        line.and_then(|line| line.split_whitespace().next())
            .unwrap_or_else(|| panic!("no {words:?}:\n{log}"))
            .to_owned()
    };
    // Both read one clock here.
    let stopped = time(&pair.alpha.log()[alpha..], "application stopped");
    let started = time(&pair.bravo.log()[bravo..], "application started");
    assert!(stopped < started, "{stopped} {started}");
    let at = |laptop| network.station.get(laptop, "/gate").map(|(code, _)| code);
    assert_eq!((at(&pair.alpha), at(&pair.bravo)), (Some(503), Some(200)));
}

/// The cable is pulled in the middle of a handover: whoever is left serves or says what to write, and when the two see each
/// other again the handover comes to its end.
#[test]
fn a_handover_is_cut_off() {
    let network = network!();
    for step in ["fast_shutdown", "place_standby_signal"] {
        let pair = pair_with_rows(&network, "");
        pair.declare_bravo("primary", "");
        pair.bravo.wait_reason("waiting", "serves; this one follows it");
        pair.alpha.sql("insert into riders values (2)");
        let before = pair.alpha.log().len();
        pair.declare_alpha("standby", "");
        pair.alpha
            .wait_log_after(before, &format!("action=\"{step}\" reason"));
        network.cut(&network.alpha);
        pair.alpha
            .wait("cut off", |status| status["peer"]["reachable"] == false);
        network.heal();
        pair.bravo.wait_serving();
        pair.alpha.wait_streaming();
        assert_eq!(riders(&pair.bravo), "1 2", "{step}");
    }
}
