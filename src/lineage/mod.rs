//! Which history of the database a copy holds: epochs, positions, and the sidecar that carries them.
//!
//! PostgreSQL's timeline numbers can collide when both laptops are promoted apart; the UUID of an epoch cannot. An
//! epoch is named *before* its timeline exists: the intention is on disk first, the row in `paceline.epoch` second,
//! the open gate third. Plain data only; reading and writing the sidecar is for `probe` and `exec`.
//!
//! How two histories stand to each other: see [`Relation`].

mod relation;

use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::relation::{Held, Position, Relation, relation};

/// A WAL position, written as PostgreSQL writes it (`0/5000148`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let (high, low) = (
                u32::from_str_radix(high, 16).ok()?,
                u32::from_str_radix(low, 16).ok()?,
            );
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| format!("{text:?} is no WAL position (such as 0/5000148)"))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One stretch of history that exactly one laptop wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its name.
    pub uuid: Uuid,
    /// The epoch it branched off; `None` for the first.
    pub parent: Option<Uuid>,
    /// Epochs that a person gave up for this one.
    pub supersedes: Vec<Uuid>,
    /// Where it begins: the switch point of its timeline; for a first epoch, where the copy was when it was named.
    pub begin_lsn: Lsn,
    /// PostgreSQL's timeline.
    pub timeline: u32,
    /// The laptop that began it.
    pub node: String,
    /// When, RFC 3339; for people.
    pub time: String,
}

/// Which history a copy holds, and how far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Which database.
    pub system_identifier: String,
    /// Its epochs, oldest first, as far as they are known.
    pub epochs: Vec<Epoch>,
    /// The timeline it is on.
    pub timeline: u32,
    /// How far it goes, if that is proven. The position of a crashed copy is not, before its WAL was read.
    pub position: Option<Lsn>,
}

impl Lineage {
    /// The epochs that the copy holds something of: those up to its timeline. Others are only known of.
    pub fn held(&self) -> impl Iterator<Item = &Epoch> {
        self.epochs.iter().filter(|epoch| epoch.timeline <= self.timeline)
    }
}

/// Where a copy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// Paceline made it with initdb.
    Created,
    /// It was there before Paceline. Its own configuration goes on to count.
    Adopted(OwnConfiguration),
}

/// The configuration files of a cluster that Paceline did not make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnConfiguration {
    /// Its `postgresql.conf`, if there is one. It is included before our settings.
    pub config_file: Option<Utf8PathBuf>,
    /// Its `pg_hba.conf`. Its lines stay in force, after our own for the superuser.
    pub hba_file: Option<Utf8PathBuf>,
    /// Its `pg_ident.conf`.
    pub ident_file: Option<Utf8PathBuf>,
}

/// The file beside the data directory that names its history; it moves with the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Version of this file's format: [`Sidecar::FORMAT`]. A larger one was written by a newer Paceline.
    pub format: u32,
    /// Of which database; the file is void beside any other.
    pub system_identifier: String,
    /// Where the copy comes from.
    pub origin: Origin,
    /// The epochs that this copy is known to hold, oldest first.
    pub epochs: Vec<Epoch>,
    /// An epoch that was named and whose row may not be written yet.
    pub intended: Option<Epoch>,
    /// The restore that this copy came from, if it came from one.
    #[serde(default)]
    pub restored: Option<Restored>,
}

/// A restore from a backup that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Names the `recovery` section that asked for it.
    pub fingerprint: String,
    /// When, RFC 3339; for people.
    pub time: String,
}

impl Sidecar {
    /// The format that this version writes, and the newest it reads.
    pub const FORMAT: u32 = 1;

    /// What the file is called: the data directory's name with this suffix (see [`crate::desired::Desired::beside_data`]).
    pub const SUFFIX: &'static str = "paceline.json";

    /// Whether the file belongs to this database.
    pub fn belongs_to(&self, system_identifier: &str) -> bool {
        self.system_identifier == system_identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_and_write_like_postgresql() {
        for text in ["0/0", "0/5000148", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().expect(text).to_string(), text);
        }
        assert!("1/00000002".parse::<Lsn>().expect("low part padded") < "1/A".parse().expect("short"));
        for rubbish in ["", "0", "0/", "/0", "0/G", "0/100000000", "-1/0"] {
            assert!(rubbish.parse::<Lsn>().is_err(), "{rubbish}");
        }
    }
}
