//! The clocks: for ages and time limits, for systemd, for people.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::observed::Moment;

/// Now, on CLOCK_BOOTTIME: it never jumps, and it goes on while the laptop's lid is closed (Rust's `Instant` does
/// not, so that an age measured with it looks fresh after a suspend).
pub fn now() -> Moment {
    // The clock exists on every Linux that can run this; a failure could only mean a wrong clock number.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Moment::default(), |t| Moment::from_boot(Duration::from(t)))
}

/// Names the time since the machine was last switched on; `None`: that cannot be told.
pub fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Now, on CLOCK_MONOTONIC, which stands still while the laptop sleeps: what systemd counts by.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The same, so long ago.
pub fn timestamp_before(ago: Duration) -> String {
    let then = jiff::Timestamp::now().checked_sub(ago);
    then.map_or_else(
        |_| timestamp(),
        |then| then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// The same without colons and dashes, for the names of files.
pub fn compact_timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Wall-clock time for people, RFC 3339 in UTC with whole seconds. Never used to decide anything.
pub fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Wall-clock time as above, with milliseconds: for what comes within the same second.
pub fn exact_timestamp() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}
