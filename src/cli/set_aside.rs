//! `set-aside`: the copies that were replaced or kept, beside the data directory. It only looks, and needs no daemon.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::commands::load;
use super::render::bytes;
use super::{StateArgs, exit};
use crate::desired::{Desired, beside};
use crate::exec::keep::{Kind, REPORT, Report};
use crate::lineage::Epoch;
use crate::observed::{ClusterState, Installation};
use crate::probe;
use crate::sys::files::read_if_there;
use crate::sys::users::Identity;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them; what happens without a word, too
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    state: StateArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A copy that was set aside, as far as it can be seen.
#[derive(Debug, Serialize)]
struct SetAside {
    name: String,
    path: Utf8PathBuf,
    /// When, RFC 3339.
    when: Option<String>,
    /// Why, for people.
    why: Option<String>,
    /// What it takes; a part of which could not be looked at is not in it.
    bytes: u64,
    /// `full`: a server can be started on it; `wal_only`; `half_rewound`; `null`: it cannot be told.
    kind: Option<Kind>,
    system_identifier: Option<String>,
    timeline: Option<u32>,
    /// The last epoch that it holds something of.
    last_epoch: Option<Epoch>,
    /// How its server ended.
    ended: Option<&'static str>,
    /// How many transactions only this copy has.
    transactions: Option<usize>,
    /// What could not be seen, and why.
    troubles: Vec<String>,
}

pub(super) async fn list(args: &ListArgs) -> Result<u8> {
    let (_, desired) = load(&args.state)?;
    let found = find(&desired).await?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&found)?)
    } else if found.is_empty() {
        format!(
            "nothing is set aside beside {}\n",
            desired.postgres.data_directory
        )
    } else {
        found.iter().map(SetAside::shown).collect()
    };
    anstream::stdout().lock().write_all(text.as_bytes())?;
    Ok(exit::OK)
}

/// All of them, oldest first.
async fn find(desired: &Desired) -> Result<Vec<SetAside>> {
    let data = &desired.postgres.data_directory;
    let parent = data
        .parent()
        .with_context(|| format!("{data} has no parent directory"))?;
    let prefix = beside(data, "set-aside-");
    let prefix = prefix.file_name().unwrap_or_default();
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot list {parent}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {parent}"))?;
        // Our own names are UTF-8, and the sidecars beside the copies are files.
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with(prefix)
            && !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (installations, identity) = probe::installations(desired).await;
    let mut found = Vec::new();
    for name in names {
        let when = name.strip_prefix(prefix).and_then(time);
        found.push(look(parent.join(&name), name, when, &installations, &identity).await);
    }
    Ok(found)
}

/// The time in a name, such as `20260606T140500Z`, with what makes it unique behind it.
fn time(stamp: &str) -> Option<String> {
    let stamp = stamp.split('-').next()?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

async fn look(
    path: Utf8PathBuf,
    name: String,
    when: Option<String>,
    installations: &[Installation],
    identity: &Identity,
) -> SetAside {
    let mut troubles = Vec::new();
    let mut size = Size::default();
    size.add(&path);
    if let Some(trouble) = size.trouble {
        troubles.push(format!("its size is not known: {trouble}"));
    }
    let sidecar = probe::read_sidecar(&path).unwrap_or_else(|error| {
        troubles.push(format!("{error:#}"));
        None
    });
    let report = report(&path).unwrap_or_else(|error| {
        troubles.push(format!("{error:#}"));
        None
    });
    let is_cluster = path.join("global/pg_control").exists();
    let mut kind = report.as_ref().map(|report| report.kind);
    if kind.is_none() && is_cluster {
        kind = Some(Kind::Full);
    }
    let control = if is_cluster {
        match control(&path, installations, identity).await {
            Ok(control) => Some(control),
            Err(error) => {
                troubles.push(format!("{error:#}"));
                None
            }
        }
    } else {
        None
    };
    let lineage = report.as_ref().and_then(|report| report.lineage.as_ref());
    let timeline = control
        .as_ref()
        .map(|control| control.timeline)
        .or(lineage.map(|lineage| lineage.timeline));
    let system_identifier = control
        .as_ref()
        .map(|control| control.system_identifier.clone())
        .or_else(|| lineage.map(|lineage| lineage.system_identifier.clone()))
        .or_else(|| sidecar.as_ref().map(|sidecar| sidecar.system_identifier.clone()));
    let epochs = lineage
        .map(|lineage| lineage.epochs.clone())
        .or_else(|| sidecar.map(|sidecar| sidecar.epochs))
        .unwrap_or_default();
    let held = |epoch: &Epoch| timeline.is_none_or(|timeline| epoch.timeline <= timeline);
    let unused = path.join("backup_label").exists();
    SetAside {
        when: report.as_ref().map(|report| report.when.clone()).or(when),
        why: report.as_ref().map(|report| report.why.clone()),
        bytes: size.bytes,
        kind,
        system_identifier,
        timeline,
        last_epoch: epochs.into_iter().rfind(held),
        ended: control.map(|control| ended(control.state, unused)),
        transactions: report.and_then(|report| report.transactions),
        troubles,
        name,
        path,
    }
}

fn report(path: &Utf8Path) -> Result<Option<Report>> {
    let path = path.join(REPORT);
    let text = read_if_there(&path).with_context(|| format!("cannot read {path}"))?;
    text.map(|text| serde_json::from_str(&text).with_context(|| format!("cannot understand {path}")))
        .transpose()
}

async fn control(
    path: &Utf8Path,
    installations: &[Installation],
    identity: &Identity,
) -> Result<crate::observed::ControlData> {
    let version = path.join("PG_VERSION");
    let major = fs::read_to_string(&version).with_context(|| format!("cannot read {version}"))?;
    let major: u32 = major
        .trim()
        .parse()
        .with_context(|| format!("{version} holds no major version"))?;
    let programs = installations
        .iter()
        .find(|installation| installation.major == major)
        .with_context(|| {
            format!("how it ended is not known: the programs of PostgreSQL {major} were not found")
        })?;
    probe::read_control(path, &programs.bin_directory, identity).await
}

/// How the server of a copy ended; `unused`: it has a `backup_label`.
const fn ended(state: ClusterState, unused: bool) -> &'static str {
    match (state, unused) {
        (_, true) => "a copy of a running server, on which none was started yet",
        (ClusterState::ShutDown, false) => "shut down cleanly",
        (ClusterState::ShutDownInRecovery, false) => "a standby's, shut down cleanly",
        (ClusterState::InArchiveRecovery, false) => "a standby's, not shut down cleanly",
        (ClusterState::InProduction, false) => "crashed while it was written to",
        (ClusterState::StartingUp, false) => "crashed while it started",
        (ClusterState::ShuttingDown, false) => "crashed while it shut down",
        (ClusterState::InCrashRecovery, false) => "crashed while it recovered from a crash",
    }
}

/// What a directory takes.
#[derive(Default)]
struct Size {
    bytes: u64,
    /// The first thing that could not be looked at.
    trouble: Option<String>,
}

impl Size {
    fn add(&mut self, directory: &Utf8Path) {
        let mut fail = |path: &Utf8Path, error: &std::io::Error| {
            self.trouble
                .get_or_insert_with(|| format!("cannot look into {path}: {error}"));
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return fail(directory, &error),
        };
        let mut below = Vec::new();
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?))) {
                Ok((name, meta)) if meta.is_dir() => below.push(name),
                Ok((_, meta)) => self.bytes += meta.len(),
                Err(error) => fail(directory, &error),
            }
        }
        for name in below {
            self.add(&directory.join(name.to_string_lossy().as_ref()));
        }
    }
}

impl SetAside {
    fn shown(&self) -> String {
        let unknown = || "unknown".to_owned();
        let kind = match self.kind {
            Some(Kind::Full) => "a whole copy",
            Some(Kind::WalOnly) => "WAL only: what this laptop wrote after the two parted",
            Some(Kind::HalfRewound) => "half rewound: no server must be started on it",
            None => "what it is cannot be told",
        };
        let size = if self.troubles.is_empty() || self.bytes > 0 {
            bytes(self.bytes)
        } else {
            unknown()
        };
        let mut out = format!("{}\n", self.path);
        let mut row = |name: &str, text: &str| {
            let _ = writeln!(out, "  {name:<10}{text}");
        };
        row("when", &self.when.clone().unwrap_or_else(unknown));
        row("what", &format!("{kind}, {size}"));
        if let Some(why) = &self.why {
            row("why", why);
        }
        if let Some(count) = self.transactions {
            let s = if count == 1 { "" } else { "s" };
            row("own", &format!("{count} transaction{s} that only this copy has"));
        }
        row(
            "database",
            &format!(
                "system identifier {}, timeline {}",
                self.system_identifier.clone().unwrap_or_else(unknown),
                self.timeline
                    .map_or_else(unknown, |timeline| timeline.to_string())
            ),
        );
        row(
            "epoch",
            &self.last_epoch.as_ref().map_or_else(unknown, |epoch| {
                format!("{}, begun by {} at {}", epoch.uuid, epoch.node, epoch.time)
            }),
        );
        if let Some(ended) = self.ended {
            row("ended", ended);
        }
        for trouble in &self.troubles {
            row("trouble", trouble);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_when() {
        for (stamp, when) in [
            ("20260606T140500Z", Some("2026-06-06T14:05:00Z")),
            ("20260606T140500Z-2", Some("2026-06-06T14:05:00Z")),
            ("20269999T140500Z", None),
            ("by-hand", None),
        ] {
            assert_eq!(time(stamp).as_deref(), when, "{stamp}");
        }
    }
}
