//! initdb, into a staging directory that becomes the data directory only when it is complete and noted.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use super::Context;
use crate::hint::hinted;
use crate::lineage::Origin;
use crate::observed::{ClusterState, Installation, NEW_DATABASE_FILE};
use crate::plan::configuration::SUPERUSER;
use crate::sys::files::{self, ensure_directory};
use crate::{probe, supervise::tool};

/// What a new cluster takes on disk, with some air for its first WAL.
const SPACE: u64 = 96 << 20;

/// Size of a WAL segment in MB. Fixed at initdb for good. Most of a promotion's time is writing and syncing the new
/// timeline's first segment, so smaller ones make a failover faster (16 MB: 33 ms; 1 MB: 15 ms); very small ones make
/// many files for an archive. 4 MB keeps most of the gain.
const WAL_SEGMENT_MB: &str = "4";

/// The staging directory's suffix. What lies under this name was never started.
const STAGING: &str = "paceline-initdb";

pub(super) async fn cluster(context: &Context<'_>, programs: &Installation) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let staging = context.desired.beside_data(STAGING);
    let user = context.server_user()?;
    if !empty(data_directory)? {
        bail!("{data_directory} is not empty any more; nothing was done");
    }
    super::can_reach(data_directory, &user)?;
    let parent = data_directory
        .parent()
        .with_context(|| format!("{data_directory} has no parent directory"))?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {parent}"))?;
    let free =
        files::free_space(parent).with_context(|| format!("cannot tell the free space of {parent}"))?;
    if free < SPACE {
        return Err(hinted(
            format!(
                "there are only {} MB free at {parent}; a new database takes {} MB",
                free >> 20,
                SPACE >> 20
            ),
            "free some space, or set `postgres: data_directory:` to a larger disk",
        ));
    }
    remove_staging(&staging)?;
    ensure_directory(&staging, 0o700, Some(user.owner()))?;

    let made = make(programs, &staging, &user).await;
    let control = match made {
        Ok(control) => control,
        Err(error) => {
            drop(remove_staging(&staging));
            return Err(error);
        }
    };
    let sidecar = super::epoch::first_sidecar(&control, Origin::Created, &context.desired.node);
    // Beside nothing yet, the sidecar is void (it names a database that is not there); a crash here leaves no harm.
    super::epoch::write_sidecar(data_directory, &sidecar)?;
    // Renaming onto a missing or empty directory; one that got content meanwhile makes this fail.
    if let Err(error) = fs::rename(&staging, data_directory) {
        drop(remove_staging(&staging));
        return Err(error).with_context(|| format!("cannot rename {staging} to {data_directory}"));
    }
    files::sync_parent(data_directory)
        .with_context(|| format!("cannot make the name {data_directory} durable"))?;
    super::remember(context.desired, &sidecar)?;
    // It was for this one time.
    let permission = context.desired.home.join(NEW_DATABASE_FILE);
    match fs::remove_file(&permission) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {permission}"))
        }
        _ => Ok(()),
    }
}

async fn make(
    programs: &Installation,
    staging: &Utf8Path,
    user: &crate::sys::users::Identity,
) -> Result<crate::observed::ControlData> {
    let arguments = [
        "--pgdata",
        staging.as_str(),
        "--username",
        SUPERUSER,
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
        &format!("--wal-segsize={WAL_SEGMENT_MB}"),
    ];
    tool::run(
        &programs.bin_directory.join("initdb"),
        &arguments,
        user,
        Duration::from_secs(300),
    )
    .await?;
    let control = probe::read_control(staging, &programs.bin_directory, user).await?;
    if control.state != ClusterState::ShutDown {
        bail!(
            "initdb left {staging} in the state {:?} instead of shut down",
            control.state
        );
    }
    Ok(control)
}

fn empty(path: &Utf8Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e).with_context(|| format!("cannot look into {path}")),
    }
}

/// Removes what an interrupted initdb left. It never was a database: it gets its real name only when complete.
fn remove_staging(staging: &Utf8Path) -> Result<()> {
    match fs::remove_dir_all(staging) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove the unfinished {staging}"))
        }
        _ => Ok(()),
    }
}
