//! Users of the operating system: who we are, and whom the server and the application run as.

use std::ffi::CString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::files::Owner;

/// Everything that a process needs in order to become a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the supplementary ones included: without `ssl-cert`, for one, a server cannot read Debian's key.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

impl Identity {
    /// The user and group as a file's owner.
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// Whether the daemon itself is this user already.
    pub fn is_us(&self) -> bool {
        self.uid == effective_uid()
    }
}

/// The first directory on the way to `path` that this user may not enter, by its permission bits (access lists are not
/// read; a tool that is refused all the same says so itself).
pub fn closed_directory(path: &Utf8Path, identity: &Identity) -> Option<Utf8PathBuf> {
    let enters = |directory: &Utf8Path| {
        let Ok(meta) = std::fs::metadata(directory) else {
            return true;
        };
        let mode = meta.permissions().mode();
        let bit = if meta.uid() == identity.uid {
            0o100
        } else if identity.groups.contains(&meta.gid()) {
            0o010
        } else {
            0o001
        };
        identity.uid == 0 || mode & bit != 0
    };
    let mut ancestors: Vec<&Utf8Path> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|directory| !enters(directory))
        .map(Utf8Path::to_owned)
}

/// The daemon's own user id.
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}

/// Whether the daemon is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Looks a user up by name; `None`: there is no such user.
pub fn find(name: &str) -> Result<Option<Identity>> {
    let Some(user) = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))? else {
        return Ok(None);
    };
    Ok(Some(complete(user)))
}

/// The daemon's own user. A user without an entry in the user database (a container's arbitrary id) goes by number.
pub fn own() -> Identity {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) => complete(user),
        Ok(None) | Err(_) => Identity {
            name: uid.to_string(),
            uid: uid.as_raw(),
            gid: Gid::effective().as_raw(),
            groups: vec![Gid::effective().as_raw()],
            home: "/".to_owned(),
        },
    }
}

fn complete(user: User) -> Identity {
    let groups = CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .map_or_else(
            || vec![user.gid.as_raw()],
            |groups| groups.into_iter().map(Gid::as_raw).collect(),
        );
    Identity {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups,
        home: user.dir.to_string_lossy().into_owned(),
        name: user.name,
    }
}
