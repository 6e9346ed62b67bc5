//! `/v1/events`: each new revision of the status document as a server-sent event, for pages and scripts.
//!
//! A stream is a connection that stays. So there are few of them, far fewer than connections in all: the other laptop's
//! questions always find a place. And each ends by itself: whoever wants more asks again, as browsers do.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::{LONGEST_WAIT, Published, Sources, starting};
use crate::status::Status;

/// So many streams at a time.
pub(super) const STREAMS: usize = 12;
/// After so long without news a comment shows that the stream lives.
const QUIET: Duration = Duration::from_secs(10);
/// Who does not take an event in this time gets no more.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn events(State(sources): State<Sources>, headers: HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&sources.streams).try_acquire_owned() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CACHE_CONTROL, "no-store"), (header::RETRY_AFTER, "5")],
            format!("{STREAMS} others follow the status already; /v1/status answers everybody\n"),
        )
            .into_response();
    };
    if sources.published.borrow().is_none() {
        return starting();
    }
    // A browser that asks again says what it saw last.
    let seen = headers
        .get("last-event-id")
        .and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(sources.published, seen, sender, place));
    (
        [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Body::new(Feed(receiver)),
    )
        .into_response()
}

/// Sends what is news until the reader is gone, or the stream's time is up.
async fn send(
    mut published: Published,
    mut seen: Option<String>,
    sender: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) {
    let end = Instant::now() + LONGEST_WAIT;
    let give = async |text: String| {
        timeout(PATIENCE, sender.send(Bytes::from(text)))
            .await
            .is_ok_and(|sent| sent.is_ok())
    };
    // How soon to ask again when it ends.
    if !give("retry: 1000\n\n".to_owned()).await {
        return;
    }
    loop {
        let now = published.borrow_and_update().clone();
        if let Some(status) = now {
            let id = Some(id(&status));
            if seen != id {
                let Some(event) = event(&status) else { return };
                if !give(event).await {
                    return;
                }
                seen = id;
            }
        }
        let quiet = (Instant::now() + QUIET).min(end);
        tokio::select! {
            // Cancel-safe: values of a watch channel stay marked as unseen.
            changed = published.changed() => if changed.is_err() {
                return;
            },
            // The place is free as soon as the reader is gone.
            () = sender.closed() => return,
            () = sleep_until(quiet) => {
                if quiet == end || !give(": still here\n\n".to_owned()).await {
                    return;
                }
            }
        }
    }
}

/// The name of a revision: each daemon counts from 1.
fn id(status: &Status) -> String {
    format!("{}-{}", status.pid, status.revision)
}

/// One event. JSON has no line feeds, so that it is one line of data.
fn event(status: &Status) -> Option<String> {
    let document = serde_json::to_string(status).ok()?;
    Some(format!("id: {}\nevent: status\ndata: {document}\n\n", id(status)))
}

/// What is sent, as the text of an answer.
struct Feed(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
