//! How long a dead primary takes, once it sees that the other laptop took over, until it streams from that one, next to the
//! same by hand (recovery for a single user, pg_rewind, start) on a pair that was made in the same way, in the same run:
//! once with nothing that only it had, once with a row that is kept with a copy of everything. And how long a clean one
//! takes, which can follow as it is, next to a bare start.
//!
//! Only the ratio counts: machines are shared and noisy. `cargo bench --bench rejoin`; `-- --runs 5` for more runs,
//! `-- --megabytes 1000` for a larger database.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

#[path = "../tests/common/mod.rs"]
mod common;
mod report;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::pair::Pair;
use common::{Laptop, bin_directory, eventually, give, postgres, root};
use report::{connect, number, report};
use tokio_postgres::Client;

/// How alpha comes to be behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Past {
    /// It crashed, and has nothing of its own.
    Level,
    /// It crashed, and has a row of its own.
    Forked,
    /// It was stopped in time.
    Clean,
}

fn main() {
    let (runs, megabytes) = (number("--runs", 3), number("--megabytes", 128));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        println!("a database of {megabytes} MB");
        for (past, words, by_hand_is) in [
            (Past::Level, "nothing to keep", "recovery + pg_rewind + start"),
            (Past::Forked, "a row to keep", "recovery + pg_rewind + start"),
            (Past::Clean, "stopped in time", "standby.signal + start"),
        ] {
            let (mut ours, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                ours.push(by_itself(past, megabytes).await);
                bare.push(by_hand(past, megabytes).await);
            }
            let ours_are = format!("{words}: seen -> streams");
            report(&ours_are, &mut ours, by_hand_is, &mut bare);
        }
    });
}

/// Alpha is down; bravo took over, writes, and has its first checkpoint.
fn taken_over(past: Past, megabytes: usize) -> Pair {
    let mut pair = Pair::following();
    pair.alpha.sql("create table riders (bib int, text text)");
    // 1 kB a row, written in pieces so that the slot's limit is never reached.
    for piece in 0..megabytes.div_ceil(64) {
        let rows = 64.min(megabytes - piece * 64) * 1000;
        pair.alpha.sql(&format!(
            "insert into riders select n, repeat(md5(n::text), 32) from generate_series(1, {rows}) n"
        ));
    }
    // As it is most of the time: what has to be replayed is little.
    for laptop in [&pair.alpha, &pair.bravo] {
        let written = pair.alpha.sql("select pg_current_wal_lsn()");
        let level = format!("select pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby has everything", || pair.bravo.sql(&level) == "t");
        laptop.sql("checkpoint");
    }
    match past {
        Past::Level => pair.kill_alpha(),
        Past::Forked => {
            pair.bravo.stop();
            pair.alpha.sql("insert into riders values (666)");
            pair.kill_alpha();
            pair.bravo.start();
        }
        Past::Clean => {
            pair.alpha.stop();
        }
    }
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    pair.bravo.sql("checkpoint");
    pair
}

async fn by_itself(past: Past, megabytes: usize) -> Duration {
    let mut pair = taken_over(past, megabytes);
    let client = connect(&pair.bravo).await;
    pair.alpha.launch();
    let seen = ["action=\"rewind\"", "action=\"place_standby_signal\""];
    pair.alpha.wait_log_any(0, &seen);
    let begun = Instant::now();
    streams(&client).await;
    let took = begun.elapsed();
    pair.alpha
        .wait("streaming", |status| status["server"]["streaming"] == true);
    assert_eq!(pair.alpha.log().contains(seen[0]), past != Past::Clean);
    took
}

/// The same pair, without alpha's daemon.
async fn by_hand(past: Past, megabytes: usize) -> Duration {
    let pair = taken_over(past, megabytes);
    let client = connect(&pair.bravo).await;
    let data = pair.alpha.data();
    let begun = Instant::now();
    if past != Past::Clean {
        // Our own test killed it, and nobody has reaped it.
        drop(fs::remove_file(data.join("postmaster.pid")));
        run(tool(&pair.alpha, "postgres", &["--single", "-F", "-D"])
            .arg(&data)
            .args(["-c", &config_file(&pair.alpha), "template1"]));
        let source = format!(
            "host=127.0.0.1 port={} user=replicator dbname=postgres passfile={}",
            pair.bravo.port,
            pair.alpha.path("home/conf/replication.pgpass").display()
        );
        run(tool(
            &pair.alpha,
            "pg_rewind",
            &["--no-ensure-shutdown", "--source-server"],
        )
        .arg(source)
        .arg("--target-pgdata")
        .arg(&data));
    }
    let signal = data.join("standby.signal");
    fs::write(&signal, "").expect("write");
    give(&signal);
    let mut server = spawn(
        tool(&pair.alpha, "postgres", &["-D"])
            .arg(&data)
            .args(["-c", &config_file(&pair.alpha)]),
    );
    streams(&client).await;
    let took = begun.elapsed();
    common::stop_server(&data);
    drop(server.wait());
    took
}

fn config_file(laptop: &Laptop) -> String {
    format!(
        "config_file={}",
        laptop.path("home/conf/postgresql.conf").display()
    )
}

/// One of PostgreSQL's programs as the server's user.
fn tool(laptop: &Laptop, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(bin_directory().join(name));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(laptop.path("said")).expect("output"))
        .current_dir("/");
    if root() {
        command.uid(postgres().uid.as_raw()).gid(postgres().gid.as_raw());
    }
    command
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().expect("start a program")
}

fn run(command: &mut Command) {
    let status = spawn(command).wait().expect("wait");
    assert!(status.success(), "{command:?}: {status}");
}

/// Until bravo sees alpha stream.
async fn streams(client: &Client) {
    let sql = "select from pg_stat_replication where state = 'streaming'";
    loop {
        let rows = client.query(sql, &[]).await.expect("ask the primary");
        if !rows.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}
