//! Keeps what only this copy has, before a rewind changes it: nothing, if no transaction was committed here after the
//! histories parted; the whole copy, if there is room for it; otherwise the WAL since then. With it lies a report for
//! people (`report.json`), and for `paceline set-aside`.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::copying;
use super::marker::{self, Phase};
use super::source::Source;
use crate::desired::Desired;
use crate::exec::Context;
use crate::exec::clone::place::free_name;
use crate::exec::clone::say;
use crate::hint::hinted;
use crate::lineage::{Epoch, Lineage, Lsn};
use crate::observed::{ControlData, DataState};
use crate::plan::{Restore, RewindSource};
use crate::probe::{FromInside, Prober, sidecar_path};
use crate::supervise::tool;
use crate::sys::clock;
use crate::sys::files::{self, ensure_directory, write_durably};
use crate::sys::users::{Identity, in_guise_of};

/// The suffix of an unfinished copy; what has this name may be removed.
const STAGING: &str = "paceline-keeping";
/// Room beside what is counted, in bytes.
const AIR: u64 = 64 << 20;
/// Size of a page of WAL, and of the longest header of one (PostgreSQL's xlog_internal.h), in bytes. No record is as short
/// as what the shorter header leaves of that.
const WAL_PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 40;
/// How long the look through the WAL may take.
const LOOK: Duration = Duration::from_secs(300);

/// What was kept of a copy, and why; the file `report.json` in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When, RFC 3339.
    pub when: String,
    /// Why, for people.
    pub why: String,
    /// What it is.
    pub kind: Kind,
    /// Where the two histories part.
    pub fork: Option<Lsn>,
    /// How many transactions were committed here after that; `None`: it could not be told.
    pub transactions: Option<usize>,
    /// The history of the kept copy; `None`: it has none of its own.
    pub lineage: Option<Lineage>,
    /// The history that took its place.
    pub replaced_by: Vec<Epoch>,
}

/// What a report lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The whole copy: a server can be started on it.
    Full,
    /// Only the WAL since the histories parted.
    WalOnly,
    /// What an interrupted rewind left: a mixture of two histories, on which no server must be started.
    HalfRewound,
}

/// The report's name.
pub const REPORT: &str = "report.json";

/// What is to be rewound, and onto what.
pub(super) struct Parting<'a> {
    pub(super) control: &'a ControlData,
    pub(super) ours: &'a Lineage,
    pub(super) source: &'a RewindSource,
    pub(super) there: &'a Source,
    /// Where the two histories part.
    pub(super) fork: Option<Lsn>,
}

/// What has to fit, in bytes.
struct Room {
    /// What is free.
    free: u64,
    /// What the rewind takes: the other laptop's WAL, and as much as its database is larger than ours.
    rewind: u64,
    /// What a whole new copy takes, in case that the rewind fails.
    copy: u64,
}

fn measure(desired: &Desired, there: &Source) -> Result<Room> {
    let data = &desired.postgres.data_directory;
    let free = files::free_space(data).with_context(|| format!("cannot tell the free space of {data}"))?;
    let wal: u64 = there.wal.iter().map(|segment| segment.size).sum();
    let theirs = there.confirmed.bytes;
    Ok(Room {
        free,
        rewind: wal + theirs.saturating_sub(copying::size(&data.join("base"))) + AIR,
        copy: theirs + theirs / 10 + wal + AIR,
    })
}

/// Refuses before anything is touched if the rewind cannot fit.
pub(super) fn room(desired: &Desired, source: &RewindSource, there: &Source) -> Result<()> {
    let room = measure(desired, there)?;
    if room.free >= room.rewind {
        return Ok(());
    }
    Err(no_room(
        desired,
        room.free,
        &format!(
            "a rewind to {} takes {} MB",
            source.peer.host,
            room.rewind.div_ceil(1 << 20)
        ),
    ))
}

fn no_room(desired: &Desired, free: u64, what: &str) -> anyhow::Error {
    let data = &desired.postgres.data_directory;
    hinted(
        format!("there are only {} MB free at {data}; {what}", free >> 20),
        format!(
            "free some space there (old copies are called {}); nothing is changed before that",
            desired.beside_data("set-aside-*")
        ),
    )
}

/// Keeps it; says where. `None`: there is nothing to keep.
pub(super) async fn divergent(
    context: &Context<'_>,
    user: &Identity,
    parting: &Parting<'_>,
) -> Result<Option<Utf8PathBuf>> {
    let desired = context.desired;
    let data = &desired.postgres.data_directory;
    let staging = desired.beside_data(STAGING);
    remove_unfinished(desired)?;
    let transactions = committed_since(desired, user, parting).await;
    if transactions == Some(0) {
        tracing::info!(
            "no transaction was committed here after the other laptop took over; nothing has to be kept"
        );
        return Ok(None);
    }
    if let Some(kept) = kept_before(data, parting.ours) {
        tracing::info!(kept = %kept, "what only this copy has was kept before");
        return Ok(Some(kept));
    }
    let whole = copying::size(data);
    let room = measure(desired, parting.there)?;
    ensure_directory(&staging, 0o700, Some(user.owner()))?;
    let shares = in_guise_of(user, || copying::shares_blocks(data, &staging));
    // With blocks shared, a copy takes no more than the rewind changes. Otherwise there has to be room for all of it, and
    // then still for the rewind, or for a new copy if that fails.
    let kind = if shares || room.free >= whole + room.rewind.max(room.copy) {
        Kind::Full
    } else {
        Kind::WalOnly
    };
    tracing::debug!(
        free = room.free,
        whole,
        rewind = room.rewind,
        copy = room.copy,
        shares,
        "room, in bytes"
    );
    let report = Report {
        when: clock::timestamp(),
        why: format!(
            "{} took over, and the copy here was brought onto its history",
            parting.source.peer.host
        ),
        kind,
        fork: parting.fork,
        transactions,
        lineage: Some(parting.ours.clone()),
        replaced_by: parting.there.confirmed.epochs.clone(),
    };
    let made = match kind {
        Kind::Full => {
            say(
                context,
                format!("keeping what only this copy has ({} MB)", whole >> 20),
            );
            copy_whole(data, &staging, user).await
        }
        Kind::WalOnly | Kind::HalfRewound => {
            say(context, "keeping the WAL that only this copy has".to_owned());
            copy_wal(desired, &staging, user, parting, &room)
        }
    };
    let done = made.and_then(|()| finish(data, &staging, &report));
    if done.is_err() {
        drop(remove_unfinished(desired));
    }
    let kept = done.with_context(|| format!("cannot keep what only {data} has; it was not changed"))?;
    tracing::warn!(
        kept = %kept, whole = (kind == Kind::Full), transactions = ?transactions,
        "this copy holds transactions that the other laptop's history does not have; they are kept"
    );
    Ok(Some(kept))
}

async fn copy_whole(data: &Utf8Path, staging: &Utf8Path, user: &Identity) -> Result<()> {
    let (from, to, user) = (data.to_owned(), staging.to_owned(), user.clone());
    // It may take minutes; the gate must close meanwhile if it has to.
    tokio::task::spawn_blocking(move || in_guise_of(&user, || copying::tree(&from, &to)))
        .await
        .context("the copying ended")?
}

fn copy_wal(
    desired: &Desired,
    staging: &Utf8Path,
    user: &Identity,
    parting: &Parting<'_>,
    room: &Room,
) -> Result<()> {
    let data = &desired.postgres.data_directory;
    let fork = parting.fork.unwrap_or_default();
    let wanted = in_guise_of(user, || copying::wal_since(data, fork))?;
    let bytes: u64 = wanted
        .iter()
        .map(|path| fs::metadata(path).map_or(0, |meta| meta.len()))
        .sum();
    if room.free < bytes + room.rewind {
        let what = format!(
            "the WAL that only this copy has takes {} MB, and the rewind {} MB",
            bytes.div_ceil(1 << 20),
            room.rewind.div_ceil(1 << 20)
        );
        return Err(no_room(desired, room.free, &what));
    }
    in_guise_of(user, || copying::files(&wanted, staging))
}

/// Gives the finished copy its name, durably, with the sidecar that tells which history it holds.
fn finish(data: &Utf8Path, staging: &Utf8Path, report: &Report) -> Result<Utf8PathBuf> {
    write_durably(
        &staging.join(REPORT),
        &serde_json::to_vec_pretty(report)?,
        0o644,
        None,
    )?;
    files::sync_file_system(staging).with_context(|| format!("cannot make {staging} durable"))?;
    let kept = free_name(data)?;
    let sidecar = sidecar_path(data);
    if let Some(text) = files::read_if_there(&sidecar).with_context(|| format!("cannot read {sidecar}"))? {
        write_durably(&sidecar_path(&kept), text.as_bytes(), 0o644, None)?;
    }
    fs::rename(staging, &kept).with_context(|| format!("cannot rename {staging} to {kept}"))?;
    files::sync_parent(&kept).with_context(|| format!("cannot make the name {kept} durable"))?;
    Ok(kept)
}

/// What an earlier attempt kept of this very copy, which was not written to since.
fn kept_before(data: &Utf8Path, ours: &Lineage) -> Option<Utf8PathBuf> {
    ours.position?;
    let begins = format!("{}.set-aside-", data.file_name()?);
    let entries = data.parent()?.read_dir_utf8().ok()?;
    entries
        .flatten()
        .filter(|entry| entry.file_name().starts_with(&begins))
        .map(|entry| entry.path().to_owned())
        .find(|kept| {
            let text = fs::read_to_string(kept.join(REPORT)).ok();
            let report: Option<Report> = text.and_then(|text| serde_json::from_str(&text).ok());
            report.is_some_and(|report| {
                report.kind != Kind::HalfRewound && report.lineage.as_ref() == Some(ours)
            })
        })
}

/// How many transactions were committed here after the histories parted; `None`: it cannot be told.
async fn committed_since(desired: &Desired, user: &Identity, parting: &Parting<'_>) -> Option<usize> {
    let there = &parting.there.confirmed.epochs;
    // An epoch of our own that the other laptop does not know was begun to be written to.
    let own = |epoch: &Epoch| there.iter().all(|theirs| theirs.uuid != epoch.uuid);
    if parting.ours.held().any(own) {
        return None;
    }
    // The copy is shut down, so that everything before the record of that is whole.
    let (fork, end) = (parting.fork?, parting.control.checkpoint);
    let header = if fork.0.is_multiple_of(WAL_PAGE) {
        PAGE_HEADER
    } else {
        0
    };
    if end.0 <= fork.0 + header {
        return Some(0);
    }
    let program = parting.source.programs.bin_directory.join("pg_waldump");
    let wal = desired.postgres.data_directory.join("pg_wal");
    let timeline = parting.ours.timeline.to_string();
    let (start, end) = (fork.to_string(), end.to_string());
    let arguments = [
        "--path",
        wal.as_str(),
        "--timeline",
        &timeline,
        "--start",
        &start,
        "--end",
        &end,
        "--rmgr=Transaction",
    ];
    // An error means that not all of it could be read.
    let said = tool::run(&program, &arguments, user, LOOK).await.ok()?;
    Some(said.lines().filter(|line| line.contains("COMMIT")).count())
}

/// Removes what an earlier attempt left unfinished.
pub(in crate::exec) fn remove_unfinished(desired: &Desired) -> Result<()> {
    let staging = desired.beside_data(STAGING);
    match fs::remove_dir_all(&staging) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove the unfinished {staging}"))
        }
        _ => Ok(()),
    }
}

/// What takes the place of a copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) enum By<'a> {
    /// A copy of this laptop's database.
    Copy(&'a str),
    /// A backup.
    Backup(&'a Restore),
}

/// What is about to be replaced by a whole new copy.
pub(in crate::exec) struct Replaced {
    report: Report,
}

impl Replaced {
    /// Looks at it. `None`: it holds nothing that anybody might miss.
    pub(in crate::exec) async fn look(
        desired: &Desired,
        by: By<'_>,
        replaces: DataState,
        replaced_by: &[Epoch],
    ) -> Result<Option<Self>> {
        let marker = marker::read(desired)?;
        let (took_over, anew) = match by {
            By::Copy(peer) => (
                format!("{peer} took over, and its database was copied in place of this copy"),
                format!("it followed {peer}, and could not go on; it was copied anew"),
            ),
            By::Backup(restore) => {
                let words = format!("a backup took its place: {restore}");
                (words.clone(), words)
            }
        };
        let (kind, why) = match (replaces, marker) {
            (DataState::Tainted, Some(marker)) if marker.rewind == Phase::Changing => {
                let kept = marker.kept.map_or_else(
                    || "this laptop had nothing that the other one lacked".to_owned(),
                    |kept| format!("what only this laptop had is in {kept}"),
                );
                let why = format!("a rewind was interrupted in it: never start a server on it; {kept}");
                (Kind::HalfRewound, why)
            }
            (DataState::Tainted, Some(_)) => (Kind::Full, format!("{took_over}; it could not be rewound")),
            (DataState::Primary, _) => (Kind::Full, took_over),
            (DataState::Replica, _) => (Kind::Full, anew),
            (DataState::Tainted, None)
            | (
                DataState::Empty
                | DataState::NotOurs
                | DataState::Recovering
                | DataState::Unclear
                | DataState::Unknown,
                _,
            ) => return Ok(None),
        };
        let observed = Prober::default().look(desired, FromInside::default(), true).await;
        let lineage = observed.lineage().filter(|_| kind == Kind::Full);
        let report = Report {
            when: clock::timestamp(),
            why,
            kind,
            fork: lineage
                .as_ref()
                .and_then(|lineage| super::fork(lineage, replaced_by)),
            transactions: None,
            lineage,
            replaced_by: replaced_by.to_vec(),
        };
        let this = Self { report };
        if kind == Kind::HalfRewound {
            // Nobody ever works with it again, so it may be said at once.
            this.report_in(&desired.postgres.data_directory)?;
        }
        Ok(Some(this))
    }

    /// Says it in the directory that was set aside.
    pub(in crate::exec) fn report_in(&self, directory: &Utf8Path) -> Result<()> {
        write_durably(
            &directory.join(REPORT),
            &serde_json::to_vec_pretty(&self.report)?,
            0o644,
            None,
        )
    }
}
