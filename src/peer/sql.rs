//! Asking the other laptop's PostgreSQL, for when its daemon does not answer, and to confirm a fact before something
//! that cannot be undone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryRow};

use super::address::{CONNECT, Resolver, authority, connect};
use super::auth::Secret;
use super::scram::{NO_PROOF, ScramOnly};
use super::trouble::{Trouble, io_cause};
use crate::desired::{Desired, PeerAddress, SslMode};
use crate::lineage::{Epoch, Lsn};
use crate::probe::server::{epochs, query};

/// How long connecting, logging in and asking may take together.
const LIMIT: Duration = Duration::from_secs(1);
/// A question that hangs in the server is not left there for good.
const OPTIONS: &str = "-c statement_timeout=2s -c lock_timeout=1s";

/// What the other laptop's server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlFacts {
    /// Which database.
    pub system_identifier: String,
    /// The timeline being written or followed; of a standby it may be an older one if `timeline_certain` is false.
    pub timeline: u32,
    /// Whether `timeline` is the one that `position` lies on: a plain replication role is not shown what a WAL receiver
    /// does (`grant pg_read_all_stats` shows it).
    pub timeline_certain: bool,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// It may be written to.
    pub writable: bool,
    /// A WAL receiver streams; false also if that is hidden.
    pub streaming: bool,
    /// Position written, or received and replayed.
    pub position: Lsn,
    /// The rows of `paceline.epoch`, oldest first; `None`: they cannot be read.
    pub epochs: Option<Vec<Epoch>>,
    /// Major version.
    pub major: u32,
}

/// A connection of its own to the other laptop's server, for questions that only one caller has. The server has proven
/// itself by SCRAM. The error holds a [`Trouble`].
pub async fn connect_to(desired: &Desired, peer: &PeerAddress) -> Result<Open> {
    let at = authority(&peer.host, peer.port);
    let addresses = Resolver::default().addresses(&peer.host).await?;
    let secret = super::our_secret(desired);
    let open = timeout(LIMIT, log_in(desired, peer, &addresses, &secret, &at))
        .await
        .unwrap_or_else(|_| {
            Err(Trouble::silent(format!(
                "PostgreSQL at {at} does not answer within {} ms",
                LIMIT.as_millis()
            )))
        });
    open.with_context(|| format!("cannot connect to the other laptop's server at {at}"))
}

/// Asks the other laptop's server once, over a connection of its own, within two seconds. The error holds a
/// [`Trouble`], which says whether anybody is there.
pub async fn ask(desired: &Desired, peer: &PeerAddress) -> Result<SqlFacts> {
    let addresses = Resolver::default().addresses(&peer.host).await?;
    let secret = super::our_secret(desired);
    Session::default()
        .ask(desired, peer, &addresses, &secret)
        .await
        .with_context(|| {
            format!(
                "cannot ask the other laptop's server at {}",
                authority(&peer.host, peer.port)
            )
        })
}

/// A connection that is kept open between questions.
#[derive(Debug, Default)]
pub(super) struct Session {
    open: Option<Open>,
}

/// An open connection.
#[derive(Debug)]
pub struct Open {
    /// Where questions are asked.
    pub client: Client,
    /// Carries the traffic; ends with the session, even when the server never answers.
    _carrier: JoinSet<()>,
}

impl Session {
    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Asks, over the open connection or a new one.
    pub(super) async fn ask(
        &mut self,
        desired: &Desired,
        peer: &PeerAddress,
        addresses: &[SocketAddr],
        secret: &Result<Secret, String>,
    ) -> Result<SqlFacts, Trouble> {
        let at = authority(&peer.host, peer.port);
        let asked = timeout(LIMIT, self.ask_patiently(desired, peer, addresses, secret, &at))
            .await
            .unwrap_or_else(|_| {
                Err(Trouble::silent(format!(
                    "PostgreSQL at {at} does not answer within {} ms",
                    LIMIT.as_millis()
                )))
            });
        if asked.is_err() {
            self.close();
        }
        asked
    }

    async fn ask_patiently(
        &mut self,
        desired: &Desired,
        peer: &PeerAddress,
        addresses: &[SocketAddr],
        secret: &Result<Secret, String>,
        at: &str,
    ) -> Result<SqlFacts, Trouble> {
        if self.open.as_ref().is_some_and(|open| open.client.is_closed()) {
            self.close();
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(log_in(desired, peer, addresses, secret, at).await?),
        };
        look(&open.client)
            .await
            .map_err(|error| trouble(at, desired, &error))
    }
}

async fn log_in(
    desired: &Desired,
    peer: &PeerAddress,
    addresses: &[SocketAddr],
    secret: &Result<Secret, String>,
    at: &str,
) -> Result<Open, Trouble> {
    let stream = connect(addresses, &peer.host, peer.port).await?;
    let same_machine =
        matches!((stream.local_addr(), stream.peer_addr()), (Ok(us), Ok(them)) if us.ip() == them.ip());
    if same_machine && peer.port == desired.postgres.port {
        return Err(Trouble::unauthenticated(format!(
            "PostgreSQL at {at} is this laptop's own server: correct `peer`"
        )));
    }
    // Somebody listens there. If we cannot find out who, that is not the same as nobody.
    let cannot = |why: &str| Trouble::unauthenticated(format!("PostgreSQL at {at} cannot be asked: {why}"));
    let secret = secret.as_ref().map_err(|why| cannot(why))?;
    match desired.replication.sslmode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => {}
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            return Err(cannot(
                "TLS is not supported yet for the daemon's own questions, and `replication: sslmode:` demands it",
            ));
        }
    }
    let mut config = Config::new();
    config
        .user(&desired.replication.user)
        .password(secret.password())
        .dbname("postgres")
        .application_name("paceline")
        .options(OPTIONS);
    let (client, connection) = timeout(CONNECT, config.connect_raw(ScramOnly::new(stream), NoTls))
        .await
        .map_err(|_| {
            Trouble::silent(format!(
                "PostgreSQL at {at} accepts the connection, but does not answer within {} ms",
                CONNECT.as_millis()
            ))
        })?
        .map_err(|error| trouble(at, desired, &error.into()))?;
    let mut carrier = JoinSet::new();
    carrier.spawn(async move { drop(connection.await) });
    Ok(Open {
        client,
        _carrier: carrier,
    })
}

async fn look(client: &Client) -> Result<SqlFacts> {
    let rows = query(client, include_str!("facts.sql")).await?;
    let row = rows.first().context("it gave no row")?;
    let in_recovery = text(row, "in_recovery")? == "t";
    Ok(SqlFacts {
        system_identifier: text(row, "system_identifier")?.to_owned(),
        timeline: text(row, "timeline")?
            .parse()
            .context("its timeline is no number")?,
        timeline_certain: text(row, "timeline_certain")? == "t",
        in_recovery,
        writable: !in_recovery && text(row, "read_only")? == "off",
        streaming: text(row, "streaming")? == "t",
        position: text(row, "position")?
            .parse()
            .map_err(|error: String| anyhow!(error))?,
        epochs: known_epochs(client).await?,
        major: text(row, "major")?.parse().context("its version is no number")?,
    })
}

/// The epochs, if we may read them and can.
async fn known_epochs(client: &Client) -> Result<Option<Vec<Epoch>>> {
    let error = match epochs(client).await {
        Ok(epochs) => return Ok(Some(epochs)),
        Err(error) => error,
    };
    if let Some(failed) = error.downcast_ref::<tokio_postgres::Error>()
        && failed.as_db_error().is_none()
    {
        // The server goes away: then nothing that it said before counts either.
        return Err(error);
    }
    tracing::debug!("the other laptop's epochs cannot be read: {error:#}");
    Ok(None)
}

fn text<'a>(row: &'a SimpleQueryRow, name: &str) -> Result<&'a str> {
    row.get(name).with_context(|| format!("it gave no {name}"))
}

/// What an error of the server or of the connection means.
fn trouble(at: &str, desired: &Desired, error: &anyhow::Error) -> Trouble {
    let user = &desired.replication.user;
    let found = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    if let Some(said) = found.and_then(tokio_postgres::Error::as_db_error) {
        let code = said.code();
        return if [
            &SqlState::CANNOT_CONNECT_NOW,
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
        ]
        .contains(&code)
        {
            Trouble::refused(format!("PostgreSQL at {at} is not ready: {}", said.message()))
        } else if [
            &SqlState::INVALID_PASSWORD,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        ]
        .contains(&code)
        {
            Trouble::unauthenticated(format!(
                "PostgreSQL at {at} does not let {user} in with our replication secret: {}; compare {} on both \
                 laptops, or run `paceline join`",
                said.message(),
                desired.replication.password_file
            ))
        } else {
            Trouble::unauthenticated(format!(
                "PostgreSQL at {at} does not answer {user}: {}",
                said.message()
            ))
        };
    }
    match io_cause(error.as_ref()) {
        Some(cause) if cause.kind() == NO_PROOF => {
            Trouble::unauthenticated(format!("PostgreSQL at {at} is not believed: {cause}"))
        }
        Some(cause) => Trouble::network(&format!("PostgreSQL at {at}"), cause),
        None if found.is_some_and(tokio_postgres::Error::is_closed) => {
            Trouble::refused(format!("PostgreSQL at {at} breaks the connection off"))
        }
        None => Trouble::unauthenticated(format!(
            "somebody answers at {at}, but not as our PostgreSQL does: {error:#}"
        )),
    }
}
