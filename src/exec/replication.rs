//! What the other laptop needs on a server that is written to: the role as which it logs in, and its slot.

use anyhow::{Context as _, Result, bail};
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::Client;

use super::Context;
use super::database::make_password;
use crate::desired::Desired;
use crate::hint::hinted;
use crate::observed::Login;
use crate::plan::ReplicationNeed;
use crate::plan::configuration::SLOT_PREFIX;
use crate::probe::database::{LoginCache, identifier, literal, log_in, read_password};
use crate::probe::replication::{DATABASE, REWIND_FUNCTIONS, look};
use crate::probe::{postmaster, server};

pub(super) async fn ensure(context: &Context<'_>, need: &ReplicationNeed) -> Result<()> {
    let desired = context.desired;
    let client = server::connect(desired, DATABASE).await?;
    // Slots can be made and dropped on a standby, too.
    if need.role
        && yes(
            &client,
            "select pg_is_in_recovery() or current_setting('transaction_read_only')::bool",
        )
        .await?
    {
        bail!("the server is read-only; nothing was done");
    }
    if need.role {
        role(desired, &client).await?;
    }
    // First those that go: a lost slot is made again under its name.
    for name in &need.drop_slots {
        drop_slot(&client, name).await?;
    }
    if let Some(name) = &need.create_slot {
        create_slot(&client, name).await?;
    }
    verify(context, &client, need).await
}

/// Creates the role or puts it right, with its rights. A commit here must not wait for a standby.
async fn role(desired: &Desired, client: &Client) -> Result<()> {
    let user = &desired.replication.user;
    let name = identifier(user);
    let rows = server::query(
        client,
        &format!(
            "select rolpassword is not null from pg_authid where rolname = {}",
            literal(user)
        ),
    )
    .await?;
    let has_password = rows.first().map(|row| row.get(0) == Some("t"));
    let password = own_password(desired, has_password.unwrap_or(false))?;
    let works =
        has_password == Some(true) && log_in(desired, user, DATABASE, &password).await == Login::Works;

    let verb = if has_password.is_some() { "alter" } else { "create" };
    let mut role =
        format!("{verb} role {name} login replication inherit connection limit -1 valid until 'infinity'");
    if !works {
        // The server stores this, and only this goes over the line: the password itself appears in no log.
        role = format!("{role} password {}", literal(&scram_sha_256(password.as_bytes())));
    }
    let newer = yes(
        client,
        "select current_setting('server_version_num')::int >= 160000",
    )
    .await?;
    // A membership that was there before may lack it.
    let inherit = if newer { " with inherit true" } else { "" };
    let mut statements = vec![
        "begin".to_owned(),
        "set local synchronous_commit = 'local'".to_owned(),
        role,
        format!("grant connect on database {DATABASE} to {name}"),
        format!("grant pg_read_all_stats to {name}{inherit}"),
    ];
    statements
        .extend(REWIND_FUNCTIONS.map(|function| format!("grant execute on function {function} to {name}")));
    if yes(client, "select to_regnamespace('paceline') is not null").await? {
        statements.push(format!("grant usage on schema paceline to {name}"));
    }
    if yes(client, "select to_regclass('paceline.epoch') is not null").await? {
        statements.push(format!("grant select on paceline.epoch to {name}"));
    }
    statements.push("commit".to_owned());
    let sql = statements.join("; ");
    server::query(client, &sql)
        .await
        .with_context(|| format!("cannot create the role {user:?} or put it right"))?;
    Ok(())
}

/// The password of the role; made if there is none yet that the other laptop might know.
fn own_password(desired: &Desired, has_password: bool) -> Result<String> {
    let replication = &desired.replication;
    if has_password || replication.password_file.exists() {
        return password(desired)
            .with_context(|| format!("the role {:?} has a password already", replication.user));
    }
    make_password(&replication.password_file)
}

/// The password that both laptops share.
pub(super) fn password(desired: &Desired) -> Result<String> {
    let path = &desired.replication.password_file;
    read_password(path)
        .with_context(|| format!("cannot use the password file {path}"))?
        .ok_or_else(|| {
            hinted(
                format!("the password file of the replication, {path}, is missing"),
                "run `paceline join` here with the line that `paceline init` printed on the other laptop, or copy \
                 the file from there and chmod 0600 it",
            )
        })
}

async fn create_slot(client: &Client, name: &str) -> Result<()> {
    let name = literal(name);
    // Reserved at once: the WAL from now on is kept for a copy that takes a while.
    let sql = format!(
        "select pg_create_physical_replication_slot({name}, true) \
         where not exists (select from pg_replication_slots where slot_name = {name})"
    );
    server::query(client, &sql)
        .await
        .with_context(|| format!("cannot create the replication slot {name}"))?;
    Ok(())
}

async fn drop_slot(client: &Client, name: &str) -> Result<()> {
    if !name.starts_with(SLOT_PREFIX) {
        bail!("the replication slot {name:?} is not Paceline's; it was not dropped");
    }
    let sql = format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
         where slot_name = {} and not active",
        literal(name)
    );
    server::query(client, &sql)
        .await
        .with_context(|| format!("cannot drop the replication slot {name:?}"))?;
    Ok(())
}

async fn verify(context: &Context<'_>, client: &Client, need: &ReplicationNeed) -> Result<()> {
    let desired = context.desired;
    let user = &desired.replication.user;
    let pid = postmaster::read_pid_file(&desired.postgres.data_directory)?.map_or(0, |file| file.pid);
    let facts = look(client, desired, pid, &mut LoginCache::default()).await?;
    if need.role {
        match facts.login {
            Login::Works if facts.role => {}
            Login::Works => bail!("the role {user:?} still lacks a right after it was granted"),
            Login::WrongPassword => bail!("the role {user:?} cannot log in with the password just set"),
            Login::Failed(why) => bail!("the role {user:?} cannot log in: {why}"),
            Login::NoPasswordFile | Login::BadPasswordFile(_) | Login::NotTried => {
                bail!("the login of {user:?} could not be tried")
            }
        }
    }
    let there = |name: &String| facts.slots.iter().find(|slot| slot.name == *name);
    if let Some(name) = &need.create_slot
        && there(name).is_none_or(|slot| slot.lost)
    {
        bail!("the replication slot {name:?} cannot be used after it was created");
    }
    let kept = |name: &&String| there(name).is_some() && need.create_slot.as_ref() != Some(*name);
    if let Some(name) = need.drop_slots.iter().find(kept) {
        bail!("the replication slot {name:?} is in use; it was not dropped");
    }
    Ok(())
}

async fn yes(client: &Client, sql: &str) -> Result<bool> {
    let rows = server::query(client, sql).await?;
    Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
}
