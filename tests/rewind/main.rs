//! The rewind of a former primary's copy, carried out by itself: real servers, no daemon. What went wrong is told by the
//! test's name.

#[path = "../common/mod.rs"]
mod common;
mod disks;
#[path = "../common/effects.rs"]
mod effects;
mod forked;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use common::{crash_server, eventually, stop_server};
use effects::{Wire, act, acting, beside, block_on, configure, riders, set_aside, siblings, start};
use forked::{End, Forked, cut_off, following, report, with_script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use paceline::exec::keep::Kind;
use paceline::hint::hint_of;
use paceline::observed::DataState;
use paceline::plan::{Action, RewindSource};
use tokio::sync::watch;

#[test]
fn a_crashed_copy_is_rewound() {
    let forked = Forked::with(End::Crash, |pair| {
        // What a rewind carries over: the source's own settings, files of the server; and an archive that must get nothing
        // of the rejected branch (POSTGRES-FACTS 30).
        pair.alpha
            .sql("select pg_create_physical_replication_slot('paceline_of_another_time', true)");
    });
    let (alpha, bravo) = (&forked.pair.alpha, &forked.pair.bravo);
    bravo.sql("alter system set primary_conninfo = 'host=nowhere'");
    bravo.sql("alter system set work_mem = '7MB'");
    configure(
        &forked.pair.alpha_desired,
        false,
        "archive_mode = on\narchive_command = 'true'\n",
    );
    fs::write(alpha.path("home/handed_over.json"), "{}").expect("write");
    let (progress, mut said) = watch::channel(None);
    let action = Action::Rewind(Box::new(forked.source.clone()));
    let words = block_on(async {
        let rewind = acting(&forked.pair.alpha_desired, &action, progress);
        let listen = async {
            let mut words: Vec<String> = Vec::new();
            while said.changed().await.is_ok() {
                words.extend(said.borrow_and_update().clone());
            }
            words
        };
        let (done, words) = tokio::join!(rewind, listen);
        done.expect("rewind");
        words
    });
    for expected in [
        "asking 127.0.0.1",
        "recovering the crashed copy",
        "comparing the two histories",
        "keeping what only this copy has",
        "putting the copy right",
    ] {
        assert!(words.iter().any(|words| words.contains(expected)), "{words:?}");
    }
    let data = alpha.data();
    let auto_conf = fs::read_to_string(data.join("postgresql.auto.conf")).expect("auto.conf");
    assert!(
        auto_conf.contains("work_mem") && !auto_conf.contains("primary_conninfo"),
        "{auto_conf}"
    );
    assert_eq!(
        fs::metadata(&data).expect("data").permissions().mode() & 0o7777,
        0o700
    );
    assert!(!alpha.path("home/handed_over.json").exists());
    let to_archive = fs::read_dir(data.join("pg_wal/archive_status")).expect("list");
    let ready: Vec<String> = to_archive
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("00000001") && name.contains(".ready"))
        .collect();
    assert_eq!(ready, Vec::<String>::new());

    let (kept, told) = forked.kept();
    assert_eq!((told.kind, told.transactions), (Kind::Full, Some(1)));
    let ours = told.lineage.expect("lineage");
    assert!(told.fork < ours.position && told.fork.is_some());
    assert_eq!((ours.timeline, told.replaced_by.len()), (1, 2));
    assert!(beside(&kept, "paceline.json").exists());
    assert!(riders(&kept).contains("bib 666"));
    // Not of the time before.
    let remembered = fs::read_to_string(alpha.path("home/database.json")).expect("memory");
    assert!(remembered.contains(&forked.source.system_identifier));
    forked.assert_follows();
}

/// Where nothing was committed after the fork, no second copy of everything is made.
#[test]
fn nothing_is_kept_where_nothing_would_be_lost() {
    for end in [End::Crash, End::Stop] {
        let pair = following();
        match end {
            End::Crash => crash_server(&pair.alpha.data()),
            End::Stop => {
                // Its last checkpoint does not arrive.
                stop_server(&pair.bravo.data());
                stop_server(&pair.alpha.data());
                start(&pair.bravo_desired, true);
            }
        }
        let forked = Forked::taken_over(pair);
        act(&forked.pair.bravo_desired, &Action::Checkpoint).expect("checkpoint");
        forked.rewind().expect("rewind");
        if let Some(kept) = set_aside(&forked.pair.alpha).first() {
            panic!("{:?}", report(kept));
        }
        forked.assert_follows();
    }
}

/// A row that was written and taken away again is no row, but it was acknowledged.
#[test]
fn what_was_acknowledged_is_kept_although_no_row_is_left() {
    let forked = Forked::with(End::Stop, |pair| {
        pair.alpha.sql("delete from riders where bib = 666");
    });
    forked.rewind().expect("rewind");
    assert_eq!(forked.kept().1.transactions, Some(2));
    forked.assert_follows();
}

/// Every reason not to rewind is found before anything is touched.
#[test]
fn what_is_not_as_planned_is_refused() {
    let forked = Forked::new(End::Stop);
    let (alpha, bravo) = (&forked.pair.alpha, &forked.pair.bravo);
    let source = || forked.source.clone();
    let other = RewindSource {
        system_identifier: "4711".to_owned(),
        ..source()
    };
    forked.refuses(&other, "and 4711 was to be rewound");
    let other = RewindSource {
        epoch: uuid::Uuid::new_v4(),
        ..source()
    };
    forked.refuses(&other, "its history went on");
    let mut elsewhere = source();
    elsewhere.programs.bin_directory = "/nowhere".into();
    let error = forked.refuses(&elsewhere, "/nowhere/pg_rewind is missing");
    assert!(hint_of(&error).is_some_and(|hint| hint.contains("install all of")));
    let mut nobody = source();
    nobody.peer.port = common::port();
    forked.refuses(&nobody, "cannot connect to the other laptop's server");
    bravo.sql("alter system set default_transaction_read_only = on");
    bravo.sql("select pg_reload_conf()");
    eventually("read-only", || {
        bravo.sql("show default_transaction_read_only") == "on"
    });
    forked.refuses(&source(), "is not written to any more");
    bravo.sql("alter system reset default_transaction_read_only");
    bravo.sql("select pg_reload_conf()");
    eventually("writable", || {
        bravo.sql("show default_transaction_read_only") == "off"
    });

    // A server runs here after all.
    start(&forked.pair.alpha_desired, false);
    let error = format!("{:#}", forked.rewind().expect_err("it runs"));
    assert!(error.contains("a server runs on"), "{error}");
    stop_server(&alpha.data());
    // It is another copy by now.
    let signal = alpha.data().join("standby.signal");
    fs::write(&signal, "").expect("write");
    let error = format!("{:#}", forked.rewind().expect_err("a standby's"));
    assert!(error.contains("is a standby's by now"), "{error}");
    fs::remove_file(signal).expect("remove");
    forked.rewind().expect("rewind");
    forked.assert_follows();
}

/// POSTGRES-FACTS 8: before the first checkpoint of the new timeline pg_rewind finds nothing to do (stolon #601), and the
/// two would differ in silence. It is waited for.
#[test]
fn a_source_without_a_checkpoint_is_waited_for() {
    let pair = following();
    cut_off(&pair, End::Crash, |_| {});
    let checkpointer = Pid::from_raw(common::child_called(&pair.bravo.data(), "checkpointer"));
    kill(checkpointer, Signal::SIGSTOP).expect("stop");
    let forked = Forked::taken_over(pair);
    forked.refuses(&forked.source, "has not written the first checkpoint");
    kill(checkpointer, Signal::SIGCONT).expect("go on");
    act(&forked.pair.bravo_desired, &Action::Checkpoint).expect("checkpoint");
    forked.rewind().expect("rewind");
    forked.assert_follows();
}

/// What pg_rewind cannot do is found out before anything is changed; the old copy is set aside whole.
#[test]
fn what_cannot_be_rewound_is_copied_anew() {
    // patroni #962, stolon #601.
    for (script, words) in [
        (
            "echo 'pg_rewind: error: could not find previous WAL record' >&2; exit 1",
            "could not find previous WAL record",
        ),
        (
            "echo 'pg_rewind: no rewind required' >&2",
            "found nothing to do although the histories differ",
        ),
    ] {
        let forked = Forked::new(End::Crash);
        let mut source = forked.source.clone();
        source.programs.bin_directory = with_script(&forked.pair.alpha, "pg_rewind", script);
        forked.ends_in_a_copy(&source, words);
        let (kept, told) = forked.kept();
        assert_eq!(told.kind, Kind::Full);
        assert!(riders(&kept).contains("bib 666"));
    }
}

/// cloudnative-pg #3680: the WAL that a rewind needs is gone, here or there.
#[test]
fn wal_that_is_gone_ends_in_a_new_copy() {
    let forked = Forked::new(End::Crash);
    let wal = forked.pair.bravo.data().join("pg_wal");
    // All of the old timeline; bravo itself does not need it any more.
    forked.pair.bravo.sql("select pg_switch_wal()");
    let mut removed = 0;
    for entry in fs::read_dir(&wal).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.get(8..).unwrap_or_default();
        let first = forked
            .pair
            .bravo
            .sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 9)");
        if name.len() == 24 && number < first.as_str() {
            fs::remove_file(entry.path()).expect("remove");
            removed += 1;
        }
    }
    assert!(removed > 0);
    forked.ends_in_a_copy(&forked.source, "does not have the WAL from");

    let forked = Forked::with(End::Stop, |pair| {
        // So that the checkpoint before the fork is in a segment of its own.
        for _ in 0..3 {
            pair.alpha.sql("select pg_switch_wal()");
            pair.alpha.sql("checkpoint");
        }
    });
    let wal = forked.pair.alpha.data().join("pg_wal");
    let fork = "select substr(pg_walfile_name(begin_lsn), 9) from paceline.epoch where timeline = 2";
    let fork = forked.pair.bravo.sql(fork);
    for entry in fs::read_dir(&wal).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && name[8..] <= *fork {
            fs::remove_file(entry.path()).expect("remove");
        }
    }
    forked.ends_in_a_copy(&forked.source, "pg_rewind failed");
}

/// patroni #3652, cloudnative-pg #1836: the line breaks. As long as nothing was changed, nothing is given up for that.
#[test]
fn a_line_that_breaks_before_anything_was_changed() {
    let forked = Forked::new(End::Crash);
    let before = siblings(&forked.pair.alpha);
    let wire = Wire::to(forked.pair.bravo.port, 16 << 10);
    wire.freeze();
    let mut source = forked.source.clone();
    source.peer.port = wire.port;
    let action = Action::Rewind(Box::new(source));
    let done = block_on(async {
        let held = tokio::task::spawn_blocking({
            let state = Arc::clone(&wire.state);
            move || Wire::wait_held(&state)
        });
        let rewind = acting(&forked.pair.alpha_desired, &action, watch::channel(None).0);
        let break_it = async {
            held.await.expect("held");
            crash_server(&forked.pair.bravo.data());
            wire.cut();
        };
        tokio::join!(rewind, break_it).0
    });
    let error = format!("{:#}", done.expect_err("it died"));
    assert!(
        error.contains("cannot rewind to") && !error.contains("anew"),
        "{error}"
    );
    assert_eq!(forked.state(), DataState::Primary);
    assert_eq!(siblings(&forked.pair.alpha), before);
    start(&forked.pair.bravo_desired, false);

    // The same just when it was to be done in earnest, and everything was kept.
    let (begun, broken) = (forked.pair.alpha.path("begun"), forked.pair.alpha.path("broken"));
    fs::write(&begun, "").expect("write");
    common::give(&begun);
    let script = format!(
        "case \"$*\" in *--dry-run*) exec {{real}} \"$@\";; esac\n\
         echo begun > {}\nwhile [ ! -e {} ]; do sleep 0.02; done\nexec {{real}} \"$@\"",
        begun.display(),
        broken.display()
    );
    let mut source = forked.source.clone();
    source.programs.bin_directory = with_script(&forked.pair.alpha, "pg_rewind", &script);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("begun", || {
                fs::read_to_string(&begun).is_ok_and(|text| !text.is_empty())
            });
            assert_eq!(forked.state(), DataState::Tainted);
            crash_server(&forked.pair.bravo.data());
            fs::write(&broken, "").expect("write");
        });
        let error = format!("{:#}", forked.rewind_to(&source).expect_err("it died"));
        assert!(
            error.contains("the rewind to") && !error.contains("anew"),
            "{error}"
        );
    });
    assert_eq!(forked.state(), DataState::Primary);
    start(&forked.pair.bravo_desired, false);
    forked.rewind().expect("rewind");
    assert!(riders(&forked.kept().0).contains("bib 666"));
    forked.assert_follows();
}

/// bitnami/containers #83755. In the middle of it the copy is neither the one nor the other (POSTGRES-FACTS 13): it is
/// tainted, and says so for good when it is set aside.
#[test]
fn a_rewind_that_breaks_in_the_middle() {
    let forked = Forked::new(End::Crash);
    // As far as the dry run gets, and then some of the files.
    let script = "case \"$*\" in *--dry-run*) exec {real} \"$@\";; esac\n\
                  {real} \"$@\" || exit 1\nrm -f \"$2/global/pg_filenode.map\"\n\
                  echo 'pg_rewind: error: server closed the connection unexpectedly' >&2\nexit 1";
    let mut source = forked.source.clone();
    source.programs.bin_directory = with_script(&forked.pair.alpha, "pg_rewind", script);
    forked.ends_in_a_copy(&source, "server closed the connection unexpectedly");
    let kept = set_aside(&forked.pair.alpha);
    assert_eq!(kept.len(), 2, "{kept:?}");
    let (half, whole): (Vec<&PathBuf>, Vec<&PathBuf>) = kept
        .iter()
        .partition(|kept| report(kept).kind == Kind::HalfRewound);
    assert!(report(half[0]).why.contains(&whole[0].display().to_string()));
    assert_eq!(report(whole[0]).kind, Kind::Full);
    assert!(riders(whole[0]).contains("bib 666"));
}

/// Killed in the middle of it: no tool is left that would go on writing (POSTGRES-FACTS 17), and nobody trusts what is
/// there.
#[test]
fn a_rewind_that_is_killed_in_the_middle() {
    let forked = Forked::new(End::Crash);
    // Less than one segment of WAL. The dry run, which may fetch something before it is ended, goes around it.
    let wire = Wire::to(forked.pair.bravo.port, 2 << 20);
    wire.freeze();
    let mut source = forked.source.clone();
    source.peer.port = wire.port;
    let script = format!(
        "case \"$*\" in *--dry-run*) exec {{real}} --dry-run --progress --no-ensure-shutdown --target-pgdata \"$2\" \\\n\
         --source-server \"$(echo \"$4\" | sed s/port={}/port={}/)\";; esac\nexec {{real}} \"$@\"",
        wire.port, forked.pair.bravo.port
    );
    source.programs.bin_directory = with_script(&forked.pair.alpha, "pg_rewind", &script);
    let action = Action::Rewind(Box::new(source));
    let data = forked.pair.alpha.data();
    let tools = || {
        let ours = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("pg_rewind") && line.contains(&data.display().to_string()))
        };
        common::processes().into_iter().filter(ours).collect::<Vec<i32>>()
    };
    let killed = block_on(async {
        let state = Arc::clone(&wire.state);
        let held = tokio::task::spawn_blocking(move || Wire::wait_held(&state));
        let middle = async {
            held.await.expect("held");
            tools()
        };
        tokio::select! {
            done = acting(&forked.pair.alpha_desired, &action, watch::channel(None).0) => panic!("it ended: {done:?}"),
            tools = middle => tools,
        }
    });
    assert!(!killed.is_empty(), "pg_rewind ran");
    killed.into_iter().for_each(common::wait_gone);
    assert_eq!(tools(), Vec::<i32>::new());
    assert_eq!(forked.state(), DataState::Tainted);
    wire.let_go();
    forked.copy_anew();
    let kept = set_aside(&forked.pair.alpha);
    let whole: Vec<&PathBuf> = kept
        .iter()
        .filter(|kept| report(kept).kind == Kind::Full)
        .collect();
    assert_eq!((kept.len(), whole.len()), (2, 1), "{kept:?}");
    assert!(riders(whole[0]).contains("bib 666"));
}

/// A crash after the copy was kept and before it is marked: it is not kept twice.
#[test]
fn what_was_kept_once_is_not_kept_again() {
    let forked = Forked::new(End::Crash);
    let script = "case \"$*\" in *--dry-run*) exec {real} \"$@\";; esac\nexit 1";
    let mut source = forked.source.clone();
    source.programs.bin_directory = with_script(&forked.pair.alpha, "pg_rewind", script);
    forked.rewind_to(&source).expect_err("it fails");
    fs::remove_file(forked.pair.alpha.path("home/data.paceline-tainted")).expect("marker");
    // And one in the middle of keeping it.
    let unfinished = forked.pair.alpha.path("home/data.paceline-keeping");
    fs::create_dir(&unfinished).expect("directory");
    fs::write(unfinished.join("PG_VERSION"), "15\n").expect("write");
    forked.rewind().expect("rewind");
    assert!(riders(&forked.kept().0).contains("bib 666"));
    forked.assert_follows();
}

/// A disk that confirms what it never wrote brings a copy up that ends before the other laptop took over, with records of
/// its own from there on. By its position it could simply follow; pg_rewind, too, would find nothing to do.
#[test]
fn a_disk_that_lost_what_it_confirmed() {
    let mut forked = Forked::new(End::Crash);
    // The epoch begins later than it does, which is the same from here.
    forked
        .pair
        .bravo
        .sql("update paceline.epoch set begin_lsn = 'F/0' where timeline = 2");
    forked.source.epoch = forked
        .pair
        .bravo
        .sql("select uuid from paceline.epoch where timeline = 2")
        .parse()
        .expect("uuid");
    forked.ends_in_a_copy(&forked.source, "its disk lost what it had confirmed");
    assert!(riders(&forked.kept().0).contains("bib 666"));
}

/// A rewind puts the source's configuration files in the place of ours (POSTGRES-FACTS 15), and an adopted cluster's own
/// ones go on to count. Its WAL may be behind a link.
#[test]
fn an_adopted_cluster_keeps_its_own_files() {
    let forked = Forked::new(End::Stop);
    let data = forked.pair.alpha.data();
    let sidecar = forked.pair.alpha.path("home/data.paceline.json");
    let mut note: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&sidecar).expect("read")).expect("JSON");
    note["origin"] = serde_json::json!({
        "kind": "adopted", "config_file": data.join("postgresql.conf"),
        "hba_file": data.join("pg_hba.conf"), "ident_file": null,
    });
    fs::write(&sidecar, note.to_string()).expect("write");
    fs::write(data.join("postgresql.conf"), "work_mem = '5MB' # alpha's own\n").expect("write");
    let elsewhere = forked.pair.alpha.path("wal");
    fs::rename(data.join("pg_wal"), &elsewhere).expect("rename");
    symlink(&elsewhere, data.join("pg_wal")).expect("link");
    forked.rewind().expect("rewind");
    let text = fs::read_to_string(data.join("postgresql.conf")).expect("read");
    assert_eq!(text, "work_mem = '5MB' # alpha's own\n");
    let note = fs::read_to_string(&sidecar).expect("read");
    assert!(note.contains("\"adopted\""), "{note}");
    let (kept, _) = forked.kept();
    assert!(!kept.join("pg_wal").is_symlink());
    assert!(riders(&kept).contains("bib 666"));
    forked.assert_follows();
}
