//! The `paceline` command. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    paceline::cli::main()
}
