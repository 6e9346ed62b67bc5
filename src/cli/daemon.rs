//! `run` and `apply`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::render::{self, code};
use super::{StateArgs, exit};
use crate::desired::{self, Reading, Surroundings, Valid, schema_file};
use crate::instance::Instance;
use crate::reconcile::{self, Ended, Mode, report_unsupported};
use crate::supervise::manager::Manager;
use crate::supervise::signals::{self, Request, Requests};

/// The daemon.
pub(super) async fn run(state: &StateArgs) -> Result<u8> {
    let mut requests = Requests::listen()?;
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), state_file = %path, "paceline starts");
    // The watcher's own thread is to take no signal: only ours looks whether there was one before it executes anew.
    signals::hold_back();
    let (mut readings, handle) = desired::watch(surroundings);
    signals::let_in();
    let mut manager = Manager::new();
    let mut said: Option<String> = None;
    // A file that appears or becomes valid later is as good as one that was there.
    let first = loop {
        let reading: Arc<Reading> = readings.borrow_and_update().clone();
        if let Some(valid) = &reading.valid {
            break Arc::clone(valid);
        }
        if let Some(error) = &reading.error
            && said.replace(error.clone()).as_ref() != Some(error)
        {
            tracing::error!("waiting for a valid state file:\n{error}");
            // Or the service manager would end us, and nobody looked after the server.
            manager.status("waiting for a valid state file; see the log");
        }
        let rest = manager.alive().unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            // Only the sign of life is due.
            () = tokio::time::sleep(rest) => {}
            changed = readings.changed() => changed?,
            request = requests.next() => match request {
                Request::End => return Ok(exit::OK),
                Request::Reread => handle.poke(),
                Request::Reexecute => tracing::warn!("not executed anew: there is no valid state file yet"),
            },
        }
    };
    let instance = Instance::claim(&first.desired).await?;
    report_unsupported(&first.desired);
    if let Err(error) = schema_file::keep(&first.desired.home) {
        tracing::warn!("editors may not know this version's keys: {error:#}");
    }
    reconcile::run(Mode::Daemon, instance, first, readings, handle, requests).await?;
    tracing::info!("paceline ends");
    Ok(exit::OK)
}

/// Converges once, for the server alone.
pub(super) async fn apply(state: &StateArgs) -> Result<u8> {
    let requests = Requests::listen()?;
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    // The error of a file that is not valid now is the answer.
    desired::load(&surroundings)?;
    let (mut readings, handle) = desired::watch(surroundings.clone());
    let reading = readings.borrow_and_update().clone();
    let first: Arc<Valid> = match &reading.valid {
        Some(valid) => Arc::clone(valid),
        None => anyhow::bail!("the state file changed while it was read; try again"),
    };
    let instance = Instance::claim(&first.desired).await?;
    report_unsupported(&first.desired);
    match reconcile::run(Mode::Once, instance, first, readings, handle, requests).await? {
        Ended::Asked => Ok(exit::INTERNAL),
        Ended::Settled(status) => {
            anstream::stdout()
                .lock()
                .write_all(render::plan(&status.plan, &path).as_bytes())?;
            Ok(code(status.plan.state))
        }
    }
}
