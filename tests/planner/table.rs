//! The decision table as it is, rendered for a person: rows that come to the same are folded, in the other laptop's
//! facts as well as in our own. What has to be announced is announced and heard here, so that the act shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use paceline::desired::Role;
use paceline::observed::{Contradiction, Data, DataState, Flag, Peer, SeesUs, Server, Unanswered};
use paceline::plan::{End, plan};

use super::product::{Extra, Heard, Other, REMEMBERS, Remembers, STANDS, Stands, all_data, usual};
use super::world::{Copy, ROLES, desired, now, shown};

/// The other laptop: words from the coarsest to the finest, and itself.
struct Row {
    words: Vec<String>,
    other: Other,
    extra: Extra,
}

impl Row {
    fn new(words: &[&str], other: Other) -> Self {
        Self {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            other,
            extra: Extra::Nothing,
        }
    }

    fn with(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }
}

const DECLARED: [(Option<Role>, &str); 4] = [
    (Some(Role::Primary), "declared primary"),
    (Some(Role::Standby), "declared standby"),
    (Some(Role::Failover), "declared failover"),
    (None, "without a daemon"),
];

const READ_ONLY: Server = Server::ReadOnly { streaming: false };

fn known(role: Option<Role>, data: DataState, server: Server, stands: Stands, flag: Option<Flag>) -> Other {
    Other::Known {
        role,
        data,
        server: Some(server),
        stands: data.holds_data().then_some(stands),
        flag,
    }
}

/// What makes no difference in any row, or is a matter of the properties, is left out.
fn others() -> Vec<Row> {
    let mut rows = vec![Row::new(&["none"], Other::None)];
    for memory in REMEMBERS {
        let word = remembered(memory);
        let silent = |settled| Other::Silent {
            how: Unanswered::Silent,
            settled,
            memory,
        };
        if matches!(memory, Remembers::Twins | Remembers::Stranger) {
            rows.push(Row::new(&[word, "silent"], silent(true)));
            continue;
        }
        rows.push(Row::new(&["silent, not settled", word], silent(false)));
        rows.push(Row::new(&["silent", word], silent(true)));
        rows.push(Row::new(
            &["another secret", word],
            Other::Unauthenticated(memory),
        ));
    }
    let copies = [
        (DataState::Empty, Server::Down, "empty"),
        (DataState::Tainted, Server::Down, "tainted"),
        (DataState::Primary, Server::Writable, "writes"),
        (DataState::Primary, Server::Down, "primary, down"),
        (DataState::Replica, READ_ONLY, "replica"),
    ];
    for (data, server, copy) in copies {
        for stands in STANDS {
            let relation = format!("we are {stands:?}").to_lowercase();
            let conflict = matches!(stands, Stands::Twins | Stands::Stranger);
            if stands == Stands::NoHistory || (!data.holds_data() && stands != Stands::Behind) {
                continue;
            }
            for (role, declared) in DECLARED {
                let other = known(role, data, server, stands, None);
                rows.push(if conflict {
                    let conflict = if stands == Stands::Twins {
                        "twins"
                    } else {
                        "stranger"
                    };
                    Row::new(&[conflict, copy, declared], other)
                } else if data.holds_data() {
                    Row::new(&[copy, &relation, declared], other)
                } else {
                    Row::new(&[copy, declared], other)
                });
            }
        }
    }
    for (flag, announces) in [
        (Flag::Starting, "announces that it starts"),
        (Flag::Taking, "announces that it takes over"),
    ] {
        for (data, server, copy) in copies {
            if !data.holds_data() || server == Server::Writable {
                continue;
            }
            for (role, declared) in DECLARED {
                if role.is_some() {
                    let other = known(role, data, server, Stands::Equal, Some(flag));
                    rows.push(Row::new(&[announces, copy, declared], other));
                }
            }
        }
    }
    for (extra, word) in [
        (Extra::Ready, "streams from us and saw our role"),
        (Extra::TheyGave, "handed over, we hold all of it"),
        (Extra::TheyGavePart, "handed over, we lack a part"),
        (Extra::WeGave, "we handed over"),
        (Extra::BothGave, "both handed over"),
    ] {
        for stands in [Stands::Equal, Stands::Ahead] {
            let relation = format!("we are {stands:?}").to_lowercase();
            for (role, declared) in DECLARED {
                let other = known(role, DataState::Replica, READ_ONLY, stands, None);
                if role.is_some() {
                    rows.push(Row::new(&[word, &relation, declared], other).with(extra));
                }
            }
        }
    }
    rows
}

fn remembered(memory: Remembers) -> &'static str {
    match memory {
        Remembers::Nothing => "never seen",
        Remembers::Unreadable => "memory unreadable",
        Remembers::Standby => "was a standby",
        Remembers::Taking => "was taking",
        Remembers::Failover => "was a replica in failover",
        Remembers::TookOver => "took over",
        Remembers::TookOverUnnamed => "took over, unnamed",
        Remembers::Twins => "twins",
        Remembers::Stranger => "stranger",
    }
}

fn ours(data: &Data, server: Server) -> String {
    let data = match data {
        Data::Empty => "empty",
        Data::NotOurs(_) => "not ours",
        Data::Tainted => "tainted",
        Data::Primary { crashed: false } => "primary",
        Data::Primary { crashed: true } => "primary, crashed",
        Data::Replica => "replica",
        Data::Recovering => "recovering",
        Data::Unclear(Contradiction::SignalFileGone) => "unclear (signal file gone)",
        Data::Unclear(Contradiction::BackupLabel) => "unclear (backup_label)",
        Data::Unclear(Contradiction::ControlUnreadable(_)) => "unclear (pg_control)",
    };
    match server {
        Server::Down => format!("{data}, down"),
        Server::Writable => "writable".to_owned(),
        Server::ReadOnly { streaming: true } => format!("{data}, streaming"),
        Server::ReadOnly { streaming: false } => format!("{data}, not streaming"),
        Server::Starting => format!("{data}, starting"),
        Server::Stopping => format!("{data}, stopping"),
    }
}

/// What is decided beside each of these, folded: words with the same below them stand in one line.
fn fold(rows: &[(&[String], &str)], depth: usize, whole: bool, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth + 1);
    let mut groups: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for (path, _) in rows {
        if !words.contains(&path[0].as_str()) {
            words.push(&path[0]);
        }
    }
    for word in words {
        let below: Vec<(&[String], &str)> = rows
            .iter()
            .filter(|(path, _)| path[0] == word)
            .map(|(path, what)| (&path[1..], *what))
            .collect();
        let outcomes: BTreeSet<&str> = below.iter().map(|(_, what)| *what).collect();
        let mut text = Vec::new();
        match outcomes.first() {
            Some(only) if outcomes.len() == 1 => text.push(format!("=> {only}")),
            _ => fold(&below, depth + 1, true, &mut text),
        }
        match groups.iter_mut().find(|(_, other)| *other == text) {
            Some((words, _)) => words.push(word),
            None => groups.push((vec![word], text)),
        }
    }
    // What most come to needs no list.
    let most = groups
        .iter()
        .enumerate()
        .max_by_key(|(_, (words, _))| words.len())
        .filter(|(_, (words, _))| whole && words.len() > 3 && groups.len() > 1)
        .map(|(number, _)| number);
    if let Some(most) = most {
        let mut group = groups.remove(most);
        group.0 = vec!["otherwise"];
        groups.push(group);
    }
    for (words, text) in groups {
        let words = words.join(" | ");
        match text.as_slice() {
            [only] if only.starts_with("=> ") => lines.push(format!("{indent}{words} {only}")),
            _ => {
                lines.push(format!("{indent}{words}"));
                lines.extend(text);
            }
        }
    }
}

/// A state of our own, and what is decided in it beside each of the others.
struct State {
    name: String,
    decided: Vec<String>,
}

/// States alike in one block; one that differs in few rows from an earlier one says only these.
fn table(rows: &[Row], states: &[State]) -> String {
    let mut blocks: Vec<(Vec<&str>, String)> = Vec::new();
    for (number, state) in states.iter().enumerate() {
        let differs = |from: &State, row: usize| from.decided[row] != state.decided[row];
        let count = |from: &State| (0..rows.len()).filter(|row| differs(from, *row)).count();
        let like = states[..number]
            .iter()
            .map(|from| (count(from), from))
            .min_by_key(|(count, _)| *count)
            .filter(|(count, _)| *count <= rows.len() / 3);
        if let Some((0, from)) = like {
            let block = blocks
                .iter_mut()
                .find(|(names, _)| names.contains(&from.name.as_str()));
            block.expect("an earlier state").0.push(&state.name);
            continue;
        }
        // Where something differs, everything beside that kind of other laptop is said again.
        let kinds: BTreeSet<&str> = (0..rows.len())
            .filter(|row| like.is_none_or(|(_, from)| differs(from, *row)))
            .map(|row| rows[row].words[0].as_str())
            .collect();
        let paths: Vec<(&[String], &str)> = (0..rows.len())
            .filter(|row| kinds.contains(rows[*row].words[0].as_str()))
            .map(|row| (rows[row].words.as_slice(), state.decided[row].as_str()))
            .collect();
        let outcomes: BTreeSet<&str> = paths.iter().map(|(_, what)| *what).collect();
        let mut lines = Vec::new();
        if let Some((_, from)) = like {
            lines.push(format!("  as when {}, but", from.name));
        }
        match outcomes.first() {
            Some(only) if outcomes.len() == 1 && like.is_none() => lines.push(format!("  => {only}")),
            _ => fold(&paths, 0, like.is_none(), &mut lines),
        }
        blocks.push((vec![&state.name], lines.join("\n")));
    }
    let mut text = String::new();
    for (names, lines) in blocks {
        let _ = writeln!(text, "{}\n{lines}\n", names.join(" | "));
    }
    text
}

#[test]
fn the_whole_table() {
    let rows = others();
    let mut hints = BTreeSet::new();
    for role in ROLES {
        let mut wanted = usual();
        // What only passes is waited for; that is a matter of the properties.
        wanted.retain(|(data, server)| {
            *server != Server::Stopping && !(*data == Data::Replica && *server == Server::Starting)
        });
        wanted.push((Data::Tainted, READ_ONLY));
        let mut states = Vec::new();
        for (data, server) in wanted {
            let flag = match server {
                Server::ReadOnly { .. } => Flag::Taking,
                _ => Flag::Starting,
            };
            let mut decided = Vec::new();
            for row in &rows {
                let desired = desired(role, row.other != Other::None);
                let mut copy = Copy::new(data.clone(), server);
                let mut desired = desired;
                let mut observed = row.other.seen(&mut copy, Some((flag, Heard::Repeated)), &desired);
                if row.extra.apply(&mut desired, &mut observed).is_none() {
                    decided.push("-".to_owned());
                    continue;
                }
                if let (Extra::TheyGave | Extra::TheyGavePart | Extra::BothGave, Peer::Known(facts)) =
                    (row.extra, &mut observed.peer)
                {
                    // What we announce is repeated by whoever handed over.
                    facts.sees = Some(SeesUs {
                        role: Some(role),
                        flag: Some(flag),
                    });
                }
                let plan = plan(&desired, &observed, now());
                hints.extend(match &plan.end {
                    End::Blocked(blocked) => Some((blocked.to_string(), blocked.hint())),
                    End::Waiting(waiting) => waiting.hint().map(|hint| (waiting.to_string(), hint)),
                    End::Converged => None,
                });
                decided.push(shown(&plan));
            }
            states.push(State {
                name: ours(&data, server),
                decided,
            });
        }
        snapshot(&format!("planner__table_{role}"), &table(&rows, &states));
    }
    let mut told = String::new();
    for (what, hint) in hints {
        let _ = writeln!(told, "{what}\n  -> {hint}");
    }
    snapshot("planner__table_hints", &told);
}

/// What a consent allows, wherever one is offered: what is done when the word is there, and beside whom.
#[test]
fn what_a_consent_allows() {
    let mut allowed: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for role in ROLES {
        for (data, server) in usual() {
            for row in others() {
                let mut desired = desired(role, row.other != Other::None);
                let mut copy = Copy::new(data.clone(), server);
                let flag = match server {
                    Server::ReadOnly { .. } => Flag::Taking,
                    _ => Flag::Starting,
                };
                let mut observed = row.other.seen(&mut copy, Some((flag, Heard::Repeated)), &desired);
                let offered = row.extra.apply(&mut desired, &mut observed).and_then(|()| {
                    let offer = plan(&desired, &observed, now()).offer?;
                    Extra::Given.apply(&mut desired, &mut observed).map(|()| offer)
                });
                let Some(offer) = offered else { continue };
                let heading = format!("{role}, {}: {}", ours(&data, server), offer.danger);
                let line = shown(&plan(&desired, &observed, now()));
                let beside = format!("{} ({})", row.words[0], row.words.last().expect("words"));
                allowed.entry((heading, line)).or_default().insert(beside);
            }
        }
    }
    let mut text = String::new();
    let mut last = "";
    for ((heading, line), beside) in &allowed {
        if heading != last {
            let _ = writeln!(text, "{heading}");
            last = heading;
        }
        let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
        let _ = writeln!(text, "  {}\n    => {line}", beside.join(" | "));
    }
    snapshot("planner__table_consents", &text);
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({snapshot_path => "../snapshots", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

/// Nobody adds a state of the directory without it showing here.
#[test]
fn the_table_has_every_state_of_the_directory() {
    for data in all_data() {
        let mut copy = Copy::new(data.clone(), Server::Down);
        let observed = Other::None.seen(&mut copy, None, &desired(Role::Primary, false));
        let shown = observed
            .data
            .known()
            .map(paceline::observed::DataDirectory::state);
        assert_eq!(shown, Some(data), "the model's own");
    }
}
