//! What the loop makes of news: takes in a reading or a look, decides, judges the gate, publishes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::executor::Decision;
use super::{Ended, Look, Loop, Mode, ON_THE_WAY, Question, THOROUGH_EVERY, TICK, report_unsupported};
use crate::desired::Reading;
use crate::exec::app::Order;
use crate::history;
use crate::observed::{Fact, Flag, HandedOver, Moment, Observed, Peer, Seen, Server};
use crate::peer::View;
use crate::plan::{Blocked, End, PeerWait, Plan, Waiting, checked_plan, effective, gate};
use crate::probe::FromInside;
use crate::status::{FileState, status};
use crate::supervise::output::Output;
use crate::sys::clock;
use crate::sys::process::Process;

impl Loop {
    /// Takes a reading of the state file in; says whether the declaration in force changed.
    pub(super) fn take(&mut self, reading: &Reading) -> bool {
        let mut file = FileState {
            digest: self.file.digest.clone(),
            error: reading.error.clone(),
            warning: reading.warning.clone(),
        };
        let mut changed = false;
        if let Some(valid) = &reading.valid
            && valid.digest != self.file.digest
        {
            match self.instance.fits(&valid.desired) {
                Ok(()) => {
                    file.digest.clone_from(&valid.digest);
                    changed = valid.desired != *self.desired;
                    self.desired = Arc::new(valid.desired.clone());
                    self.in_force.send_replace(Arc::clone(&self.desired));
                    tracing::info!(digest = %file.digest, role = %self.desired.role, "state file read");
                    self.record(
                        "state_file",
                        &json!({ "digest": file.digest, "role": self.desired.role.word() }),
                    );
                    report_unsupported(&self.desired);
                }
                Err(why) => file.error = Some(why),
            }
        }
        if file.error != self.file.error
            && let Some(error) = &file.error
        {
            tracing::error!("the state file is not taken; the last valid one stays in force:\n{error}");
            self.record("state_file", &json!({ "error": error }));
        }
        if file.warning != self.file.warning
            && let Some(warning) = &file.warning
        {
            tracing::warn!("{warning}");
        }
        self.file = file;
        changed
    }

    /// Asks for a look; false: one is under way.
    pub(super) fn ask(&mut self, look: Look) -> bool {
        if self.looking {
            return false;
        }
        let thorough = look == Look::Thorough || self.looks.is_multiple_of(THOROUGH_EVERY);
        let question = Question {
            desired: Arc::clone(&self.desired),
            inside: FromInside {
                app: self.app.borrow().clone(),
                served: self.served,
                ending: self.ending,
            },
            thorough,
        };
        self.looking = self.questions.try_send(question).is_ok();
        self.looks = if look == Look::Thorough {
            1
        } else {
            self.looks.wrapping_add(1)
        };
        if thorough && self.mode == Mode::Daemon {
            for log in [self.desired.server_log(), self.desired.app_log()] {
                if let Err(error) = Output::new(log).keep_small() {
                    tracing::warn!("{error:#}");
                }
            }
        }
        self.looking
    }

    /// Takes in what was seen.
    pub(super) fn see(&mut self, looked_at: Moment, observed: Observed) {
        self.looking = false;
        self.hold_server(&observed);
        match observed.server_state() {
            Fact::Known(Server::Writable) => self.served = true,
            // It follows another by now.
            Fact::Known(Server::ReadOnly { .. }) => self.served = false,
            Fact::Known(Server::Down | Server::Starting | Server::Stopping) | Fact::Unknown(_) => {}
        }
        self.observed = Some(observed);
        self.looked_at = looked_at;
        self.decide();
    }

    /// Decides on what is known: after a look, and whenever what is asked for changed.
    pub(super) fn decide(&mut self) {
        let Some(observed) = &mut self.observed else {
            return;
        };
        // What comes from inside is newer than the look.
        observed.ending = self.ending;
        observed.app = self.app.borrow_and_update().clone();
        self.failure.borrow_and_update();
        let now = clock::now();
        if let Some(slept) = self.slept.check() {
            tracing::info!(
                slept_s = slept.as_secs(),
                "the laptop slept; the other one is asked before anything is relied on"
            );
            self.woke_at = Some(now);
            self.peer.ask_now();
        }
        let view = self.peer.views().borrow().clone();
        observed.peer = if self.woke_at.is_none_or(|woke_at| view.asked_since(woke_at)) {
            view.at(now, self.desired.safety.peer_wait)
        } else {
            View::not_asked(now)
        };
        observed.peer_memory = Seen::new(view.memory, now);
        observed.flag = self.flag;
        if self.mode == Mode::Once {
            // A restart is a daemon's work: only that one stops the application first.
            observed.restart.fact = Fact::Known(None);
        }
        let desired = effective(&self.desired, observed);
        let mut decided = checked_plan(&desired, observed, now);
        // What is being done stays announced until a look shows what it came to.
        let acting = self
            .acting
            .borrow()
            .filter(|acting| acting.ended_at.is_none_or(|ended_at| self.looked_at < ended_at));
        let acting = acting.map(|acting| acting.flag);
        decided.flag = acting.or(decided.flag);
        // What is announced is shown first, and decided on again: that may already be all there is to wait for.
        let announced = decided.flag != self.flag.map(|(flag, _)| flag);
        if announced {
            self.flag = decided.flag.map(|flag| (flag, now));
            observed.flag = self.flag;
            let shown = decided;
            decided = checked_plan(&desired, observed, now);
            decided.flag = acting.or(decided.flag);
            if decided.flag != shown.flag {
                // Never act on a flag that was not shown.
                decided = Plan {
                    steps: Vec::new(),
                    ..shown
                };
            }
        }
        let judged = gate(&self.gate, &desired, observed, &decided, now);
        self.plan = decided;
        if judged != self.gate {
            tracing::info!(gate = judged.word(), reason = judged.reason(), "gate");
            let event = json!({ "state": judged.word(), "reason": judged.reason() });
            history::record(&self.desired.home, "gate", &event);
            self.gate = judged;
        }
        drop(desired);
        if announced {
            self.publish(now);
            self.peer.ask_now();
        }
        self.log_plan();
        self.tell_manager();
        self.orders.send_replace(Some(Order {
            desired: Arc::clone(&self.desired),
            gate: self.gate.clone(),
        }));
        self.decisions.send_replace(Some(Arc::new(Decision {
            desired: Arc::clone(&self.desired),
            plan: self.plan.clone(),
            looked_at: self.looked_at,
            ending: self.ending,
        })));
        self.publish(now);
    }

    /// What the other laptop last said that makes us look at our own server again.
    pub(super) fn heard(&self) -> Option<(Option<Flag>, Option<HandedOver>, Fact<Server>)> {
        match &self.observed.as_ref()?.peer {
            Peer::Known(facts) => Some((facts.flag, facts.handed_over.clone(), facts.server.clone())),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => None,
        }
    }

    pub(super) fn publish(&mut self, now: Moment) {
        let Some(observed) = &self.observed else { return };
        let failure = self.failure.borrow().clone();
        let mut next = status(
            &effective(&self.desired, observed),
            &self.file,
            observed,
            &self.plan,
            &self.gate,
            failure.as_ref(),
            now,
        );
        next.plan.under_way(self.progress.borrow_and_update().clone());
        self.published.send_if_modified(|published| {
            let (revision, news) = match published {
                Some(before) => {
                    let news = next.differs_from(before);
                    (before.revision + u64::from(news), news)
                }
                None => (1, true),
            };
            next.revision = revision;
            *published = Some(Arc::new(next));
            news
        });
    }

    /// What the service manager shows: the plan and the gate, in words.
    fn tell_manager(&mut self) {
        if self.mode != Mode::Daemon {
            return;
        }
        let plan = match (self.plan.first(), &self.plan.end) {
            (Some(step), _) => step.action.to_string(),
            (None, End::Converged) => "as declared".to_owned(),
            (None, End::Waiting(waiting)) => format!("waiting: {waiting}"),
            (None, End::Blocked(blocked)) => format!("BLOCKED: {blocked}"),
        };
        let words = format!("{}, gate {}: {plan}", self.desired.role, self.gate.word());
        self.manager.status(&words);
    }

    pub(super) fn record(&self, what: &str, fields: &Value) {
        history::record(&self.desired.home, what, fields);
    }

    /// One line for each change of the plan, none for each look.
    fn log_plan(&mut self) {
        let steps: Vec<&str> = self.plan.steps.iter().map(|step| step.action.name()).collect();
        let steps = if steps.is_empty() {
            "none".to_owned()
        } else {
            steps.join(", ")
        };
        let (state, reason, hint) = match &self.plan.end {
            End::Converged => ("converged", String::new(), None),
            End::Waiting(waiting) => ("waiting", waiting.to_string(), waiting.hint()),
            End::Blocked(blocked) => ("blocked", blocked.to_string(), Some(blocked.hint())),
        };
        let line = format!("{steps} {state} {reason}");
        if line == self.logged {
            return;
        }
        let role = self.desired.role;
        let planned: Vec<String> = self
            .plan
            .steps
            .iter()
            .map(|step| step.action.to_string())
            .collect();
        self.record(
            "plan",
            &json!({
                "role": role.word(), "state": state, "steps": planned, "hint": hint,
                "reason": (!reason.is_empty()).then_some(&reason),
            }),
        );
        let hint = hint.unwrap_or_default();
        match (&self.plan.end, self.plan.steps.is_empty()) {
            // A mistake of ours, not of a person.
            (End::Blocked(Blocked::PlanRefused { .. }), _) => {
                tracing::error!(%role, "plan: refused: {reason} (hint: {hint})");
            }
            (End::Blocked(_), _) => tracing::warn!(%role, steps, "plan: {state}: {reason} (hint: {hint})"),
            (End::Waiting(_), true) => tracing::info!(%role, "plan: {state}: {reason}"),
            (End::Converged, true) => tracing::info!(%role, "plan: {state}"),
            (End::Converged | End::Waiting(_), false) => tracing::info!(%role, steps, "plan"),
        }
        self.logged = line;
    }

    /// Keeps a handle of the running server, whose end is an event.
    fn hold_server(&mut self, observed: &Observed) {
        let pid = observed.running().map(|running| running.pid);
        if pid != self.server.as_ref().map(|server| server.id().pid) {
            self.server = pid.and_then(|pid| Process::open(pid).ok().flatten());
        }
    }

    pub(super) fn patience(&self) -> Duration {
        match (&self.plan.end, self.plan.steps.is_empty()) {
            (
                End::Waiting(
                    Waiting::ServerStarting
                    | Waiting::ServerStopping
                    | Waiting::Leftovers(_)
                    | Waiting::Peer(PeerWait::Announced(_) | PeerWait::Promoting),
                ),
                true,
            ) => ON_THE_WAY,
            _ => TICK,
        }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        // Before the first look nobody knows whether there is something to stop.
        self.observed.as_ref()?;
        let settled = self.plan.steps.is_empty();
        if self.ending {
            let paused = self.desired.paused;
            return (settled && (paused || self.plan.end == End::Converged)).then_some(Ended::Asked);
        }
        if self.mode == Mode::Daemon {
            return None;
        }
        let failed = self.failure.borrow().is_some();
        let brief = matches!(&self.plan.end, End::Waiting(Waiting::Peer(wait)) if wait.is_brief());
        let on_the_way = brief || self.patience() == ON_THE_WAY;
        let status = self.published.borrow().clone()?;
        (failed || (settled && !on_the_way)).then(|| Ended::Settled(Box::new(status.as_ref().clone())))
    }
}
