//! All the ways in which people and programs save a file, on real files: whatever was done, the last content is what is
//! read in the end, and an error never displaces the last valid declaration.
//!
//! Nothing here sleeps to let something happen and nothing measures time: every test waits for the reading that must
//! come, with a generous limit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use paceline::desired::{Handle, Reading, Surroundings, watch};
use tokio::sync::watch::Receiver;

/// Longer than any slow poll, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Watched {
    _directory: tempfile::TempDir,
    root: PathBuf,
    file: PathBuf,
    readings: Receiver<Arc<Reading>>,
    handle: Handle,
}

/// Prepares a directory with `prepare`, and watches `file` in it.
fn watched(file: &str, prepare: impl FnOnce(&Path)) -> Watched {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    prepare(&root);
    let file = root.join(file);
    let surroundings = Surroundings {
        path: file.clone().try_into().unwrap(),
        root: false,
        user: "crew".to_owned(),
        hostname: "bravo".to_owned(),
        node: None,
        addresses: Vec::new(),
        state_home: "/home/crew/.local/state".into(),
    };
    let (readings, handle) = watch(surroundings);
    Watched {
        _directory: directory,
        root,
        file,
        readings,
        handle,
    }
}

impl Watched {
    fn now(&self) -> Arc<Reading> {
        Arc::clone(&self.readings.borrow())
    }

    /// Waits until the file's content is taken to declare this name.
    async fn reads(&mut self, node: &str) {
        self.until(&format!("node {node}"), |reading| {
            reading.error.is_none()
                && reading
                    .valid
                    .as_ref()
                    .is_some_and(|valid| valid.desired.node == node)
        })
        .await;
    }

    /// Waits until the file is reported as wrong in these words.
    async fn complains(&mut self, words: &str) {
        self.until(words, |reading| {
            reading.error.as_ref().is_some_and(|error| error.contains(words))
        })
        .await;
    }

    async fn until(&mut self, what: &str, mut good: impl FnMut(&Reading) -> bool) {
        let last = tokio::time::timeout(LIMIT, self.readings.wait_for(|reading| good(reading))).await;
        assert!(
            last.is_ok_and(|reading| reading.is_ok()),
            "waited for {what}, there is {:#?}",
            self.now()
        );
    }

    fn declared(&self) -> Option<String> {
        self.now().valid.as_ref().map(|valid| valid.desired.node.clone())
    }
}

fn declaring(node: &str) -> String {
    format!("role: primary\nnode: {node}\n")
}

fn write(path: &Path, node: &str) {
    fs::write(path, declaring(node)).unwrap();
}

/// As configuration management and careful editors save.
fn replace(path: &Path, node: &str) {
    let new = path.with_extension("new");
    write(&new, node);
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn the_first_reading_is_there_at_once() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    assert_eq!(w.declared().as_deref(), Some("a"));
    assert_eq!(w.now().valid.as_ref().unwrap().digest.len(), 16);
    assert_eq!(w.now().error, None);
    w.reads("a").await;
}

#[tokio::test]
async fn written_in_place() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    let before = w.now().valid.as_ref().unwrap().digest.clone();
    write(&w.file, "b");
    w.reads("b").await;
    assert_ne!(w.now().valid.as_ref().unwrap().digest, before);
    write(&w.file, "a");
    w.reads("a").await;
    assert_eq!(w.now().valid.as_ref().unwrap().digest, before);
}

#[tokio::test]
async fn written_and_renamed_again_and_again() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    for node in ["b", "c", "d"] {
        replace(&w.file, node);
        w.reads(node).await;
    }
}

/// vim moves the old file away and writes a new one of the same name.
#[tokio::test]
async fn moved_away_and_written_anew() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    for node in ["b", "c"] {
        fs::rename(&w.file, w.root.join("state.yaml~")).unwrap();
        write(&w.file, node);
        w.until("b or c, and no error in between", |reading| {
            assert_eq!(reading.error, None);
            reading.valid.as_ref().unwrap().desired.node == node
        })
        .await;
    }
}

/// The way mounted ConfigMaps change: the file is a link through `..data`, and only that link is replaced.
#[tokio::test]
async fn a_link_on_the_way_is_exchanged() {
    let mut w = watched("state.yaml", |root| {
        for version in ["v1", "v2", "v3"] {
            fs::create_dir(root.join(version)).unwrap();
            write(&root.join(version).join("state.yaml"), version);
        }
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/state.yaml", root.join("state.yaml")).unwrap();
    });
    assert_eq!(w.declared().as_deref(), Some("v1"));
    for version in ["v2", "v3"] {
        symlink(version, w.root.join("..data_tmp")).unwrap();
        fs::rename(w.root.join("..data_tmp"), w.root.join("..data")).unwrap();
        w.reads(version).await;
    }
    write(&w.root.join("v3/state.yaml"), "behind-the-link");
    w.reads("behind-the-link").await;
}

#[tokio::test]
async fn the_target_of_a_link_into_another_directory_changes() {
    let mut w = watched("conf/state.yaml", |root| {
        fs::create_dir(root.join("git")).unwrap();
        fs::create_dir(root.join("conf")).unwrap();
        write(&root.join("git/state.yaml"), "a");
        symlink(root.join("git/state.yaml"), root.join("conf/state.yaml")).unwrap();
    });
    replace(&w.root.join("git/state.yaml"), "b");
    w.reads("b").await;
}

#[tokio::test]
async fn the_file_appears_later() {
    let mut w = watched("state.yaml", |_| ());
    w.complains("there is no such file").await;
    assert_eq!(w.declared(), None);
    write(&w.file, "a");
    w.reads("a").await;
}

#[tokio::test]
async fn the_directories_appear_later() {
    let mut w = watched("etc/paceline/state.yaml", |_| ());
    w.complains("there is no such file").await;
    fs::create_dir_all(w.file.parent().unwrap()).unwrap();
    write(&w.file, "a");
    w.reads("a").await;
    write(&w.file, "b");
    w.reads("b").await;
}

#[tokio::test]
async fn the_directory_is_removed_and_made_again() {
    let mut w = watched("etc/state.yaml", |root| {
        fs::create_dir(root.join("etc")).unwrap();
        write(&root.join("etc/state.yaml"), "a");
    });
    for node in ["b", "c"] {
        fs::remove_dir_all(w.root.join("etc")).unwrap();
        w.complains("there is no such file").await;
        fs::create_dir(w.root.join("etc")).unwrap();
        write(&w.file, node);
        w.reads(node).await;
    }
}

#[tokio::test]
async fn the_directory_is_exchanged_for_another() {
    let mut w = watched("etc/state.yaml", |root| {
        fs::create_dir(root.join("etc")).unwrap();
        write(&root.join("etc/state.yaml"), "a");
    });
    for (number, node) in ["b", "c"].into_iter().enumerate() {
        let new = w.root.join("new");
        fs::create_dir(&new).unwrap();
        write(&new.join("state.yaml"), node);
        fs::rename(w.root.join("etc"), w.root.join(format!("old{number}"))).unwrap();
        fs::rename(new, w.root.join("etc")).unwrap();
        w.reads(node).await;
    }
    write(&w.file, "in-the-new-one");
    w.reads("in-the-new-one").await;
}

#[tokio::test]
async fn half_written_and_then_completed() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&w.file)
        .unwrap();
    file.write_all(b"role: prim").unwrap();
    file.flush().unwrap();
    // Nobody finishes it for a while: it is reported, and the old declaration stays in force.
    w.complains("\"prim\" is not known here").await;
    assert_eq!(w.declared().as_deref(), Some("a"));
    file.write_all(b"ary\nnode: b\n").unwrap();
    drop(file);
    w.reads("b").await;
}

#[tokio::test]
async fn a_writer_that_never_closes_the_file_is_read_when_it_is_quiet() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    let mut file = File::options().write(true).open(&w.file).unwrap();
    file.rewind().unwrap();
    file.write_all(declaring("b").as_bytes()).unwrap();
    w.reads("b").await;
    drop(file);
}

#[tokio::test]
async fn deleted_and_restored() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    fs::remove_file(&w.file).unwrap();
    w.complains("there is no such file").await;
    assert_eq!(w.declared().as_deref(), Some("a"));
    write(&w.file, "a");
    w.reads("a").await;
}

#[tokio::test]
async fn emptied() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    File::create(&w.file).unwrap();
    w.complains("the file is empty").await;
    assert_eq!(w.declared().as_deref(), Some("a"));
}

#[tokio::test]
async fn invalid_and_then_valid() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    fs::write(&w.file, "role: primary\nnode: b\nprot: 1\n").unwrap();
    w.complains("state.yaml:3:1: unknown key \"prot\"").await;
    assert_eq!(w.declared().as_deref(), Some("a"));
    replace(&w.file, "b");
    w.reads("b").await;
}

#[tokio::test]
async fn invalid_from_the_start() {
    let mut w = watched("state.yaml", |root| {
        fs::write(root.join("state.yaml"), "rolle: primary\n").unwrap();
    });
    assert_eq!(w.declared(), None);
    w.complains("did you mean \"role\"?").await;
    write(&w.file, "a");
    w.reads("a").await;
}

#[tokio::test]
async fn a_hundred_quick_edits_end_at_the_last() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    for number in 0..100 {
        if number % 2 == 0 {
            write(&w.file, &format!("n{number}"));
        } else {
            replace(&w.file, &format!("n{number}"));
        }
        tokio::task::yield_now().await;
    }
    w.reads("n99").await;
}

#[tokio::test]
async fn the_same_content_again_is_no_news() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    w.readings.mark_unchanged();
    replace(&w.file, "a");
    write(&w.file, "a");
    w.handle.poke();
    replace(&w.file, "b");
    tokio::time::timeout(LIMIT, w.readings.changed())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(w.declared().as_deref(), Some("b"));
}

#[tokio::test]
async fn a_poke_makes_it_look() {
    let mut w = watched("state.yaml", |_| ());
    write(&w.file, "a");
    w.handle.poke();
    w.reads("a").await;
}

#[tokio::test]
async fn other_files_of_the_directory_do_not_matter() {
    let mut w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    w.readings.mark_unchanged();
    write(&w.root.join("other.yaml"), "x");
    fs::rename(w.root.join("other.yaml"), w.root.join("another.yaml")).unwrap();
    write(&w.file, "b");
    w.reads("b").await;
}

#[tokio::test]
async fn it_ends_with_its_handle() {
    let w = watched("state.yaml", |root| write(&root.join("state.yaml"), "a"));
    let Watched {
        mut readings, handle, ..
    } = w;
    readings.mark_unchanged();
    drop(handle);
    assert!(
        tokio::time::timeout(LIMIT, readings.changed())
            .await
            .unwrap()
            .is_err()
    );
}
