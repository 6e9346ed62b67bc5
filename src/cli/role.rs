//! `set role` and its short forms: one word of the state file, and what a person should know about it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use camino::Utf8Path;

use super::{StateArgs, client, exit};
use crate::desired::{self, Desired, Role, Surroundings};
use crate::status::Status;

/// Nobody who fails over wants to wait for a note.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn set(state: &StateArgs, role: Role) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    let done = desired::set_role(&surroundings, role)?;
    // Each output is let go of at once: the lock must not be held while the daemon is asked.
    writeln!(
        anstream::stdout().lock(),
        "{path}: {}",
        changed(&done.key, done.before, role)
    )?;
    written_over(&path, done.written_over.as_deref())?;
    let answer = client::get_within(PATIENCE, done.desired.api_listen, "/v1/status").await;
    let status = answer
        .as_ref()
        .ok()
        .and_then(|text| serde_json::from_str::<Status>(text).ok())
        .filter(|status| status.node == done.desired.node);
    other_side(&surroundings, &done.desired, status.as_ref())?;
    notes(&path, &done.desired, answer.err().as_ref())?;
    Ok(exit::OK)
}

/// What was done to one word.
pub(super) fn changed(key: &str, before: Role, now: Role) -> String {
    if before == now {
        format!("{key} is {now} already; it was not touched")
    } else {
        format!("{key}: {before} -> {now}")
    }
}

pub(super) fn written_over(path: &Utf8Path, why: Option<&str>) -> Result<()> {
    match why {
        Some(why) => note(format!(
            "{path} was written over, not replaced in one step: {why}"
        )),
        None => Ok(()),
    }
}

/// What has to be written for the other laptop, so that the two fit.
fn other_side(surroundings: &Surroundings, desired: &Desired, status: Option<&Status>) -> Result<()> {
    let theirs = match desired.role {
        Role::Primary => Role::Standby,
        Role::Standby => Role::Primary,
        // The other laptop is gone, or is told apart.
        Role::Failover | Role::Recovery => return Ok(()),
    };
    if desired.peer.is_none() {
        return Ok(());
    }
    if let Some(both) = desired::both(surroundings)? {
        return if both.theirs == theirs {
            note(format!(
                "{} is declared {theirs} in this file already; it needs the same file",
                both.other
            ))
        } else {
            note(format!(
                "to change places, {} has to be declared {theirs}: `paceline handover` writes both; {} needs the same file",
                both.other, both.other
            ))
        };
    }
    let whom = other_laptop(desired, status);
    match status.and_then(|status| status.peer.role) {
        Some(role) if role == theirs => note(format!("{whom} is declared {theirs} already")),
        Some(_) | None => note(format!(
            "to change places, {whom} has to be declared {theirs}: `paceline {theirs}` there, in any order"
        )),
    }
}

/// The other laptop, by the name it goes by here.
pub(super) fn other_laptop(desired: &Desired, status: Option<&Status>) -> String {
    let host = desired.peer.as_ref().map(|peer| peer.host.as_str());
    let node = status.and_then(|status| status.peer.node.as_deref());
    match (node, host) {
        (Some(node), Some(host)) if node != host => format!("the other laptop ({node}, {host})"),
        (Some(name), _) | (None, Some(name)) => format!("the other laptop ({name})"),
        (None, None) => "the other laptop".to_owned(),
    }
}

/// What keeps the new role from having its effect. `silent`: why the daemon does not answer.
pub(super) fn notes(path: &Utf8Path, desired: &Desired, silent: Option<&anyhow::Error>) -> Result<()> {
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
    if let Some(error) = silent {
        note(format!("{error}; start it with `paceline run {path}`"))?;
    }
    Ok(())
}

pub(super) fn note(text: impl std::fmt::Display) -> Result<()> {
    writeln!(anstream::stderr().lock(), "note: {text}")?;
    Ok(())
}
