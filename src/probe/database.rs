//! The application's database inside the server: does it exist, whose is it, and can its owner log in.

use anyhow::{Context as _, Result};
use camino::Utf8Path;
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
    let login = match read_password(&wanted.password_file) {
        Ok(None) => Login::NoPasswordFile,
        Err(error) => Login::BadPasswordFile(format!("{error:#}")),
        Ok(Some(_)) if !role || owner.is_none() => Login::NotTried,
        Ok(Some(password)) => {
            let key = (pid, digest(&[&wanted.owner, &wanted.name, &password]));
            if cache.worked.as_ref() == Some(&key) {
                Login::Works
            } else {
                let login = try_login(desired, wanted, &password).await;
                cache.worked = (login == Login::Works).then_some(key);
                login
            }
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
    let mut config = Config::new();
    config
        .host_path(desired.socket_directory())
        .port(super::postmaster::port(desired))
        .user(&wanted.owner)
        .password(password)
        .dbname(&wanted.name)
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
