//! Processes and files of a test: seen, waited for, ended.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use super::{LIMIT, root};

/// The user whom the server of a root daemon runs as.
pub fn postgres() -> User {
    User::from_name("postgres")
        .expect("look up")
        .expect("the user postgres exists")
}

pub fn postmaster_of(data: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(data.join("postmaster.pid"))
        .ok()?
        .lines()
        .next()?
        .parse()
        .ok()?;
    alive(pid).then_some(pid)
}

pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').map_or(0, |at| at + 2)..].starts_with('Z'))
}

/// Waits until a process is gone.
pub fn wait_gone(pid: i32) {
    let Some(number) = rustix::process::Pid::from_raw(pid) else {
        return;
    };
    let Ok(handle) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut polled = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(LIMIT).expect("limit");
    assert_eq!(
        poll(&mut polled, limit).expect("poll"),
        1,
        "process {pid} does not end"
    );
}

/// A fast shutdown of the server on a data directory, waited for.
pub fn stop_server(data: &Path) {
    let pid = postmaster_of(data).expect("a server runs");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("signal the server");
    wait_gone(pid);
}

/// Sends a signal to the server on a data directory and to all its children, in one go, as a power cut would.
pub fn signal_server(data: &Path, signal: Signal) -> Vec<i32> {
    let Some(postmaster) = postmaster_of(data) else {
        return Vec::new();
    };
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat[stat.rfind(')')? + 4..].split(' ').next()?.parse().ok()
    };
    let children = processes()
        .into_iter()
        .filter(|pid| parent(*pid) == Some(postmaster));
    let all: Vec<i32> = std::iter::once(postmaster).chain(children).collect();
    for pid in &all {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    all
}

/// The server process whose title has this word.
pub fn child_called(data: &Path, word: &str) -> i32 {
    let titled = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.contains(word))
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
    };
    processes().into_iter().find(titled).expect("the process")
}

/// SIGKILL to all of a server, waited for.
pub fn crash_server(data: &Path) {
    for pid in signal_server(data, Signal::SIGKILL) {
        wait_gone(pid);
    }
}

/// Gives a file to the server's user, if the tests run as root.
pub fn give(path: &Path) {
    if root() {
        let user = postgres();
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).expect("chown");
    }
}

/// Waits until a condition holds that nobody announces, such as a line in a file that a script writes.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}

pub fn processes() -> Vec<i32> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Ends the application of a home, by the mark in its environment.
pub fn end_marked(home: &Path) {
    let mark = format!("PACELINE_APP={}", home.display());
    for pid in processes() {
        let marked = fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|entry| entry == mark.as_bytes()));
        if marked {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Ends every server that works below a directory.
pub fn end_servers_below(directory: &Path) {
    for pid in processes() {
        let below = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        let server = fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "postgres"));
        if below && server {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
            wait_gone(pid);
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
