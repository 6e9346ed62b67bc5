//! Decides: from what is declared and what was observed to what is to be done, and whether the application may run.
//!
//! Everything here is pure and total: no file, no clock (time is an argument), no process, no `async`; a test enforces
//! it. Every combination of facts has an answer, and one that no row names is Blocked with a reason of its own. One
//! rule stands above all: a copy becomes writable only by initdb, by the start of a primary copy, by handover, by
//! `failover` or by `recovery`; never by deleting `standby.signal`.
//!
//! One file per role holds that role's rows. Above them stands `conflict` (twins, strangers, superseded copies). What they
//! share: `local` (this laptop alone), `pair` (the other one beside it), `follow` and `promotion` (a standby's copy),
//! `handover`, `rejoin`, and `consent` (what a person may allow). `check` looks over
//! what they come to.

mod action;
pub mod app;
mod blocked;
mod check;
pub mod configuration;
mod conflict;
pub mod consent;
mod end;
mod ending;
mod failover;
mod follow;
pub mod gate;
mod handover;
mod local;
mod pair;
mod pair_end;
mod primary;
mod promotion;
mod reason;
mod recovery;
mod refused;
mod rejoin;
mod restart;
mod rule;
mod standby;

pub use action::{
    Action, Advice, CloneSource, ConfigurationFiles, Intention, Loss, Plan, Reason, ReplicationNeed,
    RewindSource, Start, Step,
};
pub use blocked::Blocked;
pub use check::check;
pub use consent::{Danger, Grant, Offer};
pub use end::{End, Waiting};
pub use gate::{Gate, gate};
pub use pair::HARMLESS_LAG;
pub use pair_end::{PeerBlock, PeerWait};
pub use recovery::{Restore, fingerprint};
pub use rule::{Fault, Rule};

use std::borrow::Cow;

use crate::desired::{Desired, Role};
use crate::observed::{Moment, Observed};

/// What is declared, with the trigger file of the older container set taken in: while that exists, `standby` means
/// `failover`, on every version of PostgreSQL (which itself dropped such files in 16).
pub fn effective<'a>(desired: &'a Desired, observed: &Observed) -> Cow<'a, Desired> {
    if observed.triggered && desired.role == Role::Standby {
        Cow::Owned(Desired {
            role: Role::Failover,
            ..desired.clone()
        })
    } else {
        Cow::Borrowed(desired)
    }
}

/// What to do now, given what is declared (see [`effective`]) and what was observed.
pub fn plan(desired: &Desired, observed: &Observed, now: Moment) -> Plan {
    let plan = if observed.ending {
        ending::plan(observed)
    } else {
        match local::situation(desired, observed, now) {
            Err(end) => Plan::new(Vec::new(), end),
            Ok(situation) => restart::asked(&situation, refused::said(&situation, of_role(&situation))),
        }
    };
    if desired.paused { pause(plan) } else { plan }
}

/// The same, looked over once more: a plan with a fault is not carried out.
pub fn checked_plan(desired: &Desired, observed: &Observed, now: Moment) -> Plan {
    let plan = plan(desired, observed, now);
    match check(desired, observed, &plan, now) {
        Ok(()) => plan,
        Err(fault) => Plan::blocked(Blocked::PlanRefused {
            fault,
            plan: plan.steps.iter().map(|step| step.action.name()).collect(),
        }),
    }
}

fn of_role(situation: &local::Situation<'_>) -> Plan {
    situation
        .above_the_roles()
        .unwrap_or_else(|| match situation.desired.role {
            Role::Primary => primary::plan(situation),
            Role::Standby => standby::plan(situation),
            Role::Failover => failover::plan(situation),
            Role::Recovery => recovery::plan(situation),
        })
}

/// `paused: true`: the plan is shown, not carried out. What blocks it is shown as it is.
fn pause(plan: Plan) -> Plan {
    match plan {
        Plan {
            steps,
            end: End::Blocked(blocked),
            offer,
            flag: _,
            advice: _,
        } if steps.is_empty() => Plan {
            offer,
            ..Plan::blocked(blocked)
        },
        Plan { steps, .. } => Plan::waiting(Waiting::Paused(
            steps.iter().map(|step| step.action.to_string()).collect(),
        )),
    }
}
