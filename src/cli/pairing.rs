//! The replication secret, where it lies, and how it gets to the other laptop: as a pairing code.
//!
//! The code is the secret with a checksum behind it, so that a mistyped one is noticed at once and not hours later as a
//! wrong password. It travels over a person's eyes or standard input, never on a command line, which everybody on the
//! machine can read.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use camino::Utf8Path;

use crate::desired::fresh::Fresh;
use crate::desired::{Desired, Diagnostic, Surroundings, schema_file, validate};
use crate::digest::digest;
use crate::hint::hinted;
use crate::probe::database::read_password;
use crate::sys::files::{ensure_directory, sync_parent};
use crate::sys::replace::write_new;
use crate::sys::{net, users};

/// What stands for an address that nobody knows.
pub(super) const NO_ADDRESS: &str = "ADDRESS-OF-THIS-LAPTOP";

/// A new secret: 122 random bits of the operating system, in groups that can be read out and typed.
pub(super) fn new_secret() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let groups: Vec<String> = random
        .as_bytes()
        .chunks(4)
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    groups.join("-")
}

/// The pairing code of a secret; `None`: the secret (a person's own) has characters that do not survive being pasted.
pub(super) fn code_of(secret: &str) -> Option<String> {
    let travels = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\' | '`');
    (!secret.is_empty() && secret.chars().all(travels)).then(|| format!("{secret}-{}", checksum(secret)))
}

/// The secret in a pairing code; `None`: it is mistyped, or none at all.
pub(super) fn secret_in(code: &str) -> Option<&str> {
    let (secret, sum) = code.rsplit_once('-')?;
    (!secret.is_empty() && sum == checksum(secret)).then_some(secret)
}

/// Four hexadecimal digits. They notice every single wrong character (in FNV-1a each byte changes the low bits
/// one-to-one) and all but one of 65,000 other mistakes. They protect nothing: that is the secret's part.
fn checksum(secret: &str) -> String {
    digest(&[secret]).split_off(12)
}

/// The secret that lies there already.
pub(super) fn present(path: &Utf8Path) -> Result<Option<String>> {
    read_password(path).map_err(|error| {
        hinted(
            format!("cannot use the replication secret {path}: {error:#}"),
            "put it right, or move the file away to have a new one",
        )
    })
}

/// Refuses a place for the secret inside of a git working tree: sooner or later it would be pushed.
pub(super) fn outside_git(path: &Utf8Path) -> Result<()> {
    // Also where a link on the way leads, as far as the way exists.
    let real = path
        .ancestors()
        .skip(1)
        .find_map(|directory| directory.canonicalize_utf8().ok());
    let tree = [Some(path.to_owned()), real.map(|real| real.join("secret"))]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let tree = path
                .ancestors()
                .skip(1)
                .find(|directory| directory.join(".git").exists());
            tree.map(Utf8Path::to_owned)
        });
    match tree {
        None => Ok(()),
        Some(tree) => Err(hinted(
            format!(
                "the replication secret {path} would lie in the git working tree {tree}, and could be pushed"
            ),
            "choose a `home` elsewhere: --home DIR (in a state file that is there already: `home: DIR`); \
             without it the secret is outside of any project",
        )),
    }
}

/// Writes a secret that is not there yet: for the daemon's user alone.
pub(super) fn store(path: &Utf8Path, home: &Utf8Path, secret: &str) -> Result<()> {
    let store = || -> Result<bool> {
        prepare_home(home)?;
        if let Some(directory) = path.parent()
            // The mode of a directory that a person named is the person's business.
            && (directory == home.join("secrets") || !directory.exists())
        {
            ensure_directory(directory, 0o700, None)?;
            sync_parent(directory)?;
        }
        write_new(path, format!("{secret}\n").as_bytes(), 0o600)
    };
    match store() {
        Ok(true) => Ok(()),
        Ok(false) => Err(hinted(
            format!("{path} appeared while this was running"),
            "run this again",
        )),
        Err(error) => Err(hinted(
            format!("cannot store the replication secret: {error:#}"),
            "run this as the user that is to run the daemon, or choose another `home` with --home DIR",
        )),
    }
}

/// Makes `home`, which is for everybody to pass through (the server's socket is in it). One that is there is left as it
/// is.
pub(super) fn prepare_home(home: &Utf8Path) -> Result<()> {
    if !home.is_dir() {
        ensure_directory(home, 0o755, None)?;
        sync_parent(home)?;
    }
    Ok(())
}

/// Writes the schema that the first line of a new state file names. An editor that does not know the keys is no reason
/// to have no state file: without it the daemon tries again.
pub(super) fn keep_schema(home: &Utf8Path) {
    if let Err(error) = prepare_home(home).and_then(|()| schema_file::keep(home)) {
        tracing::debug!("editors do not know the keys yet: {error:#}");
    }
}

/// Writes a new state file.
pub(super) fn write_state(path: &Utf8Path, text: &str) -> Result<()> {
    let write = || -> Result<bool> {
        // `/etc/paceline` is not there on a new laptop. A longer way that is missing is rather a typing mistake.
        if let Some(directory) = path.parent()
            && !directory.exists()
        {
            std::fs::create_dir(directory)
                .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(0o755)))
                .and_then(|()| sync_parent(directory))
                .map_err(|error| anyhow::anyhow!("cannot make its directory: {error}"))?;
        }
        write_new(path, text.as_bytes(), 0o644)
    };
    match write() {
        Ok(true) => Ok(()),
        Ok(false) => Err(hinted(
            format!("{path} appeared while this was running"),
            "look at it",
        )),
        Err(error) => Err(hinted(
            format!("cannot write the state file {path}: {error:#}"),
            "name another place for it, or run this as a user who may write there",
        )),
    }
}

/// The text of a new state file, and what it declares here.
pub(super) fn draw_up(fresh: &Fresh, path: &Utf8Path) -> Result<(String, Desired)> {
    let text = fresh.text();
    let surroundings = Surroundings::detect(path, None)?;
    match validate(&text, &surroundings) {
        Ok(desired) => Ok((format!("{}{text}", schema_file::modeline(&desired.home)), desired)),
        Err(problems) => {
            let join = |part: fn(&Diagnostic) -> &str| {
                let parts: Vec<&str> = problems
                    .iter()
                    .map(part)
                    .filter(|part| !part.is_empty())
                    .collect();
                parts.join("; ")
            };
            Err(hinted(
                format!(
                    "nothing was written, because the state file would not be valid: {}",
                    join(|problem| &problem.message)
                ),
                join(|problem| problem.help.as_deref().unwrap_or_default()),
            ))
        }
    }
}

/// An absolute path of one on the command line: there it begins where the person is, in the state file at the file.
pub(super) fn home(path: &Utf8Path) -> Result<String> {
    // A ~ in quotes is refused in the state file's own words.
    if path.as_str().is_empty() || path.starts_with("~") {
        return Ok(path.as_str().to_owned());
    }
    Ok(camino::absolute_utf8(path)?.into_string())
}

/// A port as the state file needs it: said only if it is not the usual one.
pub(super) fn unusual(port: Option<u16>, usual: u16) -> Option<u16> {
    port.filter(|port| *port != usual)
}

/// This laptop's addresses, the one that the other laptop most likely needs first.
pub(super) fn own_addresses(other: Option<&str>) -> Vec<IpAddr> {
    // Names are not looked up: that can take long, and the network may not be there yet.
    let towards = other
        .and_then(|host| host.parse().ok())
        .and_then(net::address_towards);
    let mut addresses = net::own_addresses().unwrap_or_default();
    if let Some(towards) = towards {
        addresses.retain(|address| *address != towards);
        addresses.insert(0, towards);
    }
    addresses
}

/// `host` or `host:port`, the port only if it is not the usual one.
pub(super) fn host_and_port(host: Option<IpAddr>, port: Option<u16>) -> String {
    match (host, port) {
        (None, None) => NO_ADDRESS.to_owned(),
        (None, Some(port)) => format!("{NO_ADDRESS}:{port}"),
        (Some(host), None) => host.to_string(),
        (Some(host), Some(port)) => std::net::SocketAddr::new(host, port).to_string(),
    }
}

/// A sentence about the addresses that were not chosen, or about the missing one.
pub(super) fn about_addresses(addresses: &[IpAddr]) -> Option<String> {
    match addresses {
        [] => Some(format!(
            "This laptop has no network address now: put its name or address in the place of {NO_ADDRESS}."
        )),
        [_] => None,
        [_, others @ ..] => {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            Some(format!(
                "This laptop's other addresses are {}.",
                others.join(", ")
            ))
        }
    }
}

/// A text as one word of a shell.
pub(super) fn shell(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-' | ':');
    if !text.is_empty() && text.chars().all(harmless) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Who has to run the commands.
pub(super) fn who() -> String {
    if users::is_root() {
        "as root".to_owned()
    } else {
        "as the user that is to run the daemon".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_gives_its_secret_back() {
        let secret = new_secret();
        assert_eq!(secret.len(), 39);
        assert_ne!(secret, new_secret());
        let code = code_of(&secret).unwrap();
        assert_eq!(secret_in(&code), Some(secret.as_str()));
        assert_eq!(secret_in(&code_of("a-b").unwrap()), Some("a-b"));
        for own in ["", "it's", "two words", "ö"] {
            assert_eq!(code_of(own), None);
        }
    }

    #[test]
    fn every_wrong_character_is_noticed() {
        let code = code_of(&new_secret()).unwrap();
        for at in 0..code.len() {
            for wrong in "0123456789abcdefABCDEF -"
                .chars()
                .filter(|c| !code[at..].starts_with(*c))
            {
                let mut mistyped = code.clone();
                mistyped.replace_range(at..=at, &wrong.to_string());
                assert_eq!(secret_in(&mistyped), None, "{code} {mistyped}");
            }
        }
    }

    #[test]
    fn a_word_of_a_shell() {
        assert_eq!(shell("/etc/paceline/state.yaml"), "/etc/paceline/state.yaml");
        assert_eq!(shell("it's here"), "'it'\\''s here'");
    }
}
