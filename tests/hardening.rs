//! What a review of the first version found, each as the events that went wrong.

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use common::{Laptop, alive, eventually, root, text, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn edit(laptop: &Laptop, from: &str, to: &str) {
    let state = fs::read_to_string(laptop.state_file()).expect("state file");
    assert!(state.contains(from), "{from:?} is not in {state}");
    fs::write(laptop.state_file(), state.replace(from, to)).expect("state file");
}

/// The file was broken, the daemon was executed anew, found no valid file, and looked after nothing: at the next SIGTERM
/// it ended and left server and application running. With another `home` in the file it was worse: the new image made a
/// second server.
#[test]
fn no_reexecution_while_the_state_file_is_not_in_force() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let server = laptop.postmaster().expect("server");
    for (from, to) in [
        ("role: primary", "rol: primary"),
        ("home: home", "home: elsewhere"),
    ] {
        edit(&laptop, from, to);
        laptop.wait("the error", |status| !status["desired"]["error"].is_null());
        let before = laptop.log().len();
        laptop.signal(Signal::SIGUSR2);
        laptop.wait_log_after(before, "not executed anew");
        edit(&laptop, to, from);
        laptop.wait("no error", |status| status["desired"]["error"].is_null());
    }
    assert_eq!(laptop.postmaster(), Some(server));
    assert!(!laptop.path("elsewhere").exists());
    laptop.stop();
    assert!(!alive(server));
}

/// SIGUSR2 and SIGTERM right after each other: the end was forgotten by the new image, or met it before it listened.
#[test]
fn an_end_is_not_forgotten_over_a_reexecution() {
    for _ in 0..4 {
        let mut laptop = Laptop::primary("").started();
        laptop.wait_serving();
        let server = laptop.postmaster().expect("server");
        laptop.signal(Signal::SIGUSR2);
        laptop.signal(Signal::SIGTERM);
        laptop.wait_exit();
        wait_gone(server);
    }
    // The end comes while the new image starts.
    for words in ["executing the program anew", "paceline starts"] {
        let mut laptop = Laptop::primary("").started();
        laptop.wait_serving();
        let server = laptop.postmaster().expect("server");
        let before = laptop.log().len();
        laptop.signal(Signal::SIGUSR2);
        laptop.wait_log_after(before, words);
        laptop.signal(Signal::SIGTERM);
        assert!(laptop.wait_exit().success(), "{}", laptop.log());
        wait_gone(server);
    }
}

/// A thousand idle connections from the race's Wi-Fi used up the daemon's descriptors; it could not see its own server
/// any more and stopped the application.
#[test]
fn idle_connections_do_not_blind_the_daemon() {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let connections: Vec<TcpStream> = (0..400)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", laptop.api)).ok())
        .collect();
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", laptop.pid()))
            .expect("descriptors")
            .count()
    };
    let before = laptop.log().len();
    edit(
        &laptop,
        "role: primary",
        "role: primary\npaused: false\npostgres_is_up: true",
    );
    laptop.wait_log_after(before, "not taken");
    assert!(descriptors() < 150, "{} descriptors", descriptors());
    assert!(!laptop.log().contains("gate=\"holding\""), "{}", laptop.log());
    drop(connections);
    assert_eq!(laptop.get("/gate").map(|(code, _)| code), Some(200));
}

/// The line of the file beside a mistake was shown in the status document, which anybody may read, password and all.
#[test]
fn a_mistake_beside_a_secret_does_not_show_it() {
    let laptop = Laptop::primary("racedb: { command: [sleep, \"1000\"] }\n").started();
    laptop.wait_serving();
    edit(
        &laptop,
        "racedb: {",
        "racedb: { environment: { SECRET_KEY: hunter2 }, comand: y,",
    );
    let status = laptop.wait("the error", |status| !status["desired"]["error"].is_null());
    assert!(
        status["desired"]["error"]
            .as_str()
            .expect("error")
            .contains("comand"),
        "{status:#}"
    );
    assert!(!status.to_string().contains("hunter2") && !laptop.log().contains("hunter2"));
    // The one who may read the file sees the line.
    assert!(text(&laptop.run(&["check"]).stderr).contains("hunter2"));
}

/// `home: /tmp` made /tmp unusable for everybody else: its mode was "put right".
#[test]
fn the_mode_of_a_home_that_was_there_is_left_alone() {
    let laptop = Laptop::primary("");
    fs::create_dir(laptop.path("home")).expect("home");
    fs::set_permissions(laptop.path("home"), fs::Permissions::from_mode(0o1777)).expect("mode");
    let laptop = laptop.started();
    laptop.wait_serving();
    let mode = fs::metadata(laptop.path("home"))
        .expect("home")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

/// The lock beside an adopted data directory lies in a directory of the server's user. A link in its place led the root
/// daemon to overwrite what it pointed to.
#[test]
fn the_lock_follows_no_link() {
    let laptop = Laptop::primary("");
    fs::create_dir(laptop.path("home")).expect("home");
    fs::write(laptop.path("precious"), "precious\n").expect("file");
    std::os::unix::fs::symlink(laptop.path("precious"), laptop.path("home/data.paceline-lock"))
        .expect("link");
    let output = laptop.run(&["apply"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(
        fs::read_to_string(laptop.path("precious")).expect("file"),
        "precious\n"
    );
}

/// A helper that the application had put into a session of its own was taken for a stray and killed by every new
/// daemon, although the application lived.
#[test]
fn helpers_of_a_living_application_are_left_alone() {
    let laptop = Laptop::primary("racedb: { command: [\"{dir}/app\"], working_directory: / }\n");
    laptop.script(
        "app",
        "#!/bin/sh\nsetsid sleep 100000 &\nenv -i sleep 100000 &\necho $! > {dir}/unmarked.new\nmv {dir}/unmarked.new {dir}/unmarked\n\
         until pidof -s sleep > /dev/null; do :; done\nexec sleep 100001\n",
    );
    if root() {
        let user = common::postgres();
        nix::unistd::chown(laptop.directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
    }
    let laptop = laptop.started();
    let status = laptop.wait_serving();
    let app = i32::try_from(status["app"]["pid"].as_i64().expect("pid")).expect("pid");
    let children = || -> Vec<i32> {
        fs::read_to_string(format!("/proc/{app}/task/{app}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .map(|pid| pid.parse().expect("pid"))
            .collect()
    };
    eventually("both helpers and the application itself", || {
        children().len() == 2
            && fs::read_to_string(format!("/proc/{app}/comm")).is_ok_and(|name| name == "sleep\n")
    });
    let helpers = children();
    let before = laptop.log().len();
    laptop.signal(Signal::SIGUSR2);
    laptop.wait_log_after(before, "status is served");
    let again = laptop.wait_serving();
    assert_eq!(again["app"]["pid"], status["app"]["pid"]);
    assert!(helpers.iter().all(|pid| alive(*pid)), "a helper was ended");
    // When the application ends, they go with it: the marked one and, by its group, the unmarked one.
    kill(Pid::from_raw(app), Signal::SIGKILL).expect("kill");
    for helper in helpers {
        wait_gone(helper);
    }
    laptop.wait("another", |status| {
        status["app"]["state"] == "running" && status["app"]["pid"] != app
    });
}

/// After a power cut the lock file of the socket named a process that was somebody else's by then; the server refused
/// to start for ever.
#[test]
fn a_stale_lock_of_the_socket_does_not_keep_the_server_down() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    laptop.stop();
    let lock = laptop.path(&format!("home/run/.s.PGSQL.{}.lock", laptop.port));
    // A process of the server's own user: the test's, or a helper of that user.
    let mut command = std::process::Command::new("sleep");
    command.arg("100000");
    if root() {
        use std::os::unix::process::CommandExt as _;
        let user = common::postgres();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let mut somebody = command.spawn().expect("sleep");
    fs::write(
        &lock,
        format!(
            "{}\n{}\n1\n{}\n/run\n",
            somebody.id(),
            laptop.data().display(),
            laptop.port
        ),
    )
    .expect("lock file");
    laptop.start();
    laptop.wait_serving();
    somebody.kill().expect("kill");
    somebody.wait().expect("wait");
}

/// A server that is told to be read-only was taken for a standby's copy, and the hint was to declare `failover`.
#[test]
fn a_server_that_is_told_to_be_read_only_is_no_standby() {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    laptop.sql("alter role postgres set default_transaction_read_only = on");
    let status = laptop.wait_plan("blocked");
    assert!(
        status["plan"]["reason"]
            .as_str()
            .expect("reason")
            .contains("default_transaction_read_only"),
        "{status:#}"
    );
    assert_eq!(status["gate"]["state"], "closed");
    laptop.sql("set transaction_read_only = off; alter role postgres reset default_transaction_read_only");
    laptop.wait_serving();
}

/// Rows that somebody removed from `paceline.epoch` come back: the history does not change by that.
#[test]
fn removed_epochs_come_back() {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let before = laptop.sql("select uuid from paceline.epoch");
    laptop.sql("drop table paceline.epoch");
    eventually("the row", || {
        text(
            &laptop
                .psql("postgres", "postgres", "select uuid from paceline.epoch", None)
                .stdout,
        )
        .trim()
            == before
    });
}

/// Between the plan and the start somebody deletes `standby.signal`: the copy would come up writable on the timeline that
/// the other server writes. What the plan was made from is looked at once more.
#[test]
fn a_standbys_copy_does_not_start_without_its_signal_file() {
    let laptop = Laptop::stopped(common::As::Us, "");
    let path = camino::Utf8PathBuf::from_path_buf(laptop.state_file()).expect("UTF-8");
    let surroundings = paceline::desired::Surroundings::detect(&path, None).expect("surroundings");
    let desired = paceline::desired::load(&surroundings).expect("valid");
    let bin_directory = camino::Utf8PathBuf::from_path_buf(common::bin_directory()).expect("UTF-8");
    let programs = paceline::observed::Installation {
        bin_directory,
        major: 0,
        version: "test".to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let start = |standby| {
        let mut context = paceline::exec::Context::alone(&desired);
        let start = paceline::plan::Start {
            programs: programs.clone(),
            standby,
        };
        runtime.block_on(paceline::exec::carry_out(
            &mut context,
            &paceline::plan::Action::StartServer(start),
        ))
    };
    let refused = start(true).expect_err("must not start");
    assert!(refused.to_string().contains("signal files"), "{refused:#}");
    assert_eq!(laptop.postmaster(), None);
    // The other way round, and as it is.
    fs::write(laptop.data().join("standby.signal"), "").expect("write");
    assert!(start(false).is_err() && laptop.postmaster().is_none());
    fs::remove_file(laptop.data().join("standby.signal")).expect("remove");
    start(false).expect("start");
    assert!(laptop.postmaster().is_some());
}
