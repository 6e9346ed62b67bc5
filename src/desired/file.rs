//! From the text of the state file to a tree in which every key and value knows where it stands.
//!
//! This is the only file that knows the YAML library, so that another one is a change of one file. It judges the
//! *notation* only (what is no YAML, or YAML that nobody needs in a state file: anchors, tags, several documents); what
//! the keys mean is the business of [`super::validate`]. It must not read files.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_yaml::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use super::diagnostic::{Diagnostic, MAX_PROBLEMS, Place, quote};

/// Deeper than any key of the format: a recursion bomb, or brackets that were never closed.
const MAX_DEPTH: usize = 16;
/// More keys and values than any real file has.
const MAX_NODES: usize = 5000;

/// One value of the file.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub at: Place,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A single value, as it is written, without its quotes.
    Scalar {
        /// The text.
        text: String,
        /// Whether it stands there without quotes, so that it may also be a number, a boolean or nothing.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order of the file.
    Map(Vec<Entry>),
    /// Something that was reported already and is to be passed over in silence.
    Bad,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub at: Place,
    /// The value.
    pub value: Node,
}

/// What a single value is by the rules of YAML 1.2, in which `yes` and `on` are ordinary words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number or a decimal one.
    Number,
    /// Everything else, and everything in quotes.
    Text,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.name == name),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Bad => None,
        }
    }

    /// The entry that a dotted path such as `postgres.port` leads to.
    pub fn find(&self, path: &str) -> Option<&Entry> {
        match path.split_once('.') {
            None => self.get(path),
            Some((first, rest)) => self.get(first)?.value.find(rest),
        }
    }
}

/// Tells what kind of scalar a text is.
pub fn scalar_kind(text: &str, plain: bool) -> ScalarKind {
    if !plain {
        return ScalarKind::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" => ScalarKind::Bool(true),
        "false" | "False" | "FALSE" => ScalarKind::Bool(false),
        _ if is_number(text) => ScalarKind::Number,
        _ => ScalarKind::Text,
    }
}

fn is_number(text: &str) -> bool {
    let hex = text.strip_prefix("0x").map(|digits| (digits, 16));
    let octal = text.strip_prefix("0o").map(|digits| (digits, 8));
    if let Some((digits, radix)) = hex.or(octal) {
        return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // `f64` also takes words such as `infinity`, which are ordinary words in YAML.
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.parse::<f64>().is_ok()
}

/// Reads the tree of the file. The tree comes back together with complaints about the notation where these do not
/// keep the rest of the file from being read, so that a person sees everything at once.
pub fn parse(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut builder = Builder {
        text,
        open: Vec::new(),
        root: None,
        nodes: 0,
        problems: Vec::new(),
    };
    let (body, skipped) = match text.strip_prefix('\u{feff}') {
        Some(body) => (body, '\u{feff}'.len_utf8()),
        None => (text, 0),
    };
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    for event in Parser::new_from_str_with_options(body, options) {
        let outcome = match event {
            Ok((event, span)) => builder.event(event, place(span, skipped)),
            Err(error) => {
                builder.problems.push(explain(&error, text, skipped));
                Err(Stop)
            }
        };
        if outcome.is_err() {
            return (None, builder.problems);
        }
    }
    if builder.root.is_none() && builder.problems.is_empty() {
        let message = match body.trim() {
            "" => "the file is empty",
            _ => "the file declares nothing: it holds comments only",
        };
        builder.problems.push(
            Diagnostic::new(text, &Place::TOP, "", message)
                .help("the smallest useful file is one line: `role: primary`"),
        );
    }
    (builder.root, builder.problems)
}

/// Nothing of the rest can be read; the reason is among the problems.
struct Stop;

/// A list or map that has not ended yet.
struct Open {
    at: Place,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        seen: BTreeMap<String, usize>,
        key: Option<(String, Place)>,
    },
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    problems: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: Place) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_notation(&at, anchor, tag.as_deref());
                // The library writes a `~` where nothing stands.
                let text = if at.bytes.is_empty() {
                    String::new()
                } else {
                    text.into_owned()
                };
                let kind = Kind::Scalar {
                    text,
                    plain: style == ScalarStyle::Plain,
                };
                self.add(Node { at, kind })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plain_notation(&at, anchor, tag.as_deref());
                self.enter(Open {
                    at,
                    kind: OpenKind::List(Vec::new()),
                })
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plain_notation(&at, anchor, tag.as_deref());
                let kind = OpenKind::Map {
                    entries: Vec::new(),
                    seen: BTreeMap::new(),
                    key: None,
                };
                self.enter(Open { at, kind })
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.problem(
                    &at,
                    "references to other parts of the file (`*name`) are not supported",
                    |d| d.help("write the value out; if the star is meant, put it in quotes: \"*\""),
                );
                self.add(Node { at, kind: Kind::Bad })
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                self.problem(
                    &at,
                    "the file holds a second document: only one `---` section can be read",
                    |d| d.help("keep one declaration and delete the other, with its `---` line"),
                );
                Err(Stop)
            }
            _ => Ok(()),
        }
    }

    fn problem(&mut self, at: &Place, message: &str, more: impl FnOnce(Diagnostic) -> Diagnostic) {
        self.problems
            .push(more(Diagnostic::new(self.text, at, "", message)));
    }

    fn plain_notation(&mut self, at: &Place, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.problem(
                at,
                "names for parts of the file (`&name`) are not supported",
                |d| d.help("delete the `&name`; if the & is part of a text, put the text in quotes"),
            );
        }
        if let Some(tag) = tag {
            let message = format!("type marks such as {} are not supported", quote(&tag.original()));
            self.problem(at, &message, |d| {
                d.help("delete the mark; if the ! is part of a text, put the text in quotes")
            });
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), Stop> {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH {
            let at = self.open[MAX_DEPTH].at.clone();
            self.problem(&at, "too many levels of lists and keys inside each other", |d| {
                d.help("look for a bracket that is not closed")
            });
            return Err(Stop);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let kind = match open.kind {
            OpenKind::List(items) => Kind::List(items),
            OpenKind::Map { entries, .. } => Kind::Map(entries),
        };
        self.add(Node { at: open.at, kind })
    }

    /// Puts a finished value where it belongs: a key, the value of a key, an item, or the whole file.
    fn add(&mut self, node: Node) -> Result<(), Stop> {
        self.nodes += 1;
        if self.problems.len() >= MAX_PROBLEMS {
            return Err(Stop);
        }
        if self.nodes > MAX_NODES {
            let message = format!("the file holds more than {MAX_NODES} keys and values");
            self.problem(&node.at, &message, |d| d.help("is this really a state file?"));
            return Err(Stop);
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, seen, key }) => match key.take() {
                Some((name, at)) => {
                    if let Some(first) = seen.get(&name) {
                        let message = format!("the key {} stands here twice", quote(&name));
                        let help = format!("it was already declared in line {first}: keep one of the two");
                        self.problem(&at, &message, |d| d.help(&help));
                    } else {
                        seen.insert(name.clone(), at.line);
                        entries.push(Entry {
                            name,
                            at,
                            value: node,
                        });
                    }
                }
                None => match node.kind {
                    Kind::Scalar { text, .. } => *key = Some((text, node.at)),
                    Kind::Bad => return Err(Stop),
                    Kind::List(_) | Kind::Map(_) => {
                        self.problem(
                            &node.at,
                            "a key must be a word, not a list or keys of its own",
                            |d| d.help("look for a missing quote around a text that begins with [ or {"),
                        );
                        return Err(Stop);
                    }
                },
            },
        }
        Ok(())
    }
}

fn place(span: Span, skipped: usize) -> Place {
    let bytes = span.byte_range().unwrap_or(0..0);
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
        bytes: Range {
            start: bytes.start + skipped,
            end: bytes.end + skipped,
        },
    }
}

/// The library's complaint in our words.
fn explain(error: &ScanError, text: &str, skipped: usize) -> Diagnostic {
    let marker = error.marker();
    let start = marker.byte_offset().map_or(0, |offset| offset + skipped);
    let last = text.lines().count().max(1);
    let mut at = Place {
        line: marker.line().max(1),
        column: marker.col() + 1,
        bytes: start..start,
    };
    // At the end of a file the library's position lies behind the last line; there is nothing to show there.
    if at.line > last {
        at.line = last;
        at.column = 1 + text.lines().last().map_or(0, |line| line.chars().count());
    }
    // It complains about the value before a tab.
    if is_tab(error.kind()) {
        let indentation = |line: &str| line.len() - line.trim_start().len();
        let tab = text
            .lines()
            .enumerate()
            .skip(at.line - 1)
            .find_map(|(index, line)| Some((index + 1, line[..indentation(line)].find('\t')? + 1)));
        (at.line, at.column) = tab.unwrap_or((at.line, at.column));
    }
    let (message, help) = words(error.kind());
    Diagnostic::new(text, &at, "", &message).help(help)
}

fn is_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar
    )
}

fn words(kind: &ErrorKind) -> (String, &'static str) {
    let (message, help) = match kind {
        kind if is_tab(kind) => (
            "this line is indented with a tab character",
            "replace the tab by spaces",
        ),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => (
            "a quote is opened and never closed",
            "look for the \" or ' that has no partner, here or in a line above",
        ),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => (
            "there is text behind a closing quote",
            "put the whole value in quotes, or none of it",
        ),
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape => (
            "a backslash inside \"…\" begins an escape that does not exist",
            "use single quotes ('…'), in which a backslash is a backslash",
        ),
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => (
            "a bracket is opened and not closed, or a comma is missing between two entries",
            "check the [ ], { } and commas here and in the lines above",
        ),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            return (
                format!("the bracket {open} is opened here, and {close} comes before it is closed"),
                "check the [ ] and { } of this line",
            );
        }
        ErrorKind::MisplacedFlowCollectionEnd => (
            "this closing bracket does not fit an opening one",
            "check the [ ] and { } of this line",
        ),
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::InvalidBlockScalarIndent
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::MappingKeyNotAllowed => (
            "this line does not fit the lines above it",
            "keys of the same section begin in the same column; a key's own keys stand two spaces further in",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "there is no `:` after this word",
            "every line reads `key: value`, with a space after the colon",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a second `:` in this line, or a line that is indented too far",
            "put a value that contains `: ` in quotes; check that the line begins in the right column",
        ),
        ErrorKind::MissingAnchorOrAliasName => ("a * or & stands alone", "put it in quotes: \"*\""),
        ErrorKind::UnexpectedCharacter { character } => {
            return (
                format!("a value cannot begin with {}", quote(&character.to_string())),
                "put the value in quotes",
            );
        }
        ErrorKind::RecursionLimitExceeded => (
            "too many levels of lists and keys inside each other",
            "look for a bracket that is not closed",
        ),
        ErrorKind::CommentNotSeparated | ErrorKind::CommentInterceptedScalar => (
            "a comment stands in the middle of a value",
            "put a space before the #, or the value in quotes",
        ),
        other => {
            return (
                format!("this is not valid YAML: {other}"),
                "compare with examples/single.yaml",
            );
        }
    };
    (message.to_owned(), help)
}
