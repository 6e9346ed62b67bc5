//! What a standby's copy needs to follow: the names of the epochs, and a WAL receiver that does not wait.

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::Context;
use super::epoch::write_sidecar;
use super::server;
use crate::lineage::Epoch;
use crate::probe;
use crate::sys::{clock, files};

/// Notes the names of the epochs that the other laptop holds. Any intention of our own is over with that.
pub(super) fn record(context: &Context<'_>, epochs: &[Epoch]) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let mut sidecar = probe::read_sidecar(data_directory)?
        .with_context(|| format!("the note beside {data_directory} is gone"))?;
    sidecar.epochs = epochs.to_vec();
    sidecar.intended = None;
    write_sidecar(data_directory, &sidecar)
}

/// A waiting WAL receiver tries again when the server reads its configuration again. Whether that helped is seen by the
/// next look: a failover must not have to wait for it.
pub(super) fn wake(context: &Context<'_>) -> Result<()> {
    let process = server::running(context)?.context("the server is not running any more")?;
    process
        .signal(Signal::SIGHUP)
        .context("cannot tell the server to reload")
}

/// With both files the standby's counts, so the copy stays what it is without the other.
pub(super) fn remove_recovery_signal(context: &Context<'_>) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let stray = data_directory.join("recovery.signal");
    let standby = data_directory.join("standby.signal");
    if !standby
        .try_exists()
        .with_context(|| format!("cannot look for {standby}"))?
    {
        bail!("{standby} is gone; nothing was done");
    }
    if !stray
        .try_exists()
        .with_context(|| format!("cannot look for {stray}"))?
    {
        return Ok(());
    }
    let aside = context
        .desired
        .beside_data(&format!("recovery.signal-{}", clock::compact_timestamp()));
    std::fs::rename(&stray, &aside).with_context(|| format!("cannot move {stray} to {aside}"))?;
    files::sync_parent(&stray).with_context(|| format!("cannot make the removal of {stray} durable"))?;
    tracing::info!(from = %stray, to = %aside, "moved aside");
    Ok(())
}
