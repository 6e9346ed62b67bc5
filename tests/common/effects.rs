//! Two laptops without daemons, on which single effects are carried out.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use paceline::desired::{Desired, PeerAddress, Surroundings};
use paceline::exec::{Context, carry_out};
use paceline::hint::hint_of;
use paceline::observed::{AppFacts, Configuration, DataState, Fact, Installation};
use paceline::plan::configuration::{About, render};
use paceline::plan::{Action, CloneSource, ConfigurationFiles, ReplicationNeed, Start};
use paceline::probe::{FromInside, Prober};
use tokio::sync::watch;

use crate::common::{self, As, Laptop, bin_directory, root, stop_server, text};

pub const SLOT: &str = "paceline_bravo_1";

/// Two laptops: alpha's server is written to and knows of bravo; bravo has nothing yet.
pub struct Pair {
    pub alpha: Laptop,
    pub alpha_desired: Desired,
    pub bravo: Laptop,
    pub bravo_desired: Desired,
}

impl Pair {
    pub fn new() -> Self {
        let alpha = Laptop::stopped(As::Us, "");
        alpha.write_state(&Laptop::primary_yaml("peer: 192.0.2.1\n"));
        let alpha_desired = desired(&alpha);
        configure(&alpha_desired, false, "");
        start(&alpha_desired, false);
        act(&alpha_desired, &Action::EnsureReplication(Box::new(need()))).expect("role and slot");
        let (bravo, bravo_desired) = follower(&alpha);
        Self {
            alpha,
            alpha_desired,
            bravo,
            bravo_desired,
        }
    }

    pub fn source(&self, replaces: DataState) -> CloneSource {
        CloneSource {
            peer: self.bravo_desired.peer.clone().expect("peer"),
            programs: programs(),
            system_identifier: self
                .alpha
                .sql("select system_identifier from pg_control_system()"),
            epoch: self
                .alpha
                .sql("select uuid from paceline.epoch order by timeline desc limit 1")
                .parse()
                .expect("uuid"),
            replaces,
        }
    }

    pub fn clone(&self, replaces: DataState) -> anyhow::Result<()> {
        self.clone_from(self.source(replaces))
    }

    pub fn clone_from(&self, source: CloneSource) -> anyhow::Result<()> {
        act(&self.bravo_desired, &Action::Clone(Box::new(source)))
    }

    /// Refused, with these words and this hint, and nothing was made.
    pub fn refuses(&self, source: CloneSource, words: &str, hint: &str) {
        let before = siblings(&self.bravo);
        let error = self.clone_from(source).expect_err(words);
        let said = format!("{error:#}");
        assert!(said.contains(words), "{said}");
        let hinted = hint_of(&error).unwrap_or_default();
        assert!(hinted.contains(hint), "{said}: {hinted}");
        assert_eq!(siblings(&self.bravo), before);
    }

    /// Bravo's data directory is a copy of alpha's that is trusted.
    pub fn assert_copy(&self) {
        let state = look(&self.bravo_desired).data.fact;
        let Fact::Known(data) = state else {
            panic!("{state:?}")
        };
        assert_eq!(data.state().state(), DataState::Replica);
        let sidecar = data.cluster().and_then(|cluster| cluster.trusted_sidecar());
        let epochs: Vec<String> = sidecar
            .expect("sidecar")
            .epochs
            .iter()
            .map(|epoch| epoch.uuid.to_string())
            .collect();
        assert_eq!(epochs, [self.source(DataState::Empty).epoch.to_string()]);
        for name in siblings(&self.bravo) {
            assert!(
                name == "data" || name == "data.paceline.json" || name.starts_with("data.set-aside-"),
                "{name} was left"
            );
        }
    }

    /// A database of bravo's own, stopped; `bib` is in it.
    pub fn own_database(&self, bib: u32) {
        let desired = &self.bravo_desired;
        act(desired, &Action::CreateCluster(programs())).expect("create");
        configure(desired, false, "");
        start(desired, false);
        act(desired, &Action::NameEpoch).expect("name");
        self.bravo.sql(&format!(
            "create table riders (bib int); insert into riders values ({bib})"
        ));
        stop_server(&self.bravo.data());
    }
}

pub fn need() -> ReplicationNeed {
    ReplicationNeed {
        role: true,
        create_slot: Some(SLOT.to_owned()),
        drop_slots: Vec::new(),
    }
}

/// A laptop that follows another and has its secret.
pub fn follower(alpha: &Laptop) -> (Laptop, Desired) {
    let bravo =
        Laptop::new("role: standby\nnode: bravo\nhome: home\npeer: 192.0.2.1\npostgres: { port: {port} }\n");
    let secrets = bravo.path("home/secrets");
    fs::create_dir_all(&secrets).expect("secrets");
    fs::copy(
        alpha.path("home/secrets/replication"),
        secrets.join("replication"),
    )
    .expect("the secret");
    let mut desired = desired(&bravo);
    // A state file does not allow the laptop's own address.
    desired.peer = Some(PeerAddress {
        host: "127.0.0.1".to_owned(),
        port: alpha.port,
        api_port: alpha.api,
    });
    (bravo, desired)
}

pub fn desired(laptop: &Laptop) -> Desired {
    let path = Utf8PathBuf::from_path_buf(laptop.state_file()).expect("UTF-8");
    let surroundings = Surroundings::detect(&path, None).expect("surroundings");
    paceline::desired::load(&surroundings).expect("valid")
}

pub fn programs() -> Installation {
    let bin_directory = Utf8PathBuf::from_path_buf(bin_directory()).expect("UTF-8");
    let major = bin_directory.parent().and_then(Utf8Path::file_name);
    Installation {
        major: major.and_then(|name| name.parse().ok()).expect("major version"),
        version: "test".to_owned(),
        bin_directory,
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

pub fn act(desired: &Desired, action: &Action) -> anyhow::Result<()> {
    block_on(acting(desired, action, watch::channel(None).0))
}

pub async fn acting(
    desired: &Desired,
    action: &Action,
    progress: watch::Sender<Option<String>>,
) -> anyhow::Result<()> {
    let (_keep, app) = watch::channel(AppFacts::default());
    let mut context = Context {
        desired,
        app,
        session: paceline::probe::server::Shared::default(),
        progress,
    };
    carry_out(&mut context, action).await
}

pub fn look(desired: &Desired) -> paceline::observed::Observed {
    block_on(async { Prober::default().look(desired, FromInside::default(), true).await })
}

/// The configuration of a database of Paceline's own.
pub fn files(desired: &Desired) -> ConfigurationFiles {
    let about = About {
        major: programs().major,
        own: None,
        replica: false,
        follows: None,
        needed: None,
        synchronous: None,
    };
    render(desired, &about, &Configuration::default())
}

/// Writes the configuration, with further lines at its end.
pub fn configure(desired: &Desired, passfile: bool, more: &str) {
    let mut files = files(desired);
    files.passfile = passfile;
    files.postgresql_conf.push_str(more);
    act(desired, &Action::WriteConfiguration(Box::new(files))).expect("configuration");
}

pub fn start(desired: &Desired, standby: bool) {
    let start = Start {
        programs: programs(),
        standby,
    };
    act(desired, &Action::StartServer(start)).expect("start");
}

/// What lies beside and under the name of the data directory.
pub fn siblings(laptop: &Laptop) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(laptop.path("home"))
        .expect("home")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name == "data" || name.starts_with("data."))
        .collect();
    names.sort();
    names
}

/// The directories that were set aside.
pub fn set_aside(laptop: &Laptop) -> Vec<PathBuf> {
    siblings(laptop)
        .into_iter()
        .filter(|name| name.starts_with("data.set-aside-"))
        .map(|name| laptop.path("home").join(name))
        .filter(|path| path.is_dir())
        .collect()
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}.{suffix}", path.display()))
}

/// A program as the server's user.
fn as_server(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    if root() {
        let user = common::postgres();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// What a data directory holds, asked of a server for a single user: it needs no configuration of ours.
pub fn riders(data: &Path) -> String {
    let mut child = as_server(bin_directory().join("postgres"))
        .args(["--single", "-D"])
        .arg(data)
        .args(["-c", "config_file=/dev/null", "postgres"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("postgres");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"select 'bib ' || bib from riders\n")
        .expect("write");
    let output = child.wait_with_output().expect("postgres");
    text(&output.stdout) + &text(&output.stderr)
}

/// Stands between two laptops; a connection that brought so many bytes from the server becomes very slow until it is let
/// go.
pub struct Wire {
    pub port: u16,
    pub state: Arc<(Mutex<WireState>, Condvar)>,
}

#[derive(Default)]
pub struct WireState {
    held: bool,
    frozen: bool,
    let_go: bool,
    cut: bool,
}

impl Wire {
    pub fn to(server: u16, limit: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
        let port = listener.local_addr().expect("address").port();
        let state: Arc<(Mutex<WireState>, Condvar)> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("connection");
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let (mut from, mut to) = (
                    client.try_clone().expect("clone"),
                    server.try_clone().expect("clone"),
                );
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || carry(server, client, limit, &shared));
            }
        });
        Self { port, state }
    }

    /// Waits until a connection is held.
    pub fn wait_held(state: &(Mutex<WireState>, Condvar)) {
        let (lock, changed) = state;
        let guard = lock.lock().expect("lock");
        let (_guard, waited) = changed
            .wait_timeout_while(guard, common::LIMIT, |state| !state.held)
            .expect("lock");
        assert!(!waited.timed_out(), "nothing was copied");
    }

    /// From now on a held connection brings nothing at all.
    pub fn freeze(&self) {
        self.state.0.lock().expect("lock").frozen = true;
    }

    /// A held connection ends, with nothing of what was still under way.
    pub fn cut(&self) {
        self.state.0.lock().expect("lock").cut = true;
        self.let_go();
    }

    pub fn let_go(&self) {
        self.state.0.lock().expect("lock").let_go = true;
        self.state.1.notify_all();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, limit: usize, state: &(Mutex<WireState>, Condvar)) {
    let mut total = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        total += length;
        if total > limit {
            let (lock, changed) = state;
            let mut guard = lock.lock().expect("lock");
            guard.held = true;
            changed.notify_all();
            let slow = Duration::from_millis(50);
            let (guard, _) = changed
                .wait_timeout_while(guard, slow, |state| !state.let_go)
                .expect("lock");
            let guard = changed
                .wait_while(guard, |state| state.frozen && !state.let_go)
                .expect("lock");
            if guard.cut {
                break;
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

/// Processes that write to bravo's staging directory.
pub fn copiers(laptop: &Laptop) -> Vec<i32> {
    let staging = laptop.path("home/data.paceline-clone");
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|bytes| {
                bytes
                    .split(|b| *b == 0)
                    .any(|argument| argument == staging.as_os_str().as_encoded_bytes())
            })
        })
        .collect()
}
