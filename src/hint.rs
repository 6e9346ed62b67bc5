//! Errors that say what to do: an `anyhow` error with a hint for a person attached.

use std::fmt;

/// An error and what a person can do about it. Put into an [`anyhow::Error`] with [`hinted`]; read with [`hint_of`].
#[derive(Debug)]
pub struct Hinted {
    what: String,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// An error that says what failed and what to do.
pub fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted {
        what: what.into(),
        hint: hint.into(),
    }
    .into()
}

/// The hint that an error carries, if any.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error
        .downcast_ref::<Hinted>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<Hinted>()))
        .map(|hinted| hinted.hint.as_str())
}
