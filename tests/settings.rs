//! Settings on a real server: which ones wait for a restart, `paceline restart`, what the server's own parser refuses,
//! and ALTER SYSTEM over what the state file decides.

mod common;

use std::fs;
use std::process::{Output, Stdio};

use common::pair::Pair;
use common::{Laptop, eventually, stop_server, text};

/// An application that notes its starts and ends, and whether the database still answered at the end.
const APP: &str = r#"#!/bin/sh
trap 'psql -XAtqc "select 1" >> {dir}/at-stop 2>&1; echo stop >> {dir}/events; exit 0' TERM
echo "start on $PGPORT" >> {dir}/events
while :; do sleep 1000 & wait $!; done
"#;

const RACEDB: &str = "racedb:\n  command: [\"{dir}/app\"]\n  working_directory: \"{dir}\"\n  \
    environment: { PATH: \"/usr/lib/postgresql/bin:/usr/bin:/bin\" }\n";

/// A laptop with an application that serves; `settings` are lines below `postgres:`.
fn with_app(settings: &str) -> Laptop {
    let laptop = Laptop::primary(&format!("{settings}{RACEDB}"));
    laptop.script("app", APP);
    if common::root() {
        // The application runs as the server's user here and writes into the laptop's directory.
        let user = common::postgres();
        nix::unistd::chown(laptop.directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
    }
    let laptop = laptop.started();
    laptop.wait_serving();
    eventually("the application's start", || laptop.lines("events").len() == 1);
    laptop
}

fn declare(laptop: &Laptop, settings: &str) {
    laptop.write_state(&Laptop::primary_yaml(&format!("{settings}{RACEDB}")));
}

#[track_caller]
fn ends(output: &Output, code: i32, words: &str) {
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.code() == Some(code) && said.contains(words),
        "{said}"
    );
}

/// How often a server was started here.
fn starts(laptop: &Laptop) -> usize {
    fs::read_to_string(laptop.path("home/log/postgres.log"))
        .unwrap_or_default()
        .matches("starting PostgreSQL")
        .count()
}

fn requested(laptop: &Laptop) -> bool {
    laptop.path("home/restart-request").exists()
}

/// A changed setting that needs a restart used to be one word in the status, and the way to it was to end the daemon.
#[test]
fn what_waits_for_a_restart_is_named_and_restart_does_it_in_order() {
    let laptop = with_app("");
    let epochs = laptop.wait_serving()["data"]["epochs"].clone();
    ends(&laptop.run(&["restart"]), 0, "nothing waits for a restart");
    assert_eq!(starts(&laptop), 1);

    declare(
        &laptop,
        "  settings: { max_connections: 77, shared_buffers: 16MB }\n",
    );
    let (reason, hint) = laptop.wait_reason(
        "waiting",
        "max_connections (100 -> 77), shared_buffers (128MB -> 16MB)",
    );
    assert!(hint.contains("paceline restart"), "{reason}; {hint}");
    let status = laptop.wait_gate("open");
    assert_eq!(
        status["server"]["pending_restart"],
        serde_json::json!(["max_connections", "shared_buffers"])
    );
    assert_eq!(
        status["server"]["pending_settings"][0],
        serde_json::json!({ "name": "max_connections", "in_force": "100", "wanted": "77" })
    );
    assert_eq!(starts(&laptop), 1, "nobody asked for it yet");

    let restarted = laptop.run(&["restart"]);
    ends(
        &restarted,
        0,
        "waiting for a restart: max_connections (100 -> 77)",
    );
    ends(&restarted, 0, "restarted in");
    let status = laptop.wait("done", |status| {
        status["plan"]["state"] == "converged"
            && status["app"]["state"] == "running"
            && status["server"]["restart_requested"].is_null()
    });
    assert_eq!(status["data"]["epochs"], epochs);
    assert_eq!(laptop.sql("show max_connections"), "77");
    eventually("the second start", || laptop.lines("events").len() == 3);
    assert_eq!(starts(&laptop), 2);
    assert_eq!(
        laptop.lines("at-stop"),
        ["1"],
        "the database answered when the application stopped"
    );
    assert!(!requested(&laptop));

    // What is taken out of the file goes back to PostgreSQL's own value, and that is said too.
    declare(&laptop, "");
    laptop.wait_reason(
        "waiting",
        "max_connections (77 -> 100), shared_buffers (16MB -> 128MB)",
    );
    // Changed back before anybody restarted: nothing is to be done.
    declare(
        &laptop,
        "  settings: { max_connections: 77, shared_buffers: 16MB }\n",
    );
    laptop.wait_serving();
    ends(&laptop.run(&["restart", "--force"]), 0, "restarted in");
    assert_eq!(starts(&laptop), 3);
}

/// The port is also the socket's name: until the restart the server is asked, and its application connects, under the
/// port that it runs with.
#[test]
fn another_port_waits_for_a_restart() {
    let mut laptop = with_app("");
    let (old, new) = (laptop.port, common::port());
    laptop.port = new;
    declare(&laptop, "  settings: { work_mem: 5MB }\n");
    laptop.wait_reason("waiting", &format!("port ({old} -> {new})"));
    let status = laptop.wait_gate("open");
    assert_eq!(status["server"]["port"], old);

    // Somebody has it: the event is not stopped for a server that could not start.
    let taken = std::net::TcpListener::bind(("0.0.0.0", new)).expect("listen");
    let server = laptop.postmaster();
    ends(&laptop.run(&["restart"]), 4, &format!("port {new} is in use"));
    assert!(!requested(&laptop), "the request was taken back");
    assert_eq!((laptop.postmaster(), starts(&laptop)), (server, 1));
    drop(taken);

    ends(&laptop.run(&["restart"]), 0, "restarted in");
    let status = laptop.wait_serving();
    assert_eq!(status["server"]["port"], new);
    assert_eq!(laptop.sql("show port"), new.to_string());
    assert_eq!(laptop.sql("show work_mem"), "5MB");
    eventually("the application's start", || {
        laptop.lines("events")
            == [
                format!("start on {old}"),
                "stop".to_owned(),
                format!("start on {new}"),
            ]
    });
}

/// A laptop that was alone listened on localhost only; that a peer changes that is Paceline's own doing, and waits like
/// everything else.
#[test]
fn a_peer_that_is_declared_later_changes_where_the_server_listens() {
    let mut pair = Pair::new();
    pair.alpha.write_state(&Laptop::primary_yaml(""));
    pair.alpha.start();
    pair.alpha.wait_serving();
    pair.declare_alpha("primary", "");
    pair.alpha
        .wait_reason("waiting", "listen_addresses (localhost -> *)");
    ends(&pair.alpha.run(&["restart"]), 0, "restarted in");
    pair.alpha.wait_serving();
    assert_eq!(pair.alpha.sql("show listen_addresses"), "*");
    pair.bravo.start();
    pair.bravo.wait_streaming();
}

/// A daemon that dies in the middle of a restart: the next one goes on, and restarts nothing a second time.
#[test]
fn a_restart_survives_kill_9_and_is_done_once() {
    let mut laptop = with_app("");
    let mut expected = 1;
    for step in [
        "doing: stop the application",
        "doing: stop the server",
        "doing: start PostgreSQL",
        "doing: note that the restart is done",
    ] {
        let from = laptop.log().len();
        let before = laptop.postmaster();
        let asking = laptop
            .command(&["restart", "--force"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("restart");
        laptop.wait_log_after(from, step);
        laptop.kill_daemon();
        laptop.start();
        expected += 1;
        // Who asked gets an answer from the new daemon.
        let output = asking.wait_with_output().expect("output");
        ends(&output, 0, "restarted in");
        laptop.wait("done", |status| {
            status["plan"]["state"] == "converged"
                && status["app"]["state"] == "running"
                && status["server"]["restart_requested"].is_null()
        });
        assert_eq!(starts(&laptop), expected, "{step}");
        assert!(laptop.postmaster() != before && !requested(&laptop));
    }
}

/// A request that lay there while nobody looked: carried out if its server still runs, forgotten if that is gone.
#[test]
fn an_old_request_restarts_nothing_but_its_own_server() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let about = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split_whitespace()
            .collect();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("boot");
        format!(
            "{{\"id\": \"00000000-0000-4000-8000-000000000001\", \"pid\": {pid}, \"started\": {}, \"boot\": \"{}\"}}",
            fields[19],
            boot.trim()
        )
    };
    let first = laptop.postmaster().expect("server");
    let request = about(first);
    laptop.kill_daemon();
    fs::write(laptop.path("home/restart-request"), &request).expect("write");
    laptop.start();
    eventually("done", || !requested(&laptop));
    laptop.wait_serving();
    let second = laptop.postmaster().expect("server");
    assert!(second != first && starts(&laptop) == 2);

    fs::write(laptop.path("home/restart-request"), &request).expect("write");
    eventually("forgotten", || !requested(&laptop));
    laptop.wait_serving();
    assert_eq!((laptop.postmaster(), starts(&laptop)), (Some(second), 2));

    // One that nobody understands is said, and nothing else.
    fs::write(laptop.path("home/restart-request"), "").expect("write");
    laptop.wait("said", |status| {
        status["notices"].as_array().is_some_and(|notices| {
            notices
                .iter()
                .any(|notice| notice.to_string().contains("restart-request"))
        })
    });
    assert_eq!(starts(&laptop), 2);
}

#[test]
fn restart_says_why_not() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    laptop.write_state(&Laptop::primary_yaml("paused: true\n"));
    laptop.wait("paused", |status| status["desired"]["paused"] == true);
    ends(&laptop.run(&["restart", "--force"]), 5, "`paused: true`");
    laptop.write_state(&Laptop::primary_yaml(""));
    laptop.wait_serving();
    // Paused when it was asked for already: taken back.
    laptop.kill_daemon();
    ends(&laptop.run(&["restart", "--force"]), 1, "no daemon answers");
    assert!(!requested(&laptop) && starts(&laptop) == 1);
}

/// What the laptop does not have only the start tells. Whoever asked for the restart hears it at once, and the corrected
/// file is enough.
#[test]
fn a_restart_that_fails_says_so_and_goes_on_with_the_corrected_file() {
    let laptop = with_app("");
    declare(&laptop, "  settings: { shared_buffers: 900GB }\n");
    laptop.wait_reason("waiting", "shared_buffers (128MB -> 900GB)");
    let asking = laptop
        .command(&["restart"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("restart");
    laptop.wait_reason("failed", "does not start");
    laptop.wait_gate("closed");
    declare(&laptop, "  settings: { shared_buffers: 16MB }\n");
    laptop.wait_serving();
    let output = asking.wait_with_output().expect("output");
    ends(&output, 0, "the server is stopped and does not start yet: ");
    ends(&output, 0, "restarted in");
    assert_eq!(laptop.sql("show shared_buffers"), "16MB");
    eventually("forgotten", || !requested(&laptop));
}

/// In a pair each laptop's server is restarted by itself; the standby's at once where a setting needs it.
#[test]
fn a_pair_is_restarted_one_by_one() {
    let pair = Pair::following();
    let epochs = pair.alpha.wait_serving()["data"]["epochs"].clone();
    pair.alpha.sql("create table riders (bib int)");
    // Nobody minds on a standby: it does not wait to be told.
    pair.declare_bravo("standby", "  settings: { shared_buffers: 16MB }\n");
    pair.bravo.wait_sql("show shared_buffers", "16MB");
    pair.bravo.wait_streaming();
    ends(&pair.bravo.run(&["restart", "--force"]), 0, "read_only");
    pair.bravo.wait_streaming();
    assert_eq!((starts(&pair.alpha), starts(&pair.bravo)), (1, 3));
    // ALTER SYSTEM on a standby is put right as well, and is no reason to restart it.
    let from = pair.bravo.log().len();
    pair.bravo.sql("alter system set port = 1234");
    pair.bravo.sql("select pg_reload_conf()");
    pair.bravo
        .wait_log_after(from, "port (declare `postgres.port` instead)");
    let from = pair.bravo.log().len();
    pair.bravo.sql("alter system set shared_buffers = '17MB'");
    pair.bravo
        .wait_log_after(from, "shared_buffers (the state file's");
    pair.bravo.wait_streaming();
    assert_eq!(starts(&pair.bravo), 3);

    ends(&pair.alpha.run(&["restart", "--force"]), 0, "writable");
    pair.alpha.wait_serving();
    pair.alpha.sql("insert into riders values (1)");
    pair.bravo.wait_streaming();
    pair.bravo.wait_sql("select count(*) from riders", "1");
    assert_eq!(pair.alpha.wait_serving()["data"]["epochs"], epochs);
    assert_eq!(starts(&pair.alpha), 2);

    // The other laptop would take over from a server that is down.
    pair.declare_bravo("failover", "");
    pair.bravo
        .wait("declared", |status| status["desired"]["role"] == "failover");
    pair.alpha
        .wait("seen", |status| status["peer"]["role"] == "failover");
    let server = pair.alpha.postmaster();
    ends(&pair.alpha.run(&["restart", "--force"]), 4, "would take over");
    assert_eq!((pair.alpha.postmaster(), starts(&pair.alpha)), (server, 2));
}

/// A rejected setting used to be written all the same: the server went on, but its next start would have failed.
#[test]
fn what_the_parser_refuses_is_never_written() {
    let mut laptop = Laptop::primary("  settings: { work_mem: 5MB }\n").started();
    laptop.wait_serving();
    let conf = || fs::read_to_string(laptop.path("home/conf/postgresql.conf")).expect("conf");
    let before = conf();
    for (settings, words) in [
        (
            "work_mem: plenty",
            "`postgres: settings: work_mem`: invalid value for parameter \"work_mem\": \"plenty\"",
        ),
        (
            "max_connectons: 50",
            "`postgres: settings: max_connectons`: unrecognized configuration parameter",
        ),
        ("log_statement: some", "Available values: none, ddl, mod, all."),
    ] {
        laptop.write_state(&Laptop::primary_yaml(&format!("  settings: {{ {settings} }}\n")));
        let (reason, hint) = laptop.wait_reason("blocked", words);
        assert!(hint.contains("`postgres: settings:`"), "{reason}; {hint}");
        assert!(!reason.contains("postgresql.conf.check"), "{reason}");
        laptop.wait_gate("open");
        assert_eq!(conf(), before);
    }
    // It is not tried again and again.
    assert_eq!(
        laptop.log().matches("refuses the configuration: ").count(),
        3,
        "{}",
        laptop.log()
    );
    // A crash, and a new daemon: the one that works is still there.
    stop_server(&laptop.data());
    laptop.wait("up again", |status| {
        status["plan"]["state"] == "blocked" && status["gate"]["state"] == "open"
    });
    assert!(laptop.stop().success());
    laptop.start();
    laptop.wait_gate("open");
    laptop.wait_reason("blocked", "log_statement");
    assert_eq!(laptop.sql("show work_mem"), "5MB");
    laptop.write_state(&Laptop::primary_yaml("  settings: { work_mem: 6MB }\n"));
    laptop.wait_serving();
    laptop.wait_sql("show work_mem", "6MB");
}

/// Somebody who is used to PostgreSQL says ALTER SYSTEM, and wonders where it went.
#[test]
fn alter_system_over_what_the_state_file_decides_is_reported() {
    let laptop = Laptop::primary("  settings: { work_mem: 5MB }\n").started();
    laptop.wait_serving();
    let reports = || laptop.log().matches("removed from postgresql.auto.conf").count();
    laptop.sql("alter system set work_mem = '12MB'");
    laptop.sql("alter system set maintenance_work_mem = '33MB'");
    laptop.wait_log("removed from postgresql.auto.conf, since ALTER SYSTEM does not last for these here: work_mem (the state file's `postgres: settings:` decides)");
    let status = laptop.wait("told", |status| {
        status["notices"]
            .to_string()
            .contains("work_mem (the state file's")
    });
    assert!(
        !status["notices"].to_string().contains("maintenance_work_mem"),
        "{status:#}"
    );
    laptop.wait_serving();
    ends(&laptop.run(&["status"]), 0, "removed from postgresql.auto.conf");
    assert_eq!(reports(), 1, "{}", laptop.log());
    // Loaded by hand in the same breath; needs a restart; managed.
    let from = laptop.log().len();
    laptop.sql("alter system set fsync = 'off'");
    laptop.sql("select pg_reload_conf()");
    laptop.wait_log_after(
        from,
        "fsync (turning it off loses data in a power cut; it stays on: leave it out)",
    );
    laptop.wait_sql("show fsync", "on");
    let from = laptop.log().len();
    laptop.sql("alter system set port = 1234");
    laptop.sql("select pg_reload_conf()");
    laptop.wait_log_after(from, "port (declare `postgres.port` instead)");
    laptop.wait("nothing waits", |status| {
        status["plan"]["state"] == "converged" && status["server"]["pending_restart"] == serde_json::json!([])
    });
    assert_eq!(reports(), 3, "{}", laptop.log());
    // What nobody manages stays.
    assert_eq!(
        laptop.sql("select setting from pg_file_settings where sourcefile like '%auto.conf'"),
        "33MB"
    );
}
