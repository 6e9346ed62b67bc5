//! How long a failover takes, from the moment the state file is saved to the first INSERT that is accepted, next to a
//! bare `pg_promote(false)` on a pair that was made in the same way, in the same run. And how long a standby with 1 GB
//! takes from its start to streaming, next to a bare start of the same server.
//!
//! Only the ratio counts: machines are shared and noisy. `cargo bench --bench failover`; `-- --runs 11` for more runs,
//! `-- --megabytes 100` for a smaller copy.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

#[path = "../tests/common/mod.rs"]
mod common;
mod report;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::pair::Pair;
use common::{Laptop, bin_directory, postgres, postmaster_of, root, stop_server};
use report::{connect, number, report};
use tokio_postgres::Client;

fn main() {
    let runs = number("--runs", 9);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        failover(runs).await;
        restart(runs, number("--megabytes", 1024)).await;
    });
}

async fn failover(runs: usize) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(declared().await);
        bare.push(promoted().await);
    }
    report(
        "file saved -> INSERT accepted",
        &mut ours,
        "pg_promote(false) -> INSERT accepted",
        &mut bare,
    );
}

/// The primary is dead, and a person writes `failover`.
async fn declared() -> Duration {
    let mut pair = Pair::following();
    let client = prepare(&mut pair).await;
    pair.bravo.wait_reason("waiting", "cannot be reached");
    let begun = Instant::now();
    pair.declare_bravo("failover", "");
    accepted(&client).await;
    begun.elapsed()
}

/// The same pair without daemons.
async fn promoted() -> Duration {
    let mut pair = Pair::following();
    let client = prepare(&mut pair).await;
    pair.bravo.wait_reason("waiting", "cannot be reached");
    pair.bravo.kill_daemon();
    let begun = Instant::now();
    client
        .simple_query("select pg_promote(false)")
        .await
        .expect("promote");
    accepted(&client).await;
    begun.elapsed()
}

/// A table, a connection to the standby, and a primary that has just died.
async fn prepare(pair: &mut Pair) -> Client {
    pair.alpha.sql("create table riders (bib int)");
    common::eventually("the table arrives", || {
        pair.bravo
            .sql("select count(*) from pg_class where relname = 'riders'")
            == "1"
    });
    let client = connect(&pair.bravo).await;
    pair.kill_alpha();
    client
}

/// Tries again and again, at short intervals that leave the machine to the server.
async fn accepted(client: &Client) {
    while client
        .simple_query("insert into riders values (7)")
        .await
        .is_err()
    {
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

async fn restart(runs: usize, megabytes: usize) {
    let mut pair = Pair::following();
    println!("\nmaking a database of {megabytes} MB …");
    // 1 kB a row, written in pieces so that the slot's limit is never reached.
    pair.alpha.sql("create table riders (bib int, text text)");
    for piece in 0..megabytes.div_ceil(64) {
        let rows = 64.min(megabytes - piece * 64) * 1000;
        pair.alpha.sql(&format!(
            "insert into riders select n, repeat(md5(n::text), 32) from generate_series(1, {rows}) n"
        ));
    }
    let written = pair.alpha.sql("select pg_current_wal_lsn()");
    let level = format!("select pg_last_wal_replay_lsn() >= '{written}'");
    common::eventually("the standby has everything", || pair.bravo.sql(&level) == "t");
    // Otherwise each start would replay all of it again.
    pair.alpha.sql("checkpoint");
    let written = pair.alpha.sql("select pg_current_wal_lsn()");
    let level = format!("select pg_last_wal_replay_lsn() >= '{written}'");
    common::eventually("the standby has the checkpoint", || pair.bravo.sql(&level) == "t");
    pair.bravo.sql("checkpoint");
    let client = connect(&pair.alpha).await;
    pair.bravo.stop();

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let begun = Instant::now();
        pair.bravo.launch();
        streams(&client).await;
        ours.push(begun.elapsed());
        pair.bravo.wait_streaming();
        pair.bravo.stop();

        let begun = Instant::now();
        let mut server = start(&pair.bravo);
        streams(&client).await;
        bare.push(begun.elapsed());
        stop_server(&pair.bravo.data());
        drop(server.wait());
    }
    report(
        &format!("daemon started -> standby of {megabytes} MB streams"),
        &mut ours,
        "postgres started -> streams",
        &mut bare,
    );
}

/// The server alone, as the daemon would start it.
fn start(laptop: &Laptop) -> std::process::Child {
    assert_eq!(postmaster_of(&laptop.data()), None, "the server is down");
    let mut command = Command::new(bin_directory().join("postgres"));
    command
        .arg("-D")
        .arg(laptop.data())
        .arg("-c")
        .arg(format!(
            "config_file={}",
            laptop.path("home/conf/postgresql.conf").display()
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    if root() {
        command.uid(postgres().uid.as_raw()).gid(postgres().gid.as_raw());
    }
    command.spawn().expect("start the server")
}

/// Until the primary sees the standby stream.
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
