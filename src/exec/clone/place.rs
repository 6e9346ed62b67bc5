//! How a finished copy becomes the data directory, and what was there is set aside, so that a crash at any point neither
//! lets a half-made copy be trusted nor loses what was there.
//!
//! Three names beside the data directory play a part:
//!
//! - `….paceline-clone`: unfinished, removed at the next attempt. Nothing that was ever somebody's data gets this name.
//! - `….paceline-verified`: a finished copy before the exchange, the old data after it. Never removed, only set aside.
//! - `….paceline-tainted`: while it exists nobody trusts the data directory. It holds the [`Journal`], by which a later
//!   attempt knows which of two directories is which, and which sidecar belongs to it.

use std::fs;
use std::io;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::desired::Desired;
use crate::digest::digest;
use crate::exec::epoch::write_sidecar;
use crate::lineage::Sidecar;
use crate::probe::{TAINT_SUFFIX, sidecar_path};
use crate::sys::files::{self, name_while_exchanged, sync_parent, write_durably};

/// The suffix of an unfinished copy.
const STAGING: &str = "paceline-clone";
/// The file in a restored copy that tells it from every other one. A server minds it as little as a clone of it does.
pub(in crate::exec) const RESTORE_LABEL: &str = "paceline_restored";
/// The suffix of the other side of an exchange.
const VERIFIED: &str = "paceline-verified";

/// An exchange that was begun, as the taint marker tells it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// For people.
    what: String,
    /// Digest of the copy's `backup_label`, by which it is told from the old data: as long as the marker exists, no
    /// server runs that could remove it.
    copy: String,
    /// Where the old data goes.
    set_aside: Utf8PathBuf,
}

/// The names.
pub(in crate::exec) struct Place<'a> {
    data: &'a Utf8Path,
    pub(in crate::exec) staging: Utf8PathBuf,
    verified: Utf8PathBuf,
    marker: Utf8PathBuf,
}

impl<'a> Place<'a> {
    pub(in crate::exec) fn of(desired: &'a Desired) -> Self {
        Self {
            data: &desired.postgres.data_directory,
            staging: desired.beside_data(STAGING),
            verified: desired.beside_data(VERIFIED),
            marker: desired.beside_data(TAINT_SUFFIX),
        }
    }

    /// Removes what an earlier attempt left unfinished.
    pub(in crate::exec) fn remove_staging(&self) -> Result<()> {
        match fs::remove_dir_all(&self.staging) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("cannot remove the unfinished {}", self.staging))
            }
            _ => Ok(()),
        }
    }

    /// Puts the finished copy in the place of the data directory; what is there is set aside, and its new name given.
    ///
    /// Nothing here waits, so that nobody can give it up halfway.
    pub(in crate::exec) fn take(&self, sidecar: &Sidecar) -> Result<Option<Utf8PathBuf>> {
        self.clear_up()?;
        if empty(self.data)? {
            // Beside nothing yet the sidecar is void; a crash here leaves no harm.
            write_sidecar(self.data, sidecar)?;
            // Onto a missing or empty directory; one that got content meanwhile makes this fail.
            rename(&self.staging, self.data)?;
            self.sync()?;
            return Ok(None);
        }
        let tainted = exists(&self.marker)?;
        let journal = self.begin(sidecar)?;
        if let Err(error) = files::exchange(self.data, &self.verified) {
            self.undo(&journal, tainted);
            return Err(error)
                .with_context(|| format!("cannot exchange {} and {}", self.data, self.verified));
        }
        self.sync()?;
        self.clear_up()?;
        Ok(Some(journal.set_aside))
    }

    /// From here on the data directory is trusted, after a power cut too.
    pub(in crate::exec) fn trust(&self) -> Result<()> {
        match fs::remove_file(&self.marker) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.with_context(|| format!("cannot remove {}", self.marker))?,
        }
        self.sync()
    }

    /// Everything up to the exchange: with the journal on disk.
    fn begin(&self, sidecar: &Sidecar) -> Result<Journal> {
        let set_aside = free_name(self.data)?;
        let journal = Journal {
            what: format!(
                "Paceline is replacing the database in {} by another copy of it. Until that is done, nothing \
                 is started here. What was there is never removed: it goes to {set_aside}.",
                self.data
            ),
            copy: label(&self.staging)?
                .with_context(|| format!("{} has nothing that tells it from others", self.staging))?,
            set_aside,
        };
        write_sidecar(&self.verified, sidecar)?;
        rename(&self.staging, &self.verified)?;
        let written = self.sync().and_then(|()| {
            let text = serde_json::to_vec_pretty(&journal)?;
            // Of an earlier attempt, or of a rewind: it goes on to say the same.
            write_durably(&self.marker, &text, 0o644, None)
        });
        if written.is_err() {
            // Unfinished again, so that it is removed and not set aside.
            drop(fs::rename(&self.verified, &self.staging));
        }
        written.map(|()| journal)
    }

    /// After an exchange that failed: if the data directory is what it was, it is trusted as much as it was.
    fn undo(&self, journal: &Journal, tainted: bool) {
        let copy = Some(&journal.copy);
        let old = exists(self.data).unwrap_or(false)
            && label(self.data).is_ok_and(|label| label.as_ref() != copy)
            && label(&self.verified).is_ok_and(|label| label.as_ref() == copy);
        if old && fs::rename(&self.verified, &self.staging).is_ok() && !tainted {
            drop(self.trust());
        }
    }

    /// Brings a begun exchange to an end, and sets aside whatever else lies under the names of one. Where everything is
    /// in its place, nothing happens.
    fn clear_up(&self) -> Result<()> {
        let journal = self.journal()?;
        let data_sidecar = sidecar_path(self.data);
        let copy_sidecar = sidecar_path(&self.verified);
        for there in [name_while_exchanged(&self.verified), self.verified.clone()] {
            if !exists(&there)? {
                continue;
            }
            let is_copy =
                |journal: &Journal| Ok::<_, anyhow::Error>(label(&there)?.as_ref() == Some(&journal.copy));
            let (set_aside, sidecar) = match &journal {
                Some(journal) if !is_copy(journal)? => (journal.set_aside.clone(), Some(&data_sidecar)),
                Some(_) if there == self.verified => (free_name(self.data)?, Some(&copy_sidecar)),
                // Without the journal nobody can tell; better no sidecar than a wrong one.
                _ => (free_name(self.data)?, None),
            };
            let set_aside = if exists(&set_aside)? {
                free_name(self.data)?
            } else {
                set_aside
            };
            // The sidecar first: a crash in between leaves the directory, and so this is done again.
            let goes_to = sidecar_path(&set_aside);
            if let Some(sidecar) = sidecar
                && exists(sidecar)?
                && !exists(&goes_to)?
            {
                rename(sidecar, &goes_to)?;
            }
            rename(&there, &set_aside)?;
            self.sync()?;
            tracing::info!(from = %there, to = %set_aside, "set aside; nothing of it was removed");
        }
        if exists(&copy_sidecar)? {
            // Of the copy that is in its place now, or of one that nobody knows any more.
            match &journal {
                Some(journal) if label(self.data)?.as_ref() == Some(&journal.copy) => {
                    rename(&copy_sidecar, &data_sidecar)?;
                }
                _ => {
                    fs::remove_file(&copy_sidecar)
                        .with_context(|| format!("cannot remove {copy_sidecar}"))?;
                }
            }
            self.sync()?;
        }
        Ok(())
    }

    /// The marker's journal; `None`: there is no marker, or one of a rewind or restore.
    fn journal(&self) -> Result<Option<Journal>> {
        let text = files::read_if_there(&self.marker)
            .with_context(|| format!("cannot read {}", self.marker))?
            .unwrap_or_default();
        Ok(serde_json::from_str(&text).ok())
    }

    fn sync(&self) -> Result<()> {
        sync_parent(self.data).with_context(|| format!("cannot make the names beside {} durable", self.data))
    }
}

/// A name for what is set aside now beside the data directory: neither it nor its sidecar is taken.
pub(in crate::exec) fn free_name(data: &Utf8Path) -> Result<Utf8PathBuf> {
    let stamp = crate::sys::clock::compact_timestamp();
    let mut name = crate::desired::beside(data, &format!("set-aside-{stamp}"));
    let mut count = 1;
    while exists(&name)? || exists(&sidecar_path(&name))? {
        count += 1;
        name = crate::desired::beside(data, &format!("set-aside-{stamp}-{count}"));
    }
    Ok(name)
}

/// A digest of what tells a copy from others: the `backup_label` of a clone, the [`RESTORE_LABEL`] of a restored one;
/// `None`: it has neither.
fn label(directory: &Utf8Path) -> Result<Option<String>> {
    for name in ["backup_label", RESTORE_LABEL] {
        let path = directory.join(name);
        let text = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))?;
        if let Some(text) = text {
            return Ok(Some(digest(&[&text])));
        }
    }
    Ok(None)
}

fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {from} to {to}"))
}

fn exists(path: &Utf8Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("cannot look for {path}")),
    }
}

fn empty(path: &Utf8Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e).with_context(|| format!("cannot look into {path}")),
    }
}
