//! How long a handover takes, from the gate that closes here to the first INSERT that is accepted there, next to the same
//! steps of PostgreSQL by hand (fast stop, promotion) on a pair that was made in the same way, in the same run; the
//! application's own stop and start are in both.
//!
//! Only the ratio counts: machines are shared and noisy. `cargo bench --bench handover`; `-- --runs 11` for more runs.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

#[path = "../tests/common/mod.rs"]
mod common;
mod report;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::pair::Pair;
use common::{Laptop, postgres, root, stop_server};
use report::{connect, number, report};
use tokio_postgres::Client;

/// What stands for RaceDB, with its own times at their best: it ends within 0.5 s, and a prewarmed one answers 0.42 s after
/// it was told to go.
const APP: &str = "#!/bin/sh\ntrap 'sleep 0.5; exit 0' TERM\nsleep 0.42\necho up > {dir}/up\nwhile :; do sleep 0.01; done\n";
const STOPS_IN: Duration = Duration::from_millis(500);

fn main() {
    let runs = number("--runs", 9);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            ours.push(declared().await);
            bare.push(by_hand().await);
        }
        report(
            "gate closes here -> INSERT and application there",
            &mut ours,
            "app stop + fast stop + promotion + app start",
            &mut bare,
        );
    });
}

fn pair() -> Pair {
    let app = "racedb: { command: [\"{dir}/app\"], working_directory: / }\n";
    let pair = Pair::with(app, app);
    for laptop in [&pair.alpha, &pair.bravo] {
        laptop.script("app", APP);
        if root() {
            let user = postgres();
            nix::unistd::chown(laptop.directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
        }
    }
    let pair = pair.into_following();
    pair.alpha.sql("create table riders (bib int)");
    common::eventually("the table arrives", || {
        pair.bravo
            .sql("select count(*) from pg_class where relname = 'riders'")
            == "1"
    });
    let up = || !pair.alpha.lines("up").is_empty();
    common::eventually("the application is up", up);
    pair
}

/// The second of the two edits is made.
async fn declared() -> Duration {
    let app = "racedb: { command: [\"{dir}/app\"], working_directory: / }\n";
    let pair = pair();
    let client = connect(&pair.bravo).await;
    pair.declare_bravo("primary", app);
    pair.bravo.wait_reason("waiting", "serves; this one follows it");
    pair.declare_alpha("standby", app);
    pair.alpha.wait_log("action=\"stop_app\"");
    let begun = Instant::now();
    accepted(&client).await;
    common::eventually("the application is up", || !pair.bravo.lines("up").is_empty());
    begun.elapsed()
}

/// The same pair without daemons.
async fn by_hand() -> Duration {
    let mut pair = pair();
    let client = connect(&pair.bravo).await;
    pair.alpha.kill_daemon();
    pair.bravo.kill_daemon();
    common::end_marked(&pair.alpha.path("home"));
    let begun = Instant::now();
    // The application's own stop.
    tokio::time::sleep(STOPS_IN).await;
    stop_server(&pair.alpha.data());
    client
        .simple_query("select pg_promote(false)")
        .await
        .expect("promote");
    accepted(&client).await;
    let mut app = start_app(&pair.bravo);
    common::eventually("the application is up", || !pair.bravo.lines("up").is_empty());
    let took = begun.elapsed();
    drop(app.kill());
    drop(app.wait());
    took
}

fn start_app(laptop: &Laptop) -> std::process::Child {
    let mut command = Command::new(laptop.path("app"));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command.spawn().expect("start the application")
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
