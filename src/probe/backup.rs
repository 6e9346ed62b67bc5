//! Looks at the backup that `role: recovery` would restore from: whether it is there, can be read, and how it is kept.
//! Nothing is unpacked; what is inside a tar is seen when that is done.

use std::fs::{self, File};
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::desired::{Desired, Role};
use crate::observed::{Backup, BackupKind, Fact};

/// The first bytes of what gzip and Zstandard write.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Where a tar's first header says that it is one ("ustar", in POSIX and GNU format alike).
const MAGIC_AT: usize = 257;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

/// The declared backup; `Known(None)`: none is declared, or nothing is to be restored.
pub(super) fn look(desired: &Desired) -> Fact<Option<Backup>> {
    let from = desired
        .recovery
        .as_ref()
        .filter(|_| desired.role == Role::Recovery)
        .and_then(|recovery| recovery.from.as_ref());
    Fact::from(from.map(|from| backup(from)).transpose())
}

fn backup(from: &Utf8Path) -> Result<Backup> {
    let meta = fs::metadata(from).with_context(|| format!("cannot look at {from}"))?;
    if meta.is_file() {
        compression(from)?;
        return Ok(Backup {
            kind: BackupKind::Tar,
            bytes: meta.len(),
            major: None,
        });
    }
    if !meta.is_dir() {
        bail!("{from} is neither a file nor a directory");
    }
    let version = from.join("PG_VERSION");
    if version.is_file() {
        let text = fs::read_to_string(&version).with_context(|| format!("cannot read {version}"))?;
        let major = text.trim().parse();
        let control = from.join("global/pg_control");
        let length = fs::metadata(&control)
            .with_context(|| format!("{from} is no whole data directory: cannot look at {control}"))?
            .len();
        if length != 8192 {
            bail!("{from} is no whole data directory: {control} has {length} bytes instead of 8192");
        }
        return Ok(Backup {
            kind: BackupKind::Directory,
            bytes: size(from),
            major: Some(major.with_context(|| format!("{version} says {:?}", text.trim()))?),
        });
    }
    if let Some(base) = member(from, "base") {
        compression(&base)?;
        return Ok(Backup {
            kind: BackupKind::Tars,
            bytes: size(from),
            major: None,
        });
    }
    bail!("{from} holds neither a data directory (PG_VERSION) nor base.tar, base.tar.gz or base.tar.zst")
}

/// A part of a backup in pg_basebackup's tar format.
pub fn member(directory: &Utf8Path, name: &str) -> Option<Utf8PathBuf> {
    ["tar", "tar.gz", "tar.zst"]
        .map(|suffix| directory.join(format!("{name}.{suffix}")))
        .into_iter()
        .find(|path| path.is_file())
}

/// How a tar file is compressed; an error if it is none.
pub fn compression(path: &Utf8Path) -> Result<Compression> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(512).read_to_end(&mut head))
        .with_context(|| format!("cannot read {path}"))?;
    if head.starts_with(&GZIP) {
        Ok(Compression::Gzip)
    } else if head.starts_with(&ZSTD) {
        Ok(Compression::Zstd)
    } else if head
        .get(MAGIC_AT..)
        .is_some_and(|rest| rest.starts_with(b"ustar"))
    {
        Ok(Compression::None)
    } else {
        bail!("{path} is no tar file, nor one that was compressed with gzip or zstd")
    }
}

/// What a directory takes, in bytes; what cannot be read counts as nothing.
fn size(directory: &Utf8Path) -> u64 {
    let Ok(entries) = directory.read_dir_utf8() else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(entry.path()),
            _ => entry.metadata().map_or(0, |meta| meta.len()),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_backup_is_said_to_be_none() {
        let directory = tempfile::tempdir().expect("directory");
        let directory = Utf8Path::from_path(directory.path()).expect("UTF-8");
        let why = |path: &Utf8Path| format!("{:#}", backup(path).expect_err("no backup"));
        assert!(why(&directory.join("gone")).contains("No such file"));
        assert!(why(directory).contains("neither a data directory"));
        let file = directory.join("recover-db.tgz");
        fs::write(&file, "a shopping list").expect("write");
        assert!(why(&file).contains("no tar file"));
        fs::write(&file, [0x1f, 0x8b, 8, 0]).expect("write");
        assert_eq!(backup(&file).expect("a gzip file").kind, BackupKind::Tar);
        fs::write(directory.join("PG_VERSION"), "15\n").expect("write");
        assert!(why(directory).contains("no whole data directory"));
        fs::create_dir(directory.join("global")).expect("directory");
        fs::write(directory.join("global/pg_control"), [0; 8192]).expect("write");
        let found = backup(directory).expect("a data directory");
        assert_eq!((found.kind, found.major), (BackupKind::Directory, Some(15)));
    }
}
