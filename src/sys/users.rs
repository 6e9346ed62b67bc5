//! Users of the operating system: who we are, and whom the server and the application run as.

use std::ffi::CString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{Gid, Uid, User, getgrouplist, setfsgid, setfsuid};

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

/// Does something with another user's rights on files and in `/proc`; only root can, for others nothing changes.
///
/// For root in a container, which may lack the capability to look at another user's processes (CAP_SYS_PTRACE) but not
/// the right to be that user; and for reading files that the user names, who must not get to read root's through us.
/// `look` must not wait: it holds for the whole thread.
pub fn in_guise_of<T>(identity: &Identity, look: impl FnOnce() -> T) -> T {
    struct Guise;
    impl Drop for Guise {
        fn drop(&mut self) {
            setfsuid(Uid::effective());
            setfsgid(Gid::effective());
        }
    }
    if !is_root() || identity.uid == 0 {
        return look();
    }
    let _guise = Guise;
    // The group first: without root's uid it may no longer be changed.
    setfsgid(Gid::from_raw(identity.gid));
    setfsuid(Uid::from_raw(identity.uid));
    look()
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
