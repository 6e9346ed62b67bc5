//! What Paceline refuses about a data directory: one clear message with what to do, nothing changed, and once a person
//! has done it, it goes on by itself. Real daemon, real server.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use common::{As, Laptop, eventually, give, root, text};

fn stopped(more: &str) -> Laptop {
    Laptop::stopped(As::Us, more)
}

/// Everything below a directory: name, owner, mode, size, time of the last change.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("look");
        found.push(format!(
            "{} {} {:o} {} {}.{}",
            path.display(),
            meta.uid(),
            meta.mode(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
        if meta.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|entry| entry.expect("entry").path()),
            );
        }
    }
    found.sort();
    found
}

/// Breaks a stopped laptop; sees `plan`, `apply` and the daemon refuse in these words and change nothing; mends it and
/// sees the daemon go on by itself, the row still there.
fn refused(words: &[&str], hint: &str, breaks: impl Fn(&Laptop), mends: impl Fn(&Laptop)) {
    let mut laptop = stopped("");
    breaks(&laptop);
    let before = tree(&laptop.data());
    for command in ["plan", "apply"] {
        let output = laptop.run(&[command]);
        let said = text(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(5),
            "{command}: {said}{}",
            text(&output.stderr)
        );
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            matches!(lines[..], [reason, advice] if reason.starts_with("blocked: ") && advice.starts_with("hint: ")),
            "one message and one hint: {said}"
        );
        for word in words {
            assert!(lines[0].contains(word), "{word}: {said}");
        }
        assert!(lines[1].contains(&laptop_path(&laptop, hint)), "{hint}: {said}");
    }
    laptop.start();
    laptop.wait_reason("blocked", words[0]);
    let status = laptop.wait_gate("closed");
    assert_eq!(status["server"]["state"], "down", "{status:#}");
    assert_eq!(tree(&laptop.data()), before, "something was changed");
    let warnings = laptop
        .wait_log("plan: blocked")
        .lines()
        .filter(|line| line.contains("plan: blocked"))
        .count();
    assert_eq!(warnings, 1, "said once: {}", laptop.log());

    mends(&laptop);
    laptop.wait_serving();
    assert_eq!(laptop.sql("select bib from riders"), "7");
    assert_eq!(laptop.sql("select count(*) from paceline.epoch"), "1");
}

fn laptop_path(laptop: &Laptop, hint: &str) -> String {
    hint.replace("{data}", laptop.data().to_str().expect("UTF-8"))
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// A disk that was restored as root.
#[test]
fn a_data_directory_of_another_user() {
    if !root() {
        skip!("only root can give directories away");
    }
    refused(
        &["belongs to uid 0", "runs as postgres"],
        "chown -R postgres: {data}",
        |laptop| nix::unistd::chown(&laptop.data(), Some(0.into()), Some(0.into())).expect("chown"),
        |laptop| give(&laptop.data()),
    );
}

/// A copy through a USB stick.
#[test]
fn a_data_directory_that_others_may_read() {
    refused(
        &["has mode 0755"],
        "chmod 0700 {data}",
        |laptop| mode(&laptop.data(), 0o755),
        |laptop| mode(&laptop.data(), 0o700),
    );
}

fn aside(laptop: &Laptop) {
    fs::rename(laptop.data(), laptop.path("aside")).expect("rename");
}

fn back(laptop: &Laptop) {
    // In one step, so that no look falls between.
    if laptop.data().is_dir() {
        fs::rename(laptop.data(), laptop.path("wrong")).expect("rename");
    } else if laptop.data().exists() {
        fs::remove_file(laptop.data()).expect("remove");
    }
    fs::rename(laptop.path("aside"), laptop.data()).expect("rename");
}

#[test]
fn a_file_in_the_data_directorys_place() {
    refused(
        &["is no database: it is a file"],
        "move it away (Paceline never deletes it)",
        |laptop| {
            aside(laptop);
            fs::write(laptop.data(), "notes").expect("write");
        },
        back,
    );
}

/// `data_directory: /home/anna` by mistake.
#[test]
fn a_directory_with_other_things_in_it() {
    refused(
        &["is no database: it holds holiday.jpg, letters"],
        "set `postgres: data_directory:` to another place",
        |laptop| {
            aside(laptop);
            fs::create_dir_all(laptop.data().join("letters")).expect("directory");
            fs::write(laptop.data().join("holiday.jpg"), "x").expect("write");
        },
        back,
    );
}

/// A copy that was cut off has PG_VERSION early and pg_control last (POSTGRES-FACTS 18).
#[test]
fn a_copy_with_nothing_but_pg_version() {
    refused(
        &["cannot tell what", "pg_control"],
        "restore the directory from a backup or from the other laptop",
        |laptop| {
            aside(laptop);
            fs::create_dir(laptop.data()).expect("directory");
            fs::copy(laptop.path("aside/PG_VERSION"), laptop.data().join("PG_VERSION")).expect("copy");
            give(&laptop.data());
            mode(&laptop.data(), 0o700);
        },
        back,
    );
}

const CONTROL: &str = "global/pg_control";

fn damaged_control(words: &[&str], damage: impl Fn(&mut Vec<u8>)) {
    let keep = |laptop: &Laptop| laptop.path("pg_control");
    refused(
        words,
        "restore the directory from a backup or from the other laptop",
        |laptop| {
            let path = laptop.data().join(CONTROL);
            let mut bytes = fs::read(&path).expect("read");
            fs::write(keep(laptop), &bytes).expect("keep");
            damage(&mut bytes);
            fs::write(&path, bytes).expect("write");
        },
        |laptop| {
            give(&keep(laptop));
            fs::rename(keep(laptop), laptop.data().join(CONTROL)).expect("rename");
        },
    );
}

#[test]
fn a_truncated_pg_control() {
    damaged_control(&["pg_control has 4096 bytes instead of 8192"], |bytes| {
        bytes.truncate(4096);
    });
    damaged_control(&["pg_control has 0 bytes instead of 8192"], Vec::clear);
}

/// One flipped bit, in the state, a position or the checksum: never believed.
#[test]
fn a_damaged_pg_control() {
    for at in [16, 40, 120, 290] {
        damaged_control(&["pg_control is damaged"], |bytes| bytes[at] ^= 4);
    }
}

/// POSTGRES-FACTS 31: PostgreSQL's own hint is to delete the file, right here and corrupting in a clone.
#[test]
fn a_backup_label() {
    refused(
        &["there is a backup_label in"],
        "move {data}/backup_label aside (do not delete it)",
        |laptop| {
            let label = laptop.data().join("backup_label");
            fs::write(
                &label,
                "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
            )
            .expect("write");
            give(&label);
        },
        |laptop| {
            fs::rename(laptop.data().join("backup_label"), laptop.path("backup_label")).expect("rename");
        },
    );
}

#[test]
fn a_recovery_signal() {
    refused(
        &["recovery.signal"],
        "recovery.signal",
        |laptop| {
            fs::write(laptop.data().join("recovery.signal"), "").expect("write");
        },
        |laptop| fs::remove_file(laptop.data().join("recovery.signal")).expect("remove"),
    );
}

/// With an application, to see that it is not started.
fn with_app() -> Laptop {
    let laptop = stopped(
        "  database: { name: racedb, owner: racedb }\nracedb:\n  command: [\"{dir}/app\"]\n  working_directory: \"{dir}\"\n",
    );
    laptop.script(
        "app",
        "#!/bin/sh\necho start >> {dir}/events\nexec sleep 100000\n",
    );
    give(laptop.directory.path());
    laptop
}

/// A standby's copy on a lone laptop: it may be read, it is not written to, and above all the way out is never to
/// delete standby.signal: that gave two laptops different rows on one timeline (POSTGRES-FACTS 1).
#[test]
fn a_standbys_copy_becomes_writable_by_nothing() {
    let mut laptop = with_app();
    let signal = laptop.data().join("standby.signal");
    fs::write(&signal, "").expect("write");
    give(&signal);
    laptop.start();
    let (reason, hint) = laptop.wait_reason("blocked", "its copy is a standby's");
    assert!(hint.contains("`role: failover`"), "{reason}; {hint}");
    let status = laptop.wait("read-only", |status| status["server"]["state"] == "read_only");
    assert_eq!(
        (&status["gate"]["state"], &status["data"]["state"]),
        (&"closed".into(), &"replica".into())
    );
    assert_eq!(laptop.sql("select pg_is_in_recovery(), bib from riders"), "t|7");

    // Under the running standby: it stays one.
    fs::remove_file(&signal).expect("remove");
    let status = laptop.wait("the deletion", |status| status["data"]["state"] != "replica");
    assert_eq!(
        (&status["server"]["state"], &status["gate"]["state"]),
        (&"read_only".into(), &"closed".into())
    );
    assert!(laptop.stop().success());
    assert_eq!(laptop.postmaster(), None);
    for command in ["plan", "apply"] {
        let output = laptop.run(&[command]);
        assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
        let said = text(&output.stdout);
        assert!(
            said.contains("its standby.signal is gone") && said.contains("by promotion, never by deleting"),
            "{said}"
        );
    }
    laptop.start();
    let (_, hint) = laptop.wait_reason("blocked", "its standby.signal is gone");
    assert!(hint.contains(&format!("touch {}", signal.display())), "{hint}");
    assert_eq!(laptop.postmaster(), None);
    // As the hint says.
    fs::write(&signal, "").expect("write");
    laptop.wait_reason("blocked", "its copy is a standby's");
    laptop.wait("read-only", |status| status["server"]["state"] == "read_only");
    assert!(laptop.lines("events").is_empty(), "the application was started");
}

/// A leftover trigger file silently changed the role of the older container set. Here the gate closes until it is gone.
#[test]
fn a_standby_signal_under_a_running_primary() {
    let mut laptop = with_app();
    laptop.start();
    laptop.wait_serving();
    let server = laptop.postmaster();
    for name in ["standby.signal", "recovery.signal"] {
        let signal = laptop.data().join(name);
        fs::write(&signal, "").expect("write");
        laptop.wait_gate("closed");
        let (reason, hint) = laptop.wait_reason("blocked", "somebody created");
        assert!(
            reason.contains(name) && hint == format!("remove it: rm {}", signal.display()),
            "{reason}; {hint}"
        );
        laptop.wait("the application stopped", |status| {
            status["app"]["state"] == "stopped"
        });
        fs::remove_file(&signal).expect("remove");
        laptop.wait_serving();
    }
    assert_eq!(laptop.postmaster(), server);
    eventually("three starts", || laptop.lines("events").len() == 3);
}

/// The data is another version's: PostgreSQL would refuse it, in words about "database files".
#[test]
fn data_of_another_major_version() {
    let version = |laptop: &Laptop| fs::read_to_string(laptop.path("version")).expect("version");
    refused(
        &[
            "the data is PostgreSQL 13's and its programs were not found",
            "found: ",
        ],
        "apt-get install postgresql-13",
        |laptop| {
            let path = laptop.data().join("PG_VERSION");
            fs::copy(&path, laptop.path("version")).expect("copy");
            fs::write(&path, "13\n").expect("write");
        },
        |laptop| fs::write(laptop.data().join("PG_VERSION"), version(laptop)).expect("write"),
    );
}

/// An unmounted disk is no new laptop: a second, empty database would be served to the stations.
#[test]
fn a_database_that_is_gone_is_not_made_anew() {
    refused_gone(aside, back);
    // The mount point of a disk that is not mounted.
    refused_gone(
        |laptop| {
            aside(laptop);
            fs::create_dir(laptop.data()).expect("directory");
        },
        back,
    );
}

fn refused_gone(breaks: impl Fn(&Laptop), mends: impl Fn(&Laptop)) {
    let mut laptop = stopped("");
    breaks(&laptop);
    let there = laptop.data().exists();
    let planned = laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(5), "{}", text(&planned.stdout));
    laptop.start();
    let (reason, hint) = laptop.wait_reason("blocked", "was there before");
    assert!(
        reason.contains("system identifier") && hint.starts_with("is the disk mounted?"),
        "{reason}; {hint}"
    );
    assert_eq!((laptop.data().exists(), laptop.postmaster()), (there, None));
    assert!(!laptop.path("home/data.paceline-initdb").exists());
    mends(&laptop);
    laptop.wait_serving();
    assert_eq!(laptop.sql("select bib from riders"), "7");
}

/// The directory vanishes under the running server (`rm -r` in the wrong window, a USB disk that is pulled). Nothing is
/// made in its place.
#[test]
fn a_data_directory_that_vanishes_under_the_server() {
    let mut laptop = stopped("");
    laptop.start();
    laptop.wait_serving();
    let server = laptop.postmaster().expect("server");
    fs::remove_dir_all(laptop.data())
        .or_else(|_| fs::remove_dir_all(laptop.data()))
        .expect("remove");
    let status = laptop.wait("not open any more", |status| status["gate"]["state"] != "open");
    assert_ne!(status["plan"]["state"], "converging", "{status:#}");
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(server),
        nix::sys::signal::Signal::SIGQUIT,
    );
    common::wait_gone(server);
    laptop.wait_reason("blocked", "was there before");
    laptop.wait_gate("closed");
    assert!(!laptop.path("home/data.paceline-initdb").exists());
    // A person decides, as the hint says.
    fs::remove_file(laptop.path("home/database.json")).expect("remove");
    laptop.wait_serving();
    assert_eq!(laptop.sql("select to_regclass('riders') is null"), "t");
}
