//! The status document: what everybody outside sees of a laptop. Built from one decision; no secret is ever in it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::desired::Desired;
use crate::lineage::Lsn;
use crate::observed::{AppState, Data, Fact, Moment, Observed, Peer, Server};
use crate::plan::{End, Gate, Plan};

/// What failed when the first step of the plan was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The action's name.
    pub action: &'static str,
    /// What went wrong.
    pub error: String,
    /// What a person can do, if it is known.
    pub hint: Option<String>,
    /// How often in a row.
    pub attempts: u32,
}

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

/// How a plan stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Everything is as declared.
    Converged,
    /// Steps are being taken.
    Converging,
    /// It goes on by itself.
    Waiting,
    /// A person must act.
    Blocked,
    /// The last step failed; it is tried again.
    Failed,
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
    pub data: serde_json::Value,
    /// The server.
    pub server: serde_json::Value,
    /// The other laptop.
    pub peer: serde_json::Value,
    /// The promise of a handover; none before the pair is supported.
    pub handed_over: Option<serde_json::Value>,
    /// The plan.
    pub plan: PlanSection,
    /// The gate.
    pub gate: GateSection,
    /// The application; `null`: none is declared.
    pub app: Option<serde_json::Value>,
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

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSection {
    /// In one word.
    pub state: PlanState,
    /// Announces an act to the other laptop; always `null` before the pair is supported.
    pub flag: Option<String>,
    /// The steps, in words; the first is under way.
    pub actions: Vec<String>,
    /// Why it waits, is blocked or failed.
    pub reason: Option<String>,
    /// What a person can do.
    pub hint: Option<String>,
    /// The token that would allow a blocked step; always `null` before consent is supported.
    pub consent: Option<String>,
}

/// Whether the application may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateSection {
    /// `open`, `holding` or `closed`.
    pub state: String,
    /// Why.
    pub reason: String,
}

/// How a plan stands.
pub fn plan_section(plan: &Plan, failure: Option<&Failure>) -> PlanSection {
    let actions: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{}: {}", step.action, step.reason))
        .collect();
    let (end, reason, hint) = match &plan.end {
        End::Converged => (PlanState::Converged, None, None),
        End::Waiting(waiting) => (PlanState::Waiting, Some(waiting.to_string()), waiting.hint()),
        End::Blocked(blocked) => (
            PlanState::Blocked,
            Some(blocked.to_string()),
            Some(blocked.hint()),
        ),
    };
    let (state, reason, hint) = match (failure, actions.is_empty()) {
        (Some(failure), false) => (
            PlanState::Failed,
            Some(failure.error.clone()),
            failure.hint.clone(),
        ),
        (None, false) => (PlanState::Converging, reason, hint),
        (_, true) => (end, reason, hint),
    };
    PlanSection {
        state,
        flag: None,
        actions,
        reason,
        hint,
        consent: None,
    }
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
        server: server(observed),
        peer: match &observed.peer {
            Peer::None => json!({"declared": false}),
            Peer::Unknown { why } => {
                json!({"declared": true, "reachable": false, "reason": why, "role": null, "server": null, "flag": null})
            }
        },
        handed_over: None,
        plan: plan_section(plan, failure),
        gate: GateSection {
            state: gate.word().to_owned(),
            reason: gate.reason().to_owned(),
        },
        app: desired.racedb.is_some().then(|| app(observed, now)),
    }
}

fn data(observed: &Observed) -> serde_json::Value {
    let data = match &observed.data.fact {
        Fact::Known(data) => data,
        Fact::Unknown(why) => return json!({"state": "unknown", "reason": why}),
    };
    // While the server runs, its word counts: the marks on disk of a running server look like a crash.
    let state = match observed.server_state() {
        Fact::Known(Server::Writable) => Data::Primary { crashed: false },
        _ => data.state(),
    };
    let (word, crashed) = match state {
        Data::Empty => ("empty", false),
        Data::NotOurs(_) => ("not_ours", false),
        Data::Tainted => ("tainted", false),
        Data::Primary { crashed } => ("primary", crashed),
        Data::Replica => ("replica", false),
        Data::Recovering => ("recovering", false),
        Data::Unclear(_) => ("unclear", false),
    };
    let lineage = observed.lineage();
    json!({
        "state": word,
        "crashed": crashed,
        "position_proven": lineage.as_ref().is_some_and(|lineage| lineage.position.is_some()),
        "system_identifier": lineage.as_ref().map(|lineage| &lineage.system_identifier),
        "timeline": lineage.as_ref().map(|lineage| lineage.timeline),
        "major": data.cluster().map(|cluster| cluster.major),
        "epochs": lineage
            .map(|lineage| lineage.epochs.iter().map(|epoch| epoch.uuid).collect::<Vec<_>>())
            .unwrap_or_default(),
    })
}

fn server(observed: &Observed) -> serde_json::Value {
    let running = observed.running();
    let facts = observed.server_facts();
    let (state, reason) = match observed.server_state() {
        Fact::Known(server) => (server.to_string(), None),
        Fact::Unknown(why) => ("unknown".to_owned(), Some(why)),
    };
    json!({
        "state": state,
        "reason": reason,
        "streaming": facts.is_some_and(|facts| facts.streaming),
        "lsn": facts.map(|facts| facts.lsn),
        "lag_bytes": null,
        "pid": running.map(|running| running.pid),
        "port": running.map(|running| running.port),
        "version": facts.map(|facts| &facts.version),
        "pending_restart": facts.map(|facts| &facts.pending_restart),
    })
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
        lasting.server["lsn"] = json!(Lsn::default());
        if let Some(app) = &mut lasting.app {
            app["starts_again_in_s"] = json!(null);
        }
        lasting
    }
}
