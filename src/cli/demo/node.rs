//! One of the demo's laptops, as a person handles it: started, ended, killed, edited; its status followed.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{pairing, place, report, say};
use crate::cli::client;
use crate::desired::{Desired, Role, Surroundings, set_role};
use crate::hint::hinted;
use crate::status::{PlanState, Status};
use crate::sys::files::read_end;
use crate::sys::process::{Exit, Process};
use crate::sys::spawn::{Launch, base_environment};
use crate::sys::users::{self, Identity};

/// How long anything may take that the demo waits for, on a machine with much else to do.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A laptop.
pub(super) struct Node {
    pub(super) name: &'static str,
    /// Its state file.
    pub(super) state: Utf8PathBuf,
    /// What that declared at first: ports and places, which nobody edits.
    pub(super) desired: Desired,
    pub(super) program: Utf8PathBuf,
    user: Identity,
    daemon: Option<Process>,
    seen: watch::Receiver<Option<Arc<Status>>>,
    /// Follows the status; ends with us.
    _follower: JoinSet<()>,
}

impl Node {
    pub(super) fn new(
        name: &'static str,
        state: Utf8PathBuf,
        desired: Desired,
        program: Utf8PathBuf,
        user: Identity,
    ) -> Self {
        let (sender, seen) = watch::channel(None);
        let mut follower = JoinSet::new();
        follower.spawn(follow(name, desired.api_listen, sender));
        Self {
            name,
            state,
            desired,
            program,
            user,
            daemon: None,
            seen,
            _follower: follower,
        }
    }

    /// Starts its daemon, in a session of its own, so that a Ctrl-C here does not reach it.
    pub(super) fn start(&mut self) -> Result<()> {
        if self.daemon.is_some() || self.status().is_some() {
            anyhow::bail!("{}'s daemon runs already", self.name);
        }
        let mut environment = base_environment(&users::own());
        environment.extend(std::env::var("PACELINE_LOG").map(|level| ("PACELINE_LOG".to_owned(), level)));
        let launch = Launch {
            program: self.program.to_string(),
            arguments: vec!["run".to_owned(), self.state.to_string()],
            environment,
            directory: self.directory().to_owned(),
            identity: None,
            dies_with_us: false,
        };
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.with_context(|| format!("cannot write {}", self.log()))?;
        let pid = launch
            .start_detached(log)
            .with_context(|| format!("cannot run {}", self.program))?;
        self.daemon = Some(Process::open(pid)?.ok_or_else(|| self.ended(Exit::Unknown))?);
        Ok(())
    }

    /// Everything of it is gone at once, as in a power cut.
    pub(super) async fn lose_power(&mut self) -> Result<()> {
        self.daemon = None;
        let rest = place::kill(self.directory(), &self.user).await?;
        anyhow::ensure!(rest.is_empty(), "{}'s processes {rest:?} do not end", self.name);
        Ok(())
    }

    /// Its server crashes.
    pub(super) async fn crash_server(&mut self) -> Result<()> {
        let pid = self.status().and_then(|status| status.server.pid);
        let server = pid.map(Process::open).transpose()?.flatten();
        let server = server.with_context(|| format!("{}'s server does not run", self.name))?;
        server.signal(Signal::SIGKILL)?;
        server.ended().await;
        Ok(())
    }

    /// Ends its daemon in order, also one that a person started instead of ours.
    pub(super) async fn end(&mut self) {
        let pid = self.status().and_then(|status| i32::try_from(status.pid).ok());
        let found = pid.and_then(|pid| Process::open(pid).ok()?);
        if let Some(daemon) = self.daemon.take().or(found) {
            drop(daemon.signal(Signal::SIGTERM));
            if timeout(LIMIT, daemon.ended()).await.is_err() {
                say(format_args!(
                    "{}'s daemon does not end in {} s",
                    self.name,
                    LIMIT.as_secs()
                ));
            }
        }
    }

    /// Edits the one word in its state file.
    pub(super) fn declare(&self, role: Role) -> Result<()> {
        set_role(&Surroundings::detect(&self.state, None)?, role).map(drop)
    }

    /// What its daemon last said; `None`: it does not answer.
    pub(super) fn status(&self) -> Option<Arc<Status>> {
        self.seen.borrow().clone()
    }

    /// Waits until something happens, and says it if its daemon ended by itself.
    pub(super) async fn news(&mut self) {
        tokio::select! {
            _ = self.seen.changed() => {}
            exit = end_of(self.daemon.as_ref()) => {
                self.daemon = None;
                say(format_args!("{:#}", self.ended(exit)));
            }
        }
    }

    /// Waits until its status fits; it is an error if its daemon ends before.
    pub(super) async fn wait(&mut self, what: &str, fits: impl Fn(&Status) -> bool) -> Result<Arc<Status>> {
        let due = Instant::now() + LIMIT;
        loop {
            let now = self.seen.borrow_and_update().clone();
            if let Some(status) = now.as_ref().filter(|status| fits(status)) {
                return Ok(Arc::clone(status));
            }
            tokio::select! {
                _ = self.seen.changed() => {}
                exit = end_of(self.daemon.as_ref()) => return Err(self.ended(exit)),
                () = sleep_until(due) => {
                    let says = now.map_or("nothing".to_owned(), |status| line(&status));
                    return Err(hinted(
                        format!("it did not come in {} s that {what}; {} says: {says}", LIMIT.as_secs(), self.name),
                        format!("look into {} and {}", self.log(), self.desired.server_log()),
                    ));
                }
            }
        }
    }

    fn directory(&self) -> &Utf8Path {
        self.state.parent().unwrap_or(&self.state)
    }

    fn log(&self) -> Utf8PathBuf {
        self.directory().join("paceline.log")
    }

    /// The error for a daemon that ended.
    fn ended(&self, exit: Exit) -> anyhow::Error {
        let log = read_end(&self.log(), 1500).unwrap_or_default();
        hinted(
            format!(
                "{}'s daemon ended ({exit}); the end of {}:\n{}",
                self.name,
                self.log(),
                log.trim_end()
            ),
            format!(
                "try it alone: {} run {}",
                self.program,
                pairing::shell(self.state.as_str())
            ),
        )
    }
}

async fn end_of(daemon: Option<&Process>) -> Exit {
    match daemon {
        Some(daemon) => daemon.ended().await,
        None => std::future::pending().await,
    }
}

/// Whether it is as a primary should be.
pub(super) fn serves(status: &Status) -> bool {
    status.plan.state == PlanState::Converged && status.gate.state == "open" && app_runs(status)
}

/// Whether it is as a standby should be.
pub(super) fn follows(status: &Status) -> bool {
    status.plan.state == PlanState::Converged && status.server.streaming
}

fn app_runs(status: &Status) -> bool {
    status.app.as_ref().is_some_and(|app| app["state"] == "running")
}

/// Asks a daemon for news for as long as anybody wants them, and says every change in a line.
async fn follow(name: &str, listen: SocketAddr, seen: watch::Sender<Option<Arc<Status>>>) {
    let (mut said, mut advised) = (None, None);
    let mut path = "/v1/status".to_owned();
    loop {
        let answer = client::get_within(Duration::from_secs(8), listen, &path)
            .await
            .ok();
        let Some(status) = answer.and_then(|text| serde_json::from_str::<Status>(&text).ok()) else {
            // A daemon counts from the beginning again, and one that was never there is not missed.
            "/v1/status".clone_into(&mut path);
            if said.take().is_some() {
                report(name, "its daemon does not answer");
            }
            seen.send_replace(None);
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        path = format!("/v1/status?after={}&wait=5", status.revision);
        let now = Some(line(&status));
        if now != said {
            report(name, now.as_deref().unwrap_or_default());
            said = now;
        }
        if status.plan.state == PlanState::Blocked && status.plan.hint != advised {
            advised.clone_from(&status.plan.hint);
            say(format_args!(
                "{:9}hint: {}",
                "",
                advised.as_deref().unwrap_or_default()
            ));
        }
        seen.send_replace(Some(Arc::new(status)));
    }
}

/// A laptop in a line.
fn line(status: &Status) -> String {
    let plan = &status.plan;
    let reason = plan.reason.as_deref().unwrap_or_default();
    let first = plan.actions.first().map_or("", String::as_str);
    let peer = status.peer.node.as_deref().unwrap_or("the other laptop");
    let what = match plan.state {
        PlanState::Converged if status.server.streaming => format!("follows {peer}"),
        PlanState::Converged if app_runs(status) => "serves; the application runs".to_owned(),
        PlanState::Converged => "as declared".to_owned(),
        PlanState::Converging => first
            .split_once(": ")
            .map_or(first, |(action, _)| action)
            .to_owned(),
        PlanState::Waiting => format!("waits: {reason}"),
        PlanState::Blocked => format!("BLOCKED: {reason}"),
        PlanState::Failed => format!("failed, will be tried again: {reason}"),
    };
    format!(
        "{:<9} server {:<10} gate {:<8} {what}",
        status.desired.role, status.server.state, status.gate.state
    )
}
