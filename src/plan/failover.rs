//! `role: failover`: the operator says that the other laptop is gone. Pure.
//!
//! Promotion of a standby's copy is not supported yet. A laptop that holds the primary copy starts it.

use super::action::{Plan, Reason};
use super::end::{Blocked, End, Waiting};
use super::local::Situation;
use crate::observed::{Data, Server};

pub(super) fn plan(situation: &Situation<'_>) -> Plan {
    let path = || situation.desired.postgres.data_directory.clone();
    let promotion = || Blocked::NotSupported {
        what: "taking over with a standby's copy (promotion)",
    };
    match situation.server {
        Server::Writable => situation.serve(End::Converged),
        Server::ReadOnly { .. } => Plan::blocked(situation.read_only(promotion())),
        Server::Starting => Plan::waiting(Waiting::ServerStarting),
        Server::Stopping => Plan::waiting(Waiting::ServerStopping),
        Server::Down => match &situation.data {
            Data::Primary { crashed } => {
                let reason = if *crashed {
                    Reason::ServerCrashed
                } else {
                    Reason::ServerDown
                };
                situation.start(reason, End::Converged)
            }
            Data::Empty => Plan::blocked(Blocked::NothingToFailOverTo),
            Data::Replica => Plan::blocked(promotion()),
            Data::Recovering => Plan::blocked(Blocked::UnfinishedRecovery {
                path: path().join("recovery.signal"),
            }),
            Data::Tainted => Plan::blocked(Blocked::Tainted { path: path() }),
            Data::NotOurs(what) => Plan::blocked(Blocked::NotOurs {
                path: path(),
                what: what.clone(),
            }),
            Data::Unclear(contradiction) => Plan::blocked(Blocked::Unclear {
                path: path(),
                contradiction: contradiction.clone(),
            }),
        },
    }
}
