//! Running a PostgreSQL tool to its end: as the server's user, with a time limit, dying with us.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use nix::sys::signal::Signal;

use crate::sys::process::signal_group;
use crate::sys::spawn::{Launch, base_environment};
use crate::sys::users::Identity;

/// Runs a program and gives its standard output. A failure carries what it wrote to standard error.
pub async fn run(
    program: &Utf8Path,
    arguments: &[&str],
    identity: &Identity,
    limit: Duration,
) -> Result<String> {
    let launch = Launch {
        program: program.to_string(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        environment: base_environment(identity),
        directory: "/".into(),
        identity: Some(identity.clone()),
        dies_with_us: true,
    };
    let mut command = tokio::process::Command::from(launch.command());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let mut group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("{program} did not end within {} seconds", limit.as_secs()))?
        .with_context(|| format!("cannot run {program}"))?;
    group.0 = None;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
        bail!("{program} failed ({}): {}", output.status, errors.join("; "));
    }
    Ok(text)
}

/// The tool's process group: a tool that is given up takes its own children with it.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It leads a session of its own, so this reaches nobody else.
            drop(signal_group(leader, Signal::SIGKILL));
        }
    }
}
