//! Asking the other laptop's daemon for its status document. Nothing is believed before its seal is checked.

use std::net::SocketAddr;
use std::time::Duration;

use camino::Utf8Path;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::{authority, connect};
use super::auth::{NONCE_HEADER, SEAL_HEADER, Secret, nonce};
use super::trouble::{Trouble, io_cause};
use crate::desired::PeerAddress;
use crate::status::Status;

/// How long an answer may take beyond the time that it was asked to wait.
const ANSWER: Duration = Duration::from_millis(700);
/// How long a document may be.
const LENGTH: usize = 1 << 20;
/// How long all headers together may be, and how many.
const HEADER_LENGTH: usize = 16 << 10;
const HEADERS: usize = 32;
/// What a daemon answers before it has looked for the first time.
pub(crate) const STARTING: &str = "the daemon is starting";

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// Whom.
    pub(super) peer: &'a PeerAddress,
    /// Its addresses, with port 0.
    pub(super) addresses: &'a [SocketAddr],
    /// Our secret, or why there is none.
    pub(super) secret: &'a Result<Secret, String>,
    /// Where it is, for people.
    pub(super) password_file: &'a Utf8Path,
    /// The revision that we know.
    pub(super) after: Option<u64>,
    /// So many seconds the answer is to wait for another one.
    pub(super) wait: u64,
}

impl Question<'_> {
    fn path(&self) -> String {
        match self.after {
            Some(after) => format!("/v1/status?after={after}&wait={}", self.wait),
            None => "/v1/status".to_owned(),
        }
    }
}

/// Asks; gives a document that was made with our secret, for this question.
pub(super) async fn ask(question: Question<'_>) -> Result<Status, Trouble> {
    let at = authority(&question.peer.host, question.peer.api_port);
    let limit = Duration::from_secs(question.wait) + ANSWER;
    timeout(limit, exchange(question, &at))
        .await
        .map_err(|_| Trouble::silent(format!("{at} does not answer within {} ms", limit.as_millis())))?
}

async fn exchange(question: Question<'_>, at: &str) -> Result<Status, Trouble> {
    let Question { peer, secret, .. } = question;
    let stream = connect(question.addresses, &peer.host, peer.api_port).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEADER_LENGTH)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| understood(at, &error))?;
    // The connection ends with the question, whatever the other end does.
    let mut carrier = JoinSet::new();
    carrier.spawn(async move { drop(connection.await) });

    let nonce = nonce();
    let path = question.path();
    let request = Request::get(&path)
        .header(HOST, at)
        .header(NONCE_HEADER, &nonce)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::silent(format!("{at} cannot be asked: {error}")))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| understood(at, &error))?;
    let code = response.status();
    let seal = response.headers().get(SEAL_HEADER).cloned();
    let body = read(response, at).await?;

    if code == StatusCode::SERVICE_UNAVAILABLE && body.trim_ascii() == STARTING.as_bytes() {
        return Err(Trouble::refused(format!("the daemon at {at} is starting")));
    }
    if code != StatusCode::OK {
        return Err(Trouble::unauthenticated(format!(
            "somebody answers at {at}, but with {code}, as no Paceline does (hint: is `peer: api_port:` right?)"
        )));
    }
    let secret = secret.as_ref().map_err(|why| {
        Trouble::unauthenticated(format!(
            "somebody answers at {at}, but whether it is ours cannot be told: {why}"
        ))
    })?;
    let sealed = |seal: HeaderValue| {
        seal.to_str()
            .is_ok_and(|seal| secret.sealed(seal, &nonce, &path, &body))
    };
    match seal {
        Some(seal) if sealed(seal.clone()) => {}
        Some(_) => {
            return Err(Trouble::unauthenticated(format!(
                "somebody answers at {at}, but not with our replication secret; compare {} on both laptops, or run \
                 `paceline join`",
                question.password_file
            )));
        }
        None => {
            return Err(Trouble::unauthenticated(format!(
                "somebody answers at {at}, but does not show that it knows our replication secret, as if it had none; \
                 look for {} on both laptops, or run `paceline join`",
                question.password_file
            )));
        }
    }
    serde_json::from_slice(&body).map_err(|error| {
        Trouble::unauthenticated(format!(
            "the daemon at {at} has our secret, but its document cannot be understood: {error} (hint: use the same \
             version of Paceline on both laptops)"
        ))
    })
}

/// The whole text of an answer.
async fn read(response: Response<Incoming>, at: &str) -> Result<Bytes, Trouble> {
    match Limited::new(response.into_body(), LENGTH).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Trouble::unauthenticated(format!(
            "somebody answers at {at}, but with more than {LENGTH} bytes, as no Paceline does"
        ))),
        Err(error) => Err(match io_cause(error.as_ref()) {
            Some(cause) => Trouble::network(at, cause),
            None => Trouble::refused(format!("{at} breaks its answer off ({error})")),
        }),
    }
}

/// What an error of the protocol means.
fn understood(at: &str, error: &hyper::Error) -> Trouble {
    if let Some(cause) = io_cause(error) {
        return Trouble::network(at, cause);
    }
    if error.is_parse() || error.is_parse_too_large() {
        return Trouble::unauthenticated(format!("somebody answers at {at}, but not in HTTP ({error})"));
    }
    Trouble::refused(format!("{at} breaks the connection off ({error})"))
}
