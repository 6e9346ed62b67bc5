//! The application's processes: started, known again by a later daemon, ended as a whole. When, is not decided here.
//!
//! The application is its process group, and beyond that everything that carries our mark in its environment: print
//! commands and other children must not keep a database connection or a port after their parent is gone.

use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::output::Output;
use crate::sys::files::write_durably;
use crate::sys::process::{self, Process, ProcessId, signal_group};
use crate::sys::spawn::{Launch, base_environment};
use crate::sys::users::{Identity, in_guise_of};

/// The environment variable that marks the application's processes; its value is our home.
const MARK: &str = "PACELINE_APP";

/// What is noted of a running application, for the next daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process that leads it.
    pub process: ProcessId,
    /// Since which boot of the laptop: start times count from there.
    pub boot: String,
    /// The port filled in for `{port}`.
    pub port: u16,
    /// Names the declaration it was started from.
    pub declaration: String,
}

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Program and arguments, placeholders filled in.
    pub command: Vec<String>,
    /// Where it runs.
    pub working_directory: Utf8PathBuf,
    /// Whom it runs as.
    pub identity: Identity,
    /// Its environment besides the basic one; later entries win.
    pub environment: Vec<(String, String)>,
    /// For the record.
    pub port: u16,
    /// For the record.
    pub declaration: String,
}

/// The place in `home` where the application's processes are known from.
#[derive(Clone, Debug)]
pub struct Registry {
    home: Utf8PathBuf,
}

impl Registry {
    /// The registry of this home.
    pub fn new(home: &Utf8Path) -> Self {
        Self {
            home: home.to_owned(),
        }
    }

    fn path(&self) -> Utf8PathBuf {
        self.home.join("racedb.json")
    }

    /// Starts the application; it lives on without us.
    pub fn start(&self, start: &Start, output: &Output) -> Result<Process> {
        let mut environment = base_environment(&start.identity);
        environment.extend(start.environment.iter().cloned());
        environment.push((MARK.to_owned(), self.home.to_string()));
        let [program, arguments @ ..] = start.command.as_slice() else {
            anyhow::bail!("its command is empty");
        };
        let launch = Launch {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment,
            directory: start.working_directory.clone(),
            identity: Some(start.identity.clone()),
            dies_with_us: false,
        };
        let pid = launch.start_detached(output.open()?).with_context(|| {
            format!(
                "cannot run {program} in {} as {}",
                start.working_directory, start.identity.name
            )
        })?;
        let process = Process::open(pid)
            .context("cannot get a handle of the application")?
            .with_context(|| format!("{program} ended at once; look into {}", output.path()))?;
        let record = Record {
            process: process.id(),
            boot: boot_id(),
            port: start.port,
            declaration: start.declaration.clone(),
        };
        // Without a record the next daemon finds it by its mark and starts it anew.
        if let Err(error) = write_durably(&self.path(), &serde_json::to_vec_pretty(&record)?, 0o644, None) {
            tracing::warn!("cannot note the application's process: {error:#}");
        }
        Ok(process)
    }

    /// The application that an earlier daemon started, if it still runs.
    pub fn adopt(&self) -> Option<(Record, Process)> {
        let text = std::fs::read_to_string(self.path()).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        if record.boot != boot_id() {
            return None;
        }
        let process = Process::reopen(record.process).ok()??;
        Some((record, process))
    }

    /// Ends every process that carries our mark, as which user (`identity`) it may run. First politely, for `grace`.
    pub async fn end_strays(&self, identity: &Identity, grace: Duration) -> Result<()> {
        for (signal, patience) in [
            (Signal::SIGTERM, grace),
            (Signal::SIGKILL, Duration::from_secs(5)),
        ] {
            let strays = self.strays(identity)?;
            for stray in &strays {
                tracing::info!(pid = stray.id().pid, %signal, "ending a process that an earlier application left");
                drop(stray.signal(signal));
            }
            let all = async {
                for stray in &strays {
                    stray.ended().await;
                }
            };
            drop(tokio::time::timeout(patience, all).await);
        }
        match self.strays(identity)?.as_slice() {
            [] => Ok(()),
            rest => {
                let pids: Vec<String> = rest.iter().map(|stray| stray.id().pid.to_string()).collect();
                anyhow::bail!(
                    "processes of an earlier application do not end: {}",
                    pids.join(", ")
                )
            }
        }
    }

    fn strays(&self, identity: &Identity) -> Result<Vec<Process>> {
        // As ourselves, and as the application's user: root may have been told not to look at others' processes.
        let find = || process::with_environment(MARK, self.home.as_str()).context("cannot list processes");
        let mut marked = find()?;
        marked.extend(in_guise_of(identity, find)?);
        marked.sort_unstable();
        marked.dedup();
        let mut strays = Vec::new();
        for pid in marked {
            strays.extend(Process::open(pid)?);
        }
        Ok(strays)
    }
}

/// Signals the whole application.
pub fn signal(process: &Process, signal: Signal) {
    // It may have ended meanwhile, which is what is wanted.
    drop(signal_group(process.id().pid, signal));
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
