//! Yes or no, for health checks and proxies: by the answer's code.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Sources, starting};
use crate::status::Status;

/// 200 only while the gate is open.
pub(super) async fn gate(State(sources): State<Sources>) -> Response {
    answer(&sources, |status| {
        let gate = &status.gate;
        (gate.state == "open", format!("{}: {}", gate.state, gate.reason))
    })
}

/// 200 while this laptop's database is the one to write to: its server may be written to, and the gate is open or there is
/// no application that it would hold back.
pub(super) async fn primary(State(sources): State<Sources>) -> Response {
    answer(&sources, |status| {
        let open = status.app.is_none() || status.gate.state == "open";
        (status.server.state == "writable" && open, in_words(status))
    })
}

/// 200 while this laptop follows the other one.
pub(super) async fn standby(State(sources): State<Sources>) -> Response {
    answer(&sources, |status| {
        let follows = status.server.state == "read_only" && status.server.streaming;
        (follows, in_words(status))
    })
}

/// 200 while the daemon is alive, whatever the database does.
pub(super) async fn health() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

fn in_words(status: &Status) -> String {
    let server = &status.server;
    let streaming = if server.streaming { ", streaming" } else { "" };
    format!(
        "the server is {}{streaming}; the gate is {}: {}",
        server.state, status.gate.state, status.gate.reason
    )
}

fn answer(sources: &Sources, judge: impl FnOnce(&Status) -> (bool, String)) -> Response {
    let now: Option<Arc<Status>> = sources.published.borrow().clone();
    let Some(status) = now else { return starting() };
    let (yes, words) = judge(&status);
    let code = if yes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, [(header::CACHE_CONTROL, "no-store")], format!("{words}\n")).into_response()
}
