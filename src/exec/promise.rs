//! What a laptop binds itself to: a copy that is handed over, a copy that becomes a standby's, a consent that was taken.

use anyhow::{Context as _, Result, bail};

use super::Context;
use crate::observed::{ClusterState, Consents, ControlData, HandedOver, Postmaster};
use crate::plan::Grant;
use crate::probe::{self, FromInside, Prober, postmaster};
use crate::sys::files::{self, write_durably};

/// Notes that this copy is handed over: an intention, which counts together with `standby.signal` only.
pub(super) async fn hand_over(context: &Context<'_>, promise: &HandedOver) -> Result<()> {
    let control = at_rest(context, &promise.system_identifier).await?;
    if control.state != ClusterState::ShutDown || control.checkpoint != promise.shutdown_checkpoint_lsn {
        bail!(
            "the copy is {:?} with its last checkpoint at {}, and was to be shut down with that at {}; nothing was noted",
            control.state,
            control.checkpoint,
            promise.shutdown_checkpoint_lsn
        );
    }
    let path = context.desired.home.join(HandedOver::FILE);
    write_durably(&path, &serde_json::to_vec_pretty(promise)?, 0o644, None)
}

/// Makes a copy that no server runs on a standby's.
pub(super) async fn place_standby_signal(context: &Context<'_>, system_identifier: &str) -> Result<()> {
    at_rest(context, system_identifier).await?;
    let path = context.desired.postgres.data_directory.join("standby.signal");
    if path
        .try_exists()
        .with_context(|| format!("cannot look for {path}"))?
    {
        return files::sync_parent(&path).with_context(|| format!("cannot make {path} durable"));
    }
    let user = context.server_user()?;
    write_durably(&path, b"", 0o600, Some(user.owner()))
}

/// Notes a consent as used, and for which situation.
pub(super) fn record_consent(context: &Context<'_>, grant: &Grant) -> Result<()> {
    let home = &context.desired.home;
    let mut consents = probe::consents(home)?;
    if consents.granted.as_ref() == Some(&grant.situation) {
        return Ok(());
    }
    if consents.used.contains(&grant.token) {
        bail!("the consent {:?} was used before; nothing was done", grant.token);
    }
    consents.used.push(grant.token.clone());
    consents.granted = Some(grant.situation.clone());
    write_durably(
        &home.join(Consents::FILE),
        &serde_json::to_vec_pretty(&consents)?,
        0o644,
        None,
    )
}

/// The copy's control data, with no server on it and no process of one.
async fn at_rest(context: &Context<'_>, system_identifier: &str) -> Result<ControlData> {
    let desired = context.desired;
    match postmaster::look(desired, &context.server_user()?)? {
        Postmaster::Running(running) => bail!("a server runs again: process {}", running.pid),
        Postmaster::Down { leftovers } if !leftovers.is_empty() => {
            bail!("processes of a dead server are still there: {leftovers:?}")
        }
        Postmaster::Down { .. } => {}
    }
    let observed = Prober::default().look(desired, FromInside::default(), true).await;
    let path = &desired.postgres.data_directory;
    let cluster = observed
        .cluster()
        .with_context(|| format!("there is no database in {path} any more"))?;
    let control = cluster
        .control
        .known()
        .with_context(|| format!("pg_control in {path} cannot be read"))?;
    if control.system_identifier != system_identifier {
        bail!(
            "{path} holds the database {} by now, and not {system_identifier}; nothing was done",
            control.system_identifier
        );
    }
    Ok(control.clone())
}
