//! What a laptop has bound itself to, kept in `home`: a copy that was handed over, and the consents of a person.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::lineage::Lsn;

/// A copy that its writer gave away. As a file it is an intention; it counts only together with `standby.signal`
/// (see [`super::Observed::handed_over`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HandedOver {
    /// Of which database.
    pub system_identifier: String,
    /// The epoch that was written last.
    pub epoch: Uuid,
    /// Where the shutdown checkpoint's record *begins*: whoever has replayed beyond that has everything
    /// (POSTGRES-FACTS 33).
    pub shutdown_checkpoint_lsn: Lsn,
}

impl HandedOver {
    /// The file in `home`.
    pub const FILE: &'static str = "handed_over.json";
}

/// What persons consented to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consents {
    /// Tokens that were taken, oldest first; none of them is ever taken again.
    pub used: Vec<String>,
    /// The situation that the last of them was given for (see [`crate::plan::Offer`]); in any other it is void.
    pub granted: Option<String>,
}

impl Consents {
    /// The file in `home`.
    pub const FILE: &'static str = "consents.json";
}
