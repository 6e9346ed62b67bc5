//! Consent: a short token, shown beside a blocked step, by which a person allows exactly that step, once, in exactly the
//! situation that it was shown with. Pure.
//!
//! The token names the situation: what would be done, both laptops' epochs, what the other one is doing, and, while that
//! one is not written to, both positions. It also counts the consents taken before, so that the same situation gets
//! another token the next time. Before anything is done it is recorded as used, together with the situation that it was
//! given for ([`Grant`]); what was granted counts only as long as that situation lasts. A consented step ends in a new
//! epoch or another copy, so that the situation is over with it.

use std::fmt;

use uuid::Uuid;

use super::action::{Action, Loss, Plan, Reason};
use super::local::{Situation, step};
use crate::digest::digest;
use crate::lineage::Lineage;
use crate::observed::{Fact, Peer};

/// So many hexadecimal digits: short enough to be copied by hand.
const DIGITS: usize = 6;

/// What a person would allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Danger {
    /// A new, empty database, although the other laptop may have one.
    NewDatabase,
    /// This copy goes on as a new epoch; what only the other laptop has is given up.
    KeepThisCopy,
    /// This copy is set aside, and the other laptop's takes its place.
    GiveUpThisCopy,
    /// A backup takes the place of this copy, although the other laptop may go on with its own.
    Restore,
}

impl Danger {
    /// A short, stable name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NewDatabase => "new_database",
            Self::KeepThisCopy => "keep_this_copy",
            Self::GiveUpThisCopy => "give_up_this_copy",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewDatabase => "begin with a new, empty database all the same",
            Self::KeepThisCopy => {
                "go on with this laptop's copy all the same, and give up what only the other one has"
            }
            Self::GiveUpThisCopy => "set this laptop's copy aside and copy the other one's",
            Self::Restore => "restore all the same",
        })
    }
}

/// What a person may consent to, and by which word.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The word to write as `consent`.
    pub token: String,
    /// What it allows.
    pub danger: Danger,
    /// What that may lose; of a copy that is kept.
    pub loss: Option<Loss>,
}

/// A consent that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The word that was written.
    pub token: String,
    /// The situation that it was given for.
    pub situation: String,
}

/// Whether a person allowed something.
pub(super) enum Consent {
    /// It is recorded, and nothing has changed since.
    Granted,
    /// The word is there; it has to be recorded first.
    Given(Grant),
    /// Nobody did; `None`: nobody can, because it cannot be seen which words were used before.
    Missing(Option<Offer>),
}

impl Situation<'_> {
    /// Whether a person allowed this.
    pub(super) fn consent(&self, danger: Danger) -> Consent {
        let consents = match &self.observed.consents.fact {
            Fact::Known(consents) => consents,
            Fact::Unknown(_) => return Consent::Missing(None),
        };
        let (situation, own) = self.words(danger);
        if consents.granted.as_ref() == Some(&situation) {
            return Consent::Granted;
        }
        let mut token = digest(&[&situation, &own, &consents.used.len().to_string()]);
        token.truncate(DIGITS);
        if self.desired.consent.as_ref() == Some(&token) && !consents.used.contains(&token) {
            return Consent::Given(Grant { token, situation });
        }
        let loss = match danger {
            Danger::KeepThisCopy => Some(self.loss()),
            Danger::NewDatabase | Danger::GiveUpThisCopy | Danger::Restore => None,
        };
        Consent::Missing(Some(Offer { token, danger, loss }))
    }

    /// Whether a person consented to this, whether that is recorded yet or not.
    pub(super) fn consented(&self, danger: Danger) -> bool {
        match self.consent(danger) {
            Consent::Granted | Consent::Given(_) => true,
            Consent::Missing(_) => false,
        }
    }

    /// Whether this is what the person who wrote the word consented to.
    pub(super) fn is_given(&self, grant: &Grant) -> bool {
        [
            Danger::NewDatabase,
            Danger::KeepThisCopy,
            Danger::GiveUpThisCopy,
            Danger::Restore,
        ]
        .into_iter()
        .any(|danger| match self.consent(danger) {
            Consent::Given(given) => given == *grant,
            Consent::Granted | Consent::Missing(_) => false,
        })
    }

    /// The situation, and apart from it how far our copy goes: that may become known, by starting it, without another
    /// situation.
    fn words(&self, danger: Danger) -> (String, String) {
        let ours = self.observed.lineage();
        let theirs = self.their_lineage();
        let (state, writable) = match self.peer {
            Peer::None => ("none".to_owned(), false),
            Peer::Unknown(_) => ("silent".to_owned(), false),
            Peer::Unauthenticated { .. } => ("unauthenticated".to_owned(), false),
            Peer::Known(facts) => {
                let server = match &facts.server {
                    Fact::Known(server) => server.to_string(),
                    Fact::Unknown(_) => "unknown".to_owned(),
                };
                (format!("{server} {}", facts.data), facts.writable())
            }
        };
        let position = |lineage: Option<&Lineage>| match lineage.and_then(|lineage| lineage.position) {
            Some(position) if !writable => position.to_string(),
            Some(_) | None => String::new(),
        };
        let situation = digest(&[
            danger.word(),
            &names(ours.as_ref()),
            &names(theirs),
            &state,
            &position(theirs),
        ]);
        (situation, position(ours.as_ref()))
    }

    /// Which history the other laptop's copy holds, by its word or, while it is silent, by what `home` remembers.
    pub(super) fn their_lineage(&self) -> Option<&Lineage> {
        match self.peer {
            Peer::Known(facts) => facts.lineage.as_ref(),
            Peer::None | Peer::Unknown(_) | Peer::Unauthenticated { .. } => {
                self.memory().and_then(|memory| memory.lineage.as_ref())
            }
        }
    }

    /// The other laptop's epochs that our copy does not hold: what is given up with them.
    pub(super) fn given_up(&self) -> Vec<Uuid> {
        let ours = self.observed.lineage();
        let held = |uuid: &Uuid| {
            ours.iter()
                .flat_map(Lineage::held)
                .any(|epoch| epoch.uuid == *uuid)
        };
        self.their_lineage()
            .into_iter()
            .flat_map(Lineage::held)
            .map(|epoch| epoch.uuid)
            .filter(|uuid| !held(uuid))
            .collect()
    }

    /// `act` if a person consented to it; otherwise `resting`, with that offered.
    pub(super) fn by_consent(&self, danger: Danger, resting: Plan, act: impl FnOnce() -> Plan) -> Plan {
        match self.consent(danger) {
            Consent::Granted => act(),
            Consent::Given(grant) => {
                let act = act();
                let mut steps = vec![step(Action::RecordConsent(grant), Reason::Consented)];
                steps.extend(act.steps);
                // Nothing is announced before it is recorded.
                Plan::new(steps, act.end)
            }
            Consent::Missing(offer) => resting.offering(offer),
        }
    }
}

fn names(lineage: Option<&Lineage>) -> String {
    let Some(lineage) = lineage else {
        return String::new();
    };
    let epochs: Vec<String> = lineage.held().map(|epoch| epoch.uuid.to_string()).collect();
    format!("{} {}", lineage.system_identifier, epochs.join(" "))
}
