//! Paceline keeps two PostgreSQL laptops in the roles that a YAML file declares, and runs an application (RaceDB) only
//! where the database may be written to.
//!
//! ```text
//! state file   ─desired─► Desired ──┐
//! probes       ─probe───► Observed ─┼─► plan() ─► Plan ─► exec (first step) ─► observe again
//! other laptop ─peer────► Link ─────┘└► gate() ─► Gate ─► exec::app
//! ```
//!
//! Where is what:
//!
//! - [`desired`]: the state file: format, validation, watching.
//! - [`observed`], [`lineage`]: plain facts, each `Known` or `Unknown` with the reason.
//! - [`probe`]: looks at files, processes and the server; never decides, never changes anything.
//! - [`peer`]: asks the other laptop, proves and demands proof, remembers; only reads.
//! - [`plan`]: decides, one file per role; the gate; a checker that looks every plan over. Pure and total: every combination
//!   of facts has an answer, and the rendered table of all of them is in `tests/snapshots`.
//! - [`exec`]: carries out one action: idempotent, preconditions checked again, result verified.
//! - [`supervise`]: processes that live on; no policy.
//! - [`reconcile`]: the loop. [`instance`]: one daemon per data directory, re-execution.
//! - [`status`], [`api`], [`history`], [`cli`]: what people and programs outside see.
//! - [`sys`]: the operating system; the only `unsafe`.
//!
//! The executor does the first step of a plan and looks again; the rest of a plan is a forecast for people. A fact that
//! could not be seen is never taken for "no". Nothing that holds data is deleted.
//!
//! Where a decision is: the row of a role in `plan/<role>.rs`; above all roles `plan/conflict.rs` (twins, strangers, superseded
//! copies); what they share in `plan/{local,pair,follow,promotion,handover,rejoin,consent}.rs`; the texts of what it waits for or
//! is blocked by in `plan/{end,blocked,pair_end}.rs`; what may never be in a plan in `plan/rule.rs`.
//!
//! Before a server becomes writable that is announced in the status, the other laptop is asked once more, and it is
//! decided again: two fresh looks do not exclude each other's act.

pub mod api;
pub mod cli;
pub mod desired;
pub mod digest;
pub mod exec;
pub mod hint;
pub mod history;
pub mod instance;
pub mod lineage;
pub mod observed;
pub mod peer;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod status;
pub mod supervise;
pub mod sys;
