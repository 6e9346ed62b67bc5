//! The structure that the design asks for, enforced: what is pure stays pure, and who may use whom.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(place: &str) -> Vec<(PathBuf, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place);
    if path.is_file() {
        return vec![(path.clone(), fs::read_to_string(path).expect("read"))];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&path)
        .expect("a folder of src")
        .map(|entry| entry.expect("entry").path())
    {
        if entry.is_dir() {
            found.extend(sources(
                entry
                    .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
                    .expect("below")
                    .to_str()
                    .expect("UTF-8"),
            ));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push((entry.clone(), fs::read_to_string(&entry).expect("read")));
        }
    }
    found
}

/// The code alone: no comments, no tests at the end of the file.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().expect("first part");
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn forbid(place: &str, words: &[&str], why: &str) {
    let files = sources(place);
    assert!(!files.is_empty(), "{place} holds nothing");
    for (path, text) in files {
        let code = code(&text);
        for word in words {
            assert!(!code.contains(word), "{} uses {word}: {why}", path.display());
        }
    }
}

#[test]
fn decisions_are_pure() {
    let impure = [
        "std::fs",
        "std::process",
        "std::env",
        "std::net::Tcp",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "tokio",
        "async ",
        ".await",
        "nix::",
        "rustix::",
        "crate::sys",
        "crate::probe",
        "crate::exec",
        "crate::supervise",
        "tracing::",
    ];
    for place in [
        "plan",
        "observed",
        "lineage",
        "digest.rs",
        "desired/edit.rs",
        "desired/fresh.rs",
        "desired/model.rs",
        "desired/validate.rs",
    ] {
        forbid(place, &impure, "what decides must be a function of its arguments");
    }
}

#[test]
fn probes_change_nothing_and_decide_nothing() {
    let changes = [
        "fs::write",
        "fs::remove",
        "fs::rename",
        "write_durably",
        "crate::exec",
        "plan::plan",
        "plan::gate",
        "File::create",
    ];
    forbid("probe", &changes, "a probe only looks");
}

#[test]
fn the_link_only_reads_and_decides_nothing() {
    forbid(
        "peer",
        &[
            "crate::plan",
            "crate::exec",
            "crate::reconcile",
            "crate::supervise",
        ],
        "it says what the other laptop said",
    );
}

#[test]
fn supervision_has_no_policy() {
    forbid(
        "supervise",
        &[
            "crate::plan",
            "crate::probe",
            "crate::exec",
            "crate::desired",
            "crate::observed",
            "crate::reconcile",
        ],
        "it knows processes, not roles",
    );
}

#[test]
fn the_operating_system_layer_knows_no_roles() {
    forbid(
        "sys",
        &[
            "crate::plan",
            "crate::probe",
            "crate::exec",
            "crate::desired",
            "crate::supervise",
        ],
        "it is below all",
    );
}

#[test]
fn only_one_place_is_unsafe() {
    for (path, text) in sources("") {
        let below_sys = path.components().any(|part| part.as_os_str() == "sys");
        assert!(
            below_sys || !code(&text).contains("unsafe "),
            "{} has unsafe code",
            path.display()
        );
    }
}

#[test]
fn only_one_file_knows_the_yaml_library() {
    for (path, text) in sources("") {
        let file = path.ends_with("desired/file.rs");
        assert!(
            file || !code(&text).contains("serde_yaml"),
            "{} uses the YAML library",
            path.display()
        );
    }
}

#[test]
fn the_demo_is_a_user_like_any_other() {
    forbid(
        "cli/demo",
        &[
            "crate::plan",
            "crate::exec",
            "crate::probe",
            "crate::peer",
            "crate::observed",
            "crate::reconcile",
        ],
        "it shows what the daemons do, and does nothing of it itself",
    );
}

#[test]
fn what_is_seen_from_outside_decides_nothing() {
    for place in ["api", "status.rs", "status", "history.rs"] {
        forbid(
            place,
            &[
                "plan::plan",
                "checked_plan",
                "crate::exec",
                "crate::probe",
                "crate::reconcile",
            ],
            "it shows what was decided",
        );
    }
}

#[test]
fn effects_decide_nothing() {
    forbid(
        "exec",
        &[
            "plan::plan(",
            "checked_plan",
            "plan::gate(",
            "crate::reconcile",
            "crate::api",
            "crate::cli",
        ],
        "an effect does what it is told",
    );
}

/// The planner's rows name every case: a combination that nobody thought of is a compile error, not a default.
#[test]
fn rows_have_no_catch_all() {
    for place in [
        "plan/primary.rs",
        "plan/standby.rs",
        "plan/failover.rs",
        "plan/recovery.rs",
        "plan/conflict.rs",
    ] {
        for (path, text) in sources(place) {
            let lazy = code(&text)
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with("_ =>") || line.starts_with("_ if"))
                .map(ToOwned::to_owned);
            assert_eq!(lazy, None, "{}", path.display());
        }
    }
}
