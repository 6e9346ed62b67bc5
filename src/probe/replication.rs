//! What replication needs on this laptop: the shared secret, and, on a server that is written to, the role as which
//! the other laptop logs in and the slots that it streams from.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

use super::database::{LoginCache, literal, read_password};
use super::server;
use crate::desired::Desired;
use crate::observed::{Fact, Login, ReplicationFacts, Secret, Slot};
use crate::plan::configuration::{self, SLOT_PREFIX};
use crate::sys::users::Identity;

/// The database that the role logs in to: there are the epochs, and pg_rewind needs one (POSTGRES-FACTS 16).
pub const DATABASE: &str = "postgres";

/// What pg_rewind calls on the server that it copies from (POSTGRES-FACTS 37).
pub const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// The shared secret in its file, and whether the server's passfile has it.
pub(super) fn secret(desired: &Desired, server_user: &Identity) -> Fact<Secret> {
    let password = match read_password(&desired.replication.password_file) {
        Ok(Some(password)) => password,
        Ok(None) => return Fact::Known(Secret::Missing),
        Err(error) => return Fact::Known(Secret::Bad(format!("{error:#}"))),
    };
    let text = configuration::passfile(&desired.replication.user, &password);
    match passfile_is(desired, server_user, &text) {
        Ok(passfile_current) => Fact::Known(Secret::There { passfile_current }),
        Err(error) => Fact::Unknown(format!("{error:#}")),
    }
}

/// libpq ignores a passfile that others may read, and one that it cannot read itself.
fn passfile_is(desired: &Desired, server_user: &Identity, text: &str) -> Result<bool> {
    let path = desired.replication_passfile();
    let look = || -> io::Result<bool> {
        let meta = fs::symlink_metadata(&path)?;
        Ok(meta.is_file()
            && meta.uid() == server_user.uid
            && meta.permissions().mode() & 0o777 == 0o600
            && fs::read(&path)? == text.as_bytes())
    };
    match look() {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        seen => seen.with_context(|| format!("cannot read {path}")),
    }
}

/// Role, rights and slots on our own server, which is written to; `pid` is its postmaster's.
pub async fn look(
    client: &Client,
    desired: &Desired,
    pid: i32,
    cache: &mut LoginCache,
) -> Result<ReplicationFacts> {
    let user = &desired.replication.user;
    let rows = server::query(client, &rights(user)).await?;
    let role = rows.first().map(|row| row.get(0) == Some("t"));
    let login = match read_password(&desired.replication.password_file) {
        Ok(None) => Login::NoPasswordFile,
        Err(error) => Login::BadPasswordFile(format!("{error:#}")),
        Ok(Some(_)) if role.is_none() => Login::NotTried,
        Ok(Some(password)) => cache.log_in(desired, pid, user, DATABASE, &password).await,
    };
    Ok(ReplicationFacts {
        role: role.unwrap_or(false),
        login,
        slots: slots(client).await?,
    })
}

/// One row, if the role exists: whether it may do all that it needs.
fn rights(user: &str) -> String {
    let functions = REWIND_FUNCTIONS
        .map(|function| format!(" and has_function_privilege(oid, '{function}', 'execute')"))
        .concat();
    format!(
        "select rolreplication and rolcanlogin \
         and has_database_privilege(oid, '{DATABASE}', 'connect') \
         and pg_has_role(oid, 'pg_read_all_stats', 'usage') \
         and (to_regnamespace('paceline') is null or has_schema_privilege(oid, 'paceline', 'usage')) \
         and (to_regclass('paceline.epoch') is null or has_table_privilege(oid, 'paceline.epoch', 'select'))\
         {functions} \
         from pg_roles where rolname = {}",
        literal(user)
    )
}

async fn slots(client: &Client) -> Result<Vec<Slot>> {
    // PostgreSQL 12 has no wal_status.
    let sql = format!(
        "select slot_name, active, coalesce(to_jsonb(slot) ->> 'wal_status', '') = 'lost' \
         from pg_replication_slots slot where starts_with(slot_name::text, '{SLOT_PREFIX}') order by 1"
    );
    let rows = server::query(client, &sql).await?;
    rows.iter()
        .map(|row| {
            Ok(Slot {
                name: row.get(0).context("a slot has no name")?.to_owned(),
                active: row.get(1) == Some("t"),
                lost: row.get(2) == Some("t"),
            })
        })
        .collect()
}
