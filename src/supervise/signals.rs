//! Signals to the daemon, as what they ask for.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What somebody asks of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM, SIGINT: stop the application, then the server, then end.
    End,
    /// SIGHUP: read the state file now.
    Reread,
    /// SIGUSR2: execute the program anew, in place; server and application go on.
    Reexecute,
}

/// Where requests come in.
#[derive(Debug)]
pub struct Requests {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user2: Signal,
}

impl Requests {
    /// Takes over the signals.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }

    /// The next request. Cancel-safe.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
            _ = self.hangup.recv() => Request::Reread,
            _ = self.user2.recv() => Request::Reexecute,
        }
    }
}
