//! What the exhaustive product cannot have: every combination of facts, with any of them missing and positions anywhere.
//! Found cases are kept beside this file.

use paceline::desired::Role;
use paceline::lineage::Lsn;
use paceline::observed::{Answer, Fact, Flag, Observed, Peer};
use paceline::plan::{End, Gate, check, gate, plan};
use proptest::prelude::*;

use super::product::{EXTRAS, Extra, Heard, SERVERS, all_data, known, silent};
use super::world::{Copy, ROLES, ago, desired, now, shown};

/// Facts that are taken away, by number.
fn blind(observed: &mut Observed, which: u8) {
    let why = || "blind".to_owned();
    match which {
        0 => observed.data.fact = Fact::Unknown(why()),
        1 => observed.postmaster.fact = Fact::Unknown(why()),
        2 => observed.server.fact = Fact::Unknown(why()),
        3 => observed.configuration.fact = Fact::Unknown(why()),
        4 => observed.database.fact = Fact::Unknown(why()),
        5 => observed.installations.fact = Fact::Unknown(why()),
        6 => observed.remembered.fact = Fact::Unknown(why()),
        7 => observed.server_user.fact = Fact::Unknown(why()),
        8 => observed.replication.fact = Fact::Unknown(why()),
        9 => observed.secret.fact = Fact::Unknown(why()),
        10 => observed.peer_memory.fact = Fact::Unknown(why()),
        11 => observed.handover_intention.fact = Fact::Unknown(why()),
        12 => observed.consents.fact = Fact::Unknown(why()),
        _ => {}
    }
}

fn position() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        (1..100_u64).prop_map(Some),
        any::<u64>().prop_map(Some)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Total, deterministic, without a fault, with words for a person; and never an open gate beside a step that touches the
    /// server.
    #[test]
    fn any_facts_have_an_answer(
        role in prop::sample::select(&ROLES[..]),
        data in prop::sample::select(all_data()),
        server in prop::sample::select(&SERVERS[..]),
        other in prop::sample::select([silent(), known()].concat()),
        extra in prop::sample::select([&EXTRAS[..], &[Extra::Nothing, Extra::Given, Extra::Granted]].concat()),
        flag in prop::option::of(prop::sample::select(&[Flag::Starting, Flag::Taking][..])),
        missing in prop::collection::vec(0..20_u8, 0..4),
        ours in position(),
        theirs in position(),
        (served, ending, paused) in any::<(bool, bool, bool)>(),
    ) {
        let mut desired = desired(role, !matches!(other, super::product::Other::None));
        desired.paused = paused;
        let announced = flag.map(|flag| (flag, Heard::Repeated));
        let mut observed = other.seen(&mut Copy::new(data, server), announced, &desired);
        desired.paused = false;
        // What cannot be so here is left out.
        let _possible = extra.apply(&mut desired, &mut observed);
        desired.paused = paused;
        if let (Some(lsn), Fact::Known(Answer::Facts(facts))) = (ours, &mut observed.server.fact) {
            facts.lsn = Lsn(lsn);
        }
        if let Peer::Known(facts) = &mut observed.peer
            && let Some(lineage) = &mut facts.lineage
        {
            lineage.position = theirs.map(Lsn);
        }
        for which in missing {
            blind(&mut observed, which);
        }
        (observed.served, observed.ending) = (served, ending);
        let planned = plan(&desired, &observed, now());
        prop_assert_eq!(&planned, &plan(&desired, &observed, now()));
        if let Err(fault) = check(&desired, &observed, &planned, now()) {
            return Err(TestCaseError::fail(format!("{fault}: {}", shown(&planned))));
        }
        if let End::Blocked(blocked) = &planned.end {
            prop_assert!(!blocked.hint().is_empty() && !blocked.to_string().is_empty());
        }
        if role == Role::Recovery && !ending {
            prop_assert!(planned.steps.iter().all(|step| step.action.name() != "create_cluster"));
        }
        for previous in [Gate::Open, Gate::closed("test"), Gate::Holding { since: ago(1), reason: "test".to_owned() }] {
            let judged = gate(&previous, &desired, &observed, &planned, now());
            let touches = planned.steps.iter().any(|step| step.action.touches_server());
            prop_assert!(!(judged.is_open() && touches && !paused), "{}", shown(&planned));
        }
    }
}
