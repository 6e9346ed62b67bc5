//! How two copies of a database stand to each other, from their epochs and positions alone. Pure.
//!
//! PostgreSQL's timeline numbers and history files cannot tell two laptops apart that were both promoted
//! (POSTGRES-FACTS 2); the names of the epochs can. What cannot be proven is said to be unproven, never guessed.

use super::{Epoch, Lineage, Lsn};

/// How our copy stands to the other laptop's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same history so far.
    Same(Position),
    /// The other one has newer epochs; our history is the beginning of its own. With [`Held::Nothing`] beyond the
    /// fork, ours is an *ancestor*; with [`Held::Something`] it is *forked*.
    Older(Held),
    /// The other way round: ours has newer epochs than the other one.
    Newer(Held),
    /// Each has epochs that the other one lacks, and neither was told to supersede the other.
    Twins,
    /// Another database altogether.
    Stranger,
    /// It cannot be told: why.
    Unknown(String),
}

/// Our position, next to one on the same history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// We have less.
    Behind,
    /// Both have the same.
    Equal,
    /// We have more.
    Ahead,
    /// One of the two is not proven.
    Unproven,
}

/// What the older copy holds that is not part of the newer one's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Nothing: it can simply follow.
    Nothing,
    /// Something: that would be lost.
    Something,
    /// Its position is not proven.
    Unproven,
}

/// How `ours` stands to `theirs`.
pub fn relation(ours: &Lineage, theirs: &Lineage) -> Relation {
    if ours.system_identifier != theirs.system_identifier {
        return Relation::Stranger;
    }
    let (our_path, their_path) = match (named_path(ours), named_path(theirs)) {
        (Ok(our_path), Ok(their_path)) => (our_path, their_path),
        (Err(timeline), _) => {
            return Relation::Unknown(format!("our timeline {timeline} has no recorded name"));
        }
        (_, Err(timeline)) => {
            return Relation::Unknown(format!(
                "the other laptop's timeline {timeline} has no recorded name"
            ));
        }
    };
    let shared = our_path
        .iter()
        .zip(&their_path)
        .take_while(|(one, other)| one.uuid == other.uuid)
        .count();
    match (&our_path[shared..], &their_path[shared..]) {
        ([], []) => Relation::Same(position(ours.position, theirs.position)),
        ([], [next, ..]) => Relation::Older(held(ours.position, next)),
        ([next, ..], []) => Relation::Newer(held(theirs.position, next)),
        (ours_alone, theirs_alone) => match (
            supersedes(theirs_alone, ours_alone),
            supersedes(ours_alone, theirs_alone),
        ) {
            // A person gave those epochs up, and everything in them.
            (true, false) => Relation::Older(Held::Something),
            (false, true) => Relation::Newer(Held::Something),
            (true, true) | (false, false) => Relation::Twins,
        },
    }
}

/// The epochs up to the copy's timeline, which must have a name. Epochs beyond it are known of, not held.
fn named_path(lineage: &Lineage) -> Result<Vec<&Epoch>, u32> {
    let path: Vec<&Epoch> = lineage.held().collect();
    match path.last() {
        Some(last) if last.timeline == lineage.timeline => Ok(path),
        _ => Err(lineage.timeline),
    }
}

fn position(ours: Option<Lsn>, theirs: Option<Lsn>) -> Position {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours < theirs => Position::Behind,
        (Some(ours), Some(theirs)) if ours > theirs => Position::Ahead,
        (Some(_), Some(_)) => Position::Equal,
        (None, _) | (_, None) => Position::Unproven,
    }
}

fn held(position: Option<Lsn>, next: &Epoch) -> Held {
    match position {
        Some(position) if position <= next.begin_lsn => Held::Nothing,
        Some(_) => Held::Something,
        None => Held::Unproven,
    }
}

/// Whether one of the epochs was begun with the consent to give up one of the others.
fn supersedes(some: &[&Epoch], others: &[&Epoch]) -> bool {
    some.iter()
        .any(|epoch| others.iter().any(|other| epoch.supersedes.contains(&other.uuid)))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Epoch number `name` on this timeline, from this position.
    fn epoch(name: u128, timeline: u32, begin: u64, supersedes: &[u128]) -> Epoch {
        Epoch {
            uuid: Uuid::from_u128(name),
            parent: None,
            supersedes: supersedes.iter().copied().map(Uuid::from_u128).collect(),
            begin_lsn: Lsn(begin),
            timeline,
            node: "alpha".to_owned(),
            time: String::new(),
        }
    }

    fn copy(epochs: &[Epoch], timeline: u32, position: Option<u64>) -> Lineage {
        Lineage {
            system_identifier: "1".to_owned(),
            epochs: epochs.to_vec(),
            timeline,
            position: position.map(Lsn),
        }
    }

    #[test]
    fn the_same_history_is_told_apart_by_position() {
        let a = epoch(1, 1, 0, &[]);
        let at = |position| copy(std::slice::from_ref(&a), 1, position);
        for (ours, theirs, expected) in [
            (Some(5), Some(9), Position::Behind),
            (Some(9), Some(9), Position::Equal),
            (Some(9), Some(5), Position::Ahead),
            (None, Some(5), Position::Unproven),
            (Some(5), None, Position::Unproven),
        ] {
            assert_eq!(relation(&at(ours), &at(theirs)), Relation::Same(expected));
        }
    }

    #[test]
    fn an_older_copy_is_an_ancestor_only_if_that_is_proven() {
        let (a, b) = (epoch(1, 1, 0, &[]), epoch(2, 2, 7, &[]));
        let newer = copy(&[a.clone(), b], 2, Some(9));
        for (position, held) in [
            (Some(7), Held::Nothing),
            (Some(8), Held::Something),
            (None, Held::Unproven),
        ] {
            let older = copy(std::slice::from_ref(&a), 1, position);
            assert_eq!(relation(&older, &newer), Relation::Older(held));
            assert_eq!(relation(&newer, &older), Relation::Newer(held));
        }
    }

    /// A follower writes the names of newer epochs down before it has received any of them.
    #[test]
    fn a_recorded_name_is_not_yet_held() {
        let (a, b) = (epoch(1, 1, 0, &[]), epoch(2, 2, 7, &[]));
        let follower = copy(&[a.clone(), b.clone()], 1, Some(5));
        let primary = copy(&[a, b], 2, Some(9));
        assert_eq!(relation(&follower, &primary), Relation::Older(Held::Nothing));
    }

    /// POSTGRES-FACTS 2: both laptops were promoted, each to timeline 2, with identical history files.
    #[test]
    fn equal_timelines_with_other_names_are_twins() {
        let a = epoch(1, 1, 0, &[]);
        let ours = copy(&[a.clone(), epoch(2, 2, 7, &[])], 2, Some(9));
        let theirs = copy(&[a.clone(), epoch(3, 2, 7, &[])], 2, Some(9));
        assert_eq!(relation(&ours, &theirs), Relation::Twins);
        // Unless a person gave one of them up.
        let consented = copy(&[a, epoch(4, 3, 7, &[2])], 3, Some(9));
        assert_eq!(relation(&ours, &consented), Relation::Older(Held::Something));
        assert_eq!(relation(&consented, &ours), Relation::Newer(Held::Something));
    }

    #[test]
    fn nothing_is_concluded_from_a_timeline_without_a_name() {
        let a = epoch(1, 1, 0, &[]);
        let named = copy(std::slice::from_ref(&a), 1, Some(5));
        let promoted_by_hand = copy(&[a], 2, Some(5));
        assert!(matches!(
            relation(&named, &promoted_by_hand),
            Relation::Unknown(_)
        ));
        assert!(matches!(
            relation(&promoted_by_hand, &named),
            Relation::Unknown(_)
        ));
        let mut other = named.clone();
        other.system_identifier = "2".to_owned();
        assert_eq!(relation(&named, &other), Relation::Stranger);
    }
}
