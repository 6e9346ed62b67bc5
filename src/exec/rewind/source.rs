//! The laptop that is rewound to, by its own word over SQL.

use anyhow::{Context as _, Result, bail};

use crate::desired::Desired;
use crate::exec::clone::source::{self, Confirmed};
use crate::observed::{DataState, Failing};
use crate::peer::{Trouble, sql};
use crate::plan::{CloneSource, RewindSource};
use crate::probe::server;

/// A segment of its WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Timeline and number, 24 hexadecimal digits.
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
}

/// What was found where the plan said.
pub(super) struct Source {
    /// Its epochs, and what its databases take.
    pub(super) confirmed: Confirmed,
    /// Its WAL: pg_rewind copies all of it.
    pub(super) wal: Vec<Segment>,
}

/// Asks whether it is still the database that the plan was made for, and one that can be rewound to.
pub(super) async fn ask(desired: &Desired, source: &RewindSource) -> Result<Source> {
    let confirmed = confirm(desired, source).await?;
    let at = format!("{}:{}", source.peer.host, source.peer.port);
    let open = sql::connect_to(desired, &source.peer).await?;
    // Before the first checkpoint of its timeline a rewind finds nothing to do (POSTGRES-FACTS 8).
    let rows = server::query(
        &open.client,
        "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as writes, \
         (select timeline_id from pg_control_checkpoint()) >= \
         case when pg_is_in_recovery() then 0 \
         else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as checkpointed",
    )
    .await
    .with_context(|| format!("cannot ask the server at {at} for its checkpoint"))?;
    let row = rows.first().context("the server gave no row")?;
    if row.get("writes") != Some("t") {
        bail!("the server at {at} is not written to any more; nothing was done");
    }
    if row.get("checkpointed") != Some("t") {
        bail!(
            "the server at {at} has not written the first checkpoint of its timeline yet; nothing was done"
        );
    }
    let rows = server::query(
        &open.client,
        "select name, (pg_stat_file('pg_wal/' || name, true)).size from pg_ls_dir('pg_wal', true, false) name \
         where name ~ '^[0-9A-F]{24}$'",
    )
    .await
    .with_context(|| format!("cannot ask the server at {at} for its WAL"))?;
    let segment = |row: &tokio_postgres::SimpleQueryRow| {
        Some(Segment {
            name: row.get(0)?.to_owned(),
            // One that was removed just now has none.
            size: row.get(1)?.parse().ok()?,
        })
    };
    Ok(Source {
        confirmed,
        wal: rows.iter().filter_map(segment).collect(),
    })
}

/// Asks for its epochs alone.
pub(super) async fn confirm(desired: &Desired, source: &RewindSource) -> Result<Confirmed> {
    let as_clone = CloneSource {
        peer: source.peer.clone(),
        programs: source.programs.clone(),
        system_identifier: source.system_identifier.clone(),
        epoch: source.epoch,
        replaces: DataState::Primary,
    };
    source::confirm(desired, &as_clone).await
}

/// Whether an error only says that nobody answers.
pub(super) fn is_silence(error: &anyhow::Error) -> bool {
    let trouble = error.downcast_ref::<Trouble>();
    trouble.is_some_and(|trouble| matches!(trouble.how, Failing::Unanswered(_)))
}
