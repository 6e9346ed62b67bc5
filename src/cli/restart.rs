//! `restart`: asks the daemon for a restart of the server, and waits for what it comes to.
//!
//! The HTTP interface is read-only, so what is asked for lies in a file in `home`. It names the server that runs now: as
//! soon as another one does, it is done.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;
use uuid::Uuid;

use super::commands::load;
use super::{StateArgs, client, exit};
use crate::desired::Desired;
use crate::hint::hinted;
use crate::observed::RestartRequest;
use crate::probe::restart;
use crate::status::{PlanState, Status};
use crate::sys::clock;
use crate::sys::files::{sync_parent, write_durably};
use crate::sys::process::Stat;

/// How long a restart may be put off before nothing more is expected of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the whole may take: a stop may write a long checkpoint, a start may recover.
const LIMIT: Duration = Duration::from_secs(300);
/// How long one question waits for news.
const QUESTION: Duration = Duration::from_secs(5);

pub(super) async fn run(state: &StateArgs, force: bool) -> Result<u8> {
    let (_, desired) = load(state)?;
    let status = ask(&desired, None).await.map_err(|error| {
        hinted(
            format!("{error:#}"),
            "`paceline restart` asks the daemon, so `paceline run` has to run with this state file",
        )
    })?;
    if status.desired.paused {
        say(
            "not restarted: the state file says `paused: true`, so nothing is touched (hint: delete that line first)",
        )?;
        return Ok(exit::BLOCKED);
    }
    let server = &status.server;
    let Some(pid) = server.pid.filter(|_| runs(&status)) else {
        bail!("not restarted: no server answers here (it is {})", server.state);
    };
    match server.pending_settings.as_deref().unwrap_or_default() {
        [] if !force => {
            say("nothing waits for a restart (hint: --force restarts the server all the same)")?;
            return Ok(exit::OK);
        }
        [] => {}
        pending => {
            let pending: Vec<String> = pending.iter().map(ToString::to_string).collect();
            say(format!("waiting for a restart: {}", pending.join(", ")))?;
        }
    }
    let stat = Stat::read(pid).with_context(|| format!("cannot look at process {pid}"))?;
    let Some(stat) = stat.filter(|stat| !stat.dead()) else {
        bail!("not restarted: the server (process {pid}) has just ended; ask again");
    };
    let request = RestartRequest {
        id: Uuid::new_v4(),
        pid,
        started: stat.started,
        boot: clock::boot().unwrap_or_default(),
    };
    let path = desired.home.join(RestartRequest::FILE);
    write_durably(&path, &serde_json::to_vec_pretty(&request)?, 0o644, None).map_err(|error| {
        hinted(
            format!("{error:#}"),
            "run it as the user that the daemon runs as (or root)",
        )
    })?;
    follow(&desired, &request, status).await
}

/// Waits until another server runs, or until it is plain that none will.
async fn follow(desired: &Desired, request: &RestartRequest, mut status: Status) -> Result<u8> {
    let begun = Instant::now();
    let mut untouched = begun;
    let mut said = String::new();
    loop {
        let news = match ask(desired, Some(status.revision)).await {
            Ok(news) => news,
            // The daemon itself may be on its way up again.
            Err(error) if begun.elapsed() < LIMIT => {
                if untouched.elapsed() > PATIENCE {
                    withdraw(desired, request)?;
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        status = news;
        let old_runs = status.server.pid == Some(request.pid);
        if !old_runs && runs(&status) {
            say(format!(
                "restarted in {:.1} s: process {}, {}",
                begun.elapsed().as_secs_f64(),
                status.server.pid.unwrap_or_default(),
                status.server.state
            ))?;
            return Ok(exit::OK);
        }
        let plan = &status.plan;
        let reason = plan
            .reason
            .clone()
            .unwrap_or_else(|| "it was not begun".to_owned());
        let hint = plan.hint.as_ref().map(|hint| format!(" (hint: {hint})"));
        let reason = format!("{reason}{}", hint.unwrap_or_default());
        if old_runs {
            let idle = plan.actions.is_empty() || plan.state == PlanState::Failed;
            if !idle {
                untouched = Instant::now();
            }
            if status.desired.paused || untouched.elapsed() > PATIENCE {
                withdraw(desired, request)?;
                say(format!("not restarted; the server goes on: {reason}"))?;
                return Ok(match plan.state {
                    _ if status.desired.paused => exit::BLOCKED,
                    PlanState::Blocked => exit::BLOCKED,
                    PlanState::Failed => exit::INTERNAL,
                    PlanState::Converged | PlanState::Converging | PlanState::Waiting => exit::PENDING,
                });
            }
        } else {
            untouched = Instant::now();
            match plan.state {
                PlanState::Blocked => {
                    say(format!("the server is stopped and is not started: {reason}"))?;
                    return Ok(exit::BLOCKED);
                }
                // It is tried again; a person may have to mend something first.
                PlanState::Failed if said != reason => {
                    say(format!("the server is stopped and does not start yet: {reason}"))?;
                    said = reason;
                }
                PlanState::Failed | PlanState::Converged | PlanState::Converging | PlanState::Waiting => {}
            }
        }
        if begun.elapsed() > LIMIT {
            say("no server answers yet; `paceline status` says how it goes on")?;
            return Ok(exit::PENDING);
        }
    }
}

/// Whether a server answers.
fn runs(status: &Status) -> bool {
    ["writable", "read_only"].contains(&status.server.state.as_str())
}

/// The status document; with a revision: as soon as there is another one.
async fn ask(desired: &Desired, after: Option<u64>) -> Result<Status> {
    let path = match after {
        Some(revision) => format!("/v1/status?after={revision}&wait={}", QUESTION.as_secs()),
        None => "/v1/status".to_owned(),
    };
    let text = client::get_within(QUESTION + QUESTION, desired.api_listen, &path).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Takes the request back, unless it is somebody else's by now.
fn withdraw(desired: &Desired, request: &RestartRequest) -> Result<()> {
    let path = desired.home.join(RestartRequest::FILE);
    if restart::read(desired)?.is_some_and(|there| there.id == request.id) {
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot take the request back: remove {path}"))?;
        sync_parent(&path)?;
    }
    Ok(())
}

fn say(text: impl std::fmt::Display) -> Result<()> {
    writeln!(anstream::stdout().lock(), "{text}")?;
    Ok(())
}
