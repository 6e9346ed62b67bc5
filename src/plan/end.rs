//! Where a plan stops: converged, waiting for something that comes by itself, or blocked until a person acts.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do.

use std::fmt;

use super::blocked::Blocked;
use super::pair_end::PeerWait;
use crate::observed::PendingSetting;

/// Where a plan stops.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// The laptop is then as declared.
    Converged,
    /// It will go on by itself.
    Waiting(Waiting),
    /// A person must act.
    Blocked(Blocked),
}

/// What a plan waits for; it goes on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The server is starting or recovering from a crash.
    ServerStarting,
    /// The backup that is declared now was not looked at yet.
    BackupUnseen,
    /// The server is shutting down.
    ServerStopping,
    /// Processes of a dead server are still there.
    Leftovers(Vec<i32>),
    /// The server runs and does not answer.
    ServerSilent(String),
    /// The daemon shall end, and whether a server runs cannot be seen.
    CannotStop(String),
    /// The application's database could not be looked at.
    DatabaseUnseen(String),
    /// Changed settings take effect at the next restart of the server.
    Restart(Vec<PendingSetting>),
    /// A restart was asked for; the server that runs goes on, since it would not be started again now: why.
    RestartHeld(String),
    /// Declared standby, but nobody can take over.
    NoSuccessor,
    /// `paused: true`; what would be done.
    Paused(Vec<String>),
    /// The other laptop, or news of it.
    Peer(PeerWait),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerStarting => f.write_str("the server is starting"),
            Self::BackupUnseen => f.write_str("looking at the backup"),
            Self::ServerStopping => f.write_str("the server is shutting down"),
            Self::Leftovers(pids) => {
                write!(
                    f,
                    "processes of a dead server still hold the data directory: {}",
                    numbers(pids)
                )
            }
            Self::ServerSilent(why) => write!(f, "the server runs but does not answer: {why}"),
            Self::CannotStop(why) => {
                write!(f, "cannot see whether the server still has to be stopped: {why}")
            }
            Self::DatabaseUnseen(why) => write!(f, "cannot look at the application's database: {why}"),
            Self::Restart(settings) => {
                let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "these settings take effect when the server is next restarted: {}",
                    settings.join(", ")
                )
            }
            Self::RestartHeld(why) => write!(
                f,
                "a restart was asked for, but the server would not be started again now: {why}"
            ),
            Self::NoSuccessor => {
                f.write_str("no successor yet: this laptop keeps serving until another can take over")
            }
            Self::Paused(pending) if pending.is_empty() => {
                f.write_str("paused; there is nothing to do anyway")
            }
            Self::Paused(pending) => write!(f, "paused; otherwise: {}", pending.join(", then ")),
            Self::Peer(wait) => wait.fmt(f),
        }
    }
}

impl Waiting {
    /// What a person may do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ServerStarting | Self::ServerStopping | Self::BackupUnseen | Self::DatabaseUnseen(_) => None,
            Self::NoSuccessor => Some(
                "write `primary` on the other laptop, and it takes over as soon as it follows this one; to keep it as it is, \
                 write `primary` here"
                    .to_owned(),
            ),
            Self::Leftovers(pids) => Some(format!(
                "they end by themselves within seconds; if they do not, look at them with: ps -fp {}",
                numbers(pids)
            )),
            Self::ServerSilent(_) => Some("look at the end of the server's log in the home's log directory".to_owned()),
            Self::Restart(_) => {
                Some("at a quiet moment: paceline restart (the application is stopped for some seconds)".to_owned())
            }
            Self::RestartHeld(_) => {
                Some("the server goes on as it is; mend that, then ask again: paceline restart".to_owned())
            }
            Self::CannotStop(_) => {
                Some("mend that, or ask a second time (SIGTERM): the daemon then ends and leaves everything as it is".to_owned())
            }
            Self::Peer(wait) => wait.hint(),
            Self::Paused(_) => Some("write `paused: false` to let Paceline act again".to_owned()),
        }
    }
}

fn numbers(pids: &[i32]) -> String {
    pids.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
