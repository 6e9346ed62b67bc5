//! `pg_control`, as `pg_controldata` of the same major version reads it (it also checks the checksum).

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::lineage::Lsn;
use crate::observed::{ClusterState, ControlData, Parameters};
use crate::supervise::tool;
use crate::sys::users::Identity;

/// What was read before, and from which file: the tool runs only when the file changed.
#[derive(Debug, Default)]
pub struct Cache {
    last: Option<(Utf8PathBuf, Stamp, ControlData)>,
}

type Stamp = (u64, u64, i64, i64, i64, i64);

impl Cache {
    /// Reads `global/pg_control` of a data directory with the programs in `bin_directory`. `thorough: false`: what was
    /// read last will do, since a running server's own word counts more.
    pub async fn read(
        &mut self,
        data_directory: &Utf8Path,
        bin_directory: &Utf8Path,
        identity: &Identity,
        thorough: bool,
    ) -> Result<ControlData> {
        let path = data_directory.join("global/pg_control");
        if let Some((last_path, _, control)) = &self.last
            && *last_path == path
            && !thorough
        {
            return Ok(control.clone());
        }
        let meta = std::fs::metadata(&path).with_context(|| format!("cannot read {path}"))?;
        let stamp: Stamp = (
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        );
        if let Some((last_path, last_stamp, control)) = &self.last
            && *last_path == path
            && *last_stamp == stamp
        {
            return Ok(control.clone());
        }
        // PostgreSQL writes all 8192 bytes (PG_CONTROL_FILE_SIZE) or none; a torn copy has fewer.
        if meta.len() != 8192 {
            bail!(
                "{path} has {} bytes instead of 8192: an unfinished copy",
                meta.len()
            );
        }
        let control = read(data_directory, bin_directory, identity).await?;
        self.last = Some((path, stamp, control.clone()));
        Ok(control)
    }
}

/// Runs `pg_controldata` on a data directory.
pub async fn read(
    data_directory: &Utf8Path,
    bin_directory: &Utf8Path,
    identity: &Identity,
) -> Result<ControlData> {
    let program = bin_directory.join("pg_controldata");
    let text = tool::run(
        &program,
        &[data_directory.as_str()],
        identity,
        Duration::from_secs(10),
    )
    .await?;
    parse(&text).with_context(|| format!("cannot understand what {program} says of {data_directory}"))
}

fn parse(text: &str) -> Result<ControlData> {
    // Such as "WARNING: Calculated CRC checksum does not match value stored in file."
    if let Some(warning) = text.lines().find(|line| line.starts_with("WARNING")) {
        bail!("pg_control is damaged: {warning}");
    }
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| {
            line.split_once(':')
                .map(|(name, value)| (name.trim(), value.trim()))
        })
        .collect();
    let field = |name: &str| {
        fields
            .get(name)
            .copied()
            .with_context(|| format!("it does not say {name:?}"))
    };
    let number = |name: &str| -> Result<u32> {
        field(name)?
            .parse()
            .with_context(|| format!("{name:?} is no number"))
    };
    let state = match field("Database cluster state")? {
        "starting up" => ClusterState::StartingUp,
        "shut down" => ClusterState::ShutDown,
        "shut down in recovery" => ClusterState::ShutDownInRecovery,
        "shutting down" => ClusterState::ShuttingDown,
        "in crash recovery" => ClusterState::InCrashRecovery,
        "in archive recovery" => ClusterState::InArchiveRecovery,
        "in production" => ClusterState::InProduction,
        other => bail!("unknown cluster state {other:?}"),
    };
    Ok(ControlData {
        system_identifier: field("Database system identifier")?.to_owned(),
        state,
        checkpoint: field("Latest checkpoint location")?
            .parse::<Lsn>()
            .map_err(anyhow::Error::msg)?,
        timeline: number("Latest checkpoint's TimeLineID")?
            .max(number("Min recovery ending loc's timeline")?),
        needed: Parameters {
            max_connections: number("max_connections setting")?,
            max_worker_processes: number("max_worker_processes setting")?,
            max_wal_senders: number("max_wal_senders setting")?,
            max_prepared_transactions: number("max_prepared_xacts setting")?,
            max_locks_per_transaction: number("max_locks_per_xact setting")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
Database system identifier:           7445501234567890123
Database cluster state:               in archive recovery
Latest checkpoint location:           0/3000028
Latest checkpoint's TimeLineID:       1
Min recovery ending loc's timeline:   2
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
";

    /// A server that is promoted and killed at once: the checkpoint still names the old timeline (POSTGRES-FACTS 35).
    #[test]
    fn the_timeline_is_the_larger_one() {
        let control = parse(SAMPLE).expect("sample");
        assert_eq!(control.timeline, 2);
        assert_eq!(control.state, ClusterState::InArchiveRecovery);
        assert_eq!(control.checkpoint, "0/3000028".parse().expect("position"));
    }

    #[test]
    fn a_damaged_file_is_never_believed() {
        let damaged =
            format!("WARNING: Calculated CRC checksum does not match value stored in file.\n{SAMPLE}");
        assert!(parse(&damaged).is_err());
        assert!(parse(&SAMPLE.replace("in archive recovery", "in Produktion")).is_err());
        assert!(parse("").is_err());
    }
}
