//! Decides: from what is declared and what was observed to what is to be done, and whether the application may run.
//!
//! Everything here is pure and total: no file, no clock (time is an argument), no process, no `async`; a test enforces
//! it. Every combination of facts has an answer, and one that no row names is Blocked with a reason of its own. One
//! rule stands above all: a copy becomes writable only by initdb, by the start of a primary copy, by handover, by
//! `failover` or by `recovery`; never by deleting `standby.signal`.
//!
//! One file per role holds that role's rows; [`local`] holds what they share.

mod action;
pub mod app;
pub mod configuration;
mod end;
mod ending;
mod failover;
pub mod gate;
mod local;
mod primary;
mod recovery;
mod standby;

pub use action::{Action, ConfigurationFiles, Plan, Reason, Start, Step};
pub use end::{Blocked, End, Waiting};
pub use gate::{Gate, gate};

use crate::desired::{Desired, Role};
use crate::observed::{Moment, Observed};

/// What to do now, given what is declared and what was observed.
///
/// `now` is part of the contract (facts age, waits end), although no row of a single laptop depends on it yet.
pub fn plan(desired: &Desired, observed: &Observed, _now: Moment) -> Plan {
    let plan = if observed.ending {
        ending::plan(observed)
    } else {
        match local::situation(desired, observed) {
            Err(end) => Plan {
                steps: Vec::new(),
                end,
            },
            Ok(situation) => match desired.role {
                Role::Primary => primary::plan(&situation),
                Role::Standby => standby::plan(&situation),
                Role::Failover => failover::plan(&situation),
                Role::Recovery => recovery::plan(&situation),
            },
        }
    };
    if desired.paused { pause(plan) } else { plan }
}

/// `paused: true`: the plan is shown, not carried out. What blocks it is shown as it is.
fn pause(plan: Plan) -> Plan {
    match plan {
        Plan {
            steps,
            end: End::Blocked(blocked),
        } if steps.is_empty() => Plan::blocked(blocked),
        Plan { steps, .. } => Plan::waiting(Waiting::Paused(
            steps.iter().map(|step| step.action.to_string()).collect(),
        )),
    }
}
