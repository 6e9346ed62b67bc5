//! The service manager (systemd), if it started us: what it is told, and the sign of life that it waits for. Without one
//! nothing happens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager's end of `$NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Manager {
    /// How often it wants a sign of life; `None`: it wants none.
    watchdog: Option<Duration>,
    alive_at: Instant,
    /// What it was last told.
    status: String,
    ready: bool,
}

impl Manager {
    /// Whoever started us.
    pub fn new() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            alive_at: Instant::now(),
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
        if self.ready {
            tell(&[NotifyState::Status(words)]);
        } else {
            self.ready = true;
            tell(&[NotifyState::Ready, NotifyState::Status(words)]);
        }
    }

    /// The state file is read, and taken in when this returns.
    pub fn reloaded(&self) {
        if !self.ready {
            return;
        }
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        tell(&[NotifyState::Ready]);
    }

    /// We were asked to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// To be called whenever the loop goes round: it must be the loop itself that is alive. Says within which time it has
    /// to come round again.
    pub fn alive(&mut self) -> Option<Duration> {
        let half = self.watchdog? / 2;
        if self.alive_at.elapsed() >= half / 2 {
            self.alive_at = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
        Some(half.saturating_sub(self.alive_at.elapsed()))
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self::new()
    }
}

/// A manager that does not listen is no reason to stop.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("cannot tell the service manager: {error}");
    }
}
