//! The JSON schema as a file in `home`, and the line of a state file by which an editor finds it.
//!
//! A laptop has the program and nothing else, and a schema beside the state file would be of an older version after the
//! first upgrade. So it lies in `home`, and every daemon that starts brings it up to date. The state file names it by its
//! absolute path: it can then be moved, and both laptops of a pair usually have the same `home`.

use std::fmt::Write as _;

use anyhow::Result;
use camino::{Utf8Path, Utf8PathBuf};

use super::schema::schema;
use crate::sys::files::{read_if_there, write_durably};

/// Where it is.
pub fn path(home: &Utf8Path) -> Utf8PathBuf {
    home.join("state.schema.json")
}

/// Writes it, unless it is there and right.
pub fn keep(home: &Utf8Path) -> Result<()> {
    let path = path(home);
    let schema = schema();
    if read_if_there(&path).ok().flatten().as_ref() == Some(&schema) {
        return Ok(());
    }
    write_durably(&path, schema.as_bytes(), 0o644, None)
}

/// The first line of a state file, for the YAML language server, which ends the name at a blank and takes `#` and `%`
/// for its own: a path with anything but plain characters is written as an address.
pub fn modeline(home: &Utf8Path) -> String {
    let path = path(home);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@".contains(&byte);
    let mut name = String::new();
    if path.as_str().bytes().all(plain) {
        name.push_str(path.as_str());
    } else {
        name.push_str("file://");
        for byte in path.as_str().bytes() {
            let _ = if plain(byte) {
                write!(name, "{}", char::from(byte))
            } else {
                write!(name, "%{byte:02X}")
            };
        }
    }
    format!("# yaml-language-server: $schema={name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_an_editor_understands() {
        assert_eq!(
            modeline("/var/lib/paceline".into()),
            "# yaml-language-server: $schema=/var/lib/paceline/state.schema.json\n"
        );
        assert_eq!(
            modeline("/home/crew/it's #1 50%\n".into()),
            "# yaml-language-server: $schema=file:///home/crew/it%27s%20%231%2050%25%0A/state.schema.json\n"
        );
    }
}
