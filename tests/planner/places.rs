//! Two laptops that change places, and what persons consent to: undisturbed, and disturbed at every step.

use std::collections::HashSet;

use paceline::desired::Role;
use paceline::lineage::Relation;
use paceline::observed::{Data, Server};
use paceline::plan::Danger;

use super::explorer::{bases, describe, explore, settle, walk};
use super::laptops::{Begun, NAMES, Node, World};

const CLEAN: Data = Data::Primary { crashed: false };

/// A pair that runs and is told to change places, in either order of the two edits: crashes, power cuts, links and second
/// thoughts at every step.
#[test]
fn two_laptops_that_change_places() {
    let running = |roles: [Role; 2], accidents, edits| {
        let read_only = Server::ReadOnly { streaming: false };
        let alpha = Node::new(roles[0], Data::Primary { crashed: true }, Server::Writable);
        let bravo = Node::new(roles[1], Data::Replica, read_only);
        World::new([alpha, bravo], accidents, edits)
    };
    let starts = vec![
        running([Role::Standby, Role::Primary], 2, 1),
        running([Role::Primary, Role::Standby], 1, 3),
        running([Role::Standby, Role::Failover], 2, 1),
        running([Role::Standby, Role::Standby], 2, 2),
    ];
    explore(starts.clone(), false, 18, 8_000);
    explore(starts.clone(), true, 14, 8_000);
    let happened = walk(&starts, true, 1500, 80);
    assert!(
        happened.handovers > 200 && happened.promotions > 200 && happened.rejoins > 0,
        "{}, {}, {}",
        happened.handovers,
        happened.promotions,
        happened.rejoins
    );
}

/// Alpha writes, bravo follows, and both know it.
fn in_service(roles: [Role; 2], accidents: u8, edits: u8) -> World {
    let [alpha, bravo] = roles;
    let nodes = [
        Node::new(alpha, CLEAN, Server::Writable),
        Node::new(bravo, Data::Replica, Server::ReadOnly { streaming: false }),
    ];
    let mut world = World::new(nodes, accidents, edits);
    world.careful = true;
    settle(&world, &bases()).pop().expect("itself")
}

/// Every state on the way of a handover, in both orders of the two edits.
fn handovers(accidents: u8, edits: u8) -> Vec<World> {
    let bases = bases();
    let mut on_the_way = Vec::new();
    for order in [
        [(0, Role::Standby), (1, Role::Primary)],
        [(1, Role::Primary), (0, Role::Standby)],
    ] {
        for patient in [true, false] {
            let mut world = in_service([Role::Primary, Role::Standby], accidents, edits);
            for (number, role) in order {
                world.nodes[number].role = role;
                if patient {
                    let way = settle(&world, &bases);
                    world = way.last().expect("itself").clone();
                    on_the_way.extend(way);
                }
            }
            let way = settle(&world, &bases);
            let end = way.last().expect("itself");
            let [alpha, bravo] = &end.nodes;
            assert!(
                bravo.server == Server::Writable
                    && matches!(alpha.server, Server::ReadOnly { .. })
                    && alpha.epochs == bravo.epochs
                    && alpha.position == bravo.position,
                "no handover:\n{}",
                describe(end, &bases)
            );
            on_the_way.extend(way);
        }
    }
    let mut seen = HashSet::new();
    on_the_way.retain(|world| seen.insert(world.clone()));
    on_the_way
}

/// From the first edit to the last look: a server crashes, power is cut, the link goes, a person changes her mind, at
/// every step. Nothing that was acknowledged is lost, and it always ends with a writer or with a person told what to do.
#[test]
fn a_handover_that_is_disturbed_at_every_step_loses_nothing() {
    let starts = handovers(2, 1);
    assert!(starts.len() > 20, "only {} states on the way", starts.len());
    explore(starts.clone(), true, 6, 15_000);
    walk(&starts, true, 1500, 60);
}

/// Beside a laptop that took over, that has other writes, or that may have: what a person consents to is carried through to
/// its end, whatever the steps on the way make of the copy.
#[test]
fn a_consent_is_carried_through() {
    let bases = bases();
    let (mut carried, mut stuck) = (0, Vec::new());
    for world in conflicts() {
        let world = settle(&world, &bases).pop().expect("itself");
        for number in [0, 1] {
            let Some(offer) = world.plan(number, &bases).offer else {
                continue;
            };
            let mut consenting = world.clone();
            consenting.nodes[number].consented.word = Some(offer.token.clone());
            let end = settle(&consenting, &bases).pop().expect("itself");
            let (node, other) = (&end.nodes[number], &end.nodes[1 - number]);
            let done = match offer.danger {
                Danger::KeepThisCopy => {
                    node.server == Server::Writable && node.timeline > world.nodes[number].timeline
                }
                Danger::GiveUpThisCopy => {
                    matches!(node.server, Server::ReadOnly { .. }) && node.epochs == other.epochs
                }
                Danger::NewDatabase => node.server == Server::Writable,
                Danger::Restore => false,
            };
            // Together again, the two are no twins, unless nobody could know what was given up.
            let unknown = node.memory.as_ref().map(|shown| &shown.epochs) != Some(&other.epochs);
            let mut met = end.clone();
            met.link = true;
            let met = settle(&met, &bases).pop().expect("itself");
            carried += 1;
            let twins = met.relation() == Some(Relation::Twins) && !unknown;
            if !done || node.consented.used != [offer.token] || twins {
                stuck.push(format!(
                    "{:?} by {}, link {}:\n{}\nto:\n{}\nmet:\n{}",
                    offer.danger,
                    NAMES[number],
                    world.link,
                    describe(&world, &bases),
                    describe(&end, &bases),
                    describe(&met, &bases)
                ));
            }
        }
    }
    assert!(
        stuck.is_empty(),
        "{} of {carried}\n{}",
        stuck.len(),
        stuck.join("\n\n")
    );
    assert!(carried > 20, "only {carried} consents");
}

/// Likewise with crashes, power cuts and a link that goes and comes at every step.
#[test]
fn a_consent_that_is_disturbed_ends_with_a_writer_or_a_word() {
    let bases = bases();
    let mut starts = Vec::new();
    for world in conflicts() {
        let mut world = settle(&world, &bases).pop().expect("itself");
        if [0, 1]
            .iter()
            .any(|number| world.plan(*number, &bases).offer.is_some())
        {
            (world.consents, world.accidents) = (true, 3);
            starts.push(world);
        }
    }
    assert!(starts.len() > 20, "only {} situations", starts.len());
    let happened = walk(&starts, true, 1500, 50);
    assert!(happened.consents > 200 && happened.promotions > 200);
}

/// What a person may have to decide about: copies that were written to apart, that are superseded, that may be.
fn conflicts() -> Vec<World> {
    let copies: [(Data, Server); 4] = [
        (CLEAN, Server::Down),
        (Data::Primary { crashed: true }, Server::Down),
        (Data::Primary { crashed: true }, Server::Writable),
        (Data::Replica, Server::ReadOnly { streaming: false }),
    ];
    // The epochs of alpha and of bravo: twins, alpha superseded, the same.
    let histories: [[&[u128]; 2]; 3] = [[&[1, 2], &[1, 3]], [&[1], &[1, 2]], [&[1], &[1]]];
    let roles = [Role::Primary, Role::Standby, Role::Failover];
    let mut worlds = Vec::new();
    for number in 0..(4 * 4 * 3 * 3 * 3 * 2) {
        let mut rest: usize = number;
        let mut draw = |from: usize| {
            let drawn = rest % from;
            rest /= from;
            drawn
        };
        let copies = [&copies[draw(4)], &copies[draw(4)]];
        let history = histories[draw(3)];
        if copies[0].1 == Server::Writable && copies[1].1 == Server::Writable && history[0] == history[1] {
            continue;
        }
        let nodes = [0, 1].map(|number| {
            let (data, server) = copies[number];
            let mut node = Node::new(roles[draw(3)], data.clone(), *server);
            node.epochs = history[number].to_vec();
            node.timeline = if node.epochs.len() == 1 { 1 } else { 2 };
            node.position = 10 + u64::from(node.timeline);
            node
        });
        let mut world = World::new(nodes, 0, 0);
        world.begins.extend([2, 3].map(|name| Begun {
            name,
            at: 10,
            parent: 1,
            supersedes: Vec::new(),
        }));
        // Each knew the other one before.
        for number in [0, 1] {
            world.nodes[number].memory = Some(world.show(1 - number));
        }
        world.link = draw(2) == 0;
        worlds.push(world);
    }
    worlds
}
