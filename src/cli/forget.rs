//! `forget-peer`: ends the memory of another laptop that the state file no longer names. Until then that one is asked
//! whether it took over, and its silence is never taken for "there is none".

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use tokio::time::{Instant, sleep, timeout_at};

use super::commands::load;
use super::role::{PATIENCE, note};
use super::{StateArgs, client, exit, refuse};
use crate::desired::Desired;
use crate::hint::hinted;
use crate::observed::{Failing, PeerMemory};
use crate::peer;
use crate::status::Status;
use crate::sys::clock;
use crate::sys::files::sync_parent;

/// So long the daemon may take to notice. It looks every second or two.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn run(state: &StateArgs, force: bool) -> Result<u8> {
    let (path, desired) = load(state)?;
    if let Some(peer) = &desired.peer {
        return refuse(
            &format!(
                "{path} still names another laptop ({}); nothing was forgotten",
                peer.host
            ),
            "take `peer` (or the other entry of `nodes`) out of the file first",
        );
    }
    let memory = desired.home.join(PeerMemory::FILE);
    if !memory.exists() {
        say(format!("no other laptop is remembered in {}", desired.home))?;
        return Ok(exit::OK);
    }
    if !force && let Some(why) = alive(&desired).await? {
        return refuse(
            &format!("{why}; nothing was forgotten"),
            "while it is written to, this laptop must know of it: switch that one off or end its daemon and server first, \
             or use --force if it is to go its own way from now on, with a database of its own",
        );
    }
    let aside = set_aside(&memory)?;
    say(format!(
        "the other laptop is forgotten; what was known of it is in {aside}"
    ))?;
    noticed(&desired, &memory).await?;
    Ok(exit::OK)
}

/// Whether that laptop is written to now.
async fn alive(desired: &Desired) -> Result<Option<String>> {
    let Some(link) = peer::ask_once(desired).await.link else {
        // What is remembered cannot be read, so that nobody can be asked.
        return Ok(None);
    };
    if let Some(facts) = link.answered {
        let name = facts.node.as_deref().unwrap_or("the other laptop").to_owned();
        if facts.writable() {
            return Ok(Some(format!("{name} answers, and its database is written to")));
        }
        note(format!("{name} still answers; its database is not written to"))?;
    } else if let Some(failed) = link.failed
        && failed.how == Failing::Unauthenticated
    {
        note(failed.why)?;
    }
    Ok(None)
}

/// Moves the memory aside; gives its new name.
fn set_aside(memory: &Utf8Path) -> Result<Utf8PathBuf> {
    let stamp = clock::compact_timestamp();
    let mut aside = Utf8PathBuf::from(format!("{memory}.forgotten-{stamp}"));
    let mut count = 1;
    while fs::symlink_metadata(&aside).is_ok() {
        count += 1;
        aside = Utf8PathBuf::from(format!("{memory}.forgotten-{stamp}-{count}"));
    }
    fs::rename(memory, &aside).map_err(|error| {
        hinted(
            format!("cannot move {memory} aside: {error}; nothing was forgotten"),
            "run this as the user that the daemon runs as (or root)",
        )
    })?;
    sync_parent(memory).with_context(|| format!("cannot make the removal of {memory} durable"))?;
    Ok(aside)
}

/// Waits until the daemon, if one runs, knows it too.
async fn noticed(desired: &Desired, memory: &Utf8Path) -> Result<()> {
    let end = Instant::now() + NOTICED_WITHIN;
    let ask = async |path: &str| -> Result<Status> {
        let text = client::get_within(PATIENCE * 3, desired.api_listen, path).await?;
        Ok(serde_json::from_str(&text)?)
    };
    let Ok(mut status) = ask("/v1/status").await else {
        // Nobody who could have to notice.
        return Ok(());
    };
    while status.peer.declared || memory.exists() {
        if memory.exists() {
            // An answer that was under way was written down.
            set_aside(memory)?;
        }
        let path = format!("/v1/status?after={}&wait=1", status.revision);
        match timeout_at(end, ask(&path)).await {
            Ok(Ok(news)) => status = news,
            Ok(Err(_)) => sleep(Duration::from_millis(100)).await,
            Err(_) => {
                return note(
                    "the daemon that runs here still asks that laptop: does it run with this state file? `paceline status` \
                     shows it",
                );
            }
        }
    }
    say("the daemon knows it: there is no other laptop any more")
}

fn say(text: impl std::fmt::Display) -> Result<()> {
    writeln!(anstream::stdout().lock(), "{text}")?;
    Ok(())
}
