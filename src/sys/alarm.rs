//! A timer that goes on while the laptop sleeps, and how to tell that it slept.
//!
//! Timers of the runtime count CLOCK_MONOTONIC, which stands still during a suspend: with the lid opened again they would
//! go on for what was left of them, while an application writes to a database that the other laptop took over meanwhile.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::process::register;

/// A timer on CLOCK_BOOTTIME.
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// A timer that is not set. To be called inside a runtime.
    pub fn new() -> Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .context("cannot make a timer on CLOCK_BOOTTIME")?;
        Ok(Self(register(timer).context("cannot wait for a timer")?))
    }

    /// Returns after this time; suspended time counts. Dropped before that, it is simply not waited for.
    pub async fn after(&self, time: Duration) {
        // Zero would turn the timer off.
        let time = time.max(Duration::from_micros(1));
        let value = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(time.subsec_nanos()),
            },
        };
        // Neither can fail for a descriptor that is one of a timer and a value that is valid; if it did, a fast look is
        // the lesser evil.
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &value).is_err() {
            return;
        }
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return;
            };
            let mut count = [0; 8];
            match rustix::io::read(self.0.get_ref(), &mut count) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Ok(_) | Err(_) => {
                    ready.clear_ready();
                    return;
                }
            }
        }
    }
}

/// Tells whether the laptop slept, by comparing the clock that goes on meanwhile with the one that does not.
#[derive(Clone, Copy, Debug)]
pub struct Slept {
    ahead: Option<Duration>,
}

/// Less than this is no sleep: the two clocks are read one after the other.
const NOTICEABLE: Duration = Duration::from_millis(500);

impl Slept {
    /// From now on.
    pub fn since_now() -> Self {
        Self { ahead: ahead() }
    }

    /// For how long it slept since this was last asked; `None`: not at all.
    pub fn check(&mut self) -> Option<Duration> {
        self.at(ahead())
    }

    fn at(&mut self, now: Option<Duration>) -> Option<Duration> {
        let before = std::mem::replace(&mut self.ahead, now);
        now?.checked_sub(before?).filter(|slept| *slept >= NOTICEABLE)
    }
}

/// How far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: all the time that the laptop slept since it was switched on.
fn ahead() -> Option<Duration> {
    let read = |clock| clock_gettime(clock).ok().map(Duration::from);
    let monotonic = read(ClockId::CLOCK_MONOTONIC)?;
    Some(read(ClockId::CLOCK_BOOTTIME)?.saturating_sub(monotonic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_told_from_a_moment_between_two_readings() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let mut slept = Slept { ahead: ms(5000) };
        assert_eq!(slept.at(ms(5001)), None);
        assert_eq!(slept.at(ms(65_001)), ms(60_000));
        assert_eq!(slept.at(ms(65_001)), None);
        // A clock that cannot be read says nothing.
        assert_eq!(slept.at(None), None);
        assert_eq!(slept.at(ms(99_000)), None);
    }

    #[test]
    fn the_alarm_rings_again_and_again() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let alarm = Alarm::new().expect("alarm");
            for _ in 0..3 {
                alarm.after(Duration::from_millis(1)).await;
            }
            alarm.after(Duration::ZERO).await;
            // One that nobody waits for any more does not ring later.
            drop(tokio::time::timeout(Duration::from_millis(1), alarm.after(Duration::from_secs(60))).await);
            alarm.after(Duration::from_millis(1)).await;
        });
    }
}
