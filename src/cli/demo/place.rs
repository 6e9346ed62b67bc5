//! The demo's directory: both laptops' files, and the processes that work in it.

use std::env;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::node::Node;
use super::{pairing, say};
use crate::desired::{self, Role, Surroundings};
use crate::hint::hinted;
use crate::sys::net;
use crate::sys::process::{self, Process, Stat};
use crate::sys::users::{self, Identity};

/// Where everything is.
pub(super) struct Place {
    pub(super) directory: Utf8PathBuf,
    /// Whom the servers run as, and the application.
    pub(super) user: Identity,
    /// This program, where that user can run it.
    program: Utf8PathBuf,
}

impl Place {
    /// Makes the directory: below `base`, or where temporary files go and the servers' user can follow.
    pub(super) fn make(base: Option<&Utf8Path>) -> Result<Self> {
        let user = if users::is_root() {
            users::find("postgres")?
        } else {
            Some(users::own())
        };
        let user = user.ok_or_else(|| {
            hinted(
                "there is no user postgres, whom root's servers run as",
                "install PostgreSQL (on Debian: apt-get install postgresql), or run this as an ordinary user",
            )
        })?;
        let name = format!(
            "paceline-demo.{}",
            &uuid::Uuid::new_v4().simple().to_string()[..6]
        );
        let bases = match base {
            Some(base) => vec![camino::absolute_utf8(base)?],
            None => vec![Utf8PathBuf::try_from(env::temp_dir())?, "/tmp".into()],
        };
        let open = |base: &&Utf8PathBuf| users::closed_directory(&base.join(&name), &user).is_none();
        let base = bases.iter().find(open).ok_or_else(|| {
            hinted(
                format!("the servers' user {} cannot enter {}", user.name, bases[0]),
                "name a place that everybody can enter: --directory DIR",
            )
        })?;
        let directory = base.join(name);
        fs::create_dir(&directory)
            .and_then(|()| fs::set_permissions(&directory, Permissions::from_mode(0o755)))
            .map_err(|error| {
                let what = format!("cannot make the directory {directory}: {error}");
                hinted(what, "name a place that can be written to: --directory DIR")
            })?;
        let mut program = our_program()?;
        if users::closed_directory(&program, &user).is_some() {
            let copy = directory.join(program.file_name().unwrap_or("paceline"));
            fs::copy(&program, &copy).with_context(|| format!("cannot copy {program} to {copy}"))?;
            program = copy;
        }
        Ok(Self {
            directory,
            user,
            program,
        })
    }

    /// Writes both laptops' files.
    pub(super) fn furnish(&self) -> Result<[Node; 2]> {
        let schema = self.directory.join("state.schema.json");
        fs::write(&schema, desired::schema()).with_context(|| format!("cannot write {schema}"))?;
        let secrets = [pairing::new_secret(), pairing::new_secret()];
        let port = free_ports()?;
        Ok([
            self.laptop(("alpha", port), ("bravo", port + 2), Role::Primary, &secrets)?,
            self.laptop(("bravo", port + 2), ("alpha", port), Role::Standby, &secrets)?,
        ])
    }

    fn laptop(
        &self,
        (name, port): (&'static str, u16),
        (other, other_port): (&str, u16),
        role: Role,
        secrets: &[String; 2],
    ) -> Result<Node> {
        let state = self.directory.join(name).join("state.yaml");
        let (api, other_api) = (port + 1, other_port + 1);
        // A JSON string is also one of YAML, whatever is in the path.
        let program = serde_json::to_string(&self.program)?;
        let text = format!(
            "\
# yaml-language-server: $schema=../state.schema.json
# {name}, one of the demo's two laptops. Its daemon acts on every change of this file.

# This word is what a person edits: primary, standby, or failover (the other laptop is gone: take over).
role: {role}

node: {name}
peer: {{ host: 127.0.0.1, port: {other_port}, api_port: {other_api} }}     # {other}, here on the same machine
home: home
api: {{ listen: \"127.0.0.1:{api}\" }}
postgres:
  port: {port}
  listen_addresses: 127.0.0.1
  database: {{ name: racedb, password_file: home/secrets/racedb }}     # the same password on both
  settings: {{ dynamic_shared_memory_type: mmap }}     # so that a kill -9 leaves nothing in /dev/shm
# Stands for RaceDB: a registration every half second, only where the database may be written to.
racedb: {{ command: [{program}, demo-app] }}
safety: {{ peer_wait: 2s }}     # usually 10s; here nobody waits for a Wi-Fi
"
        );
        pairing::write_state(&state, &text)?;
        let desired = desired::load(&Surroundings::detect(&state, None)?)?;
        let database = desired
            .postgres
            .database
            .as_ref()
            .context("no database is declared")?;
        for (file, secret) in [&desired.replication.password_file, &database.password_file]
            .into_iter()
            .zip(secrets)
        {
            pairing::store(file, &desired.home, secret)?;
        }
        Ok(Node::new(
            name,
            state,
            desired,
            self.program.clone(),
            self.user.clone(),
        ))
    }

    /// Removes the directory.
    pub(super) fn remove(&self) {
        match fs::remove_dir_all(&self.directory) {
            Ok(()) => say(format_args!("{} is removed", self.directory)),
            Err(error) => say(format_args!("{} cannot be removed: {error}", self.directory)),
        }
    }
}

/// The first of four free ports. They lie below those that the kernel gives to connections, of which one could have the
/// port of a server that starts again.
fn free_ports() -> Result<u16> {
    let random = || (uuid::Uuid::new_v4().as_u128() % 12_000) as u16;
    let free = |port: u16| !net::in_use(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    (0..1000)
        .map(|_| 20_000 + random())
        .find(|first| (0..4).all(|n| free(first + n)))
        .context("no four ports in a row are free on 127.0.0.1 between 20000 and 32000")
}

/// Kills the daemons, applications and servers that work in a directory, all at once, and waits for their end; gives
/// the process ids of those that do not end. A person's shell or editor in there is left alone.
pub(super) async fn kill(directory: &Utf8Path, user: &Identity) -> Result<Vec<i32>> {
    // Again: one may have been started while we looked.
    for _ in 0..5 {
        let found = find(directory, user)?;
        for process in &found {
            process.signal(Signal::SIGKILL)?;
        }
        let ended = async {
            for process in &found {
                process.ended().await;
            }
        };
        if found.is_empty() {
            break;
        }
        drop(timeout(Duration::from_secs(2), ended).await);
    }
    Ok(find(directory, user)?
        .iter()
        .map(|process| process.id().pid)
        .collect())
}

/// Where this program is, also if it was replaced meanwhile.
fn our_program() -> Result<Utf8PathBuf> {
    let us = i32::try_from(std::process::id())?;
    process::executable(us).context("cannot tell where this program is")
}

/// Oldest first: a server's first process has no time to notice that its children are gone.
fn find(directory: &Utf8Path, user: &Identity) -> Result<Vec<Process>> {
    // The kernel's name of a process has at most 15 bytes.
    let ours = our_program()?.file_name().unwrap_or_default().to_owned();
    let works_here = |pid: i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name = name.trim_end();
        let known = ours.get(..15).unwrap_or(&ours) == name
            || matches!(name, "postgres" | "initdb" | "pg_basebackup");
        let here = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        let inside = |word: &String| Utf8Path::new(word).starts_with(directory);
        let named = || process::arguments(pid).is_ok_and(|words| words.iter().any(inside));
        known && (here() || named())
    };
    let look = || -> Result<Vec<i32>> {
        let all = process::all().context("cannot list processes")?;
        Ok(all.into_iter().filter(|pid| works_here(*pid)).collect())
    };
    let mut pids = look()?;
    // Root may have been told not to look at other users' processes, unless it is that user.
    pids.extend(users::in_guise_of(user, look)?);
    pids.sort_by_key(|pid| (Stat::read(*pid).ok().flatten().map(|stat| stat.started), *pid));
    pids.dedup();
    let mut found = Vec::new();
    for pid in pids {
        found.extend(Process::open(pid)?);
    }
    Ok(found)
}
