//! The read-only HTTP interface: the status document, the history, the gate, and whether the daemon is alive.
//!
//! It serves what was published and asks nobody, so it cannot hold anything up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::desired::Desired;
use crate::peer::auth::{NONCE_HEADER, SEAL_HEADER, Secret, is_nonce};
use crate::peer::http::STARTING;
use crate::status::Status;

/// What is served; `None` until the first look is done.
pub type Published = watch::Receiver<Option<Arc<Status>>>;

/// What answers are made from.
#[derive(Clone)]
struct Sources {
    published: Published,
    /// Says where the secret is with which an answer is sealed.
    declared: watch::Receiver<Arc<Desired>>,
}

/// The longest a question may wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How many may ask at a time. The interface is open to the whole network, and must not use up what the daemon needs
/// to see its own server.
const CONNECTIONS: usize = 64;
/// How long somebody may take to ask.
const HEADER: Duration = Duration::from_secs(10);

/// Serves until dropped. Whoever asks for it gets the status document sealed with the secret that is declared at that
/// moment (see [`crate::peer::auth`]). An address that is in use does not keep the database from being looked after: it is said
/// once, and tried again.
pub async fn serve(listen: SocketAddr, published: Published, declared: watch::Receiver<Arc<Desired>>) {
    let sources = Sources { published, declared };
    let mut said = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                tracing::info!(%listen, "status is served");
                answer(&listener, &router(sources.clone())).await;
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

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/history", get(history))
        .route("/gate", get(gate))
        .route("/health", get(health))
        .with_state(sources)
}

/// `?after=REVISION&wait=SECONDS`: answer when the revision is another, or after so long.
#[derive(Debug, Deserialize)]
struct Wait {
    after: Option<u64>,
    wait: Option<u64>,
}

async fn status(
    State(mut sources): State<Sources>,
    uri: Uri,
    headers: HeaderMap,
    Query(wait): Query<Wait>,
) -> Response {
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
    if let Some(nonce) = headers.get(NONCE_HEADER).and_then(|nonce| nonce.to_str().ok())
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
struct Limit {
    limit: Option<usize>,
}

/// The most events that are given at a time.
const MOST_EVENTS: usize = 1000;

async fn history(State(sources): State<Sources>, Query(Limit { limit }): Query<Limit>) -> Response {
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

/// 200 only while the gate is open; for health checks and proxies.
async fn gate(State(sources): State<Sources>) -> Response {
    let now = sources.published.borrow().clone();
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
        format!("{STARTING}\n"),
    )
        .into_response()
}
