//! That the published schema and the validator are one: a state file that the schema accepts is accepted, one that it
//! refuses is refused. What a schema cannot say is listed in [`beyond`], rule by rule, and nothing else may differ.
//!
//! The documents are made from the schema itself ([`generate`]), so that a new key is tried as soon as it is there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod beyond;
mod examples;
mod generate;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use beyond::{BEYOND, beyond};
use common::editor::as_json;
use paceline::desired::{Diagnostic, Surroundings, diagnostic, schema, validate};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// A laptop that is called bravo and whose daemon runs as the user crew.
fn crew() -> Surroundings {
    Surroundings {
        path: "/etc/paceline/state.yaml".into(),
        root: false,
        user: "crew".to_owned(),
        hostname: "bravo.race.local".to_owned(),
        node: None,
        addresses: vec!["192.168.40.17".parse().unwrap()],
        state_home: "/home/crew/.local/state".into(),
    }
}

fn corpus(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn schema_value() -> Value {
    serde_json::from_str(&schema()).unwrap()
}

fn by_the_schema(document: &Value) -> bool {
    thread_local!(static VALIDATOR: jsonschema::Validator = jsonschema::validator_for(&schema_value()).unwrap());
    VALIDATOR.with(|validator| validator.is_valid(document))
}

/// How the two judged a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// By the schema and by the validator.
    Refused,
    /// By rules that are beyond the schema, and by no other.
    Beyond,
}

/// A document as a file. JSON is YAML, but for some characters that YAML wants to be written as escapes.
fn as_yaml(document: &Value) -> String {
    let mut out = String::new();
    for c in document.to_string().chars() {
        if matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            write!(out, "\\u{:04x}", u32::from(c)).unwrap();
        } else {
            out.push(c);
        }
    }
    out
}

/// The law of this file.
fn judge(document: &Value) -> Result<Verdict, String> {
    let accepted = by_the_schema(document);
    match (accepted, validate(&as_yaml(document), &crew())) {
        (true, Ok(_)) => Ok(Verdict::Accepted),
        (false, Err(_)) => Ok(Verdict::Refused),
        (false, Ok(_)) => Err(format!("accepted, but the schema refuses {document:#}")),
        (true, Err(problems)) => {
            let unlisted: Vec<Diagnostic> = problems
                .into_iter()
                .filter(|problem| beyond(problem).is_none())
                .collect();
            if unlisted.is_empty() {
                return Ok(Verdict::Beyond);
            }
            let message = diagnostic::render("state.yaml", &unlisted);
            Err(format!("refused, but the schema accepts {document:#}\n{message}"))
        }
    }
}

/// The paths of all keys that a document has, in the words of [`generate::key_paths`].
fn keys_of(document: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, at: &str, out: &mut BTreeSet<String>) {
        if let Value::Object(keys) = value {
            for (name, value) in keys {
                let path = generate::below(at, name);
                walk(value, &path, out);
                out.insert(path);
            }
        }
    }
    let mut out = BTreeSet::new();
    walk(document, "", &mut out);
    out
}

/// Documents of the whole schema, always the same ones; what is found of them is the same on every machine.
fn documents(count: usize) -> Vec<Value> {
    let schema = schema_value();
    let mut runner = TestRunner::deterministic();
    let strategy = generate::document(&schema);
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

#[test]
fn what_the_schema_accepts_is_accepted() {
    let mut accepted = 0;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let documents = documents(2000);
    for document in &documents {
        assert!(
            by_the_schema(document),
            "not made as the schema says: {document:#}"
        );
        let verdict = judge(document).unwrap_or_else(|why| panic!("{why}"));
        if verdict == Verdict::Accepted {
            accepted += 1;
            for key in keys_of(document) {
                *seen.entry(key).or_default() += 1;
            }
        }
    }
    // Neither side is tried by chance: every key of the schema is in files that are accepted.
    assert!(accepted > documents.len() / 4, "{accepted}");
    let all = generate::key_paths(&schema_value());
    assert!(all.len() > 70, "{all:?}");
    for key in all {
        let times = seen.get(&key).copied().unwrap_or_default();
        assert!(times >= 5, "{key} is in {times} accepted files only");
    }
}

/// Each key with a value of each kind, and each key left out, in a file that is valid otherwise.
#[test]
fn every_key_with_every_kind_of_value() {
    let odd = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1000),
        json!(65_535),
        json!(65_536),
        json!(4_294_967_296_u64),
        json!(1.5),
        json!(8.0),
        json!(""),
        json!(" "),
        json!("x"),
        json!("5"),
        json!("true"),
        json!("auto"),
        json!("primary"),
        json!("Primary"),
        json!("10s"),
        json!("10 s"),
        json!("1h30m"),
        json!("4GB"),
        json!("04GB"),
        json!("/x"),
        json!("x/y"),
        json!("0/5000148"),
        json!("a b"),
        json!("é"),
        json!("x".repeat(64)),
        json!("host x y z"),
        json!("hosts x"),
        json!([]),
        json!(["x"]),
        json!(["10.0.0.0/8"]),
        json!([1, true, "x"]),
        json!([null]),
        json!([[]]),
        json!({}),
        json!({ "x": "y" }),
        json!({ "x": null }),
        json!({ "x": [] }),
        json!({ "no name": 1 }),
        json!({ "host": "a", "port": 1 }),
    ];
    let mut carriers: BTreeMap<String, Value> = BTreeMap::new();
    for document in documents(2000) {
        if judge(&document) != Ok(Verdict::Accepted) {
            continue;
        }
        for key in keys_of(&document) {
            let size = |value: &Value| value.to_string().len();
            let carrier = carriers.entry(key).or_insert_with(|| document.clone());
            if size(&document) < size(carrier) {
                carrier.clone_from(&document);
            }
        }
    }
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for key in generate::key_paths(&schema_value()) {
        let carrier = &carriers[&key];
        let place = generate::pointer(carrier, &key).unwrap();
        let (parent, name) = place.rsplit_once('/').unwrap();
        let mut tried: Vec<Value> = odd
            .iter()
            .map(|value| {
                let mut document = carrier.clone();
                *document.pointer_mut(&place).unwrap() = value.clone();
                document
            })
            .collect();
        let mut without = carrier.clone();
        without
            .pointer_mut(parent)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(name)
            .unwrap();
        let mut beside = carrier.clone();
        let parent = beside.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(format!("{name}s"), json!(1));
        tried.extend([without, beside]);
        let mut verdicts = BTreeSet::new();
        for document in &tried {
            match judge(document) {
                Ok(verdict) => {
                    verdicts.insert(format!("{verdict:?}"));
                    *counts.entry(format!("{verdict:?}")).or_insert(0) += 1;
                }
                Err(why) => wrong.push(format!("{key}: {why}")),
            }
        }
        assert!(verdicts.contains("Refused"), "{key}: nothing was refused");
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n\n"));
    assert!(counts["Refused"] > 1000 && counts["Accepted"] > 200, "{counts:?}");
}

/// The list has no rule that nothing shows, and the corpus marks no file without a rule of the list.
#[test]
fn every_rule_beyond_the_schema_has_its_file() {
    let mut met = BTreeSet::new();
    for (name, text) in corpus("tests/state_file/invalid") {
        if !text.contains("# test: not in the schema") {
            continue;
        }
        let mut surroundings = crew();
        for line in text.lines().filter_map(|line| line.strip_prefix("# test: ")) {
            if line == "root" {
                surroundings.root = true;
            }
            if let Some(node) = line.strip_prefix("--node ") {
                surroundings.node = Some(node.to_owned());
            }
        }
        surroundings.addresses.push("fe80::17".parse().unwrap());
        for problem in validate(&text, &surroundings).unwrap_err() {
            let rule = beyond(&problem);
            met.insert(rule.unwrap_or_else(|| panic!("{name}: no rule for {}", problem.message)));
        }
    }
    for (words, why) in BEYOND {
        assert!(met.contains(words), "no file shows the rule {words:?} ({why})");
    }
}

/// A document of the schema or of the corpus, with up to two changes: a value replaced, a key added, one removed.
fn changed() -> impl Strategy<Value = Value> {
    let files: Vec<Value> = corpus("tests/state_file/valid")
        .iter()
        .map(|(_, text)| as_json(text))
        .collect();
    let values = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1_i64..70_000).prop_map(Value::from),
        Just(json!(1.5)),
        prop::sample::select(vec![
            "",
            "auto",
            "primary",
            "latest",
            "10s",
            "1h 30m",
            "4GB",
            "/",
            "alpha",
            "10.0.0.0/8",
            "0.0.0.0:80",
            "SIGTERM",
            "sync",
            "a b",
            "true",
            "5",
            "~",
            "[",
            "é",
        ])
        .prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!([])),
        Just(json!(["10.0.0.0/8"])),
        Just(json!({})),
        Just(json!({ "port": 1 })),
    ];
    let mut names: Vec<String> = generate::key_paths(&schema_value())
        .iter()
        .map(|path| path.rsplit('.').next().unwrap().to_owned())
        .collect();
    names.push("ro le".to_owned());
    let change = (
        any::<prop::sample::Index>(),
        values,
        prop::sample::select(names),
        0..3,
    );
    (
        prop_oneof![prop::sample::select(files), generate::document(&schema_value())],
        prop::collection::vec(change, 0..3),
    )
        .prop_map(|(mut file, changes)| {
            for (index, value, key, how) in changes {
                let mut paths = Vec::new();
                places(&file, "", &mut paths);
                let path = &paths[index.index(paths.len())];
                let place = file.pointer_mut(path).unwrap();
                match (how, place) {
                    (1, Value::Object(keys)) => {
                        keys.insert(key, value);
                    }
                    (2, Value::Object(keys)) => {
                        let names: Vec<String> = keys.keys().cloned().collect();
                        if !names.is_empty() {
                            keys.remove(&names[index.index(names.len())]);
                        }
                    }
                    (_, place) => *place = value,
                }
            }
            file
        })
}

fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(keys) => {
            for (name, value) in keys {
                places(value, &format!("{at}/{}", generate::escaped(name)), out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

/// The law over changed documents; each verdict must be common among them, else a side was not tried.
#[test]
fn validator_and_schema_agree() {
    let counts = [const { Cell::new(0) }; 3];
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    };
    let outcome = TestRunner::new(config).run(&changed(), |document| {
        let verdict = judge(&document).map_err(TestCaseError::fail)?;
        let count = &counts[verdict as usize];
        count.set(count.get() + 1);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.iter().all(|count| count.get() > 150), "{counts:?}");
}
