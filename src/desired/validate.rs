//! From the text of the state file to [`Desired`]: which laptop this is, and the rules that join several keys.
//!
//! Pure: no file, environment, clock or process is asked. What depends on the machine comes in as [`Surroundings`]. All
//! problems come out at once. The single sections are read in [`super::sections`], the rules that join
//! their keys are in [`super::rules`].

use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};

use super::diagnostic::{Diagnostic, quote};
use super::file::{Entry, Kind, Node, parse};
use super::model::{Database, Desired, PeerAddress, Role};
use super::read::{Problems, Section, Value, one_of};
use super::rules;
use super::sections::{self, Base};
use super::unsupported;
use super::words::{self, is_node_name};

/// What validation has to know about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The state file. Absolute; relative paths in it begin at its directory.
    pub path: Utf8PathBuf,
    /// Whether the daemon runs as root.
    pub root: bool,
    /// The daemon's user.
    pub user: String,
    /// The host name.
    pub hostname: String,
    /// The name given with `--node`.
    pub node: Option<String>,
    /// The addresses of this machine's network interfaces.
    pub addresses: Vec<IpAddr>,
    /// What `$XDG_STATE_HOME` stands for; used when the daemon is not root.
    pub state_home: Utf8PathBuf,
}

/// The roles with what they say, for a person.
const ROLES: &str = "primary (this database is written to), standby (it follows the other laptop), \
                     failover (the other laptop is gone: take over) or recovery (restore a backup)";
/// PostgreSQL's port, if the file says none.
pub const DEFAULT_PORT: u16 = 5432;
/// The port of the HTTP interface, if the file says none.
pub const DEFAULT_API_PORT: u16 = 8432;

/// Validates the text of a state file.
pub fn validate(text: &str, surroundings: &Surroundings) -> Result<Desired, Vec<Diagnostic>> {
    let (root, found) = parse(text);
    let Some(root) = root else { return Err(found) };
    let problems = Problems::new(text, &root, found);
    let desired = whole(&root, surroundings, &problems);
    let found = problems.into_sorted();
    match desired {
        Some(desired) if found.is_empty() => Ok(desired),
        _ => Err(found),
    }
}

/// Reads everything, even after a problem, so that all problems are found.
fn whole(root: &Node, surroundings: &Surroundings, problems: &Problems<'_>) -> Option<Desired> {
    let top = Value {
        path: String::new(),
        node: root,
        problems,
    };
    let Kind::Map(_) = root.kind else {
        return top.wrong(
            "the file has to consist of lines that read `key: value`",
            "write, for example, `role: primary`, with a space behind the colon",
        );
    };
    let mut top = top.section()?;
    let directory = surroundings.path.parent().unwrap_or(Utf8Path::new("/"));

    let paused = top.take("paused", Value::boolean).unwrap_or(false);
    let home = top
        .take("home", |value| words::path(value, directory))
        .unwrap_or_else(|| {
            if surroundings.root {
                "/var/lib/paceline".into()
            } else {
                surroundings.state_home.join("paceline")
            }
        });
    let base = Base {
        directory,
        home: &home,
        surroundings,
    };

    let placing = placing(&mut top, root, surroundings, problems);
    let peered = root.get("peer").is_some() || placing.peer.is_some();

    let mut postgres = sections::postgres(&mut top, &base, peered, placing.port);
    let replication = sections::replication(&mut top, &base);
    let archive = sections::archive(&mut top, &base);
    let recovery = sections::recovery(&mut top, &base);
    let racedb = sections::racedb(&mut top, &base, &postgres.os_user);
    let address = sections::address(&mut top);
    let api_listen = sections::api(&mut top, placing.api_port.unwrap_or(DEFAULT_API_PORT));
    let safety = sections::safety(&mut top);
    let consent = top.take("consent", sections::word_or_number);
    top.done();

    if racedb.is_some() && root.find("postgres.database").is_none() {
        postgres.database = Some(Database {
            name: "racedb".to_owned(),
            owner: "racedb".to_owned(),
            password_file: home.join("secrets/racedb"),
            password_file_declared: false,
        });
    }
    let own_ports = [
        ("postgres.port", placing.port, postgres.port),
        ("api.listen", placing.api_port, api_listen.port()),
    ];
    for (key, entry, used) in own_ports {
        if let Some(entry) = entry.filter(|entry| *entry != used) {
            problems.about(
                key,
                format!("{key}: the port is {used} here, but {entry} in this laptop's entry of \"nodes\""),
                "say the port in one of the two places",
            );
        }
    }
    let peer = placing.peer.map(|peer| match peer {
        PeerPlace::Plain(peer) => peer,
        // One file for both laptops: what its other sections say about ports is true for both.
        PeerPlace::Shared { host, port, api_port } => PeerAddress {
            host,
            port: port
                .or(root.find("postgres.port").map(|_| postgres.port))
                .unwrap_or(DEFAULT_PORT),
            api_port: api_port
                .or(root.find("api.listen").map(|_| api_listen.port()))
                .unwrap_or(DEFAULT_API_PORT),
        },
    });
    let mut desired = Desired {
        // A stand-in while problems are collected; the rule below keeps it from getting out.
        role: placing.role.unwrap_or(Role::Standby),
        paused,
        node: placing.name.unwrap_or_default(),
        peer,
        home,
        postgres,
        replication,
        archive,
        recovery,
        racedb,
        address,
        api_listen,
        safety,
        consent,
        unsupported: Vec::new(),
    };
    rules::check(&desired, surroundings, problems);
    placing.role?;
    desired.unsupported = unsupported::collect(root, &desired);
    Some(desired)
}

/// Which laptop this is, what it is to be, and where the other one is.
struct Placing {
    name: Option<String>,
    role: Option<Role>,
    peer: Option<PeerPlace>,
    /// This laptop's own ports, if its entry in `nodes` says them.
    port: Option<u16>,
    api_port: Option<u16>,
}

enum PeerPlace {
    Plain(PeerAddress),
    Shared {
        host: String,
        port: Option<u16>,
        api_port: Option<u16>,
    },
}

fn placing(
    top: &mut Section<'_>,
    root: &Node,
    surroundings: &Surroundings,
    problems: &Problems<'_>,
) -> Placing {
    let name = top.take("node", words::node_name);
    let role = top.take("role", role);
    let peer = top.take("peer", peer);
    let nodes = top.value("nodes");
    if let Some(name) = surroundings.node.as_ref().filter(|name| !is_node_name(name)) {
        let message = format!("--node {} is not a name for a laptop", quote(name));
        problems.about("node", message, words::NODE_NAME_HELP);
    }

    if let Some(nodes) = nodes {
        for key in ["role", "peer"] {
            if root.get(key).is_some() {
                problems.about(
                    key,
                    format!("{key:?} and \"nodes\" exclude each other"),
                    format!("{key:?} is said inside of each entry of \"nodes\": delete it here"),
                );
            }
        }
        return shared(&nodes, name.as_deref(), surroundings);
    }
    if root.get("role").is_none() {
        top.missing("role", &format!("write `role:` with one of {ROLES}"));
    }
    let name = surroundings
        .node
        .clone()
        .or(name)
        .unwrap_or_else(|| surroundings.hostname.clone());
    Placing {
        name: Some(name),
        role,
        peer: peer.map(PeerPlace::Plain),
        port: None,
        api_port: None,
    }
}

fn role(value: &Value<'_>) -> Option<Role> {
    use Role::{Failover, Primary, Recovery, Standby};
    match value.scalar() {
        // Other words for the same, from other tools and older days.
        Some((word @ ("master" | "leader" | "main"), _)) => value.wrong(
            format!("{word:?} is not a role here"),
            format!("did you mean \"primary\"? A role is {ROLES}"),
        ),
        Some((word @ ("slave" | "replica" | "secondary" | "follower" | "backup"), _)) => value.wrong(
            format!("{word:?} is not a role here"),
            format!("did you mean \"standby\"? A role is {ROLES}"),
        ),
        _ => value.word(&[
            (Primary.word(), Primary),
            (Standby.word(), Standby),
            (Failover.word(), Failover),
            (Recovery.word(), Recovery),
        ]),
    }
}

fn peer(value: &Value<'_>) -> Option<PeerAddress> {
    if let Kind::List(_) = value.node.kind {
        let help = "there is one other laptop: write its name, without brackets";
        return value.wrong_kind("a host name or an address", help);
    }
    if value.scalar().is_some() {
        let (host, port) = words::host_and_port(value)?;
        return Some(PeerAddress {
            host,
            port: port.unwrap_or(DEFAULT_PORT),
            api_port: DEFAULT_API_PORT,
        });
    }
    let mut keys = value.section()?;
    let host = keys.need(
        "host",
        "write host: with the name or address of the other laptop",
        words::host,
    );
    let port = keys.take("port", words::port).unwrap_or(DEFAULT_PORT);
    let api_port = keys.take("api_port", words::port).unwrap_or(DEFAULT_API_PORT);
    keys.done();
    Some(PeerAddress {
        host: host?,
        port,
        api_port,
    })
}

/// One entry of `nodes`.
struct Laptop {
    name: String,
    role: Option<Role>,
    host: Option<String>,
    port: Option<u16>,
    api_port: Option<u16>,
}

/// The form in which one file declares both laptops.
fn shared(nodes: &Value<'_>, declared: Option<&str>, surroundings: &Surroundings) -> Placing {
    let nowhere = Placing {
        name: None,
        role: None,
        peer: None,
        port: None,
        api_port: None,
    };
    let Some(entries) = nodes.entries() else {
        return nowhere;
    };
    let mut laptops: Vec<Laptop> = entries.map(|(entry, value)| laptop(entry, &value)).collect();
    if laptops.is_empty() || laptops.len() > 2 {
        let count = laptops.len();
        let _: Option<()> = nodes.wrong(
            format!("{count} laptops are declared"),
            "declare one or two: each entry is a name with role and address",
        );
        return nowhere;
    }
    let own = match find_own(&laptops, declared, surroundings) {
        Ok(own) => own,
        Err(why) => {
            let names: Vec<&str> = laptops.iter().map(|laptop| laptop.name.as_str()).collect();
            let _: Option<()> = nodes.wrong(
                why,
                format!(
                    "say which one it is: start paceline with --node NAME (NAME is {})",
                    one_of(&names)
                ),
            );
            return nowhere;
        }
    };
    let own = laptops.swap_remove(own);
    let other = laptops.pop();
    Placing {
        name: Some(own.name),
        role: own.role,
        peer: other.and_then(|other| {
            Some(PeerPlace::Shared {
                host: other.host?,
                port: other.port,
                api_port: other.api_port,
            })
        }),
        port: own.port,
        api_port: own.api_port,
    }
}

fn laptop(entry: &Entry, value: &Value<'_>) -> Laptop {
    if !is_node_name(&entry.name) {
        let message = format!("{} is not a name for a laptop", quote(&entry.name));
        value
            .problems
            .at(&entry.at, &value.path, message, words::NODE_NAME_HELP);
    }
    let mut laptop = Laptop {
        name: entry.name.clone(),
        role: None,
        host: None,
        port: None,
        api_port: None,
    };
    if let Some(mut keys) = value.section() {
        laptop.role = keys.need("role", &format!("write role: with one of {ROLES}"), role);
        laptop.host = keys.need(
            "address",
            "write address: with the name or address that the other laptop dials",
            words::host,
        );
        laptop.port = keys.take("port", words::port);
        laptop.api_port = keys.take("api_port", words::port);
        keys.done();
    }
    laptop
}

/// Which entry is this laptop: by `--node`, else `node:`, else host name, else an own address.
fn find_own(
    laptops: &[Laptop],
    declared: Option<&str>,
    surroundings: &Surroundings,
) -> Result<usize, String> {
    let named = |name: &str| laptops.iter().position(|laptop| laptop.name == name);
    if let Some(name) = surroundings.node.as_deref() {
        return named(name)
            .ok_or_else(|| format!("--node says {}, which is not among the laptops", quote(name)));
    }
    if let Some(name) = declared {
        return named(name)
            .ok_or_else(|| format!("`node` says {}, which is not among the laptops", quote(name)));
    }
    // Host names do not care about upper and lower case.
    let full = surroundings.hostname.as_str();
    let short = full.split('.').next().unwrap_or(full);
    for name in [full, short] {
        if let Some(found) = laptops
            .iter()
            .position(|laptop| laptop.name.eq_ignore_ascii_case(name))
        {
            return Ok(found);
        }
    }
    let here = |laptop: &Laptop| {
        let address = laptop.host.as_ref().and_then(|host| host.parse::<IpAddr>().ok());
        address.is_some_and(|address| surroundings.addresses.contains(&address))
    };
    let matching: Vec<usize> = (0..laptops.len())
        .filter(|&index| here(&laptops[index]))
        .collect();
    match matching.as_slice() {
        [only] => Ok(*only),
        [] => Err(format!(
            "none of the laptops is this one: its host name is {}, and no address fits",
            quote(full)
        )),
        _ => Err("more than one of the laptops has an address of this one".to_owned()),
    }
}
