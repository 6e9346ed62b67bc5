//! `forget-peer`: ends the memory of another laptop that the state file no longer names. Until then that one is asked
//! whether it took over, and its silence is never taken for "there is none".

use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::{StateArgs, exit};
use crate::desired::{self, Surroundings};
use crate::hint::hinted;
use crate::observed::PeerMemory;
use crate::sys::clock;
use crate::sys::files::sync_parent;

pub(super) fn run(state: &StateArgs) -> Result<u8> {
    let path = desired::locate(state.state.as_deref())?;
    let desired = desired::load(&Surroundings::detect(&path, state.node.clone())?)?;
    if desired.peer.is_some() {
        return Err(hinted(
            format!("{path} still names another laptop; nothing was forgotten"),
            "take `peer` (or the other entry of `nodes`) out of the file first",
        ));
    }
    let memory = desired.home.join(PeerMemory::FILE);
    let aside = desired.home.join(format!(
        "{}.forgotten-{}",
        PeerMemory::FILE,
        clock::compact_timestamp()
    ));
    let mut out = anstream::stdout().lock();
    match fs::rename(&memory, &aside) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            writeln!(out, "no other laptop is remembered in {}", desired.home)?;
        }
        renamed => {
            renamed.with_context(|| format!("cannot move {memory} aside"))?;
            sync_parent(&memory).with_context(|| format!("cannot make the removal of {memory} durable"))?;
            writeln!(
                out,
                "the other laptop is forgotten; what was known of it is in {aside}"
            )?;
        }
    }
    Ok(exit::OK)
}
