//! The documents: the status, for people and programs and, sealed, for the other laptop; and the history.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::watch;

use super::{LONGEST_WAIT, Sources, starting};
use crate::desired::Desired;
use crate::peer::auth::{NONCE_HEADER, SEAL_HEADER, Secret, is_nonce};
use crate::status::Status;

/// `?after=REVISION&wait=SECONDS`: answer when the revision is another, or after so long.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    after: Option<u64>,
    wait: Option<u64>,
}

pub(super) async fn status(
    State(mut sources): State<Sources>,
    uri: Uri,
    headers: HeaderMap,
    Query(wait): Query<Wait>,
) -> Response {
    let nonce = headers.get(NONCE_HEADER).and_then(|nonce| nonce.to_str().ok());
    if nonce.is_some_and(is_nonce) {
        // Only Paceline asks like this.
        sources.knock.heard();
    }
    let limit = Duration::from_secs(wait.wait.unwrap_or(0)).min(LONGEST_WAIT);
    let news = |status: &Option<Arc<Status>>| status.as_ref().is_some_and(|s| Some(s.revision) != wait.after);
    if wait.after.is_some() {
        // Without news the present document is the answer.
        drop(tokio::time::timeout(limit, sources.published.wait_for(news)).await);
    }
    let now = sources.published.borrow().clone();
    let Some(status) = now else { return starting() };
    let body = match serde_json::to_vec(status.as_ref()) {
        Ok(body) => body,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let mut answer = HeaderMap::new();
    if let Some(nonce) = nonce
        && is_nonce(nonce)
        && let Some(secret) = secret(&sources.declared)
        && let Some(question) = uri.path_and_query()
        && let Ok(seal) = secret.seal(nonce, question.as_str(), &body).parse()
    {
        answer.insert(SEAL_HEADER, seal);
    }
    (
        answer,
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        body,
    )
        .into_response()
}

/// `?limit=NUMBER`: how many of the newest events.
#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    limit: Option<usize>,
}

/// The most events that are given at a time.
const MOST_EVENTS: usize = 1000;

pub(super) async fn history(
    State(sources): State<Sources>,
    Query(Limit { limit }): Query<Limit>,
) -> Response {
    let home = sources.declared.borrow().home.clone();
    let count = limit.unwrap_or(200).min(MOST_EVENTS);
    // A slow disk must not keep the gate from closing.
    let read = tokio::task::spawn_blocking(move || crate::history::read(&home, count)).await;
    match read {
        Ok(Ok(events)) => (
            [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
            ],
            serde_json::Value::Array(events).to_string(),
        )
            .into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The secret of this moment: its file may appear or change at any time. One that cannot be used is a fact that the
/// status document shows; here it only means an answer without a seal.
fn secret(declared: &watch::Receiver<Arc<Desired>>) -> Option<Secret> {
    let file = declared.borrow().replication.password_file.clone();
    Secret::read(&file).ok().flatten()
}
