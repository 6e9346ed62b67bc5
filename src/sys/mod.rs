//! What the operating system offers and the standard library does not: clocks, locks, process handles, starting a
//! program as another user, durable files, secrets that are typed.
//!
//! Nothing here knows what PostgreSQL or a role is, and nothing here decides. The crate's only `unsafe` is here.

pub mod alarm;
pub mod clock;
pub mod files;
pub mod lock;
pub mod net;
pub mod process;
pub mod replace;
pub mod spawn;
pub mod systemd;
pub mod terminal;
pub mod users;
