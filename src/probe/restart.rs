//! The request to restart the server, which `paceline restart` leaves in `home`.

use anyhow::{Context as _, Result};

use crate::desired::Desired;
use crate::observed::{RestartAsked, RestartRequest, RunningServer};
use crate::sys::{clock, files, net};

/// Reads the request; `None`: there is none.
pub fn read(desired: &Desired) -> Result<Option<RestartRequest>> {
    let path = desired.home.join(RestartRequest::FILE);
    files::read_if_there(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(text.map(|text| serde_json::from_str(&text)).transpose()?))
        .with_context(|| format!("cannot read {path}"))
}

/// The request, compared with the server that runs now.
pub(super) fn look(desired: &Desired, running: Option<&RunningServer>) -> Result<Option<RestartAsked>> {
    let Some(request) = read(desired)? else {
        return Ok(None);
    };
    let about_running = running.is_some_and(|running| is_about(&request, running));
    let port = desired.postgres.port;
    // The server's own port is in use by itself.
    let other_port = running.is_some_and(|running| running.port != port);
    Ok(Some(RestartAsked {
        id: request.id,
        about_running,
        port_taken: (other_port && net::first_in_use(&desired.postgres.listen_addresses, port).is_some())
            .then(|| net::listener(port).unwrap_or_else(|| "another program".to_owned())),
    }))
}

/// Whether a request is about this server.
pub fn is_about(request: &RestartRequest, running: &RunningServer) -> bool {
    let same = (request.pid, request.started) == (running.pid, running.started);
    // Where the boot cannot be told, number and start time have to do.
    same && clock::boot().is_none_or(|boot| boot == request.boot)
}
