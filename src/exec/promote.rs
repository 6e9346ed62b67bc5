//! The end of recovery: the name of the new epoch first, then the promotion; a checkpoint when the gate is open.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use super::Context;
use super::epoch::write_sidecar;
use crate::hint::hinted;
use crate::history;
use crate::lineage::Epoch;
use crate::plan::{Intention, Loss};
use crate::probe::{self, server as session};
use crate::sys::clock;

/// How long a promotion is watched. It first replays everything that was received; a busy, slow laptop takes a while.
const PROMOTION: Duration = Duration::from_secs(60);
/// How often it is looked at. A promotion takes some 30 ms, most of it for the first segment of the new timeline.
const LOOK: Duration = Duration::from_millis(1);
/// One that takes longer than this is looked at less often.
const SOON: Duration = Duration::from_millis(300);
/// How often then.
const LATER: Duration = Duration::from_millis(20);
/// How long a checkpoint may take: a slow disk has a lot to write.
const CHECKPOINT: Duration = Duration::from_secs(600);

/// Notes the epoch that a promotion would begin.
pub(super) fn intend(context: &Context<'_>, intention: &Intention) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let mut sidecar = probe::read_sidecar(data_directory)?
        .with_context(|| format!("the note beside {data_directory} is gone"))?;
    if !sidecar.belongs_to(&intention.system_identifier) {
        bail!("the note beside {data_directory} is another database's; nothing was done");
    }
    // Names that were only noted, of a timeline that was never followed, are not this copy's history.
    sidecar
        .epochs
        .retain(|epoch| epoch.timeline <= intention.timeline);
    sidecar.intended = Some(Epoch {
        uuid: Uuid::new_v4(),
        parent: intention.parent,
        supersedes: intention.supersedes.clone(),
        begin_lsn: intention.position,
        timeline: intention.timeline + 1,
        node: context.desired.node.clone(),
        time: clock::timestamp(),
    });
    write_sidecar(data_directory, &sidecar)
}

/// Says and records what this promotion may lose: before it is begun, since nobody can tell afterwards (the daemon may be
/// killed in its middle, and the next one finds a server that is promoted already).
fn record_loss(context: &Context<'_>, epoch: &Epoch, loss: &Loss) {
    let ago = |since| clock::timestamp_before(clock::now().since(since));
    let peer_seen = loss.peer_silent_since.map(ago).or(loss.peer_seen.clone());
    let peer_position = loss.peer_position.map(|position| position.to_string());
    let unknown = || "unknown".to_owned();
    tracing::info!(
        position = loss
            .position
            .map_or_else(unknown, |position| position.to_string()),
        replayed_until = loss.replayed_until.clone().unwrap_or_else(unknown),
        peer_position = peer_position.clone().unwrap_or_else(unknown),
        peer_seen = peer_seen.clone().unwrap_or_else(unknown),
        "what this copy has, and what the other laptop had when it was last seen"
    );
    history::record(
        &context.desired.home,
        "promotion",
        &serde_json::json!({
            "node": context.desired.node,
            "epoch": epoch.uuid,
            "position": loss.position,
            "replayed_until": loss.replayed_until,
            "peer_position": peer_position,
            "peer_seen": peer_seen,
        }),
    );
}

/// Ends recovery, to the first moment at which the server may be written to.
pub(super) async fn promote(context: &Context<'_>, loss: &Loss) -> Result<()> {
    let data_directory = &context.desired.postgres.data_directory;
    let sidecar = probe::read_sidecar(data_directory)?
        .with_context(|| format!("the note beside {data_directory} is gone"))?;
    let Some(epoch) = &sidecar.intended else {
        bail!("the epoch that this promotion begins has no name; nothing was done");
    };
    let client = context.connect().await?;
    if !in_recovery(&client).await? {
        return Ok(());
    }
    record_loss(context, epoch, loss);
    // Without waiting: `pg_promote(true)` looks only every 100 ms.
    session::query(&client, "select pg_promote(false)")
        .await
        .context("cannot promote the server")?;
    let begun = Instant::now();
    let deadline = begun + PROMOTION;
    let why = loop {
        match in_recovery(&client).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => break format!("{error:#}"),
        }
        if Instant::now() >= deadline {
            break format!(
                "it still recovers after {} s; it goes on by itself",
                PROMOTION.as_secs()
            );
        }
        // One that has much to replay is not to be disturbed.
        sleep(if begun.elapsed() < SOON { LOOK } else { LATER }).await;
    };
    Err(hinted(
        format!("the promotion did not end well: {why}"),
        format!(
            "the whole story is at the end of {}",
            context.desired.server_log()
        ),
    ))
}

async fn in_recovery(client: &Client) -> Result<bool> {
    let rows = session::query(client, "select pg_is_in_recovery()").await?;
    Ok(rows.first().and_then(|row| row.get(0)) != Some("f"))
}

/// Lets a paused replay go on.
pub(super) async fn resume_replay(context: &Context<'_>) -> Result<()> {
    let client = context.connect().await?;
    session::query(&client, "select pg_wal_replay_resume()")
        .await
        .context("cannot let the replay go on")?;
    let rows = session::query(&client, "select pg_is_wal_replay_paused()").await?;
    if rows.first().and_then(|row| row.get(0)) != Some("f") {
        bail!("the replay is paused again");
    }
    Ok(())
}

/// Writes a checkpoint.
pub(super) async fn checkpoint(context: &Context<'_>) -> Result<()> {
    let client = session::connect(context.desired, "postgres").await?;
    timeout(CHECKPOINT, client.simple_query("checkpoint"))
        .await
        .with_context(|| format!("the checkpoint did not end within {} s", CHECKPOINT.as_secs()))?
        .context("cannot write a checkpoint")?;
    Ok(())
}
