//! One laptop's life: made, served, killed, taken over, upgraded, stopped. Real daemon, real server, real application.

mod common;

use std::fs;

use common::{As, Laptop, alive, eventually, postgres, root, text, wait_gone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An application that notes its starts, and at its stop whether the database still answers.
const APP: &str = r#"#!/bin/sh
trap 'psql -XAtqc "select 1" > {dir}/at-stop 2>&1; echo stop >> {dir}/events; exit 0' TERM
id -un > {dir}/whoami
env | sort > {dir}/environment
echo "start $1" >> {dir}/events
psql -XAtqc 'create table if not exists starts (n serial); insert into starts default values' || echo failed >> {dir}/events
while :; do sleep 1000 & wait $!; done
"#;

fn with_app(as_: As) -> Laptop {
    let yaml = Laptop::primary_yaml(
        "racedb:\n  command: [\"{dir}/app\", \"{port}\"]\n  working_directory: \"{dir}\"\n  \
         environment: { PATH: \"/usr/lib/postgresql/bin:/usr/bin:/bin\", COLOUR: red }\n",
    );
    // `{port}` in the command is the daemon's to fill in, not ours.
    let laptop = Laptop::with(as_, &yaml.replace("\"{port}\"]", "\"{PORT}\"]"));
    let state = fs::read_to_string(laptop.state_file())
        .expect("state file")
        .replace("{PORT}", "{port}");
    fs::write(laptop.state_file(), state).expect("state file");
    laptop.script("app", APP);
    if root() {
        // The application runs as the server's user here and writes into the laptop's directory.
        let user = postgres();
        nix::unistd::chown(laptop.directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
    }
    laptop
}

fn app_pid(status: &serde_json::Value) -> i32 {
    i32::try_from(status["app"]["pid"].as_i64().expect("pid")).expect("pid")
}

/// How often the application was started, as it wrote into its table; nothing while there is none.
fn rows(laptop: &Laptop) -> String {
    text(
        &laptop
            .psql("racedb", "postgres", "select count(*) from starts", None)
            .stdout,
    )
    .trim()
    .to_owned()
}

fn from_nothing(as_: As) {
    let mut laptop = with_app(as_).started();
    let status = laptop.wait_serving();
    assert_eq!(status["data"]["state"], "primary");
    assert_eq!(status["data"]["epochs"].as_array().map(Vec::len), Some(1));
    assert_eq!(laptop.get("/gate").map(|(code, _)| code), Some(200));
    assert_eq!(laptop.get("/health").map(|(code, _)| code), Some(200));

    // The cluster is made as the design says.
    assert_eq!(
        laptop.sql("select current_setting('data_checksums'), pg_encoding_to_char(encoding), datcollate from pg_database where datname = 'racedb'"),
        "on|UTF8|C.UTF-8"
    );
    assert_eq!(
        laptop.sql("select current_setting('wal_log_hints'), current_setting('password_encryption')"),
        "on|scram-sha-256"
    );
    assert_eq!(
        laptop.sql("select count(*) from pg_file_settings where error is not null"),
        "0"
    );
    assert_eq!(
        laptop.sql("select pg_get_userbyid(datdba) from pg_database where datname = 'racedb'"),
        "racedb"
    );
    // The epoch stands in the database and beside it.
    let row = laptop.sql("select uuid, timeline, node from paceline.epoch");
    let sidecar = fs::read_to_string(laptop.path("home/data.paceline.json")).expect("sidecar");
    assert!(
        row.ends_with("|1|alpha") && sidecar.contains(row.split('|').next().expect("uuid")),
        "{row} {sidecar}"
    );

    // The application wrote into its database and got what it needs, and nothing that we inherited.
    eventually("the application's row", || rows(&laptop) == "1");
    let environment = laptop.lines("environment");
    let has = |name: &str| {
        environment
            .iter()
            .find(|line| line.starts_with(&format!("{name}=")))
            .cloned()
    };
    assert_eq!(has("PGPORT"), Some(format!("PGPORT={}", laptop.port)));
    assert_eq!(
        has("PGHOST"),
        Some(format!("PGHOST={}", laptop.path("home/run").display()))
    );
    assert_eq!(has("PGUSER"), Some("PGUSER=racedb".to_owned()));
    assert_eq!(has("PGDATABASE"), Some("PGDATABASE=racedb".to_owned()));
    assert_eq!(has("COLOUR"), Some("COLOUR=red".to_owned()));
    assert!(has("PGPASSFILE").is_some());
    assert_eq!(has("PGPASSWORD"), None);
    let port = status["app"]["port"].as_u64().expect("port");
    assert_eq!(laptop.lines("events")[0], format!("start {port}"));
    // Nobody gets in without the password.
    let without = laptop.psql("racedb", "racedb", "select 1", None);
    assert!(
        !without.status.success() && text(&without.stderr).contains("password"),
        "{}",
        text(&without.stderr)
    );

    // SIGTERM: the application first, while the database still answers; then the server.
    let server = laptop.postmaster().expect("server");
    assert!(laptop.stop().success());
    assert!(!alive(server));
    assert_eq!(laptop.lines("at-stop"), ["1"]);
    assert_eq!(laptop.lines("events").last().map(String::as_str), Some("stop"));
    let log = fs::read_to_string(laptop.path("home/log/postgres.log")).expect("log");
    assert!(
        log.contains("received fast shutdown request") && log.contains("database system is shut down"),
        "{log}"
    );

    // And again: nothing is made anew, the row is still there.
    laptop.start();
    let again = laptop.wait_serving();
    assert_eq!(again["data"]["epochs"], status["data"]["epochs"]);
    eventually("the second row", || rows(&laptop) == "2");
    laptop.stop();
}

#[test]
fn from_an_empty_directory_to_a_running_application_and_back() {
    from_nothing(As::Us);
}

#[test]
fn the_same_as_an_ordinary_user() {
    if !root() {
        skip!("the tests do not run as root, so the other test is this one");
    }
    from_nothing(As::Postgres);
}

/// The server of a root daemon keeps its user's supplementary groups: without `ssl-cert` Debian's key cannot be read,
/// and the usual way of changing the user in Rust drops them.
#[test]
fn the_servers_groups_are_kept() {
    if !root() {
        skip!("only root changes the user");
    }
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let status =
        fs::read_to_string(format!("/proc/{}/status", laptop.postmaster().expect("server"))).expect("status");
    let groups = status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .expect("groups");
    let mut groups: Vec<u32> = groups
        .split_whitespace()
        .map(|group| group.parse().expect("number"))
        .collect();
    groups.sort_unstable();
    let name = std::ffi::CString::new("postgres").expect("name");
    let mut expected: Vec<u32> = nix::unistd::getgrouplist(&name, postgres().gid)
        .expect("groups")
        .iter()
        .map(|gid| gid.as_raw())
        .collect();
    expected.sort_unstable();
    assert_eq!(groups, expected);
}

/// A daemon that is killed, by a bug or by an upgrade, must not stop a registration: server and application go on, and
/// the next daemon takes both over.
#[test]
fn kill_9_of_the_daemon_leaves_everything_running() {
    let mut laptop = with_app(As::Us).started();
    let before = laptop.wait_serving();
    let (server, app) = (laptop.postmaster().expect("server"), app_pid(&before));
    eventually("the start", || laptop.lines("events").len() == 1);
    laptop.kill_daemon();
    assert!(alive(server) && alive(app));
    laptop.sql("select 1");

    laptop.start();
    let after = laptop.wait_serving();
    assert_eq!((laptop.postmaster(), app_pid(&after)), (Some(server), app));
    assert_eq!(
        laptop.lines("events").len(),
        1,
        "the application was started again"
    );
    // Adopted, not merely left alone: they are stopped in order.
    assert!(laptop.stop().success());
    assert!(!alive(server) && !alive(app));
    assert_eq!(laptop.lines("at-stop"), ["1"]);
}

#[test]
fn sigusr2_executes_the_program_anew_in_place() {
    let mut laptop = with_app(As::Us).started();
    let before = laptop.wait_serving();
    let (daemon, server, app) = (laptop.pid(), laptop.postmaster(), app_pid(&before));
    eventually("the start", || laptop.lines("events").len() == 1);
    let from = laptop.log().len();
    laptop.signal(Signal::SIGUSR2);
    laptop.wait_log_after(from, "executing the program anew");
    laptop.wait_log_after(from, "status is served");
    let after = laptop.wait_serving();
    assert_eq!(
        (laptop.pid(), laptop.postmaster(), app_pid(&after)),
        (daemon, server, app)
    );
    assert_eq!(
        laptop.lines("events").len(),
        1,
        "the application was started again"
    );
    // The locks came along.
    let second = laptop.run(&["run"]);
    assert_eq!(second.status.code(), Some(6), "{}", text(&second.stderr));
    // Server and application are its children still: when they end, they are reaped and started again.
    kill(Pid::from_raw(app), Signal::SIGKILL).expect("kill");
    laptop.wait("another application", |status| {
        status["app"]["state"] == "running" && app_pid(status) != app
    });
    assert!(
        !std::path::Path::new(&format!("/proc/{app}")).exists(),
        "a zombie is left"
    );
    assert!(laptop.stop().success());
}

#[test]
fn one_daemon_per_data_directory() {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let second = laptop.run(&["run"]);
    assert_eq!(second.status.code(), Some(6));
    assert!(
        text(&second.stderr).contains("another daemon looks after home"),
        "{}",
        text(&second.stderr)
    );
    assert!(
        text(&second.stderr).contains(&laptop.pid().to_string()),
        "{}",
        text(&second.stderr)
    );
    // Another home does not help.
    let state = fs::read_to_string(laptop.state_file()).expect("state");
    let other = state
        .replace("home: home\n", "home: other\n")
        .replace("postgres:\n", "postgres:\n  data_directory: home/data\n");
    fs::write(laptop.path("other.yaml"), other).expect("write");
    let mut third = laptop.command(&["run"]);
    let third = third
        .env("PACELINE_STATE", "")
        .arg("--node=alpha")
        .output()
        .expect("run");
    assert_eq!(third.status.code(), Some(6));
    let fourth = std::process::Command::new(env!("CARGO_BIN_EXE_paceline"))
        .arg("apply")
        .arg(laptop.path("other.yaml"))
        .output()
        .expect("run");
    assert_eq!(fourth.status.code(), Some(6), "{}", text(&fourth.stderr));
    assert!(
        text(&fourth.stderr).contains("the data directory"),
        "{}",
        text(&fourth.stderr)
    );
}

/// A server that somebody stops or kills is started again; the application goes on meanwhile (the gate only holds) and
/// is not started a second time.
#[test]
fn a_server_that_goes_away_comes_back() {
    let laptop = with_app(As::Us).started();
    let before = laptop.wait_serving();
    eventually("the application's row", || rows(&laptop) == "1");
    let mut server = laptop.postmaster().expect("server");
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGQUIT] {
        let from = laptop.log().len();
        kill(Pid::from_raw(server), signal).expect("kill the server");
        laptop.wait_log_after(from, "gate=\"holding\"");
        laptop.wait_log_after(from, "gate=\"open\"");
        let status = laptop.wait_serving();
        let again = laptop.postmaster().expect("server");
        assert_ne!(again, server);
        assert_eq!(app_pid(&status), app_pid(&before));
        assert_eq!(rows(&laptop), "1");
        server = again;
    }
}

#[test]
fn paused_touches_nothing() {
    let mut laptop = with_app(As::Us).started();
    let before = laptop.wait_serving();
    let yaml = fs::read_to_string(laptop.state_file()).expect("state");
    fs::write(laptop.state_file(), format!("{yaml}paused: true\n")).expect("write");
    laptop.wait("paused", |status| status["desired"]["paused"] == true);

    let server = laptop.postmaster().expect("server");
    kill(Pid::from_raw(server), Signal::SIGINT).expect("stop the server");
    let status = laptop.wait("server down", |status| status["server"]["state"] == "down");
    assert_eq!(status["plan"]["state"], "waiting");
    assert!(
        status["plan"]["reason"]
            .as_str()
            .expect("reason")
            .contains("start PostgreSQL"),
        "{status:#}"
    );
    assert_eq!(status["gate"]["state"], "open", "the gate stays as it is");
    assert_eq!(app_pid(&status), app_pid(&before));
    assert_eq!(laptop.postmaster(), None);

    fs::write(laptop.state_file(), &yaml).expect("write");
    laptop.wait_serving();
    // A paused daemon that is ended leaves everything as it is, too.
    fs::write(laptop.state_file(), format!("{yaml}paused: true\n")).expect("write");
    laptop.wait("paused", |status| status["desired"]["paused"] == true);
    let server = laptop.postmaster().expect("server");
    assert!(laptop.stop().success());
    assert!(alive(server) && alive(app_pid(&before)));
}

/// RaceDB exits with status 0 when its port is only timing out (RACEDB-FACTS 1, 2): any end is followed by a start.
#[test]
fn an_application_that_ends_is_started_again_whatever_its_status() {
    let laptop = with_app(As::Us);
    laptop.script("app", "#!/bin/sh\necho start >> {dir}/events\n[ $(wc -l < {dir}/events) -lt 3 ] && exit 0\nexec sleep 1000\n");
    let laptop = laptop.started();
    let status = laptop.wait("the third start", |status| {
        status["app"]["state"] == "running" && status["app"]["failures"] == 2
    });
    // On a busy machine it may be gone before anybody could watch it.
    let end = status["app"]["last_end"].as_str().expect("end");
    assert!(
        end.contains("exit status 0") || end.contains("ended at once"),
        "{status:#}"
    );
    assert_eq!(laptop.lines("events").len(), 3);
}

/// An application and all its children end, also those that ignore the polite signal.
#[test]
fn an_application_that_does_not_stop_is_killed_with_its_children() {
    let laptop = with_app(As::Us);
    laptop.script("app", "#!/bin/sh\ntrap '' TERM\nsetsid sleep 100000 &\necho $! > {dir}/child.new\nmv {dir}/child.new {dir}/child\nwhile :; do sleep 1000; done\n");
    let state = fs::read_to_string(laptop.state_file()).expect("state");
    fs::write(
        laptop.state_file(),
        format!("{state}  stop: {{ grace: 300ms }}\n"),
    )
    .expect("write");
    let mut laptop = laptop.started();
    let app = app_pid(&laptop.wait_serving());
    eventually("the child", || laptop.path("child").exists());
    let child: i32 = laptop.lines("child")[0].parse().expect("pid");
    assert!(alive(child));
    assert!(laptop.stop().success());
    assert!(!alive(app) && !alive(child));
}

#[test]
fn apply_converges_once_and_leaves_the_server_running() {
    let laptop = Laptop::primary("");
    let planned = laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(4), "{}", text(&planned.stderr));
    assert!(
        text(&planned.stdout).starts_with("1. create a new, empty database"),
        "{}",
        text(&planned.stdout)
    );
    assert!(!laptop.path("home").exists(), "plan must change nothing");

    let applied = laptop.run(&["apply"]);
    assert_eq!(
        applied.status.code(),
        Some(0),
        "{}{}",
        text(&applied.stdout),
        text(&applied.stderr)
    );
    assert_eq!(text(&applied.stdout), "converged\n");
    laptop.sql("select 1");
    let planned = laptop.run(&["plan", "--json"]);
    assert_eq!(planned.status.code(), Some(0), "{}", text(&planned.stderr));
    let json: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    assert_eq!(
        (&json["plan"]["state"], &json["server"]["state"]),
        (&"converged".into(), &"writable".into())
    );
    // Nobody answers: there is no daemon.
    let status = laptop.run(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(
        text(&status.stderr).contains("no daemon answers at 127.0.0.1"),
        "{}",
        text(&status.stderr)
    );
    let mut laptop = laptop.started();
    laptop.wait_serving();
    let status = laptop.run(&["status"]);
    assert_eq!(status.status.code(), Some(0));
    assert!(
        text(&status.stdout).contains("gate     open"),
        "{}",
        text(&status.stdout)
    );
    laptop.stop();
}

/// What is saved is acted on; what is not valid changes nothing and is shown.
#[test]
fn the_state_file_is_followed_and_a_broken_one_changes_nothing() {
    let laptop = Laptop::primary("  settings: { work_mem: 5MB }\n").started();
    laptop.wait_serving();
    assert_eq!(laptop.sql("show work_mem"), "5MB");
    let server = laptop.postmaster();

    let good = fs::read_to_string(laptop.state_file()).expect("state");
    fs::write(
        laptop.state_file(),
        good.replace("role: primary", "rolle: primary"),
    )
    .expect("write");
    let status = laptop.wait("the error", |status| !status["desired"]["error"].is_null());
    let error = status["desired"]["error"].as_str().expect("error");
    assert!(
        error.contains("state.yaml:1:1") && error.contains("role"),
        "{error}"
    );
    assert_eq!(
        (&status["desired"]["role"], &status["gate"]["state"]),
        (&"primary".into(), &"open".into())
    );

    fs::remove_file(laptop.state_file()).expect("remove");
    laptop.wait("gone", |status| {
        status["desired"]["error"]
            .as_str()
            .is_some_and(|e| e.contains("no such file"))
    });
    assert_eq!(laptop.get("/gate").map(|(code, _)| code), Some(200));

    // A setting that needs no restart.
    laptop.write_state(&good.replace("5MB", "7MB"));
    laptop.wait("loaded", |status| {
        status["desired"]["error"].is_null() && status["plan"]["state"] == "converged"
    });
    eventually("work_mem", || laptop.sql("show work_mem") == "7MB");
    // One that does: it waits, and the event goes on.
    laptop.write_state(&good.replace("work_mem: 5MB", "max_connections: 77"));
    let status = laptop.wait_plan("waiting");
    assert!(
        status["plan"]["reason"]
            .as_str()
            .expect("reason")
            .contains("max_connections"),
        "{status:#}"
    );
    assert_eq!(status["gate"]["state"], "open");
    // One that is rubbish: said in the server's words.
    laptop.write_state(&good.replace("work_mem: 5MB", "work_mem: plenty"));
    let status = laptop.wait_plan("blocked");
    assert!(
        status["plan"]["reason"]
            .as_str()
            .expect("reason")
            .contains("work_mem"),
        "{status:#}"
    );
    assert_eq!(status["gate"]["state"], "open");
    laptop.write_state(&good);
    laptop.wait_serving();
    assert_eq!(laptop.postmaster(), server, "the server was never restarted");

    // What cannot change while the daemon runs is refused, and said.
    laptop.write_state(&good.replace("home: home", "home: elsewhere"));
    let status = laptop.wait("refused", |status| !status["desired"]["error"].is_null());
    assert!(
        status["desired"]["error"]
            .as_str()
            .expect("error")
            .contains("`home`"),
        "{status:#}"
    );
}

/// A pushed file that still says `standby` must not take the event down.
#[test]
fn a_primary_that_is_declared_standby_goes_on_serving() {
    let laptop = with_app(As::Us).started();
    let before = laptop.wait_serving();
    let yaml = fs::read_to_string(laptop.state_file()).expect("state");
    fs::write(
        laptop.state_file(),
        yaml.replace("role: primary", "role: standby"),
    )
    .expect("write");
    let status = laptop.wait("waiting", |status| {
        status["desired"]["role"] == "standby" && status["plan"]["state"] == "waiting"
    });
    assert!(
        status["plan"]["reason"]
            .as_str()
            .expect("reason")
            .contains("no successor"),
        "{status:#}"
    );
    assert_eq!(status["gate"]["state"], "open");
    assert_eq!(app_pid(&status), app_pid(&before));
}

/// Two applications must never run (one RFID reader, one port): one that a dead daemon started and could not note is
/// ended before another starts.
#[test]
fn an_application_that_nobody_noted_is_found() {
    let mut laptop = with_app(As::Us).started();
    let first = app_pid(&laptop.wait_serving());
    eventually("the first start", || laptop.lines("events").len() == 1);
    laptop.kill_daemon();
    fs::remove_file(laptop.path("home/racedb.json")).expect("remove the note");
    laptop.start();
    let second = app_pid(&laptop.wait_serving());
    assert_ne!(first, second);
    wait_gone(first);
    eventually("start, stop, start", || laptop.lines("events").len() == 3);
}
