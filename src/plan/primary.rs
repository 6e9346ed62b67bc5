//! `role: primary`: this laptop's database is the one that is written to. Pure.

use super::action::{Plan, Reason};
use super::end::{Blocked, End, Waiting};
use super::local::Situation;
use crate::observed::{Data, Peer, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    match situation.server {
        Server::Writable => situation.serve(End::Converged),
        Server::ReadOnly { .. } => Plan::blocked(situation.read_only(Blocked::StandbyCopy)),
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::Down => down(situation),
    }
}

fn down(situation: &Situation<'_>) -> Plan {
    let path = || situation.desired.postgres.data_directory.clone();
    match (&situation.data, situation.peer) {
        (Data::Empty, Peer::None) => situation.create(),
        (Data::Empty, Peer::Unknown { .. }) => Plan::blocked(Blocked::EmptyPeerUnknown),
        // No standby can have held this lineage before the pair is supported, so a crash needs no quarantine.
        (Data::Primary { crashed }, Peer::None | Peer::Unknown { .. }) => {
            let reason = if *crashed {
                Reason::ServerCrashed
            } else {
                Reason::ServerDown
            };
            situation.start(reason, End::Converged)
        }
        (Data::Replica, Peer::None | Peer::Unknown { .. }) => {
            situation.start(Reason::StandbyCopy, End::Blocked(Blocked::StandbyCopy))
        }
        (Data::Recovering, _) => Plan::blocked(Blocked::UnfinishedRecovery {
            path: path().join("recovery.signal"),
        }),
        (Data::Tainted, _) => Plan::blocked(Blocked::Tainted { path: path() }),
        (Data::NotOurs(what), _) => Plan::blocked(Blocked::NotOurs {
            path: path(),
            what: what.clone(),
        }),
        (Data::Unclear(contradiction), _) => Plan::blocked(Blocked::Unclear {
            path: path(),
            contradiction: contradiction.clone(),
        }),
    }
}
