//! `role: standby`: this laptop follows the other one. Pure.
//!
//! Cloning and following are not supported yet. What is already true: a pushed file that says `standby` cannot take
//! the event down; a writable server keeps serving until there is somebody to hand over to.

use super::action::{Plan, Reason};
use super::end::{Blocked, End, Waiting};
use super::local::Situation;
use crate::observed::{Data, Peer, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.server {
        Server::Writable => match situation.serve(End::Waiting(Waiting::NoSuccessor)) {
            // The settings may wait for a restart; that nobody can take over is what matters here.
            Plan {
                steps,
                end: End::Waiting(Waiting::Restart(_)),
            } => Plan {
                steps,
                end: End::Waiting(Waiting::NoSuccessor),
            },
            plan => plan,
        },
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::ReadOnly { .. } => Plan::blocked(situation.read_only(nobody_to_follow(situation))),
        // It went down under our eyes, so no other laptop was writing meanwhile.
        Server::Down if situation.observed.served && matches!(situation.data, Data::Primary { .. }) => {
            situation.start(Reason::ServerCrashed, End::Waiting(Waiting::NoSuccessor))
        }
        Server::Down => Plan::blocked(nobody_to_follow(situation)),
    }
}

fn nobody_to_follow(situation: &Situation<'_>) -> Blocked {
    match situation.peer {
        Peer::None => Blocked::StandbyWithoutPeer,
        Peer::Unknown { .. } => Blocked::NotSupported {
            what: "following another laptop (role: standby)",
        },
    }
}
