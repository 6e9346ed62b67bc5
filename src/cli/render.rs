//! Plans and status for people, and the exit code that goes with them.

use std::io::Write as _;

use anyhow::Result;

use super::exit;
use crate::status::{PeerSection, PlanSection, PlanState, Status};

/// The exit code for a plan that stands like this.
pub(super) fn code(state: PlanState) -> u8 {
    match state {
        PlanState::Converged => exit::OK,
        PlanState::Converging | PlanState::Waiting => exit::PENDING,
        PlanState::Blocked => exit::BLOCKED,
        PlanState::Failed => exit::INTERNAL,
    }
}

/// A plan for people.
pub(super) fn print_plan(section: &PlanSection) -> Result<()> {
    let mut out = anstream::stdout().lock();
    for (number, action) in section.actions.iter().enumerate() {
        writeln!(out, "{}. {action}", number + 1)?;
    }
    if let Some(progress) = &section.progress {
        writeln!(out, "now: {progress}")?;
    }
    let word = serde_json::to_value(section.state)?;
    let word = word.as_str().unwrap_or_default();
    match &section.reason {
        Some(reason) => writeln!(out, "{word}: {reason}")?,
        None => writeln!(out, "{word}")?,
    }
    if let Some(hint) = &section.hint {
        writeln!(out, "hint: {hint}")?;
    }
    Ok(())
}

/// A status document for people.
pub(super) fn print_status(status: &Status) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let text = |value: &serde_json::Value, key: &str| match &value[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let paused = if status.desired.paused { " (paused)" } else { "" };
    writeln!(out, "node     {}", status.node)?;
    writeln!(out, "role     {}{paused}", status.desired.role)?;
    let server = &status.server;
    writeln!(
        out,
        "server   {}{} (PostgreSQL {}, port {}, process {})",
        server.state,
        if server.streaming { ", streaming" } else { "" },
        or_dash(server.version.as_ref()),
        or_dash(server.port),
        or_dash(server.pid)
    )?;
    if let Some(reason) = &server.reason {
        writeln!(out, "         {reason}")?;
    }
    let lag = server
        .lag_bytes
        .map(|lag| format!(", {lag} bytes behind the other laptop"));
    writeln!(
        out,
        "data     {}, timeline {}, position {}{}",
        status.data.state,
        or_dash(status.data.timeline),
        or_dash(server.lsn),
        lag.unwrap_or_default()
    )?;
    if status.peer.declared {
        writeln!(out, "peer     {}", peer(&status.peer))?;
    }
    writeln!(out, "gate     {}: {}", status.gate.state, status.gate.reason)?;
    if let Some(app) = &status.app {
        writeln!(
            out,
            "app      {} (port {}, process {})",
            text(app, "state"),
            text(app, "port"),
            text(app, "pid")
        )?;
        if let Some(end) = app["last_end"].as_str() {
            writeln!(out, "         last: {end}")?;
        }
    }
    for notice in &status.notices {
        writeln!(out, "note     {notice}")?;
    }
    for key in &status.desired.unsupported {
        writeln!(out, "note     not supported yet: {key}")?;
    }
    if let Some(warning) = &status.desired.warning {
        writeln!(out, "warning  {warning}")?;
    }
    if let Some(error) = &status.desired.error {
        writeln!(
            out,
            "\nthe state file is not taken; the last valid one stays in force:\n{}\n",
            error.trim_end()
        )?;
    }
    drop(out);
    print_plan(&status.plan)
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// The other laptop in one line.
fn peer(peer: &PeerSection) -> String {
    let name = peer.node.clone().unwrap_or_else(|| "the other laptop".to_owned());
    if !peer.reachable {
        let age = peer.age_ms.map(|ms| {
            format!(
                " for {}",
                humantime::format_duration(std::time::Duration::from_secs(ms / 1000))
            )
        });
        return format!(
            "{name} does not answer{}: {}",
            age.unwrap_or_default(),
            peer.reason.as_deref().unwrap_or("it was not asked yet")
        );
    }
    let role = peer.role.map_or("its daemon does not answer".to_owned(), |role| {
        format!("declared {role}")
    });
    let data = peer
        .data
        .map(|data| format!(", its copy is {data}"))
        .unwrap_or_default();
    let flag = peer
        .flag
        .map(|flag| format!(", {}", flag.word()))
        .unwrap_or_default();
    format!(
        "{name}: {role}, server {}{data}{flag}",
        peer.server.as_deref().unwrap_or("unknown")
    )
}
