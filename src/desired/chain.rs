//! The way from the root directory to the state file: which directories have to be watched to notice that another
//! content is found at its end, and which names in them matter.
//!
//! A path can lead over symbolic links (`..data` of a mounted configuration), and any part of it can be missing. Reads
//! the file system and remembers nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Device and inode of a directory: a directory that was removed and made again is another one under the same name.
pub type Identity = (u64, u64);

/// What lies on the way to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The directories in which a change could lead to another content.
    pub directories: BTreeMap<PathBuf, Identity>,
    /// Every name that was passed, as a full path: an event about any other name is none of our business.
    pub names: BTreeSet<PathBuf>,
}

impl Chain {
    /// Follows an absolute path as far as it goes.
    pub fn follow(path: &Path) -> Self {
        let mut chain = Self::default();
        let mut here = PathBuf::from("/");
        let mut ahead = parts(path);
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            let next = here.join(&name);
            chain.names.insert(next.clone());
            match next.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    chain.watch(&here);
                    links += 1;
                    let Ok(target) = next.read_link() else { break };
                    if links > MAX_LINKS {
                        break;
                    }
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        ahead.push_front(part);
                    }
                }
                Ok(metadata) if metadata.is_dir() && !ahead.is_empty() => here = next,
                // The end of the way, or a gap in it that may be filled later.
                _ => {
                    chain.watch(&here);
                    break;
                }
            }
        }
        chain
    }

    fn watch(&mut self, directory: &Path) {
        if let Ok(metadata) = directory.metadata() {
            self.directories
                .insert(directory.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

/// Whether `mountinfo` (the text of `/proc/self/mountinfo`) has a mount at exactly this path.
pub fn is_mount_point(mountinfo: &str, path: &str) -> bool {
    // The kernel writes blanks and backslashes of a path as octal numbers.
    let escaped = path
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012");
    mountinfo
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(escaped.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_way_over_links_is_watched_at_every_link_and_at_its_end() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("conf/v1")).unwrap();
        std::fs::write(root.join("conf/v1/state.yaml"), "").unwrap();
        symlink("v1", root.join("conf/..data")).unwrap();
        symlink("..data/state.yaml", root.join("conf/state.yaml")).unwrap();
        let chain = Chain::follow(&root.join("conf/state.yaml"));
        let directories: Vec<_> = chain.directories.keys().cloned().collect();
        assert_eq!(directories, [root.join("conf"), root.join("conf/v1")]);
        for name in [
            "conf",
            "conf/state.yaml",
            "conf/..data",
            "conf/v1",
            "conf/v1/state.yaml",
        ] {
            assert!(chain.names.contains(&root.join(name)), "{name}");
        }
    }

    #[test]
    fn a_gap_is_watched_from_the_last_directory_before_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let chain = Chain::follow(&root.join("a/b/state.yaml"));
        assert_eq!(chain.directories.keys().cloned().collect::<Vec<_>>(), [root]);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert!(!Chain::follow(&root.path().join("a")).directories.is_empty());
    }

    #[test]
    fn a_mounted_file_is_recognised() {
        let mountinfo = "36 35 98:0 / / rw,noatime - ext4 /dev/root rw\n\
                         40 36 98:0 /s.yaml /etc/my\\040conf/state.yaml rw - ext4 /dev/root rw\n";
        assert!(is_mount_point(mountinfo, "/etc/my conf/state.yaml"));
        assert!(!is_mount_point(mountinfo, "/etc/my conf"));
    }
}
