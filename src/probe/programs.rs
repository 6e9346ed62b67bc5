//! The PostgreSQL programs on this laptop.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::observed::Installation;
use crate::supervise::tool;
use crate::sys::users::Identity;

/// Versions found before, by program file and its modification time.
#[derive(Debug, Default)]
pub struct Cache {
    versions: HashMap<(Utf8PathBuf, i64, u64), Option<(u32, String)>>,
}

impl Cache {
    /// The programs in the declared directory, or everywhere that packages put them. Each major version once, the
    /// first place found.
    pub(super) async fn look(
        &mut self,
        declared: Option<&Utf8Path>,
        identity: &Identity,
    ) -> Vec<Installation> {
        let mut found: Vec<Installation> = Vec::new();
        for bin_directory in declared.map_or_else(places, |declared| vec![declared.to_owned()]) {
            let program = bin_directory.join("postgres");
            let Ok(meta) = fs::metadata(&program) else {
                continue;
            };
            let key = (program.clone(), meta.mtime(), meta.ino());
            let version = match self.versions.get(&key) {
                Some(version) => version.clone(),
                None => {
                    // Of the same package, and loaded in a third of the time.
                    let asked = bin_directory.join("pg_controldata");
                    let version = tool::run(&asked, &["--version"], identity, Duration::from_secs(10)).await;
                    let version = version.ok().as_deref().and_then(parse);
                    self.versions.insert(key, version.clone());
                    version
                }
            };
            if let Some((major, version)) = version
                && !found.iter().any(|installation| installation.major == major)
            {
                found.push(Installation {
                    bin_directory,
                    major,
                    version,
                });
            }
        }
        found
    }
}

/// `pg_controldata (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15, "15.18"
fn parse(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    Some((version[..digits].parse().ok()?, version.to_owned()))
}

fn places() -> Vec<Utf8PathBuf> {
    let mut places = Vec::new();
    // Debian: /usr/lib/postgresql/15/bin; Red Hat: /usr/pgsql-15/bin
    for (parent, prefix, suffix) in [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")] {
        let Ok(entries) = fs::read_dir(parent) else {
            continue;
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.retain(|name| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        });
        names.sort();
        places.extend(
            names
                .into_iter()
                .map(|name| Utf8Path::new(parent).join(name).join(suffix)),
        );
    }
    places.push("/usr/local/pgsql/bin".into());
    // A `postgres` on the search path; where a link leads, the other programs are too.
    let path = std::env::var("PATH").unwrap_or_default();
    for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
        if let Ok(real) = Utf8Path::new(directory).join("postgres").canonicalize_utf8()
            && let Some(parent) = real.parent()
        {
            places.push(parent.to_owned());
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions() {
        let parsed = |text| parse(text).map(|(major, _)| major);
        assert_eq!(
            parsed("pg_controldata (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(parsed("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(parsed("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parsed("something else"), None);
    }
}
