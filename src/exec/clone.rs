//! A copy of the other laptop's database, in place of what is here: made in a staging directory, verified, exchanged.
//! What was here is set aside.

pub(super) mod place;
pub(super) mod source;

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use self::place::Place;
use super::keep::{self, By, Replaced};
use super::{Context, configure};
use crate::desired::{Desired, PeerAddress};
use crate::hint::hinted;
use crate::lineage::{Epoch, Origin, Sidecar};
use crate::observed::{Data, DataDirectory, DataState, Fact, Postmaster};
use crate::plan::CloneSource;
use crate::plan::configuration::names_to_purge;
use crate::probe::{self, postmaster};
use crate::supervise::tool;
use crate::sys::files::{self, ensure_directory, write_durably};
use crate::sys::process;
use crate::sys::users::Identity;

/// Room beside what the databases take, in bytes: for the WAL of the time that the copy takes. A tenth more is added.
const AIR: u64 = 64 << 20;
/// How long pg_basebackup may say nothing while it copies; it says something every second.
const STALL: Duration = Duration::from_secs(120);
/// How long it may take to write the finished copy to the disk, of which it says nothing.
const SYNC: Duration = Duration::from_secs(1800);
/// How long the check of a copy may take, which reads all of it.
const CHECK: Duration = Duration::from_secs(3600);

pub(super) async fn cluster(context: &Context<'_>, source: &CloneSource) -> Result<()> {
    let desired = context.desired;
    let user = context.server_user()?;
    let place = Place::of(desired);
    preconditions(
        desired,
        source.replaces,
        &user,
        source.replaces == DataState::Replica,
    )
    .await?;
    super::can_reach(&desired.postgres.data_directory, &user)?;
    super::can_reach(&desired.replication_passfile(), &user)?;
    tools(source)?;

    say(context, format!("asking {} what it holds", source.peer.host));
    super::replication::password(desired)?;
    let there = source::confirm(desired, source).await?;
    nobody_copies(&place.staging)?;
    // Before the room is measured that it would take.
    place.remove_staging()?;
    keep::remove_unfinished(desired)?;
    room(desired, source, there.bytes)?;
    configure::passfile(context)?;
    ensure_directory(&place.staging, 0o700, Some(user.owner()))?;

    let done = make(context, source, &place, &user).await;
    if done.is_err() {
        // Whatever of it is finished has another name by now.
        drop(place.remove_staging());
    }
    if let Some(set_aside) = done? {
        tracing::info!(set_aside = %set_aside, "the copy is in its place; what was there before is kept");
    }
    arrived(desired, source).await
}

async fn make(
    context: &Context<'_>,
    source: &CloneSource,
    place: &Place<'_>,
    user: &Identity,
) -> Result<Option<camino::Utf8PathBuf>> {
    let desired = context.desired;
    let staging = &place.staging;
    copy(context, source, staging, user).await?;
    check(context, source, staging, user).await?;
    make_standby(desired, staging, user)?;
    // What was copied, and that the history did not go on meanwhile.
    let there = source::confirm(desired, source).await?;
    let control = probe::read_control(staging, &source.programs.bin_directory, user).await?;
    let last = there.epochs.last();
    if control.system_identifier != source.system_identifier
        || last.is_none_or(|epoch| epoch.timeline < control.timeline)
    {
        bail!(
            "the copy is of the database {} on timeline {}, and {} with the epochs {} was to be copied; it was given up",
            control.system_identifier,
            control.timeline,
            source.system_identifier,
            names(&there.epochs)
        );
    }
    let sidecar = Sidecar {
        format: Sidecar::FORMAT,
        system_identifier: control.system_identifier,
        origin: Origin::Created,
        epochs: there.epochs,
        intended: None,
        restored: None,
    };
    // A standby's old copy is served, and could take over, until the new one is complete.
    super::server::stop(context).await?;
    // The copy took a while.
    preconditions(desired, source.replaces, user, false).await?;
    say(context, "putting the copy in its place".to_owned());
    let replaced = Replaced::look(
        desired,
        By::Copy(&source.peer.host),
        source.replaces,
        &sidecar.epochs,
    )
    .await?;
    let set_aside = place.take(&sidecar)?;
    if let (Some(replaced), Some(set_aside)) = (replaced, &set_aside)
        && let Err(error) = replaced.report_in(set_aside)
    {
        // The copy is what matters.
        tracing::warn!("what was set aside has no report: {error:#}");
    }
    super::remember(desired, &sidecar)?;
    super::rewind::forget_the_handover(&desired.home)?;
    place.trust()?;
    Ok(set_aside)
}

/// The data directory is what the plan was made from and can be renamed. No server runs on it, or, as long as nothing is
/// exchanged yet, only one of ours.
pub(super) async fn preconditions(
    desired: &Desired,
    replaces: DataState,
    user: &Identity,
    may_run: bool,
) -> Result<()> {
    let path = &desired.postgres.data_directory;
    match postmaster::look(desired, user)? {
        Postmaster::Running(running) if may_run && running.ours => {}
        Postmaster::Running(running) => bail!(
            "a server runs on {path} (process {}); its database is not replaced under it",
            running.pid
        ),
        Postmaster::Down { leftovers } if !leftovers.is_empty() => {
            bail!("processes of a dead server are still there: {leftovers:?}")
        }
        Postmaster::Down { .. } => {}
    }
    let data = match look(desired).await {
        Fact::Known(data) => data,
        Fact::Unknown(why) => bail!("cannot tell what is in {path}: {why}"),
    };
    let mount_point = match &data {
        DataDirectory::Empty { mount_point } => *mount_point,
        DataDirectory::Cluster(cluster) => cluster.mount_point,
        DataDirectory::NotOurs(what) => {
            return Err(hinted(
                format!("{path} is no database directory: {what}; it is not replaced"),
                format!("move it away, or set `postgres: data_directory:` to another place than {path}"),
            ));
        }
    };
    let state = data.state().state();
    if state != replaces {
        bail!(
            "what is in {path} changed since that was decided (it is {state}, and was {replaces}); nothing was replaced"
        );
    }
    if mount_point {
        return Err(hinted(
            format!(
                "another file system is mounted at {path}, so that it cannot be renamed to make room for the copy"
            ),
            format!("set `postgres: data_directory:` to a directory below it, such as {path}/data"),
        ));
    }
    Ok(())
}

/// Packages split the programs.
fn tools(source: &CloneSource) -> Result<()> {
    let major = source.programs.major;
    let needed: &[&str] = match major {
        ..=12 => &["pg_basebackup", "pg_controldata"],
        13.. => &["pg_basebackup", "pg_controldata", "pg_verifybackup"],
    };
    let paths = needed.iter().map(|name| source.programs.bin_directory.join(name));
    match paths.into_iter().find(|path| !path.exists()) {
        None => Ok(()),
        Some(missing) => Err(hinted(
            format!("the program {missing} is missing, which a copy needs"),
            format!(
                "install all of PostgreSQL {major} (Debian: postgresql-{major} and postgresql-client-{major})"
            ),
        )),
    }
}

/// Two tools that write to one directory would mix two copies.
fn nobody_copies(staging: &Utf8Path) -> Result<()> {
    for pid in process::all().context("cannot list processes")? {
        let arguments = process::arguments(pid).unwrap_or_default();
        if arguments
            .windows(2)
            .any(|pair| pair == ["--pgdata", staging.as_str()])
        {
            bail!("the tool of an earlier copy still writes to {staging}: process {pid}");
        }
    }
    Ok(())
}

/// Refuses before anything is touched if the copy cannot fit.
fn room(desired: &Desired, source: &CloneSource, bytes: u64) -> Result<()> {
    let data_directory = &desired.postgres.data_directory;
    let parent = data_directory
        .parent()
        .with_context(|| format!("{data_directory} has no parent directory"))?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {parent}"))?;
    let needed = bytes + bytes / 10 + AIR;
    let free =
        files::free_space(parent).with_context(|| format!("cannot tell the free space of {parent}"))?;
    if free >= needed {
        return Ok(());
    }
    let kept = match source.replaces {
        DataState::Empty => String::new(),
        _ => format!(
            "; what is in {data_directory} now takes {} MB and is kept beside it",
            size(data_directory) >> 20
        ),
    };
    Err(hinted(
        format!(
            "there are only {} MB free at {parent}; a copy of the database of {} takes {} MB{kept}",
            free >> 20,
            source.peer.host,
            needed.div_ceil(1 << 20)
        ),
        format!(
            "free some space there (old copies are called {}), or set `postgres: data_directory:` to a larger disk",
            desired.beside_data("set-aside-*")
        ),
    ))
}

/// What a directory takes on disk; what cannot be read counts as nothing.
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

async fn copy(
    context: &Context<'_>,
    source: &CloneSource,
    staging: &Utf8Path,
    user: &Identity,
) -> Result<()> {
    say(context, format!("waiting for {} to begin", source.peer.host));
    let arguments = [
        "--pgdata",
        staging.as_str(),
        "--format=plain",
        // Not `stream`: that forks a child, which outlives a SIGKILL (POSTGRES-FACTS 17). The WAL of the meantime is kept
        // by the slot that the other laptop made for us beforehand.
        "--wal-method=fetch",
        "--checkpoint=fast",
        "--progress",
        "--no-password",
        "--dbname",
        &conninfo(context.desired, &source.peer),
    ];
    tool::run_watched(
        &source.programs.bin_directory.join("pg_basebackup"),
        &arguments,
        user,
        STALL,
        |line| {
            if line == "waiting for checkpoint" {
                return Some(STALL);
            }
            let (done, all, finished) = copied(line)?;
            if finished {
                say(context, "writing the copy to the disk".to_owned());
                return Some(SYNC);
            }
            say(context, format!("copied {done} of {all} MB"));
            Some(STALL)
        },
    )
    .await
    .with_context(|| {
        format!(
            "cannot copy the database of {}:{}",
            source.peer.host, source.peer.port
        )
    })
}

/// Reads `  4711/39338 kB (11%), 0/1 tablespace …`: MB copied, MB in all, and whether everything arrived. The tool says
/// so at most once a second.
fn copied(line: &str) -> Option<(u64, u64, bool)> {
    let (amount, rest) = line.split_once(" kB (")?;
    let (done, all) = amount.trim().split_once('/')?;
    let tablespaces = rest.split_once("), ")?.1.split(' ').next()?;
    let (finished, count) = tablespaces.split_once('/')?;
    let (done, all): (u64, u64) = (done.parse().ok()?, all.parse().ok()?);
    // The WAL is not in the estimate.
    Some((done >> 10, all.max(done) >> 10, finished == count))
}

/// Where pg_basebackup connects to. A dead line is noticed within seconds (POSTGRES-FACTS 29).
pub(super) fn conninfo(desired: &Desired, peer: &PeerAddress) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!(
        "host={} port={} user={} passfile={} sslmode={} application_name={} connect_timeout=5 keepalives=1 \
         keepalives_idle=2 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=10000",
        quote(&peer.host),
        peer.port,
        quote(&desired.replication.user),
        quote(desired.replication_passfile().as_str()),
        desired.replication.sslmode.word(),
        quote(&desired.node),
    )
}

/// Compares every file with the checksums that the other laptop sent, and looks whether the WAL is whole.
async fn check(
    context: &Context<'_>,
    source: &CloneSource,
    staging: &Utf8Path,
    user: &Identity,
) -> Result<()> {
    // PostgreSQL 12 sends no manifest.
    if source.programs.major < 13 {
        return Ok(());
    }
    say(context, "checking the copy".to_owned());
    let program = source.programs.bin_directory.join("pg_verifybackup");
    tool::run(&program, &["--quiet", staging.as_str()], user, CHECK)
        .await
        .context("the copy is not what was sent, and was given up")?;
    Ok(())
}

/// Makes the copy a standby's, before a server might be started on it.
pub(super) fn make_standby(desired: &Desired, staging: &Utf8Path, user: &Identity) -> Result<()> {
    let there = staging.join("backup_label");
    if !there.exists() {
        bail!(
            "{there} is missing, without which a server would not know where to begin; the copy was given up"
        );
    }
    write_durably(&staging.join("standby.signal"), b"", 0o600, Some(user.owner()))?;
    // It would survive a promotion, and the next start fail (POSTGRES-FACTS 3); the others are another server's.
    for name in ["recovery.signal", "postmaster.pid", "postmaster.opts"] {
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
    let kept = configure::without(&text, &names_to_purge(desired, &found));
    if kept != text {
        write_durably(&path, kept.as_bytes(), 0o600, Some(user.owner()))?;
    }
    files::sync_parent(&path).with_context(|| format!("cannot make the names in {staging} durable"))
}

/// What the whole is for: a standby's copy that is trusted and holds the epoch.
async fn arrived(desired: &Desired, source: &CloneSource) -> Result<()> {
    let path = &desired.postgres.data_directory;
    let data = match look(desired).await {
        Fact::Known(data) => data,
        Fact::Unknown(why) => bail!("cannot tell what is in {path} after the copy: {why}"),
    };
    let state = data.state();
    let last = data
        .cluster()
        .and_then(|cluster| cluster.trusted_sidecar())
        .and_then(|sidecar| sidecar.epochs.last())
        .map(|epoch| epoch.uuid);
    if state != Data::Replica || last != Some(source.epoch) {
        bail!(
            "{path} is {} with the last epoch {last:?} after the copy, and was to be a standby's with {}",
            state.state(),
            source.epoch
        );
    }
    Ok(())
}

async fn look(desired: &Desired) -> Fact<DataDirectory> {
    probe::Prober::default()
        .look(desired, probe::FromInside::default(), true)
        .await
        .data
        .fact
}

fn names(epochs: &[Epoch]) -> String {
    let names: Vec<String> = epochs.iter().map(|epoch| epoch.uuid.to_string()).collect();
    names.join(", ")
}

pub(super) fn say(context: &Context<'_>, words: String) {
    context.progress.send_replace(Some(words));
}

#[cfg(test)]
mod tests {
    use super::copied;

    #[test]
    fn progress_is_read_as_pg_basebackup_writes_it() {
        let line = "  20480/1048576 kB (1%), 0/1 tablespace (...ib/base/5/16384)";
        assert_eq!(copied(line), Some((20, 1024, false)));
        assert_eq!(
            copied("39338/39338 kB (100%), 1/1 tablespace"),
            Some((38, 38, true))
        );
        // With the WAL more than was estimated.
        assert_eq!(
            copied("40960/20480 kB (100%), 0/1 tablespace"),
            Some((40, 40, false))
        );
        assert_eq!(copied("pg_basebackup: error: connection to server failed"), None);
    }
}
