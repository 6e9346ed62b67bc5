//! What a plan waits for, or is blocked by, because of the other laptop.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do. No text
//! holds an age or a position: it would change at every look.

use std::fmt;

use camino::Utf8PathBuf;

use crate::desired::Role;
use crate::observed::{DataState, Flag};

/// What a plan waits for: the other laptop, or news of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerWait {
    /// It does not answer, but not for long enough to rely on that.
    Unsettled(String),
    /// What we announce has to be seen, or the other laptop's answer to it fetched.
    Announced(Flag),
    /// It announces that it is about to become writable itself.
    Announces(Flag),
    /// It is declared failover and may take over.
    TakesOver,
    /// It holds the primary copy and is about to start it.
    HoldsPrimary,
    /// It serves; what would make it hand over.
    Serves,
    /// Our copy was handed over; it promotes when it has all of it.
    TakesHandover,
    /// Both copies were handed over and nobody took one; it takes its own back.
    TakesBack,
    /// Our server is stopped, and the copy then comes back as a follower.
    ComesBack,
    /// It went beyond our copy, and does not serve now.
    HoldsNewer,
    /// It has, or may have, a database, and does not serve it now.
    NotServing,
    /// It has no database yet.
    NoDatabaseYet,
    /// It cannot be reached, and here is nothing to take over with.
    Unreachable(String),
    /// It cannot be reached; what is here stays as it is until it can.
    Away(String),
    /// It writes an older history than ours and has to stop first.
    StepsDown,
    /// Its history cannot be compared with ours now: why.
    Incomparable(String),
    /// Its server is on its way up or down, or does not answer, so that it may be written to.
    ServerUnclear,
    /// Its server is read-only; only when it answers for its copy can be told who is ahead.
    Unproven,
    /// It has no slot for this laptop yet.
    Prepares,
    /// It is followed, and what is missing is on its way.
    CatchingUp,
    /// It is followed and nothing streams: the server's words, if it said any.
    NotStreaming(Option<String>),
    /// Our server was told to end recovery and replays what it received.
    Promoting,
    /// Replay was paused by a person.
    ReplayPaused,
}

impl fmt::Display for PeerWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsettled(why) => write!(
                f,
                "asking the other laptop again before relying on its silence: {why}"
            ),
            Self::Announced(Flag::Starting) => {
                f.write_str("announced to the other laptop that this one starts; waiting for its answer")
            }
            Self::Announced(Flag::Taking) => {
                f.write_str("announced to the other laptop that this one takes over; waiting for its answer")
            }
            Self::Announces(Flag::Starting) => f.write_str("the other laptop is about to start its database"),
            Self::Announces(Flag::Taking) => f.write_str("the other laptop is about to take over"),
            Self::TakesOver => f.write_str("the other laptop is declared failover and may take over"),
            Self::HoldsPrimary => f.write_str("the other laptop holds the primary copy and starts it"),
            Self::Serves => f.write_str("the other laptop serves; this one follows it"),
            Self::TakesHandover => f.write_str("handed over: the other laptop takes over as soon as it has everything"),
            Self::TakesBack => f.write_str("nobody took over; the other laptop takes its own copy back"),
            Self::ComesBack => f.write_str("the other laptop took over; this copy comes back as its standby"),
            Self::HoldsNewer => f.write_str("the other laptop has the newer copy; this one waits until that one serves it"),
            Self::NotServing => f.write_str("the other laptop does not serve its database at the moment"),
            Self::NoDatabaseYet => f.write_str("the other laptop has no database yet"),
            Self::Unreachable(why) | Self::Away(why) => write!(f, "the other laptop cannot be reached: {why}"),
            Self::StepsDown => f.write_str("the other laptop writes an older history; it has to stop first"),
            Self::Incomparable(why) => {
                write!(f, "cannot compare this copy with the other laptop's: {why}")
            }
            Self::ServerUnclear => f.write_str(
                "the other laptop's server is on its way up or down, or does not answer: it may be written to",
            ),
            Self::Unproven => {
                f.write_str("cannot tell yet whether the other laptop's copy goes further than this one")
            }
            Self::Prepares => f.write_str("the other laptop prepares to be copied and followed"),
            Self::CatchingUp => f.write_str("receiving what is missing from the other laptop"),
            Self::NotStreaming(None) => f.write_str("not streaming from the other laptop yet"),
            Self::NotStreaming(Some(why)) => write!(f, "not streaming from the other laptop: {why}"),
            Self::Promoting => f.write_str("the server is being promoted; it first replays what it received"),
            Self::ReplayPaused => f.write_str("somebody paused the replay, so this copy falls behind"),
        }
    }
}

impl PeerWait {
    /// Whether it is over within seconds, so that whoever converges once waits for it.
    pub const fn is_brief(&self) -> bool {
        match self {
            Self::Unsettled(_)
            | Self::Announced(_)
            | Self::Announces(_)
            | Self::Prepares
            | Self::Promoting
            | Self::CatchingUp
            | Self::TakesHandover
            | Self::ComesBack
            | Self::NotStreaming(None) => true,
            Self::TakesOver
            | Self::HoldsPrimary
            | Self::Serves
            | Self::TakesBack
            | Self::HoldsNewer
            | Self::NotServing
            | Self::NoDatabaseYet
            | Self::Unreachable(_)
            | Self::Away(_)
            | Self::StepsDown
            | Self::Incomparable(_)
            | Self::ServerUnclear
            | Self::Unproven
            | Self::NotStreaming(Some(_))
            | Self::ReplayPaused => false,
        }
    }

    /// What a person may do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsettled(_)
            | Self::Announced(_)
            | Self::Announces(_)
            | Self::ComesBack
            | Self::Prepares
            | Self::Promoting
            | Self::NotStreaming(None) => None,
            Self::TakesOver => Some(
                "if it does not, `paceline status` there says why; to serve from here instead, write `primary` here and `standby` \
                 there"
                    .to_owned(),
            ),
            Self::HoldsPrimary | Self::TakesBack | Self::Unproven => Some(
                "if that does not happen within a minute, look at the other laptop: `paceline status` there says what it waits for"
                    .to_owned(),
            ),
            Self::StepsDown => Some(
                "if it does not, its daemon may not be running: start it there (or stop that server), and it steps down".to_owned(),
            ),
            Self::CatchingUp => Some(
                "it goes on by itself; if nothing arrives, look at the network between the two laptops".to_owned(),
            ),
            Self::Serves => Some(
                "to have it hand over to this one, write `standby` on the other laptop; if that one is switched off for good, \
                 write `role: failover` here"
                    .to_owned(),
            ),
            Self::TakesHandover => Some(
                "if it does not, look at the other laptop; to take the database back, write `standby` there and `primary` here"
                    .to_owned(),
            ),
            Self::HoldsNewer => Some(
                "look at the other laptop: `paceline status` there says what it waits for. If it is dead, `role: failover` here \
                 says what would be lost"
                    .to_owned(),
            ),
            Self::NotServing => Some("look at the other laptop: `paceline status` there says what it waits for".to_owned()),
            Self::NoDatabaseYet => Some("declare one of the two laptops primary".to_owned()),
            Self::ServerUnclear => Some(
                "if it stays so, look at the other laptop, or switch it off: `role: failover` here then takes over".to_owned(),
            ),
            Self::Unreachable(_) => Some("switch it on, or connect it: this laptop then copies its database".to_owned()),
            Self::Away(_) => Some(
                "it goes on by itself when the other laptop is back; if that one is dead, `role: failover` here takes over"
                    .to_owned(),
            ),
            Self::Incomparable(_) => Some("it is tried again; if it stays so, look at the other laptop".to_owned()),
            Self::NotStreaming(Some(_)) => Some("it is tried again; the server's log has the whole story".to_owned()),
            Self::ReplayPaused => {
                Some("let it go on, as superuser on this laptop: select pg_wal_replay_resume()".to_owned())
            }
        }
    }
}

/// Why nothing (more) is done because of the other laptop, until a person acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerBlock {
    /// Here is no database, and the other laptop, which may have one, does not answer.
    EmptyPeerSilent,
    /// Here is no database, and the other laptop had one.
    EmptyPeerHadData,
    /// Declared primary without a database, and the other laptop, declared standby, has one that is not served.
    EmptyBesideStandby,
    /// Here is no database, and what the other laptop has cannot be copied.
    EmptyPeerUnclear(DataState),
    /// Both laptops are empty and declared writing.
    BothEmpty,
    /// Both laptops are declared standby.
    BothStandby,
    /// Both laptops are declared failover.
    BothFailover,
    /// Somebody answers without our secret.
    Unauthenticated {
        /// What the answer was.
        why: String,
        /// Our secret.
        secret: Utf8PathBuf,
    },
    /// Our secret is missing or unusable.
    Secret {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Both copies were written to apart.
    Twins,
    /// The other laptop has another database.
    Stranger {
        /// Ours.
        ours: String,
        /// The other one's.
        theirs: String,
    },
    /// Both laptops have the same name.
    SameName {
        /// Which.
        node: String,
    },
    /// The other laptop writes the very epoch that this primary copy was written in.
    SameEpoch,
    /// The other laptop took over; this copy would have to be brought back.
    Superseded {
        /// Whether the other laptop serves, so that this one could follow it.
        served: bool,
        /// What this laptop is declared.
        role: Role,
    },
    /// This standby's copy holds what the other laptop's history does not.
    Forked {
        /// Whether the other laptop serves, so that this one could follow it.
        served: bool,
    },
    /// Our copy was handed over, and the other laptop, which should have taken it, does not answer.
    HandedOverPeerSilent,
    /// Declared recovery, and the other laptop, which may go on with what it has, does not answer.
    RecoveryPeerSilent(String),
    /// Declared recovery beside a laptop that is not a standby at rest.
    RecoveryBesidePeer {
        /// Whether its database is being written to.
        writes: bool,
    },
    /// The other laptop may have taken over when it was last seen.
    MayHaveTakenOver,
    /// The server crashed, and the other laptop may have taken over since.
    Quarantine,
    /// Declared primary with a standby's copy, while the other laptop is not declared standby.
    DeclareOtherStandby,
    /// A standby's copy that is newer than the other laptop's primary copy.
    PeerSuperseded,
    /// Declared primary with a standby's copy, and the other laptop does not answer.
    StandbyCopy,
    /// Declared standby with a primary's copy, and the other laptop does not answer.
    PrimaryCopy,
    /// Declared failover, and the other laptop is alive and writing.
    PeerAlive,
    /// Declared failover, and the other laptop may hold more than this one.
    PeerAhead,
}

impl fmt::Display for PeerBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPeerSilent => f.write_str(
                "the data directory is empty and the other laptop, which may have the data, does not answer",
            ),
            Self::EmptyPeerHadData => f.write_str(
                "the data directory is empty; the other laptop had the database when it was last seen, and does not answer",
            ),
            Self::EmptyBesideStandby => f.write_str(
                "this laptop is declared primary and has no usable copy; the other one has a standby's, and does not serve it",
            ),
            Self::EmptyPeerUnclear(state) => write!(
                f,
                "the data directory is empty, and the other laptop's copy, which may be the database, is {state}"
            ),
            Self::BothEmpty => f.write_str("both laptops are declared writing and both are empty"),
            Self::BothStandby => f.write_str("both laptops are declared standby"),
            Self::BothFailover => f.write_str("both laptops are declared failover"),
            Self::Unauthenticated { why, .. } => f.write_str(why),
            Self::Secret { path, why } => write!(f, "cannot use the replication password {path}: {why}"),
            Self::Twins => f.write_str(
                "both laptops' databases were written to apart from each other; neither contains the other",
            ),
            Self::Stranger { ours, theirs } => write!(
                f,
                "the other laptop has another database (system identifier {theirs}; here: {ours})"
            ),
            Self::SameName { node } => write!(f, "both laptops are called {node:?}"),
            Self::SameEpoch => f.write_str(
                "the other laptop writes the same stretch of history that this primary's copy was written in: one of the \
                 two was made writable by hand",
            ),
            Self::Superseded { .. } => {
                f.write_str("the other laptop took over; this copy is older and must not be written to any more")
            }
            Self::Forked { .. } => {
                f.write_str("this copy holds something that is not part of the other laptop's history")
            }
            Self::HandedOverPeerSilent => f.write_str(
                "this laptop handed its copy over, and the other one, which may have taken over, does not answer",
            ),
            Self::RecoveryPeerSilent(why) => write!(
                f,
                "a restore replaces this copy, and the other laptop, which may go on with its own, does not answer: {why}"
            ),
            Self::RecoveryBesidePeer { writes: true } => f.write_str(
                "the other laptop is alive and its database is being written to; a restore here would make two of it",
            ),
            Self::RecoveryBesidePeer { writes: false } => {
                f.write_str("the other laptop is not declared standby, so that it may go on with its own copy")
            }
            Self::MayHaveTakenOver => f.write_str(
                "the other laptop does not answer and was about to take over, or declared failover, when it was last seen",
            ),
            Self::Quarantine => f.write_str(
                "this laptop did not shut down cleanly, and the other one, which may have taken over since, does not answer",
            ),
            Self::DeclareOtherStandby => f.write_str(
                "this laptop is declared primary with a standby's copy, and the other one is not declared standby",
            ),
            Self::PeerSuperseded => f.write_str(
                "the other laptop holds a primary's copy that is older than this standby's copy, and does not start it any more",
            ),
            Self::StandbyCopy => f.write_str(
                "this laptop is declared primary, but its copy is a standby's and the other laptop does not answer",
            ),
            Self::PrimaryCopy => f.write_str(
                "this laptop is declared standby, but holds a primary's copy and the other laptop does not answer",
            ),
            Self::PeerAlive => f.write_str("the other laptop is alive and its database is being written to"),
            Self::PeerAhead => f.write_str(
                "the other laptop answers, and its copy may hold more than this one, which would be lost",
            ),
        }
    }
}

impl PeerBlock {
    /// What a person has to do.
    pub fn hint(&self) -> String {
        match self {
            Self::EmptyPeerSilent => "is the disk mounted? is the other laptop on, with its daemon? It goes on by itself when \
                 that one answers. For a new, empty database on two new laptops: `paceline init`"
                .to_owned(),
            Self::EmptyPeerHadData => "is the disk mounted? Otherwise bring the other laptop back: this one then copies it".to_owned(),
            Self::EmptyBesideStandby => "write `primary` there and `standby` here: that one then serves its copy, and this one \
                 copies it"
                .to_owned(),
            Self::EmptyPeerUnclear(_) => "look at the other laptop: `paceline status` there says what is wrong".to_owned(),
            Self::BothEmpty => "declare one of the two laptops standby".to_owned(),
            Self::BothStandby => "declare one of the two laptops primary".to_owned(),
            Self::BothFailover => "declare the one with the newer data primary and the other one standby".to_owned(),
            Self::Unauthenticated { secret, .. } => format!(
                "both laptops need the same {secret}: run `paceline join` on one of them with the line that `paceline init` \
                 printed on the other, or correct `peer`"
            ),
            Self::Secret { path, .. } => format!(
                "run `paceline join` with the line that `paceline init` printed on the other laptop, or copy {path} from \
                 there (mode 0600)"
            ),
            Self::Twins => "nothing was touched. Decide which of the two copies to keep, and write `standby` on the laptop whose \
                 copy is to go: beside a serving laptop it then shows a consent. If neither serves, `primary` on the one to \
                 keep shows one. What goes is set aside, not deleted"
                .to_owned(),
            Self::Stranger { .. } => "is `peer` right? If so, decide which of the two databases to keep, and write `standby` on the \
                 laptop whose database is to go: beside a serving laptop it then shows a consent. If neither serves, \
                 `primary` on the one to keep shows one. What goes is set aside, not deleted"
                .to_owned(),
            Self::SameName { .. } => "give one of them another name: `node: NAME` in its state file (or another host name)".to_owned(),
            Self::SameEpoch => "nothing was started. Decide which copy to keep and move the other one's data directory away \
                 (do not delete it)"
                .to_owned(),
            Self::Superseded {
                served: true,
                role: Role::Failover | Role::Recovery,
            } => "write `standby` here: this laptop then follows the other one, and what is only here is kept".to_owned(),
            Self::Superseded { .. } => {
                "bring the other laptop back, which has the newer data: this one goes on by itself. If that one is there as a \
                 standby, declare `role: failover` on it"
                    .to_owned()
            }
            Self::Forked { served: true } => {
                "write `standby` here: this laptop then follows the other one, and what is only here is kept".to_owned()
            }
            Self::Forked { served: false } => {
                "bring the other laptop back, which has the newer data, and write `standby` here".to_owned()
            }
            Self::HandedOverPeerSilent => "bring the other laptop back: it goes on by itself. If the other laptop is dead, declare \
                 `role: failover` here"
                .to_owned(),
            Self::RecoveryPeerSilent(_) => {
                "switch the other laptop on and declare it standby: it then copies what is restored here".to_owned()
            }
            Self::RecoveryBesidePeer { writes: true } => "hand over first: write `primary` here and `standby` there; then declare \
                 `role: recovery` here. The other laptop copies what is restored"
                .to_owned(),
            Self::RecoveryBesidePeer { writes: false } => "declare the other laptop standby".to_owned(),
            Self::MayHaveTakenOver => {
                "bring the other laptop back, with its daemon: it goes on by itself".to_owned()
            }
            Self::Quarantine => "switch the other laptop on, or connect it: it goes on by itself. If the other laptop is gone, \
                 write `role: failover` here"
                .to_owned(),
            Self::DeclareOtherStandby => "declare the other laptop standby".to_owned(),
            Self::PeerSuperseded => "declare `role: failover` here: this copy, the newer one, is then written to".to_owned(),
            Self::StandbyCopy => "if the other laptop is dead, declare `role: failover` here".to_owned(),
            Self::PrimaryCopy => "bring the other laptop back; if it is dead, declare `role: failover` here".to_owned(),
            Self::PeerAlive => "the other laptop is alive: write `standby` there and `primary` here, and it hands over; nothing is \
                 lost"
                .to_owned(),
            Self::PeerAhead => "write `primary` there and `standby` here: nothing is lost".to_owned(),
        }
    }
}
