//! The format of the state file: one file per rule in `state_file/{valid,invalid}`, and what is said about each. That the
//! validator and the published JSON schema agree on all files is in `state_schema.rs`.
//!
//! A comment `# test: …` in a file sets the stage: `root`, `--node NAME`, or `not in the schema` for a rule that a JSON
//! schema cannot express.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use camino::Utf8Path;
use paceline::desired::edit::{NotEdited, set_role};
use paceline::desired::file::parse;
use paceline::desired::{
    Diagnostic, MANAGED_SETTINGS, Role, Surroundings, diagnostic, load, locate, schema, validate,
};
use proptest::prelude::*;
use serde_json::Value;

/// A laptop that is called bravo and whose daemon runs as the user crew.
fn crew() -> Surroundings {
    Surroundings {
        path: "/etc/paceline/state.yaml".into(),
        root: false,
        user: "crew".to_owned(),
        hostname: "bravo.race.local".to_owned(),
        node: None,
        addresses: vec!["192.168.40.17".parse().unwrap(), "fe80::17".parse().unwrap()],
        state_home: "/home/crew/.local/state".into(),
    }
}

fn stage(text: &str) -> Surroundings {
    let mut surroundings = crew();
    for line in text.lines().filter_map(|line| line.strip_prefix("# test: ")) {
        if line == "root" {
            surroundings.root = true;
            "root".clone_into(&mut surroundings.user);
        } else if let Some(name) = line.strip_prefix("--node ") {
            surroundings.node = Some(name.to_owned());
        } else {
            assert_eq!(line, "not in the schema");
        }
    }
    surroundings
}

fn corpus(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(read)
        .collect()
}

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(&schema()).unwrap()).unwrap()
}

/// What a program that knows nothing of Paceline reads; `None`: it is not YAML.
fn as_json(text: &str) -> Option<Value> {
    let options = serde_yaml::options! { strict_booleans: true };
    serde_yaml::from_str_with_options(text, options).ok()
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostic::render("state.yaml", diagnostics)
}

fn snapshots(directory: &str) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("state_file/{directory}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_valid_file_is_accepted_by_us_and_by_the_schema() {
    let schema = validator();
    for (name, text) in corpus("tests/state_file/valid") {
        let desired = validate(&text, &stage(&text)).map_err(|problems| rendered(&problems));
        let mut desired = desired.unwrap_or_else(|problems| panic!("{name}:\n{problems}"));
        // These change with every version; they have a test of their own.
        desired.unsupported.clear();
        snapshots("declared").bind(|| insta::assert_debug_snapshot!(name.as_str(), desired));
        let problems: Vec<String> = schema
            .iter_errors(&as_json(&text).unwrap())
            .map(|e| format!("{}: {e}", e.instance_path))
            .collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn every_invalid_file_is_refused_in_plain_words_and_by_the_schema() {
    let schema = validator();
    let mut wrong = Vec::new();
    for (name, text) in corpus("tests/state_file/invalid") {
        let problems = validate(&text, &stage(&text)).expect_err(&name);
        snapshots("messages").bind(|| insta::assert_snapshot!(name.as_str(), rendered(&problems)));
        for problem in &problems {
            assert!(
                problem.help.is_some(),
                "{name} does not say what to do: {}",
                problem.message
            );
        }
        let refused = as_json(&text).is_none_or(|value| !schema.is_valid(&value));
        let beyond = text.contains("# test: not in the schema");
        if refused == beyond {
            wrong.push(format!(
                "{name}: refused by the schema: {refused}, marked as beyond it: {beyond}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_message_is_left_over() {
    for (messages, files) in [("messages", "invalid"), ("declared", "valid")] {
        let names: Vec<String> = corpus(&format!("tests/state_file/{files}"))
            .into_iter()
            .map(|file| file.0)
            .collect();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/state_file")
            .join(messages);
        for entry in fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            if let Some(name) = file.strip_suffix(".snap").filter(|name| !name.starts_with('_')) {
                assert!(
                    names.iter().any(|known| known == name),
                    "{file} belongs to no file of the corpus"
                );
            }
        }
    }
}

#[test]
fn the_committed_schema_is_the_current_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/state.schema.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == schema(),
        "out of date; run: paceline schema > schema/state.schema.json"
    );
}

#[test]
fn every_key_of_the_schema_has_a_description() {
    fn walk(at: &str, value: &Value) {
        if let Some(Value::Object(properties)) = value.get("properties") {
            for (name, property) in properties {
                assert!(
                    property.get("description").is_some(),
                    "{at}/{name} has no description"
                );
            }
        }
        if let Value::Object(inner) = value {
            inner
                .iter()
                .for_each(|(name, value)| walk(&format!("{at}/{name}"), value));
        }
    }
    walk("", &serde_json::from_str(&schema()).unwrap());
}

#[test]
fn every_managed_setting_is_refused() {
    for name in MANAGED_SETTINGS {
        let text = format!(
            "role: primary\npostgres: {{ settings: {{ {} : x }} }}\n",
            name.to_uppercase()
        );
        let problems = validate(&text, &crew()).expect_err(name);
        assert!(
            rendered(&problems).contains("is managed by Paceline"),
            "{}",
            rendered(&problems)
        );
    }
}

#[test]
fn a_file_of_another_encoding_is_refused_with_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.yaml");
    fs::write(&path, b"role: primary\nnode: caf\xe9\n").unwrap();
    let surroundings = Surroundings {
        path: path.try_into().unwrap(),
        ..crew()
    };
    let message = load(&surroundings).unwrap_err().to_string();
    assert!(
        message.contains("state.yaml:2:10: the byte 0xe9 at position 23 of the file is not UTF-8"),
        "{message}"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::try_from(directory.path().to_owned()).unwrap();
    let load_from = |path| load(&Surroundings { path, ..crew() }).unwrap_err().to_string();
    assert!(load_from(path.clone()).contains("it is not a file"));
    assert!(load_from(path.join("state.yaml")).contains("there is no such file"));
    assert!(load_from("/dev/zero".into()).contains("it is not a file"));
    fs::write(path.join("big"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(load_from(path.join("big")).contains("longer than 1024 kB"));
    nix::unistd::mkfifo(path.join("pipe").as_std_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(load_from(path.join("pipe")).contains("it is not a file"));
}

#[test]
fn the_machine_can_be_looked_at() {
    let path = locate(Some(Utf8Path::new("here/state.yaml"))).unwrap();
    assert!(path.is_absolute() && path.ends_with("here/state.yaml"));
    let surroundings = Surroundings::detect(&path, Some("bravo".to_owned())).unwrap();
    assert_eq!(
        (surroundings.path, surroundings.node.as_deref()),
        (path, Some("bravo"))
    );
    assert!(surroundings.state_home.is_absolute());
    assert!(!surroundings.user.is_empty() && !surroundings.hostname.is_empty());
    assert!(
        surroundings
            .addresses
            .iter()
            .all(|address| !address.is_loopback())
    );
}

/// Who edits a word of the file in place needs to know exactly which bytes it takes.
#[test]
fn every_value_knows_its_bytes() {
    for (text, word) in [
        ("role: primary # é\n", "primary"),
        ("\u{feff}# é\r\nrole:   \"standby\"\r\n", "\"standby\""),
        ("{ node: ö, role: failover }", "failover"),
    ] {
        let (root, problems) = parse(text);
        assert_eq!(problems, []);
        assert_eq!(
            &text[root.unwrap().find("role").unwrap().value.at.bytes.clone()],
            word
        );
    }
}

/// Every valid file can be given every role that it has what it takes for, and no other byte of it changes.
#[test]
fn the_role_of_every_valid_file_can_be_changed() {
    let mut changed = 0;
    for (name, text) in corpus("tests/state_file/valid") {
        for role in [Role::Primary, Role::Standby, Role::Failover, Role::Recovery] {
            let edited = match set_role(&text, &stage(&text), role) {
                Ok(edited) => edited,
                Err(NotEdited::WouldBeInvalid(problems)) if role == Role::Recovery => {
                    assert!(rendered(&problems).contains("what to restore"), "{name}");
                    continue;
                }
                Err(error) => panic!("{name}: {error:?}"),
            };
            let word = |text: &str| {
                let root = parse(text).0.unwrap();
                root.find(&edited.key).unwrap().value.at.bytes.clone()
            };
            let (old, new) = (word(&text), word(&edited.text));
            assert_eq!(text[..old.start], edited.text[..new.start], "{name}");
            assert_eq!(text[old.end..], edited.text[new.end..], "{name}");
            let unquoted = |word: &str| word.trim_matches(['"', '\'']).to_owned();
            assert_eq!(unquoted(&edited.text[new]), role.word(), "{name}");
            if edited.before == role {
                assert_eq!(edited.text, text, "{name}");
                continue;
            }
            let back = set_role(&edited.text, &stage(&text), edited.before);
            assert_eq!(back.unwrap().text, text, "{name}");
            changed += 1;
        }
    }
    assert!(changed > 60, "{changed}");
}

#[test]
fn a_huge_file_is_refused_quickly_and_briefly() {
    let keys: Vec<String> = (0..2000).map(|n| format!("key{n}: {n}")).collect();
    let keys = keys.join("\n");
    let list = format!(
        "role: primary\npostgres: {{ allow: [{}] }}\n",
        "1,".repeat(400_000)
    );
    let long = format!("role: {}\n", "x".repeat(1_000_000));
    for text in [
        keys,
        list,
        long,
        "[".repeat(1_000_000),
        "a: ".repeat(300_000),
        "&a [*a]".repeat(100_000),
    ] {
        let message = rendered(&validate(&text, &crew()).unwrap_err());
        assert!(
            message.len() < 10_000,
            "{} bytes: {}…",
            message.len(),
            &message[..500]
        );
    }
}

#[test]
fn all_that_is_not_built_yet_is_told() {
    let mut told = String::new();
    for (name, text) in corpus("tests/state_file/valid") {
        if matches!(
            name.as_str(),
            "everything" | "nodes-by-key" | "nodes-by-host-name" | "recovery-latest"
        ) {
            for key in validate(&text, &stage(&text)).unwrap().unsupported {
                writeln!(told, "{name}:{}: {} — {}", key.line, key.key, key.instead).unwrap();
            }
        }
    }
    snapshots("declared").bind(|| insta::assert_snapshot!("_unsupported", told));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_text_is_answered(text in prop_oneof![".*", "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#?~ \\n\\t]{0,80}"]) {
        if let Err(problems) = validate(&text, &crew()) {
            prop_assert!(!problems.is_empty());
            rendered(&problems);
        }
    }

    #[test]
    fn any_damage_to_a_valid_file_is_answered(
        file in prop::sample::select(corpus("tests/state_file/valid")),
        at in any::<prop::sample::Index>(),
        length in 0..20_usize,
        instead in prop_oneof![Just(String::new()), "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#?~ \\n\\t]{0,5}", ".{0,3}"],
    ) {
        let characters: Vec<char> = file.1.chars().collect();
        let at = at.index(characters.len());
        let damaged: String =
            characters[..at].iter().copied().chain(instead.chars()).chain(characters[at..].iter().copied().skip(length)).collect();
        if let Err(problems) = validate(&damaged, &crew()) {
            prop_assert!(!problems.is_empty());
            rendered(&problems);
        }
    }
}
