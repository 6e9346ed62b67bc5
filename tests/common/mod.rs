//! A laptop for tests: a directory of its own, a real daemon, a real server. Everything it started is gone when it is
//! dropped, whatever the test did.
//!
//! Nothing here sleeps: a test waits for a line of the daemon's log, or for a status document (long poll), with a
//! generous limit that only a broken daemon reaches.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod editor;
pub mod net;
pub mod pair;
mod processes;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

pub use self::processes::*;

/// Only a broken daemon takes this long.
pub const LIMIT: Duration = Duration::from_secs(90);

pub fn root() -> bool {
    Uid::effective().is_root()
}

/// Says why a test does nothing here.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        eprintln!("skipped: {}", format!($($why)*));
        return;
    }};
}

/// The newest PostgreSQL programs on this machine.
pub fn bin_directory() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    let bin = entry.path().join("bin");
                    bin.join("initdb")
                        .exists()
                        .then_some((entry.file_name().to_str()?.parse().ok()?, bin))
                })
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL's server package is installed (tests/run.sh does it)")
        .1
}

/// A free port outside the range that the kernel hands out by itself.
pub fn port() -> u16 {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher as _, Hasher as _};
    loop {
        let random = RandomState::new().build_hasher().finish();
        let port = 12_000 + u16::try_from(random % 20_000).expect("small");
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// The daemon's log, as it is written.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grew: Condvar,
}

/// Whom the daemon of a test runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Whoever runs the tests.
    Us,
    /// The user postgres; only for tests that run as root.
    Postgres,
}

pub struct Laptop {
    pub directory: tempfile::TempDir,
    pub port: u16,
    pub api: u16,
    program: PathBuf,
    as_: As,
    /// What the daemon finds in its environment besides the usual.
    pub environment: Vec<(&'static str, String)>,
    /// Where in a network it is; `None`: it has this machine's.
    host: Option<Arc<net::Host>>,
    daemon: Option<Child>,
    log: Arc<Log>,
}

impl Laptop {
    /// A laptop with this state file; `{dir}`, `{port}` and `{api}` are filled in.
    pub fn new(yaml: &str) -> Self {
        Self::with(As::Us, yaml)
    }

    pub fn with(as_: As, yaml: &str) -> Self {
        Self::make(as_, None, (port(), port()), yaml)
    }

    fn make(as_: As, host: Option<Arc<net::Host>>, (port, api): (u16, u16), yaml: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pl")
            .tempdir_in("/tmp")
            .expect("temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_paceline"));
        if as_ == As::Postgres {
            // The build directory may be closed to others.
            let copy = directory.path().join("paceline");
            fs::copy(&program, &copy).expect("copy the program");
            program = copy;
            let (uid, gid) = (postgres().uid, postgres().gid);
            nix::unistd::chown(directory.path(), Some(uid), Some(gid)).expect("chown");
        }
        let laptop = Self {
            directory,
            port,
            api,
            program,
            as_,
            environment: Vec::new(),
            host,
            daemon: None,
            log: Arc::default(),
        };
        laptop.write_state(yaml);
        laptop
    }

    /// The usual laptop: primary, with what a test adds.
    pub fn primary(more: &str) -> Self {
        Self::new(&Self::primary_yaml(more))
    }

    pub fn primary_yaml(more: &str) -> String {
        format!(
            "role: primary\nnode: alpha\nhome: home\napi: {{ listen: \"127.0.0.1:{{api}}\" }}\n\
             postgres:\n  port: {{port}}\n{more}"
        )
    }

    /// A laptop whose database was made and stopped cleanly; one row is in it.
    pub fn stopped(as_: As, more: &str) -> Self {
        let laptop = Self::with(as_, &Self::primary_yaml(more));
        let applied = laptop.run(&["apply"]);
        assert_eq!(
            applied.status.code(),
            Some(0),
            "{}{}",
            text(&applied.stdout),
            text(&applied.stderr)
        );
        laptop.sql("create table riders (bib int); insert into riders values (7)");
        stop_server(&laptop.data());
        laptop
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state_file(&self) -> PathBuf {
        self.path("state.yaml")
    }

    pub fn data(&self) -> PathBuf {
        self.path("home/data")
    }

    fn fill(&self, yaml: &str) -> String {
        yaml.replace("{dir}", self.directory.path().to_str().expect("UTF-8"))
            .replace("{port}", &self.port.to_string())
            .replace("{api}", &self.api.to_string())
    }

    /// Replaces the state file by write and rename.
    pub fn write_state(&self, yaml: &str) {
        let new = self.path("state.yaml.tmp");
        fs::write(&new, self.fill(yaml)).expect("write");
        fs::rename(new, self.state_file()).expect("rename");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg(self.state_file())
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // What a daemon inherits must not reach server or application.
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("PGPASSWORD", "inherited")
            .env("PGPORT", "1");
        if self.as_ == As::Postgres {
            let user = postgres();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Runs a command with the state file as its last argument, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        self.inside(|| command.output())
            .expect("it is switched on")
            .expect("run")
    }

    /// Starts the daemon and waits until it serves its status.
    pub fn start(&mut self) {
        self.launch();
        self.wait_log("status is served");
    }

    /// Starts the daemon and waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let mut command = self.command(&["run"]);
        command.stderr(Stdio::piped());
        let mut child = self
            .inside(|| command.spawn())
            .expect("it is switched on")
            .expect("start the daemon");
        let stderr = child.stderr.take().expect("stderr");
        self.daemon = Some(child);
        let log = Arc::new(Log::default());
        self.log = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                let mut text = log.text.lock().expect("log");
                text.push_str(&line);
                text.push('\n');
                log.grew.notify_all();
            }
        });
    }

    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().expect("the daemon runs").id()).expect("pid")
    }

    /// What the daemon logged since it was last started.
    pub fn log(&self) -> String {
        self.log.text.lock().expect("log").clone()
    }

    /// Waits until the log says this; gives all of it.
    pub fn wait_log(&self, words: &str) -> String {
        self.wait_log_after(0, words)
    }

    /// The same for what was logged after so many bytes.
    pub fn wait_log_after(&self, from: usize, words: &str) -> String {
        self.wait_log_any(from, &[words])
    }

    /// The same for the first of several words.
    pub fn wait_log_any(&self, from: usize, words: &[&str]) -> String {
        let text = self.log.text.lock().expect("log");
        let (text, timed_out) = self
            .log
            .grew
            .wait_timeout_while(text, LIMIT, |text| {
                let news = &text[from.min(text.len())..];
                !words.iter().any(|words| news.contains(words))
            })
            .expect("log");
        // Let go of first: a panic under the lock would poison it, and `drop` reads the log.
        let said = text.clone();
        drop(text);
        assert!(!timed_out.timed_out(), "the log never said {words:?}:\n{said}");
        said
    }

    /// Waits for a status document that fits.
    pub fn wait(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        let mut revision = 0;
        loop {
            let status = self.get_json(&format!("/v1/status?after={revision}&wait=5"));
            if let Some(status) = &status {
                if fits(status) {
                    return status.clone();
                }
                revision = status["revision"].as_u64().expect("revision");
            }
            assert!(
                Instant::now() < deadline,
                "never came: {what}\nlast status: {status:#?}\nlog:\n{}",
                self.log()
            );
        }
    }

    pub fn wait_plan(&self, state: &str) -> Value {
        self.wait(&format!("plan {state}"), |status| {
            status["plan"]["state"] == state
        })
    }

    /// Waits until the plan stands like this and its reason has these words; gives reason and hint.
    pub fn wait_reason(&self, state: &str, words: &str) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = self.wait(&format!("plan {state}: {words}"), |status| {
            status["plan"]["state"] == state && text(&status["plan"]["reason"]).contains(words)
        });
        (text(&status["plan"]["reason"]), text(&status["plan"]["hint"]))
    }

    pub fn wait_gate(&self, state: &str) -> Value {
        self.wait(&format!("gate {state}"), |status| {
            status["gate"]["state"] == state
        })
    }

    /// Converged with an open gate and, if one is declared, a running application.
    pub fn wait_serving(&self) -> Value {
        self.wait("serving", |status| {
            status["plan"]["state"] == "converged"
                && status["gate"]["state"] == "open"
                && (status["app"].is_null() || status["app"]["state"] == "running")
        })
    }

    fn get_json(&self, path: &str) -> Option<Value> {
        let (code, body) = self.get(path)?;
        (code == 200).then(|| serde_json::from_str(&body).expect("JSON"))
    }

    /// Asks the daemon over HTTP; `None`: nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.inside(|| net::http_get((Ipv4Addr::LOCALHOST, self.api), path))
            .flatten()
    }

    /// Signals the daemon.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the daemon");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }

    /// SIGTERM, and waits for the orderly end.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.daemon.take().expect("the daemon runs").wait().expect("wait")
    }

    /// Waits for the end of a daemon that ends by itself.
    pub fn wait_exit(&mut self) -> std::process::ExitStatus {
        self.daemon.take().expect("the daemon runs").wait().expect("wait")
    }

    /// The server's process id, from its pid file; `None`: no server.
    pub fn postmaster(&self) -> Option<i32> {
        postmaster_of(&self.data())
    }

    /// Runs SQL as superuser in a database and gives the answer, unaligned.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, "postgres", sql, None);
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// The same, or nothing: the server may be restarting, or a table not there yet.
    pub fn try_sql(&self, sql: &str) -> Option<String> {
        let output = self.psql("postgres", "postgres", sql, None);
        output
            .status
            .success()
            .then(|| text(&output.stdout).trim().to_owned())
    }

    /// Waits until a question gets this answer.
    pub fn wait_sql(&self, sql: &str, answer: &str) {
        eventually(&format!("{sql}: {answer}"), || {
            self.try_sql(sql).as_deref() == Some(answer)
        });
    }

    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    pub fn psql(&self, database: &str, user: &str, sql: &str, passfile: Option<&Path>) -> Output {
        let mut command = Command::new(bin_directory().join("psql"));
        command
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-w",
                "-d",
                database,
                "-U",
                user,
                "-c",
                sql,
            ])
            .env_clear()
            .env("PGHOST", self.path("home/run"))
            .env("PGPORT", self.port.to_string())
            .env("PGCONNECT_TIMEOUT", "10");
        if let Some(passfile) = passfile {
            command.env("PGPASSFILE", passfile);
        }
        if self.as_ == As::Postgres {
            let user = super::common::postgres();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.output().expect("psql")
    }

    /// Lines of a file in the laptop's directory; none if it is not there.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name))
            .unwrap_or_default()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// Makes a program in the laptop's directory.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, self.fill(text)).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
            let server = self.path("home/log/postgres.log");
            eprintln!(
                "the server's log:\n{}",
                fs::read_to_string(server).unwrap_or_default()
            );
        }
        self.kill_daemon();
        end_marked(&self.path("home"));
        end_servers_below(self.directory.path());
    }
}
