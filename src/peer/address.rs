//! From a name to a connection, within a limit. Attempts never pile up: one that hangs in the resolver is waited for
//! again, not repeated.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::trouble::Trouble;

/// How long looking up a name, and how long connecting may take. A laptop in the same room needs some milliseconds.
pub(super) const CONNECT: Duration = Duration::from_millis(700);
/// How long a name is looked up again while its old addresses could be tried.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many addresses of one name are tried, all at the same time.
const MOST: usize = 4;

/// Host and port as one reads them.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Looks a name up, and remembers its addresses as long as they work: a resolver that is away (the race's router was
/// switched off) does not take the other laptop away.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    host: String,
    known: Vec<SocketAddr>,
    /// The last attempt failed, so the addresses may have changed.
    doubtful: bool,
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// The addresses of a host, with port 0.
    pub(super) async fn addresses(&mut self, host: &str) -> Result<Vec<SocketAddr>, Trouble> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, 0)]);
        }
        if self.host != host {
            *self = Self {
                host: host.to_owned(),
                ..Self::default()
            };
        }
        if !self.known.is_empty() && !self.doubtful {
            return Ok(self.known.clone());
        }
        let lookup = self.lookup.get_or_insert_with(|| {
            let host = host.to_owned();
            tokio::spawn(async move { Ok(lookup_host((host, 0)).await?.take(MOST).collect()) })
        });
        let limit = if self.known.is_empty() {
            CONNECT
        } else {
            LOOK_AGAIN
        };
        // Cancel-safe: a lookup that is not done is kept, and waited for at the next attempt.
        let why = match timeout(limit, lookup).await {
            Err(_) => format!("it takes more than {} ms", limit.as_millis()),
            Ok(found) => {
                self.lookup = None;
                match found.map_err(io::Error::other).and_then(|found| found) {
                    Ok(found) if !found.is_empty() => {
                        self.known = found;
                        self.doubtful = false;
                        String::new()
                    }
                    Ok(_) => "it has none".to_owned(),
                    Err(error) => error.to_string(),
                }
            }
        };
        if self.known.is_empty() {
            return Err(Trouble::silent(format!(
                "the address of {host} cannot be found: {why} (hint: an IP address in `peer` needs no lookup)"
            )));
        }
        Ok(self.known.clone())
    }

    /// Nobody answered there.
    pub(super) fn doubt(&mut self) {
        self.doubtful = true;
    }
}

/// Connects to the first of the addresses that accepts.
pub(super) async fn connect(addresses: &[SocketAddr], host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let at = authority(host, port);
    let race = async {
        let mut runners = JoinSet::new();
        for address in addresses {
            let mut address = *address;
            address.set_port(port);
            runners.spawn(TcpStream::connect(address));
        }
        let mut trouble = Trouble::silent(format!("{at} has no address"));
        while let Some(done) = runners.join_next().await {
            match done.map_err(io::Error::other).and_then(|connected| connected) {
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = Trouble::network(&at, &error),
            }
        }
        Err(trouble)
    };
    let stream = timeout(CONNECT, race)
        .await
        .map_err(|_| Trouble::silent(format!("{at} does not answer within {} ms", CONNECT.as_millis())))??;
    // Questions and answers are small, and somebody waits for each.
    stream
        .set_nodelay(true)
        .map_err(|error| Trouble::network(&at, &error))?;
    Ok(stream)
}
