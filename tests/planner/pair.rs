//! Two laptops in one small world, explored state by state: each publishes its flag, fetches what the other one shows,
//! carries out the first step of its plan; servers crash, laptops lose power, the link goes, a person edits a role. What
//! one laptop has seen of the other may be as old as the protocol allows: only a new look makes it newer.

use std::collections::{HashMap, HashSet, VecDeque};

use paceline::desired::Role;
use paceline::lineage::Relation;
use paceline::observed::{Data, Server};
use paceline::plan::{End, Gate, gate};

use super::laptops::{Bases, NAMES, Node, World};
use super::world::{desired, now, shown};

fn bases() -> Bases {
    NAMES.map(|name| {
        [Role::Primary, Role::Standby, Role::Failover].map(|role| {
            let mut desired = desired(role, true);
            name.clone_into(&mut desired.node);
            desired
        })
    })
}

fn describe(world: &World, bases: &Bases) -> String {
    let one = |number: usize| {
        let node = &world.nodes[number];
        format!(
            "  {}: declared {}, {:?}, {}, epochs {:?} on timeline {} at {}, flag {:?}: {}",
            NAMES[number],
            node.role,
            node.data,
            node.server,
            node.epochs,
            node.timeline,
            node.position,
            node.flag,
            shown(&world.plan(number, bases))
        )
    };
    format!("{}\n{}", one(0), one(1))
}

/// What must hold after every step.
fn wrong(before: &World, what: &str, after: &World, cuts: bool) -> Option<String> {
    let writable = |world: &World, number: usize| world.nodes[number].server == Server::Writable;
    for number in [0, 1] {
        if writable(before, number) || !writable(after, number) || !writable(before, 1 - number) {
            continue;
        }
        // It became writable beside a writable one: only if nobody could see that, or if that one is older.
        let looked = before.nodes[number].view.is_some();
        // A start that began while nobody could see it, beside a promotion likewise, is stopped as soon as it can be.
        let allowed = match relation_of(after, number) {
            Some(Relation::Newer(_)) => what.contains("comes up"),
            Some(Relation::Older(_)) => what.contains("comes up") && cuts,
            _ => false,
        };
        if looked && !allowed {
            return Some("it became writable beside a writable one that answers".to_owned());
        }
    }
    if !cuts && after.relation() == Some(Relation::Twins) {
        return Some("twins, and nobody was ever silent".to_owned());
    }
    let both = writable(after, 0) && writable(after, 1);
    if both && after.nodes[0].epochs == after.nodes[1].epochs {
        return Some("both write the same epoch".to_owned());
    }
    None
}

fn relation_of(world: &World, number: usize) -> Option<Relation> {
    let relation = world.relation()?;
    Some(match (number, relation) {
        (1, Relation::Newer(held)) => Relation::Older(held),
        (1, Relation::Older(held)) => Relation::Newer(held),
        (_, relation) => relation,
    })
}

/// Left alone, with the link up, both laptops come to rest; then somebody writes or a person was told what to do, and
/// at most one gate is open.
fn comes_to_rest(world: &World, bases: &Bases) -> Result<(), String> {
    let mut world = world.clone();
    for _ in 0..40 {
        let before = world.clone();
        for number in [0, 1] {
            while let Some((_, next)) = world
                .steps(number, bases)
                .into_iter()
                .rev()
                .find(|(_, next)| *next != world)
            {
                world = next;
            }
        }
        if world == before {
            break;
        }
    }
    let plans = [world.plan(0, bases), world.plan(1, bases)];
    let moves = |number: usize| world.steps(number, bases).iter().any(|(_, next)| *next != world);
    if moves(0) || moves(1) {
        return Err(format!("they never come to rest:\n{}", describe(&world, bases)));
    }
    let writes = world.nodes.iter().any(|node| node.server == Server::Writable);
    let told = plans.iter().any(|plan| matches!(plan.end, End::Blocked(_)));
    if !writes && !told {
        return Err(format!(
            "nobody writes, and nobody is told why:\n{}",
            describe(&world, bases)
        ));
    }
    let open = |number: usize| {
        let judged = gate(
            &Gate::closed("test"),
            world.declared(number, bases),
            &world.seen(number),
            &plans[number],
            now(),
        );
        judged.is_open()
    };
    if open(0) && open(1) {
        return Err(format!("two open gates:\n{}", describe(&world, bases)));
    }
    Ok(())
}

fn explore(starts: Vec<World>, cuts: bool, depth: usize, limit: usize) {
    let bases = bases();
    let mut from: HashMap<World, Option<(World, String)>> = HashMap::new();
    let mut rested: HashSet<World> = HashSet::new();
    let mut queue: VecDeque<(World, usize)> = VecDeque::new();
    for start in starts {
        from.insert(start.clone(), None);
        queue.push_back((start, 0));
    }
    let path = |from: &HashMap<World, Option<(World, String)>>, world: &World| {
        let mut story = Vec::new();
        let mut at = world.clone();
        while let Some(Some((before, what))) = from.get(&at) {
            story.push(what.clone());
            at = before.clone();
        }
        story.push(format!("begin\n{}", describe(&at, &bases)));
        story.reverse();
        story.join("\n- ")
    };
    let mut deepest = 0;
    while let Some((world, far)) = queue.pop_front() {
        deepest = far;
        // Nothing that happened before makes a difference to where it goes from here.
        let mut alone = world.clone();
        (alone.accidents, alone.edits) = (0, 0);
        if world.link
            && rested.insert(alone.clone())
            && let Err(why) = comes_to_rest(&alone, &bases)
        {
            panic!("{why}\nafter:\n- {}", path(&from, &world));
        }
        if far >= depth || from.len() >= limit {
            continue;
        }
        let mut next = Vec::new();
        for number in [0, 1] {
            next.extend(world.steps(number, &bases));
            next.extend(world.accidents(number, cuts));
        }
        for (what, after) in next {
            if let Some(why) = wrong(&world, &what, &after, cuts) {
                panic!(
                    "{why}: {what}\n{}\nafter:\n- {}",
                    describe(&after, &bases),
                    path(&from, &world)
                );
            }
            if !from.contains_key(&after) {
                from.insert(after.clone(), Some((world.clone(), what)));
                queue.push_back((after, far + 1));
            }
        }
    }
    assert!(
        from.len() > 1000 && deepest > 3,
        "only {} states, {deepest} deep",
        from.len()
    );
}

/// The same, by chance and far: `walks` stories of `length` steps each. Says how many promotions there were.
fn walk(starts: &[World], cuts: bool, walks: usize, length: usize) -> usize {
    let bases = bases();
    let mut random = 0x2026_0606_u64;
    let mut draw = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).expect("31 bits") % below
    };
    let mut rested = HashSet::new();
    let (mut starts_of_servers, mut promotions) = (0, 0);
    for number in 0..walks {
        let mut world = starts[number % starts.len()].clone();
        let mut story = vec![format!("begin\n{}", describe(&world, &bases))];
        for _ in 0..length {
            let accident = draw(5) == 0;
            let mut next = Vec::new();
            for number in [0, 1] {
                next.extend(if accident {
                    world.accidents(number, cuts)
                } else {
                    world.steps(number, &bases)
                });
            }
            next.retain(|(_, after)| *after != world);
            if next.is_empty() {
                continue;
            }
            let (what, after) = next.swap_remove(draw(next.len()));
            starts_of_servers += usize::from(what.contains("comes up"));
            promotions += usize::from(what.contains("promote"));
            let wrong = wrong(&world, &what, &after, cuts);
            story.push(what);
            world = after;
            if let Some(why) = wrong {
                panic!(
                    "{why}\n{}\nafter:\n- {}",
                    describe(&world, &bases),
                    story.join("\n- ")
                );
            }
        }
        let mut alone = world;
        (alone.accidents, alone.edits, alone.link) = (0, 0, true);
        if rested.insert(alone.clone())
            && let Err(why) = comes_to_rest(&alone, &bases)
        {
            panic!("{why}\nafter:\n- {}", story.join("\n- "));
        }
    }
    assert!(
        starts_of_servers > 100,
        "{starts_of_servers} starts, {promotions} promotions"
    );
    promotions
}

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
    explore(starts.clone(), false, 14, 12_000);
    assert!(walk(&starts, false, 2000, 60) > 100, "nobody took over");
}

#[test]
fn two_laptops_with_a_link_that_goes_and_comes() {
    let mut starts = off(&[CLEAN, Data::Replica], 4, 3);
    starts.extend(off(&[Data::Replica, CLEAN], 4, 3));
    explore(starts.clone(), true, 16, 12_000);
    assert!(walk(&starts, true, 2000, 80) > 100, "nobody took over");
}

/// Made by hand: two primary's copies of one epoch. One gives way to the other's announcement.
#[test]
fn two_primary_copies_of_one_epoch_never_both_start() {
    let starts = off(&[CLEAN, CLEAN], 1, 1);
    explore(starts.clone(), false, 12, 8_000);
    walk(&starts, false, 1000, 40);
}
