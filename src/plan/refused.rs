//! A configuration that PostgreSQL's own parser refused: it is not written, and what works stays in force. Pure.

use super::action::{ConfigurationFiles, Plan};
use super::blocked::Blocked;
use super::configuration::{follows_alike, name_on_disk, refused};
use super::end::{End, Waiting};
use super::local::Situation;
use crate::observed::{Cluster, Configuration};

/// What the parser said of these files, if it refused them.
pub(super) fn rejected(files: &ConfigurationFiles, found: &Configuration) -> Option<Blocked> {
    let errors = found
        .refused
        .as_ref()
        .filter(|_| refused(files, found))?
        .errors
        .clone();
    Some(Blocked::ConfigurationRejected { errors })
}

/// A person has to hear of it; it keeps nothing else from being done.
pub(super) fn said(situation: &Situation<'_>, plan: Plan) -> Plan {
    let wanted = || {
        let found = situation.observed.configuration.known()?;
        found.refused.as_ref()?;
        rejected(&situation.files(situation.observed.cluster()?, found), found)
    };
    match &plan.end {
        End::Converged | End::Waiting(Waiting::Restart(_)) => match wanted() {
            Some(rejected) => Plan {
                end: End::Blocked(rejected),
                ..plan
            },
            None => plan,
        },
        End::Waiting(_) | End::Blocked(_) => plan,
    }
}

impl Situation<'_> {
    /// Whether what lies on disk stays although it differs: nothing is written that was refused, or that nobody can judge.
    pub(super) fn stays(&self, files: &ConfigurationFiles, found: &Configuration) -> bool {
        refused(files, found) || self.observed.installations.known().is_none()
    }

    /// Why a server must not be started with what lies on disk, where what it should have was refused. What lies there
    /// was accepted once; it will do, if it makes this copy follow whom it has to follow.
    pub(super) fn unstartable(&self, cluster: &Cluster, standby: bool) -> Option<Blocked> {
        let found = self.observed.configuration.known()?;
        found.refused.as_ref()?;
        let files = self.files(cluster, found);
        let rejected = rejected(&files, found)?;
        let usable = name_on_disk(found).is_some() && (!standby || follows_alike(&files, found));
        (!usable).then_some(rejected)
    }
}
