//! Copies of files of a data directory, made with the rights of the server's user: what that one planted there must not
//! let it read root's files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};

use crate::lineage::Lsn;

/// Copies everything below a directory into another one, which is there. Links are followed (PostgreSQL has some, such as
/// `pg_wal`), since what is kept must stand alone; what is neither file nor directory is left out.
pub(super) fn tree(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    for entry in from
        .read_dir_utf8()
        .with_context(|| format!("cannot list {from}"))?
    {
        let entry = entry.with_context(|| format!("cannot list {from}"))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::metadata(source).with_context(|| format!("cannot look at {source}"))?;
        if meta.is_dir() {
            directory(&target)?;
            tree(source, &target)?;
        } else if meta.is_file() && entry.file_name() != "postmaster.pid" {
            // Where the file system can share blocks between files, the kernel does.
            fs::copy(source, &target).with_context(|| format!("cannot copy {source}"))?;
        }
    }
    Ok(())
}

/// What [`tree`] would copy, in bytes; what cannot be read counts as nothing.
pub(super) fn size(directory: &Utf8Path) -> u64 {
    let Ok(entries) = directory.read_dir_utf8() else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => size(entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Whether a copy of a file in `data` below `to`, which is there, shares its blocks with it, so that it takes no room.
pub(super) fn shares_blocks(data: &Utf8Path, to: &Utf8Path) -> bool {
    let probe = to.join("probe");
    let try_it = || -> io::Result<()> {
        let source = File::open(data.join("global/pg_control"))?;
        let target = File::create(&probe)?;
        rustix::fs::ioctl_ficlone(&target, &source)?;
        Ok(())
    };
    let shares = try_it().is_ok();
    drop(fs::remove_file(&probe));
    shares
}

/// Makes a directory that is open to its owner alone.
fn directory(path: &Utf8Path) -> Result<()> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("cannot make the directory {path}"))
}

/// What of a data directory holds its WAL from a position on, beside the timelines' history files and `pg_control`.
pub(super) fn wal_since(data: &Utf8Path, fork: Lsn) -> Result<Vec<Utf8PathBuf>> {
    let wal = data.join("pg_wal");
    let mut wanted = vec![data.join("global/pg_control")];
    for entry in wal
        .read_dir_utf8()
        .with_context(|| format!("cannot list {wal}"))?
    {
        let entry = entry.with_context(|| format!("cannot list {wal}"))?;
        let size = fs::metadata(entry.path()).map_or(0, |meta| meta.len());
        let wanted_too = match position(entry.file_name(), size) {
            Some(begin) => begin + size > fork.0 && holds(entry.path(), begin),
            None => entry.file_name().ends_with(".history"),
        };
        if wanted_too {
            wanted.push(entry.path().to_owned());
        }
    }
    Ok(wanted)
}

/// Copies files into a directory, which is there, under their own names.
pub(super) fn files(wanted: &[Utf8PathBuf], to: &Utf8Path) -> Result<()> {
    for path in wanted {
        let target = to.join(path.file_name().context("a file has a name")?);
        fs::copy(path, &target).with_context(|| format!("cannot copy {path}"))?;
    }
    Ok(())
}

/// Where a segment of this size begins, going by its name: timeline and number, in three parts of eight hexadecimal digits.
/// `None`: it is no segment.
pub(super) fn position(name: &str, size: u64) -> Option<u64> {
    if name.len() != 24 || size == 0 {
        return None;
    }
    let number = |range: std::ops::Range<usize>| u64::from_str_radix(name.get(range)?, 16).ok();
    number(0..8)?;
    Some((number(8..16)? << 32) + number(16..24)? * size)
}

/// Whether a segment holds WAL of the position that its name says. One that was only recycled or made for later begins with
/// another position, or none; one that cannot be read counts as holding something.
fn holds(path: &Utf8Path, begin: u64) -> bool {
    // xlp_pageaddr, after magic number, flags and timeline (PostgreSQL's xlog_internal.h).
    let mut header = [0; 16];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => header[8..] == begin.to_ne_bytes(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn segments_are_told_by_their_names() {
        let mb = 1 << 20;
        for (name, begin) in [
            ("000000010000000100000005", Some((1 << 32) + 5 * 4 * mb)),
            ("0000000200000000000000FF", Some(255 * 4 * mb)),
            ("00000001.history", None),
            ("archive_status", None),
            ("00000001000000010000000X", None),
            ("000000010000000100000005.partial", None),
        ] {
            assert_eq!(position(name, 4 * mb), begin, "{name}");
        }
    }
}
