//! Whether the application may run. Pure.
//!
//! The gate is judged anew on every observation, apart from the executor, so that closing never waits for an action.

use std::fmt;
use std::time::Duration;

use super::action::{Action, Plan};
use super::blocked::Blocked;
use super::end::{End, Waiting};
use crate::desired::Desired;
use crate::lineage::Relation;
use crate::observed::{Answer, Fact, Moment, Observed, Peer, Server, Unanswered};

/// How long a crash or a lost probe may last before the application is stopped.
pub const HOLD: Duration = Duration::from_secs(30);

/// How old a look at the server may be to count.
pub const FRESH: Duration = Duration::from_secs(10);

/// Whether the application may run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may run.
    Open,
    /// It may go on, and must not be started.
    Holding {
        /// Since when.
        since: Moment,
        /// Why.
        reason: String,
    },
    /// It must not run.
    Closed {
        /// Why.
        reason: String,
    },
}

impl Gate {
    /// Closed, for this reason.
    pub fn closed(reason: impl Into<String>) -> Self {
        Self::Closed {
            reason: reason.into(),
        }
    }

    /// Whether the application may be started.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// The stable word of the status document.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Holding { .. } => "holding",
            Self::Closed { .. } => "closed",
        }
    }

    /// Why it is as it is.
    pub fn reason(&self) -> &str {
        match self {
            Self::Open => "the database may be written to",
            Self::Holding { reason, .. } | Self::Closed { reason } => reason,
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.reason())
    }
}

/// What keeps the gate from being open.
enum Obstacle {
    /// A crash or a lost look: the application may go on for [`HOLD`].
    Passing(String),
    /// The application has to stop.
    Lasting(String),
    /// An application that runs may go on; one that is started now would only fail.
    Hurdle(String),
}

/// The gate after this observation.
pub fn gate(previous: &Gate, desired: &Desired, observed: &Observed, plan: &Plan, now: Moment) -> Gate {
    if desired.paused {
        return previous.clone();
    }
    match (obstacle(desired, observed, plan, now), previous) {
        (None, _) => Gate::Open,
        (Some(Obstacle::Lasting(reason)), _) => Gate::Closed { reason },
        (Some(Obstacle::Hurdle(_)), Gate::Open | Gate::Holding { .. }) => Gate::Open,
        // Closed stays closed until everything is right.
        (Some(Obstacle::Hurdle(reason)), Gate::Closed { .. }) => Gate::Closed { reason },
        (Some(Obstacle::Passing(reason)), Gate::Closed { .. }) => Gate::Closed { reason },
        (Some(Obstacle::Passing(reason)), Gate::Open) => Gate::Holding { since: now, reason },
        (Some(Obstacle::Passing(reason)), Gate::Holding { since, .. }) if now.since(*since) <= HOLD => {
            Gate::Holding {
                since: *since,
                reason,
            }
        }
        (Some(Obstacle::Passing(reason)), Gate::Holding { .. }) => Gate::Closed {
            reason: format!("{reason}, for more than {} seconds", HOLD.as_secs()),
        },
    }
}

fn obstacle(desired: &Desired, observed: &Observed, plan: &Plan, now: Moment) -> Option<Obstacle> {
    let lasting = |reason: &str| Some(Obstacle::Lasting(reason.to_owned()));
    let passing = |reason: String| Some(Obstacle::Passing(reason));

    if observed.ending {
        return lasting("the daemon was asked to end");
    }
    // A laptop that is declared standby goes on serving until it has handed over, also over a crash.
    let serves = observed.served || observed.server_state() == Fact::Known(Server::Writable);
    if !desired.role.writes() && !serves {
        return lasting(&format!("this laptop is declared {}", desired.role));
    }
    if observed.running().is_some_and(|running| !running.ours) {
        return lasting("a server that Paceline did not start runs on the data directory");
    }
    // By its word or by what we remember of it. Before whatever may pass: nothing excuses writing on.
    if observed.superseded() {
        return lasting("the other laptop took over");
    }
    // The last look took too long, or the laptop slept since.
    if observed.server.age(now) > FRESH {
        // Not how old: a reason that counts is another one with each look.
        return passing(format!(
            "the last look at the server is more than {} s old",
            FRESH.as_secs()
        ));
    }
    match observed.server_state() {
        Fact::Known(Server::Writable) => {}
        Fact::Known(Server::ReadOnly { .. }) => return lasting("the database is read-only"),
        Fact::Known(Server::Down) => return passing("the server is down".to_owned()),
        Fact::Known(Server::Starting) => return passing("the server is starting".to_owned()),
        Fact::Known(Server::Stopping) => return passing("the server is shutting down".to_owned()),
        Fact::Unknown(why) => return passing(format!("the server cannot be seen: {why}")),
    }
    match &observed.data.fact {
        Fact::Unknown(why) => return passing(format!("the data directory cannot be seen: {why}")),
        Fact::Known(data) => match data.cluster() {
            None => return lasting("the server's data directory is gone"),
            Some(cluster) if cluster.tainted => {
                return lasting("a rewind or restore of the data directory was interrupted");
            }
            Some(cluster) if cluster.standby_signal => {
                return lasting("there is a standby.signal: at its next start the server would be a standby");
            }
            Some(cluster) if cluster.recovery_signal => {
                return lasting(
                    "there is a recovery.signal: at its next start the server would recover from a backup",
                );
            }
            Some(_) => {}
        },
    }
    // A trusted answer is one of this very database.
    if let (Some(Answer::Facts(facts)), Some(control)) = (
        observed.server.known(),
        observed.cluster().and_then(|cluster| cluster.control.known()),
    ) && facts.system_identifier != control.system_identifier
    {
        return lasting("the server answers for another database than the one in the data directory");
    }
    if !observed.timeline_named() {
        return passing("this stretch of the database's history has no recorded name yet".to_owned());
    }
    if let Some(step) = plan.steps.iter().find(|step| step.action.touches_server()) {
        return lasting(&format!("about to {}", step.action));
    }
    let blocked = match &plan.end {
        End::Blocked(
            blocked @ (Blocked::PasswordFile { .. }
            | Blocked::UnknownPassword { .. }
            | Blocked::AppLogin { .. }),
        ) => Some(blocked.to_string()),
        End::Waiting(waiting @ Waiting::DatabaseUnseen(_)) => Some(waiting.to_string()),
        End::Blocked(_) | End::Converged | End::Waiting(_) => None,
    };
    if let Some(why) = blocked {
        return Some(Obstacle::Hurdle(why));
    }
    if plan
        .steps
        .iter()
        .any(|step| step.action == Action::EnsureDatabase)
    {
        return Some(Obstacle::Hurdle(
            "the application's database is not ready yet".to_owned(),
        ));
    }
    beside(observed)
}

/// What the other laptop keeps the gate from.
fn beside(observed: &Observed) -> Option<Obstacle> {
    if let Peer::Unknown(silence) = &observed.peer
        && silence.how == Unanswered::NotYet
    {
        return Some(Obstacle::Passing("the other laptop was not asked yet".to_owned()));
    }
    if let (Fact::Unknown(why), Peer::Unknown(_) | Peer::Unauthenticated { .. }) =
        (&observed.peer_memory.fact, &observed.peer)
    {
        let why = format!("cannot see what home remembers of the other laptop: {why}");
        return Some(Obstacle::Hurdle(why));
    }
    match observed.relation() {
        // Nobody can say which of the two is right, so what runs goes on and nothing is begun.
        Some(Relation::Twins | Relation::Stranger) => Some(Obstacle::Hurdle(
            "the other laptop has another database, or another history of it".to_owned(),
        )),
        Some(Relation::Same(_) | Relation::Older(_) | Relation::Newer(_) | Relation::Unknown(_)) | None => {
            None
        }
    }
}
