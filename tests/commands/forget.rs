//! `forget-peer`, beside real daemons.

use std::fs;

use super::common::pair::{Pair, secret};
use super::common::{Laptop, port, text};
use super::{ok, refused};

fn forgotten(laptop: &Laptop) -> usize {
    let entries = fs::read_dir(laptop.path("home")).expect("home").flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("peer.json.forgotten-")
        })
        .count()
}

/// As long as another laptop is written to, this one has to know of it, unless a person insists.
#[test]
fn a_laptop_that_is_written_to_is_not_forgotten() {
    let mut pair = Pair::following();
    refused(
        &pair.bravo.run(&["forget-peer"]),
        5,
        "still names another laptop (127.0.0.1)",
    );
    let alone = Laptop::primary_yaml("")
        .replace("role: primary", "role: standby")
        .replace("node: alpha", "node: bravo");
    pair.bravo.write_state(&alone);
    refused(
        &pair.bravo.run(&["forget-peer"]),
        5,
        "alpha answers, and its database is written to; nothing was forgotten",
    );
    assert_eq!(forgotten(&pair.bravo), 0);
    // It is still asked.
    pair.bravo
        .wait("asked all the same", |status| status["peer"]["declared"] == true);
    let said = ok(&pair.bravo.run(&["forget-peer", "--force"]));
    assert!(said.contains("the daemon knows it"), "{said}");
    assert!(forgotten(&pair.bravo) >= 1);
    assert!(!pair.bravo.path("home/peer.json").exists());
    let (_, status) = pair.bravo.get("/v1/status").expect("an answer");
    assert!(status.contains("\"declared\":false"), "{status}");
    assert!(ok(&pair.bravo.run(&["forget-peer"])).contains("no other laptop is remembered"),);
    pair.alpha.stop();
}

/// A memory that cannot be read keeps a laptop from acting, since it may say anything; moving it aside is the way out, and
/// the daemon notices without being told.
#[test]
fn a_damaged_memory_is_ended_too() {
    let mut laptop = Laptop::primary("");
    fs::create_dir_all(laptop.path("home")).expect("home");
    fs::write(laptop.path("home/peer.json"), "rubbish").expect("write");
    laptop.start();
    let (reason, _) = laptop.wait_reason("blocked", "peer.json");
    assert!(reason.contains("forget-peer"), "{reason}");
    let said = ok(&laptop.run(&["forget-peer"]));
    assert!(said.contains("the daemon knows it"), "{said}");
    laptop.wait_serving();
    let kept = fs::read_dir(laptop.path("home")).expect("home").flatten();
    let kept: Vec<String> = kept
        .filter(|entry| entry.file_name().to_string_lossy().contains("forgotten"))
        .map(|entry| fs::read_to_string(entry.path()).expect("read"))
        .collect();
    assert_eq!(kept, ["rubbish"]);
}

/// Without a daemon nobody has to notice; a laptop that is off is no obstacle.
#[test]
fn one_that_is_off_is_forgotten() {
    let laptop = Laptop::primary("");
    secret(&laptop.path("home"), "a secret");
    let said = ok(&laptop.run(&["forget-peer"]));
    assert!(said.starts_with("no other laptop is remembered in "), "{said}");
    let memory = format!(
        "{{\"format\":1,\"address\":{{\"host\":\"127.0.0.1\",\"port\":{},\"api_port\":{}}},\"node\":\"bravo\",\
         \"role\":\"primary\",\"data\":\"primary\",\"writable\":true,\"lineage\":null,\"flag\":null,\"seen\":\"2026\"}}",
        port(),
        port()
    );
    fs::write(laptop.path("home/peer.json"), &memory).expect("write");
    let output = laptop.run(&["forget-peer"]);
    let said = ok(&output);
    assert!(
        said.contains("is forgotten; what was known of it is in "),
        "{said}"
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(forgotten(&laptop), 1);
}
