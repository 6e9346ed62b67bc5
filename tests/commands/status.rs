//! `status --watch`, and `plan` beside a daemon: they say the same where they see the same.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use super::common::pair::{Pair, SECRET, secret};
use super::common::{Laptop, crash_server, port, stop_server, text};
use super::ok;

/// The command, as it writes.
struct Watching {
    child: Child,
    /// `None`: nobody reads any more.
    lines: Option<BufReader<ChildStdout>>,
}

impl Watching {
    fn begin(laptop: &Laptop, arguments: &[&str]) -> Self {
        let mut child = laptop
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("run");
        let lines = BufReader::new(child.stdout.take().expect("stdout"));
        let lines = Some(lines);
        Self { child, lines }
    }

    /// The next line that has these words.
    fn line(&mut self, words: &str) -> String {
        let lines = self.lines.as_mut().expect("it is read");
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("a line") > 0, "it ended");
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn each_change_is_a_line() {
    let mut laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let mut watching = Watching::begin(&laptop, &["status", "--watch"]);
    let line = watching.line("alpha primary");
    assert!(line.contains("server writable, gate open, converged"), "{line}");
    let mut json = Watching::begin(&laptop, &["status", "--watch", "--json"]);
    let document = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    assert_eq!(document(&json.line("{"))["node"], "alpha");

    laptop.write_state(&format!("{}paused: true\n", Laptop::primary_yaml("")));
    watching.line("alpha primary (paused)");
    assert_eq!(document(&json.line("\"paused\":true"))["gate"]["state"], "open");
    // A daemon that is gone may come back.
    laptop.kill_daemon();
    watching.line("no daemon answers");
    laptop.start();
    watching.line("alpha primary (paused)");
    json.line("\"paused\":true");
}

/// Nobody reads any more: that is no error.
#[test]
fn it_ends_with_its_reader() {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    let mut watching = Watching::begin(&laptop, &["status", "--watch"]);
    watching.line("alpha primary");
    watching.lines = None;
    laptop.write_state(&format!("{}paused: true\n", Laptop::primary_yaml("")));
    assert_eq!(watching.child.wait().expect("wait").code(), Some(0));
}

/// What a dry run and the daemon say of an offer: token, danger, hint.
fn offer(plan: &Value) -> [Value; 4] {
    ["state", "hint", "danger", "consent"].map(|field| plan[field].clone())
}

fn dry(laptop: &Laptop) -> Value {
    let output = laptop.run(&["plan", "--json"]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
    serde_json::from_str::<Value>(&text(&output.stdout)).expect("JSON")["plan"].clone()
}

/// The word counts for one situation. A dry run that sees the same shows the same word, so that nobody needs a daemon to
/// read it; and a person reads first what needs no consent.
#[test]
fn a_dry_run_offers_what_the_daemon_offers() {
    let yaml = format!(
        "{}peer: {{ host: 127.0.0.1, port: {}, api_port: {} }}\nsafety: {{ peer_wait: 1s }}\n",
        Laptop::primary_yaml(""),
        port(),
        port()
    );
    let mut laptop = Laptop::new(&yaml);
    secret(&laptop.path("home"), SECRET);
    let before = dry(&laptop);
    laptop.start();
    let daemon = laptop.wait("an offer", |status| status["plan"]["consent"].is_string());
    let beside = dry(&laptop);
    laptop.stop();
    let after = dry(&laptop);
    let expected = offer(&daemon["plan"]);
    for seen in [&before, &beside, &after] {
        assert_eq!(offer(seen), expected);
    }

    let output = laptop.run(&["plan"]);
    let said = text(&output.stdout);
    let token = daemon["plan"]["consent"].as_str().expect("a token");
    let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("{words} in {said}"));
    assert!(at("blocked: ") < at("hint: ") && at("hint: ") < at("Only if that cannot be done"));
    assert!(at("Only if that cannot be done") < at(&format!("    consent: \"{token}\"")));
    at(&format!("write this line in {}", laptop.state_file().display()));

    // Written there it is taken, once.
    laptop.write_state(&format!("{yaml}consent: \"{token}\"\n"));
    let output = laptop.run(&["plan"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stdout));
    laptop.start();
    laptop.wait_serving();
    ok(&laptop.run(&["status"]));
}

/// The same beside a copy and a living laptop: the positions of both are part of the situation, and a person sees them.
#[test]
fn a_dry_run_shows_the_same_loss() {
    let mut pair = Pair::following();
    pair.alpha.sql("create table riders (bib int)");
    pair.bravo
        .wait_sql("select count(*) from pg_class where relname = 'riders'", "1");
    // Alpha crashes and is not started again: how far its copy goes is not proven.
    pair.declare_alpha("primary", "paused: true\n");
    pair.alpha
        .wait("paused", |status| status["desired"]["paused"] == true);
    crash_server(&pair.alpha.data());
    pair.bravo
        .wait("alpha is down", |status| status["peer"]["server"] == "down");
    pair.declare_bravo("failover", "");
    pair.bravo.wait_reason("blocked", "may hold more than this one");
    let daemon = pair
        .bravo
        .wait("an offer", |status| status["plan"]["consent"].is_string());
    let loss = &daemon["plan"]["loss"];
    assert!(loss["position"].is_string(), "{loss}");
    let expected = offer(&daemon["plan"]);
    assert_eq!(offer(&dry(&pair.bravo)), expected);
    pair.bravo.kill_daemon();
    assert_eq!(offer(&dry(&pair.bravo)), expected, "without a daemon");
    // What is not known is not counted as nothing.
    assert_eq!(
        loss["missing_bytes"].is_u64(),
        loss["peer_position"].is_string(),
        "{loss}"
    );
    // How far a standby's copy goes is known when its server runs: without one that is the first step, and no word is
    // offered before it.
    stop_server(&pair.bravo.data());
    let output = pair.bravo.run(&["plan", "--json"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stdout));
    let status: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let first = status["plan"]["actions"][0].as_str().expect("a step");
    assert!(first.starts_with("start PostgreSQL"), "{first}");
    assert_eq!(status["plan"]["consent"], Value::Null);
    assert_eq!(status["plan"]["reason"], daemon["plan"]["reason"]);
}
