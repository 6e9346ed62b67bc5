//! What a person declares: the state file, from bytes on a disk to a validated [`Desired`].
//!
//! ```text
//! bytes ─source─► text ─file─► tree with places ─validate─► Desired, or every problem at once
//!                                                  ▲
//!                            watch (when to look again)
//! ```
//!
//! A text with another role comes from [`edit`], the text of a new file from [`fresh`].
//!
//! [`mod@file`] knows YAML; [`validate()`] knows the format (with `sections`, `rules`, `words`, [`managed`] and
//! `unsupported`). Both are pure. [`source`], [`rewrite`], [`schema_file`] and [`mod@watch`] are the edge to the machine. Nothing in here
//! acts on what is declared, and nothing outside reads the file.

pub mod diagnostic;
pub mod edit;
pub mod file;
pub mod fresh;
pub mod managed;
pub mod model;
pub mod rewrite;
pub mod schema_file;
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
pub use edit::{Both, Edited};
pub use managed::MANAGED_SETTINGS;
pub use model::*;
pub use rewrite::{Rewritten, RewrittenBoth, both, set_both, set_role};
pub use schema::schema;
pub use source::{LoadError, load, locate, locate_new};
pub use validate::{DEFAULT_API_PORT, DEFAULT_PORT, Surroundings, validate};
pub use watch::{Handle, Reading, Valid, watch};
