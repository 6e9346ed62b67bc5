//! The gate over every combination of facts.

use paceline::lineage::Relation;
use paceline::observed::{Data, Peer, Server, Unanswered};
use paceline::plan::{Gate, Plan, gate};

use super::product::Case;
use super::properties::{Verdict, ensure};
use super::world::{ago, consented, now};

fn before() -> [Gate; 3] {
    [
        Gate::Open,
        Gate::closed("test"),
        Gate::Holding {
            since: ago(1),
            reason: "test".to_owned(),
        },
    ]
}

pub fn open_only_when_all_is_well(case: &Case<'_>, plan: &Plan) -> Verdict {
    for previous in before() {
        let judged = gate(&previous, case.desired, &case.observed, plan, now());
        if case.observed.superseded() {
            ensure(
                matches!(judged, Gate::Closed { .. }),
                &format!("superseded, and {}", judged.word()),
            )?;
        }
        if !judged.is_open() {
            continue;
        }
        ensure(case.server == Server::Writable, "open, and not writable")?;
        ensure(
            matches!(case.data, Data::Primary { .. } | Data::Unclear(_)),
            "open over a copy that is no primary's",
        )?;
        ensure(
            !plan.steps.iter().any(|step| step.action.touches_server()),
            "open beside a step that touches the server",
        )?;
        let asked =
            !matches!(&case.observed.peer, Peer::Unknown(silence) if silence.how == Unanswered::NotYet);
        ensure(asked, "open before the other laptop was asked")?;
    }
    Ok(())
}

pub fn twins_change_nothing(case: &Case<'_>, plan: &Plan) -> Verdict {
    let conflict = matches!(
        case.observed.relation(),
        Some(Relation::Twins | Relation::Stranger)
    );
    let asked = !matches!(&case.observed.peer, Peer::Unknown(silence) if silence.how == Unanswered::NotYet);
    let serves = matches!(case.data, Data::Primary { .. }) && case.server == Server::Writable;
    // A person chose to give this one up.
    let gives_up =
        consented(&case.observed, plan) && plan.steps.iter().any(|step| step.action.touches_server());
    if !conflict || !asked || !serves || gives_up || case.observed.superseded() {
        return Ok(());
    }
    let judge = |previous: &Gate| gate(previous, case.desired, &case.observed, plan, now());
    ensure(judge(&Gate::Open) == Gate::Open, "an open gate closes")?;
    ensure(
        matches!(judge(&Gate::closed("test")), Gate::Closed { .. }),
        "a closed gate opens",
    )
}
