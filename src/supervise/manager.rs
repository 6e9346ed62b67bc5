//! The service manager (systemd), if it started us: what it is told, and the sign of life that it waits for. Without one
//! nothing happens, and one that does not read holds nothing up.

use std::time::{Duration, Instant};

use crate::sys::systemd::{self, Datagrams, assignment, reloading};

/// The service manager's end of `$NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Manager {
    socket: Option<Datagrams>,
    /// How often it wants a sign of life; `None`: it wants none.
    watchdog: Option<Duration>,
    alive_at: Option<Instant>,
    /// What it was last told.
    status: String,
    ready: bool,
}

impl Manager {
    /// Whoever started us.
    pub fn new() -> Self {
        Self {
            socket: systemd::manager(),
            watchdog: systemd::watchdog(),
            alive_at: None,
            status: String::new(),
            ready: false,
        }
    }

    /// How the laptop is, in words; with the first ones we are ready.
    pub fn status(&mut self, words: &str) {
        if self.status == words && self.ready {
            return;
        }
        words.clone_into(&mut self.status);
        let ready = if self.ready { "" } else { "READY=1\n" };
        self.ready = true;
        self.tell(&format!("{ready}{}", assignment("STATUS", words)));
    }

    /// The state file was read, and is taken in by now.
    pub fn reloaded(&self) {
        if self.ready {
            self.tell(&reloading());
            self.tell("READY=1\n");
        }
    }

    /// We were asked to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// To be called whenever the loop goes round: it must be the loop itself that is alive. Says within which time it has
    /// to come round again.
    pub fn alive(&mut self) -> Option<Duration> {
        let half = self.watchdog? / 2;
        if self.alive_at.is_none_or(|at| at.elapsed() >= half / 2) {
            self.alive_at = Some(Instant::now());
            self.tell("WATCHDOG=1\n");
        }
        Some(half.saturating_sub(self.alive_at?.elapsed()))
    }

    /// A manager that does not listen is no reason to stop.
    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!("cannot tell the service manager: {error}");
        }
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}
