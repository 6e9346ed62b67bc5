//! What an editor makes of the files that `init` and `join` write, on a laptop where there is the program and nothing else.

use std::fs;

use super::common::editor::{as_json, complaints, schema_of};
use super::common::{Laptop, text};
use super::pairing::line_of;
use super::{Place, ok};

#[test]
fn a_new_state_file_names_a_schema_that_is_there() {
    let place = Place::new();
    let schema = text(&place.run("schema").stdout);
    // Also with characters that end a name, or mean something in it.
    for (round, home) in ["home", "it's home #1, 50% ö"].into_iter().enumerate() {
        let (first, second) = (format!("first-{round}.yaml"), format!("second-{round}.yaml"));
        let output = place.command(&["init", &first, "--home", home]).output();
        let (_, code) = line_of(&ok(&output.expect("run")));
        ok(&place.run_with(&format!("join 10.99.0.1 {second} --home other-{round}"), &code));
        for file in [first, second] {
            let named = schema_of(&place.path(&file));
            assert_eq!(fs::read_to_string(&named).expect("schema"), schema);
            let state = place.read(&file);
            assert!(complaints(&named, &as_json(&state)).is_empty());
            let mistaken = state.replace("\nrole:", "\nrolle:");
            assert!(!complaints(&named, &as_json(&mistaken)).is_empty());
        }
    }
}

/// After an upgrade the keys of the new version are known as soon as its daemon has started.
#[test]
fn a_daemon_that_starts_brings_the_schema_up_to_date() {
    let mut laptop = Laptop::primary("");
    fs::create_dir(laptop.path("home")).expect("home");
    let path = laptop.path("home/state.schema.json");
    fs::write(&path, "{}").expect("write");
    laptop.start();
    let kept = fs::read_to_string(path).expect("read");
    assert_eq!(kept, text(&Place::new().run("schema").stdout));
}
