//! The server's own word, over its unix socket, as superuser by peer authentication.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::{database, replication};
use crate::desired::Desired;
use crate::lineage::{Epoch, Lsn};
use crate::observed::{Answer, DatabaseFacts, Fact, PendingSetting, ReplicationFacts, ServerFacts};
use crate::plan::configuration::SUPERUSER;
use crate::sys::files::read_end;

/// How long the server may take for one answer. A frozen one never answers.
pub const LIMIT: Duration = Duration::from_secs(2);

/// So much of the end of the server's log is looked at, in bytes.
const LOG_END: u64 = 16 << 10;

const AUTO_CONF_IN_FORCE: &str =
    "select name from pg_settings where sourcefile like '%/postgresql.auto.conf' order by 1";

/// A connection to the server of this process, which those who act may use as well: opening one takes longer than most
/// of what is asked.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Option<Opened>>>);

/// The postmaster's process, and the connection to it.
type Opened = (i32, Arc<Client>);

impl Shared {
    /// The open connection to the server of this process, if there is one; otherwise a new one.
    pub async fn connect(&self, desired: &Desired, pid: i32) -> Result<Arc<Client>> {
        let open = self
            .get()
            .filter(|(of, client)| *of == pid && !client.is_closed());
        match open {
            Some((_, client)) => Ok(client),
            None => Ok(Arc::new(connect(desired, "postgres").await?)),
        }
    }

    fn get(&self) -> Option<Opened> {
        self.0.lock().ok()?.clone()
    }

    fn set(&self, open: Option<Opened>) {
        if let Ok(mut shared) = self.0.lock() {
            *shared = open;
        }
    }
}

/// A connection that stays open, and what was last found out with it.
#[derive(Debug, Default)]
pub struct Session {
    open: Shared,
    slow: Option<Slow>,
    login: database::LoginCache,
    replication_login: database::LoginCache,
}

/// What seldom changes by itself.
#[derive(Clone, Debug)]
struct Slow {
    /// Looked up under this timeline and role of the server.
    about: (u32, bool),
    epochs: Vec<Epoch>,
    auto_conf_in_force: Vec<String>,
    pending_restart: Vec<PendingSetting>,
    oldest_wal: Option<Lsn>,
    configuration_errors: Vec<String>,
    database: Fact<DatabaseFacts>,
    replication: Fact<ReplicationFacts>,
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) server: Fact<Answer>,
    pub(super) database: Fact<DatabaseFacts>,
    pub(super) replication: Fact<ReplicationFacts>,
}

impl Asked {
    /// No server runs.
    pub(super) fn nobody() -> Self {
        let why = || "the server does not answer yet".to_owned();
        Self {
            server: Fact::Known(Answer::NotAsked),
            database: Fact::Unknown(why()),
            replication: Fact::Unknown(why()),
        }
    }
}

impl Session {
    /// The connection, for those who act.
    pub(super) fn shared(&self) -> Shared {
        self.open.clone()
    }

    /// Forgets the connection: the server it led to is gone.
    pub(super) fn forget(&mut self) {
        self.open.set(None);
        self.slow = None;
    }

    /// Asks the server whose postmaster is process `pid`.
    pub(super) async fn look(&mut self, desired: &Desired, pid: i32, thorough: bool) -> Asked {
        // New connections are what an application needs; a server whose postmaster hangs still serves the old ones.
        if thorough {
            self.open.set(None);
        }
        if self
            .open
            .get()
            .is_some_and(|(of, client)| of != pid || client.is_closed())
        {
            self.forget();
        }
        match self.ask(desired, pid, thorough).await {
            Ok(asked) => asked,
            Err(error) => {
                self.forget();
                let why = format!("{error:#}");
                let server = match error
                    .downcast_ref::<tokio_postgres::Error>()
                    .and_then(tokio_postgres::Error::code)
                {
                    Some(code) if turns_away(code) => Fact::Known(Answer::Refused(why.clone())),
                    _ => Fact::Unknown(why.clone()),
                };
                Asked {
                    server,
                    database: Fact::Unknown(why.clone()),
                    replication: Fact::Unknown(why),
                }
            }
        }
    }

    async fn ask(&mut self, desired: &Desired, pid: i32, thorough: bool) -> Result<Asked> {
        let client = match self.open.get() {
            Some((_, client)) => client,
            None => {
                let client = Arc::new(connect(desired, "postgres").await?);
                self.open.set(Some((pid, Arc::clone(&client))));
                client
            }
        };
        let client = client.as_ref();
        let row = one(client, include_str!("server.sql")).await?;
        let mut facts = ServerFacts {
            in_recovery: text(&row, "in_recovery")? == "t",
            read_only: text(&row, "read_only")? == "on",
            streaming: text(&row, "streaming")? == "t",
            system_identifier: text(&row, "system_identifier")?.to_owned(),
            timeline: text(&row, "timeline")?
                .parse()
                .context("the timeline is no number")?,
            lsn: text(&row, "lsn")?.parse().map_err(|e: String| anyhow!(e))?,
            position_proven: text(&row, "position_proven")? == "t",
            synchronous: text(&row, "synchronous")? == "t",
            version: text(&row, "version")?.to_owned(),
            checkpoint_timeline: text(&row, "checkpoint_timeline")?
                .parse()
                .context("the checkpoint's timeline is no number")?,
            since_checkpoint: text(&row, "since_checkpoint")?
                .parse()
                .context("the WAL since the last checkpoint is no number")?,
            replay_paused: text(&row, "replay_paused")? == "t",
            replayed_until: row.get("replayed_until").map(ToOwned::to_owned),
            receiver: None,
            oldest_wal: None,
            promoting: false,
            configuration: row.get("configuration").map(ToOwned::to_owned),
            auto_conf_in_force: Vec::new(),
            pending_restart: Vec::new(),
            configuration_errors: Vec::new(),
            epochs: Vec::new(),
        };
        if facts.in_recovery && !facts.streaming {
            let log = read_end(&desired.server_log(), LOG_END).unwrap_or_default();
            facts.receiver = receiver_trouble(&log);
            facts.promoting = promotion_requested(&log);
        }
        // PROMOTE_SIGNAL_FILE: there until the server has noticed it.
        facts.promoting |= facts.in_recovery && desired.postgres.data_directory.join("promote").exists();
        let named = |slow: &Slow| slow.epochs.iter().any(|epoch| epoch.timeline == facts.timeline);
        let slow = match &mut self.slow {
            Some(slow) if !thorough => {
                // Another timeline, or a promotion: only its name is wanted at once, every millisecond counts.
                if slow.about != (facts.timeline, facts.in_recovery) || !named(slow) {
                    slow.epochs = epochs(client).await?;
                    slow.about = (facts.timeline, facts.in_recovery);
                }
                slow.clone()
            }
            _ => {
                let slow = Slow {
                    about: (facts.timeline, facts.in_recovery),
                    epochs: epochs(client).await?,
                    auto_conf_in_force: column(client, AUTO_CONF_IN_FORCE).await?,
                    oldest_wal: match column(client, include_str!("oldest_wal.sql")).await?.first() {
                        Some(text) if !facts.in_recovery => {
                            Some(text.parse().map_err(|e: String| anyhow!(e))?)
                        }
                        Some(_) | None => None,
                    },
                    pending_restart: pending_restart(client).await?,
                    configuration_errors: column(client, include_str!("configuration_errors.sql")).await?,
                    replication: match &desired.peer {
                        Some(_) if facts.in_recovery || !facts.read_only => {
                            let cache = &mut self.replication_login;
                            Fact::from(replication::look(client, desired, pid, cache).await)
                        }
                        Some(_) => Fact::Unknown("the server is read-only".to_owned()),
                        None => Fact::Unknown("no other laptop is declared".to_owned()),
                    },
                    database: match &desired.postgres.database {
                        Some(wanted) if facts.in_recovery || !facts.read_only => {
                            Fact::from(database::look(client, desired, wanted, pid, &mut self.login).await)
                        }
                        Some(_) => Fact::Unknown("the server is read-only".to_owned()),
                        None => Fact::Unknown("none is declared".to_owned()),
                    },
                };
                self.slow.insert(slow).clone()
            }
        };
        facts.epochs = slow.epochs;
        facts.auto_conf_in_force = slow.auto_conf_in_force;
        facts.pending_restart = slow.pending_restart;
        facts.oldest_wal = slow.oldest_wal;
        facts.configuration_errors = slow.configuration_errors;
        Ok(Asked {
            server: Fact::Known(Answer::Facts(Box::new(facts))),
            database: slow.database,
            replication: slow.replication,
        })
    }
}

/// Errors with which a healthy server refuses exactly us: nothing changes until a person does something.
fn turns_away(code: &SqlState) -> bool {
    [
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        &SqlState::INVALID_PASSWORD,
        &SqlState::UNDEFINED_DATABASE,
        &SqlState::INSUFFICIENT_PRIVILEGE,
    ]
    .contains(&code)
}

/// A new connection to the declared server, as superuser.
pub async fn connect(desired: &Desired, database: &str) -> Result<Client> {
    let mut config = Config::new();
    config
        .host_path(desired.socket_directory())
        .port(super::postmaster::port(desired))
        .user(SUPERUSER)
        .dbname(database)
        .application_name("paceline")
        // What we write must never wait for a standby: we are the ones who end that waiting.
        .options("-c synchronous_commit=local")
        .connect_timeout(LIMIT);
    open(&config).await.with_context(|| {
        format!(
            "cannot connect to the server as {SUPERUSER} over {}",
            desired.socket_directory()
        )
    })
}

/// Opens a connection within the limit; its traffic is carried by a task that ends with it.
pub(crate) async fn open(config: &Config) -> Result<Client> {
    let (client, connection) = timeout(LIMIT, config.connect(NoTls))
        .await
        .map_err(|_| anyhow!("no answer within {} seconds", LIMIT.as_secs()))??;
    // The client sees the connection's error at its next question.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

async fn pending_restart(client: &Client) -> Result<Vec<PendingSetting>> {
    let rows = column(client, include_str!("pending_restart.sql")).await?;
    rows.iter()
        .map(|row| {
            serde_json::from_str(row).context("a setting that waits for a restart cannot be understood")
        })
        .collect()
}

/// The rows of `paceline.epoch`, oldest first; none also when there is no such table.
pub async fn epochs(client: &Client) -> Result<Vec<Epoch>> {
    let exists = one(
        client,
        "select to_regclass('paceline.epoch') is not null as exists",
    )
    .await?;
    if text(&exists, "exists")? != "t" {
        return Ok(Vec::new());
    }
    let rows = column(client, include_str!("epochs.sql")).await?;
    rows.iter()
        .map(|row| serde_json::from_str(row).context("a row of paceline.epoch cannot be understood"))
        .collect()
}

/// Whether the server that runs was told to end recovery. It says so in its log only; from then on it asks nobody for
/// WAL, so that this stays near the end.
fn promotion_requested(log: &str) -> bool {
    let last = log.lines().rev().find(|line| {
        ["received promote request", "starting PostgreSQL"]
            .iter()
            .any(|words| line.contains(words))
    });
    last.is_some_and(|line| line.contains("received promote request"))
}

/// Why the WAL receiver does not stream, from the end of the server's log (`lc_messages` is C): only there is it said.
/// `None`: the last thing that it said is no complaint, or it said nothing since the server's start.
fn receiver_trouble(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| {
        ["FATAL:", "started streaming WAL", "starting PostgreSQL"]
            .iter()
            .any(|words| line.contains(words))
    })?;
    let words = line[line.find("FATAL:")? + "FATAL:".len()..].trim();
    let of_receiver = [
        "could not connect to the primary server",
        "WAL stream",
        "timeline",
    ]
    .iter()
    .any(|said| words.contains(said));
    of_receiver.then(|| words.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What a server has loaded.
#[derive(Debug)]
pub struct Loaded {
    /// Which of our configurations.
    pub configuration: Option<String>,
    /// Names whose value comes from `postgresql.auto.conf`.
    pub from_auto_conf: Vec<String>,
    /// The mistakes that it found in its files.
    pub errors: Vec<String>,
}

/// What the server has loaded.
pub async fn loaded(client: &Client) -> Result<Loaded> {
    let row = one(
        client,
        "select current_setting('paceline.configuration', true) as configuration",
    )
    .await?;
    Ok(Loaded {
        configuration: row.get("configuration").map(ToOwned::to_owned),
        from_auto_conf: column(client, AUTO_CONF_IN_FORCE).await?,
        errors: column(client, include_str!("configuration_errors.sql")).await?,
    })
}

/// When a session last read the configuration.
pub async fn loaded_at(client: &Client) -> Result<String> {
    let row = one(client, "select pg_conf_load_time()::text as loaded").await?;
    Ok(text(&row, "loaded")?.to_owned())
}

/// Runs SQL text within the limit and gives its rows. No prepared statements: they need more round trips.
pub async fn query(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let messages = timeout(LIMIT, client.simple_query(sql))
        .await
        .map_err(|_| anyhow!("no answer within {} seconds", LIMIT.as_secs()))??;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

async fn one(client: &Client, sql: &str) -> Result<SimpleQueryRow> {
    match query(client, sql).await?.into_iter().next() {
        Some(row) => Ok(row),
        None => bail!("the server gave no row for: {sql}"),
    }
}

async fn column(client: &Client, sql: &str) -> Result<Vec<String>> {
    Ok(query(client, sql)
        .await?
        .iter()
        .filter_map(|row| row.get(0).map(ToOwned::to_owned))
        .collect())
}

fn text<'a>(row: &'a SimpleQueryRow, name: &str) -> Result<&'a str> {
    row.get(name)
        .with_context(|| format!("the server gave no {name}"))
}
