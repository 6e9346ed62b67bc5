//! The vocabulary of a plan: actions, each with its reason. What it waits for or is blocked by: see `end`.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do.

use std::fmt;

use super::end::{Blocked, End, Waiting};
use crate::observed::Installation;

/// Ordered actions, and what the plan comes to when they are done. Only the first action is ever carried out; then
/// the world is looked at again. The rest is a forecast for people.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Where it stops.
    pub end: End,
}

/// One action and why it is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Plan {
    /// Nothing to do.
    pub fn converged() -> Self {
        Self {
            steps: Vec::new(),
            end: End::Converged,
        }
    }

    /// Nothing to do until something happens by itself.
    pub fn waiting(waiting: Waiting) -> Self {
        Self {
            steps: Vec::new(),
            end: End::Waiting(waiting),
        }
    }

    /// Nothing to do until a person acts.
    pub fn blocked(blocked: Blocked) -> Self {
        Self {
            steps: Vec::new(),
            end: End::Blocked(blocked),
        }
    }

    /// The action to carry out now.
    pub fn first(&self) -> Option<&Step> {
        self.steps.first()
    }
}

/// Something that Paceline can do. Each is idempotent, checks its own preconditions again and verifies its result;
/// none decides anything (see `exec`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a new, empty database with these programs.
    CreateCluster(Installation),
    /// Take over a database that Paceline did not make: write the sidecar beside it; its data is not touched.
    AdoptCluster,
    /// Write the server's configuration files in `home`.
    WriteConfiguration(Box<ConfigurationFiles>),
    /// Take these names out of `postgresql.auto.conf`, which beats every other file.
    PurgeAutoConf(Vec<String>),
    /// Start the server.
    StartServer(Start),
    /// Let the running server read its configuration again.
    ReloadServer {
        /// What it must have loaded afterwards.
        configuration: String,
    },
    /// Record the name of the epoch that the server writes: sidecar first, then the row.
    NameEpoch,
    /// Create the application's role and database, or put them right.
    EnsureDatabase,
    /// Wait until the application, which the closed gate stops, is gone.
    StopApp,
    /// Stop the server: fast; after a long while immediately, never by SIGKILL.
    StopServer,
}

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// With these programs.
    pub programs: Installation,
    /// As what: with `standby.signal` a copy is only read, without it is written to. If that file came or went since the
    /// plan was made, nothing is started: a copy never becomes writable by the loss of a file.
    pub standby: bool,
}

/// The server's configuration, as it shall be in `home`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFiles {
    /// `postgresql.conf`
    pub postgresql_conf: String,
    /// `pg_hba.conf`
    pub pg_hba: String,
    /// `pg_ident.conf`
    pub pg_ident: String,
    /// A digest of all three, which the server shows as `paceline.configuration` once it has loaded them.
    pub digest: String,
}

impl Action {
    /// A short, stable name for logs and the status document.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateCluster(_) => "create_cluster",
            Self::AdoptCluster => "adopt_cluster",
            Self::WriteConfiguration(_) => "write_configuration",
            Self::PurgeAutoConf(_) => "purge_auto_conf",
            Self::StartServer(_) => "start_server",
            Self::ReloadServer { .. } => "reload_server",
            Self::NameEpoch => "name_epoch",
            Self::EnsureDatabase => "ensure_database",
            Self::StopApp => "stop_app",
            Self::StopServer => "stop_server",
        }
    }

    /// Whether it makes, starts or stops the server, so that the gate must not be open beside it.
    pub const fn touches_server(&self) -> bool {
        match self {
            Self::CreateCluster(_) | Self::StartServer(_) | Self::StopServer | Self::StopApp => true,
            Self::AdoptCluster
            | Self::WriteConfiguration(_)
            | Self::PurgeAutoConf(_)
            | Self::ReloadServer { .. }
            | Self::NameEpoch
            | Self::EnsureDatabase => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateCluster(programs) => {
                write!(
                    f,
                    "create a new, empty database with PostgreSQL {}",
                    programs.version
                )
            }
            Self::AdoptCluster => f.write_str("adopt the existing database (its data is not touched)"),
            Self::WriteConfiguration(_) => f.write_str("write the server's configuration"),
            Self::PurgeAutoConf(names) => write!(f, "remove {} from postgresql.auto.conf", names.join(", ")),
            Self::StartServer(start) => write!(f, "start PostgreSQL {}", start.programs.version),
            Self::ReloadServer { .. } => f.write_str("reload the server's configuration"),
            Self::NameEpoch => f.write_str("record the name of the database's epoch"),
            Self::EnsureDatabase => {
                f.write_str("create the application's database and role, or put them right")
            }
            Self::StopApp => f.write_str("stop the application"),
            Self::StopServer => f.write_str("stop the server"),
        }
    }
}

/// Why an action is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The role asks for a database and there is none.
    NoDatabase,
    /// There is a database without a sidecar.
    NotOursYet,
    /// The configuration on disk is not what the state file says.
    ConfigurationDiffers,
    /// Names in `postgresql.auto.conf` would win over the state file.
    AutoConfWins,
    /// The role asks for a running server.
    ServerDown,
    /// The same, and the last one crashed: it recovers by itself.
    ServerCrashed,
    /// The copy is a standby's and may be read.
    StandbyCopy,
    /// The server runs with an older configuration.
    NotLoaded,
    /// The timeline that is being written has no recorded name yet.
    EpochUnnamed,
    /// The sidecar does not list what the database lists.
    SidecarBehind,
    /// The application's role or database is missing or not as declared.
    DatabaseDiffers,
    /// The daemon was asked to end.
    Ending,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDatabase => "the data directory is empty",
            Self::NotOursYet => "Paceline did not make this database",
            Self::ConfigurationDiffers => "it differs from the state file",
            Self::AutoConfWins => "that file would win over the state file",
            Self::ServerDown => "the server is down",
            Self::ServerCrashed => "the server crashed; it recovers by itself",
            Self::StandbyCopy => "this copy is a standby's: it may be read, not written",
            Self::NotLoaded => "the server runs with an older configuration",
            Self::EpochUnnamed => "this stretch of the database's history has no name yet",
            Self::SidecarBehind => "the note beside the data directory is behind the database",
            Self::DatabaseDiffers => "it is missing or not as declared",
            Self::Ending => "the daemon was asked to end",
        })
    }
}
