//! What an editor with the YAML language server makes of a state file's first line.
//!
//! Its rule (`resolveSchemaRef` of its schema service): what is no `file:` or `http` address is a path, an absolute one
//! as it stands, any other one beside the file itself; the name ends at the first blank, and a `#` begins a fragment.

use std::fs;
use std::path::{Path, PathBuf};

/// The schema that the file names; it is there.
pub fn schema_of(file: &Path) -> PathBuf {
    let text = fs::read_to_string(file).expect("read");
    // A comment further down, behind the first key, is none of the document's head.
    let line = text.lines().next().expect("a line");
    let named = line
        .strip_prefix("# yaml-language-server:")
        .and_then(|rest| rest.trim().strip_prefix("$schema="))
        .unwrap_or_else(|| panic!("{} names no schema: {line}", file.display()));
    let named = named.split_whitespace().next().expect("a name");
    let path = match named.strip_prefix("file://") {
        Some(address) => PathBuf::from(decoded(address)),
        None => {
            assert!(!named.contains('#'), "{named}");
            // An absolute one replaces what it is joined to.
            file.parent().expect("a directory").join(named)
        }
    };
    path.canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decoded(address: &str) -> String {
    let mut parts = address.split('%');
    let mut bytes = parts.next().expect("a path").as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// What is wrong with a document by a schema file, in the words of a JSON Schema validator.
pub fn complaints(schema: &Path, document: &serde_json::Value) -> Vec<String> {
    let schema = fs::read_to_string(schema).expect("read");
    let schema = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect()
}

/// What a program that knows nothing of Paceline reads.
pub fn as_json(text: &str) -> serde_json::Value {
    let options = serde_yaml::options! { strict_booleans: true };
    serde_yaml::from_str_with_options(text, options).expect("YAML")
}
