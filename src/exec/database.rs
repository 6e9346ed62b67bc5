//! The application's role and database.

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;
use postgres_protocol::password::scram_sha_256;

use super::Context;
use crate::desired::{Database, Desired};
use crate::observed::Login;
use crate::probe::database::{self as probe, identifier, literal, try_login};
use crate::probe::server;
use crate::sys::files::{ensure_directory, write_durably};

pub(super) async fn ensure(context: &Context<'_>) -> Result<()> {
    let Some(wanted) = &context.desired.postgres.database else {
        return Ok(());
    };
    let password = password(context.desired, wanted)?;
    let client = server::connect(context.desired, "postgres").await?;
    let owner = identifier(&wanted.owner);
    // The server stores this, and only this goes over the line: the password itself appears in no log.
    let verifier = literal(&scram_sha_256(password.as_bytes()));

    let client = &client;
    let exists = |sql: String| async move { anyhow::Ok(!server::query(client, &sql).await?.is_empty()) };
    let role_exists = exists(format!(
        "select from pg_roles where rolname = {}",
        literal(&wanted.owner)
    ))
    .await?;
    if !role_exists {
        server::query(client, &format!("create role {owner} login password {verifier}"))
            .await
            .with_context(|| format!("cannot create the role {}", wanted.owner))?;
    }
    if !exists(format!(
        "select from pg_database where datname = {}",
        literal(&wanted.name)
    ))
    .await?
    {
        // Copying the template takes longer than a question may.
        let sql = format!("create database {} owner {owner}", identifier(&wanted.name));
        tokio::time::timeout(std::time::Duration::from_secs(60), client.simple_query(&sql))
            .await
            .context("it takes more than a minute")
            .and_then(|done| Ok(done?))
            .with_context(|| format!("cannot create the database {}", wanted.name))?;
    }
    server::query(
        client,
        &format!("alter database {} owner to {owner}", identifier(&wanted.name)),
    )
    .await
    .with_context(|| format!("cannot give the database {} to {}", wanted.name, wanted.owner))?;

    match try_login(context.desired, wanted, &password).await {
        Login::Works => return Ok(()),
        // Only a declared file changes the password of a role that was there before.
        Login::WrongPassword if wanted.password_file_declared => {
            server::query(client, &format!("alter role {owner} login password {verifier}"))
                .await
                .with_context(|| format!("cannot set the password of {}", wanted.owner))?;
        }
        _ => {}
    }
    match try_login(context.desired, wanted, &password).await {
        Login::Works => Ok(()),
        Login::WrongPassword => bail!(
            "the role {} was there before, with another password",
            wanted.owner
        ),
        Login::Failed(why) => bail!("the role {} cannot log in: {why}", wanted.owner),
        Login::NoPasswordFile | Login::BadPasswordFile(_) | Login::NotTried => {
            bail!("the login of {} could not be tried", wanted.owner)
        }
    }
}

/// The owner's password; one that is ours to choose is made when missing.
fn password(desired: &Desired, wanted: &Database) -> Result<String> {
    let path = &wanted.password_file;
    if let Some(password) =
        probe::password(desired, wanted).with_context(|| format!("cannot use the password file {path}"))?
    {
        return Ok(password);
    }
    if wanted.password_file_declared {
        bail!("the password file {path} does not exist");
    }
    make_password(path)
}

/// Makes a password file of ours: for the daemon alone.
pub(super) fn make_password(path: &Utf8Path) -> Result<String> {
    if let Some(directory) = path.parent() {
        ensure_directory(directory, 0o700, None)?;
    }
    let password = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    write_durably(path, format!("{password}\n").as_bytes(), 0o600, None)?;
    Ok(password)
}
