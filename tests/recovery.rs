//! `role: recovery`: a backup in place of what is there, once, from whatever the crew has. Nothing of what was there is
//! lost, whatever happens in the middle.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::pair::Pair;
use common::{As, Laptop, bin_directory, crash_server, text};
use serde_json::Value;

/// A laptop that serves a table with the row 1.
fn serving() -> Laptop {
    let laptop = Laptop::primary("").started();
    laptop.wait_serving();
    laptop.sql("create table riders (bib int); insert into riders values (1)");
    laptop
}

fn riders(laptop: &Laptop) -> String {
    laptop.sql("select string_agg(bib::text, ' ' order by bib) from riders")
}

/// A base backup of what the laptop serves, made with PostgreSQL's own tool.
fn base_backup(laptop: &Laptop, name: &str, more: &[&str]) -> PathBuf {
    let to = laptop.path(name);
    let output = Command::new(bin_directory().join("pg_basebackup"))
        .args(["--checkpoint=fast", "--no-password", "-U", "postgres", "-D"])
        .arg(&to)
        .args(more)
        .env_clear()
        .env("PGHOST", laptop.path("home/run"))
        .env("PGPORT", laptop.port.to_string())
        .output()
        .expect("pg_basebackup");
    assert!(output.status.success(), "{}", text(&output.stderr));
    to
}

/// Declares recovery with this section.
fn recovery(laptop: &Laptop, section: &str) {
    let yaml = Laptop::primary_yaml("").replace("role: primary", "role: recovery");
    laptop.write_state(&format!("{yaml}recovery: {{ {section} }}\n"));
}

fn restores(laptop: &Laptop) -> usize {
    laptop.log().matches("doing: restore ").count()
}

/// Restored, and served, for the so-manieth time.
fn wait_restored(laptop: &Laptop, times: usize) -> Value {
    common::eventually("the restore begins", || restores(laptop) >= times);
    laptop.wait_serving();
    laptop.wait("restored", |status| {
        status["plan"]["state"] == "converged"
            && status["gate"]["state"] == "open"
            && status["server"]["state"] == "writable"
    })
}

/// The copies that were set aside.
fn set_aside(laptop: &Laptop) -> Vec<PathBuf> {
    let entries = fs::read_dir(laptop.path("home")).expect("home");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir() && path.to_string_lossy().contains(".set-aside-"))
        .collect();
    found.sort();
    found
}

/// Nothing unfinished lies about.
fn tidy(laptop: &Laptop) {
    for entry in fs::read_dir(laptop.path("home")).expect("home") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        for unfinished in [
            "paceline-clone",
            "paceline-unpacked",
            "paceline-verified",
            "tainted",
            "restore",
        ] {
            assert!(!name.contains(unfinished), "{name}");
        }
    }
}

/// Restored once: neither a restart of the daemon nor the same file, pushed again, restores it a second time (a crew lost a
/// day's registrations to a script that did at each start). Another request does, and that gets a timeline that nobody
/// used before.
#[test]
fn a_directory_is_restored_once() {
    let mut laptop = serving();
    let backup = base_backup(&laptop, "backup", &[]);
    laptop.sql("insert into riders values (2)");
    let section = format!("from: {}", backup.display());
    recovery(&laptop, &section);
    let status = wait_restored(&laptop, 1);
    assert_eq!(riders(&laptop), "1");
    assert_eq!(set_aside(&laptop).len(), 1);
    assert_eq!(status["data"]["epochs"].as_array().map(Vec::len), Some(2));
    let timeline = status["data"]["timeline"].as_u64().expect("timeline");
    tidy(&laptop);

    laptop.sql("insert into riders values (3)");
    laptop.stop();
    laptop.start();
    laptop.wait_serving();
    let before = laptop.log().len();
    let same = fs::read_to_string(laptop.state_file()).expect("state file");
    laptop.write_state(&format!("# pushed again\n{same}"));
    laptop.wait_log_after(before, "state file read");
    laptop.wait_plan("converged");
    assert_eq!(riders(&laptop), "1 3");
    let advice = laptop.run(&["status"]);
    assert!(
        text(&advice.stdout).contains("you may write `primary`"),
        "{}",
        text(&advice.stdout)
    );

    let before = restores(&laptop);
    recovery(&laptop, &format!("{section}, request: 2"));
    let status = wait_restored(&laptop, before + 1);
    assert_eq!(riders(&laptop), "1");
    assert_eq!(set_aside(&laptop).len(), 2);
    assert!(status["data"]["timeline"].as_u64() > Some(timeline), "{status:#}");
    let given_up =
        laptop.sql("select cardinality(supersedes) from paceline.epoch order by timeline desc limit 1");
    assert_eq!(
        given_up, "1",
        "the epoch of the first restore is not part of this one"
    );
}

/// Every way in which a crew has a data directory in a tar: the older container set's `recover-db.tgz`, with its leading
/// directory; plain and with Zstandard; and pg_basebackup's own tar format.
#[test]
fn a_tar_is_restored() {
    let mut laptop = Laptop::stopped(As::Us, "");
    let pack = |out: Box<dyn Write>| {
        let mut tar = tar::Builder::new(out);
        tar.append_dir_all("var/lib/data", laptop.data()).expect("pack");
        tar.into_inner().expect("pack").flush().expect("pack");
    };
    let file = |name: &str| File::create(laptop.path(name)).expect("create");
    pack(Box::new(file("recover-db.tar")));
    pack(Box::new(flate2::write::GzEncoder::new(
        file("recover-db.tgz"),
        flate2::Compression::fast(),
    )));
    pack(Box::new(
        zstd::Encoder::new(file("recover-db.tar.zst"), 1)
            .expect("zstd")
            .auto_finish(),
    ));
    laptop.start();
    laptop.wait_serving();
    let taken = base_backup(&laptop, "taken", &["--format=tar", "--gzip"]);
    let names = ["recover-db.tar", "recover-db.tgz", "recover-db.tar.zst"];
    for (number, path) in names
        .map(|name| laptop.path(name))
        .into_iter()
        .chain([taken])
        .enumerate()
    {
        laptop.sql("insert into riders values (8)");
        recovery(&laptop, &format!("from: {}", path.display()));
        wait_restored(&laptop, number + 1);
        assert_eq!(riders(&laptop), "7", "{}", path.display());
        tidy(&laptop);
    }
}

/// The archive of a laptop: its WAL so far, where the server's user can read it.
fn archive(laptop: &Laptop) -> PathBuf {
    let archive = laptop.path("archive");
    fs::create_dir_all(&archive).expect("archive");
    laptop.sql("select pg_switch_wal()");
    laptop.sql("checkpoint");
    for entry in fs::read_dir(laptop.data().join("pg_wal")).expect("pg_wal") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            let to = archive.join(path.file_name().expect("name"));
            fs::copy(&path, &to).expect("copy");
            common::give(&to);
        }
    }
    common::give(&archive);
    archive
}

/// Up to a moment, a name, a position, a transaction; and a name that is not there replaces nothing.
#[test]
fn a_target_is_reached_or_nothing_is_replaced() {
    let laptop = serving();
    let backup = base_backup(&laptop, "backup", &[]);
    laptop.sql("insert into riders values (2)");
    laptop.sql("select pg_create_restore_point('before the mistake')");
    let position = laptop.sql("select pg_current_wal_lsn()");
    let transaction = laptop.sql("select xmin from riders where bib = 2");
    laptop.sql("insert into riders values (3)");
    let moment = laptop.sql("select clock_timestamp()");
    laptop.sql("delete from riders");
    let archive = archive(&laptop);
    let section = |target: &str| {
        format!(
            "from: {}, restore_command: \"cp {}/%f %p\", target: {target}",
            backup.display(),
            archive.display()
        )
    };
    recovery(&laptop, &section(&format!("{{ time: \"{moment}\" }}")));
    wait_restored(&laptop, 1);
    assert_eq!(riders(&laptop), "1 2 3");

    recovery(&laptop, &section("{ name: before the mistake }"));
    wait_restored(&laptop, 2);
    assert_eq!(riders(&laptop), "1 2");

    recovery(&laptop, &section(&format!("{{ lsn: {position} }}")));
    wait_restored(&laptop, 3);
    assert_eq!(riders(&laptop), "1 2");
    recovery(&laptop, &section(&format!("{{ xid: {transaction} }}")));
    wait_restored(&laptop, 4);
    assert_eq!(riders(&laptop), "1 2");

    laptop.sql("insert into riders values (4)");
    let kept = set_aside(&laptop).len();
    recovery(&laptop, &section("{ name: never made }"));
    let status = laptop.wait("it fails", |status| status["plan"]["state"] == "failed");
    let said = status["plan"].to_string();
    assert!(
        said.contains("before configured recovery target was reached"),
        "{said}"
    );
    assert!(said.contains("nothing was replaced"), "{said}");
    assert_eq!(set_aside(&laptop).len(), kept);
    laptop.write_state(&Laptop::primary_yaml(""));
    laptop.wait_serving();
    assert_eq!(riders(&laptop), "1 2 4");
}

/// Gives a directory and everything in it to the server's user.
fn give_all(path: &Path) {
    common::give(path);
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            give_all(&entry.expect("entry").path());
        }
    }
}

/// With a restore_command alone a copy of what is here is brought forward.
#[test]
fn an_archive_alone_brings_the_copy_forward() {
    let mut laptop = serving();
    let old = base_backup(&laptop, "old", &[]);
    laptop.sql("insert into riders values (2)");
    let archive = archive(&laptop);
    recovery(&laptop, &format!("from: {}, target: immediate", old.display()));
    wait_restored(&laptop, 1);
    assert_eq!(riders(&laptop), "1");
    laptop.stop();
    // Its first timeline, as it was when the backup was taken.
    fs::remove_dir_all(laptop.data()).expect("remove");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&old, &laptop.data()])
        .status()
        .expect("cp");
    assert!(copied.success());
    fs::remove_file(laptop.data().join("backup_label")).expect("remove");
    fs::remove_file(laptop.path("home/data.paceline.json")).expect("remove");
    give_all(&laptop.data());
    recovery(
        &laptop,
        &format!("restore_command: \"cp {}/%f %p\"", archive.display()),
    );
    laptop.start();
    wait_restored(&laptop, 1);
    assert_eq!(riders(&laptop), "1 2");
}

/// A backup that is not there, or is none, is said before anything is stopped for it.
#[test]
fn a_backup_that_cannot_be_used_stops_nothing() {
    let laptop = serving();
    let page = laptop.path("index.html");
    fs::write(&page, "<html>").expect("write");
    for (from, words) in [
        (laptop.path("stick/racedb"), "No such file"),
        (laptop.path("home/run"), "neither a data directory"),
        (page, "is no tar file"),
    ] {
        recovery(&laptop, &format!("from: {}", from.display()));
        let (reason, hint) = laptop.wait_reason("blocked", words);
        assert!(reason.contains("the backup cannot be restored"), "{reason}");
        assert!(hint.contains("correct `recovery`"), "{hint}");
        laptop.wait_gate("open");
    }
    assert_eq!(riders(&laptop), "1");
    // It is put there: nobody has to say anything any more.
    recovery(&laptop, &format!("from: {}", laptop.path("late").display()));
    laptop.wait_reason("blocked", "No such file");
    let made = base_backup(&laptop, "making", &[]);
    fs::rename(made, laptop.path("late")).expect("rename");
    wait_restored(&laptop, 1);
}

/// What leads out of the backup, and what is cut off in its middle, replaces nothing.
#[test]
fn a_bad_tar_replaces_nothing() {
    let laptop = serving();
    let link = |path: &Path| {
        let mut tar = tar::Builder::new(File::create(path).expect("create"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "data/base", "/etc").expect("pack");
        tar.into_inner().expect("pack");
    };
    let bad = laptop.path("bad.tar");
    link(&bad);
    recovery(&laptop, &format!("from: {}", bad.display()));
    let status = laptop.wait("it fails", |status| status["plan"]["state"] == "failed");
    assert!(
        status["plan"].to_string().contains("leads out of it"),
        "{status:#}"
    );
    laptop.write_state(&Laptop::primary_yaml(""));
    laptop.wait_serving();

    let whole = base_backup(&laptop, "taken", &["--format=tar", "--gzip"]).join("base.tar.gz");
    let cut = laptop.path("cut.tgz");
    let bytes = fs::read(&whole).expect("read");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("write");
    recovery(&laptop, &format!("from: {}", cut.display()));
    let status = laptop.wait("it fails", |status| status["plan"]["state"] == "failed");
    assert!(status["plan"].to_string().contains("unpack"), "{status:#}");
    laptop.write_state(&Laptop::primary_yaml(""));
    laptop.wait_serving();
    assert_eq!(riders(&laptop), "1");
    assert!(set_aside(&laptop).is_empty());
    tidy(&laptop);
}

/// kill -9 of the daemon in the middle: no tool is left behind, the restore begins anew, and what was there is kept.
#[test]
fn a_restore_that_was_interrupted_begins_anew() {
    let mut laptop = serving();
    let backup = base_backup(&laptop, "backup", &[]);
    laptop.sql("insert into riders values (2)");
    recovery(&laptop, &format!("from: {}", backup.display()));
    laptop.wait_log("doing: restore ");
    laptop.kill_daemon();
    laptop.launch();
    wait_restored(&laptop, 1);
    assert_eq!(riders(&laptop), "1");
    assert_eq!(set_aside(&laptop).len(), 1);
    tidy(&laptop);
    // And the same with everything at once.
    recovery(&laptop, &format!("from: {}, request: again", backup.display()));
    laptop.wait_log_after(
        laptop.log().rfind("state file read").unwrap_or(0),
        "doing: restore ",
    );
    laptop.kill_daemon();
    crash_server(&laptop.data());
    laptop.launch();
    laptop.wait_serving();
    laptop.wait_plan("converged");
    assert_eq!(riders(&laptop), "1");
}

/// The standby of a laptop that was restored follows it again by itself.
#[test]
fn the_standby_follows_what_was_restored() {
    let pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    let backup = base_backup(&pair.alpha, "backup", &[]);
    pair.alpha.sql("insert into riders values (2)");
    pair.bravo.wait_sql("select count(*) from riders", "2");
    let section = format!("recovery: {{ from: {} }}\n", backup.display());
    pair.declare_alpha("recovery", &section);
    wait_restored(&pair.alpha, 1);
    assert_eq!(riders(&pair.alpha), "1");
    pair.alpha.sql("insert into riders values (3)");
    pair.bravo.wait_sql(
        "select string_agg(bib::text, ' ' order by bib) from riders",
        "1 3",
    );
    pair.bravo.wait_streaming();
}

/// Beside a laptop that may go on with what it has nothing is replaced, unless a person consents; then the restored
/// database is the one that counts, and the other laptop comes to it.
#[test]
fn beside_a_laptop_that_writes_it_takes_a_consent() {
    let pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    let backup = base_backup(&pair.alpha, "backup", &[]);
    pair.alpha.sql("insert into riders values (2)");
    pair.bravo.wait_sql("select count(*) from riders", "2");
    let section = |consent: &str| format!("recovery: {{ from: {} }}\n{consent}", backup.display());
    pair.declare_bravo("recovery", &section(""));
    let (_, hint) = pair.bravo.wait_reason(
        "blocked",
        "the other laptop is alive and its database is being written to",
    );
    assert!(hint.contains("hand over first"), "{hint}");
    let status = pair
        .bravo
        .wait("a token", |status| status["plan"]["consent"].is_string());
    assert_eq!(pair.bravo.sql("select pg_is_in_recovery()"), "t");
    let token = status["plan"]["consent"].as_str().expect("token").to_owned();
    pair.declare_bravo("recovery", &section(&format!("consent: \"{token}\"\n")));
    pair.alpha
        .wait("it gives way", |status| status["gate"]["state"] == "closed");
    common::eventually("it is restored", || restores(&pair.bravo) == 1);
    pair.bravo.wait_serving();
    assert_eq!(riders(&pair.bravo), "1");
    // Alpha, declared primary, follows the newer history until it is handed over to.
    pair.alpha
        .wait_sql("select string_agg(bib::text, ' ' order by bib) from riders", "1");
}
