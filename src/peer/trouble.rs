//! Why a question got no answer that can be believed.

use std::error::Error;
use std::fmt;
use std::io;

use crate::observed::{Failing, Unanswered};

/// An attempt that failed: in which way, and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How.
    pub how: Failing,
    /// In words, with what to do where there is something to do.
    pub why: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for Trouble {}

impl Trouble {
    /// The laptop is on, but nobody answers there.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::new(Failing::Unanswered(Unanswered::Refused), why)
    }

    /// Nothing comes back.
    pub(super) fn silent(why: impl Into<String>) -> Self {
        Self::new(Failing::Unanswered(Unanswered::Silent), why)
    }

    /// Somebody is there, and does not show that it is ours.
    pub(super) fn unauthenticated(why: impl Into<String>) -> Self {
        Self::new(Failing::Unauthenticated, why)
    }

    fn new(how: Failing, why: impl Into<String>) -> Self {
        Self { how, why: why.into() }
    }

    /// What the network's error means.
    pub(super) fn network(at: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::refused(format!("{at} refuses the connection")),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => {
                Self::refused(format!("{at} breaks the connection off ({error})"))
            }
            // What was read made no sense.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::unauthenticated(format!(
                "somebody answers at {at}, but not as Paceline does ({error})"
            )),
            _ => Self::silent(format!("{at} cannot be reached: {error}")),
        }
    }

    /// Daemon and server were both asked: what it comes to.
    pub(super) fn and(&self, server: &Self) -> Self {
        let how = match (self.how, server.how) {
            // Somebody who answers is not gone, whichever of the two it is.
            (Failing::Unauthenticated, _) | (_, Failing::Unauthenticated) => Failing::Unauthenticated,
            (Failing::Unanswered(one), Failing::Unanswered(other)) if one == other => self.how,
            // One port that refuses and one that is silent: something hangs there, or a firewall is in between.
            (Failing::Unanswered(_), Failing::Unanswered(_)) => Failing::Unanswered(Unanswered::Silent),
        };
        Self::new(how, format!("{}; {}", self.why, server.why))
    }
}

/// The error of the operating system behind an error, if there is one.
pub(super) fn io_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_not_gone_and_who_hangs_is_not_off() {
        let (refused, silent) = (Trouble::refused("a"), Trouble::silent("b"));
        let stranger = Trouble::unauthenticated("c");
        for (daemon, server, how) in [
            (&refused, &refused, refused.how),
            (&silent, &silent, silent.how),
            (&refused, &silent, silent.how),
            (&silent, &refused, silent.how),
            (&stranger, &refused, stranger.how),
            (&silent, &stranger, stranger.how),
        ] {
            assert_eq!(daemon.and(server).how, how);
        }
        assert_eq!(refused.and(&silent).why, "a; b");
    }
}
