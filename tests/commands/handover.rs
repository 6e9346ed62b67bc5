//! `handover`: which edit is made, what is said of the other laptop, and when nothing is done. A daemon of the test's own
//! says what the file cannot. (That the laptops then change places: tests/handover.rs.)

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::common::{port, text};
use super::{Place, ok, refused};

const PROFILE: &str = "# the event\nnodes:\n  alpha: { role: primary, address: 10.99.0.1 }   # é\n  bravo:\n    role: \"standby\" # follows\n    address: 10.99.0.2\n";

/// The status of a laptop that serves, beside one that follows it.
fn serving(node: &str, other: &str) -> Value {
    json!({
        "node": node, "revision": 1, "version": "0.1.0", "pid": 77,
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
            "declared": true, "reachable": true, "age_ms": 120, "reason": null, "node": other, "role": "standby",
            "data": "replica", "server": "read_only", "flag": null, "streaming": true, "lag_bytes": 512
        },
        "handed_over": null,
        "plan": {
            "state": "converged", "flag": null, "progress": null, "actions": [], "reason": null, "hint": null,
            "consent": null
        },
        "gate": { "state": "open", "reason": "the database may be written to" },
        "app": null
    })
}

/// The status of the one that follows.
fn following(node: &str, other: &str) -> Value {
    with(
        serving(node, other),
        &[
            ("/server/state", json!("read_only")),
            ("/server/streaming", json!(true)),
            ("/server/lag_bytes", json!(0)),
            ("/peer/server", json!("writable")),
            ("/peer/streaming", Value::Null),
            ("/peer/lag_bytes", Value::Null),
        ],
    )
}

fn with(mut status: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        *status.pointer_mut(pointer).expect("a field") = value.clone();
    }
    status
}

/// A place with a state file whose daemon, asked once, says this.
fn place(state: &str, status: &Value) -> (Place, JoinHandle<()>) {
    let place = Place::new();
    let api = port();
    place.write("state.yaml", &with_api(state, api));
    let listener = TcpListener::bind(("127.0.0.1", api)).expect("listen");
    let body = status.to_string();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).expect("read") > 0);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("answer");
    });
    (place, daemon)
}

fn with_api(state: &str, api: u16) -> String {
    format!("{state}api: {{ listen: \"127.0.0.1:{api}\" }}\n")
}

#[test]
fn a_profile_changes_in_one_edit_by_who_serves() {
    // Whatever the words say: who serves gives.
    for (words, status) in [
        (["primary", "standby"], serving("alpha", "bravo")),
        (["failover", "standby"], serving("alpha", "bravo")),
        (["failover", "primary"], serving("alpha", "bravo")),
        (["primary", "primary"], serving("alpha", "bravo")),
    ] {
        let profile = PROFILE
            .replace("role: primary", &format!("role: {}", words[0]))
            .replace("\"standby\"", &format!("\"{}\"", words[1]));
        let (place, daemon) = place(&profile, &status);
        let said = ok(&place.run("handover state.yaml --node alpha"));
        daemon.join().expect("daemon");
        let now = place.read("state.yaml");
        let expected = PROFILE
            .replace("role: primary", "role: standby")
            .replace("\"standby\"", "\"primary\"");
        assert!(now.starts_with(&expected), "{words:?}: {now}");
        for words in [
            "nodes.alpha.role",
            "nodes.bravo.role",
            "has to reach bravo",
            "git pull",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(place.names(), ["state.yaml"]);
    }
}

#[test]
fn the_same_from_the_laptop_that_follows() {
    let (place, daemon) = place(PROFILE, &following("bravo", "alpha"));
    let said = ok(&place.run("handover state.yaml --node bravo"));
    daemon.join().expect("daemon");
    assert!(said.contains("has to reach alpha"), "{said}");
    let now = place.read("state.yaml");
    assert!(
        now.contains("alpha: { role: standby,") && now.contains("role: \"primary\" # follows"),
        "{now}"
    );
}

#[test]
fn without_a_daemon_the_words_decide_if_they_can() {
    let place = Place::new();
    let api = port();
    place.write("state.yaml", &with_api(PROFILE, api));
    let output = place.run("handover state.yaml --node bravo");
    ok(&output);
    assert!(
        text(&output.stderr).contains("nobody could look"),
        "{}",
        text(&output.stderr)
    );
    let swapped = place.read("state.yaml");
    assert!(swapped.contains("alpha: { role: standby,"), "{swapped}");
    // And back, byte by byte.
    ok(&place.run("handover state.yaml --node alpha"));
    assert_eq!(place.read("state.yaml"), with_api(PROFILE, api));

    for words in ["failover", "standby"] {
        let both = with_api(
            &PROFILE
                .replace("primary", words)
                .replace("\"standby\"", &format!("\"{words}\"")),
            api,
        );
        place.write("state.yaml", &both);
        refused(
            &place.run("handover state.yaml --node bravo"),
            5,
            "which of the two serves cannot be told",
        );
        assert_eq!(place.read("state.yaml"), both);
    }
}

#[test]
fn with_a_file_for_each_laptop_the_other_edit_is_said() {
    let state = |role: &str| format!("role: {role} # ours\nnode: alpha\npeer: 10.99.0.2\n");
    for (before, status, after, there) in [
        ("primary", serving("alpha", "bravo"), "standby", "primary"),
        ("failover", serving("alpha", "bravo"), "standby", "primary"),
        ("standby", following("alpha", "bravo"), "primary", "standby"),
        // A word that asks for it already stays.
        ("standby", serving("alpha", "bravo"), "standby", "primary"),
    ] {
        let (place, daemon) = place(&state(before), &status);
        let said = ok(&place.run("handover state.yaml"));
        daemon.join().expect("daemon");
        assert!(
            said.contains(&format!(
                "Now on the other laptop (bravo, 10.99.0.2): `paceline {there}`, or `role: {there}`"
            )),
            "{said}"
        );
        assert!(place.read("state.yaml").starts_with(&state(after)));
    }
}

#[test]
fn what_cannot_come_to_anything_is_refused() {
    let serving = serving("alpha", "bravo");
    let following = following("alpha", "bravo");
    let state = "role: primary\nnode: alpha\npeer: 10.99.0.2\n";
    for (base, changes, words) in [
        (
            &serving,
            vec![
                ("/peer/reachable", json!(false)),
                ("/peer/reason", json!("it is off")),
            ],
            "bravo does not answer (it is off)",
        ),
        (
            &serving,
            vec![("/peer/role", Value::Null)],
            "bravo's daemon does not answer",
        ),
        (
            &serving,
            vec![("/peer/streaming", json!(false))],
            "bravo does not stream from this laptop",
        ),
        (
            &serving,
            vec![("/peer/server", json!("down")), ("/peer/streaming", Value::Null)],
            "its server is down",
        ),
        (
            &serving,
            vec![("/peer/server", json!("writable"))],
            "both databases are written to",
        ),
        (
            &serving,
            vec![
                ("/plan/state", json!("blocked")),
                ("/plan/reason", json!("they parted")),
            ],
            "this laptop is blocked: they parted",
        ),
        (
            &following,
            vec![
                ("/server/streaming", json!(false)),
                ("/server/reason", json!("no such slot")),
            ],
            "this laptop does not stream from bravo (no such slot)",
        ),
        (
            &following,
            vec![("/peer/server", json!("read_only"))],
            "neither database is written to",
        ),
    ] {
        let (place, daemon) = place(state, &with(base.clone(), &changes));
        let said = refused(&place.run("handover state.yaml"), 5, words);
        daemon.join().expect("daemon");
        assert!(said.contains("nothing was changed"), "{said}");
        assert!(place.read("state.yaml").starts_with(state));
    }
    let place = Place::new();
    place.write("state.yaml", "role: primary\n");
    refused(
        &place.run("handover state.yaml"),
        5,
        "there is no other laptop to change places with",
    );
}

#[test]
fn what_only_takes_longer_is_said() {
    let state = "role: primary\nnode: alpha\npeer: 10.99.0.2\npaused: true\n";
    let far = with(serving("alpha", "bravo"), &[("/peer/lag_bytes", json!(12 << 20))]);
    let (place, daemon) = place(state, &far);
    let output = place.run("handover state.yaml");
    ok(&output);
    daemon.join().expect("daemon");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("12 MB behind"), "{stderr}");
    assert!(stderr.contains("paused: true"), "{stderr}");
}

/// Another laptop's daemon on that port says nothing about this one.
#[test]
fn a_stranger_on_the_port_is_not_believed() {
    let state = "role: primary\nnode: alpha\npeer: 10.99.0.2\n";
    let (place, daemon) = place(state, &following("charlie", "bravo"));
    let output = place.run("handover state.yaml");
    let said = ok(&output);
    daemon.join().expect("daemon");
    assert!(said.contains("role: primary -> standby"), "{said}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("is charlie's, not alpha's"), "{stderr}");
}

/// `set role` says the other side as well.
#[test]
fn one_word_alone_is_half_of_it() {
    let state = "role: standby\nnode: alpha\npeer: 10.99.0.2\n";
    let (one, daemon) = place(state, &following("alpha", "bravo"));
    let output = one.run("primary state.yaml");
    ok(&output);
    daemon.join().expect("daemon");
    assert_eq!(
        text(&output.stderr),
        "note: the other laptop (bravo, 10.99.0.2) is declared standby already\n"
    );
    let told = with(serving("alpha", "bravo"), &[("/peer/role", json!("standby"))]);
    let (one, daemon) = place("role: primary\nnode: alpha\npeer: 10.99.0.2\n", &told);
    let output = one.run("standby state.yaml");
    ok(&output);
    daemon.join().expect("daemon");
    assert_eq!(
        text(&output.stderr),
        "note: to change places, the other laptop (bravo, 10.99.0.2) has to be declared primary: `paceline primary` \
         there, in any order\n"
    );
    // In a profile both words are in one file.
    let (one, daemon) = place(PROFILE, &serving("alpha", "bravo"));
    let output = one.run("standby state.yaml --node alpha");
    ok(&output);
    daemon.join().expect("daemon");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("`paceline handover` writes both"), "{stderr}");
    // The other laptop is gone: nothing is to be written there.
    let (one, daemon) = place(state, &following("alpha", "bravo"));
    let output = one.run("failover state.yaml");
    ok(&output);
    daemon.join().expect("daemon");
    assert_eq!(text(&output.stderr), "");
}
