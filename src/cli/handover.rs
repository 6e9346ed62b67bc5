//! `handover`: the two laptops change places. One edit swaps both words of a profile; with a file for each laptop it is one
//! edit here, and the other one is said.

use std::io::Write as _;

use anyhow::Result;
use camino::Utf8Path;

use super::role::PATIENCE;
use super::{StateArgs, client, exit};
use crate::desired::{self, Desired, Role, Surroundings};
use crate::hint::hinted;
use crate::status::Status;

pub(super) async fn run(state: &StateArgs) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    let desired = desired::load(&surroundings)?;
    let status = ask(&desired).await;
    possible(&desired, status.as_ref())?;
    match desired::swap_roles(&surroundings)? {
        Some(done) => {
            let mut out = anstream::stdout().lock();
            writeln!(
                out,
                "{path}: both roles are swapped; {} is declared {}",
                done.desired.node, done.desired.role
            )?;
            writeln!(
                out,
                "now bring the same file to the other laptop (git push there and pull here, or copy it): it hands over by itself"
            )?;
        }
        None => one_side(&path, &surroundings, &desired, status.as_ref())?,
    }
    if status.is_none() {
        writeln!(
            anstream::stderr().lock(),
            "note: the daemon here does not answer, so that nobody could look whether the two can change places"
        )?;
    }
    Ok(exit::OK)
}

async fn ask(desired: &Desired) -> Option<Status> {
    let text = client::get_within(PATIENCE, desired.api_listen, "/v1/status")
        .await
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// Refuses what cannot come to anything.
fn possible(desired: &Desired, status: Option<&Status>) -> Result<()> {
    if desired.peer.is_none() {
        return Err(hinted(
            "there is no other laptop to change places with: the state file names none",
            "name it under `peer`, or use a profile with `nodes`",
        ));
    }
    let Some(status) = status else { return Ok(()) };
    if !status.peer.reachable {
        return Err(hinted(
            format!(
                "the other laptop does not answer ({}); nothing was changed",
                status.peer.reason.as_deref().unwrap_or("it was not asked yet")
            ),
            "a handover needs both. If the other laptop is dead, `paceline failover` here takes over",
        ));
    }
    let serves = status.server.state == "writable";
    if !serves && !status.server.streaming {
        return Err(hinted(
            "this laptop does not stream from the other one, so that it could not take over; nothing was changed",
            "look at `paceline status`; try again when it follows",
        ));
    }
    Ok(())
}

/// With a file for each laptop: the edit here, and what has to be written there.
fn one_side(
    path: &Utf8Path,
    surroundings: &Surroundings,
    desired: &Desired,
    status: Option<&Status>,
) -> Result<()> {
    let serves = match status {
        Some(status) => status.server.state == "writable",
        None => desired.role.writes(),
    };
    let (here, there) = if serves {
        (Role::Standby, Role::Primary)
    } else {
        (Role::Primary, Role::Standby)
    };
    let done = desired::set_role(surroundings, here)?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "{path}: {}: {} -> {here}", done.key, done.before)?;
    writeln!(
        out,
        "on the other laptop: paceline {there} (or write `role: {there}` there)"
    )?;
    writeln!(out, "the order does not matter; nothing is lost")?;
    Ok(())
}
