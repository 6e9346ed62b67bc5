//! Where two laptops get to from what may be found in the morning: both were off, one lost its disk, two copies of one epoch.

use paceline::desired::Role;
use paceline::observed::{Data, Server};

use super::explorer::{explore, walk};
use super::laptops::{Begun, Node, World};

/// Both were off, clean; every pair of roles.
fn off(data: &[Data; 2], accidents: u8, edits: u8) -> Vec<World> {
    let roles = [Role::Primary, Role::Standby, Role::Failover];
    let mut worlds = Vec::new();
    for one in roles {
        for two in roles {
            let node = |role, data: &Data| match data {
                Data::Empty => Node::empty(role),
                data => Node::new(role, data.clone(), Server::Down),
            };
            let nodes = [node(one, &data[0]), node(two, &data[1])];
            worlds.push(World::new(nodes, accidents, edits));
        }
    }
    worlds
}

const CLEAN: Data = Data::Primary { crashed: false };

#[test]
fn two_laptops_that_see_each_other_never_both_write() {
    let mut starts = off(&[CLEAN, Data::Replica], 1, 2);
    starts.extend(off(&[Data::Replica, Data::Replica], 1, 2));
    starts.extend(off(&[CLEAN, Data::Empty], 1, 1));
    starts.extend(off(&[Data::Empty, Data::Empty], 1, 1));
    explore(starts.clone(), false, 14, 9_000);
    let happened = walk(&starts, false, 1500, 60);
    assert!(happened.promotions > 100 && happened.starts > 100);
}

#[test]
fn two_laptops_with_a_link_that_goes_and_comes() {
    let mut starts = off(&[CLEAN, Data::Replica], 4, 3);
    starts.extend(off(&[Data::Replica, CLEAN], 4, 3));
    explore(starts.clone(), true, 16, 9_000);
    let happened = walk(&starts, true, 1500, 80);
    assert!(happened.promotions > 100 && happened.starts > 100 && happened.rejoins > 10);
}

/// A laptop lost its disk, or was put back from a cupboard; every pair of roles.
#[test]
fn two_laptops_of_which_one_has_lost_its_copy() {
    let mut starts = off(&[Data::Empty, Data::Replica], 1, 2);
    starts.extend(off(&[Data::Tainted, Data::Replica], 1, 2));
    starts.extend(off(&[Data::Tainted, CLEAN], 1, 1));
    explore(starts.clone(), false, 12, 8_000);
    // A standby's copy that is newer than a primary's.
    let mut newer = off(&[CLEAN, Data::Replica], 0, 1);
    for world in &mut newer {
        world.begins.push(Begun {
            name: 2,
            at: 10,
            parent: 1,
            supersedes: Vec::new(),
        });
        let node = &mut world.nodes[1];
        (node.epochs, node.timeline, node.position) = (vec![1, 2], 2, 12);
    }
    explore(newer, false, 10, 4_000);
}

/// Made by hand: two primary's copies of one epoch. One gives way to the other's announcement.
#[test]
fn two_primary_copies_of_one_epoch_never_both_start() {
    let starts = off(&[CLEAN, CLEAN], 1, 1);
    explore(starts.clone(), false, 12, 8_000);
    walk(&starts, false, 1000, 40);
}
