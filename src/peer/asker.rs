//! One round of asking: the daemon, and its server as soon as the daemon fails or is late.

use std::time::Duration;

use tokio::time::timeout;

use super::address::{Resolver, authority};
use super::document;
use super::http::{self, Question};
use super::sql::{Session, SqlFacts};
use super::trouble::Trouble;
use crate::desired::{Desired, PeerAddress};
use crate::observed::{Moment, PeerFacts};
use crate::status::Status;
use crate::sys::clock;

/// A daemon that is later than this is late: its server is asked at the same time.
const LATE: Duration = Duration::from_millis(200);

/// What came of a round.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The daemon answered, with our secret: its document's revision.
    Daemon(Box<PeerFacts>, u64),
    /// Only its server answered; why its daemon did not.
    Server(Box<PeerFacts>, Trouble),
    /// Nobody did, or nobody whom we believe.
    Failed(Trouble),
}

/// Asks, and keeps what is dear to make: addresses and a connection to the server.
#[derive(Debug, Default)]
pub(super) struct Asker {
    resolver: Resolver,
    session: Session,
}

impl Asker {
    /// Asks for news after a revision, waiting for so many seconds. Takes that long and 1.5 s more at most (and 0.7 s
    /// for a name that has to be looked up). May be dropped at any point.
    pub(super) async fn ask(
        &mut self,
        desired: &Desired,
        peer: &PeerAddress,
        after: Option<u64>,
        wait: u64,
    ) -> Outcome {
        let asked_at = clock::now();
        let secret = super::our_secret(desired);
        let addresses = match self.resolver.addresses(&peer.host).await {
            Ok(addresses) => addresses,
            Err(trouble) => return Outcome::Failed(trouble),
        };
        let wait = if after.is_some() { wait } else { 0 };
        let daemon = http::ask(Question {
            peer,
            addresses: &addresses,
            secret: &secret,
            password_file: &desired.replication.password_file,
            after,
            wait,
        });
        tokio::pin!(daemon);

        let on_time = timeout(Duration::from_secs(wait) + LATE, &mut daemon).await;
        if let Ok(Ok(status)) = on_time {
            return self.answered(desired, peer, &status, asked_at);
        }
        let (daemon_said, server_said) = {
            let server = async {
                let asked_at = clock::now();
                let facts = self.session.ask(desired, peer, &addresses, &secret).await?;
                Ok((facts, asked_at, clock::now()))
            };
            tokio::pin!(server);
            let mut server_said: Option<Result<(SqlFacts, Moment, Moment), Trouble>> = None;
            let daemon_said = match on_time {
                Ok(said) => said,
                Err(_) => loop {
                    tokio::select! {
                        said = &mut daemon => break said,
                        said = &mut server, if server_said.is_none() => server_said = Some(said),
                    }
                },
            };
            if daemon_said.is_err() && server_said.is_none() {
                server_said = Some(server.await);
            }
            (daemon_said, server_said)
        };
        match (daemon_said, server_said) {
            (Ok(status), _) => self.answered(desired, peer, &status, asked_at),
            (Err(trouble), Some(Ok((facts, asked_at, at)))) => {
                Outcome::Server(Box::new(document::facts_over_sql(&facts, asked_at, at)), trouble)
            }
            (Err(trouble), Some(Err(server))) => {
                self.resolver.doubt();
                Outcome::Failed(trouble.and(&server))
            }
            (Err(trouble), None) => Outcome::Failed(trouble),
        }
    }

    /// A daemon answered with our secret. It is not the other laptop's if it is this very one: `peer` may name our own
    /// address, and a stranger may pass our question on to ourselves.
    fn answered(
        &mut self,
        desired: &Desired,
        peer: &PeerAddress,
        status: &Status,
        asked_at: Moment,
    ) -> Outcome {
        self.session.close();
        if status.node == desired.node && status.pid == std::process::id() {
            // Not silence: nothing may be concluded about the other laptop from our own answer.
            return Outcome::Failed(Trouble::unauthenticated(format!(
                "{} is this very daemon: correct `peer`",
                authority(&peer.host, peer.api_port)
            )));
        }
        let facts = document::facts(status, &desired.node, asked_at, clock::now());
        Outcome::Daemon(Box::new(facts), status.revision)
    }
}
