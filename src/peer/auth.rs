//! How one laptop proves to the other that it knows the secret that both share, without showing it.
//!
//! Whoever asks sends a number that was never used before; the answer comes with a seal over that number, the question
//! and the answer's text, made with a key that is derived from the replication password. A stranger on the Wi-Fi can
//! neither make such a seal nor use an old answer again.

use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result};
use camino::Utf8Path;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::probe::database::read_password;

/// The header of a question that asks for a seal: hexadecimal digits, never the same twice.
pub const NONCE_HEADER: &str = "paceline-nonce";
/// The header of the answer that carries the seal.
pub const SEAL_HEADER: &str = "paceline-auth";

/// What the key is for, so that no other use of the password can make or accept our seals.
const PURPOSE: &[u8] = b"paceline status 1";

/// The replication password, and the key that is derived from it. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Secret {
    password: String,
    key: Vec<u8>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// The secret of this password.
    pub fn new(password: &str) -> Self {
        let mut mac = keyed(password.as_bytes());
        mac.update(PURPOSE);
        Self {
            password: password.to_owned(),
            key: mac.finalize().into_bytes().to_vec(),
        }
    }

    /// The secret in the password file; `None`: there is no such file.
    pub fn read(password_file: &Utf8Path) -> Result<Option<Self>> {
        let password = read_password(password_file)
            .with_context(|| format!("cannot use the replication secret in {password_file}"))?;
        Ok(password.map(|password| Self::new(&password)))
    }

    /// For the login to the other laptop's server.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The seal of an answer. `question`: path and query, as they were asked for.
    pub fn seal(&self, nonce: &str, question: &str, body: &[u8]) -> String {
        hex(&self.sealing(nonce, question, body).finalize().into_bytes())
    }

    /// Whether a seal is right. Takes equally long wherever it is wrong.
    pub fn sealed(&self, seal: &str, nonce: &str, question: &str, body: &[u8]) -> bool {
        unhex(seal).is_some_and(|seal| self.sealing(nonce, question, body).verify_slice(&seal).is_ok())
    }

    fn sealing(&self, nonce: &str, question: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.key);
        for part in [nonce.as_bytes(), b"\n", question.as_bytes(), b"\n", body] {
            mac.update(part);
        }
        mac
    }
}

/// A number for one question (244 random bits).
pub fn nonce() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether a header can be such a number. Nothing else is sealed: it could shift the parts against each other.
pub fn is_nonce(text: &str) -> bool {
    (32..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fits_one_question_and_one_answer() {
        let secret = Secret::new("correct horse");
        let seal = secret.seal("00ff", "/v1/status", b"{}");
        assert!(secret.sealed(&seal, "00ff", "/v1/status", b"{}"));
        assert!(!secret.sealed(&seal, "00fe", "/v1/status", b"{}"));
        assert!(!secret.sealed(&seal, "00ff", "/v1/status?wait=1", b"{}"));
        assert!(!secret.sealed(&seal, "00ff", "/v1/status", b"{ }"));
        assert!(!Secret::new("battery staple").sealed(&seal, "00ff", "/v1/status", b"{}"));
        for rubbish in ["", "0", "zz", "é", &seal[..62], &format!("{seal}00")] {
            assert!(!secret.sealed(rubbish, "00ff", "/v1/status", b"{}"), "{rubbish}");
        }
    }

    /// Computed with Python's hmac module: what one version seals, every other one accepts.
    #[test]
    fn the_seal_is_what_it_always_was() {
        assert_eq!(
            Secret::new("correct horse").seal("00ff", "/v1/status", b"{}"),
            "2aa92cb8f4512dd813c3b9dd34e1c7bc66e9d16b56d16353e662a4754c89a054"
        );
    }

    #[test]
    fn the_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("correct horse")), "Secret(…)");
    }

    #[test]
    fn numbers_are_long_and_hexadecimal() {
        assert!(is_nonce(&nonce()));
        assert_ne!(nonce(), nonce());
        for rubbish in [
            "",
            "0011",
            &"g".repeat(64),
            &"0".repeat(129),
            &format!("{}\n", "0".repeat(40)),
        ] {
            assert!(!is_nonce(rubbish), "{rubbish:?}");
        }
    }
}
