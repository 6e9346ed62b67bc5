//! Keys of the format whose behaviour is not built yet: they are validated, and then reported with what happens instead.
//!
//! When a behaviour is built, its row goes; when all rows are gone, so does this file. Only data and the look-up of it.

use super::file::{Entry, Node};
use super::model::{Desired, Unsupported};

struct Row {
    /// How the key is called in the report.
    key: &'static str,
    /// Where it stands, if what it asks for is not built.
    found: Found,
    /// What happens instead.
    instead: &'static str,
}

enum Found {
    /// Wherever the key itself is present.
    Present,
    /// Only in this case; the entry says the line.
    When(for<'a> fn(&'a Node, &Desired) -> Option<&'a Entry>),
}

const NOT_BUILT: &[Row] = &[
    Row {
        key: "archive",
        found: Found::Present,
        instead: "no base backups are made and no WAL is archived",
    },
    Row {
        key: "racedb.prewarm",
        found: Found::Present,
        instead: "the application is loaded when the gate opens",
    },
    Row {
        key: "racedb.health",
        found: Found::Present,
        instead: "the application counts as well while it runs",
    },
    Row {
        key: "racedb.start_timeout",
        found: Found::Present,
        instead: "the application may take any time to start",
    },
    Row {
        key: "racedb.port",
        found: Found::When(|root, _| root.find("racedb.listen").and_then(|_| root.find("racedb.port"))),
        instead: "the application answers on the port of `racedb.listen` itself",
    },
    Row {
        key: "address",
        found: Found::Present,
        instead: "no network address is moved",
    },
    Row {
        key: "safety.keep_set_aside",
        found: Found::Present,
        instead: "set-aside copies are kept until somebody removes them",
    },
];

/// The keys of the file that are valid and have no behaviour yet.
pub fn collect(root: &Node, desired: &Desired) -> Vec<Unsupported> {
    let rows = NOT_BUILT.iter().filter_map(|row| {
        let entry = match row.found {
            Found::Present => root.find(row.key)?,
            Found::When(find) => find(root, desired)?,
        };
        Some(Unsupported {
            key: row.key.to_owned(),
            line: entry.at.line,
            instead: row.instead.to_owned(),
        })
    });
    rows.collect()
}
