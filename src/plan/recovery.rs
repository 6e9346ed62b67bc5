//! `role: recovery`: restore the database from a backup, once. Pure.
//!
//! Not supported yet: nothing is touched, and a server that runs goes on.

use super::action::Plan;
use super::blocked::Blocked;
use super::local::Situation;

pub(super) fn plan(_situation: &Situation<'_>) -> Plan {
    Plan::blocked(Blocked::NotSupported {
        what: "restoring from a backup (role: recovery)",
    })
}
