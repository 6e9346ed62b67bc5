//! The commands that write: `init` and `join` (in [`pairing`]; what editors make of their files in [`editor`]), `set role`
//! and its short forms (in [`role`]), `handover`, `forget-peer`; and those that look: `set-aside`, `status`, `plan`. Real
//! program, real files.

#[path = "../common/mod.rs"]
#[macro_use]
mod common;

mod editor;
mod forget;
mod handover;
mod pairing;
mod role;
mod set_aside;
mod status;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{postgres, root, text};

/// A directory of a person's own, without a laptop in it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pl").tempdir_in("/tmp");
        let directory = directory.expect("temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("write");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("read");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    /// The program, in this directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
        self.set_up(&mut command).args(arguments);
        command
    }

    fn set_up<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
    }

    /// A command line, split at blanks.
    fn run(&self, line: &str) -> Output {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.command(&arguments).output().expect("run")
    }

    /// The same with a text on standard input.
    fn run_with(&self, line: &str, input: &str) -> Output {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run");
        // It may refuse before it reads.
        drop(child.stdin.take().expect("stdin").write_all(input.as_bytes()));
        child.wait_with_output().expect("run")
    }

    /// As an ordinary user, also where the tests run as root.
    fn run_as_user(&self, line: &str) -> Output {
        // The build directory may be closed to others. Copied by another process: a test beside this one could fork
        // while we have the copy open, and nobody can run a file that somebody has open for writing.
        let program = self.path("paceline");
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_paceline"))
            .arg(&program)
            .status();
        assert!(copied.expect("cp").success());
        let mut command = Command::new(&program);
        self.set_up(&mut command).args(line.split(' '));
        if root() {
            let user = postgres();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let output = command.output().expect("run");
        fs::remove_file(program).expect("remove");
        output
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What was refused: its exit code is this one, and it says these words and what to do.
#[track_caller]
fn refused(output: &Output, code: i32, words: &str) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}{stderr}",
        text(&output.stdout)
    );
    assert!(stderr.contains(words), "{stderr}");
    assert!(stderr.contains("hint:") || stderr.contains("help:"), "{stderr}");
    stderr
}
