//! Carries out one action: one `match`, one effect for each.
//!
//! An effect checks its own preconditions again (what the planner saw may be old by now), is idempotent, verifies what
//! it did, and decides nothing: if code here wants to choose, the choice belongs into the planner.

mod adopt;
pub mod app;
mod clone;
mod configure;
mod create;
mod database;
mod epoch;
mod follow;
mod promise;
mod promote;
mod replication;
mod restart;
mod restore;
pub mod rewind;
mod server;

pub use self::rewind::keep;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::desired::Desired;
use crate::hint::hinted;
use crate::lineage::Sidecar;
use crate::observed::{AppFacts, Remembered};
use crate::plan::Action;
use crate::probe::server::Shared;
use crate::sys::files;
use crate::sys::users::{self, Identity};

/// What an effect works with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The declaration that the plan was made from.
    pub desired: &'a Desired,
    /// The application, which some effects wait for.
    pub app: watch::Receiver<AppFacts>,
    /// A connection to the server that is open already, perhaps.
    pub session: Shared,
    /// Where an effect that takes long says, in words, how far it has come.
    pub progress: watch::Sender<Option<String>>,
}

impl<'a> Context<'a> {
    /// For one effect alone: no application, nobody who follows its progress.
    pub fn alone(desired: &'a Desired) -> Self {
        Self {
            desired,
            app: watch::channel(AppFacts::default()).1,
            session: Shared::default(),
            progress: watch::channel(None).0,
        }
    }
}

impl Context<'_> {
    /// A connection to the server that runs now.
    async fn connect(&self) -> Result<Arc<Client>> {
        let process = server::running(self)?.context("the server is not running any more")?;
        self.session.connect(self.desired, process.id().pid).await
    }

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
        Action::WriteConfiguration(files) => configure::write(context, files).await,
        Action::PurgeAutoConf(names) => configure::purge_auto_conf(context, names).await,
        Action::StartServer(start) => server::start(context, start).await,
        Action::ReloadServer { configuration } => server::reload(context, configuration).await,
        Action::Clone(source) => clone::cluster(context, source).await,
        Action::Restore(wanted) => restore::restore(context, wanted).await,
        Action::Rewind(source) => rewind::rewind(context, source).await,
        Action::PromiseHandover(promise) => promise::hand_over(context, promise).await,
        Action::PlaceStandbySignal { system_identifier } => {
            promise::place_standby_signal(context, system_identifier).await
        }
        Action::RecordConsent(grant) => promise::record_consent(context, grant),
        Action::RecordEpochs(epochs) => follow::record(context, epochs),
        Action::WakeReceiver => follow::wake(context),
        Action::RemoveRecoverySignal => follow::remove_recovery_signal(context),
        Action::ResumeReplay => promote::resume_replay(context).await,
        Action::IntendEpoch(intention) => promote::intend(context, intention),
        Action::Promote(loss) => promote::promote(context, loss).await,
        Action::Checkpoint => promote::checkpoint(context).await,
        Action::EnsureReplication(need) => replication::ensure(context, need).await,
        Action::NameEpoch => epoch::name(context).await,
        Action::EnsureDatabase => database::ensure(context).await,
        Action::StopApp => stop_app(context).await,
        Action::StopServer => server::stop(context).await,
        Action::FastShutdown => server::fast_shutdown(context).await,
        Action::ForgetRestart(id) => restart::forget(context, *id),
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
