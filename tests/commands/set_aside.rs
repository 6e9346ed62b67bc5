//! `set-aside`: what lies beside the data directory is listed, whatever state it is in.

use std::fs;

use serde_json::Value;

use super::common::{As, Laptop, crash_server, stop_server};
use super::ok;

/// A copy of this laptop's, with its sidecar, under a name of ours.
fn set_aside(laptop: &Laptop, name: &str) {
    for (from, to) in [
        ("data", name.to_owned()),
        ("data.paceline.json", format!("{name}.paceline.json")),
    ] {
        fs::rename(
            laptop.path(&format!("home/{from}")),
            laptop.path(&format!("home/{to}")),
        )
        .expect("rename");
    }
}

fn listed(laptop: &Laptop) -> Vec<Value> {
    serde_json::from_str(&ok(&laptop.run(&["set-aside", "--json"]))).expect("JSON")
}

#[test]
fn each_copy_says_what_it_is() {
    let laptop = Laptop::primary("");
    assert!(ok(&laptop.run(&["set-aside"])).starts_with("nothing is set aside beside "));
    assert_eq!(listed(&laptop), Vec::<Value>::new());

    // One that was shut down, and one that crashed.
    let mut identifiers = Vec::new();
    for (name, crashes) in [
        ("data.set-aside-20260606T140500Z", false),
        ("data.set-aside-20260606T140500Z-2", true),
    ] {
        let applied = laptop.run(&["apply"]);
        ok(&applied);
        identifiers.push(laptop.sql("select system_identifier from pg_control_system()"));
        if crashes {
            crash_server(&laptop.data());
        } else {
            stop_server(&laptop.data());
        }
        set_aside(&laptop, name);
        // As if nothing had ever been there.
        fs::remove_file(laptop.path("home/database.json")).expect("remove");
    }
    // The WAL alone, with its report.
    let wal = laptop.path("home/data.set-aside-20260606T150000Z");
    fs::create_dir(&wal).expect("directory");
    fs::write(
        wal.join("report.json"),
        r#"{"when": "2026-06-06T15:00:01Z", "why": "bravo took over", "kind": "wal_only", "fork": "0/3000000",
            "transactions": 2, "lineage": null, "replaced_by": []}"#,
    )
    .expect("write");
    // What nobody can make sense of.
    let rubbish = laptop.path("home/data.set-aside-by-hand");
    fs::create_dir_all(rubbish.join("global")).expect("directory");
    fs::write(rubbish.join("global/pg_control"), "short").expect("write");
    fs::write(rubbish.join("PG_VERSION"), "15\n").expect("write");
    fs::write(rubbish.join("report.json"), "{").expect("write");
    fs::write(
        laptop.path("home/data.set-aside-by-hand.paceline.json"),
        "rubbish",
    )
    .expect("write");
    // And what is none of it.
    fs::create_dir(laptop.path("home/data.old")).expect("directory");

    let found = listed(&laptop);
    let field = |name: &str| -> Vec<Value> { found.iter().map(|copy| copy[name].clone()).collect() };
    assert_eq!(
        field("name"),
        [
            "data.set-aside-20260606T140500Z",
            "data.set-aside-20260606T140500Z-2",
            "data.set-aside-20260606T150000Z",
            "data.set-aside-by-hand"
        ]
    );
    assert_eq!(
        field("when"),
        [
            "2026-06-06T14:05:00Z".into(),
            "2026-06-06T14:05:00Z".into(),
            "2026-06-06T15:00:01Z".into(),
            Value::Null
        ]
    );
    assert_eq!(
        field("kind"),
        [
            "full".into(),
            "full".into(),
            "wal_only".into(),
            Value::from("full")
        ]
    );
    assert_eq!(
        field("ended"),
        [
            "shut down cleanly".into(),
            "crashed while it was written to".into(),
            Value::Null,
            Value::Null
        ]
    );
    for (copy, identifier) in found.iter().zip(&identifiers) {
        assert_eq!(copy["system_identifier"], identifier.as_str());
        assert_eq!(copy["timeline"], 1);
        assert_eq!(copy["last_epoch"]["node"], "alpha");
        assert!(copy["bytes"].as_u64().expect("bytes") > 16 << 20);
        assert_eq!(copy["troubles"], Value::Array(Vec::new()));
    }
    assert_eq!(found[2]["transactions"], 2);
    assert_eq!(found[2]["why"], "bravo took over");
    let troubles: Vec<&str> = found[3]["troubles"]
        .as_array()
        .expect("troubles")
        .iter()
        .map(|trouble| trouble.as_str().expect("text"))
        .collect();
    for words in ["is damaged", "report.json", "pg_control"] {
        assert!(
            troubles.iter().any(|trouble| trouble.contains(words)),
            "{words}: {troubles:?}"
        );
    }

    // The same for people; `list` is what happens without a word.
    let text = ok(&laptop.run(&["set-aside"]));
    assert_eq!(text, ok(&laptop.run(&["set-aside", "list"])));
    for words in [
        "what      a whole copy, ",
        "what      WAL only: what this laptop wrote after the two parted",
        "why       bravo took over",
        "own       2 transactions that only this copy has",
        "ended     crashed while it was written to",
        "trouble   ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("data.old"), "{text}");
}

/// As an ordinary user beside copies that only the server's user may look into.
#[test]
fn what_cannot_be_looked_into_is_listed_all_the_same() {
    use std::os::unix::fs::PermissionsExt as _;
    if !super::root() {
        skip!("only root can make what this user may not see");
    }
    let laptop = Laptop::with(As::Postgres, &Laptop::primary_yaml(""));
    let closed = laptop.path("home/data.set-aside-20260606T140500Z");
    fs::create_dir_all(closed.join("global")).expect("directory");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("mode");
    let found = listed(&laptop);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["kind"], Value::Null);
    let troubles = found[0]["troubles"].to_string();
    assert!(troubles.contains("Permission denied"), "{troubles}");
    let text = ok(&laptop.run(&["set-aside"]));
    assert!(text.contains("what it is cannot be told, unknown"), "{text}");
}
