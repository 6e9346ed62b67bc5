//! Plans and status for people, and the exit code that goes with them.

use std::io::Write as _;

use anyhow::Result;

use super::exit;
use crate::status::{PlanSection, PlanState, Status};

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
    writeln!(
        out,
        "server   {} (PostgreSQL {}, port {}, process {})",
        text(&status.server, "state"),
        text(&status.server, "version"),
        text(&status.server, "port"),
        text(&status.server, "pid")
    )?;
    writeln!(
        out,
        "data     {}, timeline {}, position {}",
        text(&status.data, "state"),
        text(&status.data, "timeline"),
        text(&status.server, "lsn")
    )?;
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
