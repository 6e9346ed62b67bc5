//! The server's configuration files in `home`, and `postgresql.auto.conf`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use camino::Utf8Path;

use super::Context;
use crate::hint::hinted;
use crate::observed::{Installation, Purged, Refused};
use crate::plan::{ConfigurationFiles, configuration};
use crate::probe;
use crate::supervise::tool;
use crate::sys::clock;
use crate::sys::files::{self, ensure_directory, write_durably};
use crate::sys::users::Identity;

/// How long the server's parser may take; it needs some ten milliseconds.
const PARSER: Duration = Duration::from_secs(20);

pub(super) async fn write(context: &Context<'_>, wanted: &ConfigurationFiles) -> Result<()> {
    let user = context.server_user()?;
    let directory = context.desired.conf_directory();
    ensure_directory(&directory, 0o755, None)?;
    if let Some(programs) = &wanted.programs {
        check(context, programs, wanted, &user).await?;
    }
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
    // It is about another configuration: only tidied up.
    drop(std::fs::remove_file(directory.join(Refused::FILE)));
    Ok(())
}

/// Has PostgreSQL's own parser judge a configuration before it takes the place of the one that works. What it refuses
/// is noted, and nothing else is changed. It does not know the lines of `pg_hba.conf`, nor what memory there is.
async fn check(
    context: &Context<'_>,
    programs: &Installation,
    wanted: &ConfigurationFiles,
    user: &Identity,
) -> Result<()> {
    let directory = context.desired.conf_directory();
    let staged = directory.join("postgresql.conf.check");
    write_durably(
        &staged,
        wanted.postgresql_conf.as_bytes(),
        0o600,
        Some(user.owner()),
    )?;
    super::can_reach(&staged, user)?;
    let judged = tool::output(
        &programs.bin_directory.join("postgres"),
        &[
            "-D",
            directory.as_str(),
            "-c",
            &format!("config_file={staged}"),
            // A place without a postgresql.auto.conf: what is wrong in that is not the state file's mistake.
            "-c",
            &format!("data_directory={directory}"),
            "-C",
            "port",
        ],
        user,
        PARSER,
    )
    .await;
    drop(std::fs::remove_file(&staged));
    let judged = judged?;
    let said = String::from_utf8_lossy(&judged.stderr);
    if judged.status.success() {
        return Ok(());
    }
    if !said.contains("contains errors") {
        bail!(
            "cannot have the configuration checked ({}): {}",
            judged.status,
            said.trim()
        );
    }
    let mut errors = complaints(&said, &staged, &context.desired.postgres.settings);
    if errors.is_empty() {
        errors.push(said.trim().to_owned());
    }
    let message = format!(
        "PostgreSQL {} refuses the configuration: {}",
        programs.version,
        errors.join("; ")
    );
    let refused = Refused {
        configuration: wanted.digest.clone(),
        version: programs.version.clone(),
        errors,
    };
    let note = serde_json::to_vec_pretty(&refused)?;
    write_durably(&directory.join(Refused::FILE), &note, 0o600, None)?;
    Err(hinted(
        message,
        "nothing was changed; correct `postgres: settings:` in the state file",
    ))
}

/// What the parser has to say, one complaint each, with the key of the state file where there is one.
fn complaints(said: &str, staged: &Utf8Path, settings: &BTreeMap<String, String>) -> Vec<String> {
    let place = format!(" in file \"{staged}\"");
    let mut found: Vec<String> = Vec::new();
    for line in said.lines() {
        let Some((level, words)) = ["LOG:", "ERROR:", "FATAL:", "HINT:", "DETAIL:"]
            .iter()
            .find_map(|level| Some((*level, line.split_once(level)?.1.trim())))
        else {
            continue;
        };
        if words.starts_with("skipping missing configuration file") || words.ends_with("contains errors") {
            continue;
        }
        match (level, found.last_mut()) {
            ("HINT:" | "DETAIL:", Some(before)) => {
                *before = format!("{before} ({words})");
            }
            _ => {
                let words = words.split(&place).next().unwrap_or(words);
                let named = |name: &&String| words.contains(&format!("\"{name}\""));
                found.push(match settings.keys().find(named) {
                    Some(name) => format!("`postgres: settings: {name}`: {words}"),
                    None => words.to_owned(),
                });
            }
        }
    }
    found
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

/// Which of the names it sets.
fn gone(text: &str, names: &[String]) -> Vec<String> {
    let mut found: Vec<String> = text.lines().filter_map(probe::setting_name).collect();
    found.retain(|name| names.contains(name));
    found.sort();
    found.dedup();
    found
}

/// Takes names out of `postgresql.auto.conf`, leaving every other line as it is.
pub(super) async fn purge_auto_conf(context: &Context<'_>, names: &[String]) -> Result<()> {
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
    // For people: see the status.
    let purged = Purged {
        names: gone(&text, names),
        time: clock::timestamp(),
    };
    let note = context.desired.conf_directory().join(Purged::FILE);
    write_durably(&note, &serde_json::to_vec_pretty(&purged)?, 0o644, None)?;
    tracing::warn!(copy = %copy, "{}", configuration::purged_words(&purged.names));
    // A server that read those lines would go on saying that it waits for a restart because of them.
    super::server::read_again(context).await
}
