//! The orderly end of the daemon (SIGTERM): the application first, then the server. Pure.

use super::action::{Action, Plan, Reason, Step};
use super::end::{End, Waiting};
use crate::observed::{Fact, Observed, Postmaster, ServerPhase};

pub(super) fn plan(observed: &Observed) -> Plan {
    let mut steps = Vec::new();
    if observed.app.state.alive() {
        steps.push(Step {
            action: Action::StopApp,
            reason: Reason::Ending,
        });
    }
    match &observed.postmaster.fact {
        Fact::Known(Postmaster::Running(running)) if running.ours => {
            if running.phase == ServerPhase::Stopping && steps.is_empty() {
                return Plan::waiting(Waiting::ServerStopping);
            }
            steps.push(Step {
                action: Action::StopServer,
                reason: Reason::Ending,
            });
        }
        // Somebody else's server is somebody else's to stop.
        Fact::Known(Postmaster::Running(_)) => {}
        Fact::Known(Postmaster::Down { leftovers }) if leftovers.is_empty() => {}
        Fact::Known(Postmaster::Down { leftovers }) => {
            return Plan::new(steps, End::Waiting(Waiting::Leftovers(leftovers.clone())));
        }
        // It may well run.
        Fact::Unknown(why) => {
            return Plan::new(steps, End::Waiting(Waiting::CannotStop(why.clone())));
        }
    }
    Plan::new(steps, End::Converged)
}
