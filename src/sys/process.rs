//! Processes by handle, never by bare number: a process id may belong to somebody else tomorrow.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use camino::Utf8PathBuf;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which process is meant: the number alone is reused, together with its start time it is not (until a reboot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub started: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was not our child, so only its end is known.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Self::Unknown => f.write_str("ended while nobody was watching"),
        }
    }
}

/// A live process that we hold a handle of.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// Opens a handle; `None`: there is no such process, or it is dead and only waits to be reaped, or the number is
    /// that of a thread. The start time is read after the handle is open, so that both belong to one process.
    pub fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(number) = rustix::process::Pid::from_raw(pid) else {
            return Ok(None);
        };
        let handle = match pidfd_open(number, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            // EINVAL: a thread that leads no process.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let Some(stat) = Stat::read(pid)? else {
            return Ok(None);
        };
        if stat.dead() {
            reap(&handle);
            return Ok(None);
        }
        Ok(Some(Self {
            id: ProcessId {
                pid,
                started: stat.started,
            },
            handle: register(handle)?,
        }))
    }

    /// Opens a handle of exactly this process.
    pub fn reopen(id: ProcessId) -> io::Result<Option<Self>> {
        Ok(Self::open(id.pid)?.filter(|process| process.id == id))
    }

    /// Which process this is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends a signal to the process alone. A process that is gone already is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else {
            return Err(io::Error::from_raw_os_error(nix::libc::EINVAL));
        };
        match pidfd_send_signal(self.handle.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until the process has ended; reaps it if it is our child. Can be dropped and called again.
    pub async fn ended(&self) -> Exit {
        // An error can only mean that the runtime is going away; then nobody looks at the answer.
        drop(self.handle.readable().await);
        reap(self.handle.get_ref())
    }
}

/// Waits on a descriptor by the runtime.
#[expect(unsafe_code, reason = "tokio cannot see that a descriptor stays the same")]
pub(super) fn register(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.map_err(io::Error::from)
}

/// Signals a whole process group. One that is empty is no error.
pub fn signal_group(leader: i32, signal: Signal) -> io::Result<()> {
    match killpg(Pid::from_raw(leader), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn reap(handle: &OwnedFd) -> Exit {
    match waitid(
        Id::PIDFd(handle.as_fd()),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG,
    ) {
        Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
        // ECHILD: it was adopted, not started by us.
        Ok(_) | Err(_) => Exit::Unknown,
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// One letter: R, S, D, T, Z …
    pub state: char,
    /// Parent process.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

impl Stat {
    /// Reads it; `None`: no such process.
    pub fn read(pid: i32) -> io::Result<Option<Self>> {
        let text = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        // The name in parentheses may hold anything, so fields are counted from its end.
        let parse = || {
            let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
            Some(Self {
                state: fields.first()?.chars().next()?,
                parent: fields.get(1)?.parse().ok()?,
                group: fields.get(2)?.parse().ok()?,
                started: fields.get(19)?.parse().ok()?,
            })
        };
        parse()
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat: {text:?}")))
    }

    /// Whether only the table entry is left, waiting for its parent.
    pub fn dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Whether `pid` is the number of a thread rather than of a process (`kill(tid, 0)` succeeds for both).
pub fn is_thread(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
        status
            .lines()
            .find_map(|l| l.strip_prefix("Tgid:"))
            .is_some_and(|t| t.trim() != pid.to_string())
    })
}

/// The program that a process runs; a deleted one (after a package upgrade) without the kernel's " (deleted)".
pub fn executable(pid: i32) -> io::Result<Utf8PathBuf> {
    let link = fs::read_link(format!("/proc/{pid}/exe"))?;
    let text = link.to_string_lossy();
    Ok(Utf8PathBuf::from(
        text.strip_suffix(" (deleted)").unwrap_or(&text),
    ))
}

/// The arguments a process was started with, the program included.
pub fn arguments(pid: i32) -> io::Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let mut parts: Vec<String> = bytes
        .split(|b| *b == 0)
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect();
    parts.pop();
    Ok(parts)
}

/// All process ids there are now.
pub fn all() -> io::Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Processes that were started with `name=value` in their environment, by process group: which groups, and their
/// members. Processes whose environment we may not read are not ours and are passed over.
pub fn with_environment(name: &str, value: &str) -> io::Result<Vec<i32>> {
    let wanted = format!("{name}={value}");
    let found = all()?.into_iter().filter(|pid| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()))
    });
    Ok(found.collect())
}
