//! The plan as it is shown: what is done, why it stops, what a person can do, and what a dangerous step may lose.

use serde::{Deserialize, Serialize};

use crate::lineage::{Epoch, Lineage, Lsn};
use crate::observed::{Flag, Moment, Observed, Peer};
use crate::plan::{End, Loss, Plan};
use crate::sys::clock;

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

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSection {
    /// In one word.
    pub state: PlanState,
    /// What we announce to the other laptop before it is done.
    pub flag: Option<Flag>,
    /// How far the step that takes long has come, in words.
    pub progress: Option<String>,
    /// The steps, in words; the first is under way.
    pub actions: Vec<String>,
    /// Why it waits, is blocked or failed.
    pub reason: Option<String>,
    /// What a person can do.
    pub hint: Option<String>,
    /// The token that would allow a blocked step, written as `consent` in the state file; `null`: none is asked for.
    pub consent: Option<String>,
    /// What that token would allow.
    #[serde(default)]
    pub danger: Option<String>,
    /// What that step may lose.
    #[serde(default)]
    pub loss: Option<LossSection>,
}

impl PlanSection {
    /// Says how far the step under way has come, if one is that takes long. What a look sees in the middle of it (a copy
    /// that is half-made, a tool at work) is nothing that anybody waits for.
    pub fn under_way(&mut self, progress: Option<String>) {
        if progress.is_some() && self.actions.is_empty() {
            self.state = PlanState::Converging;
            self.reason = None;
            self.hint = None;
        }
        self.progress = progress;
    }
}

/// How far this copy goes, and how far the other laptop's was last known to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossSection {
    /// Position of this copy; `null`: not proven before its server runs.
    pub position: Option<Lsn>,
    /// When the last transaction in this copy was committed, as PostgreSQL writes times.
    pub replayed_until: Option<String>,
    /// Last known position of the other laptop's copy.
    pub peer_position: Option<Lsn>,
    /// When that was known, RFC 3339.
    pub peer_seen: Option<String>,
    /// How many bytes of WAL the other laptop's copy was last known to hold that this one lacks; `null`: not known.
    #[serde(default)]
    pub missing_bytes: Option<u64>,
}

/// How a plan stands.
pub fn plan_section(plan: &Plan, failure: Option<&Failure>, observed: &Observed, now: Moment) -> PlanSection {
    let actions: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{}: {}", step.action, step.reason))
        .collect();
    let (end, reason, hint) = match &plan.end {
        End::Converged => (
            PlanState::Converged,
            None,
            plan.advice.as_ref().map(ToString::to_string),
        ),
        End::Waiting(waiting) => (PlanState::Waiting, Some(waiting.to_string()), waiting.hint()),
        End::Blocked(blocked) => (
            PlanState::Blocked,
            Some(blocked.to_string()),
            Some(blocked.hint()),
        ),
    };
    // Of a step that is not asked for any more nobody wants to hear.
    let failure = failure.filter(|failure| {
        plan.first()
            .is_some_and(|step| step.action.name() == failure.action)
    });
    let (state, reason, hint) = match (failure, actions.is_empty()) {
        (Some(failure), false) => (
            PlanState::Failed,
            Some(failure.error.clone()),
            failure.hint.clone(),
        ),
        (None, false) => (PlanState::Converging, reason, hint),
        (_, true) => (end, reason, hint),
    };
    let offer = plan.offer.as_deref();
    PlanSection {
        state,
        flag: plan.flag,
        progress: None,
        actions,
        reason,
        hint,
        consent: offer.map(|offer| offer.token.clone()),
        danger: offer.map(|offer| offer.danger.to_string()),
        loss: offer
            .and_then(|offer| offer.loss.as_ref())
            .map(|loss| shown(loss, observed, now)),
    }
}

fn shown(loss: &Loss, observed: &Observed, now: Moment) -> LossSection {
    let ago = |since| clock::timestamp_before(now.since(since));
    LossSection {
        position: loss.position,
        replayed_until: loss.replayed_until.clone(),
        peer_position: loss.peer_position,
        peer_seen: loss.peer_silent_since.map(ago).or(loss.peer_seen.clone()),
        missing_bytes: missing(loss, observed),
    }
}

/// What the other laptop's copy is known to hold beyond ours.
fn missing(loss: &Loss, observed: &Observed) -> Option<u64> {
    let ours = observed.lineage()?;
    let theirs = match &observed.peer {
        Peer::Known(facts) => facts.lineage.as_ref()?,
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => {
            observed.peer_memory.known()?.as_ref()?.lineage.as_ref()?
        }
    };
    beyond(&ours, loss.position, theirs, loss.peer_position?)
}

/// So many bytes of their history, up to a position, are not in ours: from our end on, or from where theirs leaves ours, if
/// that is earlier. `None`: the two cannot be compared, or our end is not known.
fn beyond(ours: &Lineage, our_end: Option<Lsn>, theirs: &Lineage, their_end: Lsn) -> Option<u64> {
    if ours.system_identifier != theirs.system_identifier {
        return None;
    }
    let held = |epoch: &Epoch| ours.held().any(|held| held.uuid == epoch.uuid);
    let leaves = theirs.held().find(|epoch| !held(epoch));
    let from = match leaves {
        Some(epoch) => our_end?.min(epoch.begin_lsn),
        None => our_end?,
    };
    Some(their_end.0.saturating_sub(from.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    /// Epochs as (name, timeline, begin).
    fn lineage(epochs: &[(u128, u32, u64)]) -> Lineage {
        let epoch = |&(name, timeline, begin): &(u128, u32, u64)| Epoch {
            uuid: Uuid::from_u128(name),
            parent: None,
            supersedes: Vec::new(),
            begin_lsn: Lsn(begin),
            timeline,
            node: "alpha".to_owned(),
            time: "2026-06-06T14:05:00Z".to_owned(),
        };
        Lineage {
            system_identifier: "7".to_owned(),
            epochs: epochs.iter().map(epoch).collect(),
            timeline: epochs.last().map_or(1, |last| last.1),
            position: None,
        }
    }

    #[test]
    fn what_is_missing_counts_from_where_the_histories_part() {
        let first = (1, 1, 0);
        let ours = lineage(&[first]);
        for (theirs, our_end, their_end, missing) in [
            // One history: what is beyond our end.
            (lineage(&[first]), Some(100), 150, Some(50)),
            (lineage(&[first]), Some(100), 90, Some(0)),
            // They went on elsewhere before our end: all of that.
            (lineage(&[first, (2, 2, 80)]), Some(100), 150, Some(70)),
            // Or after it.
            (lineage(&[first, (2, 2, 120)]), Some(100), 150, Some(50)),
            (lineage(&[first]), None, 150, None),
            (lineage(&[first, (2, 2, 80)]), None, 150, None),
        ] {
            let counted = beyond(&ours, our_end.map(Lsn), &theirs, Lsn(their_end));
            assert_eq!(counted, missing, "{theirs:?}");
        }
        // Twins: the same timeline, another epoch.
        let (one, other) = (lineage(&[first, (2, 2, 80)]), lineage(&[first, (3, 2, 80)]));
        assert_eq!(beyond(&one, Some(Lsn(500)), &other, Lsn(150)), Some(70));
        let stranger = Lineage {
            system_identifier: "8".to_owned(),
            ..lineage(&[first])
        };
        assert_eq!(beyond(&ours, Some(Lsn(100)), &stranger, Lsn(150)), None);
    }
}
