//! Running a PostgreSQL tool to its end: as the server's user, with a time limit, dying with us.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;
use tokio::time::timeout;

use crate::sys::process::signal_group;
use crate::sys::spawn::{Launch, base_environment};
use crate::sys::users::Identity;

/// How long a program may take to end once it has closed its output.
const END: Duration = Duration::from_secs(10);

/// Runs a program and gives its standard output. A failure carries what it wrote to standard error.
pub async fn run(
    program: &Utf8Path,
    arguments: &[&str],
    identity: &Identity,
    limit: Duration,
) -> Result<String> {
    let output = output(program, arguments, identity, limit).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
        bail!("{program} failed ({}): {}", output.status, errors.join("; "));
    }
    Ok(text)
}

/// Runs a program and gives everything that it came to.
pub async fn output(
    program: &Utf8Path,
    arguments: &[&str],
    identity: &Identity,
    limit: Duration,
) -> Result<Output> {
    let (child, mut group) = start(program, arguments, identity, Stdio::piped())?;
    let output = timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("{program} did not end within {} seconds", limit.as_secs()))?
        .with_context(|| format!("cannot run {program}"))?;
    group.0 = None;
    Ok(output)
}

/// Runs a program that says on standard error how far it has come, in lines that end in a line feed or, as for a
/// terminal, in a carriage return. The whole may take any time, a silence only `silence`, and later as long as
/// `progress` allows, which gets each line: `None` means that the line is no progress but a complaint, which a failure
/// carries.
pub async fn run_watched(
    program: &Utf8Path,
    arguments: &[&str],
    identity: &Identity,
    mut silence: Duration,
    mut progress: impl FnMut(&str) -> Option<Duration>,
) -> Result<()> {
    let (mut child, mut group) = start(program, arguments, identity, Stdio::null())?;
    let mut stderr = child.stderr.take().context("it has no standard error")?;
    let mut complaints: Vec<String> = Vec::new();
    let mut rest = String::new();
    let mut buffer = [0; 4096];
    loop {
        let length = timeout(silence, stderr.read(&mut buffer))
            .await
            .with_context(|| {
                format!(
                    "{program} said nothing for {} seconds and was given up",
                    silence.as_secs()
                )
            })?
            .with_context(|| format!("cannot read what {program} says"))?;
        // Half a character at the end of what was read is for people only.
        rest.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if length == 0 {
            rest.push('\n');
        }
        while let Some(end) = rest.find(['\n', '\r']) {
            let line: String = rest.drain(..=end).collect();
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            match progress(line) {
                Some(next) => silence = next,
                None => complaints.push(line.to_owned()),
            }
        }
        if length == 0 {
            break;
        }
    }
    let status = timeout(END, child.wait())
        .await
        .with_context(|| format!("{program} does not end"))?
        .with_context(|| format!("cannot run {program}"))?;
    group.0 = None;
    if !status.success() {
        bail!("{program} failed ({status}): {}", complaints.join("; "));
    }
    Ok(())
}

fn start(
    program: &Utf8Path,
    arguments: &[&str],
    identity: &Identity,
    stdout: Stdio,
) -> Result<(Child, Group)> {
    let launch = Launch {
        program: program.to_string(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        environment: base_environment(identity),
        directory: "/".into(),
        identity: Some(identity.clone()),
        dies_with_us: true,
    };
    let mut command = tokio::process::Command::from(launch.command());
    command.stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
    Ok((child, group))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::users;

    async fn watch(script: &str, silence: Duration) -> (Result<()>, Vec<String>) {
        let mut lines = Vec::new();
        let done = run_watched(
            "/bin/sh".into(),
            &["-c", script],
            &users::own(),
            silence,
            |line| {
                lines.push(line.to_owned());
                line.starts_with(|c: char| c.is_ascii_digit()).then_some(silence)
            },
        )
        .await;
        (done, lines)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(future)
    }

    #[test]
    fn progress_is_told_from_complaints() {
        let script = "printf '1/3\\r2/3\\r' >&2; printf '3/3\\n\\ntool: error: no\\nwhy: not' >&2; exit 3";
        let (done, lines) = block_on(watch(script, Duration::from_secs(60)));
        assert_eq!(lines, ["1/3", "2/3", "3/3", "tool: error: no", "why: not"]);
        let error = done.expect_err("it failed").to_string();
        assert!(
            error.ends_with("(exit status: 3): tool: error: no; why: not"),
            "{error}"
        );
        block_on(watch("printf '1/1' >&2", Duration::from_secs(60)))
            .0
            .expect("it ended well");
    }

    /// A tool that hangs in a dead connection is given up, and its child with it.
    #[test]
    fn a_silent_tool_is_given_up() {
        let script = "sleep 100000 & echo $! >&2; wait";
        let (done, lines) = block_on(watch(script, Duration::from_millis(300)));
        let error = done.expect_err("it was given up").to_string();
        assert!(error.contains("said nothing"), "{error}");
        let child: i32 = lines.first().expect("its child").parse().expect("process id");
        // A killed process whose parent is dead is reaped by somebody, some time.
        let gone = || {
            crate::sys::process::Stat::read(child)
                .expect("stat")
                .is_none_or(|stat| stat.dead())
        };
        while !gone() {
            std::thread::yield_now();
        }
    }
}
