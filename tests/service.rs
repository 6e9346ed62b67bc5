//! The daemon as a service: what the service manager hears, what the logs look like, and the story that is left of a day.

mod common;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{LIMIT, Laptop, text};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What stands for systemd.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn of(laptop: &mut Laptop) -> Self {
        let path = laptop.path("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(LIMIT)).expect("limit");
        let path = path.to_str().expect("UTF-8").to_owned();
        laptop.environment.push(("NOTIFY_SOCKET", path));
        Self { socket }
    }

    /// Everything that is said until somebody says this; that line is the last.
    fn until(&self, words: &str) -> Vec<String> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("nobody said {words:?}: {error}; but: {said:#?}");
            });
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            said.extend(message.lines().map(ToOwned::to_owned));
            if said.iter().any(|line| line.contains(words)) {
                return said;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_how_it_is() {
    let mut laptop = Laptop::primary("");
    let manager = Manager::of(&mut laptop);
    // A sign of life within four seconds.
    laptop.environment.push(("WATCHDOG_USEC", "4000000".to_owned()));
    laptop.launch();
    let said = manager.until("STATUS=primary, gate open: as declared");
    assert_eq!(
        said.iter().filter(|line| *line == "READY=1").count(),
        1,
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|line| line.contains("create a new, empty database")),
        "{said:?}"
    );
    manager.until("WATCHDOG=1");

    let state = fs::read_to_string(laptop.state_file()).expect("state file");
    laptop.write_state(&state.replace("role: primary", "role: standby"));
    let said = manager.until("no successor yet").join(" ");
    let all = said + &manager.until("READY=1").join(" ");
    assert!(
        all.contains("RELOADING=1") && all.contains("MONOTONIC_USEC="),
        "{all}"
    );
    laptop.signal(Signal::SIGHUP);
    manager.until("RELOADING=1");
    manager.until("READY=1");

    // The program executed in place still has the manager's ear.
    laptop.signal(Signal::SIGUSR2);
    manager.until("READY=1");
    // Nothing of it reaches the server.
    let server = laptop.postmaster().expect("a server");
    let environment = fs::read(format!("/proc/{server}/environ")).expect("environment");
    assert!(!text(&environment).contains("NOTIFY_SOCKET"));
    laptop.stop();
    manager.until("STOPPING=1");
}

/// A loop that hangs must not look alive: the sign of life comes from the loop itself.
#[test]
fn a_daemon_that_hangs_gives_no_sign_of_life() {
    let mut laptop = Laptop::primary("");
    let manager = Manager::of(&mut laptop);
    laptop.environment.push(("WATCHDOG_USEC", "1000000".to_owned()));
    laptop.launch();
    manager.until("WATCHDOG=1");
    laptop.signal(Signal::SIGSTOP);
    // Whatever was said before.
    manager
        .socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("limit");
    let mut buffer = [0; 4096];
    while manager.socket.recv(&mut buffer).is_ok() {}
    laptop.signal(Signal::SIGCONT);
    manager.socket.set_read_timeout(Some(LIMIT)).expect("limit");
    manager.until("WATCHDOG=1");
}

#[test]
fn logs_can_be_read_by_a_machine() {
    let mut laptop = Laptop::primary("");
    laptop
        .environment
        .push(("PACELINE_LOG_FORMAT", "json".to_owned()));
    laptop.launch();
    let log = laptop.wait_log("\"gate\":\"open\"");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let doing = lines
        .iter()
        .find(|line| line["action"] == "create_cluster")
        .expect("the action");
    assert_eq!(doing["reason"], "the data directory is empty");
    assert_eq!(doing["level"], "info");
}

/// One line for each change, none for each look; whole again after a crash in the middle of a line; no secret in it.
#[test]
fn the_story_of_a_day_can_be_read_afterwards() {
    let mut laptop = Laptop::primary("");
    laptop.start();
    laptop.wait_serving();
    let password = fs::read_to_string(laptop.path("home/secrets/racedb")).unwrap_or_default();
    laptop.write_state("role: nonsense\n");
    laptop.wait("refused", |status| status["desired"]["error"].is_string());
    laptop.kill_daemon();
    let path = laptop.path("home/history.jsonl");
    let mut torn = fs::read_to_string(&path).expect("history");
    torn.push_str("{\"time\": \"2026-");
    fs::write(&path, torn).expect("write");
    laptop.write_state(&Laptop::primary_yaml(""));
    laptop.start();
    laptop.wait_serving();
    let (code, body) = laptop.get("/v1/history?limit=1000").expect("an answer");
    assert_eq!(code, 200);
    let events: Vec<Value> = serde_json::from_str(&body).expect("JSON");
    let at = |what: &str, field: &str, words: &str| {
        let fits = |event: &Value| {
            event["event"] == what && event[field].as_str().is_some_and(|text| text.contains(words))
        };
        events
            .iter()
            .position(fits)
            .unwrap_or_else(|| panic!("no {what} with {words} in {events:#?}"))
    };
    let order = [
        at("daemon", "state", "starts"),
        at("begun", "action", "create_cluster"),
        at("done", "action", "create_cluster"),
        at("gate", "state", "open"),
        at("state_file", "error", "nonsense"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(
        events.iter().filter(|event| event["state"] == "starts").count(),
        2,
        "both daemons"
    );
    assert!(events.iter().all(|event| event["time"].is_string()));
    assert!(password.trim().is_empty() || !body.contains(password.trim()));

    // Nothing happens any more, and nothing is written any more, however often the daemon looks.
    let length = fs::metadata(&path).expect("history").len();
    let looks = laptop.wait("looks", |status| status["revision"].as_u64().is_some());
    laptop.signal(Signal::SIGHUP);
    drop(looks);
    assert_eq!(fs::metadata(&path).expect("history").len(), length);

    // For people, and without a daemon.
    laptop.stop();
    let shown = text(&laptop.run(&["history", "-n", "500"]).stdout);
    assert!(
        shown.contains("gate open") && shown.contains("done: create a new, empty database"),
        "{shown}"
    );
    assert!(shown.contains("paceline was asked to end"), "{shown}");
}
