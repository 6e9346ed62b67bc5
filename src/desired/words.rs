//! Readers for the values that are more than a text: durations, sizes, addresses, ports, names, paths.
//!
//! Each takes a [`Value`], and reports what is wrong with it in a person's words. Pure; nothing is looked up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

use super::diagnostic::quote;
use super::file::ScalarKind;
use super::read::Value;

/// Longer waiting times are typing mistakes, and sums of times must not overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A duration with a unit.
pub fn duration(value: &Value<'_>) -> Option<Duration> {
    const HELP: &str = "write a number with a unit: 500ms, 10s, 5min (or 5m), 6h, 2d";
    if let Some((text, ScalarKind::Number)) = value.scalar() {
        return value.wrong(format!("the duration {text} has no unit"), HELP);
    }
    let text = value.text()?;
    // Narrower than humantime, for which `5M` is five months and blanks may stand inside of a number.
    if !is_duration(&text) {
        return value.wrong(format!("{} is not a duration", quote(&text)), HELP);
    }
    match humantime::parse_duration(&text) {
        Ok(duration) if duration <= LONGEST => Some(duration),
        // What humantime does not understand of such a text is a number that is too large for it.
        Ok(_) | Err(_) => value.wrong(format!("{} is longer than a year", quote(&text)), HELP),
    }
}

/// A duration that is longer than nothing.
pub fn some_duration(value: &Value<'_>) -> Option<Duration> {
    match duration(value)? {
        Duration::ZERO => value.wrong(
            "the duration must be longer than nothing",
            "write a longer one, such as 60s",
        ),
        duration => Some(duration),
    }
}

fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 7] = ["ms", "s", "sec", "min", "m", "h", "d"];
    let mut rest = text;
    loop {
        let unit_and_more = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let more = unit_and_more.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &unit_and_more[..unit_and_more.len() - more.len()];
        if unit_and_more.len() == rest.len() || !UNITS.contains(&unit) {
            return false;
        }
        if more.is_empty() {
            return true;
        }
        rest = more.strip_prefix(' ').unwrap_or(more);
    }
}

/// A size as PostgreSQL writes it; comes back without blanks.
pub fn size(value: &Value<'_>) -> Option<String> {
    const HELP: &str = "write a number with a unit: 512MB, 4GB (kB, MB, GB or TB)";
    if let Some((text, ScalarKind::Number)) = value.scalar() {
        return value.wrong(format!("the size {text} has no unit"), HELP);
    }
    let text = value.text()?;
    let written = ["kB", "MB", "GB", "TB"]
        .iter()
        .zip(0..)
        .find_map(|(unit, power)| {
            let digits = text.strip_suffix(unit)?;
            let digits = digits.strip_suffix(' ').unwrap_or(digits);
            let plain = digits.chars().all(|c| c.is_ascii_digit()) && !digits.starts_with('0');
            (plain && !digits.is_empty()).then_some((digits, power))
        });
    let Some((digits, power)) = written else {
        return value.wrong(format!("{} is not a size", quote(&text)), HELP);
    };
    // Nothing but digits is no number only if it is too large for one.
    let kilobytes = digits.parse::<u64>().ok();
    match kilobytes.and_then(|kilobytes| kilobytes.checked_mul(1024_u64.pow(power))) {
        // PostgreSQL counts this one in megabytes, in 32 bits.
        Some(kilobytes) if kilobytes / 1024 <= 0x7fff_ffff => Some(text.replace(' ', "")),
        Some(_) | None => value.wrong(
            format!("{} is more than PostgreSQL can handle", quote(&text)),
            HELP,
        ),
    }
}

/// A port number.
pub fn port(value: &Value<'_>) -> Option<u16> {
    value
        .number(1, 65535)
        .and_then(|number| u16::try_from(number).ok())
}

/// An address with a port, for something that listens.
pub fn listen(value: &Value<'_>) -> Option<SocketAddr> {
    if let Some((text, ScalarKind::Number)) = value.scalar() {
        return value.wrong(
            format!("{text} has no address"),
            format!("write \"0.0.0.0:{text}\" (all addresses)"),
        );
    }
    let text = value.text()?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Some(address),
        Ok(_) => value.wrong(
            "the port 0 means none",
            "write a port from 1 to 65535 behind the colon",
        ),
        Err(_) => {
            let port = text
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok())
                .unwrap_or(8080);
            value.wrong(
                format!("{} is not an address with a port", quote(&text)),
                format!("write numbers, such as \"0.0.0.0:{port}\" (all addresses) or \"127.0.0.1:{port}\" (this laptop only)"),
            )
        }
    }
}

/// A network: address and prefix length.
pub fn network(value: &Value<'_>) -> Option<String> {
    const HELP: &str = "write the network with its prefix length, such as 192.168.40.0/24";
    let text = value.text()?;
    let (address, prefix) = match split_prefix(&text) {
        Ok(parts) => parts,
        Err(NoPrefix::Address(address)) => {
            return value.wrong(
                format!("{text} has no prefix length"),
                format!("for this one address write {text}/{}", bits(address)),
            );
        }
        Err(NoPrefix::Nonsense) => return value.wrong(format!("{} is not a network", quote(&text)), HELP),
        Err(NoPrefix::TooLong(most)) => {
            return value.wrong(format!("the prefix length of {text} is more than {most}"), HELP);
        }
    };
    let network = network_of(address, prefix);
    if network == address {
        return Some(text);
    }
    value.wrong(
        format!("{text} is an address in a network, not a network"),
        format!(
            "for the whole network write {network}/{prefix}; for this one address write {address}/{}",
            bits(address)
        ),
    )
}

/// An address with the prefix length of its network.
pub fn address_with_prefix(value: &Value<'_>) -> Option<String> {
    const HELP: &str = "write the address with the prefix length of its network, such as 192.168.40.10/24";
    let text = value.text()?;
    match split_prefix(&text) {
        Ok(_) => Some(text),
        Err(NoPrefix::Address(_)) => value.wrong(format!("{text} has no prefix length"), HELP),
        Err(NoPrefix::Nonsense) => value.wrong(format!("{} is not an address", quote(&text)), HELP),
        Err(NoPrefix::TooLong(most)) => {
            value.wrong(format!("the prefix length of {text} is more than {most}"), HELP)
        }
    }
}

enum NoPrefix {
    Address(IpAddr),
    Nonsense,
    TooLong(u32),
}

fn split_prefix(text: &str) -> Result<(IpAddr, u32), NoPrefix> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(text.parse().map_or(NoPrefix::Nonsense, NoPrefix::Address));
    };
    let address: IpAddr = address.parse().map_err(|_| NoPrefix::Nonsense)?;
    let digits = !prefix.is_empty() && prefix.len() <= 3 && prefix.chars().all(|c| c.is_ascii_digit());
    match prefix.parse::<u32>() {
        Ok(prefix) if digits && prefix <= bits(address) => Ok((address, prefix)),
        Ok(_) if digits => Err(NoPrefix::TooLong(bits(address))),
        _ => Err(NoPrefix::Nonsense),
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn network_of(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        // A shift by all the bits of a number is not defined: prefix 0 has the empty mask.
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// A host: a name or an address, without a port.
pub fn host(value: &Value<'_>) -> Option<String> {
    match value.scalar() {
        Some((text, ScalarKind::Number)) => incomplete(value, text),
        _ => check_host(value, &value.text()?),
    }
}

/// `host`, `host:port` or `[v6]:port`.
pub fn host_and_port(value: &Value<'_>) -> Option<(String, Option<u16>)> {
    let text = match value.scalar() {
        Some((text, ScalarKind::Number)) => return incomplete(value, text),
        _ => value.text()?,
    };
    let (host, port) = split_port(&text);
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.chars().all(|c| c.is_ascii_digit()) => Some(port),
            _ => {
                return value.wrong(
                    format!("{} is not a port", quote(digits)),
                    "write host:port with a port from 1 to 65535, or the host alone",
                );
            }
        },
    };
    Some((check_host(value, host)?, port))
}

/// `host`, `host:port` or `[v6]:port` in two; neither part is judged.
pub fn split_port(text: &str) -> (&str, Option<&str>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, rest.strip_prefix(':').or(Some(rest))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    }
}

/// What YAML takes for a number can be a part of an address, and never is a whole one.
fn incomplete<T>(value: &Value<'_>, text: &str) -> Option<T> {
    value.wrong(
        format!("{} is not a complete address", quote(text)),
        "an address has four numbers from 0 to 255, such as 192.168.40.16",
    )
}

fn check_host(value: &Value<'_>, text: &str) -> Option<String> {
    if text.parse::<IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    let numbers = labels
        .iter()
        .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_digit()));
    if numbers {
        return incomplete(value, text);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = text.len() <= 253
        && labels.iter().all(|label| {
            !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && label.chars().all(allowed)
        });
    if name {
        return Some(text.to_owned());
    }
    value.wrong(
        format!("{} is not a host name or an address", quote(text)),
        "write a name such as bravo.local, or an address such as 192.168.40.16",
    )
}

/// The name of a laptop.
pub fn node_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if is_node_name(&text) {
        return Some(text);
    }
    value.wrong(
        format!("{} is not a name for a laptop", quote(&text)),
        NODE_NAME_HELP,
    )
}

/// What a name of a laptop looks like, for a person.
pub const NODE_NAME_HELP: &str =
    "letters, digits, dots, - and _, beginning with a letter or digit; at most 63";

/// Whether a text can be the name of a laptop.
pub fn is_node_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The name of a database or of a database user.
pub fn identifier(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let good = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if good {
        return Some(text);
    }
    value.wrong(
        format!("{} is not a name that can be used in the database", quote(&text)),
        "letters, digits, _ and -, beginning with a letter; at most 63",
    )
}

/// The name of an environment variable.
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A path, made absolute: relative ones begin at `base`, the directory of the state file.
pub fn path(value: &Value<'_>, base: &Utf8Path) -> Option<Utf8PathBuf> {
    let text = value.text()?;
    if text == "~" || text.starts_with("~/") {
        return value.wrong(
            format!("{}: ~ does not mean the home directory here", quote(&text)),
            "write the whole path, such as /home/crew/racedb",
        );
    }
    Some(normal(&base.join(text)))
}

/// The path without `.` and `..`, as a person reads it (`a/../b` is `b`, whatever `a` links to).
pub fn normal(path: &Utf8Path) -> Utf8PathBuf {
    let mut out = Utf8PathBuf::new();
    for component in path.components() {
        match component {
            Utf8Component::ParentDir => {
                out.pop();
            }
            Utf8Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}
