//! What no plan may ever be, whatever row it came from, and how that is said. See `check`.

use std::fmt;

/// What no plan may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A consent is recorded before anything else, once, and only one that a person gave for this.
    ConsentFirst,
    /// The application is gone before its server is stopped.
    AppBeforeServer,
    /// What works on the copy itself has no server beside it.
    StoppedFirst,
    /// Nothing is written any more by a server that is about to be stopped.
    NothingBeforeAStop,
    /// A server is started that is down, as what its copy is.
    StartAsMarked,
    /// A handover is: shut down, promise, standby.signal; and only to somebody who takes it.
    Handover,
    /// A primary's copy becomes a standby's in a handover, as the beginning of the other one's history, or by consent.
    SignalWithReason,
    /// A rewind: of a primary's copy, onto the newer history of a laptop that is written to.
    RewindOntoNewer,
    /// A copy replaces another only if that is not missed.
    CloneReplacesNothing,
    /// A promotion: named beforehand, of a standby's copy, and not beside somebody who writes or may hold more.
    PromoteAlone,
    /// A new database: where there is none, here or there.
    CreateOnEmpty,
    /// A restore: where it was asked for, and nobody goes on with what it replaces.
    RestoreAlone,
    /// What may be written to is started only where nobody else writes, and never when it is superseded.
    StartAlone,
    /// What becomes writable is announced as what it is.
    FlagFits,
    /// What begins a timeline names it.
    NamedAfter,
    /// Nothing is done to the copy while a fact about it is missing.
    LocalFactsKnown,
    /// A superseded server that is written to is stopped, and nothing else is done.
    SupersededIsStopped,
    /// The gate is not open beside a step that touches the server.
    GateClosed,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::ConsentFirst,
        Self::AppBeforeServer,
        Self::StoppedFirst,
        Self::NothingBeforeAStop,
        Self::StartAsMarked,
        Self::Handover,
        Self::SignalWithReason,
        Self::RewindOntoNewer,
        Self::CloneReplacesNothing,
        Self::PromoteAlone,
        Self::CreateOnEmpty,
        Self::RestoreAlone,
        Self::StartAlone,
        Self::FlagFits,
        Self::NamedAfter,
        Self::LocalFactsKnown,
        Self::SupersededIsStopped,
        Self::GateClosed,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsentFirst => "a consent is recorded first, and only one that was given for this",
            Self::AppBeforeServer => "the application is stopped before its server",
            Self::StoppedFirst => "a copy is worked on only when no server runs on it",
            Self::NothingBeforeAStop => "a server that is to be stopped is given nothing else to write",
            Self::StartAsMarked => "a server that is down is started as what its copy is",
            Self::Handover => "a handover is shutdown, promise and standby.signal, and goes to a laptop that takes it",
            Self::SignalWithReason => {
                "a primary's copy becomes a standby's by handover, as the beginning of the other one's history, or by consent"
            }
            Self::RewindOntoNewer => "a rewind brings a primary's copy onto the newer history of a laptop that is written to",
            Self::CloneReplacesNothing => "a copy replaces only what nobody misses, or what a person gave up",
            Self::PromoteAlone => {
                "a promotion has its name beforehand, and nobody beside it who writes or may hold more, without consent"
            }
            Self::CreateOnEmpty => "a new database is made only where there is none, here or there",
            Self::RestoreAlone => "a backup replaces a copy only where nobody goes on with that one, or by consent",
            Self::StartAlone => "a primary's copy is started only where it is not superseded and nobody else writes",
            Self::FlagFits => "what becomes writable is announced as what it is",
            Self::NamedAfter => "a new timeline gets its name",
            Self::LocalFactsKnown => "nothing is done to a copy while a fact about it is missing",
            Self::SupersededIsStopped => "a superseded server that is written to is stopped before anything else",
            Self::GateClosed => "the gate is closed beside a step that touches the server",
        })
    }
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which rule it breaks.
    pub rule: Rule,
    /// At which action: its short name.
    pub action: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.rule, self.action)
    }
}

impl std::error::Error for Fault {}
