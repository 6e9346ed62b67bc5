//! Carries out one action: one `match`, one effect for each.
//!
//! An effect checks its own preconditions again (what the planner saw may be old by now), is idempotent, verifies what
//! it did, and decides nothing: if code here wants to choose, the choice belongs into the planner.

mod adopt;
pub mod app;
mod configure;
mod create;
mod database;
mod epoch;
mod server;

use anyhow::Result;
use camino::Utf8Path;
use tokio::sync::watch;

use crate::desired::Desired;
use crate::hint::hinted;
use crate::lineage::Sidecar;
use crate::observed::{AppFacts, Remembered};
use crate::plan::Action;
use crate::sys::files;
use crate::sys::users::{self, Identity};

/// What an effect works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The declaration that the plan was made from.
    pub desired: &'a Desired,
    /// The application, which some effects wait for.
    pub app: watch::Receiver<AppFacts>,
}

impl Context<'_> {
    /// The user that the server runs as.
    fn server_user(&self) -> Result<Identity> {
        let name = &self.desired.postgres.os_user;
        let own = users::own();
        if own.name == *name {
            return Ok(own);
        }
        users::find(name)?.ok_or_else(|| anyhow::anyhow!("the user {name:?} does not exist"))
    }
}

/// The server's user has to get to its files; a home below `/root`, for one, is closed to it.
fn can_reach(path: &Utf8Path, user: &Identity) -> Result<()> {
    match users::closed_directory(path, user) {
        None => Ok(()),
        Some(directory) => Err(hinted(
            format!(
                "the server's user {} cannot get to {path}: it may not enter {directory}",
                user.name
            ),
            format!(
                "chmod o+x {directory}, or set `home:` (and `postgres: data_directory:`) to a place that it can reach"
            ),
        )),
    }
}

/// Carries out one action, to its verified end.
pub async fn carry_out(context: &mut Context<'_>, action: &Action) -> Result<()> {
    match action {
        Action::CreateCluster(programs) => create::cluster(context, programs).await,
        Action::AdoptCluster => adopt::cluster(context).await,
        Action::WriteConfiguration(files) => configure::write(context, files),
        Action::PurgeAutoConf(names) => configure::purge_auto_conf(context, names),
        Action::StartServer(start) => server::start(context, start).await,
        Action::ReloadServer { configuration } => server::reload(context, configuration).await,
        Action::NameEpoch => epoch::name(context).await,
        Action::EnsureDatabase => database::ensure(context).await,
        Action::StopApp => stop_app(context).await,
        Action::StopServer => server::stop(context).await,
    }
}

/// The gate is closed, so the application's supervisor stops it, by force if need be; this waits for that.
async fn stop_app(context: &mut Context<'_>) -> Result<()> {
    // An error means that the supervisor is gone, and with it everything that could be waited for.
    context.app.wait_for(|app| !app.state.alive()).await?;
    Ok(())
}

/// Notes in `home` which database is in the data directory.
fn remember(desired: &Desired, sidecar: &Sidecar) -> Result<()> {
    let note = Remembered {
        system_identifier: sidecar.system_identifier.clone(),
        data_directory: desired.postgres.data_directory.clone(),
        origin: sidecar.origin.clone(),
    };
    let path = desired.home.join(Remembered::FILE);
    files::write_durably(&path, &serde_json::to_vec_pretty(&note)?, 0o644, None)
}
