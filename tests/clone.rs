//! The copy of the other laptop's database, carried out by itself: real servers, no daemon. How a copy was interrupted is
//! told by the test's name.

mod common;
#[path = "common/effects.rs"]
mod effects;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use camino::Utf8PathBuf;
use common::{crash_server, eventually, give, root, stop_server, wait_gone};
use effects::{
    Pair, SLOT, Wire, act, acting, beside, block_on, configure, copiers, look, need, riders, set_aside,
    siblings, start,
};
use paceline::desired::PeerAddress;
use paceline::lineage::Sidecar;
use paceline::observed::{DataState, Fact, Secret};
use paceline::plan::configuration::quote;
use paceline::plan::{Action, CloneSource, ReplicationNeed};
use tokio::sync::watch;

#[test]
fn a_copy_follows_its_source() {
    let pair = Pair::new();
    let (alpha, bravo) = (&pair.alpha, &pair.bravo);
    // ALTER SYSTEM on the source is carried over, and what Paceline manages would win here.
    alpha.sql("alter system set primary_conninfo = 'host=nowhere'");
    alpha.sql("alter system set work_mem = '7MB'");
    let (progress, mut said) = watch::channel(None);
    let action = Action::Clone(Box::new(pair.source(DataState::Empty)));
    let words = block_on(async {
        let clone = acting(&pair.bravo_desired, &action, progress);
        let listen = async {
            let mut words: Vec<String> = Vec::new();
            while said.changed().await.is_ok() {
                words.extend(said.borrow_and_update().clone());
            }
            words
        };
        let (done, words) = tokio::join!(clone, listen);
        done.expect("clone");
        words
    });
    for expected in ["asking 127.0.0.1", "checking the copy", "in its place"] {
        assert!(words.iter().any(|words| words.contains(expected)), "{words:?}");
    }
    pair.assert_copy();
    let data = bravo.data();
    let auto_conf = fs::read_to_string(data.join("postgresql.auto.conf")).expect("auto.conf");
    assert!(
        auto_conf.contains("work_mem") && !auto_conf.contains("primary_conninfo"),
        "{auto_conf}"
    );
    assert_eq!(
        fs::metadata(&data).expect("data").permissions().mode() & 0o7777,
        0o700
    );
    let passfile = fs::metadata(bravo.path("home/conf/replication.pgpass")).expect("passfile");
    assert_eq!(passfile.permissions().mode() & 0o7777, 0o600);
    assert_eq!(passfile.uid(), fs::metadata(&data).expect("data").uid());
    let remembered = fs::read_to_string(bravo.path("home/database.json")).expect("memory");
    assert!(remembered.contains(&pair.source(DataState::Empty).system_identifier));

    let conninfo = format!(
        "host=127.0.0.1 port={} user=replicator passfile={}",
        alpha.port,
        pair.bravo_desired.replication_passfile()
    );
    configure(
        &pair.bravo_desired,
        true,
        &format!(
            "primary_conninfo = {}\nprimary_slot_name = '{SLOT}'\n",
            quote(&conninfo)
        ),
    );
    start(&pair.bravo_desired, true);
    eventually("streaming", || {
        bravo.sql("select status from pg_stat_wal_receiver") == "streaming"
    });
    alpha.sql("insert into riders values (8)");
    eventually("the row", || bravo.sql("select count(*) from riders") == "2");
    assert_eq!(
        alpha.sql("select active from pg_replication_slots"),
        "t",
        "it streams from its slot"
    );
    let observed = look(&pair.bravo_desired);
    assert_eq!(
        observed.secret.fact,
        Fact::Known(Secret::There {
            passfile_current: true
        })
    );
    // Under a running server nothing but a standby's copy is replaced, whatever the plan thought.
    pair.refuses(pair.source(DataState::Tainted), "a server runs on", "");
    // A standby's role and slots are not touched.
    let refused = act(&pair.bravo_desired, &Action::EnsureReplication(Box::new(need())));
    assert!(format!("{:#}", refused.expect_err("read-only")).contains("read-only"));
    // A slot that is in use stays.
    let drop_it = ReplicationNeed {
        role: false,
        create_slot: None,
        drop_slots: vec![SLOT.to_owned()],
    };
    let refused = act(
        &pair.alpha_desired,
        &Action::EnsureReplication(Box::new(drop_it.clone())),
    );
    assert!(format!("{:#}", refused.expect_err("in use")).contains("is in use"));
    stop_server(&bravo.data());
    eventually("the slot is free", || {
        alpha.sql("select active from pg_replication_slots") == "f"
    });
    act(&pair.alpha_desired, &Action::EnsureReplication(Box::new(drop_it))).expect("drop");
    assert_eq!(alpha.sql("select count(*) from pg_replication_slots"), "0");
}

/// Every reason not to copy is found before anything is touched, and says what to do.
#[test]
fn what_is_not_as_planned_is_refused() {
    let mut pair = Pair::new();
    let source = || pair.source(DataState::Empty);
    pair.refuses(
        CloneSource {
            system_identifier: "4711".to_owned(),
            ..source()
        },
        "instead of 4711",
        "`peer:`",
    );
    let mut newer = source();
    newer.programs.major += 1;
    let words = format!("are PostgreSQL {}", newer.programs.major);
    let mut elsewhere = source();
    elsewhere.programs.bin_directory = "/nowhere".into();
    pair.refuses(elsewhere, "/nowhere/pg_basebackup is missing", "install all of");
    pair.refuses(newer, &words, "install PostgreSQL");
    pair.refuses(
        CloneSource {
            epoch: uuid::Uuid::new_v4(),
            ..source()
        },
        "its history went on",
        "",
    );
    pair.refuses(
        CloneSource {
            replaces: DataState::Replica,
            ..source()
        },
        "changed since that was decided (it is empty",
        "",
    );
    let nobody = PeerAddress {
        port: common::port(),
        ..source().peer
    };
    pair.refuses(
        CloneSource {
            peer: nobody,
            ..source()
        },
        "cannot connect to the other laptop's server",
        "",
    );
    // A tablespace outside the data directory.
    let place = pair.alpha.path("space");
    fs::create_dir(&place).expect("directory");
    give(&place);
    pair.alpha
        .sql(&format!("create tablespace stick location '{}'", place.display()));
    pair.refuses(source(), "has tablespaces (stick)", "drop them");
    pair.alpha.sql("drop tablespace stick");
    // Something that is no database.
    let file = pair.bravo.path("home/data/photos");
    fs::create_dir(pair.bravo.data()).expect("directory");
    fs::write(&file, "").expect("file");
    pair.refuses(
        CloneSource {
            replaces: DataState::NotOurs,
            ..source()
        },
        "is no database directory: it holds photos",
        "move it away",
    );
    fs::remove_dir_all(pair.bravo.data()).expect("remove");
    // Another password, none, and one that everybody may read.
    let secret = pair.bravo.path("home/secrets/replication");
    fs::write(&secret, "another\n").expect("write");
    pair.refuses(source(), "does not let replicator in", "paceline join");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("mode");
    pair.refuses(source(), "others may read it", "");
    fs::remove_file(&secret).expect("remove");
    pair.refuses(source(), "is missing", "paceline join");
    let source = source();
    pair.bravo_desired.replication.user = "nobody_there".to_owned();
    fs::write(&secret, "another\n").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mode");
    pair.refuses(source, "\"nobody_there\"", "");
}

/// A copy that does not fit is not begun. Both numbers are told, and what the old data takes, which is kept.
#[test]
fn a_copy_that_does_not_fit_is_not_begun() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            drop(Command::new("umount").arg(&self.0).status());
        }
    }
    if !root() {
        skip!("only root can mount a small file system");
    }
    let mut pair = Pair::new();
    let small = pair.bravo.path("small");
    fs::create_dir(&small).expect("directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=70m", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        skip!("nothing can be mounted here");
    }
    let _mounted = Mounted(small.clone());
    let small = Utf8PathBuf::from_path_buf(small).expect("UTF-8");
    pair.bravo_desired.postgres.data_directory = small.join("data");
    pair.refuses(
        pair.source(DataState::Empty),
        "there are only 70 MB free",
        "set-aside",
    );
    fs::create_dir_all(small.join("data/global")).expect("directory");
    fs::write(small.join("data/PG_VERSION"), "15\n").expect("write");
    fs::write(small.join("data/global/pg_control"), vec![0; 3 << 20]).expect("write");
    pair.refuses(
        pair.source(DataState::Unclear),
        "now takes 3 MB and is kept beside it",
        "set-aside",
    );
    assert_eq!(fs::read_dir(&small).expect("list").count(), 1);
    fs::remove_dir_all(small.join("data")).expect("remove");
    // Nor is the root of a file system renamed.
    pair.bravo_desired.postgres.data_directory = small;
    pair.refuses(
        pair.source(DataState::Empty),
        "another file system is mounted",
        "below it",
    );
}

/// The state file changes while the copy is under way: the effect is dropped. A pg_basebackup that lived on would write
/// into the next copy (POSTGRES-FACTS 17).
#[test]
fn a_copy_that_is_given_up_leaves_no_tool_and_nothing_trusted() {
    let pair = Pair::new();
    let wire = Wire::to(pair.alpha.port, 4 << 20);
    let mut source = pair.source(DataState::Empty);
    source.peer.port = wire.port;
    let action = Action::Clone(Box::new(source));
    let tools = block_on(async {
        let (progress, mut said) = watch::channel::<Option<String>>(None);
        let middle = async {
            let copied =
                |words: &Option<String>| words.as_ref().is_some_and(|words| words.starts_with("copied "));
            drop(said.wait_for(copied).await.expect("progress"));
            // It would notice a closed pipe at its next words; here it has nothing to say.
            wire.freeze();
            copiers(&pair.bravo)
        };
        tokio::select! {
            done = acting(&pair.bravo_desired, &action, progress) => panic!("it ended: {done:?}"),
            tools = middle => tools,
        }
    });
    assert!(!tools.is_empty(), "pg_basebackup ran");
    tools.into_iter().for_each(wait_gone);
    assert_eq!(copiers(&pair.bravo), Vec::<i32>::new());
    assert_eq!(siblings(&pair.bravo), ["data.paceline-clone"]);
    // It is no part of the next one.
    fs::write(pair.bravo.path("home/data.paceline-clone/left"), "").expect("write");
    wire.let_go();
    pair.clone(DataState::Empty).expect("clone");
    pair.assert_copy();
    assert!(!pair.bravo.data().join("left").exists());
}

/// The source dies in the middle: the old data was not touched.
#[test]
fn a_source_that_dies_in_the_middle() {
    let pair = Pair::new();
    pair.own_database(8);
    let before = siblings(&pair.bravo);
    let wire = Wire::to(pair.alpha.port, 4 << 20);
    let mut source = pair.source(DataState::Primary);
    source.peer.port = wire.port;
    let action = Action::Clone(Box::new(source));
    let done = block_on(async {
        let (progress, _said) = watch::channel(None);
        let state = Arc::clone(&wire.state);
        let die = tokio::task::spawn_blocking({
            let data = pair.alpha.data();
            move || {
                Wire::wait_held(&state);
                crash_server(&data);
            }
        });
        let clone = acting(&pair.bravo_desired, &action, progress);
        tokio::join!(clone, async {
            die.await.expect("crash");
            wire.let_go();
        })
        .0
    });
    let error = format!("{:#}", done.expect_err("it died"));
    assert!(error.contains("cannot copy the database"), "{error}");
    assert_eq!(siblings(&pair.bravo), before);
    assert!(riders(&pair.bravo.data()).contains("bib 8"));
    start(&pair.alpha_desired, false);
    pair.clone(DataState::Primary).expect("clone");
    pair.assert_copy();
}

/// What was there is kept, with the sidecar that tells which history it holds.
#[test]
fn old_data_is_set_aside_with_its_sidecar() {
    let pair = Pair::new();
    pair.own_database(8);
    let sidecar = fs::read_to_string(pair.bravo.path("home/data.paceline.json")).expect("sidecar");
    pair.clone(DataState::Primary).expect("clone");
    pair.assert_copy();
    let [old] = &set_aside(&pair.bravo)[..] else {
        panic!("{:?}", siblings(&pair.bravo))
    };
    assert!(riders(old).contains("bib 8"));
    assert_eq!(
        fs::read_to_string(beside(old, Sidecar::SUFFIX)).expect("its sidecar"),
        sidecar
    );
    // Once more, over a copy: nobody's set-aside name is taken.
    pair.clone(DataState::Replica).expect("clone");
    pair.assert_copy();
    assert_eq!(set_aside(&pair.bravo).len(), 2);
    assert!(riders(old).contains("bib 8"));
}

/// A crash at any point of the exchange: the directories and files as each point leaves them. The next copy succeeds, and
/// the old rows are in a directory that was set aside, beside it the sidecar that is theirs.
#[test]
fn a_crash_at_any_point_of_the_exchange() {
    let pair = Pair::new();
    pair.clone(DataState::Empty).expect("clone");
    // Old data and a copy, each with its sidecar, to lay out.
    let home = pair.bravo.path("home");
    let kept = pair.bravo.path("kept");
    fs::create_dir(&kept).expect("directory");
    let name = |suffix: &str| home.join(format!("data{suffix}"));
    let keep = |what: &str| {
        fs::rename(name(""), kept.join(what)).expect("rename");
        fs::rename(name(".paceline.json"), kept.join(format!("{what}.json"))).expect("rename");
    };
    keep("copy");
    fs::remove_file(home.join("database.json")).expect("memory");
    pair.own_database(8);
    keep("old");
    let read = |path: PathBuf| fs::read_to_string(path).expect("read");
    let old_sidecar = read(kept.join("old.json"));
    let journal = format!(
        "{{\"what\": \"test\", \"copy\": \"{}\", \"set_aside\": \"{}\"}}",
        paceline::digest::digest(&[&read(kept.join("copy/backup_label"))]),
        name(".set-aside-1").display()
    );

    // Point; what the plan sees; where old data, its sidecar, the copy and its sidecar lie (after `data`); the marker.
    let points = "
        before the journal | primary | - | .paceline.json | .V | .V.paceline.json | none
        before the exchange | tainted | - | .paceline.json | .V | .V.paceline.json | journal
        after the exchange | tainted | .V | .paceline.json | - | .V.paceline.json | journal
        after one of three renames | empty | .V.old | .paceline.json | .V | .V.paceline.json | journal
        after two of three renames | tainted | .V.old | .paceline.json | - | .V.paceline.json | journal
        the old sidecar moved | tainted | .V | .set-aside-1.paceline.json | - | .V.paceline.json | journal
        the old data moved | tainted | .set-aside-1 | .set-aside-1.paceline.json | - | .V.paceline.json | journal
        the copy's sidecar moved | tainted | .set-aside-1 | .set-aside-1.paceline.json | - | .paceline.json | journal
        another marker | tainted | .V | .paceline.json | - | .V.paceline.json | rewind";
    for line in points.trim().lines() {
        let words: Vec<String> = line
            .split('|')
            .map(|word| word.trim().replace(".V", ".paceline-verified"))
            .collect();
        let [point, state, places @ .., marker] = &words[..] else {
            panic!("{line}")
        };
        for (what, place) in ["old", "old.json", "copy", "copy.json"].iter().zip(places) {
            let place = name(place.trim_start_matches('-'));
            let done = Command::new("cp")
                .arg("-a")
                .args([kept.join(what), place])
                .status();
            assert!(done.expect("cp").success());
        }
        match marker.as_str() {
            "none" => {}
            "journal" => fs::write(name(".paceline-tainted"), &journal).expect("marker"),
            other => fs::write(name(".paceline-tainted"), other).expect("marker"),
        }
        let replaces = match state.as_str() {
            "primary" => DataState::Primary,
            "empty" => DataState::Empty,
            _ => DataState::Tainted,
        };
        pair.clone(replaces)
            .unwrap_or_else(|error| panic!("{point}: {error:#}"));
        pair.assert_copy();
        let aside = set_aside(&pair.bravo);
        let with_rows: Vec<&PathBuf> = aside
            .iter()
            .filter(|path| !path.join("backup_label").exists())
            .collect();
        let [old] = with_rows[..] else {
            panic!("{point}: {:?}", siblings(&pair.bravo))
        };
        assert!(riders(old).contains("bib 8"), "{point}");
        for path in &aside {
            let sidecar = fs::read_to_string(beside(path, Sidecar::SUFFIX));
            match &sidecar {
                Ok(sidecar) if marker == "journal" => assert_eq!(
                    *sidecar == old_sidecar,
                    path == old,
                    "{point}: {}",
                    path.display()
                ),
                // Whose it is cannot be told without the journal; the old data gets no wrong one.
                Ok(sidecar) if path == old => assert_eq!(*sidecar, old_sidecar, "{point}"),
                Ok(_) => {}
                Err(_) => assert_ne!(marker, "journal", "{point}: {}", path.display()),
            }
        }
        // For the next point.
        for name in siblings(&pair.bravo) {
            let path = home.join(name);
            if path.is_dir() {
                fs::remove_dir_all(path).expect("remove");
            } else {
                fs::remove_file(path).expect("remove");
            }
        }
    }
}
