//! `init`: a laptop's first state file and the replication secret, and the line that takes the secret to the other one.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use anyhow::Result;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::{exit, one_of, pairing};
use crate::desired::fresh::{Fresh, FreshPeer};
use crate::desired::{self, DEFAULT_API_PORT, DEFAULT_PORT, Desired, Role};
use crate::hint::hinted;
use crate::observed::{NEW_DATABASE_FILE, Remembered};
use crate::sys::files::{sync_parent, write_durably};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The state file to write [default: $PACELINE_STATE, as root /etc/paceline/state.yaml, else ./state.yaml]
    state: Option<Utf8PathBuf>,
    /// The role of this laptop
    #[arg(long, default_value = "primary", value_parser = one_of(&[Role::Primary, Role::Standby]))]
    role: Role,
    /// The other laptop: its name or address, if it is known already; also HOST:PORT
    #[arg(long, value_name = "HOST")]
    peer: Option<String>,
    /// What this laptop is called [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where database, secrets and logs go [default: /var/lib/paceline, as an ordinary user
    /// ~/.local/state/paceline]
    #[arg(long, value_name = "DIR")]
    home: Option<Utf8PathBuf>,
    /// PostgreSQL's port on this laptop [default: 5432]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Paceline's port on this laptop [default: 8432]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
}

pub(super) fn init(args: &InitArgs) -> Result<u8> {
    let path = desired::locate_new(args.state.as_deref())?;
    // A link that leads nowhere is something, too.
    if path.symlink_metadata().is_ok() {
        return Err(hinted(
            format!("{path} is there already; nothing was written"),
            "change it with an editor or with `paceline set role`, or name another file. To see the line for the other \
             laptop again, move the file away and run this once more: the secret is kept",
        ));
    }
    let fresh = Fresh {
        role: args.role,
        peer: args.peer.clone().map(|host| FreshPeer { host, api_port: None }),
        node: args.node.clone(),
        home: args.home.as_deref().map(pairing::home).transpose()?,
        port: pairing::unusual(args.port, DEFAULT_PORT),
        api_port: pairing::unusual(args.api_port, DEFAULT_API_PORT),
    };
    let (text, desired) = pairing::draw_up(&fresh, &path)?;
    let file = &desired.replication.password_file;
    pairing::outside_git(file)?;

    let present = pairing::present(file)?;
    let kept = present.is_some();
    let secret = present.unwrap_or_else(pairing::new_secret);
    let Some(code) = pairing::code_of(&secret) else {
        return Err(hinted(
            format!(
                "the secret in {file} has characters that cannot be in a pairing code; nothing was written"
            ),
            "move the file away to have a new one, or write state file and secret by hand on both laptops",
        ));
    };
    if !kept {
        pairing::store(file, &desired.home, &secret)?;
    }
    pairing::keep_schema(&desired.home);
    // Before the state file: a daemon that waits for the file acts as soon as it is there.
    let permission = if args.role == Role::Primary {
        permit_new_database(&desired)?
    } else {
        None
    };
    if let Err(error) = pairing::write_state(&path, &text) {
        // A permission must not outlive what it was given for.
        if permission == Some(true) {
            drop(fs::remove_file(desired.home.join(NEW_DATABASE_FILE)));
        }
        return Err(error);
    }

    let mut said = format!("wrote {path} (role: {})\n", args.role);
    let did = if kept { "kept" } else { "made" };
    let _ = writeln!(said, "{did} the replication secret {file}");
    match permission {
        Some(_) => {
            let _ = writeln!(
                said,
                "allowed this laptop to make a new, empty database ({})",
                desired.home.join(NEW_DATABASE_FILE)
            );
        }
        None if args.role == Role::Primary => {
            let _ = writeln!(
                said,
                "did not allow a new, empty database: there is one in {} already, or was",
                desired.postgres.data_directory
            );
        }
        None => {}
    }
    said.push_str(&next(args, &fresh, &desired, &path, &code));
    anstream::stdout().lock().write_all(said.as_bytes())?;
    Ok(exit::OK)
}

/// Leaves the mark in `home`; `Some(false)`: it was there. `None`: there is a database here, or was one, which only a
/// lost disk could make look new.
fn permit_new_database(desired: &Desired) -> Result<Option<bool>> {
    let filled = |directory: &Utf8Path| {
        fs::read_dir(directory).map_or_else(
            // What cannot be looked into is not empty.
            |error| error.kind() != std::io::ErrorKind::NotFound,
            |mut entries| entries.next().is_some(),
        )
    };
    if desired.home.join(Remembered::FILE).exists() || filled(&desired.postgres.data_directory) {
        return Ok(None);
    }
    let mark = desired.home.join(NEW_DATABASE_FILE);
    if mark.exists() {
        return Ok(Some(false));
    }
    pairing::prepare_home(&desired.home)?;
    write_durably(&mark, b"", 0o644, None)?;
    sync_parent(&mark)?;
    Ok(Some(true))
}

/// What is to be done next, on both laptops.
fn next(args: &InitArgs, fresh: &Fresh, desired: &Desired, path: &Utf8Path, code: &str) -> String {
    let peer = desired.peer.as_ref().map(|peer| peer.host.as_str());
    let addresses = pairing::own_addresses(peer);
    let mut join = format!(
        "paceline join {}",
        pairing::host_and_port(addresses.first().copied(), fresh.port)
    );
    if let Some(port) = fresh.api_port {
        let _ = write!(join, " --api-port {port}");
    }
    // One of the two has to be the primary.
    if args.role == Role::Standby {
        join.push_str(" --role primary");
    }
    let run = format!("paceline run {}", pairing::shell(path.as_str()));
    let mut out = format!(
        "\nNext, on the other laptop, {}:\n\n  {join} <<< '{code}'\n\n",
        pairing::who()
    );
    if let Some(sentence) = pairing::about_addresses(&addresses) {
        let _ = writeln!(out, "{sentence}");
    }
    out.push_str(
        "The text in quotes is the pairing code, the key to the database: show it to nobody. Without `<<<` and what\n\
         follows, the command asks for it; then it does not get into the shell's history.\n",
    );
    let _ = match peer {
        None => writeln!(
            out,
            "\nThen, here: put the line `peer: …` that it prints into {path}, and"
        ),
        Some(_) => writeln!(out, "\nThen, here:"),
    };
    let _ = writeln!(out, "\n  {run}");
    out
}
