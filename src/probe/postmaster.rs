//! The server's process: what `postmaster.pid` claims and what `/proc` proves.
//!
//! A process id in a file proves nothing: it may be dead, a zombie, another program's by now, or the number of one of
//! our own threads, for which `kill(pid, 0)` succeeds too (POSTGRES-FACTS 21). A postmaster is a live process that
//! leads its threads, runs a program called `postgres` and has this data directory as its working directory. The start
//! time in the file is not compared: it is wall-clock time, and a laptop that gets its time from the network after the
//! start would then take its own server for somebody else's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use camino::Utf8Path;

use crate::desired::Desired;
use crate::observed::{Postmaster, RunningServer, ServerPhase};
use crate::supervise::postgres::config_file_argument;
use crate::sys::files;
use crate::sys::process::{self, Stat};
use crate::sys::users::{self, Identity};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    /// Line 1.
    pub pid: i32,
    /// It is a server for a single user, which nobody can connect to.
    pub single: bool,
    /// Line 4; absent for an instant while the server starts.
    pub port: Option<u16>,
    /// Line 8; absent until the server writes it.
    pub phase: Option<ServerPhase>,
}

/// Whom a process id belongs to, as far as the data directory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: there is no such process.
    Dead,
    /// A process that is dead and waits for its parent to notice. It holds nothing any more, except its number.
    Zombie,
    /// A thread, or a process that is no server of this data directory.
    Somebody,
    /// A server of this data directory.
    Server,
}

/// Looks for a server on the declared data directory.
pub fn look(desired: &Desired, server_user: &Identity) -> Result<Postmaster> {
    let place = Place::find(desired, server_user)?;
    if let Some(file) = read_pid_file(&desired.postgres.data_directory)?
        // One for a single user is a tool of ours, or of a person; it counts among the leftovers, which are waited for.
        && !file.single
        && place.holder(file.pid)? == Holder::Server
        && let Some(stat) = Stat::read(file.pid)?
    {
        let arguments = process::arguments(file.pid).unwrap_or_default();
        return Ok(Postmaster::Running(RunningServer {
            pid: file.pid,
            started: stat.started,
            port: file.port.unwrap_or(desired.postgres.port),
            phase: file.phase.unwrap_or(ServerPhase::Starting),
            ours: arguments.contains(&config_file_argument(&desired.conf_directory())),
            command_line: arguments.join(" "),
        }));
    }
    Ok(Postmaster::Down {
        leftovers: place.leftovers()?,
    })
}

/// Whom a process id belongs to.
pub fn holder(pid: i32, desired: &Desired, server_user: &Identity) -> Result<Holder> {
    Place::find(desired, server_user)?.holder(pid)
}

/// Whether a process that lives may be a PostgreSQL server, of whatever directory. Where that cannot be seen: yes.
pub fn is_a_server(pid: i32, server_user: &Identity) -> bool {
    users::in_guise_of(server_user, || {
        let lives = Stat::read(pid).map_or(true, |stat| stat.is_some_and(|stat| !stat.dead()));
        let postgres =
            || process::executable(pid).map_or(true, |program| program.file_name() == Some("postgres"));
        lives && !process::is_thread(pid) && postgres()
    })
}

/// The data directory, as processes are compared with it.
struct Place<'a> {
    path: &'a Utf8Path,
    /// Device, inode and owner; `None`: there is no such directory (any more).
    directory: Option<(u64, u64, u32)>,
    server_user: &'a Identity,
}

impl<'a> Place<'a> {
    fn find(desired: &'a Desired, server_user: &'a Identity) -> Result<Self> {
        let path = &desired.postgres.data_directory;
        let directory = match fs::metadata(path) {
            Ok(meta) => Some((meta.dev(), meta.ino(), meta.uid())),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
            Err(e) => return Err(e).with_context(|| format!("cannot look at {path}")),
        };
        Ok(Self {
            path,
            directory,
            server_user,
        })
    }

    fn holder(&self, pid: i32) -> Result<Holder> {
        match Stat::read(pid).with_context(|| format!("cannot look at process {pid}"))? {
            None => return Ok(Holder::Dead),
            Some(stat) if stat.dead() => return Ok(Holder::Zombie),
            Some(_) => {}
        }
        if process::is_thread(pid) {
            return Ok(Holder::Somebody);
        }
        Ok(match self.runs(pid)? {
            Some(true) => Holder::Server,
            Some(false) => Holder::Somebody,
            None => Holder::Dead,
        })
    }

    /// Processes that run `postgres` in this data directory although no postmaster was found: what a killed postmaster
    /// leaves behind for an instant, a server whose pid file somebody deleted, or one for a single user.
    fn leftovers(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for pid in process::all().context("cannot list processes")? {
            if self.runs(pid)? == Some(true) && Stat::read(pid)?.is_some_and(|stat| !stat.dead()) {
                found.push(pid);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether a process runs `postgres` here; `None`: it is gone.
    fn runs(&self, pid: i32) -> Result<Option<bool>> {
        // As ourselves first: root sees everything, unless it was told not to (containers).
        let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        let seen = match self.runs_as_seen(pid) {
            Err(e) if denied(&e) => users::in_guise_of(self.server_user, || self.runs_as_seen(pid)),
            seen => seen,
        };
        match seen {
            Ok(runs) => Ok(Some(runs)),
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => {
                Ok(None)
            }
            Err(e) if denied(&e) && (self.is_anothers(pid) || ends(pid)) => Ok(Some(false)),
            Err(e) => Err(e)
                .with_context(|| format!("cannot tell whether process {pid} is the server of {}", self.path)),
        }
    }

    /// Whether a process whose links cannot be read is of a user who cannot be the server's. PostgreSQL refuses root.
    fn is_anothers(&self, pid: i32) -> bool {
        let data_owner = self.directory.map(|(_, _, uid)| uid);
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| {
            meta.uid() == 0 || Some(meta.uid()) != data_owner && meta.uid() != self.server_user.uid
        })
    }

    fn runs_as_seen(&self, pid: i32) -> io::Result<bool> {
        if process::executable(pid)?.file_name() != Some("postgres") {
            return Ok(false);
        }
        if let Some((device, inode, _)) = self.directory {
            let working = fs::metadata(format!("/proc/{pid}/cwd"))?;
            return Ok(working.dev() == device && working.ino() == inode);
        }
        // The directory was moved away under a running server: go by its name.
        let link = fs::read_link(format!("/proc/{pid}/cwd"))?;
        let link = link.to_string_lossy();
        Ok(link.strip_suffix(" (deleted)").unwrap_or(&link) == self.path.as_str())
    }
}

/// Whether a process is past its end: its links are closed to everybody then, and it has no command line any more, which
/// everybody may read of a living one.
fn ends(pid: i32) -> bool {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line.is_empty(),
        Err(e) => e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH),
    }
}

/// The port of the server that runs, which is the declared one only after its next restart; else the declared one.
pub fn port(desired: &Desired) -> u16 {
    let file = read_pid_file(&desired.postgres.data_directory).ok().flatten();
    file.and_then(|file| file.port).unwrap_or(desired.postgres.port)
}

/// Reads `postmaster.pid`; `None`: there is none, or it is still being written.
pub fn read_pid_file(data_directory: &Utf8Path) -> Result<Option<PidFile>> {
    let path = data_directory.join("postmaster.pid");
    let text = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.as_deref().and_then(parse))
}

fn parse(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // A negative number is a single-user server's.
    let pid: i32 = lines.first()?.parse().ok()?;
    Some(PidFile {
        pid: pid.checked_abs()?,
        single: pid < 0,
        port: lines.get(3).and_then(|port| port.parse().ok()),
        phase: lines.get(7).and_then(|word| match *word {
            "starting" => Some(ServerPhase::Starting),
            "stopping" => Some(ServerPhase::Stopping),
            "ready" | "standby" => Some(ServerPhase::Ready),
            _ => None,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files() {
        let whole = "4711\n/data\n1764000000\n5432\n/run\nlocalhost\n 1 2\nready   \n";
        let file = PidFile {
            pid: 4711,
            single: false,
            port: Some(5432),
            phase: Some(ServerPhase::Ready),
        };
        assert_eq!(parse(whole), Some(file));
        assert_eq!(parse("4711\n").and_then(|file| file.phase), None);
        let single = parse("-4711\n/data\n").map(|file| (file.pid, file.single));
        assert_eq!(single, Some((4711, true)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("rubbish\n"), None);
    }

    /// A stale pid file that names one of our own threads made pg_ctl and others believe in a running server for ever
    /// (POSTGRES-FACTS 21): `kill(tid, 0)` succeeds.
    #[test]
    fn a_thread_is_no_server() {
        let (send, receive) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(nix::unistd::gettid().as_raw()).expect("send");
            let _ = wait.recv();
        });
        let tid = receive.recv().expect("thread id");
        assert!(process::is_thread(tid));
        let server_user = users::own();
        let place = Place {
            path: Utf8Path::new("/"),
            directory: None,
            server_user: &server_user,
        };
        assert_eq!(place.holder(tid).expect("look"), Holder::Somebody);
        drop(done);
        thread.join().expect("join");
    }
}
