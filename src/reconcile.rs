//! The loop: look, plan, judge the gate, publish; a second task carries out the first step and asks for a new look.
//!
//! ```text
//! state file ──┐                            ┌─► orders ─► the application's keeper (exec::app)
//! probes ──────┼─► look ─► plan, gate ──────┼─► decision ─► the executor: one step, then look again
//! signals ─────┘                            └─► status ─► HTTP
//! ```
//!
//! The loop waits for an event or a slow tick, never spins, and never waits for an action: a gate that has to close
//! closes while one runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep_until};

use crate::api;
use crate::desired::{self, Desired, Reading};
use crate::exec::app::{Keeper, Order};
use crate::exec::{Context, carry_out};
use crate::hint::hint_of;
use crate::instance::{Instance, reexecute};
use crate::observed::{AppFacts, AppState, Fact, Moment, Observed, Server};
use crate::plan::{Action, End, Gate, Plan, Waiting, gate, plan};
use crate::probe::{FromInside, Prober};
use crate::status::{Failure, FileState, Status, status};
use crate::supervise::output::Output;
use crate::supervise::signals::{Request, Requests};
use crate::sys::clock;
use crate::sys::process::Process;

/// The slow tick: what no event tells (a file created by hand, a promotion by hand) is seen within this time.
const TICK: Duration = Duration::from_secs(2);
/// Every so many ticks the look is thorough.
const THOROUGH_EVERY: u32 = 5;
/// While the server is on its way up or down it is looked at this often.
const ON_THE_WAY: Duration = Duration::from_millis(50);
/// How long a step that was tried is remembered: tried again within this time, it has to wait.
const REMEMBER_TRIES: Duration = Duration::from_secs(60);

/// What was decided at one look.
#[derive(Debug)]
struct Decision {
    desired: Arc<Desired>,
    plan: Plan,
    /// When the look began; an action that ended later makes it worthless.
    looked_at: Moment,
    /// Where the desired state the decision is for stands in the sequence of them.
    ending: bool,
}

/// How the loop ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// Somebody asked for it, and everything is stopped that was to be stopped.
    Asked,
    /// `apply`: nothing more is to be done by itself. What it came to.
    Settled(Box<Status>),
}

/// How the loop is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For good, with application and HTTP interface.
    Daemon,
    /// Until there is nothing more to do, for the server alone.
    Once,
}

struct Loop {
    mode: Mode,
    instance: Instance,
    file: FileState,
    desired: Arc<Desired>,
    observed: Option<Observed>,
    gate: Gate,
    plan: Plan,
    ending: bool,
    /// Whether the server was seen writable.
    served: bool,
    /// What was last logged of the plan.
    logged: String,
    prober: Prober,
    app: watch::Receiver<AppFacts>,
    failure: watch::Receiver<Option<Failure>>,
    decisions: watch::Sender<Option<Arc<Decision>>>,
    orders: watch::Sender<Option<Order>>,
    published: watch::Sender<Option<Arc<Status>>>,
    server: Option<Process>,
}

/// Runs until it is asked to end (or, once, until nothing more is to be done). `first` is the declaration that the
/// instance was set up for; later ones come through `readings`.
pub async fn run(
    mode: Mode,
    instance: Instance,
    first: Arc<desired::Valid>,
    mut readings: watch::Receiver<Arc<Reading>>,
    handle: desired::Handle,
    mut requests: Requests,
) -> Result<Ended> {
    let desired = Arc::new(first.desired.clone());
    let (keeper, app) = match mode {
        Mode::Daemon => {
            let (keeper, app) = Keeper::adopt(&desired).await;
            (Some(keeper), app)
        }
        Mode::Once => (None, watch::channel(AppFacts::default()).1),
    };
    let adopted = matches!(app.borrow().state, AppState::Running { .. });
    let (failures, failure) = watch::channel(None);
    let (decisions, decided) = watch::channel(None);
    let (orders, ordered) = watch::channel(None);
    let (published, status) = watch::channel(None);
    let look = Arc::new(Notify::new());
    let busy = Arc::new(Mutex::new(()));

    let executor = tokio::spawn(execute(
        decided,
        app.clone(),
        failures,
        Arc::clone(&look),
        Arc::clone(&busy),
    ));
    if let Some(keeper) = keeper {
        tokio::spawn(keeper.run(ordered));
        tokio::spawn(api::serve(desired.api_listen, status));
    }

    let mut this = Loop {
        mode,
        instance,
        file: FileState {
            digest: first.digest.clone(),
            ..FileState::default()
        },
        desired,
        observed: None,
        // An application that runs already goes on until the first look is done.
        gate: if adopted {
            Gate::Holding {
                since: clock::now(),
                reason: "the daemon has just started".to_owned(),
            }
        } else {
            Gate::closed("the daemon has just started")
        },
        plan: Plan::converged(),
        ending: false,
        served: false,
        logged: String::new(),
        prober: Prober::default(),
        app,
        failure,
        decisions,
        orders,
        published,
        server: None,
    };
    this.take(&readings.borrow_and_update().clone());

    let mut thorough = 0;
    let mut reexecution: Option<()> = None;
    loop {
        this.look(thorough == 0).await;
        thorough = if thorough == 0 {
            THOROUGH_EVERY
        } else {
            thorough - 1
        };
        if let Some(ended) = this.ended() {
            executor.abort();
            return Ok(ended);
        }
        let next = Instant::now() + this.patience();
        // Whatever comes, the look follows; what changes the declaration is decided on at once with what is known.
        tokio::select! {
            // Cancel-safe: the permit is kept.
            () = look.notified() => thorough = 0,
            // Cancel-safe: values of a watch channel stay marked as unseen.
            Ok(()) = readings.changed() => {
                let reading = readings.borrow_and_update().clone();
                if this.take(&reading) {
                    this.decide();
                    thorough = 0;
                }
            }
            Ok(()) = this.app.changed() => {
                this.app.borrow_and_update();
            }
            Ok(()) = this.failure.changed() => {
                this.failure.borrow_and_update();
            }
            // Cancel-safe: signals are counted by the runtime.
            request = requests.next() => match request {
                Request::End if this.ending => {
                    tracing::warn!("asked to end for the second time: ending at once; what still runs goes on");
                    executor.abort();
                    return Ok(Ended::Asked);
                }
                Request::End => {
                    tracing::info!("asked to end");
                    this.ending = true;
                    this.decide();
                }
                Request::Reread => handle.poke(),
                Request::Reexecute => reexecution = Some(()),
            },
            // Cancel-safe: waiting for a lock takes nothing until it is had.
            guard = idle(&busy), if reexecution.is_some() => {
                reexecution = None;
                let Err(error) = reexecute(&this.instance).await;
                tracing::error!("cannot execute the program anew; going on as before: {error:#}");
                drop(guard);
            }
            // Cancel-safe: the handle keeps the news.
            () = gone(this.server.as_ref()) => thorough = 0,
            () = sleep_until(next) => {}
        }
    }
}

impl Loop {
    /// Takes a reading of the state file in; says whether the declaration in force changed.
    fn take(&mut self, reading: &Reading) -> bool {
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
                    tracing::info!(digest = %file.digest, role = %self.desired.role, "state file read");
                    report_unsupported(&self.desired);
                }
                Err(why) => file.error = Some(why),
            }
        }
        if file.error != self.file.error
            && let Some(error) = &file.error
        {
            tracing::error!("the state file is not taken; the last valid one stays in force:\n{error}");
        }
        if file.warning != self.file.warning
            && let Some(warning) = &file.warning
        {
            tracing::warn!("{warning}");
        }
        self.file = file;
        changed
    }

    async fn look(&mut self, thorough: bool) {
        let inside = FromInside {
            app: self.app.borrow().clone(),
            served: self.served,
            ending: self.ending,
        };
        let looked_at = clock::now();
        let observed = self.prober.look(&self.desired, inside, thorough).await;
        self.hold_server(&observed);
        self.served |= observed.server_state() == Fact::Known(Server::Writable);
        self.observed = Some(observed);
        if thorough && self.mode == Mode::Daemon {
            for log in [self.desired.server_log(), self.desired.app_log()] {
                if let Err(error) = Output::new(log).keep_small() {
                    tracing::warn!("{error:#}");
                }
            }
        }
        self.judge(looked_at);
    }

    /// Decides again on what is already known, because what is asked for changed.
    fn decide(&mut self) {
        if let Some(observed) = &mut self.observed {
            observed.ending = self.ending;
            let looked_at = observed.data.at;
            self.judge(looked_at);
        }
    }

    fn judge(&mut self, looked_at: Moment) {
        let Some(observed) = &self.observed else { return };
        let now = clock::now();
        self.plan = plan(&self.desired, observed, now);
        let judged = gate(&self.gate, &self.desired, observed, &self.plan, now);
        if judged != self.gate {
            tracing::info!(gate = judged.word(), reason = judged.reason(), "gate");
            self.gate = judged;
        }
        self.log_plan();
        self.orders.send_replace(Some(Order {
            desired: Arc::clone(&self.desired),
            gate: self.gate.clone(),
        }));
        self.decisions.send_replace(Some(Arc::new(Decision {
            desired: Arc::clone(&self.desired),
            plan: self.plan.clone(),
            looked_at,
            ending: self.ending,
        })));
        self.publish(now);
    }

    fn publish(&mut self, now: Moment) {
        let Some(observed) = &self.observed else { return };
        let failure = self.failure.borrow().clone();
        let mut next = status(
            &self.desired,
            &self.file,
            observed,
            &self.plan,
            &self.gate,
            failure.as_ref(),
            now,
        );
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
        let hint = hint.unwrap_or_default();
        match (&self.plan.end, self.plan.steps.is_empty()) {
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

    fn patience(&self) -> Duration {
        match (&self.plan.end, self.plan.steps.is_empty()) {
            (
                End::Waiting(Waiting::ServerStarting | Waiting::ServerStopping | Waiting::Leftovers(_)),
                true,
            ) => ON_THE_WAY,
            _ => TICK,
        }
    }

    fn ended(&self) -> Option<Ended> {
        let settled = self.plan.steps.is_empty();
        if self.ending {
            let paused = self.desired.paused;
            return (settled && (paused || self.plan.end == End::Converged)).then_some(Ended::Asked);
        }
        if self.mode == Mode::Daemon {
            return None;
        }
        let failed = self.failure.borrow().is_some();
        let on_the_way = self.patience() == ON_THE_WAY;
        let status = self.published.borrow().clone()?;
        (failed || (settled && !on_the_way)).then(|| Ended::Settled(Box::new(status.as_ref().clone())))
    }
}

/// The executor: the first step of the newest plan, then a new look. A step that is asked for again soon has to wait,
/// the longer the more often, whether it failed or seemed to succeed (a server that starts and dies).
async fn execute(
    mut decisions: watch::Receiver<Option<Arc<Decision>>>,
    app: watch::Receiver<AppFacts>,
    failures: watch::Sender<Option<Failure>>,
    look: Arc<Notify>,
    busy: Arc<Mutex<()>>,
) {
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
        let due = tries.due(&step.action, decision.ending);
        if due > Instant::now() {
            // Whatever is decided meanwhile is looked at; the wait is kept.
            tokio::select! {
                changed = decisions.changed() => if changed.is_err() { return },
                () = sleep_until(due) => {}
            }
            continue;
        }
        let guard = busy.lock().await;
        tracing::info!(action = name, reason = %step.reason, "doing: {}", step.action);
        let begun = Instant::now();
        let mut context = Context {
            desired: &decision.desired,
            app: app.clone(),
        };
        let outcome = carry_out(&mut context, &step.action).await;
        drop(guard);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attempts = tries.count(&step.action);
        match outcome {
            Ok(()) => {
                tracing::info!(action = name, took_ms, "done");
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
        valid_from = clock::now();
        look.notify_one();
    }
}

/// How often a step was tried lately.
#[derive(Debug, Default)]
struct Tries {
    action: Option<Action>,
    count: u32,
    last: Option<Instant>,
}

impl Tries {
    /// When this step may be tried. Stopping, on the way out, waits at most a second.
    fn due(&self, action: &Action, ending: bool) -> Instant {
        let now = Instant::now();
        match self.last {
            Some(last)
                if self.action.as_ref() == Some(action) && now.duration_since(last) < REMEMBER_TRIES =>
            {
                let wait = match self.count {
                    0 => 0,
                    1 => 1,
                    2 => 2,
                    3 => 5,
                    4 => 10,
                    _ => 30,
                };
                last + Duration::from_secs(if ending { wait.min(1) } else { wait })
            }
            _ => now,
        }
    }

    fn count(&mut self, action: &Action) -> u32 {
        let now = Instant::now();
        let again = self.action.as_ref() == Some(action)
            && self
                .last
                .is_some_and(|last| now.duration_since(last) < REMEMBER_TRIES);
        self.count = if again { self.count.saturating_add(1) } else { 1 };
        self.action = Some(action.clone());
        self.last = Some(now);
        self.count
    }
}

/// Says which keys of the file have no effect yet.
pub fn report_unsupported(desired: &Desired) {
    for key in &desired.unsupported {
        tracing::warn!(
            line = key.line,
            "`{}` is not supported yet: {}",
            key.key,
            key.instead
        );
    }
}

async fn idle(busy: &Arc<Mutex<()>>) -> OwnedMutexGuard<()> {
    Arc::clone(busy).lock_owned().await
}

async fn gone(server: Option<&Process>) {
    match server {
        Some(server) => {
            server.ended().await;
        }
        None => std::future::pending().await,
    }
}
