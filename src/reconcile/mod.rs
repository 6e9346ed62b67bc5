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

mod executor;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};

use self::executor::{Decision, execute};
use crate::api;
use crate::desired::{self, Desired, Reading};
use crate::exec::app::{Keeper, Order};
use crate::instance::{Instance, Successor};
use crate::observed::{AppFacts, AppState, Fact, Moment, Observed, Server};
use crate::plan::{End, Gate, Plan, Waiting, gate, plan};
use crate::probe::{FromInside, Prober};
use crate::status::{Failure, FileState, Status, status};
use crate::supervise::output::Output;
use crate::supervise::signals::{self, Request, Requests};
use crate::sys::clock;
use crate::sys::process::Process;

/// So long a signal that has arrived takes at most to be heard.
const LAST_WORD: Duration = Duration::from_millis(20);
/// The slow tick: what no event tells (a file created by hand, a promotion by hand) is seen within this time.
const TICK: Duration = Duration::from_secs(2);
/// Every so many ticks the look is thorough.
const THOROUGH_EVERY: u32 = 5;
/// While the server is on its way up or down it is looked at this often.
const ON_THE_WAY: Duration = Duration::from_millis(50);
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
    questions: mpsc::Sender<Question>,
    /// A look is under way.
    looking: bool,
    looks: u32,
    /// When the last look began.
    looked_at: Moment,
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
    // Held during an action; holds when the last one ended: looks that began before are worthless.
    let busy = Arc::new(Mutex::new(Moment::default()));

    let mut executor = tokio::spawn(execute(
        decided,
        app.clone(),
        failures,
        Arc::clone(&look),
        Arc::clone(&busy),
    ));
    let (questions, asked) = mpsc::channel(1);
    let (answered, mut answers) = mpsc::channel(1);
    let mut prober = tokio::spawn(probe(asked, answered));
    let mut keeper = keeper.map(|keeper| tokio::spawn(keeper.run(ordered)));
    if mode == Mode::Daemon {
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
        questions,
        looking: false,
        looks: 0,
        looked_at: Moment::default(),
        app,
        failure,
        decisions,
        orders,
        published,
        server: None,
    };
    this.take(&readings.borrow_and_update().clone());

    let mut wanted = Some(Look::Thorough);
    let mut next = Instant::now();
    let mut finding: Option<JoinHandle<Result<Successor>>> = None;
    let mut successor: Option<Successor> = None;
    loop {
        if let Some(look) = wanted
            && this.ask(look)
        {
            wanted = None;
            next = Instant::now() + TICK;
        }
        // An action under way, or one that ended after the last look, may have brought up what has to be stopped.
        if let Ok(acted_at) = busy.try_lock()
            && this.looked_at >= *acted_at
            && let Some(ended) = this.ended()
        {
            executor.abort();
            return Ok(ended);
        }
        tokio::select! {
            // Cancel-safe: a message that is not taken stays in the channel.
            Some((looked_at, observed)) = answers.recv() => {
                this.see(looked_at, observed);
                next = Instant::now() + this.patience();
            }
            // Cancel-safe: the permit is kept.
            () = look.notified() => wanted = Some(Look::Thorough),
            // Cancel-safe: values of a watch channel stay marked as unseen.
            Ok(()) = readings.changed() => {
                let reading = readings.borrow_and_update().clone();
                if this.take(&reading) {
                    wanted = Some(Look::Thorough);
                }
                this.decide();
            }
            Ok(()) = this.app.changed() => this.decide(),
            Ok(()) = this.failure.changed() => this.decide(),
            // Cancel-safe: signals are counted by the runtime.
            request = requests.next() => match request {
                Request::End if this.ending => {
                    tracing::warn!("asked to end for the second time: ending at once; what still runs goes on");
                    executor.abort();
                    return Ok(Ended::Asked);
                }
                // Once means: not a daemon's work, so not a daemon's end either. The action under way is finished.
                Request::End if this.mode == Mode::Once => {
                    tracing::info!("asked to end");
                    let _idle = busy.lock().await;
                    executor.abort();
                    return Ok(Ended::Asked);
                }
                Request::End => {
                    tracing::info!("asked to end");
                    this.ending = true;
                    (finding, successor) = (None, None);
                    this.decide();
                    wanted = Some(Look::Quick);
                }
                Request::Reread => handle.poke(),
                Request::Reexecute => match &this.file.error {
                    // The new program would read the file anew, and this one knows better what was in force.
                    Some(error) => tracing::error!(
                        "not executed anew: first the state file has to be right (hint: correct it, or change it back): {error}"
                    ),
                    None if !this.ending && this.mode == Mode::Daemon => {
                        finding = Some(tokio::spawn(Successor::find()));
                    }
                    None => {}
                },
            },
            // Cancel-safe: waiting for a lock takes nothing until it is had.
            guard = idle(&busy), if successor.is_some() => {
                // Whoever asks from now on is heard by the new program; whoever asked before must be heard by us.
                signals::hold_back();
                let heard = timeout(LAST_WORD, requests.next()).await;
                if heard == Ok(Request::End) {
                    tracing::info!("asked to end; not executed anew");
                    successor = None;
                    this.ending = true;
                    this.decide();
                    wanted = Some(Look::Quick);
                } else if let Some(successor) = successor.take() {
                    let Err(error) = successor.execute(&this.instance);
                    tracing::error!("cannot execute the program anew; going on as before: {error:#}");
                }
                signals::let_in();
                drop(guard);
            }
            // Cancel-safe: a task that has ended stays so until it is taken.
            found = joined(finding.as_mut()) => {
                finding = None;
                match found {
                    Ok(found) => successor = Some(found),
                    Err(error) => tracing::error!("cannot execute the program anew; going on as before: {error:#}"),
                }
            }
            // A part of us that is gone cannot be done without; server and application go on, and the next daemon
            // takes them over. These end by a panic only.
            ended = &mut executor => bail!("the executor ended: {ended:?}"),
            ended = &mut prober => bail!("the prober ended: {ended:?}"),
            ended = joined_keeper(keeper.as_mut()) => bail!("the application's keeper ended: {ended:?}"),
            // Cancel-safe: the handle keeps the news.
            () = gone(this.server.as_ref()) => {
                this.server = None;
                wanted = Some(Look::Thorough);
            }
            () = sleep_until(next) => if this.looking {
                // The look takes its time; what was seen before gets older.
                this.decide();
                next = Instant::now() + TICK;
            } else {
                wanted = Some(Look::Quick);
            },
        }
    }
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// At what changes by itself.
    Quick,
    /// At everything.
    Thorough,
}

struct Question {
    desired: Arc<Desired>,
    inside: FromInside,
    thorough: bool,
}

/// Looks when it is asked to, in a task of its own: a server that does not answer must not keep the loop from closing
/// the gate.
async fn probe(mut questions: mpsc::Receiver<Question>, answers: mpsc::Sender<(Moment, Observed)>) {
    let mut prober = Prober::default();
    while let Some(question) = questions.recv().await {
        let looked_at = clock::now();
        let observed = prober
            .look(&question.desired, question.inside, question.thorough)
            .await;
        if answers.send((looked_at, observed)).await.is_err() {
            return;
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

    /// Asks for a look; false: one is under way.
    fn ask(&mut self, look: Look) -> bool {
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
    fn see(&mut self, looked_at: Moment, observed: Observed) {
        self.looking = false;
        self.hold_server(&observed);
        self.served |= observed.server_state() == Fact::Known(Server::Writable);
        self.observed = Some(observed);
        self.looked_at = looked_at;
        self.decide();
    }

    /// Decides on what is known: after a look, and whenever what is asked for changed.
    fn decide(&mut self) {
        let Some(observed) = &mut self.observed else {
            return;
        };
        // What comes from inside is newer than the look.
        observed.ending = self.ending;
        observed.app = self.app.borrow_and_update().clone();
        self.failure.borrow_and_update();
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
            looked_at: self.looked_at,
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
        let on_the_way = self.patience() == ON_THE_WAY;
        let status = self.published.borrow().clone()?;
        (failed || (settled && !on_the_way)).then(|| Ended::Settled(Box::new(status.as_ref().clone())))
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

async fn joined(task: Option<&mut JoinHandle<Result<Successor>>>) -> Result<Successor> {
    match task {
        Some(task) => task.await?,
        None => std::future::pending().await,
    }
}

async fn joined_keeper(task: Option<&mut JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

async fn idle(busy: &Arc<Mutex<Moment>>) -> OwnedMutexGuard<Moment> {
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
