//! The state file with another role: replaced in one step, through links, and only if nobody else changed it meanwhile.
//!
//! What changes in the text is [`super::edit`]'s business. A file that cannot be replaced (mounted by itself, a closed
//! directory) is written over, as an editor would do it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use camino::Utf8Path;

use super::chain::is_mount_point;
use super::edit::{self, Both, Edited, NotEdited};
use super::model::{Desired, Role};
use super::source::{LoadError, interpret, read};
use super::validate::Surroundings;
use crate::hint::hinted;
use crate::sys::replace;

/// What came of asking for another role.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// Which key says it: `role`, or `nodes.alpha.role` in a profile of both laptops.
    pub key: String,
    /// The role before. If it was the wanted one already, the file was not touched.
    pub before: Role,
    /// What the file declares now.
    pub desired: Desired,
    /// Why the file could not be replaced in one step and was written over; `None`: it was replaced.
    pub written_over: Option<String>,
}

/// Declares another role for this laptop in its state file.
pub fn set_role(surroundings: &Surroundings, role: Role) -> Result<Rewritten> {
    let path = &surroundings.path;
    let (old, text) = read_text(surroundings)?;
    let edited = edit::set_role(&text, surroundings, role).map_err(|error| explain(error, path, role))?;
    let written_over = if edited.before == role {
        None
    } else {
        exchange(path, &old, edited.text.as_bytes())?
    };
    Ok(Rewritten {
        key: edited.key,
        before: edited.before,
        desired: edited.desired,
        written_over,
    })
}

/// What came of asking for other roles of both laptops.
#[derive(Clone, Debug, PartialEq)]
pub struct RewrittenBoth {
    /// This laptop's edit.
    pub own: Edited,
    /// The other one's.
    pub other: Edited,
    /// Why the file could not be replaced in one step and was written over; `None`: it was replaced, or not touched.
    pub written_over: Option<String>,
}

/// Reads the roles of both laptops in a profile; `None`: the file declares this laptop only.
pub fn both(surroundings: &Surroundings) -> Result<Option<Both>> {
    let (_, text) = read_text(surroundings)?;
    edit::both(&text, surroundings).map_err(|error| explain(error, &surroundings.path, Role::Primary))
}

/// Declares these roles for both laptops of a profile, in one step; `None`: the file declares this laptop only.
pub fn set_both(surroundings: &Surroundings, own: Role, theirs: Role) -> Result<Option<RewrittenBoth>> {
    let path = &surroundings.path;
    let (old, text) = read_text(surroundings)?;
    let edited = edit::set_both(&text, surroundings, own, theirs);
    let Some(edited) = edited.map_err(|(error, role)| explain(error, path, role))? else {
        return Ok(None);
    };
    let written_over = if edited.text == text {
        None
    } else {
        exchange(path, &old, edited.text.as_bytes())?
    };
    Ok(Some(RewrittenBoth {
        own: edited.own,
        other: edited.other,
        written_over,
    }))
}

/// The file's bytes, and the same as text.
fn read_text(surroundings: &Surroundings) -> Result<(Vec<u8>, String)> {
    let path = &surroundings.path;
    let old = read(path)?;
    // Also says it if the file is no text at all.
    interpret(&old, surroundings)?;
    let text = String::from_utf8(old.clone()).with_context(|| format!("{path} is not UTF-8 text"))?;
    Ok((old, text))
}

fn explain(error: NotEdited, path: &Utf8Path, role: Role) -> anyhow::Error {
    match error {
        NotEdited::Invalid(diagnostics) => LoadError::Invalid {
            path: path.to_owned(),
            diagnostics,
        }
        .into(),
        NotEdited::WouldBeInvalid(diagnostics) => anyhow::Error::from(LoadError::Invalid {
            path: path.to_owned(),
            diagnostics,
        })
        .context(format!(
            "nothing was changed: with the role {role} the file would not be valid"
        )),
        NotEdited::Unusual { line, why } => hinted(
            format!("{path}:{line}: the role cannot be changed for you: {why}; nothing was changed"),
            format!("write `role: {role}` there with an editor"),
        ),
    }
}

/// Puts `new` where `old` is. Gives the reason if the file was written over instead of replaced.
fn exchange(path: &Utf8Path, old: &[u8], new: &[u8]) -> Result<Option<String>> {
    let fail = |error: &dyn std::fmt::Display| {
        hinted(
            format!("cannot write {path}: {error}; the file is as it was"),
            "run this as the user whom the file belongs to (as root: with sudo), or change the word with an editor",
        )
    };
    // A link stays a link: its target is what is replaced.
    let target = path.canonicalize_utf8().map_err(|error| fail(&error))?;
    let still = || {
        path.canonicalize_utf8().is_ok_and(|now| now == target) && read(&target).is_ok_and(|now| now == old)
    };
    let overtaken = || {
        hinted(
            format!("{path} was changed by somebody else at this moment; nothing was changed here"),
            "look at the file, and run this again if it is still what you want",
        )
    };
    let why = match obstacle(&target) {
        Some(why) => why,
        None => match replace::replace(&target, new, still) {
            Ok(true) => return Ok(None),
            Ok(false) => return Err(overtaken()),
            Err(error) if is_obstacle(&error) => format!("it cannot be replaced ({error})"),
            Err(error) => return Err(fail(&error)),
        },
    };
    if !still() {
        return Err(overtaken());
    }
    if let Err(error) = replace::write_over(&target, new) {
        // Where the disk is full, a part of it may be written; what was there fits.
        return Err(match replace::write_over(&target, old) {
            Ok(()) => fail(&error),
            Err(_) if still() => fail(&error),
            Err(_) => hinted(
                format!("cannot write {path}: {error}; it may be damaged now"),
                "check it with `paceline check`; until it is valid, the daemon keeps to what it declared before",
            ),
        });
    }
    Ok(Some(why))
}

/// What is known beforehand to keep a file from being replaced.
fn obstacle(target: &Utf8Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if is_mount_point(&mounts, target.as_str()) {
        return Some("it is mounted into this place by itself".to_owned());
    }
    let names = fs::metadata(target).map_or(1, |meta| meta.nlink());
    (names > 1).then(|| format!("it has {names} names (hard links), which are to stay the same file"))
}

/// Whether writing over may work where replacing failed: a file mounted by itself, a directory in which nothing can be
/// made, another owner whom only root could give the new file to.
fn is_obstacle(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ResourceBusy};
    matches!(error.kind(), PermissionDenied | ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    #[test]
    fn a_file_that_somebody_else_changed_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(directory.path().join("state.yaml")).unwrap();
        fs::write(&path, "role: primary\n").unwrap();
        let error = exchange(&path, b"role: standby\n", b"role: failover\n").unwrap_err();
        assert!(error.to_string().contains("by somebody else"), "{error}");
        // The same where it can only be written over.
        fs::hard_link(&path, path.with_file_name("other")).unwrap();
        let error = exchange(&path, b"role: standby\n", b"role: failover\n").unwrap_err();
        assert!(error.to_string().contains("by somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "role: primary\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
