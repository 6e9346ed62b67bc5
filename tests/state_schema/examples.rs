//! The examples: by a JSON Schema validator that knows nothing of Paceline, with the schema that an editor finds by the
//! file's first line; and by the program itself.

use std::path::Path;
use std::process::Command;

use super::common::editor::{as_json, complaints, schema_of};
use super::common::{root, text};
use super::corpus;

#[test]
fn every_example_is_valid_to_editors_and_to_the_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/state.schema.json");
    let published = published.canonicalize().unwrap();
    let examples = corpus("examples");
    let names: Vec<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    for needed in [
        "laptop-pair",
        "event-profile",
        "single",
        "recovery-stick",
        "debian-cluster",
    ] {
        assert!(names.contains(&needed), "{names:?}");
    }
    for (name, content) in &examples {
        let file = directory.join(format!("{name}.yaml"));
        // As in a checkout, wherever that lies: relative to the file.
        assert!(
            content.starts_with("# yaml-language-server: $schema=../"),
            "{name}"
        );
        assert_eq!(schema_of(&file), published, "{name}");
        let problems = complaints(&published, &as_json(content));
        assert!(problems.is_empty(), "{name}: {problems:#?}");
        let mistaken = format!(
            "{content}
rolle: primary
"
        );
        assert!(
            !complaints(&published, &as_json(&mistaken)).is_empty(),
            "{name}: nothing is checked"
        );

        // Only root may start a server as somebody else.
        if content.contains("os_user:") && !root() {
            continue;
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_paceline"));
        check.arg("check").arg(&file).env_clear();
        if content.contains("nodes:") {
            check.args(["--node", "bravo"]);
        }
        let output = check.output().unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("is valid"), "{name}");
    }
}
