//! The two sockets of systemd: its notifications (`sd_notify`) and the journal's native protocol.
//!
//! Everything is one datagram that is sent or not: a service manager or a journal that does not read must not hold the
//! daemon up. The environment variables stay as they are, for a program that is executed in our place; whoever is
//! started by us gets an environment without them (see [`super::spawn`]).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;

/// Where the journal takes entries with fields.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// What programs that we start as ourselves must not inherit: it is said to this process.
pub const OURS: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"];

/// A datagram socket that is never waited for.
#[derive(Debug)]
pub struct Datagrams {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Datagrams {
    /// To a path, or with an `@` to an abstract name.
    pub fn to(address: &std::ffi::OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Sends one.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // By address and not by a connection: who listens there may have been started anew.
        self.socket.send_to_addr(bytes, &self.address).map(drop)
    }
}

/// Whoever started us and wants to hear how we are; `None`: nobody asked.
pub fn manager() -> Option<Datagrams> {
    let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
    Datagrams::to(&address)
        .inspect_err(|error| tracing::warn!("cannot notify {}: {error}", address.display()))
        .ok()
}

/// After how much silence the manager takes us for hung; `None`: it does not watch us.
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.trim().parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC")
        .filter(|limit| meant && *limit > 0)
        .map(Duration::from_micros)
}

/// One assignment of a notification. A value is one line, and no longer than systemd shows.
pub fn assignment(name: &str, value: &str) -> String {
    let one_line: String = value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect();
    format!("{name}={one_line}\n")
}

/// What announces a reload: with the time, so that the manager can tell it from one before.
pub fn reloading() -> String {
    let now = clock::monotonic().as_micros();
    format!("RELOADING=1\nMONOTONIC_USEC={now}\n")
}

/// Whether our standard error is the journal: then fields can be sent beside the text, and nobody reads colours.
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Adds a field to an entry of the journal, in the form that lets any byte be in the value.
pub fn put_field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line end in a value would begin another assignment: a name in the state file could say READY, or worse.
    #[test]
    fn a_value_adds_no_assignment() {
        assert_eq!(
            assignment("STATUS", "a\nREADY=1\r\u{85}b"),
            "STATUS=a READY=1  b\n"
        );
        assert_eq!(assignment("STATUS", &"ö".repeat(9000)).chars().count(), 508);
    }

    #[test]
    fn a_field_may_hold_anything() {
        let mut entry = Vec::new();
        put_field(&mut entry, "A", "b=c");
        put_field(&mut entry, "D", "1\n2");
        assert_eq!(entry, b"A=b=c\nD\n\x03\0\0\0\0\0\0\x001\n2\n");
    }
}
