//! Durable files: what is written here is there, whole, after a power cut, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{Gid, Uid};

/// Who a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The file's text, or `None` if there is no such file. Content that is not UTF-8 is an error.
pub fn read_if_there(path: &Utf8Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The last bytes of a file as text, at most so many.
pub fn read_end(path: &Utf8Path, most: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Replaces `path` by `content` in one step: a temporary file beside it, fsync, rename, fsync of the directory.
///
/// `owner: None` keeps the daemon's own. The temporary name is fixed, so that a crash leaves at most one behind.
pub fn write_durably(path: &Utf8Path, content: &[u8], mode: u32, owner: Option<Owner>) -> Result<()> {
    let temporary = Utf8PathBuf::from(format!("{path}.new"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(owner) = owner {
            give(&file, owner)?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("cannot write {path}"))
}

/// Makes the entries of the directory that holds `path` durable.
pub fn sync_parent(path: &Utf8Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes everything durable that was written to the file system that holds `path`.
pub fn sync_file_system(path: &Utf8Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(path)?)?;
    Ok(())
}

/// Exchanges what two names stand for, in one step. The names' durability is the caller's.
///
/// Where the file system cannot do that (NFS, some FUSE and overlay file systems), renames do: `a` becomes `<b>.old`, `b`
/// becomes `a`, `<b>.old` becomes `b`. A crash in between leaves everything under one of these three names.
pub fn exchange(a: &Utf8Path, b: &Utf8Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, a.as_std_path(), CWD, b.as_std_path(), RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => exchange_by_renames(a, b),
        done => Ok(done?),
    }
}

fn exchange_by_renames(a: &Utf8Path, b: &Utf8Path) -> io::Result<()> {
    let old = name_while_exchanged(b);
    fs::rename(a, &old)?;
    sync_parent(a)?;
    if let Err(error) = fs::rename(b, a) {
        // As it was before.
        fs::rename(&old, a)?;
        return Err(error);
    }
    sync_parent(a)?;
    fs::rename(&old, b)
}

/// Under which name [`exchange`] may leave its first argument, if it is interrupted; `b` is its second one.
pub fn name_while_exchanged(b: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{b}.old"))
}

/// Makes sure that `path` is a directory with this mode and owner; parents are made with mode 0755. A link in its place
/// is an error: what it leads to would be handed over.
pub fn ensure_directory(path: &Utf8Path, mode: u32, owner: Option<Owner>) -> Result<()> {
    let ensure = || -> io::Result<()> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
        }
        let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if directory.metadata()?.permissions().mode() & 0o7777 != mode {
            directory.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        owner.map_or(Ok(()), |owner| give(&directory, owner))
    };
    ensure().with_context(|| format!("cannot prepare the directory {path}"))
}

/// Hands an open file to a user, if it is not that user's already.
pub(super) fn give(file: &File, owner: Owner) -> io::Result<()> {
    let meta = file.metadata()?;
    if meta.uid() == owner.uid && meta.gid() == owner.gid {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    nix::unistd::fchown(file, Some(uid), Some(gid)).map_err(io::Error::from)
}

/// Whether `path` is where another file system is mounted (its device differs from its parent's, or it is listed as
/// a mount point, as a bind mount of the same device is). Such a directory cannot be renamed.
pub fn is_mount_point(path: &Utf8Path) -> io::Result<bool> {
    let real = path.canonicalize_utf8()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // Field 5 is the mount point, with space, tab, newline and backslash written as \040, \011, \012 and \134.
    let escaped = real
        .as_str()
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012");
    Ok(table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(escaped.as_str())))
}

/// Free bytes for ordinary users on the file system of `path`.
pub fn free_space(path: &Utf8Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path.as_std_path()).map_err(io::Error::from)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways end alike; the second one is for file systems that have no exchange.
    #[test]
    fn an_exchange_exchanges() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let directory = Utf8Path::from_path(directory.path()).expect("UTF-8");
        let (a, b) = (directory.join("a"), directory.join("b"));
        let read = |path: &Utf8Path| fs::read_to_string(path.join("is")).expect("read");
        for name in [&a, &b] {
            fs::create_dir(name).expect("directory");
            fs::write(name.join("is"), name.as_str()).expect("write");
        }
        exchange(&a, &b).expect("exchange");
        assert_eq!((read(&a), read(&b)), (b.to_string(), a.to_string()));
        exchange_by_renames(&a, &b).expect("exchange");
        assert_eq!((read(&a), read(&b)), (a.to_string(), b.to_string()));
        assert!(!name_while_exchanged(&b).exists());
        // The second name is gone: the first one keeps what it has.
        fs::remove_dir_all(&b).expect("remove");
        assert!(exchange(&a, &b).is_err() && exchange_by_renames(&a, &b).is_err());
        assert_eq!(read(&a), a.as_str());
    }
}
