//! The read-only HTTP interface: the status document, the gate, and whether the daemon is alive.
//!
//! It serves what was published and asks nobody, so it cannot hold anything up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::status::Status;

/// What is served; `None` until the first look is done.
pub type Published = watch::Receiver<Option<Arc<Status>>>;

/// The longest a question may wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How many may ask at a time. The interface is open to the whole network, and must not use up what the daemon needs
/// to see its own server.
const CONNECTIONS: usize = 64;
/// How long somebody may take to ask.
const HEADER: Duration = Duration::from_secs(10);

/// Serves until dropped. An address that is in use does not keep the database from being looked after: it is said
/// once, and tried again.
pub async fn serve(listen: SocketAddr, published: Published) {
    let mut said = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                tracing::info!(%listen, "status is served");
                answer(&listener, &router(published.clone())).await;
            }
            Err(error) if !said => {
                said = true;
                let by = crate::sys::net::listener(listen.port())
                    .map(|by| format!(" by {by}"))
                    .unwrap_or_default();
                tracing::error!(
                    "cannot serve the status at {listen}{by}: {error}; everything else goes on, and it is tried again \
                     every 5 s (hint: set `api: listen:` to another port)"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Answers one question per connection, so that nobody keeps one for long.
async fn answer(listener: &TcpListener, router: &Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The one who asked is gone already, or there are no descriptors: not for long.
            Err(error) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A reader that does not read ends too.
            drop(tokio::time::timeout(LONGEST_WAIT + HEADER + HEADER, connection).await);
            drop(place);
        });
    }
}

fn router(published: Published) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/gate", get(gate))
        .route("/health", get(health))
        .with_state(published)
}

/// `?after=REVISION&wait=SECONDS`: answer when the revision is another, or after so long.
#[derive(Debug, Deserialize)]
struct Wait {
    after: Option<u64>,
    wait: Option<u64>,
}

async fn status(State(mut published): State<Published>, Query(wait): Query<Wait>) -> Response {
    let limit = Duration::from_secs(wait.wait.unwrap_or(0)).min(LONGEST_WAIT);
    let news = |status: &Option<Arc<Status>>| status.as_ref().is_some_and(|s| Some(s.revision) != wait.after);
    if wait.after.is_some() {
        // Without news the present document is the answer.
        drop(tokio::time::timeout(limit, published.wait_for(news)).await);
    }
    let now = published.borrow().clone();
    match now {
        Some(status) => (
            [(header::CACHE_CONTROL, "no-store")],
            Json(status.as_ref().clone()),
        )
            .into_response(),
        None => starting(),
    }
}

/// 200 only while the gate is open; for health checks and proxies.
async fn gate(State(published): State<Published>) -> Response {
    let now = published.borrow().clone();
    match now {
        Some(status) => {
            let code = if status.gate.state == "open" {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let text = format!("{}: {}\n", status.gate.state, status.gate.reason);
            (code, [(header::CACHE_CONTROL, "no-store")], text).into_response()
        }
        None => starting(),
    }
}

/// 200 while the daemon is alive, whatever the database does.
async fn health() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

fn starting() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::CACHE_CONTROL, "no-store")],
        "the daemon is starting\n",
    )
        .into_response()
}
