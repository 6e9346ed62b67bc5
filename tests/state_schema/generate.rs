//! Documents made from the schema: every key of it, with the values that it allows.
//!
//! Where the schema only says "text", most values come from a list of good ones, so that what is made is usually a file
//! that a person could have written; the rest is any text that the schema lets pass.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

/// The path of a key below another; the names that a person chooses are `*`.
pub fn below(at: &str, name: &str) -> String {
    let chosen = ["nodes", "postgres.settings", "racedb.environment"].contains(&at);
    let name = if chosen { "*" } else { name };
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

/// A name in a JSON pointer.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Where a document has this key.
pub fn pointer(document: &Value, path: &str) -> Option<String> {
    fn walk(value: &Value, at: &str, pointer: &str, path: &str) -> Option<String> {
        if at == path {
            return Some(pointer.to_owned());
        }
        value.as_object()?.iter().find_map(|(name, value)| {
            let pointer = format!("{pointer}/{}", escaped(name));
            walk(value, &below(at, name), &pointer, path)
        })
    }
    walk(document, "", "", path)
}

/// The paths of all keys that the schema knows.
pub fn key_paths(root: &Value) -> BTreeSet<String> {
    fn walk(root: &Value, schema: &Value, at: &str, out: &mut BTreeSet<String>) {
        let schema = resolved(root, schema);
        for choice in ["anyOf", "oneOf"] {
            for choice in schema[choice].as_array().into_iter().flatten() {
                walk(root, choice, at, out);
            }
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if *inner != json!(false) {
                walk(root, inner, &below(at, name), out);
                out.insert(below(at, name));
            }
        }
        if schema["additionalProperties"].is_object() {
            walk(root, &schema["additionalProperties"], &below(at, "*"), out);
            out.insert(below(at, "*"));
        }
    }
    let mut out = BTreeSet::new();
    walk(root, root, "", &mut out);
    out
}

fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
    {
        Some(pointer) => root.pointer(pointer).expect("a definition"),
        None => schema,
    }
}

/// A state file.
pub fn document(root: &Value) -> BoxedStrategy<Value> {
    // `role` or `nodes`, and `peer` only with the first: what the `oneOf` at the top says.
    let all = root["properties"].as_object().expect("keys");
    let keys = |left_out: &[&str]| -> Map<String, Value> {
        let kept = all.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        kept.map(|(name, schema)| (name.clone(), schema.clone()))
            .collect()
    };
    prop_oneof![
        2 => object(root, &keys(&["nodes"]), &["role"], ""),
        1 => object(root, &keys(&["role", "peer"]), &["nodes"], ""),
    ]
    .boxed()
}

fn value(root: &Value, schema: &Value, at: &str) -> BoxedStrategy<Value> {
    let schema = resolved(root, schema);
    if let Some(constant) = schema.get("const") {
        return Just(constant.clone()).boxed();
    }
    if let Some(words) = schema["enum"].as_array() {
        return prop::sample::select(words.clone()).boxed();
    }
    let choices: Vec<_> = ["anyOf", "oneOf"]
        .iter()
        .filter_map(|key| schema[*key].as_array())
        .flatten()
        .map(|choice| value(root, choice, at))
        .collect();
    if !choices.is_empty() {
        return prop::strategy::Union::new(choices).boxed();
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at}: a type that is not known here: {other}"),
    };
    let kinds = kinds.into_iter().map(|kind| of_kind(root, schema, kind, at));
    prop::strategy::Union::new(kinds).boxed()
}

fn of_kind(root: &Value, schema: &Value, kind: &str, at: &str) -> BoxedStrategy<Value> {
    match kind {
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let least = schema["minimum"].as_i64().expect("a least");
            let most = schema["maximum"].as_i64().expect("a most");
            // The ends as often as all that is between them.
            prop_oneof![Just(least), Just(most), least..=most]
                .prop_map(Value::from)
                .boxed()
        }
        "number" => prop_oneof![
            any::<i32>().prop_map(Value::from),
            any::<f32>().prop_filter_map("a number", |number| serde_json::Number::from_f64(number.into())
                .map(Value::from)),
        ]
        .boxed(),
        "string" => text(schema, at),
        "array" => {
            let least = usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).expect("small");
            prop::collection::vec(value(root, &schema["items"], at), least..least + 3)
                .prop_map(Value::from)
                .boxed()
        }
        "object" => match schema["properties"].as_object() {
            Some(properties) => {
                let one = schema["maxProperties"] == 1;
                let required: Vec<&str> = schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                if one {
                    let single = properties.iter().map(|(name, inner)| {
                        let name = name.clone();
                        value(root, inner, &below(at, &name))
                            .prop_map(move |value| json!({ name.as_str(): value }))
                    });
                    prop::strategy::Union::new(single).boxed()
                } else {
                    object(root, properties, &required, at)
                }
            }
            None => map(root, schema, at),
        },
        other => panic!("{at}: {other} is not known here"),
    }
}

/// The needed keys, and of the others now and then one.
fn object(
    root: &Value,
    properties: &Map<String, Value>,
    required: &[&str],
    at: &str,
) -> BoxedStrategy<Value> {
    let keys: Vec<_> = properties
        .iter()
        .map(|(name, schema)| {
            let name = name.clone();
            let needed = required.contains(&name.as_str());
            let value = value(root, schema, &below(at, &name)).prop_map(Some);
            let value = if needed {
                value.boxed()
            } else {
                prop_oneof![1 => value, 3 => Just(None)].boxed()
            };
            value.prop_map(move |value| Some((name.clone(), value?)))
        })
        .collect();
    keys.prop_map(|keys| keys.into_iter().flatten().collect::<Map<_, _>>().into())
        .boxed()
}

/// Names that a person chooses.
fn map(root: &Value, schema: &Value, at: &str) -> BoxedStrategy<Value> {
    let pattern = schema["propertyNames"]["pattern"]
        .as_str()
        .expect("a pattern of names");
    let good: &[&str] = match at {
        "nodes" => &["alpha", "bravo", "bravo.race.local", "BRAVO"],
        "postgres.settings" => &["work_mem", "jit", "JIT", "auto_explain.log_min_duration"],
        _ => &["TZ", "LANG", "_x9"],
    };
    let name =
        prop_oneof![4 => prop::sample::select(good).prop_map(ToOwned::to_owned), 1 => matching(pattern)];
    let least = usize::try_from(schema["minProperties"].as_u64().unwrap_or(0)).expect("small");
    let most = usize::try_from(schema["maxProperties"].as_u64().unwrap_or(3)).expect("small");
    let inner = value(root, &schema["additionalProperties"], &below(at, "*"));
    prop::collection::btree_map(name, inner, least..=most)
        .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into())
        .boxed()
}

fn text(schema: &Value, at: &str) -> BoxedStrategy<Value> {
    let good: &[&str] = match at {
        "peer" => &[
            "alpha",
            "alpha.local:5433",
            "10.0.0.9",
            "[fd00::9]:5433",
            "fd00::9",
        ],
        "peer.host" | "nodes.*.address" => &["alpha", "10.0.0.9", "192.168.40.17", "fd00::9"],
        "node" => &["bravo", "alpha"],
        "postgres.os_user" | "racedb.user" => &["crew"],
        "postgres.allow" => &["10.0.0.0/8", "192.168.40.0/24", "fd00::/8", "0.0.0.0/0"],
        "postgres.hba" => &["host all all 10.0.0.0/8 scram-sha-256", "local\tall all peer"],
        "racedb.listen" => &["0.0.0.0:8080", "127.0.0.1:8081", "[::]:8082"],
        "api.listen" => &["0.0.0.0:8432", "127.0.0.1:9000"],
        "address.virtual_ip" => &["192.168.40.10/24", "fd00::10/64"],
        "replication.max_slot_wal_keep_size" => &["4GB", "100 MB", "1kB", "2TB"],
        "racedb.start_timeout" | "archive.base_backup_every" => &["60s", "1h 30m", "5min"],
        "racedb.stop.grace" | "safety.peer_wait" => &["0s", "500ms", "2d"],
        path if path.ends_with("directory") => &["/srv/a", "b/ü c", "../d", "/srv/e/data"],
        path if path.ends_with("file") || path.ends_with("home") || path.ends_with("from") => {
            &["/srv/h", "i j", "/media/usb/r.tar.zst"]
        }
        _ => &[],
    };
    let any = match schema["pattern"].as_str() {
        Some(pattern) => matching(pattern),
        None => {
            let least = schema["minLength"].as_u64().unwrap_or(0);
            prop_oneof![
                4 => matching(&format!("^[ -~äé中]{{{least},12}}$")),
                1 => matching(&format!("^.{{{least},12}}$")),
            ]
            .boxed()
        }
    };
    if good.is_empty() {
        return any.prop_map(Value::from).boxed();
    }
    prop_oneof![
        9 => prop::sample::select(good).prop_map(Value::from),
        1 => any.prop_map(Value::from),
    ]
    .boxed()
}

/// Texts of a pattern of the schema, not longer than people write.
fn matching(pattern: &str) -> BoxedStrategy<String> {
    let inner = pattern.strip_prefix('^').expect("from the beginning");
    let whole = inner.strip_suffix('$');
    let text = string_regex(whole.unwrap_or(inner)).expect("a pattern");
    match whole {
        Some(_) => text.boxed(),
        // What follows is free.
        None => (text, "[ -~]{0,12}")
            .prop_map(|(head, tail)| head + &tail)
            .boxed(),
    }
}
