//! Two laptops in one small world, explored state by state: each publishes its flag, fetches what the other one shows,
//! carries out the first step of its plan; servers crash, laptops lose power, the link goes, a person edits a role. What
//! one laptop has seen of the other may be as old as the protocol allows: only a new look makes it newer.

use std::collections::{HashMap, HashSet, VecDeque};

use paceline::desired::Role;
use paceline::lineage::Relation;
use paceline::observed::Server;
use paceline::plan::{Action, End, Gate, Step, gate};

use super::laptops::{Bases, NAMES, World};
use super::world::{desired, now, shown};

pub fn bases() -> Bases {
    NAMES.map(|name| {
        [Role::Primary, Role::Standby, Role::Failover].map(|role| {
            let mut desired = desired(role, true);
            name.clone_into(&mut desired.node);
            desired
        })
    })
}

pub fn describe(world: &World, bases: &Bases) -> String {
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
    // What that gives up a person gave up.
    let consented = what.contains("Consented");
    for number in [0, 1] {
        if consented || writable(before, number) || !writable(after, number) || !writable(before, 1 - number)
        {
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
    for number in [0, 1] {
        // A person said that the other one is gone, and it was: what that may lose is recorded.
        let gone = what.contains("FailoverDeclared") && before.nodes[number].view.is_none();
        let recorded = consented || gone;
        let promoted = what.starts_with(NAMES[number]) && what.contains("promote");
        if promoted && !recorded && !before.holds_all_of_the_other(number) {
            return Some("a promotion gives up what the other one holds".to_owned());
        }
    }
    if after.careful {
        let safe = |number: usize| {
            let all = &after.acknowledged;
            all.iter()
                .all(|(epoch, position)| after.holds(number, *epoch, *position))
        };
        if !safe(0) && !safe(1) {
            return Some("no copy holds everything that was acknowledged".to_owned());
        }
    }
    None
}

/// What the plan is after its first step, compared with what was left of it: a forecast that does not come true would let
/// the planner go back and forth. (What a step brings to light is news: the server that it starts answers, what is to
/// become of a superseded copy is decided when it is down; configuration and the application's database are not modelled.)
fn goes_back(world: &World, number: usize, bases: &Bases) -> Option<String> {
    let planned = world.plan(number, bases);
    let first = &planned.first()?.action;
    if matches!(
        first,
        Action::StartServer(_) | Action::StopServer | Action::Promote(_)
    ) {
        return None;
    }
    let mut next = world.carry_out(number, first).pop()?;
    // Announced and heard before as well.
    next.nodes[number].asked = world.nodes[number].asked;
    let names = |steps: &[Step]| -> Vec<&'static str> {
        let configure = [
            "write_configuration",
            // Only when nothing streams of itself.
            "wake_receiver",
            "intend_epoch",
            "name_epoch",
            "ensure_database",
        ];
        let names = steps.iter().map(|step| step.action.name());
        names.filter(|name| !configure.contains(name)).collect()
    };
    let (expected, replanned) = (names(&planned.steps[1..]), next.plan(number, bases));
    let found = names(&replanned.steps);
    // What comes after the start of a server is forecast from some states and not from others.
    let shorter = expected.starts_with(&found) && found.last() == Some(&"start_server");
    (found != expected && !shorter).then(|| {
        format!(
            "after {} the rest of the plan is {:?} and not {expected:?}",
            first.name(),
            found
        )
    })
}

fn relation_of(world: &World, number: usize) -> Option<Relation> {
    let relation = world.relation()?;
    Some(match (number, relation) {
        (1, Relation::Newer(held)) => Relation::Older(held),
        (1, Relation::Older(held)) => Relation::Newer(held),
        (_, relation) => relation,
    })
}

/// Left alone, both laptops come to rest; then somebody writes or a person was told what to do, and, if they see each
/// other, at most one gate is open.
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
    if !world.link {
        return Ok(());
    }
    let open = |number: usize| {
        let judged = gate(
            &Gate::closed("test"),
            &world.declared(number, bases),
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

pub fn explore(starts: Vec<World>, cuts: bool, depth: usize, limit: usize) {
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
        alone.acknowledged.clear();
        for link in [world.link, true] {
            alone.link = link;
            if rested.insert(alone.clone())
                && let Err(why) = comes_to_rest(&alone, &bases)
            {
                panic!("{why}\nafter:\n- {}", path(&from, &world));
            }
        }
        for number in [0, 1] {
            if let Some(why) = goes_back(&world, number, &bases) {
                panic!(
                    "{why}\n{}\nafter:\n- {}",
                    describe(&world, &bases),
                    path(&from, &world)
                );
            }
        }
        if far >= depth || from.len() >= limit {
            continue;
        }
        let mut next = Vec::new();
        for number in [0, 1] {
            next.extend(world.steps(number, &bases));
            next.extend(world.accidents(number, cuts, &bases));
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

/// How often what the stories are about happened.
#[derive(Default)]
pub struct Happened {
    pub starts: usize,
    pub promotions: usize,
    pub handovers: usize,
    pub rejoins: usize,
    pub consents: usize,
}

/// The same, by chance and far: `walks` stories of `length` steps each.
pub fn walk(starts: &[World], cuts: bool, walks: usize, length: usize) -> Happened {
    let bases = bases();
    let mut random = 0x2026_0606_u64;
    let mut draw = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).expect("31 bits") % below
    };
    let mut rested = HashSet::new();
    let mut happened = Happened::default();
    for number in 0..walks {
        let mut world = starts[number % starts.len()].clone();
        let mut story = vec![format!("begin\n{}", describe(&world, &bases))];
        for _ in 0..length {
            let accident = draw(5) == 0;
            let mut next = Vec::new();
            for number in [0, 1] {
                next.extend(if accident {
                    world.accidents(number, cuts, &bases)
                } else {
                    world.steps(number, &bases)
                });
            }
            next.retain(|(_, after)| *after != world);
            if next.is_empty() {
                continue;
            }
            let (what, after) = next.swap_remove(draw(next.len()));
            happened.starts += usize::from(what.contains("comes up"));
            happened.promotions += usize::from(what.contains("promote"));
            happened.handovers += usize::from(what.contains("promise_handover"));
            happened.consents += usize::from(what.contains("record_consent"));
            happened.rejoins += usize::from(what.contains("rewind"));
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
    happened
}

/// The way to rest of two laptops that nobody disturbs.
pub fn settle(world: &World, bases: &Bases) -> Vec<World> {
    let mut way = vec![world.clone()];
    let mut idle = 0;
    for number in (0..120).map(|turn| turn % 2) {
        let world = way.last().expect("itself");
        let steps = world.steps(number, bases);
        match steps.into_iter().rev().find(|(_, next)| next != world) {
            Some((_, next)) => {
                way.push(next);
                idle = 0;
            }
            None => idle += 1,
        }
        if idle == 2 {
            return way;
        }
    }
    panic!("no rest:\n{}", describe(way.last().expect("itself"), bases));
}
