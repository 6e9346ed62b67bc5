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

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    /// Line 1.
    pub pid: i32,
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
pub fn look(desired: &Desired) -> Result<Postmaster> {
    let data_directory = &desired.postgres.data_directory;
    if let Some(file) = read_pid_file(data_directory)?
        && holder(file.pid, data_directory)? == Holder::Server
    {
        let arguments = process::arguments(file.pid).unwrap_or_default();
        return Ok(Postmaster::Running(RunningServer {
            pid: file.pid,
            port: file.port.unwrap_or(desired.postgres.port),
            phase: file.phase.unwrap_or(ServerPhase::Starting),
            ours: arguments.contains(&config_file_argument(&desired.conf_directory())),
            command_line: arguments.join(" "),
        }));
    }
    Ok(Postmaster::Down {
        leftovers: leftovers(data_directory)?,
    })
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
    let pid: i32 = lines.first()?.parse::<i32>().ok()?.checked_abs()?;
    Some(PidFile {
        pid,
        port: lines.get(3).and_then(|port| port.parse().ok()),
        phase: lines.get(7).and_then(|word| match *word {
            "starting" => Some(ServerPhase::Starting),
            "stopping" => Some(ServerPhase::Stopping),
            "ready" | "standby" => Some(ServerPhase::Ready),
            _ => None,
        }),
    })
}

/// Whom a process id belongs to.
pub fn holder(pid: i32, data_directory: &Utf8Path) -> Result<Holder> {
    match Stat::read(pid).with_context(|| format!("cannot look at process {pid}"))? {
        None => return Ok(Holder::Dead),
        Some(stat) if stat.dead() => return Ok(Holder::Zombie),
        Some(_) => {}
    }
    if process::is_thread(pid) {
        return Ok(Holder::Somebody);
    }
    // Another user's process, whose links we may not read, cannot be the server: that is the directory's owner's.
    let owner = |path: &str| fs::metadata(path).map(|meta| meta.uid());
    if let (Ok(process), Ok(data)) = (owner(&format!("/proc/{pid}")), owner(data_directory.as_str()))
        && process != data
    {
        return Ok(Holder::Somebody);
    }
    match runs_in(pid, data_directory) {
        Ok(true) => Ok(Holder::Server),
        Ok(false) => Ok(Holder::Somebody),
        // It ended while we looked.
        Err(e) if gone(&e) => Ok(Holder::Dead),
        Err(e) => Err(e)
            .with_context(|| format!("cannot tell whether process {pid} is the server of {data_directory}")),
    }
}

/// Processes that run `postgres` in this data directory although no postmaster was found: what a killed postmaster
/// leaves behind for an instant, or a server whose pid file somebody deleted.
fn leftovers(data_directory: &Utf8Path) -> Result<Vec<i32>> {
    // Processes of other users, whose links we may not read, cannot be the server's: it would be our own user, or we
    // are root.
    let pids = process::all().context("cannot list processes")?;
    let mut found: Vec<i32> = pids
        .into_iter()
        .filter(|pid| runs_in(*pid, data_directory).unwrap_or(false))
        .filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.is_some_and(|stat| !stat.dead())))
        .collect();
    found.sort_unstable();
    Ok(found)
}

fn runs_in(pid: i32, data_directory: &Utf8Path) -> io::Result<bool> {
    if process::executable(pid)?.file_name() != Some("postgres") {
        return Ok(false);
    }
    let working = fs::metadata(format!("/proc/{pid}/cwd"))?;
    match fs::metadata(data_directory) {
        Ok(data) => Ok(working.dev() == data.dev() && working.ino() == data.ino()),
        // The directory was moved away under a running server: go by its name.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let link = fs::read_link(format!("/proc/{pid}/cwd"))?;
            let link = link.to_string_lossy();
            Ok(link.strip_suffix(" (deleted)").unwrap_or(&link) == data_directory.as_str())
        }
        Err(e) => Err(e),
    }
}

fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files() {
        let whole = "4711\n/data\n1764000000\n5432\n/run\nlocalhost\n 1 2\nready   \n";
        let file = PidFile {
            pid: 4711,
            port: Some(5432),
            phase: Some(ServerPhase::Ready),
        };
        assert_eq!(parse(whole), Some(file));
        assert_eq!(parse("4711\n").and_then(|file| file.phase), None);
        assert_eq!(parse("-4711\n/data\n").map(|file| file.pid), Some(4711));
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
        assert_eq!(holder(tid, Utf8Path::new("/")).expect("look"), Holder::Somebody);
        drop(done);
        thread.join().expect("join");
    }
}
