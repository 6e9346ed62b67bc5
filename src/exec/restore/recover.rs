//! Brings an unpacked backup to the declared moment, ends its recovery, and names the epoch that begins there: by a server
//! on a socket in a directory that is closed to everybody else.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use tokio::time::sleep;
use tokio_postgres::{Client, Config};

use crate::desired::{Desired, RecoveryTarget};
use crate::exec::Context;
use crate::exec::clone::say;
use crate::exec::epoch::{Written, insert};
use crate::hint::hinted;
use crate::lineage::{Epoch, Lsn};
use crate::observed::{ControlData, Installation};
use crate::plan::Restore;
use crate::probe::server;
use crate::supervise::{postgres, tool};
use crate::sys::clock;
use crate::sys::files::{ensure_directory, write_durably};
use crate::sys::process::Process;
use crate::sys::users::Identity;

/// How long the recovery may say nothing: it may wait for a slow `restore_command`.
const SILENCE: Duration = Duration::from_secs(3600);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(50);

/// What it came to.
pub(super) struct Recovered {
    pub(super) timeline: u32,
    /// All that the copy holds, the new one last.
    pub(super) epochs: Vec<Epoch>,
    /// When the last transaction in it was committed, as PostgreSQL says it.
    pub(super) until: Option<String>,
}

/// A recovery.
pub(super) struct Recovery<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) wanted: &'a Restore,
    pub(super) staging: &'a Utf8Path,
    pub(super) user: &'a Identity,
    pub(super) programs: &'a Installation,
    /// As it was unpacked.
    pub(super) control: &'a ControlData,
}

/// Where its configuration and its socket are.
fn place(desired: &Desired) -> Utf8PathBuf {
    desired.home.join("restore")
}

/// Removes that.
pub(super) fn clear(desired: &Desired) -> Result<()> {
    let path = place(desired);
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {path}"))
        }
        _ => Ok(()),
    }
}

impl Recovery<'_> {
    pub(super) async fn run(&self) -> Result<Recovered> {
        say(self.context, "recovering the backup".to_owned());
        clear(self.context.desired)?;
        ensure_directory(&place(self.context.desired), 0o700, Some(self.user.owner()))?;
        self.signal("recovery.signal")?;
        let first = self
            .serve(&self.up_to_the_target(), async {
                let client = self.writable().await?;
                let written = Written::ask(&client).await?;
                if written.timeline > self.wanted.timelines {
                    return Ok(Ok(self.name(&client, &written).await?));
                }
                Ok(Err(written.timeline))
            })
            .await
            .map_err(|error| {
                hinted(
                    format!("the backup could not be recovered, and nothing was replaced: {error:#}"),
                    "correct `recovery` (source, restore_command or target), or write `role: primary` to go on with what \
                     is here",
                )
            })?;
        match first {
            Ok(recovered) => Ok(recovered),
            Err(timeline) => self.onto_an_unused_timeline(timeline).await,
        }
    }

    /// Either laptop has used this timeline's number: streams and archives would take one for the other. So it is left at
    /// once for a greater one. (PostgreSQL takes the first number that has no history file; those of numbers that were used
    /// elsewhere say nothing, and nobody reads them for more than that they are there.)
    async fn onto_an_unused_timeline(&self, timeline: u32) -> Result<Recovered> {
        for used in timeline + 1..=self.wanted.timelines {
            let path = self.staging.join(format!("pg_wal/{used:08X}.history"));
            if !path.exists() {
                let text = "# this number was used by a timeline that is not part of this history\n";
                write_durably(&path, text.as_bytes(), 0o600, Some(self.user.owner()))?;
            }
        }
        self.signal("standby.signal")?;
        let settings = [("recovery_target_timeline", "current".to_owned())];
        self.serve(&settings, async {
            let client = loop {
                match self.connect().await {
                    Ok(client) => break client,
                    Err(_) => sleep(LOOK).await,
                }
            };
            server::query(&client, "select pg_promote(false)")
                .await
                .context("cannot end the recovery")?;
            let client = self.writable().await?;
            let written = Written::ask(&client).await?;
            if written.timeline <= self.wanted.timelines {
                bail!(
                    "the restored copy is on timeline {}, and {} is in use already",
                    written.timeline,
                    self.wanted.timelines
                );
            }
            self.name(&client, &written).await
        })
        .await
        .context("the restored copy did not get a timeline of its own, and nothing was replaced")
    }

    /// Records the epoch that begins with the restored copy.
    async fn name(&self, client: &Client, written: &Written) -> Result<Recovered> {
        let rows = server::epochs(client).await?;
        let parent = rows.last();
        // The timelines in between, if there are any, are of this very restore.
        let left = |timeline: u32| {
            let of_parent = |(number, left): &(u32, Lsn)| (*number == timeline).then_some(*left);
            written.path.iter().find_map(of_parent)
        };
        let begin_lsn = parent
            .and_then(|parent| left(parent.timeline))
            .or(written.switch)
            .unwrap_or(written.position);
        let epoch = Epoch {
            uuid: uuid::Uuid::new_v4(),
            parent: parent.map(|parent| parent.uuid),
            supersedes: self
                .wanted
                .epochs
                .iter()
                .filter(|known| !rows.iter().any(|row| row.uuid == **known))
                .copied()
                .collect(),
            begin_lsn,
            timeline: written.timeline,
            node: self.context.desired.node.clone(),
            time: clock::timestamp(),
        };
        insert(client, &epoch).await?;
        let epochs = server::epochs(client).await?;
        if epochs.last() != Some(&epoch) {
            bail!("the restored copy's epoch is not in paceline.epoch after it was written");
        }
        let until = server::query(client, "select pg_last_xact_replay_timestamp()").await?;
        Ok(Recovered {
            timeline: written.timeline,
            epochs,
            until: until.first().and_then(|row| row.get(0)).map(ToOwned::to_owned),
        })
    }

    fn signal(&self, name: &str) -> Result<()> {
        write_durably(&self.staging.join(name), b"", 0o600, Some(self.user.owner()))
    }

    /// What makes it stop where a person wants it, and then go on by itself.
    fn up_to_the_target(&self) -> Vec<(&'static str, String)> {
        let recovery = &self.wanted.recovery;
        let mut settings = vec![("recovery_target_action", "promote".to_owned())];
        match &recovery.restore_command {
            Some(command) => settings.push(("restore_command", command.clone())),
            // Without one it does not start (POSTGRES-FACTS 4): what the backup itself has is all there is.
            None => settings.extend([
                ("restore_command", "false".to_owned()),
                ("recovery_target_timeline", "current".to_owned()),
            ]),
        }
        settings.extend(match &recovery.target {
            RecoveryTarget::Latest => None,
            RecoveryTarget::Immediate => Some(("recovery_target", "immediate".to_owned())),
            RecoveryTarget::Time(time) => Some(("recovery_target_time", time.clone())),
            RecoveryTarget::Lsn(lsn) => Some(("recovery_target_lsn", lsn.clone())),
            RecoveryTarget::Name(name) => Some(("recovery_target_name", name.clone())),
            RecoveryTarget::Xid(xid) => Some(("recovery_target_xid", xid.clone())),
        });
        settings
    }

    /// Runs the server while `work` is done, and shuts it down.
    async fn serve<T>(
        &self,
        settings: &[(&'static str, String)],
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.configure(settings)?;
        let directory = place(self.context.desired);
        let config_file = postgres::config_file_argument(&directory);
        // What these say no file of the backup may overrule.
        let arguments = [
            "-D",
            self.staging.as_str(),
            "-c",
            &config_file,
            "-c",
            "listen_addresses=",
            "-c",
            &format!("unix_socket_directories={directory}"),
            "-c",
            "archive_mode=off",
            "-c",
            "logging_collector=off",
            "-c",
            "log_destination=stderr",
        ];
        let program = self.programs.bin_directory.join("postgres");
        let server = tool::run_watched(&program, &arguments, self.user, SILENCE, |line| {
            let complaint = ["FATAL:", "PANIC:", "ERROR:", "HINT:", "DETAIL:"]
                .iter()
                .any(|word| line.contains(word));
            if let Some((_, file)) = line.split_once("restored log file ") {
                say(self.context, format!("recovering the backup: {file}"));
            }
            // It says so to us while it is not ready.
            let to_us = line.contains("the database system is") || line.contains("not yet accepting");
            (!complaint || to_us).then_some(SILENCE)
        });
        tokio::pin!(server);
        let done = tokio::select! {
            biased;
            ended = &mut server => {
                ended?;
                bail!("the server that recovers the backup ended by itself");
            }
            done = work => done?,
        };
        let pid_file = self.staging.join("postmaster.pid");
        let pid: i32 = fs::read_to_string(&pid_file)
            .with_context(|| format!("cannot read {pid_file}"))?
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .with_context(|| format!("{pid_file} names no process"))?;
        Process::open(pid)
            .context("cannot get a handle of the server")?
            .context("the server that recovers the backup is gone")?
            .signal(Signal::SIGINT)
            .context("cannot tell the server to stop")?;
        server.await?;
        Ok(done)
    }

    fn configure(&self, settings: &[(&'static str, String)]) -> Result<()> {
        let desired = self.context.desired;
        let directory = place(desired);
        let mut all: Vec<(&str, String)> = vec![
            ("port", desired.postgres.port.to_string()),
            ("hba_file", format!("{directory}/pg_hba.conf")),
            ("ident_file", format!("{directory}/pg_ident.conf")),
            ("unix_socket_permissions", "0700".to_owned()),
            ("hot_standby", "on".to_owned()),
            ("autovacuum", "off".to_owned()),
            // A moment without a zone is meant as the clock on the wall shows it.
            (
                "timezone",
                jiff::tz::TimeZone::system()
                    .iana_name()
                    .unwrap_or("UTC")
                    .to_owned(),
            ),
        ];
        // Lower than where the WAL was written it does not start (POSTGRES-FACTS 9).
        for (name, value) in self.control.needed.named() {
            all.push((name, value.max(10).to_string()));
        }
        all.extend(settings.iter().cloned());
        let lines: Vec<String> = all
            .iter()
            .map(|(name, value)| {
                let quoted = value.replace('\\', "\\\\").replace('\'', "''");
                format!("{name} = '{quoted}'\n")
            })
            .collect();
        let owner = Some(self.user.owner());
        for (name, text) in [
            ("postgresql.conf", lines.concat()),
            // The directory is closed to everybody but the server's user and root.
            ("pg_hba.conf", "local all all trust\n".to_owned()),
            ("pg_ident.conf", String::new()),
        ] {
            write_durably(&directory.join(name), text.as_bytes(), 0o600, owner)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Client> {
        let mut config = Config::new();
        config
            .host_path(place(self.context.desired))
            .port(self.context.desired.postgres.port)
            .user("postgres")
            .dbname("postgres")
            .application_name("paceline")
            .connect_timeout(server::LIMIT);
        server::open(&config).await
    }

    /// Waits until the recovery is over.
    async fn writable(&self) -> Result<Client> {
        loop {
            if let Ok(client) = self.connect().await
                && let Ok(rows) = server::query(&client, "select pg_is_in_recovery()").await
                && rows.first().and_then(|row| row.get(0)) == Some("f")
            {
                return Ok(client);
            }
            sleep(LOOK).await;
        }
    }
}
