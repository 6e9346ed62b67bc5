//! PostgreSQL's programs that a rewind takes: the server for one user, which recovers a crashed copy, and pg_rewind.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::Notify;

use crate::exec::clone::{conninfo, say};
use crate::exec::{Context, server};
use crate::hint::hinted;
use crate::lineage::Lsn;
use crate::observed::{ClusterState, ControlData};
use crate::plan::RewindSource;
use crate::probe;
use crate::supervise::{postgres, tool};
use crate::sys::users::Identity;

/// How long our own recovery of a crashed copy may say nothing; older versions say nothing until it is done.
const RECOVERY: Duration = Duration::from_secs(3600);
/// How long pg_rewind may say nothing while it reads the WAL here and writes to the disk. (A dead line is noticed within
/// seconds: see the connection's own limits.)
const READ: Duration = Duration::from_secs(1800);
/// The same while it copies; it then says something every second.
const STALL: Duration = Duration::from_secs(120);

/// Packages split the programs.
pub(super) fn complete(source: &RewindSource) -> Result<()> {
    let paths = ["pg_rewind", "pg_waldump"].map(|name| source.programs.bin_directory.join(name));
    match paths.into_iter().find(|path| !path.exists()) {
        None => Ok(()),
        Some(missing) => Err(hinted(
            format!("the program {missing} is missing, which a rewind needs"),
            format!(
                "install all of PostgreSQL {0} (Debian: postgresql-{0} and postgresql-client-{0})",
                source.programs.major
            ),
        )),
    }
}

/// A crashed copy is recovered by ourselves: pg_rewind would do it without our configuration, and with archiving on, so
/// that the rejected branch got into the archive (POSTGRES-FACTS 30 and 36). Gives the control data after that.
pub(super) async fn recover(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
) -> Result<ControlData> {
    let desired = context.desired;
    say(context, "recovering the crashed copy".to_owned());
    let data = &desired.postgres.data_directory;
    // A laptop that comes back after a power cut gave the dead server's number to somebody else.
    server::free_the_name(desired, user)?;
    let config_file = postgres::config_file_argument(&desired.conf_directory());
    // The checkpoint at the end must not recycle what the rewind needs (POSTGRES-FACTS 14).
    let keep = match source.programs.major {
        ..=12 => "wal_keep_segments=1000000",
        13.. => "wal_keep_size=1TB",
    };
    let settings = [
        config_file.as_str(),
        "archive_mode=off",
        keep,
        "logging_collector=off",
        "log_destination=stderr",
    ];
    let mut arguments = vec!["--single", "-D", data.as_str()];
    for setting in settings {
        arguments.extend(["-c", setting]);
    }
    // Which database does not matter; this one nobody drops.
    arguments.push("template1");
    let program = source.programs.bin_directory.join("postgres");
    tool::run_watched(&program, &arguments, user, RECOVERY, |line| {
        let complaint = ["FATAL:", "PANIC:", "ERROR:", "HINT:", "DETAIL:"]
            .iter()
            .any(|word| line.contains(word));
        if let Some((_, progress)) = line.split_once("redo in progress,") {
            say(context, format!("recovering the crashed copy:{progress}"));
        }
        // Its other words are no complaint.
        (!complaint).then_some(RECOVERY)
    })
    .await
    .context("cannot recover the crashed copy, which a rewind needs")?;
    let control = probe::read_control(data, &source.programs.bin_directory, user).await?;
    if control.state != ClusterState::ShutDown {
        bail!(
            "the crashed copy is {:?} after its recovery, and not shut down",
            control.state
        );
    }
    Ok(control)
}

/// What pg_rewind would do.
#[derive(Debug, Default)]
pub(super) struct Preview {
    /// It sees no difference.
    pub(super) nothing_to_do: bool,
    /// The last checkpoint that both histories share; the copy is replayed from there.
    pub(super) from: Option<Lsn>,
}

/// Has pg_rewind look whether it can do it: what both have, and the WAL here. Nothing is changed.
pub(super) async fn preview(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
) -> Result<Preview> {
    say(context, "comparing the two histories".to_owned());
    let mut preview = Preview::default();
    let enough = Notify::new();
    let look = run(context, source, user, &["--dry-run", "--progress"], |line| {
        preview.nothing_to_do |= line.contains("no rewind required");
        if let Some((_, rest)) = line.split_once("last common checkpoint at ") {
            preview.from = rest.split(' ').next().and_then(|lsn| lsn.parse().ok());
        }
        if line.contains("need to copy") {
            enough.notify_one();
        }
        READ
    });
    tokio::select! {
        looked = look => looked.with_context(|| {
            format!("cannot rewind to {}:{}", source.peer.host, source.peer.port)
        })?,
        // What comes now would be fetched like in earnest, and only not be written: it is ended here.
        () = enough.notified() => {}
    }
    Ok(preview)
}

/// A rewind that failed.
pub(super) struct Failed {
    /// Whether it had begun to change the copy.
    pub(super) changed: bool,
    /// Why.
    pub(super) error: anyhow::Error,
}

/// Rewinds.
pub(super) async fn rewind(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
) -> Result<(), Failed> {
    say(context, format!("rewinding to {}", source.peer.host));
    let (mut nothing_to_do, mut changed) = (false, false);
    let done = run(context, source, user, &["--progress"], |line| {
        nothing_to_do |= line.contains("no rewind required");
        // The last words before it does.
        changed |= line.contains("need to copy");
        let Some((done, all)) = copied(line) else {
            return READ;
        };
        say(context, format!("rewound {done} of {all} MB"));
        // What follows the last one is writing to the disk.
        if done == all { READ } else { STALL }
    })
    .await
    .with_context(|| format!("the rewind to {}:{} failed", source.peer.host, source.peer.port));
    done.and_then(|()| {
        if nothing_to_do {
            Err(no_difference())
        } else {
            Ok(())
        }
    })
    .map_err(|error| Failed { changed, error })
}

/// The epochs say otherwise: followed like this, the two would differ in silence (POSTGRES-FACTS 1).
pub(super) fn no_difference() -> anyhow::Error {
    anyhow::anyhow!("pg_rewind found nothing to do although the histories differ")
}

async fn run(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
    more: &[&str],
    mut said: impl FnMut(&str) -> Duration,
) -> Result<()> {
    let desired = context.desired;
    let server = format!("{} dbname=postgres", conninfo(desired, &source.peer));
    let mut arguments = vec![
        "--target-pgdata",
        desired.postgres.data_directory.as_str(),
        "--source-server",
        &server,
    ];
    if source.programs.major >= 13 {
        arguments.push("--no-ensure-shutdown");
    }
    arguments.extend(more);
    let program = source.programs.bin_directory.join("pg_rewind");
    tool::run_watched(&program, &arguments, user, READ, |line| {
        let silence = said(line);
        let complaint = ["error:", "fatal:", "warning:", "detail:", "hint:"]
            .iter()
            .any(|word| line.contains(word));
        (!complaint).then_some(silence)
    })
    .await
}

/// Reads `  4711/39338 kB (11%) copied`: MB done, MB in all.
fn copied(line: &str) -> Option<(u64, u64)> {
    let (amount, _) = line.split_once(" kB (")?;
    let (done, all) = amount.trim().split_once('/')?;
    let (done, all): (u64, u64) = (done.trim().parse().ok()?, all.parse().ok()?);
    Some((done >> 10, all >> 10))
}

#[cfg(test)]
mod tests {
    use super::copied;

    #[test]
    fn progress_is_read_as_pg_rewind_writes_it() {
        assert_eq!(copied("  20480/1048576 kB (1%) copied"), Some((20, 1024)));
        assert_eq!(copied("39338/39338 kB (100%) copied"), Some((38, 38)));
        assert_eq!(copied("pg_rewind: reading source file list"), None);
    }
}
