//! The sections of the state file, one function each, with the defaults of the format.
//!
//! Called by [`super::validate`] only. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::diagnostic::quote;
use super::file::{Kind, ScalarKind};
use super::managed::instead_of;
use super::model::{
    AfterCrash, App, AppPort, Archive, Database, Durability, Postgres, Recovery, RecoveryTarget, Replication,
    Safety, SslMode, VirtualAddress,
};
use super::read::{Section, Value};
use super::validate::Surroundings;
use super::words;

/// Where relative paths and defaults begin.
pub struct Base<'a> {
    /// The directory of the state file.
    pub directory: &'a Utf8Path,
    /// The declared or default `home`.
    pub home: &'a Utf8Path,
    /// The machine.
    pub surroundings: &'a Surroundings,
}

impl Base<'_> {
    fn path(&self, value: &Value<'_>) -> Option<Utf8PathBuf> {
        words::path(value, self.directory)
    }
}

/// `postgres`. `peered`: another laptop is declared; `own_port`: what `nodes` says about this laptop's port.
pub fn postgres(top: &mut Section<'_>, base: &Base<'_>, peered: bool, own_port: Option<u16>) -> Postgres {
    let mut keys = top.below("postgres");
    let default_user = if base.surroundings.root {
        "postgres"
    } else {
        &base.surroundings.user
    };
    let postgres = Postgres {
        data_directory: keys
            .take("data_directory", |value| base.path(value))
            .unwrap_or_else(|| base.home.join("data")),
        bin_directory: keys.take("bin_directory", |value| base.path(value)),
        port: keys.take("port", words::port).or(own_port).unwrap_or(5432),
        listen_addresses: keys
            .take("listen_addresses", Value::text)
            .unwrap_or_else(|| if peered { "*" } else { "localhost" }.to_owned()),
        os_user: keys
            .take("os_user", |value| user(value, base.surroundings, "the server"))
            .unwrap_or_else(|| default_user.to_owned()),
        settings: keys.take("settings", settings).unwrap_or_default(),
        allow: keys
            .take("allow", |value| value.list(words::network))
            .unwrap_or_default(),
        hba: keys.take("hba", |value| value.list(hba_line)).unwrap_or_default(),
        database: keys.take("database", |value| database(value, base)),
        trigger_file: keys.take("trigger_file", |value| base.path(value)),
    };
    keys.done();
    postgres
}

/// A user of the operating system that something runs as.
fn user(value: &Value<'_>, surroundings: &Surroundings, what: &str) -> Option<String> {
    let name = value.text()?;
    if name == "root" {
        return value.wrong(
            format!("{what} must not run as root"),
            "name an ordinary user, such as postgres, or delete the line",
        );
    }
    if !surroundings.root && name != surroundings.user {
        return value.wrong(
            format!(
                "{what} cannot run as {}: paceline itself runs as {} here",
                quote(&name),
                surroundings.user
            ),
            "delete the line, or run paceline as root, which may choose the user",
        );
    }
    Some(name)
}

fn settings(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for (entry, value) in value.entries()? {
        let name = entry.name.to_ascii_lowercase();
        let about_name = |message: String, help: &str| {
            value.problems.at(
                &entry.at,
                &value.path,
                format!("postgres.settings: {message}"),
                help,
            );
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !name.chars().all(known) {
            about_name(
                format!("{} is not the name of a setting", quote(&entry.name)),
                "a name has letters, digits, _ and dots, such as shared_buffers",
            );
        } else if let Some(instead) = instead_of(&name) {
            about_name(format!("{name} is managed by Paceline"), instead);
        } else if let Some(text) = value.any_scalar()
            && settings.insert(name.clone(), text).is_some()
        {
            about_name(
                format!("{name} stands here twice"),
                "upper and lower case are the same: keep one of the two",
            );
        }
    }
    Some(settings)
}

fn hba_line(value: &Value<'_>) -> Option<String> {
    const KINDS: [&str; 6] = [
        "local",
        "host",
        "hostssl",
        "hostnossl",
        "hostgssenc",
        "hostnogssenc",
    ];
    let line = value.text()?;
    let kind = line.split([' ', '\t']).next().unwrap_or_default();
    if KINDS.contains(&kind) && line.len() > kind.len() {
        return Some(line);
    }
    value.wrong(
        format!("{} is not a line of pg_hba.conf", quote(&line)),
        "such a line reads, for example: host racedb racedb 192.168.40.0/24 scram-sha-256",
    )
}

fn database(value: &Value<'_>, base: &Base<'_>) -> Option<Database> {
    if let Some((text, ScalarKind::Text)) = value.scalar() {
        return value.wrong(
            "the name alone is not enough",
            format!("write {{ name: {text} }}"),
        );
    }
    let mut keys = value.section()?;
    let name = keys.need(
        "name",
        "write name: with the name of the database",
        words::identifier,
    );
    let owner = keys.take("owner", |value| {
        let owner = words::identifier(value)?;
        if owner == "postgres" || owner.starts_with("pg_") {
            return value.wrong(
                format!("{} belongs to PostgreSQL itself", quote(&owner)),
                "name a user of the application's own, such as racedb",
            );
        }
        Some(owner)
    });
    let declared = keys.take("password_file", |value| base.path(value));
    keys.done();
    let name = name?;
    let owner = owner.unwrap_or_else(|| name.clone());
    Some(Database {
        password_file_declared: declared.is_some(),
        password_file: declared.unwrap_or_else(|| base.home.join("secrets").join(&owner)),
        name,
        owner,
    })
}

/// `replication`.
pub fn replication(top: &mut Section<'_>, base: &Base<'_>) -> Replication {
    let mut keys = top.below("replication");
    let replication = Replication {
        user: keys
            .take("user", words::identifier)
            .unwrap_or_else(|| "replicator".to_owned()),
        password_file: keys
            .take("password_file", |value| base.path(value))
            .unwrap_or_else(|| base.home.join("secrets/replication")),
        sslmode: keys
            .take("sslmode", |value| {
                value.word(&[
                    ("disable", SslMode::Disable),
                    ("allow", SslMode::Allow),
                    ("prefer", SslMode::Prefer),
                    ("require", SslMode::Require),
                    ("verify-ca", SslMode::VerifyCa),
                    ("verify-full", SslMode::VerifyFull),
                ])
            })
            .unwrap_or(SslMode::Prefer),
        durability: keys
            .take("durability", |value| {
                value.word(&[("async", Durability::Async), ("sync", Durability::Sync)])
            })
            .unwrap_or(Durability::Async),
        max_slot_wal_keep_size: keys
            .take("max_slot_wal_keep_size", words::size)
            .unwrap_or_else(|| "4GB".to_owned()),
    };
    keys.done();
    replication
}

/// `archive`.
pub fn archive(top: &mut Section<'_>, base: &Base<'_>) -> Option<Archive> {
    let mut keys = top.value("archive")?.section()?;
    let directory = keys.need(
        "directory",
        "write directory: with the place of the backup",
        |value| base.path(value),
    );
    let base_backup_every = keys.take("base_backup_every", words::some_duration);
    let keep = keys.take("keep", |value| value.number(1, 1000));
    keys.done();
    Some(Archive {
        directory: directory?,
        base_backup_every: base_backup_every.unwrap_or(Duration::from_secs(6 * 3600)),
        keep: keep.unwrap_or(3),
    })
}

/// `recovery`.
pub fn recovery(top: &mut Section<'_>, base: &Base<'_>) -> Option<Recovery> {
    let mut keys = top.value("recovery")?.section()?;
    let recovery = Recovery {
        from: keys.take("from", |value| base.path(value)),
        restore_command: keys.take("restore_command", Value::text),
        target: keys.take("target", target).unwrap_or(RecoveryTarget::Latest),
        request: keys
            .take("request", word_or_number)
            .unwrap_or_else(|| "1".to_owned()),
    };
    keys.done();
    Some(recovery)
}

fn target(value: &Value<'_>) -> Option<RecoveryTarget> {
    if value.scalar().is_some() {
        return value
            .word(&[("latest", false), ("immediate", true)])
            .map(|immediate| {
                if immediate {
                    RecoveryTarget::Immediate
                } else {
                    RecoveryTarget::Latest
                }
            });
    }
    let mut keys = value.section()?;
    let found = [
        keys.take("time", Value::text).map(RecoveryTarget::Time),
        keys.take("lsn", lsn).map(RecoveryTarget::Lsn),
        keys.take("name", word_or_number).map(RecoveryTarget::Name),
        keys.take("xid", |value| value.number(3, u32::MAX))
            .map(|xid| RecoveryTarget::Xid(xid.to_string())),
    ];
    keys.done();
    let count = value.entries()?.count();
    if count != 1 {
        return value.wrong(
            format!("{count} targets are declared"),
            "declare exactly one of time, lsn, name and xid, or write latest or immediate",
        );
    }
    found.into_iter().flatten().next()
}

fn lsn(value: &Value<'_>) -> Option<String> {
    let text = word_or_number(value)?;
    let half = |half: &str| (1..=8).contains(&half.len()) && half.chars().all(|c| c.is_ascii_hexdigit());
    match text.split_once('/') {
        Some((high, low)) if half(high) && half(low) => Some(text),
        _ => value.wrong(
            format!("{} is not a WAL position", quote(&text)),
            "it looks like 0/5000148",
        ),
    }
}

/// A token: any text or number, taken as it is written.
pub fn word_or_number(value: &Value<'_>) -> Option<String> {
    match value.scalar() {
        Some((_, ScalarKind::Number)) => value.any_scalar(),
        _ => value.text(),
    }
}

/// `racedb`. `os_user`: whom the server runs as.
pub fn racedb(top: &mut Section<'_>, base: &Base<'_>, os_user: &str) -> Option<App> {
    let mut keys = top.value("racedb")?.section()?;
    let command = keys.need(
        "command",
        "write command: with a list, such as [python3, launch.py]",
        command,
    );
    let working_directory = keys.take("working_directory", |value| base.path(value));
    let declared_user = keys.take("user", |value| user(value, base.surroundings, "the application"));
    let environment = keys.take("environment", environment).unwrap_or_default();
    let listen = keys.take("listen", words::listen);
    let port = keys.take("port", |value| match value.scalar() {
        Some(("auto", ScalarKind::Text)) => Some(AppPort::Auto),
        Some((_, ScalarKind::Text)) => {
            value.wrong_kind("auto or a port", "write auto, or a number from 1 to 65535")
        }
        _ => words::port(value).map(AppPort::Fixed),
    });
    let prewarm = keys.take("prewarm", Value::boolean).unwrap_or(false);
    let health = keys.take("health", health);
    let start_timeout = keys.take("start_timeout", words::some_duration);
    let mut stop = keys.below("stop");
    let stop_signal = stop.take("signal", signal);
    let stop_grace = stop.take("grace", words::duration);
    stop.done();
    keys.done();
    Some(App {
        // An ordinary daemon can start the program as itself only, which `user` has checked.
        user: base
            .surroundings
            .root
            .then(|| declared_user.unwrap_or_else(|| os_user.to_owned())),
        working_directory: working_directory.unwrap_or_else(|| base.directory.to_owned()),
        environment,
        listen,
        port: port.unwrap_or(AppPort::Auto),
        prewarm,
        health,
        start_timeout: start_timeout.unwrap_or(Duration::from_secs(60)),
        stop_signal: stop_signal.unwrap_or("SIGTERM").to_owned(),
        stop_grace: stop_grace.unwrap_or(Duration::from_secs(10)),
        command: command?,
    })
}

fn command(value: &Value<'_>) -> Option<Vec<String>> {
    if let Some((text, ScalarKind::Text)) = value.scalar() {
        let words: Vec<&str> = text.split_whitespace().collect();
        return value.wrong(
            format!("{} is one text, but a list of words is needed", quote(text)),
            format!("write [{}]", words.join(", ")),
        );
    }
    let words = value.list(Value::any_scalar)?;
    // An item that is wrong has been reported; it is not among the words.
    let empty = matches!(&value.node.kind, Kind::List(items) if items.is_empty());
    match words.first().map(String::as_str) {
        Some("") => value.wrong(
            "the name of the program is empty",
            "write the program first, then its arguments",
        ),
        None if empty => value.wrong(
            "the list is empty",
            "write the program first, then its arguments: [python3, launch.py]",
        ),
        None => None,
        Some(_) => Some(words),
    }
}

fn environment(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let mut environment = BTreeMap::new();
    for (entry, value) in value.entries()? {
        if !words::is_variable(&entry.name) {
            let message = format!(
                "racedb.environment: {} is not the name of a variable",
                quote(&entry.name)
            );
            let help = "a name has letters, digits and _, and does not begin with a digit";
            value.problems.at(&entry.at, &value.path, message, help);
        } else if let Some(text) = value.any_scalar() {
            environment.insert(entry.name.clone(), text);
        }
    }
    Some(environment)
}

fn health(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic()) {
        return Some(text);
    }
    value.wrong(
        format!("{} is not the path of a page", quote(&text)),
        "write the part of the address behind the port, such as /RaceDB/GetEvents/",
    )
}

fn signal(value: &Value<'_>) -> Option<&'static str> {
    const SIGNALS: [(&str, &str); 6] = [
        ("SIGTERM", "SIGTERM"),
        ("SIGINT", "SIGINT"),
        ("SIGQUIT", "SIGQUIT"),
        ("SIGHUP", "SIGHUP"),
        ("SIGUSR1", "SIGUSR1"),
        ("SIGUSR2", "SIGUSR2"),
    ];
    if let Some((text, ScalarKind::Text)) = value.scalar() {
        let full = format!("SIG{}", text.to_ascii_uppercase().trim_start_matches("SIG"));
        if full != text && SIGNALS.iter().any(|(name, _)| *name == full) {
            return value.wrong(
                format!("{} is not known here", quote(text)),
                format!("did you mean {full:?}?"),
            );
        }
    }
    value.word(&SIGNALS)
}

/// `address`.
pub fn address(top: &mut Section<'_>) -> Option<VirtualAddress> {
    let mut keys = top.value("address")?.section()?;
    let virtual_ip = keys.need(
        "virtual_ip",
        "write virtual_ip: with an address",
        words::address_with_prefix,
    );
    let interface = keys.take("interface", |value| {
        let name = value.text()?;
        // What the kernel takes as a name.
        let good = name.len() <= 15 && name.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if good {
            Some(name)
        } else {
            value.wrong(
                format!("{} is not the name of a network interface", quote(&name)),
                "write a name such as eth0 or wlan0, or auto",
            )
        }
    });
    keys.done();
    Some(VirtualAddress {
        virtual_ip: virtual_ip?,
        interface: interface.filter(|name| name != "auto"),
    })
}

/// `api`. `port`: which one without `listen`.
pub fn api(top: &mut Section<'_>, port: u16) -> SocketAddr {
    let mut keys = top.below("api");
    let listen = keys.take("listen", words::listen);
    keys.done();
    listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
}

/// `safety`.
pub fn safety(top: &mut Section<'_>) -> Safety {
    let mut keys = top.below("safety");
    let safety = Safety {
        peer_wait: keys
            .take("peer_wait", words::duration)
            .unwrap_or(Duration::from_secs(10)),
        after_crash: keys
            .take("after_crash", |value| {
                value.word(&[
                    ("quarantine", AfterCrash::Quarantine),
                    ("start", AfterCrash::Start),
                ])
            })
            .unwrap_or(AfterCrash::Quarantine),
        keep_set_aside: keys
            .take("keep_set_aside", |value| value.number(0, 1000))
            .unwrap_or(2),
    };
    keys.done();
    safety
}
