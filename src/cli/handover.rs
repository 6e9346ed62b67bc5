//! `handover`: the two laptops change places. One edit changes both words of a profile; with a file for each laptop it is
//! one edit here, and the other one is said.
//!
//! It only edits. Whether and when the laptops change places is decided by their daemons; what this one says is asked
//! first, so that nobody waits for something that cannot come.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use camino::Utf8Path;

use super::render::bytes;
use super::role::{PATIENCE, changed, note, notes, other_laptop};
use super::{StateArgs, client, exit, refuse};
use crate::desired::{self, Both, Desired, Role, Surroundings};
use crate::plan::HARMLESS_LAG;
use crate::status::{PlanState, Status};

/// What happens when both are edited, whoever is first.
const NEXT: &str = "The laptop that serves goes on serving until both are declared so and the other one follows closely. Then its \
application and its server stop, and the other one takes over. Nothing that was acknowledged is lost; \
`paceline status --watch` shows it.";

/// Why it cannot come to anything, and what to do about that.
struct Hopeless {
    why: String,
    hint: String,
}

fn hopeless<T>(why: impl Into<String>, hint: impl Into<String>) -> Result<T, Hopeless> {
    Err(Hopeless {
        why: why.into(),
        hint: hint.into(),
    })
}

pub(super) async fn run(state: &StateArgs) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let surroundings = Surroundings::detect(&path, state.node.clone())?;
    let desired = desired::load(&surroundings)?;
    let both = desired::both(&surroundings)?;
    let asked = ask(&desired).await;
    let judged = judge(&desired, both.as_ref(), asked.as_ref().ok());
    let (own, theirs, warnings) = match judged {
        Ok(judged) => judged,
        Err(Hopeless { why, hint }) => return refuse(&format!("{why}; nothing was changed"), &hint),
    };
    let status = asked.as_ref().ok();
    match both {
        Some(both) => one_edit(&path, &surroundings, &both, own, theirs)?,
        None => one_side(&path, &surroundings, status, own, theirs)?,
    }
    if let Err(error) = &asked {
        note(format!(
            "nobody could look whether the two can change places now: {error:#}"
        ))?;
    }
    for warning in warnings {
        note(warning)?;
    }
    notes(&path, &desired::load(&surroundings)?, None)?;
    Ok(exit::OK)
}

/// Asks this laptop's daemon.
async fn ask(desired: &Desired) -> Result<Status> {
    let text = client::get_within(PATIENCE, desired.api_listen, "/v1/status").await?;
    let status: Status = serde_json::from_str(&text)
        .context("the daemon here is of another version; its answer is not understood")?;
    ensure!(
        status.node == desired.node,
        "the daemon that answers here is {}'s, not {}'s",
        status.node,
        desired.node
    );
    Ok(status)
}

/// Which roles to write, here and there, and what to say besides; or why there is no point in it.
fn judge(
    desired: &Desired,
    both: Option<&Both>,
    status: Option<&Status>,
) -> Result<(Role, Role, Vec<String>), Hopeless> {
    if desired.peer.is_none() {
        return hopeless(
            "there is no other laptop to change places with: the state file names none",
            "name it under `peer`, or use a profile of both laptops (`nodes`)",
        );
    }
    let (serves, warnings) = match status {
        Some(status) => possible(status)?,
        None => (by_the_words(desired, both)?, Vec::new()),
    };
    Ok(if serves {
        (Role::Standby, Role::Primary, warnings)
    } else {
        (Role::Primary, Role::Standby, warnings)
    })
}

/// Whether this laptop is the one that serves, as far as the file tells.
fn by_the_words(desired: &Desired, both: Option<&Both>) -> Result<bool, Hopeless> {
    match both {
        Some(both) if both.own.writes() == both.theirs.writes() => hopeless(
            format!(
                "{} is declared {} and {} {}, and the daemon here does not answer: which of the two serves cannot be told",
                desired.node, both.own, both.other, both.theirs
            ),
            "start the daemon here and try again, or write `standby` for the one that is to give and `primary` for the \
             one that is to take over",
        ),
        Some(_) | None => Ok(desired.role.writes()),
    }
}

/// Whether this laptop is the one that serves, and what a person should know; or why a handover cannot begin.
fn possible(status: &Status) -> Result<(bool, Vec<String>), Hopeless> {
    let (server, peer) = (&status.server, &status.peer);
    let name = peer.node.as_deref().unwrap_or("the other laptop");
    if !peer.reachable {
        return hopeless(
            format!(
                "{name} does not answer ({}), and a handover needs both",
                peer.reason.as_deref().unwrap_or("it was not asked yet")
            ),
            "bring it back and try again. If it is dead, `paceline failover` on the laptop that is left takes over",
        );
    }
    if peer.role.is_none() {
        return hopeless(
            format!("{name}'s daemon does not answer, only its server, and a handover needs both daemons"),
            "start `paceline run` there and try again",
        );
    }
    if status.plan.state == PlanState::Blocked {
        return hopeless(
            format!(
                "this laptop is blocked: {}",
                status
                    .plan
                    .reason
                    .as_deref()
                    .unwrap_or("`paceline plan` says why")
            ),
            status
                .plan
                .hint
                .as_deref()
                .unwrap_or("`paceline plan` says what to do"),
        );
    }
    let gives = server.state == "writable";
    let theirs = peer.server.as_deref().unwrap_or("unknown");
    let (follows, lag, why) = match (gives, theirs == "writable") {
        (true, true) => {
            return hopeless(
                format!("both databases are written to, this laptop's and {name}'s"),
                "`paceline plan` says what to do",
            );
        }
        (false, false) => {
            return hopeless(
                format!(
                    "neither database is written to now (here the server is {}, on {name} {theirs}); perhaps they are \
                     changing places already",
                    server.state
                ),
                "look at `paceline status` on both laptops",
            );
        }
        (true, false) => (
            peer.streaming == Some(true),
            peer.lag_bytes,
            format!(
                "{name} does not stream from this laptop (its server is {theirs}), so that it could not take over"
            ),
        ),
        (false, true) => (
            server.streaming,
            server.lag_bytes,
            format!(
                "this laptop does not stream from {name} ({}), so that it could not take over",
                server
                    .reason
                    .clone()
                    .unwrap_or_else(|| format!("its server is {}", server.state))
            ),
        ),
    };
    if !follows {
        return hopeless(
            why,
            "try again when it follows; `paceline status` there says what it waits for",
        );
    }
    let mut warnings = Vec::new();
    match lag {
        Some(lag) if lag > HARMLESS_LAG => warnings.push(format!(
            "the one that follows is {} behind; they change places as soon as it is less than {}",
            bytes(lag),
            bytes(HARMLESS_LAG)
        )),
        Some(_) => {}
        None => {
            warnings.push("how far behind the one that follows is, is not known at this moment".to_owned());
        }
    }
    Ok((gives, warnings))
}

/// A profile: both words in one edit.
fn one_edit(
    path: &Utf8Path,
    surroundings: &Surroundings,
    both: &Both,
    own: Role,
    theirs: Role,
) -> Result<()> {
    let done = desired::set_both(surroundings, own, theirs)?
        .context("the state file was changed by somebody else at this moment: it declares one laptop only")?;
    let mut said = String::new();
    for edit in [&done.own, &done.other] {
        let _ = writeln!(
            said,
            "{path}: {}",
            changed(&edit.key, edit.before, edit.desired.role)
        );
    }
    let _ = write!(
        said,
        "\nNow the same file has to reach {}: `git commit` and `git push` here and `git pull` there, or copy it.\n{NEXT}\n",
        both.other
    );
    anstream::stdout().lock().write_all(said.as_bytes())?;
    super::role::written_over(path, done.written_over.as_deref())
}

/// A file for each laptop: the edit here, and what has to be written there.
fn one_side(
    path: &Utf8Path,
    surroundings: &Surroundings,
    status: Option<&Status>,
    own: Role,
    theirs: Role,
) -> Result<()> {
    let done = desired::set_role(surroundings, own)?;
    let whom = other_laptop(&done.desired, status);
    let said = format!(
        "{path}: {}\n\nNow on {whom}: `paceline {theirs}`, or `role: {theirs}` in the state file there.\n{NEXT}\n",
        changed(&done.key, done.before, own)
    );
    anstream::stdout().lock().write_all(said.as_bytes())?;
    super::role::written_over(path, done.written_over.as_deref())
}
