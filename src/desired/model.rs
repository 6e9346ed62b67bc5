//! What the state file declares, validated: plain data that every later stage reads and none changes.
//!
//! Nothing here reads a file, a clock or a process; defaults that depend on the machine (host name, home, user) are
//! arguments of [`super::validate`]. A value of this module is complete: no stage looks up a default of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The one word that a person changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// This laptop's database is the one that is written to.
    Primary,
    /// This laptop follows the other one and is ready to take over.
    Standby,
    /// The other laptop is gone: take over now.
    Failover,
    /// Restore the database from a backup, once, then act as primary.
    Recovery,
}

impl Role {
    /// The word as it stands in the state file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Failover => "failover",
            Self::Recovery => "recovery",
        }
    }

    /// Whether this role asks for a database that may be written to.
    pub const fn writes(self) -> bool {
        match self {
            Self::Primary | Self::Failover | Self::Recovery => true,
            Self::Standby => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The whole declaration. See `DESIGN` section 3 in the crate documentation for the file's format.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The declared role of this laptop.
    pub role: Role,
    /// Observe and report only; touch nothing, leave the gate as it is.
    pub paused: bool,
    /// This laptop's name.
    pub node: String,
    /// Where the other laptop is; `None`: there is only one.
    pub peer: Option<PeerAddress>,
    /// Runtime state: lock, configuration, memory, secrets. Absolute.
    pub home: Utf8PathBuf,
    /// The database server.
    pub postgres: Postgres,
    /// How the two laptops replicate.
    pub replication: Replication,
    /// Continuous archive, if any.
    pub archive: Option<Archive>,
    /// What `role: recovery` restores, if declared.
    pub recovery: Option<Recovery>,
    /// The gated application, if any.
    pub racedb: Option<App>,
    /// The virtual address that follows the open gate, if any.
    pub address: Option<VirtualAddress>,
    /// Where the read-only HTTP interface listens.
    pub api_listen: SocketAddr,
    /// Waiting times and what is kept.
    pub safety: Safety,
    /// A token that allows one dangerous step, once.
    pub consent: Option<String>,
    /// Keys that are present in the file and whose behaviour is not built yet.
    pub unsupported: Vec<Unsupported>,
}

/// A key that is valid and present, but whose behaviour this version does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsupported {
    /// The key's path, such as `archive` or `racedb.prewarm`.
    pub key: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// What happens instead, for a person, such as "no base backups are made".
    pub instead: String,
}

/// Where the other laptop answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddress {
    /// Host name or address.
    pub host: String,
    /// Its PostgreSQL port.
    pub port: u16,
    /// Its Paceline HTTP port.
    pub api_port: u16,
}

/// The database server of this laptop.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// PGDATA. Absolute. Its siblings hold staging and set-aside copies.
    pub data_directory: Utf8PathBuf,
    /// Where `postgres`, `initdb` … are; `None`: found by major version.
    pub bin_directory: Option<Utf8PathBuf>,
    /// TCP port, and the number in the name of the socket file.
    pub port: u16,
    /// PostgreSQL's `listen_addresses`.
    pub listen_addresses: String,
    /// Whom the server runs as; the daemon's own user unless the daemon is root.
    pub os_user: String,
    /// Further server settings, name to value as PostgreSQL reads it (no quotes).
    pub settings: BTreeMap<String, String>,
    /// Networks (CIDR) that may connect, always with scram-sha-256.
    pub allow: Vec<String>,
    /// Further `pg_hba.conf` lines, verbatim, before ours.
    pub hba: Vec<String>,
    /// The application's database; `None`: none is made.
    pub database: Option<Database>,
    /// While this file exists, `standby` means `failover`.
    pub trigger_file: Option<Utf8PathBuf>,
}

/// The application's database and the role that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Database name.
    pub name: String,
    /// Owning role; it can log in.
    pub owner: String,
    /// The file whose first line is the owner's password. Absolute.
    pub password_file: Utf8PathBuf,
    /// Whether a person declared the file. If not, it is ours: it is made when missing, and the password of a role
    /// that exists already is left alone.
    pub password_file_declared: bool,
}

/// How many commits may be lost with the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A commit does not wait for the standby.
    Async,
    /// A commit waits for the standby while there is one; without one it does not, visibly.
    Sync,
}

/// `sslmode` of the connections between the laptops, as libpq names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never use TLS.
    Disable,
    /// Use TLS only if the server insists.
    Allow,
    /// Use TLS if the server offers it.
    Prefer,
    /// Demand TLS, without checking the certificate.
    Require,
    /// Demand TLS and a certificate of a known authority.
    VerifyCa,
    /// Demand TLS and a certificate for the name that was dialled.
    VerifyFull,
}

impl SslMode {
    /// The word as libpq reads it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How the two laptops replicate.
#[derive(Clone, Debug, PartialEq)]
pub struct Replication {
    /// The role that the other laptop logs in as.
    pub user: String,
    /// The file that holds its password. Absolute.
    pub password_file: Utf8PathBuf,
    /// TLS between the laptops.
    pub sslmode: SslMode,
    /// What a commit waits for.
    pub durability: Durability,
    /// How much WAL a slot may hold back, as PostgreSQL writes sizes (`4GB`).
    pub max_slot_wal_keep_size: String,
}

/// Continuous archive on a stick.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    /// The archive's directory. Absolute.
    pub directory: Utf8PathBuf,
    /// How often a base backup is made.
    pub base_backup_every: Duration,
    /// How many base backups are kept; at least 1.
    pub keep: u32,
}

/// What `role: recovery` restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// An archive directory, a base backup directory, or a tar file. Absolute.
    pub from: Option<Utf8PathBuf>,
    /// PostgreSQL's `restore_command`.
    pub restore_command: Option<String>,
    /// Up to which moment.
    pub target: RecoveryTarget,
    /// Changed by a person to ask for the same restore again.
    pub request: String,
}

/// Up to which moment a recovery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// Everything there is.
    Latest,
    /// The first consistent moment.
    Immediate,
    /// A moment, as PostgreSQL reads `recovery_target_time`.
    Time(String),
    /// A WAL position.
    Lsn(String),
    /// A named restore point.
    Name(String),
    /// A transaction.
    Xid(String),
}

/// The gated application.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Program and arguments; `{port}` in an argument is filled in. Never empty.
    pub command: Vec<String>,
    /// Where it runs. Absolute.
    pub working_directory: Utf8PathBuf,
    /// Whom it runs as when the daemon is root; `None`: the user of the daemon, never root (see `validate`).
    pub user: Option<String>,
    /// Variables besides the ones that Paceline provides.
    pub environment: BTreeMap<String, String>,
    /// The front door: what stations use.
    pub listen: Option<SocketAddr>,
    /// The application's private port.
    pub port: AppPort,
    /// Whether it is loaded before the gate opens and waits for a line on its stdin.
    pub prewarm: bool,
    /// Path of a request that reads the database.
    pub health: Option<String>,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// The signal that stops it: a name such as `SIGTERM`.
    pub stop_signal: String,
    /// How long it may take to stop before it is killed.
    pub stop_grace: Duration,
}

/// The application's private port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppPort {
    /// A fresh one for each start.
    Auto,
    /// Always this one.
    Fixed(u16),
}

/// The virtual address that follows the open gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// Address with prefix length, such as `192.168.40.10/24`.
    pub virtual_ip: String,
    /// Network interface; `None`: the one whose network holds the address.
    pub interface: Option<String>,
}

/// What happens with a primary whose server crashed while the peer cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterCrash {
    /// Wait for the peer, or for a person.
    Quarantine,
    /// Start at once.
    Start,
}

/// Waiting times and what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safety {
    /// How long a starting daemon waits for the peer's first answer.
    pub peer_wait: Duration,
    /// See [`AfterCrash`].
    pub after_crash: AfterCrash,
    /// How many set-aside copies are kept.
    pub keep_set_aside: u32,
}

impl Desired {
    /// Directory of the server configuration that Paceline writes.
    pub fn conf_directory(&self) -> Utf8PathBuf {
        self.home.join("conf")
    }

    /// The passfile of the server and of the tools that run as its user: the password of the replication.
    pub fn replication_passfile(&self) -> Utf8PathBuf {
        self.conf_directory().join("replication.pgpass")
    }

    /// Directory of the server's unix socket; what local programs use as `PGHOST`.
    pub fn socket_directory(&self) -> Utf8PathBuf {
        self.home.join("run")
    }

    /// Directory of the output of server and application.
    pub fn log_directory(&self) -> Utf8PathBuf {
        self.home.join("log")
    }

    /// The server's log.
    pub fn server_log(&self) -> Utf8PathBuf {
        self.log_directory().join("postgres.log")
    }

    /// The application's output.
    pub fn app_log(&self) -> Utf8PathBuf {
        self.log_directory().join("racedb.log")
    }

    /// A sibling of the data directory: `<data directory>.<suffix>`. On the same file system, so that it can be renamed.
    pub fn beside_data(&self, suffix: &str) -> Utf8PathBuf {
        beside(&self.postgres.data_directory, suffix)
    }
}

/// A sibling of `data_directory`: its name, a dot and `suffix`.
pub fn beside(data_directory: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    let name = data_directory.file_name().unwrap_or("data");
    data_directory.with_file_name(format!("{name}.{suffix}"))
}
