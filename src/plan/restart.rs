//! A restart that a person asked for (`paceline restart`): application, server, and then a start like any other of this
//! role. Pure.
//!
//! The request names the server that is to be replaced. So it is done, whoever did it, as soon as another one runs,
//! and nothing is restarted twice. A server that would not be started again is not stopped.

use super::action::{Action, Plan, Reason, Step};
use super::end::{End, Waiting};
use super::local::{Situation, situation, step};
use super::of_role;
use super::pair_end::PeerWait;
use crate::desired::Role;
use crate::observed::{
    Answer, ClusterState, Data, DataDirectory, Fact, Flag, Observed, Peer, Postmaster, RestartAsked, Seen,
    Server,
};

/// The role's plan, with what was asked for taken in.
pub(super) fn asked(situation: &Situation<'_>, plan: Plan) -> Plan {
    let Fact::Known(Some(asked)) = &situation.observed.restart.fact else {
        return plan;
    };
    match situation.server {
        Server::Starting | Server::Stopping => plan,
        Server::Down => Plan {
            steps: plan.steps.into_iter().map(start_again).collect(),
            ..plan
        },
        Server::Writable | Server::ReadOnly { .. } if !asked.about_running => {
            let mut plan = plan;
            plan.steps
                .push(step(Action::ForgetRestart(asked.id), Reason::Restarted));
            plan
        }
        Server::Writable | Server::ReadOnly { .. } => restart(situation, asked, plan),
    }
}

/// The start of a server that was stopped because somebody asked for a restart.
fn start_again(planned: Step) -> Step {
    let orderly = matches!(planned.reason, Reason::ServerDown | Reason::StandbyCopy);
    let reason = match planned.action {
        Action::StartServer(_) if orderly => Reason::RestartRequested,
        _ => planned.reason,
    };
    Step { reason, ..planned }
}

fn restart(situation: &Situation<'_>, asked: &RestartAsked, plan: Plan) -> Plan {
    // What the new server depends on comes first, and what touches the server for a better reason.
    let before = |action: &Action| {
        action.touches_server()
            || matches!(
                action,
                Action::AdoptCluster
                    | Action::WriteConfiguration(_)
                    | Action::PurgeAutoConf(_)
                    | Action::NameEpoch
                    | Action::RecordConsent(_)
                    | Action::RecordEpochs(_)
            )
    };
    if plan.steps.iter().any(|step| before(&step.action)) {
        return plan;
    }
    let afterwards = match afterwards(situation, asked) {
        Ok(afterwards) => afterwards,
        Err(why) => {
            let end = match plan.end {
                End::Converged | End::Waiting(_) => End::Waiting(Waiting::RestartHeld(why)),
                // A person has to hear of that first.
                End::Blocked(blocked) => End::Blocked(blocked),
            };
            return Plan { end, ..plan };
        }
    };
    let mut steps = Vec::new();
    if situation.observed.app.state.alive() {
        steps.push(step(Action::StopApp, Reason::RestartRequested));
    }
    steps.push(step(Action::StopServer, Reason::RestartRequested));
    steps.extend(afterwards.steps.into_iter().map(start_again));
    Plan::new(steps, afterwards.end)
}

/// What would be planned if the server were stopped now: its start, as what it is. `Err`: why it would not be started.
fn afterwards(now: &Situation<'_>, asked: &RestartAsked) -> Result<Plan, String> {
    if let Some(by) = &asked.port_taken {
        return Err(format!("port {} is in use by {by}", now.desired.postgres.port));
    }
    let writes = now.server == Server::Writable;
    let declared = match now.peer {
        Peer::Known(facts) => facts.role,
        Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => None,
    };
    if writes && declared == Some(Role::Failover) {
        return Err("the other laptop is declared failover and would take over".to_owned());
    }
    let stopped = stopped(now.observed);
    let then = situation(now.desired, &stopped, now.now);
    let (plan, data) = match then {
        Ok(then) => (of_role(&then), then.data),
        Err(end) => (Plan::new(Vec::new(), end), now.data.clone()),
    };
    let same = match data {
        Data::Primary { .. } => writes,
        Data::Replica => !writes,
        Data::Empty | Data::NotOurs(_) | Data::Tainted | Data::Recovering | Data::Unclear(_) => false,
    };
    let starts = |step: &Step| matches!(&step.action, Action::StartServer(start) if start.standby != writes);
    // Or it is announced first.
    let announced = End::Waiting(Waiting::Peer(PeerWait::Announced(Flag::Starting)));
    match &plan.end {
        _ if same && (plan.steps.iter().any(starts) || plan.end == announced) => Ok(plan),
        End::Blocked(blocked) => Err(blocked.to_string()),
        End::Waiting(waiting) => Err(waiting.to_string()),
        End::Converged => Err("what lies in the data directory is not what the server says".to_owned()),
    }
}

/// What would be seen after an orderly stop: the copy is where the server says that it is now.
fn stopped(observed: &Observed) -> Observed {
    let mut stopped = observed.clone();
    let facts = observed.server_facts();
    if let (Fact::Known(DataDirectory::Cluster(cluster)), Some(facts)) = (&mut stopped.data.fact, facts)
        && let Fact::Known(control) = &mut cluster.control
    {
        control.state = if facts.in_recovery {
            ClusterState::ShutDownInRecovery
        } else {
            ClusterState::ShutDown
        };
        control.timeline = facts.timeline;
        control.checkpoint = facts.lsn;
    }
    stopped.postmaster = Seen::new(
        Fact::Known(Postmaster::Down {
            leftovers: Vec::new(),
        }),
        observed.postmaster.at,
    );
    stopped.server = Seen::new(Fact::Known(Answer::NotAsked), observed.server.at);
    stopped
}
