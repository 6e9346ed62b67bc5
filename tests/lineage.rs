//! The relation of two copies, against what the two really hold: every pair of copies out of a small tree of histories with
//! timelines that collide, promotions by hand, copies that were given up, restored and foreign ones.

use paceline::lineage::{Epoch, Held, Lineage, Lsn, Position, Relation, relation};
use uuid::Uuid;

/// An epoch of the tree.
#[derive(Clone, Copy, Debug)]
struct Branch {
    name: u128,
    parent: u128,
    timeline: u32,
    begin: u64,
    supersedes: u128,
}

/// Two promotions of the same copy to the same timeline (2 and 3), with others on top of them; 6 was begun by consent and
/// gave 2 up; 7 is the epoch of a recovery to an earlier moment, on a timeline that was never used.
const TREE: [Branch; 7] = [
    branch(1, 0, 1, 0, 0),
    branch(2, 1, 2, 20, 0),
    branch(3, 1, 2, 20, 0),
    branch(4, 2, 3, 30, 0),
    branch(5, 3, 3, 30, 0),
    branch(6, 1, 2, 20, 2),
    branch(7, 1, 9, 10, 0),
];

const fn branch(name: u128, parent: u128, timeline: u32, begin: u64, supersedes: u128) -> Branch {
    Branch {
        name,
        parent,
        timeline,
        begin,
        supersedes,
    }
}

/// From the first epoch to this one.
fn path(name: u128) -> Vec<Branch> {
    let last = *TREE.iter().find(|branch| branch.name == name).expect("a branch");
    let mut path = if last.parent == 0 {
        Vec::new()
    } else {
        path(last.parent)
    };
    path.push(last);
    path
}

fn epoch(branch: Branch) -> Epoch {
    let id = |name: u128| (name != 0).then(|| Uuid::from_u128(name));
    Epoch {
        uuid: Uuid::from_u128(branch.name),
        parent: id(branch.parent),
        supersedes: id(branch.supersedes).into_iter().collect(),
        begin_lsn: Lsn(branch.begin),
        timeline: branch.timeline,
        node: "alpha".to_owned(),
        time: String::new(),
    }
}

/// A copy: where it is, and how much of that is proven and recorded.
#[derive(Clone, Debug)]
struct Copy {
    path: Vec<Branch>,
    position: u64,
    proven: bool,
    lineage: Lineage,
}

fn copies() -> Vec<Copy> {
    let mut copies = Vec::new();
    for name in 1..=7 {
        let path = path(name);
        let last = *path.last().expect("not empty");
        for beyond in [0, 5, 15] {
            for proven in [true, false] {
                let position = last.begin + beyond;
                let epochs: Vec<Epoch> = path.iter().copied().map(epoch).collect();
                copies.push(Copy {
                    path: path.clone(),
                    position,
                    proven,
                    lineage: Lineage {
                        system_identifier: "7".to_owned(),
                        epochs,
                        timeline: last.timeline,
                        position: proven.then_some(Lsn(position)),
                    },
                });
            }
        }
    }
    copies
}

fn mirrored(relation: &Relation) -> Relation {
    match relation {
        Relation::Same(Position::Behind) => Relation::Same(Position::Ahead),
        Relation::Same(Position::Ahead) => Relation::Same(Position::Behind),
        Relation::Older(held) => Relation::Newer(*held),
        Relation::Newer(held) => Relation::Older(*held),
        other => other.clone(),
    }
}

/// What the two really are to each other.
fn truth(ours: &Copy, theirs: &Copy) -> Relation {
    let names = |copy: &Copy| copy.path.iter().map(|branch| branch.name).collect::<Vec<_>>();
    let (one, other) = (names(ours), names(theirs));
    if one == other {
        return Relation::Same(
            match (ours.proven && theirs.proven, ours.position.cmp(&theirs.position)) {
                (false, _) => Position::Unproven,
                (true, std::cmp::Ordering::Less) => Position::Behind,
                (true, std::cmp::Ordering::Equal) => Position::Equal,
                (true, std::cmp::Ordering::Greater) => Position::Ahead,
            },
        );
    }
    // Of the shorter one, what lies beyond the place at which the longer one went on.
    let held = |short: &Copy, long: &Copy| {
        let next = long.path[short.path.len()];
        match (short.proven, short.position > next.begin) {
            (false, _) => Held::Unproven,
            (true, true) => Held::Something,
            (true, false) => Held::Nothing,
        }
    };
    if other.starts_with(&one) {
        return Relation::Older(held(ours, theirs));
    }
    if one.starts_with(&other) {
        return Relation::Newer(held(theirs, ours));
    }
    let gives_up = |by: &Copy, of: &[u128]| by.path.iter().any(|branch| of.contains(&branch.supersedes));
    match (gives_up(theirs, &one), gives_up(ours, &other)) {
        (true, false) => Relation::Older(Held::Something),
        (false, true) => Relation::Newer(Held::Something),
        _ => Relation::Twins,
    }
}

#[test]
fn every_pair_of_copies_is_told_right() {
    let copies = copies();
    let mut kinds = std::collections::BTreeSet::new();
    for ours in &copies {
        for theirs in &copies {
            let told = relation(&ours.lineage, &theirs.lineage);
            assert_eq!(told, truth(ours, theirs), "{ours:?}\n{theirs:?}");
            let back = relation(&theirs.lineage, &ours.lineage);
            assert_eq!(
                back,
                mirrored(&told),
                "seen from the other side: {ours:?}\n{theirs:?}"
            );
            kinds.insert(format!("{told:?}"));
        }
    }
    // Behind, equal, ahead, unproven; older and newer with nothing, something and unproven; twins.
    assert_eq!(kinds.len(), 11, "{kinds:?}");
}

/// What is only known of does not count as held: a follower writes the names of newer epochs down beforehand.
#[test]
fn names_that_were_only_noted_change_nothing() {
    let copies = copies();
    for ours in copies.iter().filter(|copy| copy.path.len() < 3) {
        for more in TREE
            .iter()
            .filter(|more| more.parent == ours.path.last().expect("last").name)
        {
            let mut noted = ours.clone();
            noted.lineage.epochs.push(epoch(*more));
            for theirs in &copies {
                assert_eq!(
                    relation(&noted.lineage, &theirs.lineage),
                    relation(&ours.lineage, &theirs.lineage)
                );
            }
        }
    }
}

/// A promotion by hand, or a crash between the promotion and the row of its epoch, leaves a timeline without a name: nothing
/// is concluded, least of all "the same". Another database is a stranger, whatever the epochs are called.
#[test]
fn what_has_no_name_is_unknown_and_what_is_foreign_a_stranger() {
    let copies = copies();
    for ours in &copies {
        let mut unnamed = ours.clone();
        unnamed.lineage.timeline += 1;
        let mut never_named = ours.clone();
        never_named.lineage.epochs.clear();
        let mut foreign = ours.clone();
        foreign.lineage.system_identifier = "8".to_owned();
        for theirs in &copies {
            for nameless in [&unnamed, &never_named] {
                assert!(matches!(
                    relation(&nameless.lineage, &theirs.lineage),
                    Relation::Unknown(_)
                ));
                assert!(matches!(
                    relation(&theirs.lineage, &nameless.lineage),
                    Relation::Unknown(_)
                ));
            }
            assert_eq!(relation(&foreign.lineage, &theirs.lineage), Relation::Stranger);
            assert_eq!(relation(&theirs.lineage, &foreign.lineage), Relation::Stranger);
        }
    }
}
