//! The text of a new state file: small, valid, and with comments for whoever opens it at seven in the morning.
//!
//! Pure. What comes from a command line is written so that it stays one value, whatever is in it; whether it is a good
//! one is decided by [`super::validate()`], like for every other file.

use std::fmt::Write as _;

use super::file::{ScalarKind, scalar_kind};
use super::model::Role;
use super::words::split_port;

/// What a new file is to say; `None`: the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// The role of this laptop.
    pub role: Role,
    /// The other laptop.
    pub peer: Option<FreshPeer>,
    /// The name of this laptop.
    pub node: Option<String>,
    /// `home`.
    pub home: Option<String>,
    /// PostgreSQL's port here.
    pub port: Option<u16>,
    /// Paceline's port here.
    pub api_port: Option<u16>,
}

/// The other laptop, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshPeer {
    /// `host` or `host:port`.
    pub host: String,
    /// Paceline's port there.
    pub api_port: Option<u16>,
}

const HEAD: &str = "\
# Paceline's state file: what this laptop is to be. A running daemon acts on every change of it;
# `paceline check` finds mistakes, `paceline schema` prints all keys with their meaning.

# During the event only this word changes (`paceline failover`, `paceline standby` and `paceline primary` do it too):
#   primary    this database is written to
#   standby    this laptop follows the other one
#   failover   the other laptop is gone: take over
";

const APPLICATION: &str = "
# The application, started only while this database may be written to. Without it there is only the database.
# racedb:
#   command: [python3, launch.py, --port, \"{port}\"]
#   working_directory: /opt/RaceDB
#   listen: \"0.0.0.0:8080\"       # what the stations use, the same on both laptops
";

impl Fresh {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut out = format!("{HEAD}role: {}\n", self.role);
        match &self.peer {
            Some(peer) => {
                let _ = write!(out, "\n# The other laptop.\n{}\n", peer.line());
            }
            None => out.push_str("\n# The other laptop, as soon as there is one: its name or its address.\n# peer: 192.168.40.17\n"),
        }
        if let Some(node) = &self.node {
            let _ = write!(
                out,
                "\n# What this laptop is called; otherwise by its host name.\nnode: {}\n",
                scalar(node)
            );
        }
        if let Some(home) = &self.home {
            let _ = write!(
                out,
                "\n# Where database, secrets, configuration and logs are.\nhome: {}\n",
                scalar(home)
            );
        }
        if self.port.is_some() || self.api_port.is_some() {
            out.push_str(
                "\n# Ports: PostgreSQL's, and the one that the other laptop and `paceline status` ask.\n",
            );
        }
        if let Some(port) = self.port {
            let _ = writeln!(out, "postgres: {{ port: {port} }}");
        }
        if let Some(port) = self.api_port {
            let _ = writeln!(out, "api: {{ listen: \"0.0.0.0:{port}\" }}");
        }
        out.push_str(APPLICATION);
        out
    }
}

impl FreshPeer {
    /// The line of the file that names it.
    pub fn line(&self) -> String {
        let Some(api_port) = self.api_port else {
            return format!("peer: {}", scalar(&self.host));
        };
        let (host, port) = split_port(&self.host);
        let port = match port {
            // What is no port is shown as it is, and refused as such.
            Some(port) => format!("port: {}, ", number(port)),
            None => String::new(),
        };
        format!("peer: {{ host: {}, {port}api_port: {api_port} }}", scalar(host))
    }
}

/// A text as one YAML value: as it is where that is the same to every reader, otherwise in quotes.
fn scalar(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    if begins && text.chars().all(harmless) && scalar_kind(text, true) == ScalarKind::Text {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() => out.push(c),
            // Line ends, and what YAML does not let stand there.
            _ => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

fn number(text: &str) -> String {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        text.to_owned()
    } else {
        scalar(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::validate::{Surroundings, validate};
    use super::*;
    use proptest::prelude::*;

    fn bravo() -> Surroundings {
        Surroundings {
            path: "/etc/paceline/state.yaml".into(),
            root: false,
            user: "crew".to_owned(),
            hostname: "bravo".to_owned(),
            node: None,
            addresses: vec!["192.168.40.17".parse().unwrap()],
            state_home: "/home/crew/.local/state".into(),
        }
    }

    fn smallest() -> Fresh {
        Fresh {
            role: Role::Primary,
            peer: None,
            node: None,
            home: None,
            port: None,
            api_port: None,
        }
    }

    #[test]
    fn a_new_file_declares_what_was_asked_for() {
        let plain = validate(&smallest().text(), &bravo()).unwrap();
        assert_eq!((plain.role, plain.peer), (Role::Primary, None));
        for (host, api_port, port) in [
            ("alpha", None, 5432),
            ("alpha.local:5433", None, 5433),
            ("192.168.40.16:5433", Some(9000), 5433),
            ("[fe80::16]:5433", Some(9000), 5433),
            ("fe80::", None, 5432),
        ] {
            let fresh = Fresh {
                role: Role::Standby,
                peer: Some(FreshPeer {
                    host: host.to_owned(),
                    api_port,
                }),
                node: Some("1".to_owned()),
                home: Some("/srv/it's \"here\" # ö".to_owned()),
                port: Some(5434),
                api_port: Some(9001),
            };
            let desired = validate(&fresh.text(), &bravo()).unwrap();
            let peer = desired.peer.unwrap();
            assert_eq!((peer.port, peer.api_port), (port, api_port.unwrap_or(8432)));
            assert!(host.contains(&peer.host));
            assert_eq!((desired.role, desired.node.as_str()), (Role::Standby, "1"));
            assert_eq!(desired.home, "/srv/it's \"here\" # ö");
            assert_eq!((desired.postgres.port, desired.api_listen.port()), (5434, 9001));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        /// Nothing on a command line can add a key.
        #[test]
        fn a_value_stays_one_value(text in prop_oneof![".*", "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#?~ \\n]{0,20}"], api_port in prop::option::of(1..9_u16)) {
            let fresh = Fresh {
                peer: Some(FreshPeer { host: text.clone(), api_port }),
                node: Some(text),
                ..smallest()
            };
            let (root, problems) = super::super::file::parse(&fresh.text());
            prop_assert_eq!(problems, []);
            let super::super::file::Kind::Map(entries) = root.unwrap().kind else { panic!("no map") };
            let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
            prop_assert_eq!(names, ["role", "peer", "node"]);
        }
    }
}
