//! Signals to the daemon, as what they ask for.

use anyhow::{Context as _, Result};
use nix::sys::signal::SigSet;
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

/// Lets signals wait from now on, across an execution of another program.
pub fn hold_back() {
    let _ = all().thread_block();
}

/// Lets them in (again): the handlers are there.
pub fn let_in() {
    let _ = all().thread_unblock();
}

fn all() -> SigSet {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
    [SIGTERM, SIGINT, SIGHUP, SIGUSR2].into_iter().collect()
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
        let requests = Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user2: listen(SignalKind::user_defined2())?,
        };
        // The program that executed us may have held them back.
        let_in();
        Ok(requests)
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
