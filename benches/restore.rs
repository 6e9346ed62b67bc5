//! How long a restore takes, from the edit of the state file to the open gate, next to the same by hand (tar, sync, a
//! recovery to a timeline of its own) from the same tar, in the same run.
//!
//! Only the ratio counts: machines are shared and noisy. `cargo bench --bench restore`; `-- --megabytes 1000` for a larger
//! database, `-- --runs 5` for more runs.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

#[path = "../tests/common/mod.rs"]
mod common;
mod report;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Laptop, bin_directory, postgres, root};
use report::{number, report};

fn main() {
    let (runs, megabytes) = (number("--runs", 3), number("--megabytes", 256));
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    laptop.sql("create table riders (bib int, text text)");
    for _ in 0..megabytes.div_ceil(64) {
        laptop.sql("insert into riders select n, repeat(md5(n::text), 32) from generate_series(1, 64000) n");
    }
    let tar = laptop.path("racedb.tar");
    pack(&laptop, &tar);
    println!("a tar of {} MB", fs::metadata(&tar).expect("the tar").len() >> 20);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..runs {
        ours.push(declared(&laptop, &tar, run));
        bare.push(by_hand(&laptop, &tar));
    }
    report("edit -> gate open", &mut ours, "tar + sync + recovery", &mut bare);
}

/// A base backup as one tar, with its WAL.
fn pack(laptop: &Laptop, tar: &Path) {
    let plain = laptop.path("plain");
    let made = Command::new(bin_directory().join("pg_basebackup"))
        .args(["--checkpoint=fast", "-U", "postgres", "-D"])
        .arg(&plain)
        .env("PGHOST", laptop.path("home/run"))
        .env("PGPORT", laptop.port.to_string())
        .status();
    assert!(made.expect("pg_basebackup").success());
    let packed = Command::new("tar")
        .arg("-cf")
        .arg(tar)
        .arg("-C")
        .arg(&plain)
        .arg(".")
        .status();
    assert!(packed.expect("tar").success());
    fs::remove_dir_all(&plain).expect("remove");
}

fn declared(laptop: &Laptop, tar: &Path, run: usize) -> Duration {
    let before = laptop.log().len();
    let yaml = Laptop::primary_yaml("").replace("role: primary", "role: recovery");
    let begun = Instant::now();
    laptop.write_state(&format!(
        "{yaml}recovery: {{ from: {}, request: {run} }}\n",
        tar.display()
    ));
    laptop.wait_log_after(before, "action=\"start_server\"");
    let started = laptop.log().rfind("action=\"start_server\"").unwrap_or(before);
    laptop.wait_log_after(started, "gate=\"open\"");
    let took = begun.elapsed();
    laptop.wait_plan("converged");
    // Room for the next one.
    for entry in fs::read_dir(laptop.path("home")).expect("home") {
        let path = entry.expect("entry").path();
        if path.is_dir() && path.to_string_lossy().contains(".set-aside-") {
            fs::remove_dir_all(path).expect("remove");
        }
    }
    took
}

fn by_hand(laptop: &Laptop, tar: &Path) -> Duration {
    let data = laptop.path("by-hand");
    let begun = Instant::now();
    fs::create_dir(&data).expect("directory");
    run(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(&data));
    if root() {
        run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(&data));
    }
    run(Command::new("chmod").arg("700").arg(&data));
    fs::write(data.join("recovery.signal"), "").expect("signal");
    common::give(&data.join("recovery.signal"));
    run(Command::new("sync").arg("-f").arg(&data));
    let mut command = Command::new(bin_directory().join("postgres"));
    command
        .arg("-D")
        .arg(&data)
        .args(["-c", "restore_command=false", "-c", "listen_addresses="])
        .args(["-c", "unix_socket_directories=/tmp"])
        .args(["-c", &format!("port={}", common::port())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(laptop.path("said")).expect("output"))
        .current_dir("/");
    // Our configuration is not in the backup.
    for (name, text) in [
        ("postgresql.conf", ""),
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
    ] {
        fs::write(data.join(name), text).expect("write");
        common::give(&data.join(name));
    }
    if root() {
        command.uid(postgres().uid.as_raw()).gid(postgres().gid.as_raw());
    }
    let mut server = command.spawn().expect("postgres");
    let ready = || {
        fs::read_to_string(laptop.path("said")).is_ok_and(|said| said.contains("ready to accept connections"))
    };
    common::eventually("it is ready", ready);
    let took = begun.elapsed();
    common::stop_server(&data);
    drop(server.wait());
    fs::remove_dir_all(&data).expect("remove");
    took
}

fn run(command: &mut Command) {
    let status = command.status().expect("start a program");
    assert!(status.success(), "{command:?}: {status}");
}
