//! Asking a daemon over HTTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may be.
const LENGTH: usize = 1 << 20;

/// Asks the daemon that listens there for `path`; gives the answer's text.
pub(super) async fn get(listen: SocketAddr, path: &str) -> Result<String> {
    get_within(LIMIT, listen, path).await
}

/// The same, with less patience.
pub(super) async fn get_within(limit: Duration, listen: SocketAddr, path: &str) -> Result<String> {
    let address = reachable(listen);
    let ask = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = match Limited::new(response.into_body(), LENGTH).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => bail!("{error}"),
        };
        let text = String::from_utf8_lossy(&body).into_owned();
        if !code.is_success() {
            bail!("{code}: {}", text.trim());
        }
        Ok(text)
    };
    timeout(limit, ask)
        .await
        .unwrap_or_else(|_| Err(anyhow!("no answer within {} seconds", limit.as_secs())))
        .with_context(|| format!("no daemon answers at {address}"))
}

/// "All addresses" is no address to ask.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
