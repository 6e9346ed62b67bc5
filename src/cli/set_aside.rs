//! `set-aside`: the copies that were replaced or kept, beside the data directory. It only looks.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::{StateArgs, exit};
use crate::desired::{self, Surroundings, beside};
use crate::exec::keep::{Kind, REPORT, Report};
use crate::lineage::Sidecar;
use crate::probe;

/// A copy that was set aside.
#[derive(Debug, Serialize)]
struct SetAside {
    path: Utf8PathBuf,
    megabytes: u64,
    /// Whether a server could be started on it.
    full: bool,
    system_identifier: Option<String>,
    /// The last epoch that it is known to hold.
    last_epoch: Option<uuid::Uuid>,
    report: Option<Report>,
    /// Why more cannot be said.
    trouble: Option<String>,
}

pub(super) fn list(state: &StateArgs, json: bool) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let desired = desired::load(&Surroundings::detect(&path, state.node.clone())?)?;
    let data = &desired.postgres.data_directory;
    let found = find(data)?;
    let mut out = anstream::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
        return Ok(exit::OK);
    }
    if found.is_empty() {
        writeln!(out, "nothing is set aside beside {data}")?;
    }
    for copy in found {
        let what = if copy.full { "a whole copy" } else { "WAL only" };
        writeln!(out, "{}  {} MB, {what}", copy.path, copy.megabytes)?;
        if let Some(report) = &copy.report {
            writeln!(out, "    {}: {}", report.when, report.why)?;
            if let Some(count) = report.transactions {
                writeln!(out, "    transactions that only this copy has: {count}")?;
            }
        }
        if let Some(epoch) = copy.last_epoch {
            writeln!(out, "    last epoch {epoch}")?;
        }
        if let Some(trouble) = &copy.trouble {
            writeln!(out, "    {trouble}")?;
        }
    }
    Ok(exit::OK)
}

fn find(data: &Utf8Path) -> Result<Vec<SetAside>> {
    let parent = data
        .parent()
        .with_context(|| format!("{data} has no parent directory"))?;
    let prefix = beside(data, "set-aside-");
    let entries = match parent.read_dir_utf8() {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot list {parent}")),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {parent}"))?;
        if entry.path().as_str().starts_with(prefix.as_str()) && entry.path().is_dir() {
            found.push(look(entry.path()));
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn look(path: &Utf8Path) -> SetAside {
    let sidecar = probe::read_sidecar(path);
    let known: Option<&Sidecar> = sidecar.as_ref().ok().and_then(Option::as_ref);
    let report = std::fs::read_to_string(path.join(REPORT))
        .ok()
        .and_then(|text| serde_json::from_str::<Report>(&text).ok());
    SetAside {
        path: path.to_owned(),
        megabytes: size(path) >> 20,
        full: report.as_ref().map_or_else(
            || path.join("PG_VERSION").exists(),
            |report| report.kind == Kind::Full,
        ),
        system_identifier: known.map(|sidecar| sidecar.system_identifier.clone()),
        last_epoch: known
            .and_then(|sidecar| sidecar.epochs.last())
            .map(|epoch| epoch.uuid),
        report,
        trouble: sidecar.as_ref().err().map(|error| format!("{error:#}")),
    }
}

/// What a directory takes; what cannot be read counts as nothing.
fn size(directory: &Utf8Path) -> u64 {
    let Ok(entries) = directory.read_dir_utf8() else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(entry.path()),
            _ => entry.metadata().map_or(0, |meta| meta.len()),
        })
        .sum()
}
