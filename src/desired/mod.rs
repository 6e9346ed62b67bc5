//! What a person declares: the state file, from bytes on a disk to a validated [`Desired`].
//!
//! ```text
//! bytes ─source─► text ─file─► tree with places ─validate─► Desired, or every problem at once
//!                                                  ▲
//!                            watch (when to look again)
//! ```
//!
//! [`mod@file`] knows YAML; [`validate()`] knows the format (with `sections`, `rules`, `words`, [`managed`] and
//! `unsupported`). Both are pure. [`source`] and [`mod@watch`] are the edge to the machine. Nothing in here acts on what
//! is declared, and nothing outside reads the file.

pub mod diagnostic;
pub mod file;
pub mod managed;
pub mod model;
pub mod source;
pub mod watch;

mod chain;
mod read;
mod rules;
mod schema;
mod sections;
mod unsupported;
mod validate;
mod words;

pub use diagnostic::{Diagnostic, Place};
pub use managed::MANAGED_SETTINGS;
pub use model::*;
pub use schema::schema;
pub use source::{LoadError, load, locate};
pub use validate::{Surroundings, validate};
pub use watch::{Handle, Reading, Valid, watch};
