//! What `role: recovery` would restore from, as far as it can be told without unpacking it. Plain facts.

use std::fmt;

/// A backup that lies at `recovery: from:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// How it is kept.
    pub kind: BackupKind,
    /// What it takes as it lies there, in bytes; a compressed one takes more when it is unpacked.
    pub bytes: u64,
    /// PostgreSQL's major version, where it can be seen from outside.
    pub major: Option<u32>,
}

/// How a backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupKind {
    /// A data directory as it is: pg_basebackup's plain format, or a copy of one.
    Directory,
    /// A directory with `base.tar` and `pg_wal.tar`, compressed or not: pg_basebackup's tar format.
    Tars,
    /// One tar file of a data directory, compressed or not.
    Tar,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Tars => "tar format of pg_basebackup",
            Self::Tar => "tar file",
        })
    }
}
