//! The application's database inside the server: does it exist, whose is it, and can its owner log in.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use super::server;
use crate::desired::{Database, Desired};
use crate::digest::digest;
use crate::observed::{DatabaseFacts, Login};
use crate::sys::files;

/// The last login that worked: it costs a connection and a key derivation, so it is tried again only when the server
/// or the password is another.
#[derive(Debug, Default)]
pub struct LoginCache {
    worked: Option<(i32, String)>,
}

impl LoginCache {
    /// Logs in to the server whose postmaster is process `pid`, unless exactly this worked before.
    pub(super) async fn log_in(
        &mut self,
        desired: &Desired,
        pid: i32,
        user: &str,
        database: &str,
        password: &str,
    ) -> Login {
        let key = (pid, digest(&[user, database, password]));
        if self.worked.as_ref() == Some(&key) {
            return Login::Works;
        }
        let login = log_in(desired, user, database, password).await;
        self.worked = (login == Login::Works).then_some(key);
        login
    }
}

/// Looks at the database as superuser.
pub(super) async fn look(
    client: &Client,
    desired: &Desired,
    wanted: &Database,
    pid: i32,
    cache: &mut LoginCache,
) -> Result<DatabaseFacts> {
    let role = !server::query(
        client,
        &format!("select from pg_roles where rolname = {}", literal(&wanted.owner)),
    )
    .await?
    .is_empty();
    let rows = server::query(
        client,
        &format!(
            "select pg_get_userbyid(datdba) from pg_database where datname = {}",
            literal(&wanted.name)
        ),
    )
    .await?;
    let owner = rows.first().and_then(|row| row.get(0)).map(ToOwned::to_owned);
    let login = match password(desired, wanted) {
        Ok(None) => Login::NoPasswordFile,
        Err(error) => Login::BadPasswordFile(format!("{error:#}")),
        Ok(Some(_)) if !role || owner.is_none() => Login::NotTried,
        Ok(Some(password)) => {
            cache
                .log_in(desired, pid, &wanted.owner, &wanted.name, &password)
                .await
        }
    };
    Ok(DatabaseFacts {
        about: (wanted.name.clone(), wanted.owner.clone()),
        role,
        owner,
        login,
    })
}

/// Logs in as the application would.
pub async fn try_login(desired: &Desired, wanted: &Database, password: &str) -> Login {
    log_in(desired, &wanted.owner, &wanted.name, password).await
}

/// Logs in over the unix socket, by password.
pub async fn log_in(desired: &Desired, user: &str, database: &str, password: &str) -> Login {
    let mut config = Config::new();
    config
        .host_path(desired.socket_directory())
        .port(super::postmaster::port(desired))
        .user(user)
        .password(password)
        .dbname(database)
        .application_name("paceline")
        .connect_timeout(server::LIMIT);
    match server::open(&config).await {
        Ok(_) => Login::Works,
        Err(error) => {
            match error
                .downcast_ref::<tokio_postgres::Error>()
                .and_then(tokio_postgres::Error::code)
            {
                Some(code) if *code == SqlState::INVALID_PASSWORD => Login::WrongPassword,
                _ => Login::Failed(format!("{error:#}")),
            }
        }
    }
}

/// The password of the database's owner: what is in its file, else, if that file is ours to choose, one that is derived
/// from the replication password. So both laptops have the same without ever telling each other, and the application
/// can log in at once on the one that takes over. `None`: there is neither.
pub fn password(desired: &Desired, wanted: &Database) -> Result<Option<String>> {
    if let Some(password) = read_password(&wanted.password_file)? {
        return Ok(Some(password));
    }
    if wanted.password_file_declared || desired.peer.is_none() {
        return Ok(None);
    }
    // What is wrong with that file is said where replication is looked at.
    let secret = read_password(&desired.replication.password_file).ok().flatten();
    Ok(secret.map(|secret| derived(&secret, &wanted.owner)))
}

/// HMAC-SHA-256 of the role's name, in hexadecimal digits.
fn derived(secret: &str, role: &str) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(b"paceline database password 1\n");
    mac.update(role.as_bytes());
    let mut text = String::new();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The password in a file: its first line. `None`: there is no such file. A file that others can read, or an empty
/// one, is an error.
pub fn read_password(path: &Utf8Path) -> Result<Option<String>> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(text) = files::read_if_there(path).with_context(|| format!("cannot read {path}"))? else {
        return Ok(None);
    };
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        anyhow::bail!("its mode is {mode:04o}, so others may read it; chmod 0600 {path}");
    }
    let password = text.lines().next().unwrap_or_default().trim_end_matches('\r');
    if password.is_empty() {
        anyhow::bail!("its first line is empty");
    }
    Ok(Some(password.to_owned()))
}

/// A string as SQL reads it (`standard_conforming_strings` may be off in an adopted cluster).
pub fn literal(value: &str) -> String {
    if value.contains('\\') {
        format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// A name as SQL reads it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
