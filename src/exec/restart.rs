//! The request to restart the server, once that is done.

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

use super::Context;
use crate::observed::{Postmaster, RestartRequest};
use crate::probe::{postmaster, restart};
use crate::sys::files::sync_parent;

/// Removes the request of this name. A newer one stays, and so does one whose server still runs.
pub(super) fn forget(context: &Context<'_>, id: Uuid) -> Result<()> {
    let desired = context.desired;
    let Some(request) = restart::read(desired)?.filter(|request| request.id == id) else {
        return Ok(());
    };
    match postmaster::look(desired, &context.server_user()?)? {
        Postmaster::Running(running) if !restart::is_about(&request, &running) => {}
        Postmaster::Running(running) => bail!("process {} was not restarted yet", running.pid),
        Postmaster::Down { .. } => bail!("no server runs yet"),
    }
    let path = desired.home.join(RestartRequest::FILE);
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
    sync_parent(&path).with_context(|| format!("cannot remove {path} durably"))
}
