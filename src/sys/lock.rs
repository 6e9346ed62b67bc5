//! One daemon per data directory and per home: locks that the kernel drops when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A lock that is held as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: Utf8PathBuf,
}

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Held(Lock),
    /// Somebody else has it: whatever they wrote into the file (a process id and a name).
    Taken(String),
}

impl Lock {
    /// Takes the lock at `path`, making the file if needed; never waits. `note` says who we are, for the one who
    /// finds it taken.
    pub fn take(path: &Utf8Path, note: &str) -> Result<Attempt> {
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // The directory may be the server's user's, who could have put a link there.
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(path)
                .with_context(|| format!("cannot open the lock file {path}"))?;
            match file.try_lock() {
                Ok(()) => {
                    // Somebody may have removed the file between our open and our lock: then the name is free and
                    // ours locks nothing.
                    let ours = file.metadata()?;
                    match std::fs::metadata(path) {
                        Ok(named) if named.ino() == ours.ino() && named.dev() == ours.dev() => {}
                        _ => continue,
                    }
                    file.set_len(0)?;
                    file.rewind()?;
                    // A full disk must not keep the database from being looked after: the note is a courtesy.
                    drop(writeln!(file, "{note}"));
                    return Ok(Attempt::Held(Self {
                        file,
                        path: path.to_owned(),
                    }));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    drop(file.read_to_string(&mut holder));
                    return Ok(Attempt::Taken(holder.trim().to_owned()));
                }
                Err(TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("cannot lock {path}"));
                }
            }
        }
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Lets the lock outlive `exec`, for a re-execution in place; gives the number that [`Lock::inherited`] takes.
    pub fn pass_on(&self) -> Result<RawFd> {
        set_inheritable(&self.file, true)?;
        Ok(self.file.as_raw_fd())
    }

    /// Whether this lock has this descriptor.
    pub fn is(&self, fd: RawFd) -> bool {
        self.file.as_raw_fd() == fd
    }

    /// Takes the passing-on back, when the `exec` failed.
    pub fn keep(&self) -> Result<()> {
        set_inheritable(&self.file, false)
    }

    /// A lock that came through [`Lock::pass_on`] from the program that executed us, if the descriptor really is
    /// the file at `path`.
    #[expect(
        unsafe_code,
        reason = "a descriptor that was inherited through exec is only a number"
    )]
    pub fn inherited(fd: RawFd, path: &Utf8Path) -> Option<Self> {
        let open = std::fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
        let named = std::fs::metadata(path).ok()?;
        if fd <= 2 || open.ino() != named.ino() || open.dev() != named.dev() {
            return None;
        }
        // SAFETY: the descriptor is open (checked above), it was opened by our predecessor in this very process and
        // nothing else in this program owns it: it is asked for once, at the start, before other files are opened.
        let file = unsafe { File::from_raw_fd(fd) };
        set_inheritable(&file, false).ok()?;
        Some(Self {
            file,
            path: path.to_owned(),
        })
    }
}

fn set_inheritable(file: &File, inheritable: bool) -> Result<()> {
    let flags = if inheritable {
        FdFlag::empty()
    } else {
        FdFlag::FD_CLOEXEC
    };
    fcntl(file.as_fd(), FcntlArg::F_SETFD(flags)).context("cannot change the flags of a lock file")?;
    Ok(())
}
