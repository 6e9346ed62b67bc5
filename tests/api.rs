//! The HTTP interface: what each address answers in which state, and that nobody who follows keeps others out.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use common::pair::Pair;
use common::{LIMIT, Laptop, port};
use paceline::desired::{Surroundings, validate};
use paceline::peer::Knock;
use paceline::status::Status;
use serde_json::{Value, json};
use tokio::sync::watch;

/// So many may follow the events at a time.
const STREAMS: usize = 12;

/// The interface alone, with a status that a test writes.
struct Interface {
    port: u16,
    published: watch::Sender<Option<Arc<Status>>>,
    _ended: tokio::sync::oneshot::Sender<()>,
}

impl Interface {
    fn new() -> Self {
        let port = port();
        let surroundings = Surroundings {
            path: "/nowhere/state.yaml".into(),
            root: false,
            user: "crew".to_owned(),
            hostname: "alpha".to_owned(),
            node: None,
            addresses: Vec::new(),
            state_home: "/nowhere".into(),
        };
        let desired = validate("role: primary\n", &surroundings).expect("valid");
        let (published, receiver) = watch::channel(None);
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            let (_declared, declaration) = watch::channel(Arc::new(desired));
            let listen = format!("127.0.0.1:{port}").parse().expect("address");
            runtime.block_on(async {
                tokio::select! {
                    () = paceline::api::serve(listen, receiver, declaration, Knock::default()) => {}
                    _ = end => {}
                }
            });
        });
        let interface = Self {
            port,
            published,
            _ended: ended,
        };
        common::eventually("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        interface
    }

    fn publish(&self, status: &Value) {
        let status: Status = serde_json::from_value(status.clone()).expect("a status");
        self.published.send_replace(Some(Arc::new(status)));
    }

    fn get(&self, path: &str) -> (u16, String) {
        get(self.port, path)
    }
}

fn ask(port: u16, path: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").expect("ask");
    stream
}

fn get(port: u16, path: &str) -> (u16, String) {
    let mut answer = String::new();
    ask(port, path, "")
        .read_to_string(&mut answer)
        .expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.expect("a code"), answer)
}

/// Somebody who follows the events.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn new(port: u16, header: &str) -> Self {
        Self(BufReader::new(ask(port, "/v1/events", header)))
    }

    /// The next line that begins like this, without that.
    fn line(&mut self, with: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "it ended");
            if let Some(rest) = line.trim_end().strip_prefix(with) {
                return rest.to_owned();
            }
        }
    }

    fn event(&mut self) -> (String, Value) {
        let id = self.line("id: ");
        let document = self.line("data: ");
        (id, serde_json::from_str(&document).expect("JSON"))
    }
}

/// A primary that serves, with an application.
fn serving() -> Value {
    json!({
        "node": "alpha", "revision": 1, "version": "0.1.0", "pid": 77,
        "desired": {
            "role": "primary", "paused": false, "digest": "d", "error": null, "warning": null, "unsupported": []
        },
        "data": {
            "state": "primary", "reason": null, "crashed": false, "position_proven": true,
            "system_identifier": "7", "timeline": 3, "major": 15, "epochs": [], "lineage": null
        },
        "server": {
            "state": "writable", "reason": null, "streaming": false, "lsn": "0/5000148", "lag_bytes": null, "pid": 9,
            "port": 5432, "version": "15.8", "pending_restart": []
        },
        "peer": {
            "declared": true, "reachable": true, "age_ms": 120, "reason": null, "node": "bravo", "role": "standby",
            "data": "replica", "server": "read_only", "flag": null, "streaming": true, "lag_bytes": 512
        },
        "handed_over": null,
        "plan": {
            "state": "converged", "flag": null, "progress": null, "actions": [], "reason": null, "hint": null,
            "consent": null
        },
        "gate": { "state": "open", "reason": "the database may be written to" },
        "app": { "state": "running", "pid": 10, "port": 8081, "failures": 0, "last_end": null }
    })
}

fn with(mut status: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        *status.pointer_mut(pointer).expect("a field") = value.clone();
    }
    status
}

#[test]
fn health_checks_follow_server_and_gate() {
    let interface = Interface::new();
    // Before the first look nobody is told anything but that.
    for path in [
        "/gate",
        "/primary",
        "/standby",
        "/replica",
        "/metrics",
        "/v1/events",
    ] {
        let (code, answer) = interface.get(path);
        assert_eq!(code, 503, "{path}");
        assert!(answer.contains("the daemon is starting"), "{answer}");
    }
    assert_eq!(interface.get("/health").0, 200);

    let no_app = ("/app", Value::Null);
    let closed = ("/gate/state", json!("closed"));
    let holding = ("/gate/state", json!("holding"));
    let read_only = ("/server/state", json!("read_only"));
    let streaming = ("/server/streaming", json!(true));
    for (changes, primary, standby) in [
        (vec![], 200, 503),
        (vec![closed.clone()], 503, 503),
        (vec![holding], 503, 503),
        (vec![closed.clone(), no_app.clone()], 200, 503),
        (
            vec![read_only.clone(), streaming.clone(), closed.clone()],
            503,
            200,
        ),
        (vec![read_only.clone(), closed.clone()], 503, 503),
        // An open gate alone does not make a server that may be written to.
        (vec![read_only, no_app], 503, 503),
        (vec![("/server/state", json!("unknown")), streaming], 503, 503),
    ] {
        interface.publish(&with(serving(), &changes));
        for (path, code) in [
            ("/primary", primary),
            ("/standby", standby),
            ("/replica", standby),
        ] {
            assert_eq!(interface.get(path).0, code, "{path} {changes:?}");
        }
    }
    assert_eq!(interface.get("/nowhere").0, 404);
}

#[test]
fn metrics_are_what_the_status_says() {
    let interface = Interface::new();
    interface.publish(&with(serving(), &[("/node", json!("al\"pha\\\n"))]));
    let (code, answer) = interface.get("/metrics");
    assert_eq!(code, 200);
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
    for line in [
        "paceline_info{node=\"al\\\"pha\\\\\\n\",role=\"primary\",version=\"0.1.0\",postgresql=\"15.8\"} 1",
        "paceline_server_state{state=\"writable\"} 1",
        "paceline_server_state{state=\"down\"} 0",
        "paceline_gate_state{state=\"open\"} 1",
        "paceline_app_state{state=\"running\"} 1",
        "paceline_plan_state{state=\"blocked\"} 0",
        "paceline_timeline 3",
        "paceline_server_wal_position_bytes 83886408",
        "paceline_peer_reachable 1",
        "paceline_peer_age_seconds 0.12",
        "paceline_peer_lag_bytes 512",
        "paceline_state_file_valid 1",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line} in\n{answer}");
    }
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    // Each name is announced once, and nothing else is in there.
    let mut announced: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let count = announced.len();
    announced.sort_unstable();
    announced.dedup();
    assert_eq!(announced.len(), count);
    assert!(
        body.lines()
            .all(|line| line.starts_with("# ") || line.starts_with("paceline_")),
        "{body}"
    );
    // What is not known is no number.
    assert!(!body.contains("paceline_server_lag_bytes"), "{body}");
    interface.publish(&with(
        serving(),
        &[
            ("/peer/declared", json!(false)),
            ("/app", Value::Null),
            ("/data/timeline", Value::Null),
        ],
    ));
    let (_, answer) = interface.get("/metrics");
    for name in ["paceline_peer_", "paceline_app_", "paceline_timeline"] {
        assert!(!answer.contains(name), "{name} in\n{answer}");
    }
}

#[test]
fn events_tell_each_revision_once() {
    let interface = Interface::new();
    interface.publish(&serving());
    let mut follower = Follower::new(interface.port, "");
    assert_eq!(follower.line("content-type: "), "text/event-stream");
    let (id, status) = follower.event();
    assert_eq!((id.as_str(), &status["node"]), ("77-1", &json!("alpha")));
    // The same revision again, with another position: no news.
    interface.publish(&with(serving(), &[("/server/lsn", json!("0/6000000"))]));
    interface.publish(&with(
        serving(),
        &[("/revision", json!(2)), ("/gate/state", json!("closed"))],
    ));
    let (id, status) = follower.event();
    assert_eq!(
        (id.as_str(), &status["gate"]["state"]),
        ("77-2", &json!("closed"))
    );

    // Who saw that already is told the next one only. Another daemon's revision of the same number is news.
    let mut again = Follower::new(interface.port, "Last-Event-ID: 77-2\r\n");
    again.line("retry: ");
    interface.publish(&with(serving(), &[("/revision", json!(3))]));
    assert_eq!(again.event().0, "77-3");
    let mut other = Follower::new(interface.port, "Last-Event-ID: 66-3\r\n");
    assert_eq!(other.event().0, "77-3");
}

/// A crew that leaves the page open on every screen must not keep the other laptop from asking.
#[test]
fn followers_do_not_keep_others_out() {
    let interface = Interface::new();
    interface.publish(&serving());
    let mut followers: Vec<Follower> = (0..STREAMS).map(|_| Follower::new(interface.port, "")).collect();
    for follower in &mut followers {
        follower.event();
    }
    for _ in 0..3 {
        let (code, answer) = interface.get("/v1/events");
        assert_eq!(code, 503);
        assert!(
            answer.contains("retry-after: ") && answer.contains("others follow"),
            "{answer}"
        );
    }
    // The other laptop's question waits for news, and gets them.
    let mut waiting = ask(interface.port, "/v1/status?after=1&wait=60", "");
    interface.publish(&with(serving(), &[("/revision", json!(2))]));
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"revision\":2"),
        "{answer}"
    );
    // A place is free as soon as somebody is gone.
    drop(followers.pop());
    common::eventually("a place is free", || {
        let mut follower = BufReader::new(ask(interface.port, "/v1/events", ""));
        let mut first = String::new();
        follower.read_line(&mut first).expect("a line");
        first.starts_with("HTTP/1.1 200")
    });
}

/// It has to work at a race without a network, and whatever a text of the status holds is text.
#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let interface = Interface::new();
    let (code, answer) = interface.get("/");
    assert_eq!(code, 200);
    let (head, page) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(
        head.contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    for elsewhere in ["http://", "https://", "src=", "@import", "<link", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    for markup in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ] {
        assert!(!page.contains(markup), "{markup}");
    }
    for own in ["/v1/events", "/v1/status"] {
        assert!(page.contains(own), "{own}");
    }
}

/// Real daemons and servers.
#[test]
fn a_pair_answers_by_its_roles() {
    let mut pair = Pair::following();
    let code = |laptop: &Laptop, path: &str| laptop.get(path).expect("an answer").0;
    let codes = |laptop: &Laptop| ["/primary", "/standby", "/replica"].map(|path| code(laptop, path));
    assert_eq!(codes(&pair.alpha), [200, 503, 503]);
    assert_eq!(codes(&pair.bravo), [503, 200, 200]);
    let status = pair.alpha.wait("it sees bravo stream", |status| {
        status["peer"]["streaming"] == true && status["peer"]["lag_bytes"].is_u64()
    });
    assert_eq!(status["peer"]["node"], "bravo");
    let metrics = pair.alpha.get("/metrics").expect("an answer").1;
    assert!(metrics.contains("paceline_peer_lag_bytes "), "{metrics}");
    let metrics = pair.bravo.get("/metrics").expect("an answer").1;
    assert!(metrics.contains("paceline_server_streaming 1"), "{metrics}");
    assert!(metrics.contains("paceline_server_lag_bytes "), "{metrics}");

    // Each change is an event.
    let mut follower = Follower::new(pair.bravo.api, "");
    follower.event();
    pair.alpha.stop();
    loop {
        let (_, status) = follower.event();
        if status["peer"]["reachable"] == false {
            break;
        }
    }
    pair.bravo.wait("it does not stream", |status| {
        status["server"]["streaming"] == false
    });
    assert_eq!(codes(&pair.bravo), [503, 503, 503]);
    let secret = fs::read_to_string(pair.bravo.path("home/secrets/replication")).expect("the secret");
    for path in ["/", "/metrics", "/v1/status"] {
        let (_, answer) = pair.bravo.get(path).expect("an answer");
        assert!(!answer.contains(secret.trim()), "{path}");
    }
}
