//! The machine's side of the state file: where it is, what is around it, and its bytes.
//!
//! Everything here asks the machine and decides nothing about what the file says; that is [`super::validate`]'s part.

use std::env;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;

use anyhow::{Context as _, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use nix::ifaddrs::getifaddrs;
use nix::unistd::{User, geteuid, gethostname};

use super::diagnostic::{self, Diagnostic, Place};
use super::model::Desired;
use super::validate::{Surroundings, validate};

/// A state file is a page of text; what is longer is something else.
const MAX_BYTES: u64 = 1024 * 1024;
/// Where the file is looked for when nobody says where it is.
const USUAL_PLACES: [&str; 2] = ["state.yaml", "/etc/paceline/state.yaml"];

/// Why there is no [`Desired`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no file.
    #[error(
        "{path}: there is no such file\n  help: `paceline init` writes one; its smallest form is the one line \
         `role: primary`"
    )]
    Missing {
        /// Where it should be.
        path: Utf8PathBuf,
    },
    /// There is something, but it cannot be read.
    #[error("{path}: cannot be read: {why}")]
    Unreadable {
        /// What was to be read.
        path: Utf8PathBuf,
        /// Why it cannot be.
        why: String,
    },
    /// It was read and is no valid declaration.
    #[error("{}", diagnostic::render(path.as_str(), diagnostics).trim_end())]
    Invalid {
        /// The file.
        path: Utf8PathBuf,
        /// All that is wrong with it, in the order of the file.
        diagnostics: Vec<Diagnostic>,
    },
}

impl LoadError {
    /// The error without lines of the file, which may hold a password: for logs and for the status document.
    pub fn brief(&self) -> String {
        match self {
            Self::Missing { .. } | Self::Unreadable { .. } => self.to_string(),
            Self::Invalid { path, diagnostics } => diagnostic::brief(path.as_str(), diagnostics)
                .trim_end()
                .to_owned(),
        }
    }
}

impl Surroundings {
    /// Looks at the machine. `path` is the state file, `node` what `--node` says.
    pub fn detect(path: &Utf8Path, node: Option<String>) -> anyhow::Result<Self> {
        let euid = geteuid();
        let user = User::from_uid(euid).with_context(|| format!("cannot look up the user {euid}"))?;
        let hostname = gethostname().context("cannot ask for the host name")?;
        let hostname = hostname
            .into_string()
            .map_err(|name| anyhow!("the host name {} is not UTF-8", name.display()))?;
        let home = env::var("HOME").ok().filter(|home| home.starts_with('/'));
        let home = home.or_else(|| user.as_ref()?.dir.to_str().map(str::to_owned));
        let state_home = env::var("XDG_STATE_HOME")
            .ok()
            // The specification of the variable: what is not absolute is to be ignored.
            .filter(|directory| directory.starts_with('/'))
            .map_or_else(
                || Utf8PathBuf::from(home.unwrap_or_else(|| "/".to_owned())).join(".local/state"),
                Utf8PathBuf::from,
            );
        Ok(Self {
            path: absolute(path)?,
            root: euid.is_root(),
            // A container may run as a user that has no name.
            user: user.map_or_else(|| euid.to_string(), |user| user.name),
            hostname: if hostname.is_empty() {
                "localhost".to_owned()
            } else {
                hostname
            },
            node,
            addresses: own_addresses().context("cannot list the network interfaces")?,
            state_home,
        })
    }
}

/// The addresses of all interfaces but the loopback, which every laptop has.
fn own_addresses() -> nix::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.filter(|address| !address.is_loopback()).collect())
}

/// Where the state file is: the argument, else `$PACELINE_STATE`, else the first of the usual places that has one.
/// Absolute. A place that somebody named does not have to hold a file yet.
pub fn locate(argument: Option<&Utf8Path>) -> anyhow::Result<Utf8PathBuf> {
    if let Some(named) = named(argument) {
        return absolute(&named);
    }
    for place in USUAL_PLACES {
        let place = absolute(Utf8Path::new(place))?;
        if place.exists() {
            return Ok(place);
        }
    }
    Err(anyhow!(
        "there is no state file: looked at the argument (none), $PACELINE_STATE (not set), ./{} and {}\n  \
         help: name the file, or let `paceline init` write one; its smallest form is the one line `role: primary`",
        USUAL_PLACES[0],
        USUAL_PLACES[1],
    ))
}

/// Where a new state file is made: the argument, else `$PACELINE_STATE`, else where a daemon of root or of an ordinary
/// user is usually started. Absolute.
pub fn locate_new(argument: Option<&Utf8Path>) -> anyhow::Result<Utf8PathBuf> {
    let [beside_us, of_the_system] = USUAL_PLACES;
    let usual = if geteuid().is_root() {
        of_the_system
    } else {
        beside_us
    };
    absolute(&named(argument).unwrap_or_else(|| usual.into()))
}

/// The file that somebody named, if anybody did.
fn named(argument: Option<&Utf8Path>) -> Option<Utf8PathBuf> {
    let variable = || {
        let value = env::var("PACELINE_STATE").ok()?;
        (!value.is_empty()).then(|| Utf8PathBuf::from(value))
    };
    argument.map(Utf8Path::to_owned).or_else(variable)
}

fn absolute(path: &Utf8Path) -> anyhow::Result<Utf8PathBuf> {
    camino::absolute_utf8(path).with_context(|| format!("cannot make an absolute path of {path:?}"))
}

/// Reads and validates the state file.
pub fn load(surroundings: &Surroundings) -> Result<Desired, LoadError> {
    interpret(&read(&surroundings.path)?, surroundings)
}

/// The bytes of the file.
pub(super) fn read(path: &Utf8Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |why: String| LoadError::Unreadable {
        path: path.to_owned(),
        why,
    };
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LoadError::Missing {
            path: path.to_owned(),
        },
        _ => unreadable(error.to_string()),
    };
    // Asked before it is opened: opening a pipe would wait for somebody to write into it.
    let metadata = path.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(unreadable("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!(
            "it is longer than {} kB; is this really a state file?",
            MAX_BYTES / 1024
        )));
    }
    Ok(bytes)
}

/// What the bytes of the file declare.
pub(super) fn interpret(bytes: &[u8], surroundings: &Surroundings) -> Result<Desired, LoadError> {
    let diagnostics = match std::str::from_utf8(bytes) {
        Ok(text) => match validate(text, surroundings) {
            Ok(desired) => return Ok(desired),
            Err(diagnostics) => diagnostics,
        },
        Err(error) => vec![not_utf8(bytes, error.valid_up_to())],
    };
    Err(LoadError::Invalid {
        path: surroundings.path.clone(),
        diagnostics,
    })
}

fn not_utf8(bytes: &[u8], offset: usize) -> Diagnostic {
    let before = String::from_utf8_lossy(&bytes[..offset]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
    let text = String::from_utf8_lossy(bytes);
    let byte = bytes.get(offset).copied().unwrap_or_default();
    let message = format!("the byte 0x{byte:02x} at position {offset} of the file is not UTF-8 text");
    Diagnostic::new(
        &text,
        &Place {
            line,
            column,
            bytes: 0..0,
        },
        "",
        &message,
    )
    .help("save the file with the encoding UTF-8")
}
