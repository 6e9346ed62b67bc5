//! The server's configuration files in `home`, and `postgresql.auto.conf`.

use anyhow::{Context as _, Result};

use super::Context;
use crate::plan::{ConfigurationFiles, configuration};
use crate::probe;
use crate::sys::files::{self, ensure_directory, write_durably};

pub(super) fn write(context: &Context<'_>, wanted: &ConfigurationFiles) -> Result<()> {
    let user = context.server_user()?;
    let directory = context.desired.conf_directory();
    ensure_directory(&directory, 0o755, None)?;
    if wanted.passfile {
        // Before the configuration that makes the server need it.
        passfile(context)?;
    }
    for (name, text) in [
        ("pg_hba.conf", &wanted.pg_hba),
        ("pg_ident.conf", &wanted.pg_ident),
        // Last, since it carries the digest of all three.
        ("postgresql.conf", &wanted.postgresql_conf),
    ] {
        // Settings may hold secrets: for the server's user alone.
        write_durably(&directory.join(name), text.as_bytes(), 0o600, Some(user.owner()))?;
    }
    Ok(())
}

/// Writes the passfile of the server and of the tools that run as its user, from the file that both laptops share.
pub(super) fn passfile(context: &Context<'_>) -> Result<()> {
    let desired = context.desired;
    let password = super::replication::password(desired)?;
    ensure_directory(&desired.conf_directory(), 0o755, None)?;
    write_durably(
        &desired.replication_passfile(),
        configuration::passfile(&desired.replication.user, &password).as_bytes(),
        0o600,
        Some(context.server_user()?.owner()),
    )
}

/// The text of a `postgresql.auto.conf` without these names, every other line as it is.
pub(super) fn without(text: &str, names: &[String]) -> String {
    text.split_inclusive('\n')
        .filter(|line| !probe::setting_name(line).is_some_and(|name| names.contains(&name)))
        .collect()
}

/// Takes names out of `postgresql.auto.conf`, leaving every other line as it is.
pub(super) fn purge_auto_conf(context: &Context<'_>, names: &[String]) -> Result<()> {
    let path = context
        .desired
        .postgres
        .data_directory
        .join("postgresql.auto.conf");
    let Some(text) = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))? else {
        return Ok(());
    };
    let kept = without(&text, names);
    if kept == text {
        return Ok(());
    }
    let user = context.server_user()?;
    // What an administrator wrote there is not thrown away.
    let copy = context
        .desired
        .conf_directory()
        .join("postgresql.auto.conf.before");
    ensure_directory(&context.desired.conf_directory(), 0o755, None)?;
    write_durably(&copy, text.as_bytes(), 0o600, None)?;
    write_durably(&path, kept.as_bytes(), 0o600, Some(user.owner()))?;
    tracing::info!(file = %path, names = %names.join(", "), copy = %copy, "removed settings that would have won over the state file");
    Ok(())
}
