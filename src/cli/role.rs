//! `set role` and its short forms: one word of the state file, and what a person should know about it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use camino::Utf8Path;

use super::{StateArgs, client, exit};
use crate::desired::{self, Desired, Role, Surroundings};

/// Nobody who fails over wants to wait for a note.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn set(state: &StateArgs, role: Role) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    let done = desired::set_role(&surroundings, role)?;
    let key = &done.key;
    // Each output is let go of at once: the lock must not be held while the daemon is asked.
    if done.before == role {
        writeln!(
            anstream::stdout().lock(),
            "{path}: {key} is {role} already; the file was not touched"
        )?;
    } else {
        writeln!(
            anstream::stdout().lock(),
            "{path}: {key}: {} -> {role}",
            done.before
        )?;
    }
    if let Some(why) = &done.written_over {
        note(format!(
            "{path} was written over, not replaced in one step: {why}"
        ))?;
    }
    if done.before != role && done.desired.peer.is_some() && key == "role" {
        other_side(role)?;
    }
    notes(&path, &done.desired).await?;
    Ok(exit::OK)
}

/// What has to be written on the other laptop so that the two fit.
fn other_side(role: Role) -> Result<()> {
    let there = match role {
        Role::Primary => Role::Standby,
        Role::Standby => Role::Primary,
        // The other laptop is gone, or is told apart.
        Role::Failover | Role::Recovery => return Ok(()),
    };
    note(format!(
        "for a handover the other laptop is declared {there}: `paceline {there}` there, in any order"
    ))
}

/// What keeps the new role from having its effect.
async fn notes(path: &Utf8Path, desired: &Desired) -> Result<()> {
    if desired.paused {
        note("the file says `paused: true`: nothing happens until that line is deleted")?;
    }
    if let Some(trigger) = &desired.postgres.trigger_file
        && desired.role == Role::Standby
        && !desired
            .unsupported
            .iter()
            .any(|key| key.key == "postgres.trigger_file")
        && trigger.exists()
    {
        note(format!(
            "as long as the trigger file {trigger} exists, standby means failover"
        ))?;
    }
    if let Err(error) = client::get_within(PATIENCE, desired.api_listen, "/v1/status").await {
        note(format!("{error}; start it with `paceline run {path}`"))?;
    }
    Ok(())
}

fn note(text: impl std::fmt::Display) -> Result<()> {
    writeln!(anstream::stderr().lock(), "note: {text}")?;
    Ok(())
}
