//! The laptop that is copied from, by its own word over SQL.

use anyhow::{Context as _, Result, bail};

use crate::desired::Desired;
use crate::hint::hinted;
use crate::lineage::Epoch;
use crate::observed::Failing;
use crate::peer::{Trouble, sql};
use crate::plan::CloneSource;
use crate::probe::server;

/// What was found where the plan said.
pub(in crate::exec) struct Confirmed {
    /// All its epochs, oldest first; the last one is the plan's.
    pub(in crate::exec) epochs: Vec<Epoch>,
    /// What its databases take on disk.
    pub(in crate::exec) bytes: u64,
}

/// Asks whether it is still the database that the plan was made for, and one that can be copied.
pub(in crate::exec) async fn confirm(desired: &Desired, source: &CloneSource) -> Result<Confirmed> {
    let peer = &source.peer;
    let at = format!("{}:{}", peer.host, peer.port);
    let open =
        sql::connect_to(desired, peer)
            .await
            .map_err(|error| match error.downcast_ref::<Trouble>() {
                Some(trouble) if trouble.how == Failing::Unauthenticated => hinted(
                    format!("{error:#}"),
                    format!(
                        "compare {} on both laptops, or run `paceline join` again",
                        desired.replication.password_file
                    ),
                ),
                _ => error,
            })?;
    let client = &open.client;
    let rows = server::query(
        client,
        "select system_identifier, current_setting('server_version_num')::int / 10000, \
         (select sum(pg_database_size(oid))::bigint from pg_database), \
         (select string_agg(spcname, ', ') from pg_tablespace where spcname not in ('pg_default', 'pg_global')) \
         from pg_control_system()",
    )
    .await
    .with_context(|| format!("cannot ask the server at {at} what it holds"))?;
    let row = rows.first().context("the server gave no row")?;
    let text = |column| {
        row.get(column)
            .with_context(|| format!("the server at {at} gave no column {column}"))
    };
    let identifier = text(0)?;
    if identifier != source.system_identifier {
        return Err(hinted(
            format!(
                "the server at {at} holds the database {identifier} instead of {}, which the other laptop announced: \
                 nothing was copied",
                source.system_identifier
            ),
            format!("is {at} really the other laptop's PostgreSQL? Put `peer:` right on this laptop"),
        ));
    }
    let major: u32 = text(1)?.parse().context("its major version is no number")?;
    if major != source.programs.major {
        return Err(hinted(
            format!(
                "the server at {at} is PostgreSQL {major}, the programs in {} are PostgreSQL {}: a copy works only with \
                 the same major version",
                source.programs.bin_directory, source.programs.major
            ),
            format!(
                "install PostgreSQL {major} on this laptop (and if `postgres: bin_directory:` is declared, let it name \
                 that one)"
            ),
        ));
    }
    if let Some(names) = row.get(3) {
        return Err(hinted(
            format!("the server at {at} has tablespaces ({names}); copying them is not supported yet"),
            "move what is in them to the default tablespace (alter table … set tablespace pg_default) and drop them",
        ));
    }
    let epochs = server::epochs(client)
        .await
        .with_context(|| format!("cannot read the epochs of the server at {at}"))?;
    match epochs.last() {
        Some(epoch) if epoch.uuid == source.epoch => {}
        last => bail!(
            "the last epoch of the server at {at} is {}, not {}: its history went on since this copy was decided",
            last.map_or("none".to_owned(), |epoch| epoch.uuid.to_string()),
            source.epoch
        ),
    }
    Ok(Confirmed {
        epochs,
        bytes: text(2)?.parse().context("its size is no number")?,
    })
}
