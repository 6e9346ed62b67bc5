//! The server's own word, over its unix socket, as superuser by peer authentication.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::database;
use crate::desired::Desired;
use crate::lineage::Epoch;
use crate::observed::{Answer, DatabaseFacts, Fact, ServerFacts};
use crate::plan::configuration::SUPERUSER;

/// How long the server may take for one answer. A frozen one never answers.
pub const LIMIT: Duration = Duration::from_secs(2);

const AUTO_CONF_IN_FORCE: &str =
    "select name from pg_settings where sourcefile like '%/postgresql.auto.conf' order by 1";

/// A connection that stays open, and what was last found out with it.
#[derive(Debug, Default)]
pub struct Session {
    open: Option<(i32, Client)>,
    slow: Option<Slow>,
    login: database::LoginCache,
}

/// What seldom changes by itself.
#[derive(Clone, Debug)]
struct Slow {
    /// Looked up under this timeline and role of the server.
    about: (u32, bool),
    epochs: Vec<Epoch>,
    auto_conf_in_force: Vec<String>,
    pending_restart: Vec<String>,
    configuration_errors: Vec<String>,
    database: Fact<DatabaseFacts>,
}

impl Session {
    /// Forgets the connection: the server it led to is gone.
    pub(super) fn forget(&mut self) {
        self.open = None;
        self.slow = None;
    }

    /// Asks the server whose postmaster is process `pid`.
    pub(super) async fn look(
        &mut self,
        desired: &Desired,
        pid: i32,
        thorough: bool,
    ) -> (Fact<Answer>, Fact<DatabaseFacts>) {
        // New connections are what an application needs; a server whose postmaster hangs still serves the old ones.
        if thorough {
            self.open = None;
        }
        if self
            .open
            .as_ref()
            .is_some_and(|(of, client)| *of != pid || client.is_closed())
        {
            self.forget();
        }
        match self.ask(desired, pid, thorough).await {
            Ok((facts, database)) => (Fact::Known(Answer::Facts(Box::new(facts))), database),
            Err(error) => {
                self.forget();
                let why = format!("{error:#}");
                let unseen = Fact::Unknown(why.clone());
                match error
                    .downcast_ref::<tokio_postgres::Error>()
                    .and_then(tokio_postgres::Error::code)
                {
                    Some(code) if turns_away(code) => (Fact::Known(Answer::Refused(why)), unseen),
                    _ => (Fact::Unknown(why), unseen),
                }
            }
        }
    }

    async fn ask(
        &mut self,
        desired: &Desired,
        pid: i32,
        thorough: bool,
    ) -> Result<(ServerFacts, Fact<DatabaseFacts>)> {
        let client = match &mut self.open {
            Some((_, client)) => client,
            none => &mut none.insert((pid, connect(desired, "postgres").await?)).1,
        };
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
            version: text(&row, "version")?.to_owned(),
            configuration: row.get("configuration").map(ToOwned::to_owned),
            auto_conf_in_force: Vec::new(),
            pending_restart: Vec::new(),
            configuration_errors: Vec::new(),
            epochs: Vec::new(),
        };
        let about = (facts.timeline, facts.in_recovery);
        let slow = match &self.slow {
            Some(slow) if !thorough && slow.about == about => slow.clone(),
            _ => {
                let slow = Slow {
                    about,
                    epochs: epochs(client).await?,
                    auto_conf_in_force: column(client, AUTO_CONF_IN_FORCE).await?,
                    pending_restart: column(client, include_str!("pending_restart.sql")).await?,
                    configuration_errors: column(client, include_str!("configuration_errors.sql")).await?,
                    database: match &desired.postgres.database {
                        Some(wanted) if !facts.in_recovery && !facts.read_only => {
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
        facts.configuration_errors = slow.configuration_errors;
        Ok((facts, slow.database))
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
        .connect_timeout(LIMIT);
    open(&config).await.with_context(|| {
        format!(
            "cannot connect to the server as {SUPERUSER} over {}",
            desired.socket_directory()
        )
    })
}

/// Opens a connection within the limit; its traffic is carried by a task that ends with it.
pub(super) async fn open(config: &Config) -> Result<Client> {
    let (client, connection) = timeout(LIMIT, config.connect(NoTls))
        .await
        .map_err(|_| anyhow!("no answer within {} seconds", LIMIT.as_secs()))??;
    // The client sees the connection's error at its next question.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
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
