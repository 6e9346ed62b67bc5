//! The command line: arguments, exit codes, and where errors end.

mod client;
mod commands;
mod daemon;
mod render;

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

use crate::hint::hint_of;
use crate::instance::Taken;

/// Exit codes. Scripts depend on them.
pub mod exit {
    /// Converged, or what was asked for is done.
    pub const OK: u8 = 0;
    /// Something failed.
    pub const INTERNAL: u8 = 1;
    /// The command line is wrong (clap's own code).
    pub const USAGE: u8 = 2;
    /// The state file is missing or invalid.
    pub const INVALID_STATE: u8 = 3;
    /// There are changes to be made, or something is being waited for.
    pub const PENDING: u8 = 4;
    /// A person must act.
    pub const BLOCKED: u8 = 5;
    /// Another daemon holds home or data directory.
    pub const TAKEN: u8 = 6;
}

/// Keeps a PostgreSQL laptop in the role that a state file declares, and runs RaceDB only where the database may be
/// written to.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done or converged, 1 failed, 2 wrong usage, 3 state file missing or invalid, \
4 changes pending, 5 blocked (a person must act), 6 another daemon is at work";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: watch the state file and keep server and application as it declares
    Run(StateArgs),
    /// Check the state file: every mistake at once, with its place
    Check(StateArgs),
    /// Show what would be done, and do nothing; needs no daemon
    Plan {
        #[command(flatten)]
        state: StateArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the server as declared, once, without a daemon; the application is left alone
    Apply(StateArgs),
    /// Ask the daemon how things are
    Status {
        #[command(flatten)]
        state: StateArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the state file
    Schema,
}

#[derive(Clone, Debug, Args)]
struct StateArgs {
    /// The state file [default: $PACELINE_STATE, ./state.yaml, /etc/paceline/state.yaml]
    state: Option<Utf8PathBuf>,
    /// Which entry of `nodes` this laptop is [default: `node`, the host name, an own address]
    #[arg(long)]
    node: Option<String>,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(dispatch(cli.command));
            // A file watcher or a name lookup that hangs must not keep the program from ending.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            if let Some(hint) = hint_of(&error) {
                anstream::eprintln!("hint: {hint}");
            }
            ExitCode::from(code_of(&error))
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(state) => daemon::run(&state).await,
        Command::Check(state) => commands::check(&state),
        Command::Plan { state, json } => commands::plan(&state, json).await,
        Command::Apply(state) => daemon::apply(&state).await,
        Command::Status { state, json } => commands::status(&state, json).await,
        Command::Schema => commands::schema(),
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Taken>() {
        exit::TAKEN
    } else if error.is::<crate::desired::LoadError>() {
        exit::INVALID_STATE
    } else {
        exit::INTERNAL
    }
}

/// Logs go to standard error; `PACELINE_LOG` (or `RUST_LOG`) sets how much.
fn logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("PACELINE_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
