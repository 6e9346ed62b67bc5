//! Disks on which not everything fits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use camino::Utf8PathBuf;
use paceline::exec::keep::Kind;
use paceline::hint::hint_of;
use paceline::observed::DataState;

use crate::common::{self, bin_directory, eventually, give, root, stop_server};
use crate::effects::{configure, riders, start};
use crate::forked::{End, Forked, follow, report, state};
use crate::skip;

/// In MB: enough for a rewind and some WAL, and not for a copy of everything and another one after that.
const SCARCE: u64 = 110;

/// A file system of its own, as small as that.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`: nothing can be mounted here.
    fn at(place: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir(place).expect("directory");
        let mounted = Command::new("mount").args(arguments).arg(place).status();
        mounted.is_ok_and(|status| status.success()).then(|| {
            give(place);
            Self(place.to_owned())
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

/// Moves alpha's copy, with what lies beside it, and leaves so many MB free there.
fn move_to(forked: &mut Forked, place: &Path, free_mb: u64) {
    let home = forked.pair.alpha.path("home");
    for name in ["data", "data.paceline.json"] {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(home.join(name))
            .arg(place)
            .status();
        assert!(copied.expect("cp").success());
    }
    let place = Utf8PathBuf::from_path_buf(place.to_owned()).expect("UTF-8");
    forked.pair.alpha_desired.postgres.data_directory = place.join("data");
    configure(&forked.pair.alpha_desired, true, "");
    leave(place.as_std_path(), free_mb);
}

/// Fills the disk until so many MB are free.
fn leave(place: &Path, free_mb: u64) {
    let ballast = place.join("ballast");
    drop(fs::remove_file(&ballast));
    let place = camino::Utf8Path::from_path(place).expect("UTF-8");
    let free = paceline::sys::files::free_space(place).expect("free") >> 20;
    let bytes = usize::try_from((free - free_mb) << 20).expect("size");
    fs::write(ballast, vec![1; bytes]).expect("write");
}

/// Where a whole copy does not fit, the WAL is kept that only this copy has; where that does not fit either, nothing is
/// touched. The numbers are told.
#[test]
fn a_small_disk_keeps_the_wal_alone() {
    if !root() {
        skip!("only root can mount a small file system");
    }
    let mut forked = Forked::new(End::Crash);
    let place = forked.pair.alpha.path("small");
    let Some(_mounted) = Mounted::at(&place, &["-t", "tmpfs", "-o", "size=400m", "tmpfs"]) else {
        skip!("nothing can be mounted here");
    };
    move_to(&mut forked, &place, 20);
    let error = forked.rewind().expect_err("no room");
    let said = format!("{error:#}");
    assert!(
        said.contains("there are only ") && said.contains("a rewind to 127.0.0.1 takes "),
        "{said}"
    );
    assert!(hint_of(&error).is_some_and(|hint| hint.contains("set-aside")));
    assert_eq!(forked.state(), DataState::Primary);
    let names = |place: &Path| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(place)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&place), ["ballast", "data", "data.paceline.json"]);

    leave(&place, SCARCE);
    forked.rewind().expect("rewind");
    let kept: Vec<String> = names(&place)
        .into_iter()
        .filter(|name| name.starts_with("data.set-aside-") && !name.contains(".json"))
        .collect();
    let [kept] = &kept[..] else {
        panic!("{:?}", names(&place))
    };
    let kept = place.join(kept);
    assert_eq!(report(&kept).kind, Kind::WalOnly);
    assert_eq!(report(&kept).transactions, Some(1));
    assert!(kept.join("pg_control").exists() && !kept.join("base").exists());
    // The row's record is in it.
    let fork = report(&kept).fork.expect("fork").to_string();
    let dump = Command::new(bin_directory().join("pg_waldump"))
        .arg("--path")
        .arg(&kept)
        .args(["--timeline", "1", "--start", &fork, "--rmgr=Heap"])
        .output()
        .expect("pg_waldump");
    let dump = common::text(&dump.stdout);
    assert!(dump.contains("INSERT"), "{dump}");
    follows_there(&mut forked);
}

/// It follows from where it is now; stopped again, so that nothing is mounted any more.
fn follows_there(forked: &mut Forked) {
    let (alpha, desired) = (&forked.pair.alpha, &forked.pair.alpha_desired);
    assert_eq!(state(desired), DataState::Replica);
    follow(desired, forked.pair.bravo.port);
    start(desired, true);
    eventually("the same rows", || {
        alpha
            .try_sql("select string_agg(bib::text, ',' order by bib) from riders")
            .as_deref()
            == Some("2,7")
    });
    stop_server(desired.postgres.data_directory.as_std_path());
}

/// A file system that shares blocks between files (XFS, btrfs) keeps the whole copy although there is no room for another.
#[test]
fn shared_blocks_keep_the_whole_copy_on_a_small_disk() {
    if !root() {
        skip!("only root can mount a file system");
    }
    let mut forked = Forked::new(End::Crash);
    let image = forked.pair.alpha.path("image");
    let file = fs::File::create(&image).expect("image");
    file.set_len(400 << 20).expect("size");
    let made = Command::new("mkfs.xfs")
        .args(["-q", "-m", "reflink=1"])
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skip!("mkfs.xfs is not installed");
    }
    let place = forked.pair.alpha.path("small");
    let image = image.display().to_string();
    let Some(_mounted) = Mounted::at(&place, &["-o", "loop", &image]) else {
        skip!("nothing can be mounted here");
    };
    move_to(&mut forked, &place, SCARCE);
    forked.rewind().expect("rewind");
    let kept = fs::read_dir(&place)
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.is_dir() && path.display().to_string().contains("set-aside"))
        .expect("kept");
    assert_eq!(report(&kept).kind, Kind::Full);
    assert!(riders(&kept).contains("bib 666"));
    follows_there(&mut forked);
}
