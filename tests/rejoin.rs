//! A former primary comes back: as a follower, by itself, whatever it was declared; and what only it had is kept.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::pair::Pair;
use common::{Laptop, bin_directory, postgres, root};
use serde_json::Value;

fn has_row(laptop: &Laptop, bib: u32) {
    laptop.wait_sql(&format!("select count(*) from riders where bib = {bib}"), "1");
}

/// A pair with a table and one row in it on both.
fn pair_with_rows() -> Pair {
    let pair = Pair::following();
    pair.alpha
        .sql("create table riders (bib int); insert into riders values (1)");
    has_row(&pair.bravo, 1);
    pair
}

/// The copies that were set aside, without the sidecars beside them.
fn set_aside(laptop: &Laptop) -> Vec<PathBuf> {
    let entries = fs::read_dir(laptop.path("home")).expect("home");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir() && path.to_string_lossy().contains(".set-aside-"))
        .collect();
    found.sort();
    found
}

fn report(kept: &std::path::Path) -> Value {
    let text = fs::read_to_string(kept.join("report.json")).expect("report");
    serde_json::from_str(&text).expect("JSON")
}

/// Alpha writes something that bravo never gets, and dies; bravo takes over.
fn part_ways(pair: &mut Pair) {
    pair.bravo.stop();
    pair.alpha.sql("insert into riders values (666), (667)");
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.start();
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    assert_eq!(pair.bravo.sql("select count(*) from riders where bib > 600"), "0");
}

/// The same rows on both, and pages that PostgreSQL's own checker finds whole.
fn alike(pair: &Pair) {
    let rows = "select string_agg(bib::text, ',' order by bib) from riders";
    let expected = pair.bravo.sql(rows);
    pair.alpha.wait_sql(rows, &expected);
    let checker = bin_directory().join("pg_amcheck");
    if !checker.exists()
        || pair
            .bravo
            .try_sql("create extension if not exists amcheck")
            .is_none()
    {
        eprintln!("skipped: pg_amcheck is not installed");
        return;
    }
    pair.alpha
        .wait_sql("select count(*) from pg_extension where extname = 'amcheck'", "1");
    let output = Command::new(checker)
        .args([
            "--database=postgres",
            "--username=postgres",
            "--no-password",
            "--heapallindexed",
        ])
        .env_clear()
        .env("PGHOST", pair.alpha.path("home/run"))
        .env("PGPORT", pair.alpha.port.to_string())
        .output()
        .expect("pg_amcheck");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// repmgr #434, #584, #618, #850: a restarted primary comes up read-write beside its successor, and its users expect it to
/// rejoin by itself. bitnami/containers #83755: what only it had was overwritten.
#[test]
fn a_dead_primary_comes_back_as_a_follower_and_what_it_alone_had_is_kept() {
    let mut pair = pair_with_rows();
    part_ways(&mut pair);
    hold_at(
        &pair.alpha,
        "pg_waldump",
        "while [ -e {dir}/held ]; do sleep 0.02; done\nexec {real} \"$@\"",
    );
    let more = format!("  bin_directory: {}\n", pair.alpha.path("bin").display());
    pair.declare_alpha("primary", &more);
    pair.alpha.launch();
    // Whoever looks meanwhile is told what happens, and why.
    let status = pair.alpha.wait("rewinding", |status| {
        status["plan"]["progress"]
            .as_str()
            .is_some_and(|words| words.starts_with("comparing the two histories"))
    });
    assert_eq!(status["plan"]["state"], "converging");
    let said = common::text(&pair.alpha.run(&["status"]).stdout);
    assert!(said.contains("now: comparing the two histories"), "{said}");
    assert_eq!(status["gate"]["state"], "closed");
    fs::remove_file(pair.alpha.path("held")).expect("let go");
    pair.alpha
        .wait_reason("waiting", "the other laptop serves; this one follows it");
    pair.alpha
        .wait("streaming", |status| status["server"]["streaming"] == true);
    alike(&pair);
    assert!(pair.alpha.log().contains("action=\"rewind\""));
    assert_eq!(pair.alpha.sql("select count(*) from riders where bib = 666"), "0");

    // Both registrations that bravo never had are in the copy that was kept.
    let kept = set_aside(&pair.alpha);
    let [kept] = kept.as_slice() else {
        panic!("{kept:?}");
    };
    let told = report(kept);
    assert_eq!(told["kind"], "full");
    assert_eq!(told["transactions"], 1);
    assert!(fs::metadata(format!("{}.paceline.json", kept.display())).is_ok());
    assert_eq!(rows_of(kept), "1,666,667");
    let listed = common::text(&pair.alpha.run(&["set-aside"]).stdout);
    assert!(listed.contains(&kept.display().to_string()), "{listed}");
    assert!(
        listed.contains("1 transaction that only this copy has"),
        "{listed}"
    );

    // What it kept for its own follower is let go: it would keep WAL for ever.
    pair.alpha
        .wait_sql("select count(*) from pg_replication_slots", "0");

    // It is as good as any other: it takes over in its turn.
    pair.bravo.stop();
    pair.declare_alpha("failover", "");
    pair.alpha.wait_serving();
    has_row(&pair.alpha, 2);
}

/// The rows of a copy, read by a server of its own.
fn rows_of(kept: &std::path::Path) -> String {
    let directory = tempfile::Builder::new()
        .prefix("pk")
        .tempdir_in("/tmp")
        .expect("directory");
    let data = directory.path().join("data");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(kept)
        .arg(&data)
        .status()
        .expect("cp");
    assert!(copied.success());
    if root() {
        for path in [directory.path(), &data] {
            nix::unistd::chown(path, Some(postgres().uid), Some(postgres().gid)).expect("chown");
        }
    }
    let mut single = Command::new(bin_directory().join("postgres"));
    single
        .args(["--single", "-D"])
        .arg(&data)
        .arg("postgres")
        .current_dir("/")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    if root() {
        use std::os::unix::process::CommandExt as _;
        single.uid(postgres().uid.as_raw()).gid(postgres().gid.as_raw());
    }
    let mut child = single.spawn().expect("postgres");
    {
        use std::io::Write as _;
        let mut stdin = child.stdin.take().expect("stdin");
        stdin
            .write_all(b"select string_agg(bib::text, ',' order by bib) as found from riders\n")
            .expect("ask");
    }
    let output = child.wait_with_output().expect("wait");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text
        .lines()
        .find_map(|line| line.split("found = \"").nth(1)?.split('"').next());
    found.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// POSTGRES-FACTS 9: a standby with a lower `max_connections` than its primary does not start. The new primary may have
/// raised it.
#[test]
fn a_primary_with_more_connections_is_followed() {
    let mut pair = pair_with_rows();
    pair.bravo.stop();
    pair.alpha.sql("insert into riders values (666)");
    pair.kill_alpha();
    pair.declare_bravo("failover", "  settings: { max_connections: 150 }\n");
    pair.bravo.start();
    pair.bravo.wait_serving();
    assert_eq!(pair.bravo.sql("show max_connections"), "150");
    pair.declare_alpha("standby", "");
    pair.alpha.launch();
    pair.alpha.wait_log("status is served");
    pair.alpha.wait_streaming();
    assert_eq!(pair.alpha.sql("show max_connections"), "150");
    assert!(pair.alpha.log().contains("action=\"rewind\""));
    alike(&pair);
}

/// With nothing of its own a crashed copy is rewound, and no second copy of everything is made for it.
#[test]
fn nothing_is_kept_where_nothing_would_be_lost() {
    let mut pair = pair_with_rows();
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    pair.declare_alpha("standby", "");
    pair.alpha.launch();
    pair.alpha.wait_log("status is served");
    pair.alpha.wait_streaming();
    alike(&pair);
    assert_eq!(set_aside(&pair.alpha), Vec::<PathBuf>::new());
    // Both are healthy again, and the file is to say so.
    let status = pair.bravo.wait("advice", |status| {
        status["plan"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("write `primary` here"))
    });
    assert_eq!(status["plan"]["state"], "converged");
}

/// A copy that was shut down in time holds nothing beyond the fork, and can follow as it is.
#[test]
fn a_clean_ancestor_needs_no_rewind() {
    let mut pair = pair_with_rows();
    pair.alpha.stop();
    pair.declare_bravo("failover", "");
    pair.bravo.wait_serving();
    pair.bravo.sql("insert into riders values (2)");
    pair.alpha.launch();
    pair.alpha
        .wait_reason("waiting", "the other laptop serves; this one follows it");
    pair.alpha
        .wait("streaming", |status| status["server"]["streaming"] == true);
    alike(&pair);
    assert!(
        !pair.alpha.log().contains("action=\"rewind\""),
        "{}",
        pair.alpha.log()
    );
    assert_eq!(set_aside(&pair.alpha), Vec::<PathBuf>::new());
}

/// patroni #962: a rewind failed, and the node was started anyway. Here it is copied anew, and what was there is kept.
#[test]
fn a_rewind_that_fails_ends_in_a_new_copy() {
    let mut pair = pair_with_rows();
    part_ways(&mut pair);
    // pg_rewind refuses a file that it cannot write to (POSTGRES-FACTS 15).
    let program = pair.alpha.path("bin");
    fs::create_dir(&program).expect("directory");
    for entry in fs::read_dir(bin_directory()).expect("programs") {
        let entry = entry.expect("entry");
        let link = program.join(entry.file_name());
        if entry.file_name() == "pg_rewind" {
            fs::write(
                &link,
                "#!/bin/sh\necho 'pg_rewind: error: the disk is on fire' >&2\nexit 1\n",
            )
            .expect("write");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&link, mode).expect("mode");
        } else {
            std::os::unix::fs::symlink(entry.path(), link).expect("link");
        }
    }
    pair.declare_alpha("standby", &format!("  bin_directory: {}\n", program.display()));
    pair.alpha.launch();
    pair.alpha.wait_log("the disk is on fire");
    pair.alpha.wait_streaming();
    alike(&pair);
    assert!(pair.alpha.log().contains("action=\"clone\""));
    // That it cannot be done is found out before anything is changed, so the old copy is the one that is kept.
    let kept = set_aside(&pair.alpha);
    let [kept] = kept.as_slice() else {
        panic!("{kept:?}");
    };
    assert_eq!(rows_of(kept), "1,666,667");
    assert_eq!(report(kept)["kind"], "full");
    let status = pair.alpha.wait_plan("converged");
    assert!(status["plan"]["progress"].is_null());
}

/// kill -9 of the daemon, and of what it runs, at each point of it: the next one comes to the same end, and never starts a
/// server on half-rewound data. A tool of ours stops at the point and waits to be killed.
#[test]
fn a_killed_rejoin_goes_on() {
    let mut pair = pair_with_rows();
    for (number, (point, tool, script, again)) in [
        ("recovering", "postgres", HOLD_SINGLE, "rewind"),
        ("comparing", "pg_rewind", "hold", "rewind"),
        ("keeping", "pg_waldump", "hold", "rewind"),
        ("marked", "pg_rewind", HOLD_AFTER_DRY_RUN, "clone"),
        ("rewound, not trusted yet", "pg_rewind", HOLD_AT_THE_END, "clone"),
    ]
    .iter()
    .enumerate()
    {
        let own = 700 + number;
        part_ways_again(&mut pair, own);
        hold_at(&pair.alpha, tool, script);
        let more = format!("  bin_directory: {}\n", pair.alpha.path("bin").display());
        pair.declare_alpha("standby", &more);
        pair.alpha.launch();
        let held = || pair.alpha.lines("held");
        common::eventually(point, || !held().is_empty());
        let tool: i32 = held()[0].parse().expect("process id");
        assert!(common::alive(tool));
        pair.alpha.kill_daemon();
        // It dies with the daemon.
        common::wait_gone(tool);
        assert_eq!(pair.alpha.postmaster(), None, "{point}");
        let marker = pair.alpha.path("home/data.paceline-tainted").exists();
        assert_eq!(
            marker,
            ["recovering", "marked", "rewound, not trusted yet"].contains(point)
        );

        pair.declare_alpha("standby", "");
        pair.alpha.launch();
        pair.alpha.wait_log("status is served");
        pair.alpha.wait_streaming();
        // A crash in the middle of the recovery leaves a marker, too: there a copy costs more than it has to.
        let again = if *point == "recovering" { "clone" } else { again };
        assert!(
            pair.alpha.log().contains(&format!("action=\"{again}\"")),
            "{point}: {}",
            pair.alpha.log()
        );
        alike(&pair);
        let kept = set_aside(&pair.alpha);
        let whole = |kept: &&PathBuf| report(kept)["kind"] == "full";
        let found = |kept: &PathBuf| rows_of(kept).contains(&own.to_string());
        assert!(kept.iter().filter(whole).any(found), "{point}: {kept:?}");
        for path in kept {
            fs::remove_dir_all(path).expect("remove");
        }
    }
}

const HOLD_SINGLE: &str = "case \"$1\" in --single) hold;; esac\nexec {real} \"$@\"";
const HOLD_AFTER_DRY_RUN: &str = "case \"$*\" in *--dry-run*) exec {real} \"$@\";; esac\nhold";
const HOLD_AT_THE_END: &str = "case \"$*\" in *--dry-run*) exec {real} \"$@\";; esac\n{real} \"$@\"\nhold";

/// PostgreSQL's programs with a script in place of one, in which `hold` says who it is and waits.
fn hold_at(laptop: &Laptop, tool: &str, script: &str) {
    let directory = laptop.path("bin");
    drop(fs::remove_dir_all(&directory));
    drop(fs::remove_file(laptop.path("held")));
    fs::create_dir(&directory).expect("directory");
    for entry in fs::read_dir(bin_directory()).expect("programs") {
        let entry = entry.expect("entry");
        if entry.file_name() != tool {
            std::os::unix::fs::symlink(entry.path(), directory.join(entry.file_name())).expect("link");
        }
    }
    let held = laptop.path("held");
    fs::write(&held, "").expect("write");
    common::give(&held);
    let script = script.replace("{real}", &bin_directory().join(tool).display().to_string());
    laptop.script(
        &format!("bin/{tool}"),
        &format!(
            "#!/bin/sh\nhold() {{ echo $$ > {}; exec sleep 100000; }}\n{script}\n",
            held.display()
        ),
    );
}

/// Alpha is the primary again, writes something alone, dies, and bravo takes over.
fn part_ways_again(pair: &mut Pair, own: usize) {
    if pair.alpha.try_sql("select pg_is_in_recovery()").as_deref() == Some("t") {
        pair.declare_alpha("primary", "");
        pair.declare_bravo("standby", "");
        pair.alpha.wait_serving();
        pair.bravo.wait_streaming();
    }
    pair.bravo.stop();
    pair.alpha.sql(&format!("insert into riders values ({own})"));
    pair.kill_alpha();
    pair.declare_bravo("failover", "");
    pair.bravo.start();
    pair.bravo.wait_serving();
}
