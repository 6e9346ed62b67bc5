//! Who writes in the demo: the stand-in for RaceDB that the daemons start, and a registration desk of the script.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use super::node::LIMIT;
use super::say;
use crate::desired::Desired;

/// Between two entries at the desk: nearly a hundred a second are more than any race has.
const PACE: Duration = Duration::from_millis(10);
/// Between two registrations of the application.
const APP_PACE: Duration = Duration::from_millis(500);
/// How long a server may take over one question of the desk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Stands for RaceDB: a registration every half second, into the database that its environment names. Like a good
/// application it survives a crash of the server.
pub(crate) async fn app() -> Result<u8> {
    let variable =
        |name: &str| std::env::var(name).with_context(|| format!("{name} (which the daemon sets)"));
    let passfile = variable("PGPASSFILE")?;
    let line = std::fs::read_to_string(&passfile).with_context(|| format!("cannot read {passfile}"))?;
    let mut config = quiet();
    config
        .host_path(variable("PGHOST")?)
        .port(variable("PGPORT")?.parse().context("PGPORT is no port")?)
        .dbname(variable("PGDATABASE")?)
        .user(variable("PGUSER")?)
        // The demo's own passwords have no colon, which would be escaped.
        .password(line.trim_end().rsplit(':').next().unwrap_or_default());
    loop {
        let Err(error) = register(&config).await;
        say(format_args!("not registered: {error:#}"));
        sleep(APP_PACE).await;
    }
}

async fn register(config: &Config) -> Result<Infallible> {
    let client = open(config).await?;
    client
        .batch_execute("create table if not exists registration (id bigserial, at timestamptz default now())")
        .await?;
    loop {
        let row = client
            .query_one("insert into registration default values returning id", &[])
            .await?;
        say(format_args!("registration {}", row.try_get::<_, i64>(0)?));
        sleep(APP_PACE).await;
    }
}

/// An entry that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) number: i64,
    /// By which of the two databases.
    pub(super) by: usize,
    pub(super) at: Instant,
}

/// One entry at a time, into whichever of the two databases takes it, and a note of each one that was acknowledged. It
/// is not told who is primary; like a person with a browser it just tries again.
pub(super) struct Desk {
    entries: watch::Receiver<Vec<Entry>>,
    busy: Arc<tokio::sync::Mutex<()>>,
    _clerk: JoinSet<()>,
}

impl Desk {
    /// Opens it.
    pub(super) fn open(databases: [Config; 2]) -> Self {
        let (sender, entries) = watch::channel(Vec::new());
        let busy = Arc::default();
        let mut clerk = JoinSet::new();
        clerk.spawn(enter(databases, sender, Arc::clone(&busy)));
        Self {
            entries,
            busy,
            _clerk: clerk,
        }
    }

    /// Waits for the entry that is under way, and lets no other begin as long as the answer is kept.
    pub(super) async fn hold(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.busy).lock_owned().await
    }

    /// The first entry that this one acknowledged after a moment, once there is one.
    pub(super) async fn first_by(&mut self, by: usize, after: Instant) -> Result<Entry> {
        let first = |entries: &Vec<Entry>| {
            entries
                .iter()
                .copied()
                .find(|entry| entry.by == by && entry.at > after)
        };
        let come = self.entries.wait_for(|entries| first(entries).is_some());
        let entries = timeout(LIMIT, come)
            .await
            .context("no registration was acknowledged")??;
        first(&entries).context("it is gone")
    }

    /// All of them, oldest first.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.borrow().clone()
    }
}

async fn enter(
    databases: [Config; 2],
    entries: watch::Sender<Vec<Entry>>,
    busy: Arc<tokio::sync::Mutex<()>>,
) {
    let mut number: i64 = 0;
    for by in (0..databases.len()).cycle() {
        let client = connect(&databases[by]).await;
        while let Ok(client) = &client {
            let _busy = busy.lock().await;
            number += 1;
            let insert = async { client.execute("insert into desk values ($1)", &[&number]).await };
            if !matches!(timeout(PATIENCE, insert).await, Ok(Ok(1))) {
                // It may be there or not: nobody was told that it is. The next one gets a number of its own.
                break;
            }
            let at = Instant::now();
            entries.send_modify(|entries| entries.push(Entry { number, by, at }));
            sleep(PACE).await;
        }
        sleep(PACE).await;
    }
}

/// Opens a connection on which entries can be made; a database that is read-only refuses.
async fn connect(config: &Config) -> Result<Client> {
    let client = open(config).await?;
    let table =
        "create table if not exists desk (number bigint not null, at timestamptz not null default now())";
    timeout(PATIENCE, client.batch_execute(table)).await??;
    Ok(client)
}

async fn open(config: &Config) -> Result<Client> {
    let (client, connection) = timeout(PATIENCE, config.connect(NoTls)).await??;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// That a table is there already is no news.
fn quiet() -> Config {
    let mut config = Config::new();
    config.options("-c client_min_messages=warning");
    config
}

/// How a laptop's database is reached: over its socket, as root and the server's user may.
pub(super) fn database(desired: &Desired) -> Config {
    let mut config = quiet();
    config
        .host_path(desired.socket_directory())
        .port(desired.postgres.port)
        .user("postgres")
        .dbname("racedb");
    config
}

/// Waits until a database has everything that another one has written by now.
pub(super) async fn caught_up(behind: &Config, ahead: &Config) -> Result<()> {
    let (behind, ahead) = (open(behind).await?, open(ahead).await?);
    let written = ahead
        .query_one("select pg_current_wal_flush_lsn()::text", &[])
        .await?;
    let written: String = written.try_get(0)?;
    let arrived = format!("select pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
    let come = async {
        while !behind.query_one(&arrived, &[]).await?.try_get::<_, bool>(0)? {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    };
    timeout(LIMIT, come)
        .await
        .with_context(|| format!("what was written up to {written} did not arrive"))?
}

/// How often each entry is in a database.
pub(super) async fn count(config: &Config) -> Result<HashMap<i64, i64>> {
    let client = open(config).await?;
    let rows = client
        .query("select number, count(*) from desk group by number", &[])
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}
