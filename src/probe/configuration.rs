//! The configuration files in `home`, and what stays in force of an adopted cluster's own.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;

use crate::desired::Desired;
use crate::lineage::{Origin, Sidecar};
use crate::observed::{Configuration, Purged, Refused};
use crate::sys::users::{self, Identity};

/// How long people are shown what was taken out of `postgresql.auto.conf`.
const SHOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// Debian's socket directory, where programs look that are told nothing else.
const SYSTEM_SOCKETS: &str = "/var/run/postgresql";

/// Reads the files.
pub(super) fn look(desired: &Desired, sidecar: Option<&Sidecar>, server: &Identity) -> Result<Configuration> {
    let directory = desired.conf_directory();
    let own = match sidecar.map(|sidecar| &sidecar.origin) {
        Some(Origin::Adopted(own)) => Some(own),
        Some(Origin::Created) | None => None,
    };
    // Whoever may write the sidecar names these files; it must not be a way to read root's.
    let adopted = |path: Option<&Utf8Path>| {
        users::in_guise_of(server, || path.map(read).transpose().map(Option::flatten))
    };
    Ok(Configuration {
        postgresql_conf: read(&directory.join("postgresql.conf"))?,
        pg_hba: read(&directory.join("pg_hba.conf"))?,
        pg_ident: read(&directory.join("pg_ident.conf"))?,
        adopted_hba: adopted(own.and_then(|own| own.hba_file.as_deref()))?,
        adopted_ident: adopted(own.and_then(|own| own.ident_file.as_deref()))?,
        time_zone: jiff::tz::TimeZone::system().iana_name().map(ToOwned::to_owned),
        system_socket_directory: system_sockets(server),
        // Both are only notes: one that cannot be read is as good as none.
        refused: note(&directory.join(Refused::FILE)),
        purged: note(&directory.join(Purged::FILE)).filter(|_| {
            let made = std::fs::metadata(directory.join(Purged::FILE)).and_then(|meta| meta.modified());
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < SHOWN))
        }),
    })
}

fn note<T: DeserializeOwned>(path: &Utf8Path) -> Option<T> {
    serde_json::from_str(&read(path).ok()??).ok()
}

fn read(path: &Utf8Path) -> Result<Option<String>> {
    crate::sys::files::read_if_there(path).with_context(|| format!("cannot read {path}"))
}

/// A system-wide installation (the daemon is root) also serves the system's own socket directory, if it is the
/// server's user's.
fn system_sockets(server: &Identity) -> Option<Utf8PathBuf> {
    let usable =
        users::is_root() && std::fs::metadata(SYSTEM_SOCKETS).is_ok_and(|meta| meta.uid() == server.uid);
    usable.then(|| Utf8PathBuf::from(SYSTEM_SOCKETS))
}
