//! A person's files, beside which others may be at work: made only if they are not there, replaced only if they are
//! still what was read. Durable like [`super::files`].

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::files::{Owner, give, sync_parent};

/// Makes a file that is not there yet, in one step. `false`: somebody made it first; theirs is left as it is.
pub fn write_new(path: &Utf8Path, content: &[u8], mode: u32) -> Result<bool> {
    let temporary = temporary(path);
    let write = || -> io::Result<bool> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a rename, a second name never takes the place of a file that appeared meanwhile.
        let ours = match fs::hard_link(&temporary, path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            // A file system without hard links, such as a stick's.
            Err(_) if fs::symlink_metadata(path).is_err() => {
                fs::rename(&temporary, path)?;
                true
            }
            Err(_) => false,
        };
        sync_parent(path)?;
        Ok(ours)
    };
    let written = write();
    drop(fs::remove_file(&temporary));
    written.with_context(|| format!("cannot write {path}"))
}

/// Replaces the content of a file that is there, in one step; mode and owner stay. `still` is asked just before that:
/// `false` leaves everything as it is.
pub fn replace(path: &Utf8Path, content: &[u8], still: impl FnOnce() -> bool) -> io::Result<bool> {
    let temporary = temporary(path);
    let replace = || -> io::Result<bool> {
        let meta = fs::metadata(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let owner = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        give(&file, owner)?;
        file.set_permissions(meta.permissions())?;
        file.write_all(content)?;
        file.sync_all()?;
        if !still() {
            return Ok(false);
        }
        fs::rename(&temporary, path)?;
        // It is replaced now; that a power cut could undo it (or that we may not list the directory) is no failure.
        drop(sync_parent(path));
        Ok(true)
    };
    let replaced = replace();
    if !matches!(replaced, Ok(true)) {
        drop(fs::remove_file(&temporary));
    }
    replaced
}

/// Writes over the content of a file that cannot be replaced. Never empty in between: the new bytes come first, then
/// the length.
pub fn write_over(path: &Utf8Path, content: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// A name beside `path` that nobody else uses, so that two of us at the same time do not take each other's.
fn temporary(path: &Utf8Path) -> Utf8PathBuf {
    let name = path.file_name().unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.new", uuid::Uuid::new_v4().simple()))
}
