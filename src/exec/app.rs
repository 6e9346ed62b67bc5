//! Keeps the application as the gate wants it: a task of its own, so that closing never waits for another action.
//!
//! What to do is decided by [`crate::plan::app`]; this does it.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::desired::{App, AppPort, Database, Desired};
use crate::observed::{AppFacts, AppState, Moment};
use crate::plan::Gate;
use crate::plan::app::{AppStep, PROVEN, app_step, backoff, declaration};
use crate::probe::database::password;
use crate::probe::postmaster;
use crate::supervise::app::{Registry, Start, signal};
use crate::supervise::output::Output;
use crate::sys::files::{ensure_directory, write_durably};
use crate::sys::process::{Exit, Process};
use crate::sys::{clock, net, users};

/// What the application is judged by.
#[derive(Clone, Debug)]
pub struct Order {
    /// The declaration in force.
    pub desired: Arc<Desired>,
    /// Whether it may run.
    pub gate: Gate,
}

/// The application's keeper.
pub struct Keeper {
    registry: Registry,
    facts: watch::Sender<AppFacts>,
    process: Option<Process>,
    /// While it is stopping: when it is killed.
    kill_at: Option<Instant>,
}

impl Keeper {
    /// Takes over the application that an earlier daemon started, if it runs; its other leftovers end. The facts are
    /// published on the receiver.
    pub async fn adopt(desired: &Desired) -> (Self, watch::Receiver<AppFacts>) {
        let registry = Registry::new(&desired.home);
        let mut facts = AppFacts::default();
        let mut process = None;
        if let Some((record, found)) = registry.adopt() {
            tracing::info!(
                pid = record.process.pid,
                port = record.port,
                "the application runs already; taken over"
            );
            facts.state = AppState::Running {
                pid: record.process.pid,
                port: record.port,
                declaration: record.declaration,
                since: clock::now(),
            };
            process = Some(found);
        }
        // Beside a living one nothing is a stray: its helpers are its own.
        if process.is_none() {
            let (identity, grace) = match &desired.racedb {
                Some(app) => (identity(app), app.stop_grace),
                None => (Ok(users::own()), Duration::ZERO),
            };
            let ended = match identity {
                Ok(identity) => registry.end_strays(&identity, grace).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!("{error:#}");
            }
        }
        let (facts, receiver) = watch::channel(facts);
        (
            Self {
                registry,
                facts,
                process,
                kill_at: None,
            },
            receiver,
        )
    }

    /// Runs for good; ends when nobody gives orders any more.
    pub async fn run(mut self, mut orders: watch::Receiver<Option<Order>>) {
        loop {
            let order = orders.borrow_and_update().clone();
            let mut again = None;
            if let Some(order) = &order {
                again = self.act(order, &orders).await;
            }
            let wake = again.into_iter().chain(self.kill_at).min();
            tokio::select! {
                // Cancel-safe: the value stays marked as unseen.
                changed = orders.changed() => if changed.is_err() { return },
                // Cancel-safe: the handle keeps the news.
                exit = ended(self.process.as_ref()) => self.ended(exit, order.as_ref()).await,
                () = at(wake) => self.kill_if_due(),
            }
        }
    }

    /// Takes the next step; says when to look again.
    async fn act(&mut self, order: &Order, orders: &watch::Receiver<Option<Order>>) -> Option<Instant> {
        let desired = &order.desired;
        let database = desired.postgres.database.as_ref();
        let wanted = desired
            .racedb
            .as_ref()
            .map(|app| declaration(app, database, postmaster::port(desired)));
        let facts = self.facts.borrow().clone();
        let now = clock::now();
        match app_step(wanted.as_deref(), desired.paused, &order.gate, &facts, now) {
            AppStep::Nothing(until) => until.map(|until| Instant::now() + until.since(now)),
            AppStep::Stop(why) => {
                self.stop(desired.racedb.as_ref(), &why);
                None
            }
            AppStep::Start => {
                if let (Some(app), Some(declaration)) = (&desired.racedb, wanted) {
                    let started = match self.clear_the_way(app).await {
                        // That took its time; the gate may be closed by now.
                        Ok(()) if orders.has_changed().unwrap_or(true) => return Some(Instant::now()),
                        Ok(()) => self.start(desired, app, database, declaration),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = started {
                        self.failed(format!("it could not be started: {error:#}"), now);
                    }
                }
                Some(Instant::now())
            }
        }
    }

    /// Whatever an earlier application left behind ends: there is never more than one.
    async fn clear_the_way(&self, app: &App) -> Result<()> {
        self.registry.end_strays(&identity(app)?, app.stop_grace).await
    }

    fn start(
        &mut self,
        desired: &Desired,
        app: &App,
        database: Option<&Database>,
        declaration: String,
    ) -> Result<()> {
        let identity = identity(app)?;
        let port = match (app.listen, app.port) {
            (Some(listen), _) => listen.port(),
            (None, AppPort::Fixed(port)) => port,
            (None, AppPort::Auto) => net::free_port().context("cannot find a free port")?,
        };
        let fill = |argument: &String| argument.replace("{port}", &port.to_string());
        let mut environment: Vec<(String, String)> = app
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        environment.push(("PGHOST".to_owned(), desired.socket_directory().to_string()));
        environment.push(("PGPORT".to_owned(), postmaster::port(desired).to_string()));
        if let Some(database) = database {
            let passfile = write_passfile(desired, database, &identity)?;
            environment.push(("PGDATABASE".to_owned(), database.name.clone()));
            environment.push(("PGUSER".to_owned(), database.owner.clone()));
            environment.push(("PGPASSFILE".to_owned(), passfile.to_string()));
        }
        let start = Start {
            command: app.command.iter().map(fill).collect(),
            working_directory: app.working_directory.clone(),
            identity,
            environment,
            port,
            declaration: declaration.clone(),
        };
        ensure_directory(&desired.log_directory(), 0o755, None)?;
        let process = self.registry.start(&start, &Output::new(desired.app_log()))?;
        let pid = process.id().pid;
        tracing::info!(pid, port, command = %start.command.join(" "), "application started");
        self.process = Some(process);
        self.facts.send_modify(|facts| {
            facts.state = AppState::Running {
                pid,
                port,
                declaration,
                since: clock::now(),
            };
        });
        Ok(())
    }

    fn stop(&mut self, app: Option<&App>, why: &str) {
        let Some(process) = &self.process else { return };
        // Without a declaration (it was just removed) the usual way.
        let (name, grace) = app.map_or(("SIGTERM", Duration::from_secs(10)), |app| {
            (app.stop_signal.as_str(), app.stop_grace)
        });
        let stop = Signal::from_str(name).unwrap_or(Signal::SIGTERM);
        tracing::info!(pid = process.id().pid, signal = %stop, reason = why, "stopping the application");
        signal(process, stop);
        // A stopped process (Ctrl-Z, a debugger) gets no signal before it goes on.
        signal(process, Signal::SIGCONT);
        self.kill_at = Some(Instant::now() + grace);
        self.facts.send_modify(|facts| facts.state = AppState::Stopping);
    }

    fn kill_if_due(&mut self) {
        if let Some(process) = &self.process
            && self.kill_at.is_some_and(|due| Instant::now() >= due)
        {
            tracing::warn!(
                pid = process.id().pid,
                "the application does not stop in time; killing it"
            );
            signal(process, Signal::SIGKILL);
            self.kill_at = None;
        }
    }

    async fn ended(&mut self, exit: Exit, order: Option<&Order>) {
        let group = self.process.take();
        self.kill_at = None;
        // Its children must not outlive it: those that carry our mark, wherever they are, and those of its group.
        let app = order.and_then(|order| order.desired.racedb.as_ref());
        let identity = app.map_or_else(|| Ok(users::own()), identity);
        let ended = match identity {
            Ok(identity) => self.registry.end_strays(&identity, Duration::from_secs(1)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!("{error:#}");
        }
        if let Some(group) = group {
            signal(&group, Signal::SIGKILL);
        }
        let facts = self.facts.borrow().clone();
        match facts.state {
            AppState::Stopping => {
                tracing::info!(%exit, "application stopped");
                self.facts.send_modify(|facts| {
                    facts.state = AppState::Stopped;
                    facts.failures = 0;
                    facts.last_end = Some(format!("stopped ({exit})"));
                });
            }
            AppState::Running { since, .. } => {
                let now = clock::now();
                if now.since(since) >= PROVEN {
                    self.facts.send_modify(|facts| facts.failures = 0);
                }
                let log = order
                    .map(|order| order.desired.app_log().to_string())
                    .unwrap_or_default();
                self.failed(
                    format!("it ended by itself ({exit}); its output is in {log}"),
                    now,
                );
            }
            AppState::Stopped | AppState::BackingOff { .. } => {}
        }
    }

    fn failed(&mut self, what: String, now: Moment) {
        self.facts.send_modify(|facts| {
            facts.failures = facts.failures.saturating_add(1);
            let wait = backoff(facts.failures);
            tracing::warn!(
                failures = facts.failures,
                again_in_s = wait.as_secs(),
                "application: {what}"
            );
            facts.state = AppState::BackingOff {
                until: now.after(wait),
            };
            facts.last_end = Some(what);
        });
    }
}

/// Whom the application runs as.
fn identity(app: &App) -> Result<users::Identity> {
    match &app.user {
        None => Ok(users::own()),
        Some(name) => {
            users::find(name)?.with_context(|| format!("there is no user {name:?} (`racedb: user:`)"))
        }
    }
}

/// The application's own passfile: nobody else's password is in it and nobody else can read it.
fn write_passfile(
    desired: &Desired,
    database: &Database,
    identity: &users::Identity,
) -> Result<camino::Utf8PathBuf> {
    let path = &database.password_file;
    let password = password(desired, database)
        .with_context(|| format!("cannot use the password file {path}"))?
        .with_context(|| format!("the password file {path} does not exist"))?;
    let directory = desired.home.join("app");
    ensure_directory(&directory, 0o755, None)?;
    let passfile = directory.join("pgpass");
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let line = format!(
        "*:*:{}:{}:{}\n",
        escape(&database.name),
        escape(&database.owner),
        escape(&password)
    );
    write_durably(&passfile, line.as_bytes(), 0o600, Some(identity.owner()))?;
    Ok(passfile)
}

async fn ended(process: Option<&Process>) -> Exit {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
