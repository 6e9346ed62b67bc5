//! Start, reload and stop of the server.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use tokio::time::{Instant, interval, timeout};

use super::Context;
use crate::desired::Desired;
use crate::hint::hinted;
use crate::observed::{Postmaster, ServerPhase};
use crate::plan::Start;
use crate::plan::configuration::names_to_purge;
use crate::probe::postmaster::{self, Holder};
use crate::probe::server as session;
use crate::supervise::output::Output;
use crate::supervise::postgres;
use crate::sys::files::{self, ensure_directory};
use crate::sys::net;
use crate::sys::process::Process;
use crate::sys::users::Identity;

/// How long the start of a server is watched. One that recovers longer than this from a crash goes on by itself; the
/// planner then waits for it.
const START: Duration = Duration::from_secs(10);
/// How long a fast stop may take before an immediate one. The final checkpoint of a busy laptop takes a while.
const FAST_STOP: Duration = Duration::from_secs(120);
/// How long an immediate stop may take.
const IMMEDIATE_STOP: Duration = Duration::from_secs(20);
/// How long a server may take to read its configuration.
const RELOAD: Duration = Duration::from_secs(5);
/// How often a short wait looks. A start takes some 50 ms.
const LOOK: Duration = Duration::from_millis(3);

pub(super) async fn start(context: &Context<'_>, start: &Start) -> Result<()> {
    let desired = context.desired;
    let programs = &start.programs;
    let user = context.server_user()?;
    match postmaster::look(desired, &user)? {
        Postmaster::Running(_) => return Ok(()),
        Postmaster::Down { leftovers } if !leftovers.is_empty() => {
            bail!("processes of a dead server are still there: {leftovers:?}")
        }
        Postmaster::Down { .. } => {}
    }
    super::can_reach(&desired.postgres.data_directory, &user)?;
    super::can_reach(&desired.conf_directory().join("postgresql.conf"), &user)?;
    same_marks(desired, start.standby)?;
    free_the_name(desired, &user)?;
    free_the_socket(desired, &user)?;
    ports_are_free(desired)?;
    ensure_directory(&desired.socket_directory(), 0o755, Some(user.owner()))?;
    ensure_directory(&desired.log_directory(), 0o755, None)?;

    let log = Output::new(desired.server_log());
    let before = log.len();
    let process = postgres::spawn(
        &programs.bin_directory.join("postgres"),
        &desired.postgres.data_directory,
        &desired.conf_directory(),
        &user,
        &log,
    )?;
    let pid = process.id().pid;
    let up = async {
        let mut tick = interval(LOOK);
        loop {
            tokio::select! {
                // Cancel-safe: the handle keeps the news.
                exit = process.ended() => return Err(exit),
                // Cancel-safe: a tick that is lost comes again.
                _ = tick.tick() => {}
            }
            if let Ok(Some(file)) = postmaster::read_pid_file(&desired.postgres.data_directory)
                && file.pid == pid
                && file.phase == Some(ServerPhase::Ready)
            {
                return Ok(());
            }
        }
    };
    match timeout(START, up).await {
        // Up, or still recovering.
        Ok(Ok(())) | Err(_) => Ok(()),
        Ok(Err(exit)) => {
            let said = log.complaints_since(before);
            let hint = format!("the whole story is at the end of {}", log.path());
            Err(hinted(
                format!("PostgreSQL {} does not start ({exit}): {said}", programs.version),
                hint,
            ))
        }
    }
}

/// The marks that the plan was made from, once more: they decide whether the copy becomes writable.
fn same_marks(desired: &Desired, standby: bool) -> Result<()> {
    let data_directory = &desired.postgres.data_directory;
    let there = |name: &str| {
        let path = data_directory.join(name);
        path.try_exists()
            .with_context(|| format!("cannot look for {path}"))
    };
    if there("standby.signal")? != standby
        || (!standby && (there("recovery.signal")? || there("backup_label")?))
    {
        bail!("the signal files in {data_directory} changed just now; nothing was started");
    }
    Ok(())
}

/// A stale `postmaster.pid` whose number belongs to somebody else by now keeps every server from starting, and so does
/// one of a killed server that nobody has reaped. It is removed only when that process is proven to be no server of
/// this directory.
pub(super) fn free_the_name(desired: &Desired, user: &Identity) -> Result<()> {
    let data_directory = &desired.postgres.data_directory;
    let Some(file) = postmaster::read_pid_file(data_directory)? else {
        return Ok(());
    };
    let mut holder = postmaster::holder(file.pid, desired, user)?;
    if holder == Holder::Zombie {
        // Opening a dead child reaps it.
        drop(Process::open(file.pid)?);
        holder = postmaster::holder(file.pid, desired, user)?;
    }
    match holder {
        // The server itself removes the file of a dead one.
        Holder::Dead => Ok(()),
        Holder::Server => bail!("a server runs already: process {}", file.pid),
        Holder::Zombie | Holder::Somebody => {
            let path = data_directory.join("postmaster.pid");
            tracing::info!(file = %path, pid = file.pid, "removing a stale pid file: that process is no server of this directory");
            std::fs::remove_file(&path).with_context(|| format!("cannot remove the stale {path}"))
        }
    }
}

/// The lock file of the socket has the same trap, and unlike a socket directory of the system's ours survives a reboot.
fn free_the_socket(desired: &Desired, user: &Identity) -> Result<()> {
    let path = desired
        .socket_directory()
        .join(format!(".s.PGSQL.{}.lock", desired.postgres.port));
    let Some(text) = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))? else {
        return Ok(());
    };
    let holder = text.lines().next().and_then(|line| line.trim().parse().ok());
    match holder.map(|pid| postmaster::is_a_server(pid, user)) {
        // The server removes the file of a dead one, and refuses beside a living one, in its own words.
        None | Some(true) => Ok(()),
        Some(false) => {
            tracing::info!(file = %path, "removing a stale lock file of the socket: no server holds it");
            std::fs::remove_file(&path).with_context(|| format!("cannot remove the stale {path}"))
        }
    }
}

/// With `*` PostgreSQL starts although another program has the port (it only warns), and nobody can connect.
fn ports_are_free(desired: &Desired) -> Result<()> {
    let port = desired.postgres.port;
    let Some(ip) = net::first_in_use(&desired.postgres.listen_addresses, port) else {
        return Ok(());
    };
    let by = net::listener(port).unwrap_or_else(|| "another program".to_owned());
    Err(hinted(
        format!("cannot start the server: port {port} on {ip} is in use by {by}"),
        "stop that program, or set `postgres: port:` to another port",
    ))
}

pub(super) async fn reload(context: &Context<'_>, wanted: &str) -> Result<()> {
    let process = running(context)?.context("the server is not running any more")?;
    process
        .signal(Signal::SIGHUP)
        .context("cannot tell the server to reload")?;
    let deadline = Instant::now() + RELOAD;
    let client = session::connect(context.desired, "postgres").await?;
    loop {
        // Each question makes the session read the configuration that the postmaster announced.
        let loaded = session::loaded(&client).await?;
        let stale = names_to_purge(context.desired, &loaded.from_auto_conf);
        // Mistakes are the planner's to see.
        if (loaded.configuration.as_deref() == Some(wanted) && stale.is_empty()) || !loaded.errors.is_empty()
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the server did not take its new configuration within {} seconds",
                RELOAD.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets a server that runs read its files, whatever it has loaded.
pub(super) async fn read_again(context: &Context<'_>) -> Result<()> {
    let Some(process) = running(context)? else {
        return Ok(());
    };
    let client = context.connect().await.ok();
    let before = match &client {
        Some(client) => Some(session::loaded_at(client).await?),
        None => None,
    };
    process
        .signal(Signal::SIGHUP)
        .context("cannot tell the server to reload")?;
    // One that does not answer yet reads them by itself.
    let (Some(client), Some(before)) = (client, before) else {
        return Ok(());
    };
    let deadline = Instant::now() + RELOAD;
    while session::loaded_at(&client).await? == before {
        if Instant::now() >= deadline {
            bail!(
                "the server did not read its configuration within {} seconds",
                RELOAD.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

pub(super) async fn stop(context: &Context<'_>) -> Result<()> {
    let Some(process) = running(context)? else {
        return Ok(());
    };
    // Fast: open connections are ended, a checkpoint is written. Never smart: RaceDB keeps a connection for life.
    process
        .signal(Signal::SIGINT)
        .context("cannot tell the server to stop")?;
    if timeout(FAST_STOP, process.ended()).await.is_ok() {
        return gone(context);
    }
    tracing::warn!(
        pid = process.id().pid,
        seconds = FAST_STOP.as_secs(),
        "the server does not stop; stopping it immediately (it will recover at its next start)"
    );
    process
        .signal(Signal::SIGQUIT)
        .context("cannot tell the server to stop immediately")?;
    if timeout(IMMEDIATE_STOP, process.ended()).await.is_ok() {
        return gone(context);
    }
    Err(hinted(
        format!("the server (process {}) does not stop", process.id().pid),
        "it may hang in the disk; look at it with `ps` and at the kernel log; never kill -9 it lightly",
    ))
}

/// The fast stop of a handover: the standby gets everything up to the shutdown checkpoint. It is never hurried (an
/// immediate stop writes no such checkpoint); `wal_sender_timeout` lets go of a standby that does not listen.
pub(super) async fn fast_shutdown(context: &Context<'_>) -> Result<()> {
    let Some(process) = running(context)? else {
        return Ok(());
    };
    process
        .signal(Signal::SIGINT)
        .context("cannot tell the server to stop")?;
    timeout(FAST_STOP, process.ended()).await.map_err(|_| {
        hinted(
            format!(
                "the server (process {}) is still writing its last checkpoint after {} s",
                process.id().pid,
                FAST_STOP.as_secs()
            ),
            "it goes on; a slow disk takes a while",
        )
    })?;
    gone(context)
}

fn gone(context: &Context<'_>) -> Result<()> {
    match postmaster::look(context.desired, &context.server_user()?)? {
        Postmaster::Down { .. } => Ok(()),
        Postmaster::Running(running) => bail!("a server runs again: process {}", running.pid),
    }
}

/// A handle of the server that runs now, opened first and verified after, so that both speak of one process.
pub(super) fn running(context: &Context<'_>) -> Result<Option<Process>> {
    let user = context.server_user()?;
    let Postmaster::Running(seen) = postmaster::look(context.desired, &user)? else {
        return Ok(None);
    };
    let Some(process) = Process::open(seen.pid)? else {
        return Ok(None);
    };
    match postmaster::holder(seen.pid, context.desired, &user)? {
        Holder::Server => Ok(Some(process)),
        Holder::Dead | Holder::Zombie | Holder::Somebody => Ok(None),
    }
}
