//! What the other laptop said, as facts. Pure.

use super::sql::SqlFacts;
use crate::desired::Role;
use crate::lineage::Lineage;
use crate::observed::{DataState, Fact, Moment, PeerFacts, SeesUs, Server};
use crate::status::Status;

/// The facts of a status document. `us`: our own name; what it says of a third laptop is not about us.
pub fn facts(status: &Status, us: &str, asked_at: Moment, at: Moment) -> PeerFacts {
    let peer = &status.peer;
    PeerFacts {
        at,
        asked_at,
        node: Some(status.node.clone()),
        role: role(&status.desired.role),
        data: status.data.state,
        crashed: status.data.crashed,
        major: status.data.major,
        server: server(status),
        lineage: status.data.lineage.clone(),
        flag: status.plan.flag,
        handed_over: status.handed_over.clone(),
        gate_open: status.gate.state == "open",
        checkpoint_timeline: status.server.checkpoint_timeline,
        oldest_wal: status.server.oldest_wal,
        slots: status.server.slots.clone(),
        sees: (peer.reachable && peer.node.as_deref() == Some(us)).then_some(SeesUs {
            role: peer.role,
            flag: peer.flag,
        }),
    }
}

/// The facts of a server whose daemon does not answer.
pub fn facts_over_sql(server: &SqlFacts, asked_at: Moment, at: Moment) -> PeerFacts {
    PeerFacts {
        at,
        asked_at,
        node: None,
        role: None,
        data: if server.in_recovery {
            DataState::Replica
        } else {
            DataState::Primary
        },
        crashed: false,
        major: Some(server.major),
        server: Fact::Known(if server.writable {
            Server::Writable
        } else {
            Server::ReadOnly {
                streaming: server.streaming,
            }
        }),
        lineage: server.epochs.as_ref().map(|epochs| Lineage {
            system_identifier: server.system_identifier.clone(),
            epochs: epochs.clone(),
            timeline: server.timeline,
            // A position on a timeline that is not certain proves nothing.
            position: server.timeline_certain.then_some(server.position),
        }),
        flag: None,
        handed_over: None,
        gate_open: false,
        checkpoint_timeline: None,
        oldest_wal: None,
        slots: None,
        sees: None,
    }
}

/// A role that this version does not know is none.
fn role(word: &str) -> Option<Role> {
    [Role::Primary, Role::Standby, Role::Failover, Role::Recovery]
        .into_iter()
        .find(|role| role.word() == word)
}

fn server(status: &Status) -> Fact<Server> {
    let server = &status.server;
    Fact::Known(match server.state.as_str() {
        "down" => Server::Down,
        "starting" => Server::Starting,
        "writable" => Server::Writable,
        "read_only" => Server::ReadOnly {
            streaming: server.streaming,
        },
        "stopping" => Server::Stopping,
        other => {
            return Fact::Unknown(match &server.reason {
                Some(reason) => format!("the other laptop cannot tell what its server is doing: {reason}"),
                None => format!("the other laptop calls its server {other}"),
            });
        }
    })
}
