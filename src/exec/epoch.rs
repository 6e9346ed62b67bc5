//! The name of the epoch that the server writes: on disk as an intention first, then as a row, then as known.

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use super::Context;
use crate::lineage::{Epoch, Origin, Sidecar};
use crate::observed::{Answer, ControlData, Fact};
use crate::probe::database::literal;
use crate::probe::{self, server};
use crate::sys::clock;
use crate::sys::files::write_durably;

/// Writes the sidecar of a data directory, durably.
pub(super) fn write_sidecar(data_directory: &Utf8Path, sidecar: &Sidecar) -> Result<()> {
    write_durably(
        &probe::sidecar_path(data_directory),
        &serde_json::to_vec_pretty(sidecar)?,
        0o644,
        None,
    )
}

/// The sidecar of a database that has none yet: where it comes from, and the intention to name its first epoch.
pub(super) fn first_sidecar(control: &ControlData, origin: Origin, node: &str) -> Sidecar {
    Sidecar {
        format: Sidecar::FORMAT,
        system_identifier: control.system_identifier.clone(),
        origin,
        epochs: Vec::new(),
        intended: Some(Epoch {
            uuid: uuid::Uuid::new_v4(),
            parent: None,
            supersedes: Vec::new(),
            begin_lsn: control.checkpoint,
            timeline: control.timeline,
            node: node.to_owned(),
            time: clock::timestamp(),
        }),
    }
}

pub(super) async fn name(context: &Context<'_>) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let observed = probe::Prober::default()
        .look(context.desired, probe::FromInside::default(), true)
        .await;
    let facts = match &observed.server.fact {
        Fact::Known(Answer::Facts(facts)) if !facts.in_recovery => facts,
        Fact::Known(Answer::Facts(_)) => bail!("the server is read-only"),
        Fact::Known(Answer::Refused(why)) | Fact::Unknown(why) => bail!("the server does not answer: {why}"),
        Fact::Known(Answer::NotAsked) => bail!("the server is not ready"),
    };
    let cluster = observed.cluster().context("the data directory cannot be seen")?;
    let mut sidecar = match &cluster.sidecar {
        Fact::Unknown(why) => bail!("the note beside the data directory cannot be read: {why}"),
        Fact::Known(Some(sidecar)) if sidecar.belongs_to(&facts.system_identifier) => sidecar.clone(),
        Fact::Known(_) => bail!("there is no note beside {data_directory} yet"),
    };

    // Rows that somebody removed come back from the sidecar: the history does not change by that.
    let mut epochs = facts.epochs.clone();
    for epoch in &sidecar.epochs {
        if !epochs.iter().any(|row| row.uuid == epoch.uuid) {
            insert(context, epoch).await?;
            epochs.push(epoch.clone());
        }
    }
    if !epochs.iter().any(|epoch| epoch.timeline == facts.timeline) {
        let intended = sidecar
            .intended
            .take()
            .filter(|epoch| epoch.timeline == facts.timeline);
        let epoch = intended.unwrap_or_else(|| Epoch {
            uuid: uuid::Uuid::new_v4(),
            parent: epochs.last().map(|epoch| epoch.uuid),
            supersedes: Vec::new(),
            begin_lsn: facts.lsn,
            timeline: facts.timeline,
            node: context.desired.node.clone(),
            time: clock::timestamp(),
        });
        sidecar.intended = Some(epoch.clone());
        write_sidecar(data_directory, &sidecar)?;
        insert(context, &epoch).await?;
    }
    let client = server::connect(context.desired, "postgres").await?;
    let rows = server::epochs(&client).await?;
    if !rows.iter().any(|epoch| epoch.timeline == facts.timeline) {
        bail!(
            "the row of timeline {} is not in paceline.epoch after it was written",
            facts.timeline
        );
    }
    sidecar.epochs = rows;
    sidecar.intended = None;
    write_sidecar(data_directory, &sidecar)?;
    super::remember(context.desired, &sidecar)
}

/// Writes the row; the table is made if needed. A commit here must not wait for a standby, and must be on our disk.
async fn insert(context: &Context<'_>, epoch: &Epoch) -> Result<()> {
    let client = server::connect(context.desired, "postgres").await?;
    let optional = |uuid: Option<uuid::Uuid>| uuid.map_or("null".to_owned(), |uuid| format!("'{uuid}'"));
    let supersedes: Vec<String> = epoch.supersedes.iter().map(ToString::to_string).collect();
    let sql = format!(
        "begin; set local synchronous_commit = 'local'; {table}; \
         insert into paceline.epoch (uuid, parent, supersedes, begin_lsn, timeline, node, \"time\") \
         values ('{uuid}', {parent}, '{{{supersedes}}}', '{lsn}', {timeline}, {node}, {time}) \
         on conflict (uuid) do nothing; commit",
        table = include_str!("epoch_table.sql").trim_end().trim_end_matches(';'),
        uuid = epoch.uuid,
        parent = optional(epoch.parent),
        supersedes = supersedes.join(","),
        lsn = epoch.begin_lsn,
        timeline = epoch.timeline,
        node = literal(&epoch.node),
        time = literal(&epoch.time),
    );
    server::query(&client, &sql)
        .await
        .context("cannot write the row into paceline.epoch")?;
    Ok(())
}
