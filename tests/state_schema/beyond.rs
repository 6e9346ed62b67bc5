//! What a schema cannot say: the rules by which the validator refuses a file that the schema accepts.

use paceline::desired::Diagnostic;

/// Rules of the validator that a JSON schema cannot express: the words by which a message tells of it, and why. Each is
/// met by a file of `state_file/invalid` that is marked `not in the schema`.
pub const BEYOND: &[(&str, &str)] = &[
    // Rules that join several keys.
    (
        "does not know what to restore",
        "role: recovery needs a recovery section with something in it",
    ),
    ("is used by", "two keys claim the same port"),
    ("in each other's way", "the data directory and Paceline's own"),
    (
        "is inside of the database's own directory",
        "the archive's directory and the data directory",
    ),
    (
        "is also the user of the replication",
        "the database's owner and the replication's user",
    ),
    (
        "this laptop's entry of \"nodes\"",
        "the port in a profile's entry and in its section",
    ),
    (
        "stands here twice",
        "settings whose names differ by upper and lower case alone",
    ),
    (
        "the server's socket would have",
        "a path that is made of home and port",
    ),
    // Rules about the machine that reads the file.
    (
        "which is not among the laptops",
        "`node` or --node, and the names in `nodes`",
    ),
    (
        "none of the laptops is this one",
        "the host name and the names in `nodes`",
    ),
    (
        "more than one of the laptops has an address of this one",
        "this machine's addresses",
    ),
    ("is the one of this laptop", "this machine's addresses"),
    ("paceline itself runs as", "the daemon's user"),
    (
        "must not run as root",
        "a word that is refused where others are taken",
    ),
    ("is not a name for a laptop", "--node on the command line"),
    // Rules that look into a text further than a pattern can, or should.
    ("belongs to PostgreSQL itself", "names that PostgreSQL has taken"),
    ("is the superuser", "names that PostgreSQL has taken"),
    ("is managed by Paceline", "a hundred names of settings"),
    ("~ does not mean the home directory here", "a path"),
    (
        "is not a host name or an address",
        "names and addresses of both families",
    ),
    (
        "is not a complete address",
        "names and addresses of both families",
    ),
    (
        "is not a port",
        "host:port, where an IPv6 address has colons, too",
    ),
    ("is not an address", "addresses of both families"),
    ("the port 0 means none", "addresses of both families"),
    ("is not a network", "addresses of both families"),
    (
        "is an address in a network, not a network",
        "the bits behind the prefix length",
    ),
    ("the prefix length of", "32 or 128, by the family"),
    ("has no prefix length", "addresses of both families"),
    ("is longer than a year", "a sum of durations"),
    ("the duration must be longer than nothing", "a sum of durations"),
    ("is more than PostgreSQL can handle", "a number with a unit"),
    (
        "the name of the program is empty",
        "the first item of a list that may hold empty ones",
    ),
    (
        "the text has more than one line",
        "in every text, whatever else its pattern says",
    ),
    (
        "the text contains the invisible character",
        "in every text, whatever else its pattern says",
    ),
    // Rules about how YAML writes a value, which is over when a schema sees it.
    (
        "is not a whole number",
        "5432.0 and 05432 are whole numbers for a schema",
    ),
    ("unknown key \"<<\"", "a merge key has been merged"),
    (
        "are not supported",
        "anchors, references and type marks are resolved",
    ),
];

/// The rule beyond the schema that a problem tells of.
pub fn beyond(problem: &Diagnostic) -> Option<&'static str> {
    let words = BEYOND.iter().map(|(words, _)| *words);
    let found = words.into_iter().find(|words| problem.message.contains(words))?;
    // Only the way in which it is written is beyond the schema; its size is not.
    if found == "is not a whole number" {
        let number = problem.message.split(found).next().unwrap_or_default();
        let number = number.rsplit(": ").next().unwrap_or_default().trim();
        let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let whole = number.parse::<f64>().is_ok_and(|number| number.fract() == 0.0);
        return (whole && !plain).then_some(found);
    }
    Some(found)
}
