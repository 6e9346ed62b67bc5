//! Starting a program: as which user, in which session, with which environment and output.
//!
//! The environment is always cleared: an inherited PGPASSWORD, for one, beats a passfile.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use camino::Utf8PathBuf;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, Uid, getppid, setgid, setgroups, setsid, setuid};

use super::users::Identity;

/// What is to be started.
#[derive(Debug)]
pub struct Launch {
    /// The program; searched in the new environment's PATH if it has no slash.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs.
    pub directory: Utf8PathBuf,
    /// Whom it runs as; `None`: as ourselves.
    pub identity: Option<Identity>,
    /// Whether it shall die with us (tools), or live on (server, application).
    pub dies_with_us: bool,
}

impl Launch {
    /// A command that leads a session of its own, so that a Ctrl-C in our terminal does not reach it and its whole
    /// process group can be signalled.
    #[expect(
        unsafe_code,
        reason = "what happens between fork and exec can only be said through pre_exec"
    )]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        let identity = self
            .identity
            .clone()
            .filter(|identity| !identity.is_us())
            .map(|identity| {
                // Allocated before the fork: between fork and exec nothing may allocate.
                let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
                (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid), groups)
            });
        let dies_with_us = self.dies_with_us;
        let parent = nix::unistd::getpid();
        // SAFETY: only async-signal-safe system calls are made in the closure, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                setsid()?;
                // We may have been started with SIGINT ignored (by `&` in a script); a program that is stopped with
                // SIGINT would then never stop.
                for ignored in [
                    Signal::SIGINT,
                    Signal::SIGTERM,
                    Signal::SIGHUP,
                    Signal::SIGQUIT,
                    Signal::SIGUSR1,
                    Signal::SIGUSR2,
                    Signal::SIGPIPE,
                ] {
                    signal(ignored, SigHandler::SigDfl)?;
                }
                if let Some((uid, gid, groups)) = &identity {
                    // In this order: after setuid we may no longer change groups.
                    setgroups(groups)?;
                    setgid(*gid)?;
                    setuid(*uid)?;
                }
                if dies_with_us {
                    // After setuid, which clears it; then look whether our parent died in between.
                    prctl::set_pdeathsig(Signal::SIGKILL)?;
                    if getppid() != parent {
                        return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
                    }
                }
                Ok(())
            });
        }
        command
    }

    /// Starts a program that lives on without us, its output going to `output`; gives its process id. The caller
    /// owns the child from then on (see [`super::process::Process`]).
    pub fn start_detached(&self, output: File) -> io::Result<i32> {
        let errors = output.try_clone()?;
        let child = self.command().stdout(output).stderr(errors).spawn()?;
        Ok(i32::try_from(child.id()).unwrap_or(i32::MAX))
    }
}

/// The environment that every program gets: nothing of ours but a search path, a neutral language and the time zone.
pub fn base_environment(identity: &Identity) -> Vec<(String, String)> {
    let mut environment = vec![
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOME".to_owned(), identity.home.clone()),
        ("USER".to_owned(), identity.name.clone()),
        ("LOGNAME".to_owned(), identity.name.clone()),
        // Messages that are read by us must not be translated, and UTF-8 must survive.
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
    ];
    if let Ok(zone) = std::env::var("TZ") {
        environment.push(("TZ".to_owned(), zone));
    }
    environment
}
