//! This daemon as one of its kind: the locks that keep a second one away, what it was set up for and cannot change
//! while it runs, and its re-execution in place.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::Permissions;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use tokio::time::{Instant, sleep};

use crate::desired::Desired;
use crate::hint::hinted;
use crate::sys::lock::{Attempt, Lock};
use crate::sys::process::Stat;
use crate::sys::systemd::OURS;

/// Passes the locks' descriptors on through a re-execution, as numbers with commas between.
const LOCKS: &str = "PACELINE_LOCKS";

const HOME_HINT: &str = "run Paceline as root, or set `home:` to a directory that its user may write to";

/// The daemon of one data directory and one home.
#[derive(Debug)]
pub struct Instance {
    locks: Vec<Lock>,
    set_up_for: Fixed,
}

/// What cannot change while a daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fixed {
    home: Utf8PathBuf,
    data_directory: Utf8PathBuf,
    os_user: String,
    api_listen: std::net::SocketAddr,
}

/// Another daemon is there.
#[derive(Debug, thiserror::Error)]
#[error("another daemon looks after {what}: {holder}")]
pub struct Taken {
    /// The lock's subject.
    what: String,
    /// Who.
    holder: String,
}

impl Instance {
    /// Takes the locks of home and data directory; makes home if it is missing.
    pub async fn claim(desired: &Desired) -> Result<Self> {
        ensure_home(desired)?;
        let data_directory = &desired.postgres.data_directory;
        if let Some(parent) = data_directory.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make the directory {parent}"))?;
        }
        let inherited: Vec<i32> = std::env::var(LOCKS)
            .unwrap_or_default()
            .split(',')
            .filter_map(|number| number.parse().ok())
            .collect();
        let note = format!("process {} ({})", std::process::id(), desired.node);
        let mut locks = Vec::new();
        for (path, what) in [
            (desired.home.join("lock"), format!("home {}", desired.home)),
            (
                desired.beside_data("paceline-lock"),
                format!("the data directory {data_directory}"),
            ),
        ] {
            let lock = match inherited.iter().find_map(|fd| Lock::inherited(*fd, &path)) {
                Some(lock) => lock,
                None => match take(&path, &note).await? {
                    Attempt::Held(lock) => lock,
                    Attempt::Taken(holder) => return Err(Taken { what, holder }.into()),
                },
            };
            locks.push(lock);
        }
        // A lock of another home or data directory is given up.
        for fd in inherited {
            if !locks.iter().any(|lock: &Lock| lock.is(fd)) {
                let _ = nix::unistd::close(fd);
            }
        }
        Ok(Self {
            locks,
            set_up_for: Fixed::of(desired),
        })
    }

    /// Whether this daemon can act on a declaration, or what keeps it from it.
    pub fn fits(&self, desired: &Desired) -> Result<(), String> {
        let (is, asked) = (&self.set_up_for, Fixed::of(desired));
        let mut changed = Vec::new();
        if is.home != asked.home {
            changed.push(format!("`home` from {} to {}", is.home, asked.home));
        }
        if is.data_directory != asked.data_directory {
            changed.push(format!(
                "`postgres: data_directory` from {} to {}",
                is.data_directory, asked.data_directory
            ));
        }
        if is.os_user != asked.os_user {
            changed.push(format!(
                "`postgres: os_user` from {} to {}",
                is.os_user, asked.os_user
            ));
        }
        if is.api_listen != asked.api_listen {
            changed.push(format!(
                "`api: listen` from {} to {}",
                is.api_listen, asked.api_listen
            ));
        }
        if changed.is_empty() {
            return Ok(());
        }
        Err(format!(
            "cannot change {} while the daemon runs (hint: stop the daemon with SIGTERM and start it again, or change the file back)",
            changed.join(", ")
        ))
    }
}

impl Fixed {
    fn of(desired: &Desired) -> Self {
        Self {
            home: desired.home.clone(),
            data_directory: desired.postgres.data_directory.clone(),
            os_user: desired.postgres.os_user.clone(),
            api_listen: desired.api_listen,
        }
    }
}

/// Takes a lock. A daemon that was just killed may have left a child between fork and exec, which holds its locks for
/// another instant; so one whose holder is dead is asked for again, for a while.
async fn take(path: &Utf8Path, note: &str) -> Result<Attempt> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let attempt = Lock::take(path, note).map_err(|error| hinted(format!("{error:#}"), HOME_HINT))?;
        let Attempt::Taken(holder) = &attempt else {
            return Ok(attempt);
        };
        let pid = holder.split_whitespace().find_map(|word| word.parse().ok());
        let alive = pid.is_none_or(|pid| Stat::read(pid).is_ok_and(|stat| stat.is_some()));
        if alive || Instant::now() >= deadline {
            return Ok(attempt);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Home is for everybody to pass through (the socket is in it); what is secret in it is closed by itself. One that was
/// there before is left as it is.
fn ensure_home(desired: &Desired) -> Result<()> {
    if desired.home.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(&desired.home)
        .and_then(|()| std::fs::set_permissions(&desired.home, Permissions::from_mode(0o755)))
        .map_err(|error| {
            hinted(
                format!("cannot make the home directory {}: {error}", desired.home),
                HOME_HINT,
            )
        })
}

/// A program that was asked for its version and answered, so that it can take our place.
#[derive(Debug)]
pub struct Successor {
    program: String,
}

impl Successor {
    /// Looks at the program that now lies where ours came from.
    pub async fn find() -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where the program is")?;
        let program = program.to_str().context("the program's path is not UTF-8")?;
        // After an upgrade the file that we run is deleted, and the new one has its name.
        let program = program.strip_suffix(" (deleted)").unwrap_or(program).to_owned();
        let mut check = tokio::process::Command::new(&program);
        for ours in OURS {
            check.env_remove(ours);
        }
        let check = check.arg("--version").kill_on_drop(true).output();
        let check = tokio::time::timeout(Duration::from_secs(10), check)
            .await
            .with_context(|| format!("{program} --version does not answer"))?
            .with_context(|| format!("cannot run {program}"))?;
        if !check.status.success() {
            bail!("{program} --version fails ({})", check.status);
        }
        let version = String::from_utf8_lossy(&check.stdout).trim().to_owned();
        tracing::info!(program, version, "executing the program anew");
        Ok(Self { program })
    }

    /// Executes it in this very process: server and application stay our children, the locks stay held. Comes back only
    /// if it could not be done. Signals that the caller holds back wait: the new program lets them in when it listens.
    pub fn execute(&self, instance: &Instance) -> Result<Infallible> {
        let text = |bytes: Vec<u8>| CString::new(bytes).context("a NUL in an argument");
        let mut numbers = Vec::new();
        for lock in &instance.locks {
            numbers.push(lock.pass_on()?.to_string());
        }
        let arguments: Vec<CString> = std::env::args_os()
            .map(|argument| text(argument.into_vec()))
            .collect::<Result<_>>()?;
        let mut environment: Vec<CString> = Vec::new();
        for (name, value) in std::env::vars_os().filter(|(name, _)| name != LOCKS) {
            environment.push(text([name.into_vec(), value.into_vec()].join(&b'='))?);
        }
        environment.push(text(format!("{LOCKS}={}", numbers.join(",")).into_bytes())?);
        let program = text(self.program.clone().into_bytes())?;
        // Not the standard library's exec: it would let in the signals that are held back.
        let error = match nix::unistd::execve(&program, &arguments, &environment) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        for lock in &instance.locks {
            lock.keep()?;
        }
        Err(error).with_context(|| format!("cannot execute {}", self.program))
    }
}
