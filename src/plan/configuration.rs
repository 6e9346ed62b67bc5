//! The server's configuration as text, from what is declared and what was found. Pure.
//!
//! The files lie in `<home>/conf`, outside the data directory, so that a clone or a rewind never carries them over.
//! Order matters, since in PostgreSQL the last line wins: our defaults, the adopted cluster's own file, what must
//! hold, the state file's `settings`.

use std::fmt::Write as _;

use super::action::ConfigurationFiles;
use crate::desired::Desired;
use crate::digest::digest;
use crate::lineage::OwnConfiguration;
use crate::observed::Configuration;

/// First words of every file that Paceline writes for the server; how such a file is recognised.
pub const HEADER: &str = "# Written by paceline";

/// The superuser that Paceline, root and the server's user work as.
pub const SUPERUSER: &str = "postgres";

/// The configuration for this declaration. `major` is the data's; `own` the files of an adopted cluster.
pub fn render(
    desired: &Desired,
    major: u32,
    own: Option<&OwnConfiguration>,
    found: &Configuration,
) -> ConfigurationFiles {
    let pg_hba = hba(desired, own, found);
    let pg_ident = ident(desired, found);
    let mut postgresql_conf = conf(desired, major, own, found);
    let digest = digest(&[&postgresql_conf, &pg_hba, &pg_ident]);
    set(&mut postgresql_conf, "paceline.configuration", &digest);
    ConfigurationFiles {
        postgresql_conf,
        pg_hba,
        pg_ident,
        digest,
    }
}

/// Whether the files on disk are these.
pub fn on_disk(files: &ConfigurationFiles, found: &Configuration) -> bool {
    found.postgresql_conf.as_ref() == Some(&files.postgresql_conf)
        && found.pg_hba.as_ref() == Some(&files.pg_hba)
        && found.pg_ident.as_ref() == Some(&files.pg_ident)
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

fn conf(desired: &Desired, major: u32, own: Option<&OwnConfiguration>, found: &Configuration) -> String {
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
        ("synchronous_standby_names", ""),
    ] {
        set(&mut text, name, value);
    }
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
    text.push_str("\n# What the server has loaded, for Paceline to see.\n");
    text
}

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
        "\n# The server's user and root are the superuser, over the unix socket.\nlocal all {SUPERUSER} peer map=paceline"
    );
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
    format!("\"{name}\"")
}
