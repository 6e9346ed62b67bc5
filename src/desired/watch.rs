//! Watches the state file and says what it declares now.
//!
//! Notifications of the kernel are a *hint* that makes it fast; a slow poll is the truth. What counts is the content:
//! the same bytes again are no news, however they were written. A close or a rename is looked at once; a bare write, a
//! file that vanished or became empty settles first, since half a YAML file can be valid YAML and many editors move the
//! old file away before they write the new one. An invalid file changes nothing: the last valid declaration stays in
//! the [`Reading`], beside the error. This module must not act on what is declared.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::chain::{Chain, Identity, is_mount_point};
use super::model::Desired;
use super::source::{LoadError, interpret, read};
use super::validate::Surroundings;
use crate::digest::digest;

/// So long must nothing have been written.
const QUIET: Duration = Duration::from_millis(150);
/// A file that is gone or empty may be in the middle of being saved.
const QUIET_GONE: Duration = Duration::from_millis(300);
/// After this time even a file that is written all the time is looked at.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_secs(5);
/// Where the kernel tells nothing, the poll is all there is.
const POLL_ALONE: Duration = Duration::from_secs(1);

/// What is known of the state file.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The last valid declaration: this is in force. `None`: there was none since the start.
    pub valid: Option<Arc<Valid>>,
    /// What is wrong with the file now, without its lines (they may hold a password); `None`: `valid` is what the file says now.
    pub error: Option<String>,
    /// Why changes of the file may be seen late or not at all.
    pub warning: Option<String>,
}

/// A valid declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// What is declared.
    pub desired: Desired,
    /// A short name of the file's content, the same for the same bytes.
    pub digest: String,
}

/// Ends the watching when it is dropped.
#[derive(Debug)]
pub struct Handle {
    poke: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Handle {
    /// Looks at the file now.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to watch `surroundings.path`. The first reading is there at once. Must be called inside of a tokio runtime.
pub fn watch(surroundings: Surroundings) -> (watch::Receiver<Arc<Reading>>, Handle) {
    let (sender, receiver) = watch::channel(Arc::new(Reading::default()));
    let (events, hints) = mpsc::unbounded_channel();
    let poke = Arc::new(Notify::new());
    let mut watching = Watching {
        surroundings,
        sender,
        events,
        watcher: None,
        no_watcher: None,
        armed: BTreeMap::new(),
        chain: Chain::default(),
        current: None,
        settling: None,
    };
    // First the watch, then the look: a change in between is seen twice rather than never.
    watching.arm();
    watching.warn();
    watching.accept(Seen::now(&watching.surroundings));
    let task = tokio::spawn(watching.run(hints, Arc::clone(&poke)));
    (receiver, Handle { poke, task })
}

/// What one look at the file found.
#[derive(PartialEq)]
enum Seen {
    Content(Vec<u8>),
    /// No file, or none that can be read, and why.
    Nothing(String),
}

impl Seen {
    fn now(surroundings: &Surroundings) -> Self {
        match read(&surroundings.path) {
            Ok(bytes) => Self::Content(bytes),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }

    /// How long it must stay like this before it is believed.
    fn quiet(&self) -> Duration {
        match self {
            Self::Content(bytes) if !bytes.is_empty() => QUIET,
            Self::Content(_) | Self::Nothing(_) => QUIET_GONE,
        }
    }
}

/// What an event means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// Something was finished: look.
    Now,
    /// Something is being written or is gone: wait until it is quiet, then look.
    Settle,
    /// Probably nothing: as `Settle`, unless there was a better hint.
    Maybe,
}

/// What an event means, if anything.
fn weigh(event: &Event, chain: &Chain) -> Option<Hint> {
    if event.need_rescan() {
        return Some(Hint::Now);
    }
    if !event.paths.iter().any(|path| chain.names.contains(path)) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Hint::Now),
        // Our own looks at the file are among these.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            let onto = event.paths.last().is_some_and(|path| chain.names.contains(path));
            Some(if onto { Hint::Now } else { Hint::Settle })
        }
        EventKind::Modify(ModifyKind::Metadata(_)) | EventKind::Create(_) => Some(Hint::Maybe),
        EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => Some(Hint::Settle),
    }
}

struct Settling {
    /// What the file held when the waiting began: the look at its end must find the same.
    first: Seen,
    since: Instant,
    due: Instant,
}

struct Watching {
    surroundings: Surroundings,
    sender: watch::Sender<Arc<Reading>>,
    events: mpsc::UnboundedSender<notify::Result<Event>>,
    watcher: Option<RecommendedWatcher>,
    no_watcher: Option<String>,
    /// The directories that the kernel watches for us.
    armed: BTreeMap<PathBuf, Identity>,
    chain: Chain,
    /// What the last reading was made from.
    current: Option<Seen>,
    settling: Option<Settling>,
}

impl Watching {
    async fn run(mut self, mut hints: mpsc::UnboundedReceiver<notify::Result<Event>>, poke: Arc<Notify>) {
        let mut next_poll = Instant::now() + self.poll_interval();
        loop {
            let due = self.settling.as_ref().map(|settling| settling.due);
            // Every arm is cancel-safe: each waits for something that stays true, and acts only after that.
            tokio::select! {
                Some(event) = hints.recv() => {
                    let mut hint = self.note(event);
                    while let Ok(event) = hints.try_recv() {
                        hint = match (hint, self.note(event)) {
                            (Some(before), None | Some(Hint::Maybe)) => Some(before),
                            (_, now) => now,
                        };
                    }
                    if let Some(hint) = hint {
                        self.follow(hint);
                    }
                }
                () = poke.notified() => self.follow(Hint::Now),
                () = sleep_until(due.unwrap_or(next_poll)), if due.is_some() => self.settle(),
                () = sleep_until(next_poll) => {
                    self.poll();
                    next_poll = Instant::now() + self.poll_interval();
                }
                () = self.sender.closed() => return,
            }
        }
    }

    /// Takes an event in: what it means, and what it says about our watches.
    fn note(&mut self, event: notify::Result<Event>) -> Option<Hint> {
        let Ok(event) = event else {
            self.armed.clear();
            return Some(Hint::Now);
        };
        let hint = weigh(&event, &self.chain)?;
        // The kernel's watch goes with the directory, even if one of the same name is back already.
        if matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        ) {
            self.armed
                .retain(|directory, _| !event.paths.iter().any(|path| directory.starts_with(path)));
        }
        Some(hint)
    }

    fn follow(&mut self, hint: Hint) {
        let rearmed = self.arm();
        if hint == Hint::Now {
            self.look();
        } else {
            self.wait();
        }
        // What happened in a directory before we watched it has left no event.
        if rearmed && self.settling.is_none() {
            self.wait();
        }
    }

    /// Something was finished: believe what is there, unless it looks like the middle of a save.
    fn look(&mut self) {
        let seen = Seen::now(&self.surroundings);
        if seen.quiet() > QUIET && self.current.as_ref() != Some(&seen) {
            self.wait_from(seen);
        } else {
            self.settling = None;
            self.accept(seen);
        }
    }

    /// Something is going on: look when it has been quiet for a while.
    fn wait(&mut self) {
        match &mut self.settling {
            None => self.wait_from(Seen::now(&self.surroundings)),
            Some(settling) => {
                let due = Instant::now() + settling.first.quiet();
                settling.due = due.min(settling.since + LONGEST_WAIT);
            }
        }
    }

    fn wait_from(&mut self, first: Seen) {
        let since = Instant::now();
        self.settling = Some(Settling {
            due: since + first.quiet(),
            since,
            first,
        });
    }

    /// The waiting is over: two looks must agree, else it begins again.
    fn settle(&mut self) {
        self.arm();
        let seen = Seen::now(&self.surroundings);
        let agreed = self
            .settling
            .take()
            .is_some_and(|settling| settling.first == seen);
        if agreed || self.current.as_ref() == Some(&seen) {
            self.accept(seen);
        } else {
            self.wait_from(seen);
        }
    }

    /// The slow truth: whatever the kernel did or did not tell.
    fn poll(&mut self) {
        self.arm();
        self.warn();
        let seen = Seen::now(&self.surroundings);
        if self.settling.is_none() && self.current.as_ref() != Some(&seen) {
            self.wait_from(seen);
        }
    }

    fn poll_interval(&self) -> Duration {
        match self.sender.borrow().warning {
            None => POLL,
            Some(_) => POLL_ALONE,
        }
    }

    /// Publishes what was seen, if it is news.
    fn accept(&mut self, seen: Seen) {
        if self.current.as_ref() == Some(&seen) {
            return;
        }
        let outcome = match &seen {
            Seen::Nothing(error) => Err(error.clone()),
            Seen::Content(bytes) => interpret(bytes, &self.surroundings)
                .map(|desired| {
                    Arc::new(Valid {
                        desired,
                        digest: digest(&[&String::from_utf8_lossy(bytes)]),
                    })
                })
                .map_err(|error: LoadError| error.brief()),
        };
        self.current = Some(seen);
        self.publish(|reading| match outcome {
            Ok(valid) => {
                reading.valid = Some(valid);
                reading.error = None;
            }
            Err(error) => reading.error = Some(error),
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Reading)) {
        self.sender.send_modify(|reading| change(Arc::make_mut(reading)));
    }

    /// Says why changes may not be seen, if that is so.
    fn warn(&self) {
        let path = &self.surroundings.path;
        let mounted = fs::read_to_string("/proc/self/mountinfo")
            .ok()
            .is_some_and(|mountinfo| {
                path.canonicalize_utf8()
                    .is_ok_and(|real| is_mount_point(&mountinfo, real.as_str()))
            });
        let warning = if mounted {
            Some(format!(
                "{path} is mounted as a single file: if it is replaced outside, this cannot be seen here; \
                 mount its directory instead"
            ))
        } else {
            let why = self.no_watcher.as_ref();
            why.map(|why| format!("{path} cannot be watched ({why}); it is looked at every second instead"))
        };
        if self.sender.borrow().warning != warning {
            self.publish(|reading| reading.warning = warning);
        }
    }

    /// Watches the directories that lead to the file now. Says whether one was added.
    fn arm(&mut self) -> bool {
        if self.watcher.is_none() {
            let events = self.events.clone();
            self.armed.clear();
            // The callback runs in a thread of the watcher; our own reads are dropped before they wake anybody.
            let made = notify::recommended_watcher(move |event: notify::Result<Event>| {
                let ours = event.as_ref().is_ok_and(|event| {
                    matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
                });
                if !ours {
                    // Nobody listens any more when the task has ended, and then nothing is lost.
                    events.send(event).ok();
                }
            });
            match made {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => self.no_watcher = Some(error.to_string()),
            }
        }
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut added = false;
        // A directory can change between the look at it and the watch on it; so look again until nothing is new.
        for _ in 0..8 {
            self.chain = Chain::follow(self.surroundings.path.as_std_path());
            let wanted = &self.chain.directories;
            let stale: Vec<PathBuf> = self
                .armed
                .iter()
                .filter(|(directory, identity)| wanted.get(*directory) != Some(*identity))
                .map(|(directory, _)| directory.clone())
                .collect();
            for directory in stale {
                // It may have gone with its directory already.
                watcher.unwatch(&directory).ok();
                self.armed.remove(&directory);
            }
            let mut complete = true;
            let mut failed = None;
            for (directory, identity) in wanted {
                if self.armed.contains_key(directory) {
                    continue;
                }
                match watcher.watch(directory, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.armed.insert(directory.clone(), *identity);
                        added = true;
                        complete = false;
                    }
                    Err(error) => failed = Some(error.to_string()),
                }
            }
            self.no_watcher = failed;
            if complete {
                break;
            }
        }
        added
    }
}
