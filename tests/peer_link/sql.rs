//! Over SQL, with real servers.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use paceline::desired::{PeerAddress, Role, SslMode};
use paceline::lineage::Lineage;
use paceline::observed::{DataState, Fact, Failing, KNOWN_FOR, Server};
use paceline::peer::sql::{SqlFacts, ask};
use paceline::peer::{Trouble, View, ask_once};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::common::{LIMIT, bin_directory, eventually, port, postgres, postmaster_of, root, stop_server};
use crate::fake::{Fake, Reply, good};
use crate::{Here, PASSWORD, closed, link_of};

/// A PostgreSQL server without a daemon.
struct Bare {
    directory: tempfile::TempDir,
    port: u16,
}

impl Bare {
    fn new() -> Self {
        let server = Self::empty();
        server.run(
            "initdb",
            &["-U", "postgres", "-A", "trust", "-N", "-D"],
            &server.data(),
        );
        fs::write(
            server.data().join("pg_hba.conf"),
            "local all all trust\nhost replication all 127.0.0.1/32 trust\n\
             host all trusted 127.0.0.1/32 trust\nhost all careless 127.0.0.1/32 password\n\
             host all replicator 127.0.0.1/32 scram-sha-256\n",
        )
        .expect("write");
        server.start();
        server.sql(&format!(
            "create role replicator login replication password '{PASSWORD}'; create role trusted login; \
             create role careless login password '{PASSWORD}'"
        ));
        server
    }

    /// A standby of it.
    fn standby(&self) -> Self {
        let standby = Self::empty();
        let port = self.port.to_string();
        standby.run(
            "pg_basebackup",
            &[
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "replicator",
                "-R",
                "-c",
                "fast",
                "-D",
            ],
            &standby.data(),
        );
        standby.start();
        standby
    }

    fn empty() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pl")
            .tempdir_in("/tmp")
            .expect("temporary directory");
        crate::common::give(directory.path());
        Self {
            directory,
            port: port(),
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(bin_directory().join(program));
        command.env_clear().current_dir(self.directory.path());
        if root() {
            let user = postgres();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str], last: &std::path::Path) {
        let output = self
            .command(program)
            .args(arguments)
            .arg(last)
            .output()
            .expect("run");
        assert!(
            output.status.success(),
            "{program}: {}",
            crate::common::text(&output.stderr)
        );
    }

    /// Starts the server and waits until it is ready.
    fn start(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off",
            self.port,
            self.directory.path().display()
        );
        let log = self.directory.path().join("log");
        let log = log.to_str().expect("UTF-8");
        self.run(
            "pg_ctl",
            &["start", "-w", "-l", log, "-o", &options, "-D"],
            &self.data(),
        );
    }

    fn sql(&self, sql: &str) -> String {
        let output = self
            .command("psql")
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                sql,
            ])
            .arg("-h")
            .arg(self.directory.path())
            .args(["-p", &self.port.to_string()])
            .output()
            .expect("psql");
        assert!(
            output.status.success(),
            "{sql}: {}",
            crate::common::text(&output.stderr)
        );
        crate::common::text(&output.stdout).trim().to_owned()
    }

    fn here(&self) -> Here {
        Here::new(closed(), self.port)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if postmaster_of(&self.data()).is_some() {
            stop_server(&self.data());
        }
    }
}

/// Asks until there is an answer: on a busy machine anybody can be late.
async fn facts(here: &Here) -> SqlFacts {
    let peer = here.desired.peer.clone().expect("peer");
    let started = Instant::now();
    loop {
        match ask(&here.desired, &peer).await {
            Ok(facts) => return facts,
            Err(error) => assert!(started.elapsed() < LIMIT, "{error:#}"),
        }
    }
}

/// Asks until it fails like this.
async fn fails(here: &Here, how: Failing, words: &str) {
    let peer = here.desired.peer.clone().expect("peer");
    let started = Instant::now();
    loop {
        let error = ask(&here.desired, &peer).await.expect_err("not to be believed");
        let trouble = error.downcast_ref::<Trouble>().expect("a trouble");
        if trouble.how == how && trouble.why.contains(words) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{how:?}: {words:?} is not {trouble:?}");
    }
}

fn lineage(view: &View) -> Option<Lineage> {
    link_of(view).answered.clone().and_then(|facts| facts.lineage)
}

#[tokio::test]
async fn a_server_without_a_daemon_is_known_without_a_role() {
    let server = Bare::new();
    let mut here = server.here();

    // A plain replication role sees all; nothing is named yet.
    let said = facts(&here).await;
    assert!(said.writable && !said.in_recovery && said.timeline_certain);
    assert_eq!((said.timeline, said.epochs.clone()), (1, Some(Vec::new())));
    assert_eq!(
        said.system_identifier,
        server.sql("select system_identifier from pg_control_system()")
    );
    assert_eq!(
        server.sql(&format!("select '{}'::pg_lsn > '0/0'", said.position)),
        "t"
    );
    let major = server.sql("select current_setting('server_version_num')::int / 10000");
    assert_eq!(said.major.to_string(), major);

    let mut link = here.follow();
    let view = link.answered().await;
    let known = link_of(&view).answered.clone().expect("answered");
    assert_eq!(
        (known.node, known.role, known.data),
        (None, None, DataState::Primary)
    );
    assert_eq!(known.server, Fact::Known(Server::Writable));
    assert!(known.lineage.is_some_and(|lineage| lineage.epochs.is_empty()));
    assert_eq!(known.sees, None);
    assert!(matches!(&view.memory, Fact::Known(Some(memory)) if memory.writable && memory.role.is_none()));

    // Names that may not be read are not "none".
    server.sql(
        "create schema paceline; create table paceline.epoch (uuid uuid, parent uuid, supersedes uuid[], \
         begin_lsn pg_lsn, timeline int, node text, \"time\" text); \
         insert into paceline.epoch values (gen_random_uuid(), null, '{}', '0/1', 1, 'bravo', 'now')",
    );
    assert_eq!(facts(&here).await.epochs, None);
    link.wait("no lineage", |view| lineage(view).is_none()).await;
    server.sql("grant usage on schema paceline to replicator; grant select on paceline.epoch to replicator");
    let view = link.wait("the lineage", |view| lineage(view).is_some()).await;
    let named = lineage(&view).expect("lineage");
    assert_eq!(named.epochs[0].node, "bravo");
    assert!(named.position.is_some());

    // A command without a daemon sees the same.
    let view = ask_once(&here.desired).await;
    assert!(link_of(&view).answered.is_some());

    // The server goes.
    stop_server(&server.data());
    link.wait("refused", |view| {
        link_of(view)
            .failed
            .as_ref()
            .is_some_and(|failed| failed.how == crate::REFUSED)
    })
    .await;

    // Our own server is not the other laptop's.
    server.start();
    here.declare(|desired| desired.postgres.port = server.port);
    fails(&here, Failing::Unauthenticated, "this laptop's own server").await;
}

#[tokio::test]
async fn a_server_that_proves_nothing_is_not_believed() {
    let server = Bare::new();
    let mut here = server.here();
    for (user, words) in [
        ("trusted", "it lets us in without a password"),
        // It asked for the password itself, and did not get it.
        ("careless", "does not ask for the password by SCRAM"),
        ("nobody", "pg_hba.conf"),
    ] {
        here.declare(|desired| user.clone_into(&mut desired.replication.user));
        fails(&here, Failing::Unauthenticated, words).await;
    }
    here.declare(|desired| "replicator".clone_into(&mut desired.replication.user));
    here.declare(|desired| desired.replication.sslmode = SslMode::Require);
    fails(&here, Failing::Unauthenticated, "TLS is not supported yet").await;
    here.declare(|desired| desired.replication.sslmode = SslMode::Prefer);

    here.set_password("a wrong one");
    let mut link = here.follow();
    let words = "does not let replicator in with our replication secret";
    let why = link.fails(Failing::Unauthenticated, words).await;
    assert!(!why.contains("a wrong one"), "{why}");
    fs::remove_file(&here.desired.replication.password_file).expect("remove");
    let mut link = here.follow();
    link.fails(Failing::Unauthenticated, "no replication secret on this laptop")
        .await;

    // Something else altogether listens there.
    here.set_password(PASSWORD);
    let rubbish = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = rubbish.local_addr().expect("address").port();
    tokio::spawn(async move {
        let (mut stream, _) = rubbish.accept().await.expect("accept");
        stream
            .write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n")
            .await
            .expect("write");
        std::future::pending::<()>().await;
    });
    here.declare(|desired| desired.peer.as_mut().expect("peer").port = port);
    fails(&here, Failing::Unauthenticated, "this is not PostgreSQL").await;
}

#[tokio::test]
async fn a_frozen_server_is_silent_soon() {
    let server = Bare::new();
    let here = server.here();
    let mut link = here.follow();
    link.answered().await;
    let postmaster = Pid::from_raw(postmaster_of(&server.data()).expect("a server runs"));
    let frozen = crate::common::signal_server(&server.data(), Signal::SIGSTOP);
    let started = Instant::now();
    // A connection that is open already, then a new one.
    for attempts in 1..=2 {
        let view = link
            .wait("failures", |view| {
                link_of(view)
                    .failed
                    .as_ref()
                    .is_some_and(|failed| failed.attempts >= attempts)
            })
            .await;
        let failed = link_of(&view).failed.clone().expect("failed");
        assert_eq!(failed.how, crate::SILENT, "{}", failed.why);
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    for pid in frozen {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
    link.wait("an answer again", |view| link_of(view).failed.is_none())
        .await;
    assert_eq!(postmaster_of(&server.data()), Some(postmaster.as_raw()));
}

#[tokio::test]
async fn a_standby_that_hides_its_receiver_proves_no_position() {
    let primary = Bare::new();
    let standby = primary.standby();
    let here = standby.here();
    eventually("the receiver", || {
        standby.sql("select count(*) from pg_stat_wal_receiver") == "1"
    });
    let said = facts(&here).await;
    assert!(said.in_recovery && !said.writable && !said.timeline_certain && !said.streaming);
    primary.sql("grant pg_read_all_stats to replicator");
    eventually("the grant", || {
        standby.sql("select pg_has_role('replicator', 'pg_read_all_stats', 'usage')") == "t"
    });
    eventually("streaming", || {
        standby.sql("select count(*) from pg_stat_wal_receiver where status = 'streaming'") == "1"
    });
    let said = facts(&here).await;
    assert!(said.timeline_certain && said.streaming, "{said:?}");
    let view = here.follow().answered().await;
    let known = link_of(&view).answered.clone().expect("answered");
    assert_eq!(known.data, DataState::Replica);
    assert_eq!(known.server, Fact::Known(Server::ReadOnly { streaming: true }));
}

/// The daemon's word is sealed, its server's is not: the one counts as long as it is fresh, and what only a daemon can
/// say is remembered.
#[tokio::test]
async fn a_server_does_not_contradict_its_daemon() {
    let server = Bare::new();
    server.sql("alter system set default_transaction_read_only = on");
    server.sql("select pg_reload_conf()");
    let fake = Fake::new(good(1)).await;
    let mut here = server.here();
    here.declare(|desired| {
        desired.peer = Some(PeerAddress {
            host: "127.0.0.1".to_owned(),
            port: server.port,
            api_port: fake.port,
        });
    });
    let mut link = here.follow();
    link.answered().await;
    fake.reply(Reply::Raw(Vec::new()));
    let mut last = None;
    let view = link
        .wait("the server's word", |view| {
            let facts = link_of(view).answered.as_ref().expect("answered");
            if facts.node.is_some() {
                last = Some(facts.at);
            }
            facts.node.is_none()
        })
        .await;
    let known = link_of(&view).answered.clone().expect("answered");
    assert!(known.at.since(last.expect("the daemon's word came first")) > KNOWN_FOR);
    assert_eq!(known.server, Fact::Known(Server::ReadOnly { streaming: false }));
    let Fact::Known(Some(memory)) = view.memory else {
        panic!("{view:?}")
    };
    assert_eq!(
        (memory.role, memory.node.as_deref()),
        (Some(Role::Primary), Some("bravo"))
    );
    assert!(!memory.writable && memory.lineage.is_some());
}
