//! The executor: carries out the first step of the newest plan, then asks for a new look. It chooses nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Look;
use crate::desired::Desired;
use crate::exec::{Context, carry_out};
use crate::hint::hint_of;
use crate::history;
use crate::observed::{AppFacts, Flag, Moment};
use crate::plan::{Action, Plan};
use crate::probe::server::Shared;
use crate::status::Failure;
use crate::sys::clock;

/// How long a step that was tried is remembered: tried again within this time, it has to wait.
const REMEMBER_TRIES: Duration = Duration::from_secs(60);

/// What was decided at one look.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) desired: Arc<Desired>,
    pub(super) plan: Plan,
    /// When the look began; an action that ended later makes it worthless.
    pub(super) looked_at: Moment,
    /// Whether the daemon was asked to end.
    pub(super) ending: bool,
}

/// An action that was announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acting {
    /// As what.
    pub(super) flag: Flag,
    /// When it ended; a look that began before that does not show what it came to.
    pub(super) ended_at: Option<Moment>,
}

/// What the executor tells the loop.
#[derive(Debug)]
pub(super) struct Reports {
    /// What failed last.
    pub(super) failures: watch::Sender<Option<Failure>>,
    /// How far the action under way has come.
    pub(super) progress: watch::Sender<Option<String>>,
    /// What the action under way, or the last one, was announced by.
    pub(super) acting: watch::Sender<Option<Acting>>,
}

/// The executor: the first step of the newest plan, then a new look. A step that is asked for again soon has to wait,
/// the longer the more often, whether it failed or seemed to succeed (a server that starts and dies).
pub(super) async fn execute(
    mut decisions: watch::Receiver<Option<Arc<Decision>>>,
    app: watch::Receiver<AppFacts>,
    reports: Reports,
    looks: mpsc::UnboundedSender<Look>,
    busy: Arc<Mutex<Moment>>,
    session: Shared,
) {
    let Reports {
        failures,
        progress,
        acting,
    } = reports;
    let mut tries = Tries::default();
    let mut valid_from = Moment::default();
    loop {
        let decision = decisions.borrow_and_update().clone();
        let step = decision
            .as_ref()
            .filter(|decision| decision.looked_at >= valid_from)
            .and_then(|decision| Some((decision, decision.plan.first()?)));
        let Some((decision, step)) = step else {
            if decision
                .is_some_and(|decision| decision.looked_at >= valid_from && decision.plan.steps.is_empty())
            {
                // Nothing is asked for: what failed before is over.
                failures.send_if_modified(|failure| failure.take().is_some());
            }
            if decisions.changed().await.is_err() {
                return;
            }
            continue;
        };
        let name = step.action.name();
        let due = tries.due(decision, &step.action);
        if due > Instant::now() {
            // Whatever is decided meanwhile is looked at; the wait is kept.
            tokio::select! {
                changed = decisions.changed() => if changed.is_err() { return },
                () = sleep_until(due) => {}
            }
            continue;
        }
        let mut acted_at = busy.lock().await;
        tracing::info!(action = name, reason = %step.reason, "doing: {}", step.action);
        let home = &decision.desired.home;
        let what = step.action.to_string();
        history::record(
            home,
            "begun",
            &json!({ "action": name, "what": what, "reason": step.reason.to_string() }),
        );
        let announced = |ended_at| step.action.flag().map(|flag| Acting { flag, ended_at });
        acting.send_replace(announced(None));
        let begun = Instant::now();
        let mut context = Context {
            desired: &decision.desired,
            app: app.clone(),
            session: session.clone(),
            progress: progress.clone(),
        };
        let outcome = if step.action.may_be_given_up() {
            tokio::select! {
                outcome = carry_out(&mut context, &step.action) => outcome,
                // Dropped in the middle, it leaves nothing that counts.
                () = not_asked_for(decisions.clone(), decision, &step.action) => given_up(),
            }
        } else {
            carry_out(&mut context, &step.action).await
        };
        progress.send_replace(None);
        valid_from = clock::now();
        acting.send_replace(announced(Some(valid_from)));
        *acted_at = valid_from;
        drop(acted_at);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attempts = tries.count(decision, &step.action, begun);
        match outcome {
            Ok(()) => {
                tracing::info!(action = name, took_ms, "done");
                history::record(
                    home,
                    "done",
                    &json!({ "action": name, "what": what, "took_ms": took_ms }),
                );
                failures.send_if_modified(|failure| failure.take().is_some());
            }
            Err(error) => {
                let hint = hint_of(&error).map(ToOwned::to_owned);
                let failure = Failure {
                    action: name,
                    error: format!("{error:#}"),
                    hint,
                    attempts,
                };
                if attempts == 1
                    || failures
                        .borrow()
                        .as_ref()
                        .is_none_or(|before| before.error != failure.error)
                {
                    history::record(
                        home,
                        "failed",
                        &json!({
                            "action": name, "what": what, "took_ms": took_ms, "attempts": attempts,
                            "error": failure.error, "hint": failure.hint,
                        }),
                    );
                    tracing::error!(
                        action = name,
                        took_ms,
                        attempts,
                        "failed: {} (hint: {})",
                        failure.error,
                        failure.hint.as_deref().unwrap_or("it is tried again")
                    );
                }
                failures.send_replace(Some(failure));
            }
        }
        let look = if step.action.changes_little() {
            Look::Quick
        } else {
            Look::Thorough
        };
        if looks.send(look).is_err() {
            return;
        }
    }
}

fn given_up() -> anyhow::Result<()> {
    bail!("given up: the state file asks for something else now")
}

/// Returns when the declaration has changed and this is not the step to take any more. A peer that is silent for a
/// while, for one, is no reason to give a long copy up.
async fn not_asked_for(
    mut decisions: watch::Receiver<Option<Arc<Decision>>>,
    then: &Decision,
    action: &Action,
) {
    let over = |now: &Option<Arc<Decision>>| {
        now.as_ref().is_some_and(|now| {
            (now.ending || now.desired != then.desired)
                && now.plan.first().is_none_or(|step| step.action != *action)
        })
    };
    if decisions.wait_for(over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How often a step was tried lately.
#[derive(Debug, Default)]
struct Tries {
    last: Option<Try>,
}

#[derive(Debug)]
struct Try {
    desired: Arc<Desired>,
    action: Action,
    at: Instant,
    count: u32,
}

impl Tries {
    /// The last try, if it was this step, lately, and nobody changed the state file since.
    fn same(&self, decision: &Decision, action: &Action, begun: Instant) -> Option<&Try> {
        self.last.as_ref().filter(|last| {
            last.action == *action
                && last.desired == decision.desired
                && begun.saturating_duration_since(last.at) < REMEMBER_TRIES
        })
    }

    /// When this step may be tried. Stopping, on the way out, waits at most a second.
    fn due(&self, decision: &Decision, action: &Action) -> Instant {
        let Some(last) = self.same(decision, action, Instant::now()) else {
            return Instant::now();
        };
        let wait = match last.count {
            0 | 1 => 1,
            2 => 2,
            3 => 5,
            4 => 10,
            _ => 30,
        };
        last.at + Duration::from_secs(if decision.ending { 1 } else { wait })
    }

    /// Notes that this step, begun then, has ended now; says how often it was tried by now.
    fn count(&mut self, decision: &Decision, action: &Action, begun: Instant) -> u32 {
        let count = self
            .same(decision, action, begun)
            .map_or(1, |last| last.count.saturating_add(1));
        self.last = Some(Try {
            desired: Arc::clone(&decision.desired),
            action: action.clone(),
            at: Instant::now(),
            count,
        });
        count
    }
}
