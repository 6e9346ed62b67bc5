//! The data directory and what lies beside it, as files.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use super::control;
use crate::desired::{Desired, beside};
use crate::lineage::{OwnConfiguration, Sidecar};
use crate::observed::{Cluster, DataDirectory, Fact, Installation};
use crate::plan::configuration::HEADER;
use crate::sys::files;
use crate::sys::users::Identity;

/// The marker beside a data directory whose rewind or restore was begun and not finished.
pub(crate) const TAINT_SUFFIX: &str = "paceline-tainted";

/// Looks at the data directory.
pub(super) async fn look(
    desired: &Desired,
    installations: &[Installation],
    controls: &mut control::Cache,
    identity: &Identity,
    thorough: bool,
) -> Result<DataDirectory> {
    let path = &desired.postgres.data_directory;
    if let Ok(target) = fs::read_link(path) {
        return Ok(DataDirectory::NotOurs(format!(
            "it is a symbolic link to {}, and Paceline must be able to rename it; name that place itself",
            target.display()
        )));
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(DataDirectory::Empty { mount_point: false });
        }
        Err(e) => return Err(e).with_context(|| format!("cannot look at {path}")),
    };
    if !meta.is_dir() {
        return Ok(DataDirectory::NotOurs("it is a file".to_owned()));
    }
    let mount_point = files::is_mount_point(path)
        .with_context(|| format!("cannot tell whether {path} is a mount point"))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {path}"))? {
        names.push(
            entry
                .with_context(|| format!("cannot list {path}"))?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    // The root of a file system of its own is empty but for this.
    if names.is_empty() || mount_point && names == ["lost+found"] {
        return Ok(DataDirectory::Empty { mount_point });
    }
    let has = |name: &str| there(&path.join(name));
    if !has("PG_VERSION")? && !has("global/pg_control")? {
        let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        let more = if names.len() > 3 { " …" } else { "" };
        return Ok(DataDirectory::NotOurs(format!(
            "it holds {}{more}",
            shown.join(", ")
        )));
    }
    let version = fs::read_to_string(path.join("PG_VERSION"))
        .with_context(|| format!("cannot read {path}/PG_VERSION"))?;
    let major = version.trim().parse().with_context(|| {
        format!(
            "{path}/PG_VERSION says {:?}, which is no major version (12 or newer)",
            version.trim()
        )
    })?;
    let control = match installations
        .iter()
        .find(|installation| installation.major == major)
    {
        Some(installation) => Fact::from(
            controls
                .read(path, &installation.bin_directory, identity, thorough)
                .await,
        ),
        None => Fact::Unknown(format!("the programs of PostgreSQL {major} were not found")),
    };
    Ok(DataDirectory::Cluster(Box::new(Cluster {
        major,
        control,
        standby_signal: has("standby.signal")?,
        recovery_signal: has("recovery.signal")?,
        backup_label: has("backup_label")?,
        tainted: there(&beside(path, TAINT_SUFFIX))?,
        owner_uid: meta.uid(),
        mode: meta.permissions().mode() & 0o7777,
        mount_point,
        sidecar: Fact::from(read_sidecar(path)),
        auto_conf_names: auto_conf_names(path)?,
    })))
}

fn there(path: &Utf8Path) -> Result<bool> {
    path.try_exists()
        .with_context(|| format!("cannot look for {path}"))
}

/// Where the sidecar of a data directory lies.
pub fn sidecar_path(data_directory: &Utf8Path) -> Utf8PathBuf {
    beside(data_directory, Sidecar::SUFFIX)
}

/// Reads the sidecar of a data directory. One that cannot be understood is an error, never "there is none".
pub fn read_sidecar(data_directory: &Utf8Path) -> Result<Option<Sidecar>> {
    let path = sidecar_path(data_directory);
    let Some(text) = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))? else {
        return Ok(None);
    };
    // The format number is read first: a newer file may have another shape.
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| {
        format!("{path} is damaged; move it away and Paceline makes it again from the database")
    })?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format <= u64::from(Sidecar::FORMAT) => {}
        format => bail!("{path} has format {format:?}: it was written by a newer Paceline; use that version"),
    }
    let sidecar = serde_json::from_value(value).with_context(|| {
        format!("{path} is damaged; move it away and Paceline makes it again from the database")
    })?;
    Ok(Some(sidecar))
}

/// The names that `postgresql.auto.conf` sets.
fn auto_conf_names(data_directory: &Utf8Path) -> Result<Vec<String>> {
    let path = data_directory.join("postgresql.auto.conf");
    let text = files::read_if_there(&path)
        .with_context(|| format!("cannot read {path}"))?
        .unwrap_or_default();
    let mut names: Vec<String> = text.lines().filter_map(setting_name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The name that a line of a PostgreSQL configuration file sets, in lower case.
pub fn setting_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')))
        .unwrap_or(line.len());
    let name = &line[..end];
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        .then(|| name.to_ascii_lowercase())
}

/// Finds the own configuration files of a cluster that Paceline did not make: where its last start had them (which
/// `postmaster.opts` remembers), else in Debian's place, else in the data directory. A file elsewhere counts only if it
/// is about this very directory.
pub fn own_configuration(data_directory: &Utf8Path) -> Result<OwnConfiguration> {
    let opts = data_directory.join("postmaster.opts");
    let opts = files::read_if_there(&opts)
        .with_context(|| format!("cannot read {opts}"))?
        .unwrap_or_default();
    // A line of quoted arguments: "-D" "/data" "-c" "config_file=/etc/postgresql/15/main/postgresql.conf"
    let words: Vec<&str> = opts.split('"').filter(|word| !word.trim().is_empty()).collect();
    let started_here = words
        .iter()
        .any(|word| same_place(Utf8Path::new(word), data_directory));
    let mut candidates: Vec<Utf8PathBuf> = words
        .iter()
        .filter_map(|word| word.strip_prefix("config_file="))
        .map(Utf8PathBuf::from)
        .collect();
    if let [.., version, name] = data_directory
        .components()
        .map(|c| c.as_str())
        .collect::<Vec<_>>()
        .as_slice()
    {
        candidates.push(Utf8PathBuf::from(format!(
            "/etc/postgresql/{version}/{name}/postgresql.conf"
        )));
    }
    candidates.push(data_directory.join("postgresql.conf"));
    for candidate in candidates {
        let Some(text) = files::read_if_there(&candidate)
            .with_context(|| format!("cannot read the cluster's own configuration {candidate}"))?
        else {
            continue;
        };
        let about_here = match last_value(&text, "data_directory") {
            Some(declared) => same_place(&candidate.with_file_name(declared), data_directory),
            None => started_here || candidate.starts_with(data_directory),
        };
        // A configuration of ours is not its own.
        if !about_here || text.starts_with(HEADER) {
            continue;
        }
        let named = |name: &str, usual: &str| {
            let declared = last_value(&text, name).map(|value| candidate.with_file_name(value));
            declared
                .or_else(|| Some(candidate.with_file_name(usual)))
                .filter(|path| path.exists())
        };
        return Ok(OwnConfiguration {
            hba_file: named("hba_file", "pg_hba.conf"),
            ident_file: named("ident_file", "pg_ident.conf"),
            config_file: Some(candidate),
        });
    }
    Ok(OwnConfiguration {
        config_file: None,
        hba_file: None,
        ident_file: None,
    })
}

fn same_place(one: &Utf8Path, other: &Utf8Path) -> bool {
    one == other
        || matches!((one.canonicalize_utf8(), other.canonicalize_utf8()), (Ok(one), Ok(other)) if one == other)
}

/// The value that a configuration file gives a setting, includes not followed.
fn last_value(text: &str, name: &str) -> Option<String> {
    let line = text
        .lines()
        .rfind(|line| setting_name(line).as_deref() == Some(name))?;
    let value = line
        .trim_start()
        .get(name.len()..)?
        .trim_start()
        .trim_start_matches('=')
        .trim_start();
    Some(match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next()?.to_owned(),
        None => value.split([' ', '\t', '#']).next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_names_are_read_as_postgresql_reads_them() {
        for (line, name) in [
            ("port = 5432", Some("port")),
            ("  Primary_ConnInfo='host=x'", Some("primary_conninfo")),
            ("port 5432", Some("port")),
            ("my.setting = 'x'", Some("my.setting")),
            ("# port = 1", None),
            ("", None),
        ] {
            assert_eq!(setting_name(line).as_deref(), name, "{line:?}");
        }
        assert_eq!(
            last_value("hba_file = '/etc/a'\t# comment\n", "hba_file").as_deref(),
            Some("/etc/a")
        );
        assert_eq!(
            last_value("hba_file = 'a'\nhba_file=b # c", "hba_file").as_deref(),
            Some("b")
        );
    }
}
