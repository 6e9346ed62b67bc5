//! The rules of the state file that join several keys, or that need to know the machine.
//!
//! Called by [`super::validate`] when everything has been read, defaults included. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::model::{AppPort, Desired, Role};
use super::read::Problems;
use super::validate::Surroundings;

/// Checks them all.
pub fn check(desired: &Desired, surroundings: &Surroundings, problems: &Problems<'_>) {
    let data = &desired.postgres.data_directory;
    let home = &desired.home;

    // The address of a unix socket has room for 108 bytes, the last one a zero.
    let socket = desired
        .socket_directory()
        .join(format!(".s.PGSQL.{}", desired.postgres.port));
    if socket.as_str().len() >= 108 {
        let message = format!(
            "home: the path of the server's socket would have {} bytes: {socket}",
            socket.as_str().len()
        );
        problems.about(
            "home",
            message,
            "at most 107 are possible: declare a `home` with a shorter path",
        );
    }

    for reserved in ["conf", "run", "log", "secrets"] {
        let reserved = home.join(reserved);
        if data.starts_with(&reserved) || reserved.starts_with(data) {
            problems.about(
                "postgres.data_directory",
                format!(
                    "postgres.data_directory: {data} and Paceline's own {reserved} are in each other's way"
                ),
                "choose another directory: `data` in `home` is the default",
            );
            break;
        }
    }
    if let Some(archive) = &desired.archive
        && archive.directory.starts_with(data)
    {
        problems.about(
            "archive.directory",
            format!(
                "archive.directory: {} is inside of the database's own directory",
                archive.directory
            ),
            "choose a directory on another disk",
        );
    }
    if let Some(database) = &desired.postgres.database
        && database.owner == desired.replication.user
    {
        problems.about(
            "postgres.database",
            format!(
                "postgres.database: its owner {:?} is also the user of the replication",
                database.owner
            ),
            "use two different users",
        );
    }
    // PostgreSQL's name; Paceline works as this role itself, and would change its password and rights.
    if desired.replication.user == "postgres" {
        problems.about(
            "replication.user",
            "replication.user: \"postgres\" is the superuser".to_owned(),
            "leave it out (replicator), or choose a role for the replication alone",
        );
    }
    let restores = desired
        .recovery
        .as_ref()
        .is_some_and(|r| r.from.is_some() || r.restore_command.is_some());
    if desired.role == Role::Recovery && !restores {
        let key = if desired.recovery.is_some() {
            "recovery"
        } else {
            "role"
        };
        problems.about(
            key,
            "role: recovery does not know what to restore",
            "declare `recovery: { from: … }` with the place of the backup, or a `restore_command`",
        );
    }
    if let Some(peer) = &desired.peer
        && let Ok(address) = peer.host.parse::<IpAddr>()
        && (address.is_loopback() || surroundings.addresses.contains(&address))
        && (peer.port == desired.postgres.port || peer.api_port == desired.api_listen.port())
    {
        let (key, help) = if problems.declared("nodes") {
            (
                "nodes",
                "check the addresses, and with which --node paceline was started",
            )
        } else {
            ("peer", "write the address of the other laptop")
        };
        problems.about(
            key,
            format!("{key}: the other laptop's address {address} is the one of this laptop"),
            help,
        );
    }
    ports(desired, problems);
}

/// Two keys must not claim the same port.
fn ports(desired: &Desired, problems: &Problems<'_>) {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut claims = vec![
        (
            "postgres.port",
            SocketAddr::new(everywhere, desired.postgres.port),
        ),
        ("api.listen", desired.api_listen),
    ];
    if let Some(app) = &desired.racedb {
        claims.extend(app.listen.map(|listen| ("racedb.listen", listen)));
        if let AppPort::Fixed(port) = app.port {
            claims.push((
                "racedb.port",
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            ));
        }
    }
    for (index, (key, claim)) in claims.iter().enumerate() {
        for (earlier_key, earlier) in &claims[..index] {
            let overlap =
                claim.ip() == earlier.ip() || claim.ip().is_unspecified() || earlier.ip().is_unspecified();
            if claim.port() == earlier.port() && overlap {
                let declared = problems.declared(key);
                let (at, other) = if declared {
                    (key, earlier_key)
                } else {
                    (earlier_key, key)
                };
                problems.about(
                    at,
                    format!("{at}: the port {} is used by {other} already", claim.port()),
                    "give each its own port",
                );
            }
        }
    }
}
