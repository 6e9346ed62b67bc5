//! The taint marker of a rewind: while it lies beside the data directory, nobody trusts what is in there, and it is copied
//! anew. A crash at any point leaves either the marker or a copy that is whole.

use std::fs;
use std::io;

use anyhow::{Context as _, Result};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::desired::Desired;
use crate::probe::TAINT_SUFFIX;
use crate::sys::files::{self, sync_parent, write_durably};

/// How far a rewind has come, as its marker tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The crashed copy is being recovered.
    Recovering,
    /// pg_rewind cannot do it; nothing was changed.
    GivenUp,
    /// pg_rewind changes the copy.
    Changing,
}

/// The marker. It has other fields than that of a copy's exchange, by which the two are told apart.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// For people.
    what: String,
    /// How far it has come.
    pub(super) rewind: Phase,
    /// Where that is kept which only this copy had.
    pub(super) kept: Option<Utf8PathBuf>,
}

/// Puts the marker in its place, or says more in it.
pub(super) fn mark(desired: &Desired, rewind: Phase, kept: Option<Utf8PathBuf>) -> Result<()> {
    let data = &desired.postgres.data_directory;
    let what = match rewind {
        Phase::Recovering => format!(
            "Paceline is recovering the crashed database in {data}, to bring it onto the other laptop's history."
        ),
        Phase::GivenUp => format!(
            "The database in {data} cannot be brought onto the other laptop's history. It is whole; it is set aside when \
             a new copy of the other laptop's is complete."
        ),
        Phase::Changing => format!(
            "Paceline is bringing the database in {data} onto the other laptop's history. What is there now is neither \
             the one nor the other."
        ),
    };
    let marker = Marker {
        what: format!("{what} Until that is done, nothing is started here."),
        rewind,
        kept,
    };
    let path = desired.beside_data(TAINT_SUFFIX);
    write_durably(&path, &serde_json::to_vec_pretty(&marker)?, 0o644, None)
}

/// Takes the marker away: from here on the copy is trusted, after a power cut too.
pub(super) fn unmark(desired: &Desired) -> Result<()> {
    let path = desired.beside_data(TAINT_SUFFIX);
    match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.with_context(|| format!("cannot remove {path}"))?,
    }
    sync_parent(&path).with_context(|| format!("cannot make the removal of {path} durable"))
}

/// The marker of a rewind that was begun; `None`: there is none, or it is another's.
pub(super) fn read(desired: &Desired) -> Result<Option<Marker>> {
    let path = desired.beside_data(TAINT_SUFFIX);
    let text = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
