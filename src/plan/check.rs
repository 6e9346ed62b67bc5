//! Looks a finished plan over before it is carried out. Pure.
//!
//! The rows decide; this says nothing of what would be best, only what no plan may ever be, whatever row it came from. It
//! reads the same facts anew and trusts no row. A plan with a fault is not carried out (see `reconcile`).

use super::action::{Action, CloneSource, Plan, Reason, RewindSource, Step};
use super::consent::Danger;
use super::gate::{Gate, gate};
use super::local::{Situation, situation};
use super::rule::{Fault, Rule};
use crate::desired::{Desired, Role};
use crate::lineage::{Held, Relation};
use crate::observed::{
    Data, DataDirectory, DataState, Fact, Flag, Moment, Observed, Peer, PeerFacts, Server,
};

/// Whether the plan keeps every rule.
pub fn check(desired: &Desired, observed: &Observed, plan: &Plan, now: Moment) -> Result<(), Fault> {
    let Some(first) = plan.first() else {
        return Ok(());
    };
    if let Gate::Open = gate(&Gate::Open, desired, observed, plan, now) {
        for step in &plan.steps {
            ensure(!step.action.touches_server(), Rule::GateClosed, &step.action)?;
        }
    }
    let mut walk = Walk {
        observed,
        plan,
        situation: situation(desired, observed, now).ok(),
        running: observed.server_state() != Fact::Known(Server::Down),
        standby: observed.cluster().is_some_and(|cluster| cluster.standby_signal),
        recovers: observed.server_facts().is_some_and(|facts| facts.in_recovery),
        made_standby: false,
        touched: false,
    };
    walk.consent()?;
    walk.flag(&first.action)?;
    walk.superseded()?;
    for number in 0..plan.steps.len() {
        walk.step(number)?;
    }
    Ok(())
}

fn ensure(holds: bool, rule: Rule, action: &Action) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault {
            rule,
            action: action.name(),
        })
    }
}

/// A plan, followed step by step.
struct Walk<'a> {
    observed: &'a Observed,
    plan: &'a Plan,
    /// `None`: a fact that every row reads is missing.
    situation: Option<Situation<'a>>,
    /// Whether a server runs, or may run, at this point.
    running: bool,
    /// Whether the copy is marked as a standby's at this point.
    standby: bool,
    /// Whether the server that runs at this point is a standby's, by its own word.
    recovers: bool,
    /// Whether an earlier step made the copy a standby's.
    made_standby: bool,
    /// Whether an earlier step makes the laptop look again before a promotion or a start of what may be written to.
    touched: bool,
}

impl Walk<'_> {
    fn before(&self, number: usize) -> &[Step] {
        &self.plan.steps[..number]
    }

    fn after(&self, number: usize) -> &[Step] {
        &self.plan.steps[number + 1..]
    }

    /// The other laptop, if it answers and is written to.
    fn writer(&self) -> Option<&PeerFacts> {
        match &self.observed.peer {
            Peer::Known(facts) if facts.writable() => Some(facts),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } | Peer::Known(_) => None,
        }
    }

    /// Whether the other laptop itself says that its history goes on beyond ours.
    fn older_by_its_word(&self) -> bool {
        self.writer().is_some() && matches!(self.observed.relation(), Some(Relation::Older(_)))
    }

    /// Whether a person consented to this, now or before.
    fn consented(&self, danger: Danger) -> bool {
        self.situation
            .as_ref()
            .is_some_and(|situation| situation.consented(danger))
    }

    fn data(&self) -> Option<Data> {
        self.observed.data.known().map(DataDirectory::state)
    }

    fn consent(&self) -> Result<(), Fault> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            let Action::RecordConsent(grant) = &step.action else {
                continue;
            };
            let given = self
                .situation
                .as_ref()
                .is_some_and(|situation| situation.is_given(grant));
            ensure(number == 0 && given, Rule::ConsentFirst, &step.action)?;
        }
        Ok(())
    }

    fn flag(&self, first: &Action) -> Result<(), Fault> {
        let alone = self.observed.peer == Peer::None && self.plan.flag.is_none();
        if let Some(flag) = first.flag() {
            ensure(alone || self.plan.flag == Some(flag), Rule::FlagFits, first)?;
        }
        for step in &self.plan.steps {
            let other = match self.plan.flag {
                Some(Flag::Starting) => Some(Flag::Taking),
                Some(Flag::Taking) => Some(Flag::Starting),
                None => continue,
            };
            ensure(step.action.flag() != other, Rule::FlagFits, &step.action)?;
        }
        Ok(())
    }

    fn superseded(&self) -> Result<(), Fault> {
        let writes = self.observed.server_state() == Fact::Known(Server::Writable);
        if !writes || !self.observed.superseded() || !self.observed.timeline_named() {
            return Ok(());
        }
        for step in &self.plan.steps {
            let stops = matches!(step.action, Action::StopApp | Action::StopServer);
            ensure(stops, Rule::SupersededIsStopped, &step.action)?;
        }
        Ok(())
    }

    fn step(&mut self, number: usize) -> Result<(), Fault> {
        let step = &self.plan.steps[number];
        let action = &step.action;
        match action {
            Action::StopServer => {
                self.stop(number, action)?;
                self.running = false;
            }
            Action::FastShutdown => {
                self.stop(number, action)?;
                self.handover(number, action)?;
                self.running = false;
            }
            Action::PromiseHandover(promise) => {
                ensure(!self.running, Rule::StoppedFirst, action)?;
                let ours = self.observed.lineage();
                let same = ours.is_some_and(|ours| {
                    ours.system_identifier == promise.system_identifier
                        && ours
                            .held()
                            .last()
                            .is_some_and(|epoch| epoch.uuid == promise.epoch)
                });
                ensure(same && !self.standby, Rule::Handover, action)?;
                self.handover(number, action)?;
            }
            Action::PlaceStandbySignal { .. } => {
                self.local(action)?;
                self.signal(number, step)?;
                (self.standby, self.made_standby, self.touched) = (true, true, true);
            }
            Action::Rewind(source) => {
                self.local(action)?;
                ensure(!self.running, Rule::StoppedFirst, action)?;
                ensure(self.may_rewind(source), Rule::RewindOntoNewer, action)?;
                (self.standby, self.made_standby, self.touched) = (true, true, true);
            }
            Action::Clone(source) => {
                self.clone(source, action)?;
                (self.running, self.standby, self.made_standby, self.touched) = (false, true, true, true);
            }
            Action::CreateCluster(_) => {
                ensure(!self.running, Rule::StoppedFirst, action)?;
                ensure(self.may_create(), Rule::CreateOnEmpty, action)?;
                self.named(number, action)?;
                self.standby = false;
            }
            Action::Restore(restore) => {
                ensure(!self.running, Rule::StoppedFirst, action)?;
                ensure(
                    self.data().as_ref().map(Data::state) == Some(restore.replaces),
                    Rule::LocalFactsKnown,
                    action,
                )?;
                ensure(self.may_restore(), Rule::RestoreAlone, action)?;
                self.standby = false;
            }
            Action::StartServer(start) => {
                ensure(!self.running, Rule::StartAsMarked, action)?;
                ensure(start.standby == self.standby, Rule::StartAsMarked, action)?;
                if !start.standby {
                    ensure(!self.made_standby, Rule::StartAlone, action)?;
                    let created = self
                        .before(number)
                        .iter()
                        .any(|step| matches!(step.action, Action::CreateCluster(_) | Action::Restore(_)));
                    if !created {
                        self.local(action)?;
                        ensure(self.may_start(), Rule::StartAlone, action)?;
                    }
                }
                (self.running, self.recovers, self.touched) = (true, start.standby, true);
            }
            Action::Promote(_) => {
                self.promote(number, action)?;
                self.named(number, action)?;
            }
            Action::IntendEpoch(_) => {
                self.local(action)?;
                ensure(self.recovers, Rule::PromoteAlone, action)?;
            }
            // They write files of ours, or what a server that runs is for.
            Action::AdoptCluster
            | Action::WriteConfiguration(_)
            | Action::PurgeAutoConf(_)
            | Action::ReloadServer { .. }
            | Action::RecordConsent(_)
            | Action::RecordEpochs(_)
            | Action::WakeReceiver
            | Action::RemoveRecoverySignal
            | Action::ResumeReplay
            | Action::NameEpoch
            | Action::EnsureReplication(_)
            | Action::Checkpoint
            | Action::EnsureDatabase
            | Action::ForgetRestart(_)
            | Action::StopApp => {}
        }
        Ok(())
    }

    /// The facts about the copy itself that everything rests on.
    fn local(&self, action: &Action) -> Result<(), Fault> {
        let cluster = self.observed.cluster();
        let readable = cluster
            .is_some_and(|cluster| cluster.control.known().is_some() && cluster.sidecar.known().is_some());
        let known = self.situation.is_some() && readable;
        ensure(known, Rule::LocalFactsKnown, action)
    }

    fn stop(&self, number: usize, action: &Action) -> Result<(), Fault> {
        let app_stops = |step: &Step| step.action == Action::StopApp;
        let gone = !self.observed.app.state.alive() || self.before(number).iter().any(app_stops);
        ensure(gone, Rule::AppBeforeServer, action)?;
        for step in self.before(number) {
            let writes = match &step.action {
                Action::NameEpoch
                | Action::EnsureReplication(_)
                | Action::EnsureDatabase
                | Action::IntendEpoch(_)
                | Action::ResumeReplay
                | Action::Promote(_)
                | Action::CreateCluster(_)
                | Action::StartServer(_)
                | Action::Clone(_)
                | Action::Restore(_)
                | Action::Rewind(_)
                | Action::PromiseHandover(_)
                | Action::PlaceStandbySignal { .. } => true,
                // What keeps the stop itself short.
                Action::Checkpoint => *action != Action::FastShutdown,
                Action::AdoptCluster
                | Action::WriteConfiguration(_)
                | Action::PurgeAutoConf(_)
                | Action::ReloadServer { .. }
                | Action::RecordConsent(_)
                | Action::RecordEpochs(_)
                | Action::WakeReceiver
                | Action::RemoveRecoverySignal
                | Action::StopApp
                | Action::StopServer
                | Action::FastShutdown
                | Action::ForgetRestart(_) => false,
            };
            ensure(!writes, Rule::NothingBeforeAStop, &step.action)?;
        }
        Ok(())
    }

    /// Shutdown or promise: what follows, and to whom.
    fn handover(&self, number: usize, action: &Action) -> Result<(), Fault> {
        let (Some(situation), Peer::Known(facts)) = (&self.situation, &self.observed.peer) else {
            return ensure(false, Rule::Handover, action);
        };
        let at = |wanted: fn(&Action) -> bool| self.plan.steps.iter().position(|step| wanted(&step.action));
        let promise = at(|action| matches!(action, Action::PromiseHandover(_)));
        let signal = at(|action| matches!(action, Action::PlaceStandbySignal { .. }));
        let in_order = match (promise, signal) {
            (Some(promise), Some(signal)) => promise < signal && (number <= promise || number == signal),
            (None, Some(signal)) => self.noted() && number <= signal,
            (_, None) => false,
        };
        let takes = matches!(facts.role, Some(Role::Primary | Role::Failover))
            && facts.data == DataState::Replica
            && matches!(facts.server, Fact::Known(Server::ReadOnly { .. }))
            && matches!(situation.relation, Some(Relation::Same(_)));
        let asked = *action != Action::FastShutdown
            || (facts.server == Fact::Known(Server::ReadOnly { streaming: true })
                && facts
                    .sees
                    .as_ref()
                    .is_some_and(|sees| sees.role == Some(Role::Standby)));
        let declared = situation.desired.role == Role::Standby;
        ensure(in_order && takes && asked && declared, Rule::Handover, action)
    }

    /// Whether `home` already holds the promise of what lies on disk.
    fn noted(&self) -> bool {
        let (Some(Some(note)), Some(ours)) =
            (self.observed.handover_intention.known(), self.observed.lineage())
        else {
            return false;
        };
        note.system_identifier == ours.system_identifier
            && ours.held().last().is_some_and(|epoch| epoch.uuid == note.epoch)
    }

    fn signal(&self, number: usize, step: &Step) -> Result<(), Fault> {
        let action = &step.action;
        ensure(!self.running, Rule::StoppedFirst, action)?;
        let stopped = self
            .before(number)
            .iter()
            .any(|step| step.action == Action::FastShutdown);
        let clean = self.data() == Some(Data::Primary { crashed: false });
        let primary = stopped || matches!(self.data(), Some(Data::Primary { .. }));
        ensure(primary && !self.standby, Rule::SignalWithReason, action)?;
        if step.reason == Reason::HandingOver {
            ensure(stopped || clean, Rule::Handover, action)?;
            return self.handover(number, action);
        }
        let ancestor = clean
            && self.writer().is_some()
            && self.observed.relation() == Some(Relation::Older(Held::Nothing));
        ensure(
            ancestor || self.consented(Danger::KeepThisCopy),
            Rule::SignalWithReason,
            action,
        )
    }

    fn may_rewind(&self, source: &RewindSource) -> bool {
        let onto = self
            .writer()
            .and_then(|facts| facts.lineage.as_ref())
            .is_some_and(|theirs| {
                theirs.system_identifier == source.system_identifier
                    && theirs
                        .held()
                        .last()
                        .is_some_and(|epoch| epoch.uuid == source.epoch)
            });
        onto && self.older_by_its_word() && matches!(self.data(), Some(Data::Primary { .. }))
    }

    fn clone(&self, source: &CloneSource, action: &Action) -> Result<(), Fault> {
        let data = self.data();
        ensure(
            self.situation.is_some() && data.as_ref().map(Data::state) == Some(source.replaces),
            Rule::LocalFactsKnown,
            action,
        )?;
        let replica = data == Some(Data::Replica);
        ensure(replica || !self.running, Rule::StoppedFirst, action)?;
        let from = self
            .writer()
            .and_then(|facts| facts.lineage.as_ref())
            .is_some_and(|theirs| {
                theirs.system_identifier == source.system_identifier
                    && theirs
                        .epochs
                        .last()
                        .is_some_and(|epoch| epoch.uuid == source.epoch)
            });
        ensure(from, Rule::CloneReplacesNothing, action)?;
        let given_up = self.consented(Danger::GiveUpThisCopy);
        let unmissed = match data {
            Some(Data::Empty | Data::Tainted) => true,
            Some(Data::Replica) => {
                self.local(action)?;
                given_up
                    || matches!(
                        self.observed.relation(),
                        Some(Relation::Same(_) | Relation::Older(Held::Nothing | Held::Something))
                    )
            }
            Some(Data::Primary { .. }) => {
                self.local(action)?;
                given_up || self.older_by_its_word()
            }
            Some(Data::NotOurs(_) | Data::Recovering | Data::Unclear(_)) | None => false,
        };
        ensure(unmissed, Rule::CloneReplacesNothing, action)
    }

    /// Whether nobody goes on with what is replaced, or a person consented to that.
    fn may_restore(&self) -> bool {
        let declared = self
            .situation
            .as_ref()
            .is_some_and(|situation| situation.desired.role == Role::Recovery);
        let alone = match &self.observed.peer {
            Peer::None => true,
            Peer::Known(facts) => {
                facts.flag.is_none() && facts.role == Some(Role::Standby) && !facts.writable()
            }
            Peer::Unknown(_) | Peer::Unauthenticated { .. } => false,
        };
        declared && (alone || self.consented(Danger::Restore))
    }

    fn may_create(&self) -> bool {
        let Some(situation) = &self.situation else {
            return false;
        };
        let empty = matches!(self.observed.data.known(), Some(DataDirectory::Empty { .. }));
        let never = self.observed.remembered.fact == Fact::Known(None);
        let allowed = || self.consented(Danger::NewDatabase);
        let there = match &self.observed.peer {
            Peer::None => true,
            Peer::Known(facts) => {
                facts.data == DataState::Empty
                    && facts.role == Some(Role::Standby)
                    && facts.server == Fact::Known(Server::Down)
            }
            Peer::Unknown(silence) => {
                let unseen = situation.observed.new_database_allowed && !situation.peer_had_data();
                silence.settled && situation.memory_unreadable().is_none() && (unseen || allowed())
            }
            Peer::Unauthenticated { .. } => false,
        };
        empty && never && there && situation.desired.role == Role::Primary
    }

    /// A start of a primary's copy.
    fn may_start(&self) -> bool {
        let Some(situation) = &self.situation else {
            return false;
        };
        let beside = match &self.observed.peer {
            Peer::None => true,
            Peer::Known(facts) => {
                let announces = facts.flag.is_some();
                let newer = matches!(situation.relation, Some(Relation::Newer(_)));
                !announces && (newer || !facts.writable())
            }
            Peer::Unknown(silence) => silence.settled && situation.memory_unreadable().is_none(),
            // The one row: a person said that the other laptop is gone.
            Peer::Unauthenticated { .. } => {
                situation.desired.role == Role::Failover && situation.memory_unreadable().is_none()
            }
        };
        let conflict = matches!(
            situation.relation,
            Some(Relation::Twins | Relation::Stranger | Relation::Older(_))
        );
        // A server that is written to, stopped by an earlier step, leaves a primary's copy, whatever marks it has now.
        let primary = self.observed.server_state() == Fact::Known(Server::Writable)
            || matches!(self.data(), Some(Data::Primary { .. }));
        beside && primary && !conflict && !self.observed.superseded()
    }

    fn promote(&self, number: usize, action: &Action) -> Result<(), Fault> {
        self.local(action)?;
        let intends = |step: &Step| matches!(step.action, Action::IntendEpoch(_));
        let named = self.before(number).iter().any(intends)
            || self
                .observed
                .cluster()
                .and_then(|cluster| cluster.trusted_sidecar())
                .is_some_and(|sidecar| sidecar.intended.is_some());
        ensure(named && self.recovers && self.running, Rule::PromoteAlone, action)?;
        if !self.touched && !self.before(number).iter().any(records) {
            let announced = self.plan.flag == Some(Flag::Taking);
            ensure(announced, Rule::FlagFits, action)?;
        }
        if self.consented(Danger::KeepThisCopy) {
            return Ok(());
        }
        let Some(situation) = &self.situation else {
            return ensure(false, Rule::LocalFactsKnown, action);
        };
        let alone = match &self.observed.peer {
            Peer::None => true,
            Peer::Known(facts) => {
                let handed = situation.holds_all_of(facts);
                !facts.writable() && facts.flag.is_none() && (handed || situation.ahead() == Some(false))
            }
            Peer::Unknown(silence) => {
                silence.settled
                    && situation.desired.role == Role::Failover
                    && situation.memory_unreadable().is_none()
            }
            Peer::Unauthenticated { .. } => false,
        };
        let conflict = matches!(
            situation.relation,
            Some(Relation::Twins | Relation::Stranger | Relation::Older(Held::Something | Held::Unproven))
        );
        ensure(alone && !conflict, Rule::PromoteAlone, action)
    }

    fn named(&self, number: usize, action: &Action) -> Result<(), Fault> {
        let names = |step: &Step| step.action == Action::NameEpoch;
        ensure(self.after(number).iter().any(names), Rule::NamedAfter, action)
    }
}

fn records(step: &Step) -> bool {
    matches!(step.action, Action::RecordConsent(_))
}
