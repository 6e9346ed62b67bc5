//! The server's configuration as text, from what is declared and what was found. Pure.
//!
//! The files lie in `<home>/conf`, outside the data directory, so that a clone or a rewind never carries them over.
//! Order matters, since in PostgreSQL the last line wins: our defaults, the adopted cluster's own file, what must
//! hold, the state file's `settings`.

use std::fmt::Write as _;

use uuid::Uuid;

use super::action::ConfigurationFiles;
use crate::desired::{Desired, PeerAddress, SslMode};
use crate::digest::digest;
use crate::lineage::OwnConfiguration;
use crate::observed::{Configuration, Parameters};

/// First words of every file that Paceline writes for the server; how such a file is recognised.
pub const HEADER: &str = "# Written by paceline";

/// The superuser that Paceline, root and the server's user work as.
pub const SUPERUSER: &str = "postgres";

/// What of the copy itself its configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Major version of the data.
    pub major: u32,
    /// The files of an adopted cluster.
    pub own: Option<&'a OwnConfiguration>,
    /// Whether it follows another.
    pub replica: bool,
    /// The epoch that it follows, by name: the last one that it has recorded.
    pub follows: Option<Uuid>,
    /// What it must not have lower, from its `pg_control`.
    pub needed: Option<Parameters>,
    /// The standby that commits wait for, by its node's name (see `conninfo`).
    pub synchronous: Option<&'a str>,
}

/// The configuration for this declaration and this copy.
pub fn render(desired: &Desired, about: &About<'_>, found: &Configuration) -> ConfigurationFiles {
    let own = about.own;
    let pg_hba = hba(desired, own, found);
    let pg_ident = ident(desired, found);
    let mut postgresql_conf = conf(desired, about, found);
    let digest = digest(&[&postgresql_conf, &pg_hba, &pg_ident]);
    set(&mut postgresql_conf, "paceline.configuration", &digest);
    ConfigurationFiles {
        postgresql_conf,
        pg_hba,
        pg_ident,
        passfile: false,
        programs: None,
        digest,
    }
}

/// Whether the files on disk are these.
pub fn on_disk(files: &ConfigurationFiles, found: &Configuration) -> bool {
    !files.passfile
        && found.postgresql_conf.as_ref() == Some(&files.postgresql_conf)
        && found.pg_hba.as_ref() == Some(&files.pg_hba)
        && found.pg_ident.as_ref() == Some(&files.pg_ident)
}

/// Whether this configuration is the one that PostgreSQL's parser refused. Other programs may judge otherwise.
pub fn refused(files: &ConfigurationFiles, found: &Configuration) -> bool {
    found.refused.as_ref().is_some_and(|refused| {
        let version = files.programs.as_ref().map(|programs| &programs.version);
        refused.configuration == files.digest && version.is_none_or(|version| *version == refused.version)
    })
}

/// The name of the configuration that lies on disk, if one does.
pub fn name_on_disk(found: &Configuration) -> Option<String> {
    let complete = found.pg_hba.is_some() && found.pg_ident.is_some();
    let line = found
        .postgresql_conf
        .as_ref()
        .filter(|_| complete)?
        .lines()
        .last()?;
    let name = line
        .strip_prefix("paceline.configuration = '")?
        .strip_suffix('\'')?;
    Some(name.to_owned())
}

/// Whether what lies on disk follows the same server through the same slot. Without the slot of its epoch a standby
/// could stream from another history (see [`slot_name`]).
pub fn follows_alike(files: &ConfigurationFiles, found: &Configuration) -> bool {
    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with("primary_")).collect()
    }
    let on_disk = found.postgresql_conf.as_deref().unwrap_or_default();
    lines(&files.postgresql_conf) == lines(on_disk)
}

/// What was taken out of `postgresql.auto.conf`, for a person: why it does not last, and what to do instead.
pub fn purged_words(names: &[String]) -> String {
    let instead = |name: &String| match crate::desired::managed::instead_of(name) {
        Some(instead) => format!("{name} ({instead})"),
        None => format!("{name} (the state file's `postgres: settings:` decides)"),
    };
    let names: Vec<String> = names.iter().map(instead).collect();
    format!(
        "removed from postgresql.auto.conf, since ALTER SYSTEM does not last for these here: {}",
        names.join("; ")
    )
}

/// Which of the names in `postgresql.auto.conf` must not stay there: the managed ones, and those that the state
/// file's `settings` declare.
pub fn names_to_purge(desired: &Desired, names: &[String]) -> Vec<String> {
    let purge = |name: &&String| {
        crate::desired::managed::instead_of(name).is_some()
            || desired.postgres.settings.contains_key(name.as_str())
    };
    names.iter().filter(purge).cloned().collect()
}

fn conf(desired: &Desired, about: &About<'_>, found: &Configuration) -> String {
    let (major, own) = (about.major, about.own);
    let postgres = &desired.postgres;
    let directory = desired.conf_directory();
    let mut text = format!(
        "{HEADER} from the state file; changes made here are lost.\n# Put settings under `postgres: settings:` there.\n\n\
         # Defaults, which an adopted cluster's own file and `settings` may change.\n"
    );
    set(&mut text, "max_wal_senders", "10");
    set(&mut text, "max_replication_slots", "10");
    // WAL that a rewind of the other laptop needs.
    match major {
        ..=12 => set(&mut text, "wal_keep_segments", "128"),
        13.. => set(&mut text, "wal_keep_size", "512MB"),
    }
    set(&mut text, "lc_messages", "C");
    if let Some(zone) = &found.time_zone {
        set(&mut text, "timezone", zone);
        set(&mut text, "log_timezone", zone);
    }
    set(&mut text, "log_line_prefix", "%m [%p] %q%u@%d ");

    if let Some(file) = own.and_then(|own| own.config_file.as_ref()) {
        let _ = writeln!(
            text,
            "\n# The adopted cluster's own configuration.\ninclude {}",
            quote(file.as_str())
        );
    }

    text.push_str("\n# What Paceline depends on.\n");
    set(&mut text, "data_directory", postgres.data_directory.as_str());
    set(&mut text, "hba_file", directory.join("pg_hba.conf").as_str());
    set(&mut text, "ident_file", directory.join("pg_ident.conf").as_str());
    set(&mut text, "port", &postgres.port.to_string());
    set(&mut text, "listen_addresses", &postgres.listen_addresses);
    let mut sockets = quote_list_element(desired.socket_directory().as_str());
    if let Some(directory) = &found.system_socket_directory {
        let _ = write!(sockets, ", {}", quote_list_element(directory.as_str()));
    }
    set(&mut text, "unix_socket_directories", &sockets);
    for (name, value) in [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("wal_log_hints", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("wal_sender_timeout", "5s"),
        ("wal_receiver_timeout", "5s"),
        ("wal_retrieve_retry_interval", "100ms"),
        ("password_encryption", "scram-sha-256"),
    ] {
        set(&mut text, name, value);
    }
    // Never inherited from another server: a laptop that was promoted with it would hang at every commit (POSTGRES-FACTS 10).
    let synchronous = about.synchronous.map(quote_list_element).unwrap_or_default();
    set(&mut text, "synchronous_standby_names", &synchronous);
    if major >= 13 {
        set(
            &mut text,
            "max_slot_wal_keep_size",
            &desired.replication.max_slot_wal_keep_size,
        );
    }

    if !postgres.settings.is_empty() {
        text.push_str("\n# `postgres: settings:` of the state file.\n");
        for (name, value) in &postgres.settings {
            set(&mut text, name, value);
        }
    }
    let raised = raised(desired, about);
    if !raised.is_empty() {
        text.push_str("\n# What the primary has, or had: a standby with less stops replaying.\n");
        for (name, value) in raised {
            set(&mut text, name, &value.to_string());
        }
    }
    if let Some(peer) = &desired.peer {
        // In force while the copy follows; a server that is written to does not read them.
        text.push_str("\n# The other laptop.\n");
        set(&mut text, "primary_conninfo", &conninfo(desired, peer));
        if let Some(epoch) = about.follows.filter(|_| about.replica) {
            set(&mut text, "primary_slot_name", &slot_name(&desired.node, epoch));
        }
    }
    text.push_str("\n# What the server has loaded, for Paceline to see.\n");
    text
}

/// PostgreSQL's own values, and ours of `max_wal_senders`, where nothing is declared.
const USUAL: Parameters = Parameters {
    max_connections: 100,
    max_worker_processes: 8,
    max_wal_senders: 10,
    max_prepared_transactions: 0,
    max_locks_per_transaction: 64,
};

/// Which of the five [`Parameters`] have to be set higher than they would be otherwise. On a server that is written to,
/// what is declared counts, and what is not declared stays as it was: a promotion must not ask for a restart.
fn raised(desired: &Desired, about: &About<'_>) -> Vec<(&'static str, u32)> {
    let Some(needed) = &about.needed else {
        return Vec::new();
    };
    if about.own.is_some() && !about.replica {
        return Vec::new();
    }
    let usual = USUAL.named().into_iter();
    needed
        .named()
        .into_iter()
        .zip(usual)
        .filter_map(|((name, needed), (_, usual))| {
            let declared = desired.postgres.settings.get(name);
            match declared.map(|value| value.parse::<u32>()) {
                Some(_) if !about.replica => None,
                Some(Ok(declared)) => (needed > declared).then_some((name, needed)),
                // The server says what is wrong with it.
                Some(Err(_)) => None,
                None => (needed > usual).then_some((name, needed)),
            }
        })
        .collect()
}

/// How a standby reaches the other laptop. The password is in the passfile only. The limits make it notice a laptop
/// that vanished within seconds instead of minutes (POSTGRES-FACTS 29).
fn conninfo(desired: &Desired, peer: &PeerAddress) -> String {
    let passfile = desired.replication_passfile();
    let sslmode = match desired.replication.sslmode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    };
    let port = peer.port.to_string();
    let words = [
        ("host", peer.host.as_str()),
        ("port", &port),
        ("user", &desired.replication.user),
        ("passfile", passfile.as_str()),
        ("sslmode", sslmode),
        ("application_name", &desired.node),
        ("connect_timeout", "3"),
        ("keepalives", "1"),
        ("keepalives_idle", "2"),
        ("keepalives_interval", "1"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "5000"),
    ];
    let word = |(name, value): (&str, &str)| {
        format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    };
    words.map(word).join(" ")
}

/// The slot from which this laptop streams, and by whose name PostgreSQL itself refuses to stream across histories
/// that happen to have equal timelines: it carries the epoch, and only the writer of that epoch makes it.
pub fn slot_name(node: &str, epoch: Uuid) -> String {
    let plain: String = node
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '_'
            }
        })
        .collect();
    // At most 63 characters of these kinds (ReplicationSlotValidateName); a name that had to be changed is told apart
    // by a digest of the whole.
    let plain = if plain == node && plain.len() <= 20 {
        plain
    } else {
        let digest = digest(&[node]);
        format!("{}_{}", &plain[..plain.len().min(12)], &digest[..7])
    };
    format!("{SLOT_PREFIX}{plain}_{}", epoch.simple())
}

/// How the names of our replication slots begin.
pub const SLOT_PREFIX: &str = "paceline_";

fn hba(desired: &Desired, own: Option<&OwnConfiguration>, found: &Configuration) -> String {
    let mut text = format!("{HEADER} from the state file; changes made here are lost.\n");
    if !desired.postgres.hba.is_empty() {
        text.push_str("\n# `postgres: hba:` of the state file.\n");
        for line in &desired.postgres.hba {
            let _ = writeln!(text, "{line}");
        }
    }
    let _ = writeln!(
        text,
        "\n# The server's user and root are the superuser, over the unix socket; a base backup by hand is theirs to make.\n\
         local all {SUPERUSER} peer map=paceline\nlocal replication {SUPERUSER} peer map=paceline"
    );
    if desired.peer.is_some() {
        // Before an adopted cluster's own lines too, which may turn them away or ask for less.
        let user = quote_hba(&desired.replication.user);
        let _ = writeln!(
            text,
            "\n# The other laptop, by password from anywhere: its address may change, SCRAM is the authentication.\n\
             local {SUPERUSER} {user} scram-sha-256\n\
             host replication {user} all scram-sha-256\n\
             host {SUPERUSER} {user} all scram-sha-256"
        );
    }
    if let Some(database) = &desired.postgres.database {
        // Before an adopted cluster's own lines: Debian's let local roles in by their user's name only.
        let _ = writeln!(
            text,
            "\n# The application, by password.\nlocal {} {} scram-sha-256",
            quote_hba(&database.name),
            quote_hba(&database.owner)
        );
    }
    if let (Some(file), Some(lines)) = (own.and_then(|own| own.hba_file.as_ref()), &found.adopted_hba) {
        let _ = writeln!(text, "\n# The adopted cluster's own lines, from {file}.");
        entries(&mut text, lines);
    }
    text.push_str(
        "\n# Everybody else, and everybody over TCP, by password.\n\
         local all all scram-sha-256\n\
         host all all 127.0.0.1/32 scram-sha-256\n\
         host all all ::1/128 scram-sha-256\n",
    );
    for network in &desired.postgres.allow {
        let _ = writeln!(text, "host all all {network} scram-sha-256");
    }
    text
}

fn ident(desired: &Desired, found: &Configuration) -> String {
    let mut text = format!("{HEADER} from the state file; changes made here are lost.\n");
    let mut users = vec![desired.postgres.os_user.as_str()];
    if desired.postgres.os_user != "root" {
        users.push("root");
    }
    for user in users {
        let _ = writeln!(text, "paceline {} {SUPERUSER}", quote_hba(user));
    }
    if let Some(lines) = &found.adopted_ident {
        text.push_str("\n# The adopted cluster's own lines.\n");
        entries(&mut text, lines);
    }
    text
}

/// The lines of a file that mean something.
fn entries(text: &mut String, lines: &str) {
    for line in lines
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let _ = writeln!(text, "{line}");
    }
}

fn set(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name} = {}", quote(value));
}

/// The passfile for this login, whatever server and database: a peer whose address changes needs no new one.
pub fn passfile(user: &str, password: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:{}:{}\n", escape(user), escape(password))
}

/// A value as `postgresql.conf` reads it.
pub fn quote(value: &str) -> String {
    format!(
        "'{}'",
        value
            .replace('\\', "\\\\")
            .replace('\'', "''")
            .replace('\n', "\\n")
    )
}

/// An element of a list setting, which is split at commas like a list of identifiers.
fn quote_list_element(element: &str) -> String {
    format!("\"{}\"", element.replace('"', "\"\""))
}

fn quote_hba(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::passfile;

    /// As libpq reads it: a backslash makes the next character an ordinary one.
    #[test]
    fn a_passfile_survives_every_name_and_password() {
        assert_eq!(passfile("replicator", "a b#'"), "*:*:*:replicator:a b#'\n");
        assert_eq!(passfile("a:b", "c\\d:e"), "*:*:*:a\\:b:c\\\\d\\:e\n");
    }
}
