//! `paceline demo`, as a newcomer runs it: the event day comes out well, and whatever ends it, nothing goes on running.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A demo that runs its script below a directory of its own.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

impl Demo {
    fn script() -> Self {
        let directory = tempfile::Builder::new().prefix("pl").tempdir_in("/tmp");
        let directory = directory.expect("temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let mut child = Command::new(env!("CARGO_BIN_EXE_paceline"))
            .args(["demo", "--script", "--directory"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the demo");
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        Self {
            child,
            output,
            directory,
        }
    }

    /// Reads until a line has these words.
    fn read_until(&mut self, words: &str) {
        let mut read = String::new();
        while !read.lines().last().is_some_and(|line| line.contains(words)) {
            let length = self.output.read_line(&mut read).expect("read");
            assert!(length > 0, "it never said {words:?}:\n{read}");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("signal the demo");
    }

    /// Reads the rest; gives it with the exit code.
    fn end(&mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("read");
        (rest, self.child.wait().expect("wait").code())
    }

    /// Its daemons, applications and servers.
    fn processes(&self) -> Vec<String> {
        processes_of(self.directory.path())
    }

    fn files(&self) -> usize {
        fs::read_dir(self.directory.path()).expect("read").count()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::SIGTERM);
            drop(self.child.wait());
        }
    }
}

/// Processes that work below a directory or name it on their command line.
fn processes_of(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = common::text(&line).replace('\0', " ");
        let here = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        // The demo itself names the directory in which it makes its own.
        let named = line.contains(&format!("{}/", directory.display()));
        (here || named).then(|| format!("{} {line}", entry.file_name().display()))
    });
    lines.collect()
}

#[test]
fn an_event_day_loses_nothing() {
    let mut demo = Demo::script();
    let (output, code) = demo.end();
    assert_eq!(code, Some(0), "{output}");
    for words in [
        "by itself it becomes bravo's standby",
        "longest gap while they change places",
        "the application runs, since the edit",
        "next registration",
        ", lost 0, longest gap",
    ] {
        assert!(output.contains(words), "no {words:?} in:\n{output}");
    }
    assert_eq!(demo.processes(), [""; 0]);
    assert_eq!(demo.files(), 0, "{output}");
}

#[test]
fn it_ends_in_order_at_any_moment() {
    for moment in [
        "switched on",
        "create a new, empty database",
        "copy the database",
        "`role: failover`",
    ] {
        let mut demo = Demo::script();
        demo.read_until(moment);
        demo.signal(Signal::SIGTERM);
        let (output, code) = demo.end();
        assert_eq!(code, Some(1), "{moment}: {output}");
        assert!(!output.contains("lost"), "{moment}: {output}");
        assert_eq!(demo.processes(), [""; 0], "{moment}: {output}");
        assert_eq!(demo.files(), 0, "{moment}: {output}");
    }
}
