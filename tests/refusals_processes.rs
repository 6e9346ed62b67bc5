//! Processes that are not what they seem, and ends at the worst moment: stale process ids, frozen servers, kill -9.

mod common;

use std::fs;
use std::path::Path;

use common::{As, Laptop, alive, crash_server, eventually, give, postmaster_of, root, signal_server, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Like the file of a server that lost its power, except for the number.
fn pid_file(laptop: &Laptop, pid: i32) {
    let path = laptop.data().join("postmaster.pid");
    let run = laptop.path("home/run");
    let text = format!(
        "{pid}\n{}\n1764000000\n{}\n{}\nlocalhost\n  5432001         0\nready   \n",
        laptop.data().display(),
        laptop.port,
        run.display()
    );
    fs::write(&path, text).expect("write");
    give(&path);
}

/// After a power cut the number in postmaster.pid is anybody's. A manager that asks `kill(pid, 0)` believes in a server
/// that runs, for ever (POSTGRES-FACTS 21).
fn stale(as_: As, pid: i32) {
    let mut laptop = Laptop::stopped(as_, "");
    pid_file(&laptop, pid);
    laptop.start();
    laptop.wait_serving();
    assert_eq!(laptop.sql("select bib from riders"), "7");
    assert_ne!(laptop.postmaster(), Some(pid));
}

#[test]
fn a_pid_file_of_a_dead_process() {
    let mut child = std::process::Command::new("true").spawn().expect("spawn");
    let pid = i32::try_from(child.id()).expect("pid");
    child.wait().expect("wait");
    stale(As::Us, pid);
}

#[test]
fn a_pid_file_of_another_program() {
    stale(As::Us, nix::unistd::getpid().as_raw());
}

/// A daemon that is an ordinary user may not look at other users' programs, and need not: the server of a directory is
/// its owner's.
#[test]
fn a_pid_file_of_another_users_program() {
    if !root() {
        skip!("only root runs the daemon as another user");
    }
    stale(As::Postgres, nix::unistd::getpid().as_raw());
}

/// The number of a thread of the daemon itself, after a restart of a container (POSTGRES-FACTS 21).
#[test]
fn a_pid_file_of_a_thread_of_ours() {
    let mut laptop = Laptop::stopped(As::Us, "");
    // Something to wait for, so that the daemon is there first.
    let aside = laptop.path("aside");
    fs::rename(laptop.data(), &aside).expect("rename");
    laptop.start();
    laptop.wait_plan("blocked");
    let daemon = laptop.pid();
    let thread = fs::read_dir(format!("/proc/{daemon}/task"))
        .expect("threads")
        .filter_map(|entry| entry.expect("entry").file_name().to_str()?.parse::<i32>().ok())
        .find(|thread| *thread != daemon);
    let Some(thread) = thread else {
        skip!("the daemon has one thread only")
    };
    fs::rename(&aside, laptop.data())
        .and_then(|()| fs::rename(laptop.data(), &aside))
        .expect("there and back");
    let path = aside.join("postmaster.pid");
    fs::write(
        &path,
        format!(
            "{thread}\n{}\n1764000000\n{}\n",
            laptop.data().display(),
            laptop.port
        ),
    )
    .expect("write");
    give(&path);
    fs::rename(&aside, laptop.data()).expect("rename");
    laptop.wait_serving();
    assert_eq!(laptop.sql("select bib from riders"), "7");
}

/// A disk that hangs, a debugger: the server is there and does not answer. Nothing is started twice, nothing is stopped,
/// the application goes on for a while; and when it answers again, so does everything.
#[test]
fn a_frozen_server() {
    let mut laptop = Laptop::stopped(As::Us, "");
    laptop.start();
    laptop.wait_serving();
    let server = laptop.postmaster();
    signal_server(&laptop.data(), Signal::SIGSTOP);
    let (reason, hint) = laptop.wait_reason("waiting", "the server runs but does not answer");
    assert!(
        reason.contains("no answer within 2 seconds") && hint.contains("log"),
        "{reason}; {hint}"
    );
    let status = laptop.wait_gate("holding");
    assert_eq!(
        status["plan"]["actions"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );
    let planned = laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(4), "{}", text(&planned.stdout));
    // A daemon that starts meanwhile does not start another either.
    laptop.kill_daemon();
    laptop.start();
    laptop.wait_reason("waiting", "the server runs but does not answer");
    assert_eq!(laptop.postmaster(), server);
    signal_server(&laptop.data(), Signal::SIGCONT);
    laptop.wait_serving();
    assert_eq!(laptop.postmaster(), server);
    assert!(!laptop.log().contains("start PostgreSQL"), "{}", laptop.log());
}

/// Only our own session hangs: a new one shows that the server is well.
#[test]
fn a_frozen_session() {
    let mut laptop = Laptop::stopped(As::Us, "");
    laptop.start();
    laptop.wait_serving();
    let ours: i32 = laptop
        .sql("select pid from pg_stat_activity where application_name = 'paceline' order by backend_start limit 1")
        .parse()
        .expect("pid");
    kill(Pid::from_raw(ours), Signal::SIGSTOP).expect("freeze");
    laptop.wait_gate("holding");
    laptop.wait_serving();
    kill(Pid::from_raw(ours), Signal::SIGCONT).expect("thaw");
    assert!(alive(laptop.postmaster().expect("server")));
}

/// What lies beside the data directory when nothing is under way.
fn siblings(home: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(home)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("data") || name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn whole(laptop: &mut Laptop) {
    laptop.start();
    let status = laptop.wait_serving();
    assert_eq!(
        status["data"]["epochs"].as_array().map(Vec::len),
        Some(1),
        "{status:#}"
    );
    assert_eq!(laptop.sql("select count(*) from paceline.epoch"), "1");
    assert_eq!(
        laptop.sql("select pg_get_userbyid(datdba) from pg_database where datname = 'racedb'"),
        "racedb"
    );
    let names = siblings(&laptop.path("home"));
    assert_eq!(
        names,
        [
            "data",
            "data.paceline-lock",
            "data.paceline.json",
            "database.json"
        ]
    );
    assert!(laptop.stop().success());
}

/// The moments of a first start, in their order.
const MOMENTS: [&str; 11] = [
    "paceline starts",
    "status is served",
    "doing: create a new, empty database",
    "done action=\"create_cluster\"",
    "doing: write",
    "doing: start",
    "done action=\"start_server\"",
    "doing: record",
    "done action=\"name_epoch\"",
    "doing: create the application's database",
    "gate=\"open\"",
];

const DATABASE: &str = "  database: { name: racedb, owner: racedb }\n";

/// Promise 4: killed at any point of the first start, the next one converges.
fn killed_at_every_moment(everything: bool) {
    let mut laptop = Laptop::primary(DATABASE);
    for moment in MOMENTS {
        laptop.launch();
        // What an earlier round has done already is not done again.
        laptop.wait_log_any(0, &[moment, "plan: converged"]);
        laptop.kill_daemon();
        if everything {
            crash_server(&laptop.data());
        }
    }
    whole(&mut laptop);
}

#[test]
fn the_daemon_is_killed_at_every_moment_of_the_first_start() {
    killed_at_every_moment(false);
}

#[test]
fn daemon_and_server_are_killed_at_every_moment_of_the_first_start() {
    killed_at_every_moment(true);
}

/// initdb is killed with the daemon, in the middle: what it left is no database and is removed.
#[test]
fn the_daemon_is_killed_in_the_middle_of_initdb() {
    let mut laptop = Laptop::primary(DATABASE);
    for there in ["PG_VERSION", "global/pg_control", "base/1/PG_VERSION"] {
        laptop.launch();
        let staging = laptop.path("home/data.paceline-initdb");
        eventually(there, || staging.join(there).exists() || laptop.data().exists());
        laptop.kill_daemon();
        assert_eq!(postmaster_of(&laptop.data()), None);
    }
    whole(&mut laptop);
}
