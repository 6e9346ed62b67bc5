//! Typed access to the tree of the file that collects every problem instead of stopping at the first.
//!
//! A [`Section`] hands out its keys one by one and remembers their names, so that what is left at the end is unknown,
//! and what was asked for is what a typing mistake may have meant. A reader returns `None` after it has reported what
//! is wrong; whoever asked goes on with a default, since a file with any problem is refused as a whole. Pure.

use std::cell::RefCell;
use std::fmt::Display;

use super::diagnostic::{Diagnostic, MAX_PROBLEMS, Place, closest, quote};
use super::file::{Entry, Kind, Node, ScalarKind, scalar_kind};
use super::schema::key_paths;

/// What is wrong with the file, collected.
pub struct Problems<'a> {
    text: &'a str,
    root: &'a Node,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Problems<'a> {
    /// Starts with what the notation had to complain about.
    pub fn new(text: &'a str, root: &'a Node, found: Vec<Diagnostic>) -> Self {
        Self {
            text,
            root,
            found: RefCell::new(found),
        }
    }

    /// Reports a problem at a place.
    pub fn at(&self, place: &Place, key: &str, message: impl Display, help: impl Display) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_PROBLEMS {
            let diagnostic = Diagnostic::new(self.text, place, key, &message.to_string());
            found.push(diagnostic.help(&help.to_string()));
        }
    }

    /// Reports a problem at the key `path`, or, if it is not declared, at the top of the file.
    pub fn about(&self, path: &str, message: impl Display, help: impl Display) {
        let place = self.root.find(path).map_or(&Place::TOP, |entry| &entry.at);
        self.at(place, path, message, help);
    }

    /// Whether the file declares the key `path`.
    pub fn declared(&self, path: &str) -> bool {
        self.root.find(path).is_some()
    }

    /// All of them, in the order of the file.
    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        found
    }
}

/// A value, the path of keys that leads to it, and where to report what is wrong with it.
#[derive(Clone)]
pub struct Value<'a> {
    /// The path, such as `postgres.allow[1]`.
    pub path: String,
    /// The value itself.
    pub node: &'a Node,
    /// Where problems go.
    pub problems: &'a Problems<'a>,
}

impl<'a> Value<'a> {
    /// Reports that this value is wrong; always `None`, so that it can end a reader.
    pub fn wrong<T>(&self, message: impl Display, help: impl Display) -> Option<T> {
        let message = if self.path.is_empty() {
            message.to_string()
        } else {
            format!("{}: {message}", self.path)
        };
        self.problems.at(&self.node.at, &self.path, message, help);
        None
    }

    /// Reports that another kind of value is needed here.
    pub fn wrong_kind<T>(&self, wanted: &str, help: impl Display) -> Option<T> {
        match self.description() {
            Some(found) => self.wrong(format!("{found} stands here, but {wanted} is needed"), help),
            None => None,
        }
    }

    /// What stands here, in words; `None` if it was reported already.
    fn description(&self) -> Option<String> {
        match &self.node.kind {
            Kind::Bad => None,
            Kind::List(_) => Some("a list".to_owned()),
            Kind::Map(_) => Some("a group of keys".to_owned()),
            Kind::Scalar { text, plain } => Some(match scalar_kind(text, *plain) {
                ScalarKind::Null if text.is_empty() => "nothing".to_owned(),
                ScalarKind::Null => format!("{text} (nothing)"),
                ScalarKind::Bool(_) => format!("the truth value {text}"),
                ScalarKind::Number => format!("the number {text}"),
                ScalarKind::Text => format!("the text {}", quote(text)),
            }),
        }
    }

    /// The scalar and its kind; `None` for anything else, which is left to the caller to report.
    pub fn scalar(&self) -> Option<(&'a str, ScalarKind)> {
        match &self.node.kind {
            Kind::Scalar { text, plain } => Some((text, scalar_kind(text, *plain))),
            Kind::List(_) | Kind::Map(_) | Kind::Bad => None,
        }
    }

    /// What to do where a single value is needed and something else stands.
    fn single_value_help(&self) -> &'static str {
        match self.node.kind {
            Kind::List(_) | Kind::Map(_) => {
                "write a single value, without brackets, dashes or keys of its own"
            }
            Kind::Scalar { .. } | Kind::Bad => "write a value here, or delete the line",
        }
    }

    /// Any scalar, as it is written.
    pub fn any_scalar(&self) -> Option<String> {
        match self.scalar() {
            Some((text, kind)) if kind != ScalarKind::Null => self.printable(text),
            _ => self.wrong_kind("a text or a number", self.single_value_help()),
        }
    }

    /// A text that is not empty.
    pub fn text(&self) -> Option<String> {
        match self.scalar() {
            Some(("", ScalarKind::Text)) => self.wrong(
                "the text is empty",
                "write a value between the quotes, or delete the line",
            ),
            Some((text, ScalarKind::Text)) => self.printable(text),
            Some((text, ScalarKind::Number | ScalarKind::Bool(_))) => self.wrong_kind(
                "a text",
                format!("if {text} is meant as a text, put it in quotes: \"{text}\""),
            ),
            _ => self.wrong_kind("a text", self.single_value_help()),
        }
    }

    /// No value has a use for control characters, and some would end a line of a configuration file.
    fn printable(&self, text: &str) -> Option<String> {
        match text.chars().find(|c| c.is_control() && *c != '\t') {
            None => Some(text.to_owned()),
            Some('\n' | '\r') => self.wrong("the text has more than one line", "write it on one line"),
            Some(other) => self.wrong(
                format!(
                    "the text contains the invisible character U+{:04X}",
                    u32::from(other)
                ),
                "delete the value and type it again",
            ),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self.scalar() {
            Some((_, ScalarKind::Bool(value))) => Some(value),
            _ => self.wrong_kind("true or false", "write true or false, without quotes"),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn number(&self, least: u32, most: u32) -> Option<u32> {
        let wanted = format!("a whole number from {least} to {most}");
        let Some((text, ScalarKind::Number)) = self.scalar() else {
            return match self.scalar() {
                Some((text, ScalarKind::Text)) if text.parse::<u32>().is_ok() => {
                    self.wrong_kind(&wanted, format!("write it without quotes: {text}"))
                }
                _ => self.wrong_kind(&wanted, format!("write {wanted}")),
            };
        };
        // Nothing but digits: `0755` and `1e3` mean different numbers to different people.
        let digits = text.chars().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        match text.parse::<u32>() {
            Ok(number) if digits && (least..=most).contains(&number) => Some(number),
            _ => self.wrong(
                format!("{text} is not {wanted}"),
                format!("write {wanted}, digits only"),
            ),
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let list = one_of(&names);
        let allowed = format!("write {list}");
        let Some((text, ScalarKind::Text)) = self.scalar() else {
            return self.wrong_kind("a word", allowed);
        };
        match words.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(*value),
            None => match closest(text, names.iter().copied()) {
                Some(meant) => self.wrong(
                    format!("{} is not known here", quote(text)),
                    format!("did you mean {meant:?}? The words are {list}"),
                ),
                None => self.wrong(format!("{} is not known here", quote(text)), allowed),
            },
        }
    }

    /// The items of a list.
    pub fn list<T>(&self, item: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Kind::List(nodes) = &self.node.kind else {
            return self.wrong_kind(
                "a list",
                "write it in brackets, [one, two], or one per line behind a `- `",
            );
        };
        let values = nodes.iter().enumerate().map(|(index, node)| {
            item(&Value {
                path: format!("{}[{index}]", self.path),
                node,
                problems: self.problems,
            })
        });
        Some(values.collect::<Vec<_>>().into_iter().flatten().collect())
    }

    /// The keys of a map, as they come.
    pub fn entries(&self) -> Option<impl Iterator<Item = (&'a Entry, Value<'a>)> + use<'a>> {
        let Kind::Map(entries) = &self.node.kind else {
            return self.wrong_kind("a group of keys", "write keys below it, indented by two spaces");
        };
        let (path, problems) = (self.path.clone(), self.problems);
        Some(entries.iter().map(move |entry| {
            (
                entry,
                Value {
                    path: format!("{path}.{}", entry.name),
                    node: &entry.value,
                    problems,
                },
            )
        }))
    }

    /// The keys of a map, to be taken one by one.
    pub fn section(&self) -> Option<Section<'a>> {
        match &self.node.kind {
            Kind::Map(entries) => Some(Section {
                path: self.path.clone(),
                at: self.node.at.clone(),
                entries,
                known: Vec::new(),
                missing: Vec::new(),
                problems: self.problems,
            }),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Bad => self.wrong_kind(
                "a group of keys",
                "write keys below it, indented by two spaces, or delete the line",
            ),
        }
    }
}

/// A map whose keys are known.
pub struct Section<'a> {
    path: String,
    at: Place,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    missing: Vec<(&'static str, String)>,
    problems: &'a Problems<'a>,
}

impl<'a> Section<'a> {
    /// A section that is not there: every key of it has its default.
    pub fn absent(path: &str, problems: &'a Problems<'a>) -> Self {
        Self {
            path: path.to_owned(),
            at: Place::TOP,
            entries: &[],
            known: Vec::new(),
            missing: Vec::new(),
            problems,
        }
    }

    /// The value of a key, if the key is there.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.name == key)?;
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Some(Value {
            path,
            node: &entry.value,
            problems: self.problems,
        })
    }

    /// Reads the value of a key, if the key is there.
    pub fn take<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        read(&self.value(key)?)
    }

    /// Reads the value of a key that has to be there.
    pub fn need<T>(
        &mut self,
        key: &'static str,
        help: &str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.value(key) else {
            self.missing(key, help);
            return None;
        };
        read(&value)
    }

    /// Says that a key has to be there and is not. It is reported in the end, unless one with a typing mistake in its
    /// name is.
    pub fn missing(&mut self, key: &'static str, help: &str) {
        self.missing.push((key, help.to_owned()));
    }

    /// A section below this one; if it is not there, an empty one.
    pub fn below(&mut self, key: &'static str) -> Section<'a> {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        self.value(key)
            .and_then(|value| value.section())
            .unwrap_or_else(|| Section::absent(&path, self.problems))
    }

    /// Says that nobody asks for more keys: what is left is unknown.
    pub fn done(self) {
        let unknown = || {
            self.entries
                .iter()
                .filter(|entry| !self.known.contains(&entry.name.as_str()))
        };
        for entry in unknown() {
            self.unknown(entry);
        }
        for (key, help) in &self.missing {
            if !unknown().any(|entry| closest(&entry.name, [*key]).is_some()) {
                let place = if self.path.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", self.path)
                };
                self.problems.at(
                    &self.at,
                    &self.path,
                    format!("{place}the key {key:?} is missing"),
                    help,
                );
            }
        }
    }

    fn unknown(&self, entry: &Entry) {
        let place = if self.path.is_empty() {
            String::new()
        } else {
            format!(" in {:?}", self.path)
        };
        let message = format!("unknown key {}{place}", quote(&entry.name));
        let help = if entry.name == "<<" {
            "keys cannot be merged in from elsewhere: write them out".to_owned()
        } else if let Some(meant) = closest(&entry.name, self.known.iter().copied()) {
            format!("did you mean {meant:?}?")
        } else if let Some(elsewhere) = home_of(&entry.name) {
            match elsewhere.rsplit_once('.') {
                Some((section, key)) => format!("{key:?} belongs in the section {section:?}"),
                None => format!("{elsewhere:?} belongs at the top level of the file, without indentation"),
            }
        } else {
            format!("the keys known here are {}", self.known.join(", "))
        };
        let path = if self.path.is_empty() {
            entry.name.clone()
        } else {
            format!("{}.{}", self.path, entry.name)
        };
        self.problems.at(&entry.at, &path, message, help);
    }
}

/// Where a key that is in the wrong section belongs, if there is exactly one such place.
fn home_of(name: &str) -> Option<String> {
    let mut places = key_paths()
        .into_iter()
        .filter(|path| path.rsplit('.').next() == Some(name));
    match (places.next(), places.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// `a, b or c`.
pub fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}
