//! Starting `postgres` itself, without pg_ctl, which polls.

use anyhow::{Context as _, Result};

use camino::Utf8Path;

use super::output::Output;
use crate::sys::process::Process;
use crate::sys::spawn::{Launch, base_environment};
use crate::sys::users::Identity;

/// The argument by which a server of ours is known among others.
pub fn config_file_argument(conf_directory: &Utf8Path) -> String {
    format!("config_file={conf_directory}/postgresql.conf")
}

/// Starts the server in a session of its own; it lives on without us.
pub fn spawn(
    program: &Utf8Path,
    data_directory: &Utf8Path,
    conf_directory: &Utf8Path,
    user: &Identity,
    log: &Output,
) -> Result<Process> {
    let mut environment = base_environment(user);
    // A pid file that names our parent is stale for sure: after a container's restart the small numbers come again.
    environment.push((
        "PG_GRANDPARENT_PID".to_owned(),
        nix::unistd::getppid().to_string(),
    ));
    let launch = Launch {
        program: program.to_string(),
        arguments: vec![
            "-D".to_owned(),
            data_directory.to_string(),
            "-c".to_owned(),
            config_file_argument(conf_directory),
        ],
        environment,
        directory: "/".into(),
        identity: Some(user.clone()),
        dies_with_us: false,
    };
    let before = log.len();
    let pid = launch
        .start_detached(log.open()?)
        .with_context(|| format!("cannot run {program}"))?;
    Process::open(pid)
        .context("cannot get a handle of the server")?
        .with_context(|| format!("{program} ended at once: {}", log.complaints_since(before)))
}
