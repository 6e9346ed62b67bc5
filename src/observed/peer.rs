//! The other laptop as facts: what it answered and when, or how it failed to answer and for how long.
//!
//! The link (`peer`) asks and keeps a [`Link`]; at the moment of a decision that becomes a [`Peer`], which says how far
//! those facts may still be relied on. Both are plain data; nothing here asks anybody.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DataState, Fact, HandedOver, Moment, Server};
use crate::desired::{PeerAddress, Role};
use crate::lineage::{Lineage, Lsn};

/// How long an answer counts.
pub const KNOWN_FOR: Duration = Duration::from_secs(2);
/// So many attempts must have failed before silence counts as settled.
pub const FAILED_ATTEMPTS: u32 = 2;

/// A failure that is older than this says nothing any more: it is asked every second, unless we slept.
const LATELY: Duration = Duration::from_secs(5);

/// The other laptop, as far as it can be relied on at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// There is none and never was.
    None,
    /// It does not answer.
    Unknown(Silence),
    /// Somebody answers at its address, but not with our secret: never the same as gone.
    Unauthenticated {
        /// What the answer was.
        why: String,
    },
    /// It answered lately.
    Known(Box<PeerFacts>),
}

/// The other laptop does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// In which way.
    pub how: Unanswered,
    /// The last attempt's words.
    pub why: String,
    /// When it last answered; before it ever did: when asking began.
    pub since: Moment,
    /// How far its copy went when it last answered, if it did.
    pub position: Option<Lsn>,
    /// Whether it has failed long and often enough to be relied on. An unsettled one is asked again at once.
    pub settled: bool,
}

/// In which way the other laptop does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unanswered {
    /// It was not asked yet, or the first answer is still to come.
    NotYet,
    /// It refuses: the laptop is on, daemon and server are not.
    Refused,
    /// Nothing comes back: it is off, or the network is.
    Silent,
}

/// What the other laptop announces that it is about to do. It is shown before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Its server becomes writable by initdb or by the start of a primary copy.
    Starting,
    /// Its server becomes writable by promotion.
    Taking,
}

impl Flag {
    /// The word of the status document.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Taking => "taking",
        }
    }
}

/// What the other laptop said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// When the answer came.
    pub at: Moment,
    /// When that question was asked: the answer knows of everything that we had published before.
    pub asked_at: Moment,
    /// Its name; `None`: only its server answers.
    pub node: Option<String>,
    /// Its declared role; `None`: only its server answers, not its daemon.
    pub role: Option<Role>,
    /// What its copy is.
    pub data: DataState,
    /// Whether its copy's server crashed.
    pub crashed: bool,
    /// Major version of its data, if there is any.
    pub major: Option<u32>,
    /// What its server is doing.
    pub server: Fact<Server>,
    /// Which history its copy holds; `None`: it has none, or cannot tell.
    pub lineage: Option<Lineage>,
    /// What it is about to do.
    pub flag: Option<Flag>,
    /// The copy that it gave away, if it did and nobody took over since.
    pub handed_over: Option<HandedOver>,
    /// Whether its gate is open.
    pub gate_open: bool,
    /// The timeline of its last checkpoint: until it is the one that is written, nobody can rewind to it. `None`: it did
    /// not say.
    pub checkpoint_timeline: Option<u32>,
    /// Where the WAL begins that its server still has; `None`: it did not say.
    pub oldest_wal: Option<Lsn>,
    /// The slots on its server that may be streamed from; `None`: it did not say.
    pub slots: Option<Vec<String>>,
    /// What it last saw of us; `None`: nothing, or only its server answers.
    pub sees: Option<SeesUs>,
}

impl PeerFacts {
    /// Whether its server may be written to, as far as is known.
    pub fn writable(&self) -> bool {
        self.server == Fact::Known(Server::Writable)
    }

    /// Whether its server is known not to be written to, nor about to be: a start that is under way is not announced
    /// any more, and a server that does not answer may well be written to.
    pub fn at_rest(&self) -> bool {
        match self.server {
            Fact::Known(Server::Down) => true,
            // Of a primary's only some sessions are told to refuse writes.
            Fact::Known(Server::ReadOnly { .. }) => self.data != DataState::Primary,
            Fact::Known(Server::Starting | Server::Stopping | Server::Writable) | Fact::Unknown(_) => false,
        }
    }
}

/// What the other laptop last saw of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeesUs {
    /// Our declared role.
    pub role: Option<Role>,
    /// Our flag.
    pub flag: Option<Flag>,
}

/// What `home` remembers of the other laptop, on disk before it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMemory {
    /// Version of this file's format: [`PeerMemory::FORMAT`].
    pub format: u32,
    /// Where it was asked.
    pub address: PeerAddress,
    /// Its name.
    pub node: Option<String>,
    /// Its last known declared role.
    pub role: Option<Role>,
    /// What its copy was.
    pub data: DataState,
    /// Whether its server was writable.
    pub writable: bool,
    /// The history that its copy held.
    pub lineage: Option<Lineage>,
    /// What it was about to do.
    pub flag: Option<Flag>,
    /// The copy that it gave away.
    #[serde(default)]
    pub handed_over: Option<HandedOver>,
    /// How far its copy went when that was last known; for people.
    #[serde(default)]
    pub position: Option<Lsn>,
    /// When it answered, RFC 3339; for people.
    pub seen: String,
}

impl PeerMemory {
    /// The file in `home`.
    pub const FILE: &'static str = "peer.json";
    /// The format that this version writes, and the newest it reads.
    pub const FORMAT: u32 = 1;
}

/// What the link has gathered so far. It changes with every answer and every failure; what may be relied on also
/// changes as time passes: see [`Link::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// When asking began.
    pub began: Moment,
    /// The last answer.
    pub answered: Option<PeerFacts>,
    /// The failures since then.
    pub failed: Option<Failed>,
}

/// Attempts that got no (believable) answer, since the last one that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// How many.
    pub attempts: u32,
    /// When the last one failed.
    pub at: Moment,
    /// How.
    pub how: Failing,
    /// In words.
    pub why: String,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failing {
    /// Refused, or silent.
    Unanswered(Unanswered),
    /// Somebody answered without our secret.
    Unauthenticated,
}

impl Link {
    /// Nobody was asked yet.
    pub fn new(began: Moment) -> Self {
        Self {
            began,
            answered: None,
            failed: None,
        }
    }

    /// What can be relied on at this moment. `peer_wait`: how long a daemon that has just started waits for a first
    /// answer.
    pub fn at(&self, now: Moment, peer_wait: Duration) -> Peer {
        if let Some(facts) = &self.answered
            && now.since(facts.at) <= KNOWN_FOR
        {
            return Peer::Known(Box::new(facts.clone()));
        }
        let lately = |failed: &&Failed| now.since(failed.at) <= LATELY;
        let (how, why, attempts) = match self.failed.as_ref().filter(lately) {
            None if self
                .answered
                .as_ref()
                .is_some_and(|facts| now.since(facts.at) <= LATELY) =>
            {
                (
                    Unanswered::Silent,
                    "its last answer is more than 2 s old".to_owned(),
                    0,
                )
            }
            None => (Unanswered::NotYet, "it was not asked lately".to_owned(), 0),
            Some(Failed {
                how: Failing::Unauthenticated,
                why,
                ..
            }) => return Peer::Unauthenticated { why: why.clone() },
            Some(Failed {
                how: Failing::Unanswered(how),
                why,
                attempts,
                ..
            }) => (*how, why.clone(), *attempts),
        };
        let (since, patience) = match &self.answered {
            Some(facts) => (facts.at, KNOWN_FOR),
            None => (self.began, peer_wait.max(KNOWN_FOR)),
        };
        let position = self
            .answered
            .as_ref()
            .and_then(|facts| facts.lineage.as_ref())
            .and_then(|lineage| lineage.position);
        Peer::Unknown(Silence {
            how,
            why,
            since,
            position,
            settled: attempts >= FAILED_ATTEMPTS && now.since(since) >= patience,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn second(number: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(number))
    }

    fn answer(at: u64) -> PeerFacts {
        PeerFacts {
            at: second(at),
            asked_at: second(at),
            node: None,
            role: None,
            data: DataState::Primary,
            crashed: false,
            major: None,
            server: Fact::Known(Server::Writable),
            lineage: None,
            flag: None,
            handed_over: None,
            gate_open: false,
            checkpoint_timeline: None,
            oldest_wal: None,
            slots: None,
            sees: None,
        }
    }

    fn failed(at: u64, attempts: u32, how: Failing) -> Failed {
        Failed {
            attempts,
            at: second(at),
            how,
            why: "connection refused".to_owned(),
        }
    }

    fn settled(link: &Link, now: u64) -> Option<bool> {
        match link.at(second(now), WAIT) {
            Peer::Unknown(silence) => Some(silence.settled),
            Peer::None | Peer::Unauthenticated { .. } | Peer::Known(_) => None,
        }
    }

    #[test]
    fn an_answer_counts_for_two_seconds() {
        let mut link = Link::new(second(0));
        link.answered = Some(answer(100));
        link.failed = Some(failed(102, 5, Failing::Unanswered(Unanswered::Refused)));
        assert!(matches!(link.at(second(102), WAIT), Peer::Known(_)));
        assert_eq!(settled(&link, 103), Some(true));
    }

    #[test]
    fn silence_is_settled_after_two_failures_and_not_before() {
        let mut link = Link::new(second(0));
        link.answered = Some(answer(100));
        // After a suspend: the answer is old, and nobody was asked since.
        assert_eq!(settled(&link, 500), Some(false));
        link.failed = Some(failed(500, 1, Failing::Unanswered(Unanswered::Silent)));
        assert_eq!(settled(&link, 500), Some(false));
        link.failed = Some(failed(500, 2, Failing::Unanswered(Unanswered::Silent)));
        assert_eq!(settled(&link, 500), Some(true));
        // Asleep again: those failures are old.
        assert_eq!(settled(&link, 900), Some(false));
    }

    #[test]
    fn a_daemon_that_has_just_started_waits_for_a_first_answer() {
        let mut link = Link::new(second(0));
        link.failed = Some(failed(9, 9, Failing::Unanswered(Unanswered::Refused)));
        assert_eq!(settled(&link, 9), Some(false));
        assert_eq!(settled(&link, 10), Some(true));
    }

    /// `default_transaction_read_only` may be set for the role that asks, while everybody else writes.
    #[test]
    fn a_primary_that_refuses_our_writes_is_not_at_rest() {
        let mut facts = answer(1);
        facts.server = Fact::Known(Server::ReadOnly { streaming: false });
        assert!(!facts.at_rest());
        facts.data = DataState::Replica;
        assert!(facts.at_rest());
    }

    #[test]
    fn another_secret_is_never_silence() {
        let mut link = Link::new(second(0));
        link.failed = Some(failed(99, 9, Failing::Unauthenticated));
        assert!(matches!(link.at(second(99), WAIT), Peer::Unauthenticated { .. }));
    }
}
