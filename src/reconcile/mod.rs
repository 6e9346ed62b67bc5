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

mod decide;
mod executor;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout};

use self::executor::{Acting, Decision, Reports, execute};
use crate::api;
use crate::desired::{self, Desired, Reading};
use crate::exec::app::{Keeper, Order};
use crate::instance::{Instance, Successor};
use crate::observed::{AppFacts, AppState, Flag, Moment, Observed};
use crate::peer;
use crate::plan::{Gate, Plan};
use crate::probe::{FromInside, Prober};
use crate::status::{Failure, FileState, Status};
use crate::supervise::manager::Manager;
use crate::supervise::signals::{self, Request, Requests};
use crate::sys::alarm::{Alarm, Slept};
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
    /// What we announce, and since when.
    flag: Option<(Flag, Moment)>,
    /// Whoever started us.
    manager: Manager,
    /// Whether the laptop slept.
    slept: Slept,
    /// When it last woke up: what was heard of the other laptop before that is old.
    woke_at: Option<Moment>,
    /// The other laptop.
    peer: peer::Handle,
    /// The declaration in force, for those who ask the other laptop and answer it.
    in_force: watch::Sender<Arc<Desired>>,
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
    /// What the action under way, or the last one, was announced by.
    acting: watch::Receiver<Option<Acting>>,
    /// How far the action under way has come.
    progress: watch::Receiver<Option<String>>,
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
    let (progress, progressed) = watch::channel(None);
    let (acting, under_way) = watch::channel(None);
    let (failures, failure) = watch::channel(None);
    let (decisions, decided) = watch::channel(None);
    let (orders, ordered) = watch::channel(None);
    let (published, status) = watch::channel(None);
    let (in_force, declared) = watch::channel(Arc::clone(&desired));
    let (peer, mut link) = peer::follow(declared.clone());
    let mut peer_news = peer.views();
    let (looks, mut look) = mpsc::unbounded_channel();
    // Held during an action; holds when the last one ended: looks that began before are worthless.
    let busy = Arc::new(Mutex::new(Moment::default()));

    let prober = Prober::default();
    let mut executor = tokio::spawn(execute(
        decided,
        app.clone(),
        Reports {
            failures,
            progress,
            acting,
        },
        looks,
        Arc::clone(&busy),
        prober.shared(),
    ));
    let (questions, asked) = mpsc::channel(1);
    let (answered, mut answers) = mpsc::channel(1);
    let mut prober = tokio::spawn(probe(prober, asked, answered));
    let mut keeper = keeper.map(|keeper| tokio::spawn(keeper.run(ordered)));
    // Once, too: the other laptop is to see what is announced.
    tokio::spawn(api::serve(desired.api_listen, status, declared, peer.knock()));

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
        flag: None,
        manager: Manager::new(),
        slept: Slept::since_now(),
        woke_at: None,
        peer,
        in_force,
        logged: String::new(),
        questions,
        looking: false,
        looks: 0,
        looked_at: Moment::default(),
        app,
        failure,
        progress: progressed,
        acting: under_way,
        decisions,
        orders,
        published,
        server: None,
    };
    this.take(&readings.borrow_and_update().clone());
    this.record(
        "daemon",
        &json!({ "state": "starts", "version": env!("CARGO_PKG_VERSION") }),
    );

    let alarm = Alarm::new()?;
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
        let alive_within = this.manager.alive();
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
            // Cancel-safe: a message that is not taken stays in the channel.
            Some(asked) = look.recv() => wanted = Some(closer(wanted, asked)),
            // Cancel-safe: values of a watch channel stay marked as unseen.
            Ok(()) = readings.changed() => {
                let reading = readings.borrow_and_update().clone();
                let changed = this.take(&reading);
                this.decide();
                this.manager.reloaded();
                // What is to be done now is begun on what is known; its effect looks again, and so do we after it.
                if changed && this.plan.steps.is_empty() {
                    wanted = Some(closer(wanted, Look::Thorough));
                }
            }
            Ok(()) = peer_news.changed() => {
                peer_news.mark_unchanged();
                let heard = this.heard();
                this.decide();
                // What it does now depends on how far our copy is by now.
                if this.heard() != heard {
                    wanted = Some(closer(wanted, Look::Quick));
                }
            }
            Ok(()) = this.app.changed() => this.decide(),
            Ok(()) = this.failure.changed() => this.decide(),
            Ok(()) = this.progress.changed() => this.publish(clock::now()),
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
                    this.record("daemon", &json!({ "state": "was asked to end" }));
                    this.manager.stopping();
                    this.ending = true;
                    (finding, successor) = (None, None);
                    this.decide();
                    wanted = Some(Look::Quick);
                }
                Request::Reread => {
                    handle.poke();
                    // A file that says the same as before is no news.
                    this.manager.reloaded();
                }
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
            ended = &mut link => bail!("the link to the other laptop ended: {ended:?}"),
            ended = &mut prober => bail!("the prober ended: {ended:?}"),
            ended = joined_keeper(keeper.as_mut()) => bail!("the application's keeper ended: {ended:?}"),
            // Cancel-safe: the handle keeps the news.
            () = gone(this.server.as_ref()) => {
                this.server = None;
                wanted = Some(Look::Thorough);
            }
            // Cancel-safe: a ring that is not waited for is not kept.
            () = alarm.after(pause(next, alive_within)) => if Instant::now() < next {
                // Only the sign of life was due.
            } else if this.looking {
                // The look takes its time; what was seen before gets older.
                this.decide();
                next = Instant::now() + TICK;
            } else {
                wanted = Some(Look::Quick);
            },
        }
    }
}

/// How long the loop may rest.
fn pause(next: Instant, alive_within: Option<Duration>) -> Duration {
    let rest = next.saturating_duration_since(Instant::now());
    alive_within.map_or(rest, |within| rest.min(within))
}

/// The closer of two looks.
fn closer(wanted: Option<Look>, asked: Look) -> Look {
    match (wanted, asked) {
        (Some(Look::Thorough), _) | (_, Look::Thorough) => Look::Thorough,
        (Some(Look::Quick) | None, Look::Quick) => Look::Quick,
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
async fn probe(
    mut prober: Prober,
    mut questions: mpsc::Receiver<Question>,
    answers: mpsc::Sender<(Moment, Observed)>,
) {
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
