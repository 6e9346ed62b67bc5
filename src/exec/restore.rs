//! A backup in place of what is here: unpacked beside the data directory, recovered there up to the declared moment and to
//! an epoch of its own, and only then exchanged with what is here, which is set aside.
//!
//! All of that is done by a server that nobody but us can reach, so that no application ever sees half a restore; and a
//! crash at any point leaves either the old data or the restored in its place, each whole. Nothing is resumed: what was
//! unfinished is removed, and the restore begins anew.

mod recover;
mod unpack;

use std::fs;
use std::io;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use uuid::Uuid;

use self::recover::Recovery;
use super::clone::place::{Place, RESTORE_LABEL};
use super::clone::{preconditions, say};
use super::keep::{By, Replaced};
use super::{Context, configure};
use crate::desired::Desired;
use crate::hint::hinted;
use crate::history;
use crate::lineage::{Origin, Restored, Sidecar};
use crate::observed::{ClusterState, ControlData, Installation};
use crate::plan::Restore;
use crate::plan::configuration::names_to_purge;
use crate::probe;
use crate::sys::clock;
use crate::sys::files::{self, sync_file_system, write_durably};
use crate::sys::users::Identity;

/// Room beside what the backup takes, in bytes: for the WAL of the recovery.
const AIR: u64 = 256 << 20;
/// What a compressed database takes, unpacked, in the experience of crews: registrations are text.
const UNPACKED: u64 = 5;

/// Settings of the server that the backup was taken from, and of its recovery, that must not get into ours.
const NOT_OURS: [&str; 4] = ["recovery_", "archive_", "primary_", "restore_command"];

pub(super) async fn restore(context: &Context<'_>, wanted: &Restore) -> Result<()> {
    let desired = context.desired;
    let user = context.server_user()?;
    let place = Place::of(desired);
    preconditions(desired, wanted.replaces, &user, false).await?;
    super::can_reach(&desired.postgres.data_directory, &user)?;
    place.remove_staging()?;
    unpack::clear(desired)?;
    room(desired, wanted)?;

    let done = make(context, wanted, &place, &user).await;
    drop(unpack::clear(desired));
    drop(recover::clear(desired));
    if done.is_err() {
        // Whatever of it is finished has another name by now.
        drop(place.remove_staging());
    }
    if let Some(set_aside) = done? {
        tracing::info!(set_aside = %set_aside, "the backup is restored; what was there before is kept");
    }
    Ok(())
}

async fn make(
    context: &Context<'_>,
    wanted: &Restore,
    place: &Place<'_>,
    user: &Identity,
) -> Result<Option<camino::Utf8PathBuf>> {
    let desired = context.desired;
    let staging = &place.staging;
    unpack::fetch(context, wanted, staging, user).await?;
    let programs = prepare(desired, wanted, staging, user)?;
    let control = probe::read_control(staging, &programs.bin_directory, user).await?;
    doubts(staging, &control);
    let recovery = Recovery {
        context,
        wanted,
        staging,
        user,
        programs: &programs,
        control: &control,
    };
    let recovered = recovery.run().await?;

    let control = probe::read_control(staging, &programs.bin_directory, user).await?;
    if control.state != ClusterState::ShutDown || control.timeline != recovered.timeline {
        bail!(
            "the restored copy is {:?} on timeline {} after its recovery, and was to be shut down on {}; nothing was replaced",
            control.state,
            control.timeline,
            recovered.timeline
        );
    }
    let label = Uuid::new_v4().to_string();
    write_durably(
        &staging.join(RESTORE_LABEL),
        label.as_bytes(),
        0o600,
        Some(user.owner()),
    )?;
    sync_file_system(staging).with_context(|| format!("cannot write {staging} to the disk"))?;
    let sidecar = Sidecar {
        format: Sidecar::FORMAT,
        system_identifier: control.system_identifier,
        origin: Origin::Created,
        epochs: recovered.epochs,
        intended: None,
        restored: Some(Restored {
            fingerprint: wanted.fingerprint.clone(),
            time: clock::timestamp(),
        }),
    };
    // It took a while.
    preconditions(desired, wanted.replaces, user, false).await?;
    say(context, "putting the restored copy in its place".to_owned());
    let replaced = Replaced::look(desired, By::Backup(wanted), wanted.replaces, &sidecar.epochs).await?;
    let set_aside = place.take(&sidecar)?;
    if let (Some(replaced), Some(set_aside)) = (replaced, &set_aside)
        && let Err(error) = replaced.report_in(set_aside)
    {
        // The restored copy is what matters.
        tracing::warn!("what was set aside has no report: {error:#}");
    }
    super::remember(desired, &sidecar)?;
    super::rewind::forget_the_handover(&desired.home)?;
    place.trust()?;
    history::record(
        &desired.home,
        "restored",
        &serde_json::json!({
            "what": wanted.to_string(),
            "until": recovered.until,
            "system_identifier": sidecar.system_identifier,
            "epoch": sidecar.epochs.last().map(|epoch| epoch.uuid),
            "set_aside": set_aside,
        }),
    );
    Ok(set_aside)
}

/// Refuses before anything is touched if it cannot fit.
fn room(desired: &Desired, wanted: &Restore) -> Result<()> {
    let data_directory = &desired.postgres.data_directory;
    let parent = data_directory
        .parent()
        .with_context(|| format!("{data_directory} has no parent directory"))?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {parent}"))?;
    let source = unpack::source(desired, wanted);
    let size = unpack::size(&source)?;
    let needed =
        size * if unpack::compressed(&source, wanted.kind)? {
            UNPACKED
        } else {
            1
        } + AIR;
    let free =
        files::free_space(parent).with_context(|| format!("cannot tell the free space of {parent}"))?;
    if free >= needed {
        return Ok(());
    }
    Err(hinted(
        format!(
            "there are only {} MB free at {parent}; to restore {source} takes about {} MB beside what is there",
            free >> 20,
            needed.div_ceil(1 << 20)
        ),
        format!(
            "free some space there (old copies are called {}), or set `postgres: data_directory:` to a larger disk",
            desired.beside_data("set-aside-*")
        ),
    ))
}

/// Makes sure that it is a data directory that a server of ours can be started on, and rids it of what belonged to the
/// server that it was taken from.
fn prepare(desired: &Desired, wanted: &Restore, staging: &Utf8Path, user: &Identity) -> Result<Installation> {
    let version = staging.join("PG_VERSION");
    let text = fs::read_to_string(&version).with_context(|| format!("cannot read {version}"))?;
    let major: u32 = text
        .trim()
        .parse()
        .with_context(|| format!("{version} says {:?}", text.trim()))?;
    let programs = wanted
        .installations
        .iter()
        .find(|installation| installation.major == major)
        .ok_or_else(|| {
            hinted(
                format!("the backup is of PostgreSQL {major}, whose programs are not installed here"),
                format!("install them (Debian: postgresql-{major})"),
            )
        })?
        .clone();
    let spaces = staging.join("pg_tblspc");
    if spaces
        .read_dir_utf8()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(hinted(
            "the backup has tablespaces, which would share files with another server",
            "restore it by hand with PostgreSQL's own tools, and let Paceline adopt the result",
        ));
    }
    for name in [
        "postmaster.pid",
        "postmaster.opts",
        "standby.signal",
        "recovery.signal",
        RESTORE_LABEL,
    ] {
        match fs::remove_file(staging.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {staging}/{name}"));
            }
            _ => {}
        }
    }
    let path = staging.join("postgresql.auto.conf");
    let text = files::read_if_there(&path)
        .with_context(|| format!("cannot read {path}"))?
        .unwrap_or_default();
    let found: Vec<String> = text.lines().filter_map(probe::setting_name).collect();
    let mut names = names_to_purge(desired, &found);
    names.extend(
        found
            .iter()
            .filter(|name| NOT_OURS.iter().any(|not_ours| name.starts_with(not_ours)))
            .cloned(),
    );
    let kept = configure::without(&text, &names);
    if kept != text {
        write_durably(&path, kept.as_bytes(), 0o600, Some(user.owner()))?;
    }
    Ok(programs)
}

/// Says what can only be hoped for.
fn doubts(staging: &Utf8Path, control: &ControlData) {
    let clean = matches!(
        control.state,
        ClusterState::ShutDown | ClusterState::ShutDownInRecovery
    );
    if !clean && !staging.join("backup_label").exists() {
        tracing::warn!(
            "the backup is of a server that had not shut down, and has no backup_label: if that server was running while \
             it was copied, its pages may not fit together; look the restored database over (pg_amcheck)"
        );
    }
}
