//! Where a plan stops: converged, waiting for something that comes by itself, or blocked until a person acts.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do.

use std::fmt;

use super::blocked::Blocked;
use super::pair_end::PeerWait;

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
    Restart(Vec<String>),
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
                write!(
                    f,
                    "these settings take effect when the server is next restarted: {}",
                    settings.join(", ")
                )
            }
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
            Self::ServerStarting | Self::ServerStopping | Self::DatabaseUnseen(_) => None,
            Self::NoSuccessor => Some(
                "handing over to a standby is not supported yet; write `primary` here to keep it so".to_owned(),
            ),
            Self::Leftovers(pids) => Some(format!(
                "they end by themselves within seconds; if they do not, look at them with: ps -fp {}",
                numbers(pids)
            )),
            Self::ServerSilent(_) => Some("look at the end of the server's log in the home's log directory".to_owned()),
            Self::Restart(_) => Some(
                "at a quiet moment stop the daemon with SIGTERM (application and server stop with it) and start it again"
                    .to_owned(),
            ),
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
