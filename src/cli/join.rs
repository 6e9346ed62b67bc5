//! `join`: the other half of `init`, on the second laptop. Needs no network: the secret comes over standard input.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;

use super::{exit, one_of, pairing};
use crate::desired::fresh::{Fresh, FreshPeer};
use crate::desired::{self, DEFAULT_API_PORT, DEFAULT_PORT, Desired, PeerAddress, Role, Surroundings};
use crate::hint::hinted;
use crate::sys::terminal;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The laptop that `paceline init` ran on: HOST or HOST:PORT
    #[arg(value_name = "HOST[:PORT]")]
    host: String,
    /// The state file to write [default: $PACELINE_STATE, ./state.yaml or /etc/paceline/state.yaml if there
    /// is one, else as root the latter and as an ordinary user the former]
    state: Option<Utf8PathBuf>,
    /// Paceline's port on that laptop [default: 8432]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
    /// The role of this laptop [default: standby]
    #[arg(long, value_parser = one_of(&[Role::Primary, Role::Standby]))]
    role: Option<Role>,
    /// What this laptop is called [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where database, secrets and logs go [default: /var/lib/paceline, as an ordinary user
    /// ~/.local/state/paceline]
    #[arg(long, value_name = "DIR")]
    home: Option<Utf8PathBuf>,
    /// PostgreSQL's port on this laptop [default: 5432]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    own_port: Option<u16>,
    /// Paceline's port on this laptop [default: 8432]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    own_api_port: Option<u16>,
}

pub(super) async fn join(args: &JoinArgs) -> Result<u8> {
    // One that the other commands would find is the one that counts.
    let path = desired::locate(args.state.as_deref()).or_else(|_| desired::locate_new(None))?;
    let fresh = Fresh {
        role: args.role.unwrap_or(Role::Standby),
        peer: Some(FreshPeer {
            host: args.host.clone(),
            api_port: pairing::unusual(args.api_port, DEFAULT_API_PORT),
        }),
        node: args.node.clone(),
        home: args.home.as_deref().map(pairing::home).transpose()?,
        port: pairing::unusual(args.own_port, DEFAULT_PORT),
        api_port: pairing::unusual(args.own_api_port, DEFAULT_API_PORT),
    };
    let (text, asked) = pairing::draw_up(&fresh, &path)?;
    let there = path.symlink_metadata().is_ok();
    let desired = if there {
        let there = desired::load(&Surroundings::detect(&path, args.node.clone())?)?;
        agrees(args, &asked, &there, &path)?;
        there
    } else {
        asked.clone()
    };
    let file = &desired.replication.password_file;
    pairing::outside_git(file)?;
    let present = pairing::present(file)?;

    let secret = ask(&args.host).await?;
    let mut said = String::new();
    match present {
        Some(present) if present == secret => {
            let _ = writeln!(said, "the replication secret {file} is this one already");
        }
        Some(_) => {
            return Err(hinted(
                format!("{file} holds another replication secret; nothing was written"),
                format!(
                    "if this laptop is to be paired with {} from now on, remove that file first and run this again",
                    args.host
                ),
            ));
        }
        None => {
            pairing::store(file, &desired.home, &secret)?;
            let _ = writeln!(said, "wrote the replication secret {file}");
        }
    }
    let mut code = exit::OK;
    if there {
        code = describe(&mut said, args, &asked, &desired, &path);
    } else {
        pairing::keep_schema(&desired.home);
        pairing::write_state(&path, &text)?;
        let _ = writeln!(said, "wrote {path} (role: {}, peer: {})", fresh.role, args.host);
    }
    said.push_str(&next(&asked, &desired, there, &path));
    anstream::stdout().lock().write_all(said.as_bytes())?;
    Ok(code)
}

/// Reads the pairing code and gives the secret in it. It is shown nowhere, not even when it is wrong.
async fn ask(host: &str) -> Result<String> {
    let line = terminal::read_secret("Pairing code (as `paceline init` printed it; it is not shown here): ")
        .await
        .context("cannot read the pairing code from standard input")?;
    let Some(line) = line else {
        anyhow::bail!("given up; nothing was written");
    };
    let code = line.trim().trim_matches('\'');
    if code.is_empty() {
        return Err(hinted(
            "there is no pairing code on standard input; nothing was written",
            format!(
                "run `paceline join {}` in a terminal and paste the code that `paceline init` printed on the other laptop",
                pairing::shell(host)
            ),
        ));
    }
    match pairing::secret_in(code) {
        Some(secret) => Ok(secret.to_owned()),
        None => Err(hinted(
            "the pairing code is mistyped: its last four characters, a checksum, do not fit the rest; nothing was written",
            "type or paste it again, exactly as `paceline init` printed it between the quotes",
        )),
    }
}

/// What was said on the command line must not be lost in silence, where a file that is left as it is says otherwise.
fn agrees(args: &JoinArgs, asked: &Desired, there: &Desired, path: &Utf8Path) -> Result<()> {
    let mut other = Vec::new();
    let mut compare = |given: bool, key: &str, asked: String, there: String| {
        if given && asked != there {
            other.push(format!("{key} {there} (not {asked})"));
        }
    };
    compare(
        args.role.is_some(),
        "the role",
        asked.role.to_string(),
        there.role.to_string(),
    );
    compare(
        args.node.is_some(),
        "the name",
        asked.node.clone(),
        there.node.clone(),
    );
    compare(
        args.home.is_some(),
        "`home`",
        asked.home.to_string(),
        there.home.to_string(),
    );
    let port = |desired: &Desired| desired.postgres.port.to_string();
    compare(
        args.own_port.is_some(),
        "PostgreSQL's port",
        port(asked),
        port(there),
    );
    let port = |desired: &Desired| desired.api_listen.port().to_string();
    compare(
        args.own_api_port.is_some(),
        "Paceline's port",
        port(asked),
        port(there),
    );
    if other.is_empty() {
        return Ok(());
    }
    Err(hinted(
        format!(
            "{path} is there already and says otherwise: {}; nothing was written",
            other.join(", ")
        ),
        "change the file, or leave these options out",
    ))
}

/// Says how the file that was there stands to what was asked for; gives the exit code.
fn describe(said: &mut String, args: &JoinArgs, asked: &Desired, there: &Desired, path: &Utf8Path) -> u8 {
    let _ = writeln!(said, "left {path} as it is (role: {})", there.role);
    if there.peer == asked.peer {
        return exit::OK;
    }
    let written = |peer: &PeerAddress| format!("{} (ports {} and {})", peer.host, peer.port, peer.api_port);
    let named = there
        .peer
        .as_ref()
        .map_or_else(|| "no other laptop".to_owned(), written);
    let wanted = FreshPeer {
        host: args.host.clone(),
        api_port: pairing::unusual(args.api_port, DEFAULT_API_PORT),
    };
    let _ = writeln!(
        said,
        "but it names {named}. Unless that is the same laptop, it has to say\n\
         (in a profile with `nodes:`, by `address:` in the entry of the other laptop):\n\n  {}",
        wanted.line()
    );
    exit::PENDING
}

/// What is to be done next, on both laptops. `there`: the state file was there before.
fn next(asked: &Desired, desired: &Desired, there: bool, path: &Utf8Path) -> String {
    let first = asked.peer.as_ref().map_or("", |peer| peer.host.as_str());
    let addresses = pairing::own_addresses(Some(first));
    let own = FreshPeer {
        host: pairing::host_and_port(
            addresses.first().copied(),
            pairing::unusual(Some(desired.postgres.port), DEFAULT_PORT),
        ),
        api_port: pairing::unusual(Some(desired.api_listen.port()), DEFAULT_API_PORT),
    };
    let unless = if there {
        "\n(one profile with `nodes:` for both needs none)"
    } else {
        ""
    };
    let mut out = format!(
        "\nThis line belongs into the state file of the other laptop, {first}, if it is not there yet{unless}:\n\n  {}\n\n",
        own.line()
    );
    if let Some(sentence) = pairing::about_addresses(&addresses) {
        let _ = writeln!(out, "{sentence}");
    }
    let _ = writeln!(
        out,
        "Then start the daemon on both laptops; here, {}:\n\n  paceline run {}",
        pairing::who(),
        pairing::shell(path.as_str())
    );
    out
}
