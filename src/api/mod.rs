//! The read-only HTTP interface: the status as document, as events, as a page and as numbers; the history; and yes or no
//! for health checks.
//!
//! It serves what was published and asks nobody, so it cannot hold anything up.

mod documents;
mod events;
mod metrics;
mod page;
mod probes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::desired::Desired;
use crate::peer::Knock;
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
    /// Told when somebody asks who may be the other laptop.
    knock: Knock,
    /// Places for those who follow the events.
    streams: Arc<Semaphore>,
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
pub async fn serve(
    listen: SocketAddr,
    published: Published,
    declared: watch::Receiver<Arc<Desired>>,
    knock: Knock,
) {
    let sources = Sources {
        published,
        declared,
        knock,
        streams: Arc::new(Semaphore::new(events::STREAMS)),
    };
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
        .route("/", get(page::page))
        .route("/v1/status", get(documents::status))
        .route("/v1/events", get(events::events))
        .route("/v1/history", get(documents::history))
        .route("/gate", get(probes::gate))
        .route("/primary", get(probes::primary))
        .route("/standby", get(probes::standby))
        .route("/replica", get(probes::standby))
        .route("/health", get(probes::health))
        .route("/metrics", get(metrics::metrics))
        .with_state(sources)
}

fn starting() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(header::CACHE_CONTROL, "no-store")],
        format!("{STARTING}\n"),
    )
        .into_response()
}
