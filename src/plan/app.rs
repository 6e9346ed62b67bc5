//! What is to be done with the application, given the gate. Pure.

use std::time::Duration;

use super::gate::Gate;
use crate::desired::{App, Database};
use crate::digest::digest;
use crate::observed::{AppFacts, AppState, Moment};

/// What to do with the application now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppStep {
    /// Nothing; with a moment: look again then.
    Nothing(Option<Moment>),
    /// Start it.
    Start,
    /// Stop it, because of this.
    Stop(String),
}

/// How long it has to run before its earlier failures are forgotten.
pub const PROVEN: Duration = Duration::from_secs(60);

/// How long to wait before it is started again after this many failures in a row. RACEDB-FACTS asks for 1, 2, 5, 10 s.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_secs(match failures {
        0 | 1 => 1,
        2 => 2,
        3 => 5,
        4.. => 10,
    })
}

/// Names everything that an application was started from; another name means that it has to be started anew.
pub fn declaration(app: &App, database: Option<&Database>, port: u16) -> String {
    digest(&[&format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {database:?} {port}",
        app.command, app.working_directory, app.user, app.environment, app.listen, app.port
    )])
}

/// What to do now. `wanted`: the declaration's name, or `None` if no application is declared.
pub fn app_step(wanted: Option<&str>, paused: bool, gate: &Gate, app: &AppFacts, now: Moment) -> AppStep {
    if paused {
        return AppStep::Nothing(None);
    }
    match (&app.state, wanted, gate) {
        (AppState::Stopping, _, _) => AppStep::Nothing(None),
        (AppState::Running { .. }, None, _) => {
            AppStep::Stop("the state file declares no application any more".to_owned())
        }
        (AppState::Running { .. }, Some(_), Gate::Closed { reason }) => {
            AppStep::Stop(format!("the gate is closed: {reason}"))
        }
        (AppState::Running { declaration, .. }, Some(wanted), Gate::Open) if declaration != wanted => {
            AppStep::Stop("its declaration changed; it is started anew".to_owned())
        }
        (AppState::Running { .. }, Some(_), Gate::Open | Gate::Holding { .. }) => AppStep::Nothing(None),
        (AppState::Stopped, Some(_), Gate::Open) => AppStep::Start,
        (AppState::BackingOff { until }, Some(_), Gate::Open) if now >= *until => AppStep::Start,
        (AppState::BackingOff { until }, Some(_), Gate::Open) => AppStep::Nothing(Some(*until)),
        (AppState::Stopped | AppState::BackingOff { .. }, None, _)
        | (
            AppState::Stopped | AppState::BackingOff { .. },
            Some(_),
            Gate::Holding { .. } | Gate::Closed { .. },
        ) => AppStep::Nothing(None),
    }
}
