//! The name of the epoch that the server writes: on disk as an intention first, then as a row, then as known.

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use tokio_postgres::Client;

use super::Context;
use crate::history;
use crate::lineage::{Epoch, Lsn, Origin, Sidecar};
use crate::observed::ControlData;
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
        restored: None,
    }
}

pub(super) async fn name(context: &Context<'_>) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let client = context.connect().await?;
    let now = Written::ask(&client).await?;
    let mut sidecar = match probe::read_sidecar(data_directory)? {
        Some(sidecar) if sidecar.belongs_to(&now.system_identifier) => sidecar,
        Some(_) | None => bail!("there is no note of this database beside {data_directory} yet"),
    };

    // Rows that somebody removed come back from the sidecar: the history does not change by that.
    let mut epochs = server::epochs(&client).await?;
    // (But one of this very timeline may only have been noted, see `follow::record`, and be another laptop's: with an
    // intention, or another beginning, it is not ours.)
    let unnamed = sidecar.intended.is_some();
    let ours = |epoch: &&Epoch| {
        epoch.timeline < now.timeline
            || !unnamed
                && epoch.timeline == now.timeline
                && now.switch.is_none_or(|switch| switch == epoch.begin_lsn)
    };
    for epoch in sidecar.epochs.iter().filter(ours) {
        if !epochs.iter().any(|row| row.uuid == epoch.uuid) {
            insert(&client, epoch).await?;
            epochs.push(epoch.clone());
        }
    }
    if !epochs.iter().any(|epoch| epoch.timeline == now.timeline) {
        let parent = epochs.last().map(|epoch| epoch.uuid);
        // An intention is about the timeline that branches off where the copy is now; any other is void.
        let intended = sidecar.intended.take().filter(|epoch| epoch.parent == parent);
        let mut epoch = intended.unwrap_or_else(|| Epoch {
            uuid: uuid::Uuid::new_v4(),
            parent,
            supersedes: Vec::new(),
            begin_lsn: now.position,
            timeline: now.timeline,
            node: context.desired.node.clone(),
            time: clock::timestamp(),
        });
        epoch.timeline = now.timeline;
        // It may have been named long before.
        epoch.time = clock::timestamp();
        if let Some(switch) = now.switch {
            epoch.begin_lsn = switch;
        }
        sidecar.intended = Some(epoch.clone());
        write_sidecar(data_directory, &sidecar)?;
        insert(&client, &epoch).await?;
    }
    let rows = server::epochs(&client).await?;
    if !rows.iter().any(|epoch| epoch.timeline == now.timeline) {
        bail!(
            "the row of timeline {} is not in paceline.epoch after it was written",
            now.timeline
        );
    }
    // Recorded before the sidecar knows it, and so after a kill -9 in between once more rather than never.
    for epoch in rows.iter().filter(|row| !sidecar.epochs.contains(row)) {
        history::record(
            &context.desired.home,
            "epoch",
            &serde_json::json!({
                "epoch": epoch.uuid,
                "timeline": epoch.timeline,
                "begin_lsn": epoch.begin_lsn,
                "node": epoch.node,
                "supersedes": epoch.supersedes,
            }),
        );
    }
    sidecar.epochs = rows;
    sidecar.intended = None;
    write_sidecar(data_directory, &sidecar)?;
    super::remember(context.desired, &sidecar)
}

/// What a server that is written to says of its history.
pub(super) struct Written {
    pub(super) system_identifier: String,
    pub(super) timeline: u32,
    pub(super) position: Lsn,
    /// Where its timeline branched off, from the timeline's history file; `None` for the first.
    pub(super) switch: Option<Lsn>,
    /// Every timeline that it comes from, and where that was left.
    pub(super) path: Vec<(u32, Lsn)>,
}

impl Written {
    pub(super) async fn ask(client: &Client) -> Result<Self> {
        let rows = server::query(client, include_str!("written.sql")).await?;
        let row = rows.first().context("the server gave no row")?;
        let text = |name: &str| {
            row.get(name)
                .with_context(|| format!("the server gave no {name}"))
        };
        if text("in_recovery")? != "f" {
            bail!("the server is read-only");
        }
        let position = |text: &str| text.parse::<Lsn>().map_err(anyhow::Error::msg);
        let timeline: u32 = text("timeline")?.parse().context("the timeline is no number")?;
        let mut path = Vec::new();
        if timeline > 1 {
            let sql =
                format!("select pg_read_file('pg_wal/{timeline:08X}.history', 0, 1048576, true) as history");
            let rows = server::query(client, &sql).await?;
            let history = rows
                .first()
                .and_then(|row| row.get("history"))
                .unwrap_or_default();
            // Each line is a timeline: number, the position at which it was left, reason.
            for line in history.lines() {
                let mut words = line.split_whitespace();
                if let Some(number) = words.next().and_then(|number| number.parse().ok())
                    && let Some(left) = words.next()
                {
                    path.push((number, position(left)?));
                }
            }
        }
        Ok(Self {
            system_identifier: text("system_identifier")?.to_owned(),
            timeline,
            position: position(text("position")?)?,
            switch: path.last().map(|(_, left)| *left),
            path,
        })
    }
}

/// Writes the row; the table is made if needed. A commit here must not wait for a standby, and must be on our disk.
pub(super) async fn insert(client: &Client, epoch: &Epoch) -> Result<()> {
    let optional = |uuid: Option<uuid::Uuid>| uuid.map_or("null".to_owned(), |uuid| format!("'{uuid}'"));
    let supersedes: Vec<String> = epoch.supersedes.iter().map(ToString::to_string).collect();
    let sql = format!(
        "begin; set local synchronous_commit = 'local'; set local client_min_messages = 'warning'; {table}; \
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
    server::query(client, &sql)
        .await
        .context("cannot write the row into paceline.epoch")?;
    Ok(())
}
