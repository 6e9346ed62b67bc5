//! Gets a backup into the staging directory, as files of the server's user: by copying, or out of a tar. Nothing in a
//! backup leads out of the staging directory.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use tar::EntryType;
use tokio::sync::watch;

use crate::desired::Desired;
use crate::exec::Context;
use crate::hint::hinted;
use crate::observed::BackupKind;
use crate::plan::Restore;
use crate::probe::backup::{Compression, compression, member};
use crate::sys::files::{Owner, ensure_directory};
use crate::sys::users::Identity;

/// The suffix of what a tar is unpacked to; what has this name may be removed.
const UNPACKED: &str = "paceline-unpacked";
/// How far below the top of a tar its data directory may lie (`var/lib/postgresql/15/main`).
const DEPTH: usize = 6;
/// After so many bytes it is said again how far it has come.
const SAY_EVERY: u64 = 16 << 20;

/// Removes what an earlier attempt left.
pub(super) fn clear(desired: &Desired) -> Result<()> {
    let path = desired.beside_data(UNPACKED);
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove the unfinished {path}"))
        }
        _ => Ok(()),
    }
}

/// Where it comes from: the backup, or what is here.
pub(super) fn source(desired: &Desired, wanted: &Restore) -> Utf8PathBuf {
    match (&wanted.recovery.from, wanted.kind) {
        (Some(from), Some(_)) => from.clone(),
        _ => desired.postgres.data_directory.clone(),
    }
}

/// What a file or a directory takes, in bytes.
pub(super) fn size(path: &Utf8Path) -> Result<u64> {
    let look = || -> io::Result<u64> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_dir() {
            return Ok(meta.len());
        }
        let mut sum = 0;
        for entry in path.read_dir_utf8()? {
            sum += size(entry?.path()).map_err(io::Error::other)?;
        }
        Ok(sum)
    };
    look().with_context(|| format!("cannot look at {path}"))
}

/// Whether it takes more when it is unpacked.
pub(super) fn compressed(source: &Utf8Path, kind: Option<BackupKind>) -> Result<bool> {
    let file = match kind {
        Some(BackupKind::Tar) => Some(source.to_owned()),
        Some(BackupKind::Tars) => member(source, "base"),
        Some(BackupKind::Directory) | None => None,
    };
    let compression = file.map(|file| compression(&file)).transpose()?;
    Ok(compression.is_some_and(|compression| compression != Compression::None))
}

/// Fills the staging directory, which is not there yet.
pub(super) async fn fetch(
    context: &Context<'_>,
    wanted: &Restore,
    staging: &Utf8Path,
    user: &Identity,
) -> Result<()> {
    let job = Job {
        from: source(context.desired, wanted),
        kind: wanted.kind.unwrap_or(BackupKind::Directory),
        unpacked: context.desired.beside_data(UNPACKED),
        staging: staging.to_owned(),
        owner: user.owner(),
        progress: context.progress.clone(),
        done: 0,
        said: 0,
    };
    // Files in great number: the loop has a gate to watch meanwhile.
    tokio::task::spawn_blocking(move || job.run()).await?
}

struct Job {
    from: Utf8PathBuf,
    kind: BackupKind,
    unpacked: Utf8PathBuf,
    staging: Utf8PathBuf,
    owner: Owner,
    progress: watch::Sender<Option<String>>,
    /// Bytes so far, and when that was last said.
    done: u64,
    said: u64,
}

impl Job {
    fn run(mut self) -> Result<()> {
        let (from, staging) = (self.from.clone(), self.staging.clone());
        match self.kind {
            BackupKind::Directory => {
                ensure_directory(&staging, 0o700, None)?;
                self.copy(&from, &staging, true)?;
            }
            BackupKind::Tar => {
                let to = self.unpacked.clone();
                ensure_directory(&to, 0o700, None)?;
                self.extract(&from, &to)?;
                let root = data_directory(&to, &from)?;
                fs::rename(&root, &staging).with_context(|| format!("cannot rename {root} to {staging}"))?;
            }
            BackupKind::Tars => {
                ensure_directory(&staging, 0o700, None)?;
                let base =
                    member(&from, "base").with_context(|| format!("{from} has no base.tar any more"))?;
                self.extract(&base, &staging)?;
                if let Some(wal) = member(&from, "pg_wal") {
                    let to = staging.join("pg_wal");
                    ensure_directory(&to, 0o700, None)?;
                    self.extract(&wal, &to)?;
                }
            }
        }
        hand_over(&staging, self.owner)
    }

    fn copy(&mut self, from: &Utf8Path, to: &Utf8Path, top: bool) -> Result<()> {
        for entry in from
            .read_dir_utf8()
            .with_context(|| format!("cannot list {from}"))?
        {
            let entry = entry.with_context(|| format!("cannot list {from}"))?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let link = fs::symlink_metadata(source).with_context(|| format!("cannot look at {source}"))?;
            // A data directory's WAL may lie on another disk; any other link leads to what is not the backup's.
            let meta = if link.is_symlink() && top && entry.file_name() == "pg_wal" {
                fs::metadata(source).with_context(|| format!("cannot look at {source}"))?
            } else {
                link
            };
            if meta.is_dir() {
                fs::create_dir(&target).with_context(|| format!("cannot make {target}"))?;
                self.copy(source, &target, false)?;
            } else if meta.is_file() {
                let length =
                    fs::copy(source, &target).with_context(|| format!("cannot copy {source} to {target}"))?;
                self.count(length);
            } else if meta.is_symlink() {
                return Err(leads_out(source));
            }
        }
        Ok(())
    }

    fn extract(&mut self, file: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let open = || {
            File::open(file)
                .map(BufReader::new)
                .with_context(|| format!("cannot read {file}"))
        };
        match compression(file)? {
            Compression::None => self.entries(open()?, file, to),
            Compression::Gzip => self.entries(flate2::read::MultiGzDecoder::new(open()?), file, to),
            Compression::Zstd => {
                let decoder = zstd::Decoder::new(open()?).with_context(|| format!("cannot read {file}"))?;
                self.entries(decoder, file, to)
            }
        }
    }

    fn entries(&mut self, reader: impl Read, file: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let mut archive = tar::Archive::new(reader);
        let damaged = || format!("{file} cannot be read to its end: it is damaged, or not complete");
        for entry in archive.entries().with_context(damaged)? {
            let mut entry = entry.with_context(damaged)?;
            let path = entry.path().with_context(damaged)?.into_owned();
            let path = Utf8PathBuf::from_path_buf(path).map_err(|path| {
                anyhow::anyhow!("{file} has a file whose name is no UTF-8: {}", path.display())
            })?;
            let mut target = to.to_owned();
            for part in path.components() {
                match part {
                    Utf8Component::Normal(name) => target.push(name),
                    Utf8Component::CurDir => {}
                    Utf8Component::ParentDir | Utf8Component::RootDir | Utf8Component::Prefix(_) => {
                        return Err(leads_out(&path));
                    }
                }
            }
            match entry.header().entry_type() {
                EntryType::Directory => {
                    fs::create_dir_all(&target).with_context(|| format!("cannot make {target}"))?;
                }
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    if let Some(parent) = target.parent() {
                        fs::create_dir_all(parent).with_context(|| format!("cannot make {parent}"))?;
                    }
                    let mut out = File::create(&target).with_context(|| format!("cannot write {target}"))?;
                    let length = io::copy(&mut entry, &mut out)
                        .with_context(|| format!("cannot unpack {path} from {file}"))?;
                    self.count(length);
                }
                EntryType::Symlink | EntryType::Link => return Err(leads_out(&path)),
                // Sockets and the like: nothing of a database.
                _ => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.done += bytes;
        if self.done - self.said >= SAY_EVERY {
            self.said = self.done;
            self.progress
                .send_replace(Some(format!("{} MB of the backup are here", self.done >> 20)));
        }
    }
}

fn leads_out(path: &Utf8Path) -> anyhow::Error {
    hinted(
        format!("{path} in the backup is a link, or leads out of it"),
        "unpack it by hand, with PostgreSQL's own advice at hand, and let Paceline restore the directory",
    )
}

/// The one data directory in what was unpacked.
fn data_directory(unpacked: &Utf8Path, file: &Utf8Path) -> Result<Utf8PathBuf> {
    let mut found = Vec::new();
    find(unpacked, DEPTH, &mut found)?;
    match found.as_slice() {
        [root] => Ok(root.clone()),
        [] => bail!("{file} holds no data directory (one with PG_VERSION and global/pg_control)"),
        several => bail!(
            "{file} holds {} data directories; which one is meant?",
            several.len()
        ),
    }
}

fn find(directory: &Utf8Path, depth: usize, found: &mut Vec<Utf8PathBuf>) -> Result<()> {
    if directory.join("PG_VERSION").is_file() && directory.join("global/pg_control").is_file() {
        found.push(directory.to_owned());
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in directory
        .read_dir_utf8()
        .with_context(|| format!("cannot list {directory}"))?
    {
        let entry = entry.with_context(|| format!("cannot list {directory}"))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

/// Gives everything to the server's user, open to nobody else.
fn hand_over(path: &Utf8Path, owner: Owner) -> Result<()> {
    let give = || -> io::Result<bool> {
        let directory = fs::symlink_metadata(path)?.is_dir();
        let mode = if directory { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if crate::sys::users::is_root() {
            std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(directory)
    };
    if give().with_context(|| format!("cannot give {path} to the server's user"))? {
        for entry in path
            .read_dir_utf8()
            .with_context(|| format!("cannot list {path}"))?
        {
            hand_over(
                entry.with_context(|| format!("cannot list {path}"))?.path(),
                owner,
            )?;
        }
    }
    Ok(())
}
