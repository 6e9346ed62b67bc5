//! The status document: what everybody outside sees of a laptop. Built from one decision; no secret is ever in it.

mod plan;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub use self::plan::{Failure, LossSection, PlanSection, PlanState, plan_section};

use crate::desired::{Desired, Durability, Role};
use crate::lineage::{Lineage, Lsn};
use crate::observed::{
    AppState, Data, DataState, Fact, Flag, HandedOver, Login, Moment, Observed, Peer, PendingSetting,
    RestartRequest, Server,
};
use crate::plan::configuration::purged_words;
use crate::plan::{End, Gate, HARMLESS_LAG, Plan, Waiting};

/// The state file, as the daemon sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// Digest of the content in force.
    pub digest: String,
    /// Why the present content is not in force, if it is not.
    pub error: Option<String>,
    /// What is odd about the file, if anything.
    pub warning: Option<String>,
}

/// The document. Fields that are named in the interface's description are stable; others may come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This laptop's name.
    pub node: String,
    /// Counts up whenever something but positions and ages changed.
    pub revision: u64,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The rest, by section.
    pub desired: DesiredSection,
    /// The copy on disk.
    pub data: DataSection,
    /// The server.
    pub server: ServerSection,
    /// The other laptop.
    pub peer: PeerSection,
    /// The copy that this laptop gave away, until somebody takes over.
    pub handed_over: Option<HandedOver>,
    /// The plan.
    pub plan: PlanSection,
    /// The gate.
    pub gate: GateSection,
    /// The application; `null`: none is declared.
    pub app: Option<serde_json::Value>,
    /// What a person should know, and need not act on.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// What is declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesiredSection {
    /// The role in force.
    pub role: String,
    /// Whether Paceline only watches.
    pub paused: bool,
    /// Names the content in force.
    pub digest: String,
    /// Why the file's present content is not in force.
    pub error: Option<String>,
    /// What is odd about the file.
    pub warning: Option<String>,
    /// Keys that are present and not supported yet.
    pub unsupported: Vec<String>,
}

/// The copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSection {
    /// What it is.
    pub state: DataState,
    /// Why that could not be seen.
    pub reason: Option<String>,
    /// Whether its server crashed.
    pub crashed: bool,
    /// Whether the position is proven.
    pub position_proven: bool,
    /// Which database.
    pub system_identifier: Option<String>,
    /// PostgreSQL's timeline.
    pub timeline: Option<u32>,
    /// Major version.
    pub major: Option<u32>,
    /// The names of its epochs, oldest first.
    pub epochs: Vec<Uuid>,
    /// The same with everything that is known of them.
    pub lineage: Option<Lineage>,
}

/// The server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSection {
    /// `down`, `starting`, `writable`, `read_only`, `stopping` or `unknown`.
    pub state: String,
    /// Why that could not be seen, or why a standby does not stream.
    pub reason: Option<String>,
    /// Whether a WAL receiver streams.
    pub streaming: bool,
    /// Position written, or received and replayed.
    pub lsn: Option<Lsn>,
    /// How many bytes it is behind the other laptop's own position; `null` if that is not known.
    pub lag_bytes: Option<u64>,
    /// Its process.
    pub pid: Option<i32>,
    /// Its port.
    pub port: Option<u16>,
    /// Its version.
    pub version: Option<String>,
    /// Settings that wait for a restart.
    pub pending_restart: Option<Vec<String>>,
    /// The timeline of the last checkpoint.
    #[serde(default)]
    pub checkpoint_timeline: Option<u32>,
    /// The same with the values in force and the values wanted.
    #[serde(default)]
    pub pending_settings: Option<Vec<PendingSetting>>,
    /// The request to restart it that is not done yet, by name.
    #[serde(default)]
    pub restart_requested: Option<Uuid>,
    /// What a commit on a server that is written to means: `async`: it is on this laptop; `sync`: on both; `degraded`: `sync`
    /// is declared, and the other laptop does not follow at the moment.
    #[serde(default)]
    pub durability: Option<String>,
    /// Where the WAL begins that a server which is written to still has.
    #[serde(default)]
    pub oldest_wal: Option<Lsn>,
    /// The slots that the other laptop may stream from; `null`: not known, or not written to.
    #[serde(default)]
    pub slots: Option<Vec<String>>,
}

/// The other laptop, as seen from here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerSection {
    /// Whether there is one.
    pub declared: bool,
    /// Whether it answered lately, with our secret.
    pub reachable: bool,
    /// How long ago it answered; if it never did: for how long it has been asked.
    pub age_ms: Option<u64>,
    /// Why it cannot be relied on.
    pub reason: Option<String>,
    /// Its name.
    pub node: Option<String>,
    /// Its declared role.
    pub role: Option<Role>,
    /// What its copy is.
    pub data: Option<DataState>,
    /// What its server is doing.
    pub server: Option<String>,
    /// What it is about to do.
    pub flag: Option<Flag>,
    /// Whether it streams from this laptop; `null`: it is not a standby's server that answers.
    #[serde(default)]
    pub streaming: Option<bool>,
    /// How many bytes its copy is behind this one, which is written to; `null`: that is not known, or not so.
    #[serde(default)]
    pub lag_bytes: Option<u64>,
}

/// Whether the application may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateSection {
    /// `open`, `holding` or `closed`.
    pub state: String,
    /// Why.
    pub reason: String,
}

/// The whole document, with revision 0 (the publisher counts).
pub fn status(
    desired: &Desired,
    file: &FileState,
    observed: &Observed,
    plan: &Plan,
    gate: &Gate,
    failure: Option<&Failure>,
    now: Moment,
) -> Status {
    Status {
        node: desired.node.clone(),
        revision: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        desired: DesiredSection {
            role: desired.role.word().to_owned(),
            paused: desired.paused,
            digest: file.digest.clone(),
            error: file.error.clone(),
            warning: file.warning.clone(),
            unsupported: desired
                .unsupported
                .iter()
                .map(|key| format!("{} ({})", key.key, key.instead))
                .collect(),
        },
        data: data(observed),
        server: server(desired, observed),
        peer: peer(observed, now),
        handed_over: observed.handed_over().cloned(),
        plan: plan_section(plan, failure, observed, now),
        gate: GateSection {
            state: gate.word().to_owned(),
            reason: gate.reason().to_owned(),
        },
        app: desired.racedb.is_some().then(|| app(observed, now)),
        notices: notices(desired, observed, plan),
    }
}

fn notices(desired: &Desired, observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut notices = Vec::new();
    let configuration = observed.configuration.known();
    if let Some(purged) = configuration.and_then(|found| found.purged.as_ref()) {
        notices.push(format!("{}: {}", purged.time, purged_words(&purged.names)));
    }
    let pending = observed
        .server_facts()
        .map(|facts| facts.pending_restart.as_slice());
    if let Some(pending @ [_, ..]) = pending
        // Where the plan says it already, once is enough.
        && !matches!(plan.end, End::Waiting(Waiting::Restart(_)))
    {
        notices.push(Waiting::Restart(pending.to_vec()).to_string());
    }
    if let Fact::Unknown(why) = &observed.restart.fact {
        notices.push(format!(
            "the request to restart the server is not taken: {why}; remove {}",
            desired.home.join(RestartRequest::FILE)
        ));
    }
    notices
}

fn data(observed: &Observed) -> DataSection {
    let unseen = |why: &String| DataSection {
        state: DataState::Unknown,
        reason: Some(why.clone()),
        crashed: false,
        position_proven: false,
        system_identifier: None,
        timeline: None,
        major: None,
        epochs: Vec::new(),
        lineage: None,
    };
    let data = match &observed.data.fact {
        Fact::Known(data) => data,
        Fact::Unknown(why) => return unseen(why),
    };
    // While the server runs, its word counts: the marks on disk of a running server look like a crash.
    let state = match observed.server_state() {
        Fact::Known(Server::Writable) => Data::Primary { crashed: false },
        _ => data.state(),
    };
    let lineage = observed.lineage();
    DataSection {
        state: state.state(),
        reason: None,
        crashed: state == Data::Primary { crashed: true },
        position_proven: lineage.as_ref().is_some_and(|lineage| lineage.position.is_some()),
        system_identifier: lineage.as_ref().map(|lineage| lineage.system_identifier.clone()),
        timeline: lineage.as_ref().map(|lineage| lineage.timeline),
        major: data.cluster().map(|cluster| cluster.major),
        epochs: lineage.as_ref().map_or_else(Vec::new, |lineage| {
            lineage.epochs.iter().map(|epoch| epoch.uuid).collect()
        }),
        lineage,
    }
}

fn server(desired: &Desired, observed: &Observed) -> ServerSection {
    let running = observed.running();
    let facts = observed.server_facts();
    let (state, reason) = match observed.server_state() {
        Fact::Known(server) => (server.to_string(), None),
        Fact::Unknown(why) => ("unknown".to_owned(), Some(why)),
    };
    let state_writes = state == Server::Writable.to_string();
    let trouble = facts.and_then(|facts| facts.receiver.clone());
    ServerSection {
        state,
        reason: reason.or(trouble),
        streaming: facts.is_some_and(|facts| facts.streaming),
        lsn: facts.map(|facts| facts.lsn),
        lag_bytes: observed.lag(),
        pid: running.map(|running| running.pid),
        port: running.map(|running| running.port),
        version: facts.map(|facts| facts.version.clone()),
        checkpoint_timeline: facts.map(|facts| facts.checkpoint_timeline),
        pending_restart: facts.map(|facts| {
            let names = facts.pending_restart.iter();
            names.map(|setting| setting.name.clone()).collect()
        }),
        pending_settings: facts.map(|facts| facts.pending_restart.clone()),
        restart_requested: observed
            .restart
            .known()
            .and_then(|asked| Some(asked.as_ref()?.id)),
        durability: facts.filter(|_| state_writes).map(|facts| {
            let word = match (desired.replication.durability, facts.synchronous) {
                (_, true) => "sync",
                (Durability::Sync, false) => "degraded",
                (Durability::Async, false) => "async",
            };
            word.to_owned()
        }),
        oldest_wal: facts.and_then(|facts| facts.oldest_wal),
        slots: observed
            .replication
            .known()
            .filter(|_| state_writes)
            .map(|replication| {
                let usable = replication.role && replication.login == Login::Works;
                let slots = replication.slots.iter().filter(|slot| usable && !slot.lost);
                slots.map(|slot| slot.name.clone()).collect()
            }),
    }
}

fn peer(observed: &Observed, now: Moment) -> PeerSection {
    let memory = observed.peer_memory.known().and_then(Option::as_ref);
    let silent = |reason: Option<String>| PeerSection {
        declared: observed.peer != Peer::None,
        reachable: false,
        age_ms: None,
        reason,
        node: memory.and_then(|memory| memory.node.clone()),
        role: None,
        data: None,
        server: None,
        flag: None,
        streaming: None,
        lag_bytes: None,
    };
    match &observed.peer {
        Peer::None => silent(None),
        Peer::Unauthenticated { why } => silent(Some(why.clone())),
        Peer::Unknown(silence) => PeerSection {
            age_ms: u64::try_from(now.since(silence.since).as_millis()).ok(),
            ..silent(Some(silence.why.clone()))
        },
        Peer::Known(facts) => PeerSection {
            declared: true,
            reachable: true,
            age_ms: u64::try_from(now.since(facts.at).as_millis()).ok(),
            reason: match &facts.server {
                Fact::Known(_) => None,
                Fact::Unknown(why) => Some(why.clone()),
            },
            node: facts.node.clone(),
            role: facts.role,
            data: Some(facts.data),
            server: Some(
                facts
                    .server
                    .known()
                    .map_or("unknown".to_owned(), ToString::to_string),
            ),
            flag: facts.flag,
            streaming: match facts.server {
                Fact::Known(Server::ReadOnly { streaming }) => Some(streaming),
                Fact::Known(Server::Down | Server::Starting | Server::Stopping | Server::Writable)
                | Fact::Unknown(_) => None,
            },
            lag_bytes: observed.peer_lag(),
        },
    }
}

fn app(observed: &Observed, now: Moment) -> serde_json::Value {
    let app = &observed.app;
    let (state, pid, port, next) = match &app.state {
        AppState::Stopped => ("stopped", None, None, None),
        AppState::Running { pid, port, .. } => ("running", Some(*pid), Some(*port), None),
        AppState::Stopping => ("stopping", None, None, None),
        AppState::BackingOff { until } => ("backing_off", None, None, Some(until.since(now).as_secs())),
    };
    json!({
        "state": state, "pid": pid, "port": port, "starts_again_in_s": next,
        "failures": app.failures, "last_end": app.last_end,
    })
}

impl Status {
    /// Whether the two differ in more than what changes all the time: revision, positions, countdowns.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.lasting() != other.lasting()
    }

    fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.revision = 0;
        lasting.server.lsn = None;
        lasting.server.oldest_wal = None;
        lasting.server.lag_bytes = lasting.server.lag_bytes.map(|lag| u64::from(lag > HARMLESS_LAG));
        lasting.peer.age_ms = None;
        lasting.peer.lag_bytes = lasting.peer.lag_bytes.map(|lag| u64::from(lag > HARMLESS_LAG));
        lasting.plan.loss = None;
        if let Some(lineage) = &mut lasting.data.lineage {
            lineage.position = None;
        }
        if let Some(app) = &mut lasting.app {
            app["starts_again_in_s"] = json!(null);
        }
        lasting
    }
}
