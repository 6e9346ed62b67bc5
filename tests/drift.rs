//! Drift and loss around a database of Paceline's own: its note beside the data directory, its settings, its epochs. Real
//! daemon, real server.

mod common;

use std::fs;

use common::{Laptop, crash_server, eventually, stop_server, text};

/// `ALTER SYSTEM` writes postgresql.auto.conf, which beats every other file (POSTGRES-FACTS 20). Under a running server
/// that is drift: `fsync = off` must not stay until somebody restarts.
#[test]
fn alter_system_under_a_running_server_is_put_right() {
    let laptop = Laptop::primary("  settings: { work_mem: 5MB }\n").started();
    laptop.wait_serving();
    for (name, value, right) in [("fsync", "off", "on"), ("work_mem", "12MB", "5MB")] {
        laptop.sql(&format!("alter system set {name} = '{value}'"));
        laptop.sql("select pg_reload_conf()");
        eventually(&format!("{name} put right"), || {
            laptop.sql(&format!("show {name}")) == right
        });
    }
    laptop.wait_serving();
}

/// The note beside a database of our own is lost: it comes back, nothing else changes, the application stays
/// connected.
#[test]
fn a_lost_sidecar_comes_back() {
    let mut laptop = Laptop::primary("  database: { name: racedb, owner: racedb }\n").started();
    let epochs = laptop.wait_serving()["data"]["epochs"].clone();
    let path = laptop.path("home/data.paceline.json");
    let read = || {
        (
            fs::read_to_string(laptop.path("home/conf/pg_hba.conf")),
            laptop.postmaster(),
        )
    };
    let before = read();
    fs::remove_file(&path).expect("remove");
    eventually("the sidecar", || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains(epochs[0].as_str().expect("uuid")))
    });
    assert_eq!(laptop.wait_serving()["data"]["epochs"], epochs);
    assert_eq!(format!("{:?}", read()), format!("{before:?}"));

    assert!(laptop.stop().success());
    fs::remove_file(&path).expect("remove");
    laptop.start();
    assert_eq!(laptop.wait_serving()["data"]["epochs"], epochs);
    assert_eq!(laptop.sql("select count(*) from paceline.epoch"), "1");
    let hba = fs::read_to_string(laptop.path("home/conf/pg_hba.conf"));
    assert_eq!(format!("{hba:?}"), format!("{:?}", before.0));
}

/// A note that cannot be understood is never taken for none: a newer version wrote it, or a disk lost it.
#[test]
fn a_damaged_sidecar_is_not_overwritten() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let path = laptop.path("home/data.paceline.json");
    let good = fs::read_to_string(&path).expect("sidecar");
    let newer = good.replace("\"format\": 1", "\"format\": 99");
    assert_ne!(newer, good);
    for (bad, words) in [
        ("rubbish", "is damaged; move it away"),
        (newer.as_str(), "newer Paceline"),
    ] {
        // Under a running server: said, and the event goes on.
        fs::write(&path, bad).expect("write");
        laptop.wait_reason("blocked", words);
        assert_eq!(fs::read_to_string(&path).expect("sidecar"), bad);
        assert_eq!(laptop.get("/gate").map(|(code, _)| code), Some(200));
        // With the server down: nothing is started.
        assert!(laptop.stop().success());
        let planned = laptop.run(&["plan"]);
        assert_eq!(planned.status.code(), Some(5), "{}", text(&planned.stdout));
        laptop.start();
        laptop.wait_reason("blocked", words);
        assert_eq!(laptop.postmaster(), None);
        assert_eq!(fs::read_to_string(&path).expect("sidecar"), bad);
        fs::write(&path, &good).expect("write");
        laptop.wait_serving();
    }
    // As the hint says.
    fs::write(&path, "rubbish").expect("write");
    laptop.wait_plan("blocked");
    fs::rename(&path, laptop.path("aside")).expect("rename");
    laptop.wait_serving();
    assert_eq!(laptop.sql("select count(*) from paceline.epoch"), "1");
}

/// An epoch is a stretch of history between promotions; a restart begins none.
#[test]
fn restarts_make_no_epoch() {
    let mut laptop = Laptop::primary("").started();
    let epochs = laptop.wait_serving()["data"]["epochs"].clone();
    for round in 0..4 {
        match round {
            0 => assert!(laptop.stop().success()),
            1 => laptop.kill_daemon(),
            2 => {
                laptop.kill_daemon();
                crash_server(&laptop.data());
            }
            _ => {
                stop_server(&laptop.data());
                laptop.kill_daemon();
            }
        }
        laptop.start();
        assert_eq!(laptop.wait_serving()["data"]["epochs"], epochs);
        assert_eq!(laptop.sql("select count(*) from paceline.epoch"), "1");
    }
}
