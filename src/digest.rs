//! A short, stable name for a content: to tell whether something changed, never to protect it.

use std::fmt::Write as _;

/// FNV-1a (64 bit) over the parts and their lengths, as 16 hexadecimal digits. The same in every version and on every
/// machine, unlike the standard library's hashers.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    };
    for part in parts {
        part.len().to_le_bytes().into_iter().for_each(&mut add);
        part.bytes().for_each(&mut add);
    }
    let mut text = String::with_capacity(16);
    let _ = write!(text, "{hash:016x}");
    text
}
