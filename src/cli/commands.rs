//! `check`, `plan`, `status`, `history`, `schema`: they look and print, and change nothing.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::render::{self, code};
use super::{StateArgs, client, exit, watch};
use crate::desired::{self, Desired, Surroundings};
use crate::hint::hinted;
use crate::history;
use crate::observed::{Moment, Observed, Seen};
use crate::peer;
use crate::plan::{Gate, checked_plan, effective, gate};
use crate::probe::{FromInside, Prober};
use crate::status::{FileState, Status, plan_section, status as make_status};
use crate::sys::clock;

pub(super) fn load(state: &StateArgs) -> Result<(Utf8PathBuf, Desired)> {
    let path = desired::locate(state.state.as_deref())?;
    let desired = desired::load(&Surroundings::detect(&path, state.node.clone())?)?;
    Ok((path, desired))
}

pub(super) fn check(state: &StateArgs) -> Result<u8> {
    let (path, desired) = load(state)?;
    writeln!(
        anstream::stdout().lock(),
        "{path} is valid: {} is declared {}",
        desired.node,
        desired.role
    )?;
    print_unsupported(&path, &desired)?;
    Ok(exit::OK)
}

fn print_unsupported(path: &Utf8Path, desired: &Desired) -> Result<()> {
    let mut out = anstream::stderr().lock();
    for key in &desired.unsupported {
        writeln!(
            out,
            "{path}:{}: warning: `{}` is not supported yet: {}",
            key.line, key.key, key.instead
        )?;
    }
    Ok(())
}

pub(super) async fn plan(state: &StateArgs, json: bool) -> Result<u8> {
    let (path, desired) = load(state)?;
    print_unsupported(&path, &desired)?;
    let (mut observed, view): (Observed, _) = {
        let mut prober = Prober::default();
        tokio::join!(
            prober.look(&desired, FromInside::default(), true),
            peer::ask_once(&desired)
        )
    };
    let now = clock::now();
    observed.peer = view.at(now, desired.safety.peer_wait);
    observed.peer_memory = Seen::new(view.memory, now);
    let desired = effective(&desired, &observed).into_owned();
    let mut plan = checked_plan(&desired, &observed, now);
    if let Some(flag) = plan.flag {
        // Nothing is announced by a dry run; what comes after that is what people want to see.
        observed.flag = Some((flag, Moment::default()));
        plan = checked_plan(&desired, &observed, now);
    }
    let section = plan_section(&plan, None, &observed, now);
    if json {
        let gate = gate(
            &Gate::closed("no daemon was asked"),
            &desired,
            &observed,
            &plan,
            now,
        );
        let status = make_status(
            &desired,
            &FileState::default(),
            &observed,
            &plan,
            &gate,
            None,
            now,
        );
        writeln!(
            anstream::stdout().lock(),
            "{}",
            serde_json::to_string_pretty(&status)?
        )?;
    } else {
        anstream::stdout()
            .lock()
            .write_all(render::plan(&section, &path).as_bytes())?;
    }
    // Steps that end in a block are blocked all the same only when there are none to take first.
    Ok(code(section.state))
}

pub(super) async fn status(state: &StateArgs, json: bool, watched: bool) -> Result<u8> {
    let (path, desired) = load(state)?;
    if watched {
        return watch::watch(&desired, &path, json).await;
    }
    let text = client::get(desired.api_listen, "/v1/status")
        .await
        .map_err(|error| {
            hinted(
                format!("{error:#}"),
                "is `paceline run` running with this state file? `paceline plan` needs no daemon",
            )
        })?;
    let status: Status = serde_json::from_str(&text)?;
    if json {
        writeln!(
            anstream::stdout().lock(),
            "{}",
            serde_json::to_string_pretty(&status)?
        )?;
    } else {
        anstream::stdout()
            .lock()
            .write_all(render::status(&status, &path).as_bytes())?;
    }
    Ok(code(status.plan.state))
}

pub(super) fn history(state: &StateArgs, number: usize, json: bool) -> Result<u8> {
    let (_, desired) = load(state)?;
    let path = history::path(&desired.home);
    let events = history::read(&desired.home, number).with_context(|| format!("cannot read {path}"))?;
    let mut out = anstream::stdout().lock();
    for event in events {
        if json {
            writeln!(out, "{event}")?;
        } else {
            writeln!(out, "{}", history::shown(&event))?;
        }
    }
    Ok(exit::OK)
}

pub(super) fn schema() -> Result<u8> {
    write!(anstream::stdout().lock(), "{}", desired::schema())?;
    Ok(exit::OK)
}
