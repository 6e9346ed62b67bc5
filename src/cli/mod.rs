//! The command line: arguments, exit codes, and where errors end.

mod client;
mod commands;
mod daemon;
mod demo;
mod forget;
mod handover;
mod init;
mod join;
mod logging;
mod pairing;
mod render;
mod restart;
mod role;
mod set_aside;
mod watch;

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::desired::Role;
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
        /// Again with every change, until Ctrl-C; where the output is no terminal, a line for each
        #[arg(long)]
        watch: bool,
    },
    /// What happened on this laptop, oldest first; needs no daemon
    History {
        #[command(flatten)]
        state: StateArgs,
        /// So many of the newest events
        #[arg(short = 'n', long, default_value_t = 50)]
        number: usize,
        /// As JSON, one event per line
        #[arg(long)]
        json: bool,
    },
    /// Restart the server, application first: only if a changed setting waits for that
    Restart {
        #[command(flatten)]
        state: StateArgs,
        /// Also if nothing waits for it
        #[arg(long)]
        force: bool,
    },
    /// Write a new state file, make the replication secret, print the line for the other laptop
    Init(init::InitArgs),
    /// Pair with the laptop that `paceline init` ran on: take its secret over, write this laptop's state file
    Join(join::JoinArgs),
    /// Change one word of the state file, and nothing else in it
    #[command(subcommand)]
    Set(Setting),
    /// The other laptop is gone, take over: short for `set role failover`
    Failover(StateArgs),
    /// Follow the other laptop, hand over to it first: short for `set role standby`
    Standby(StateArgs),
    /// This laptop's database is the one that is written to: short for `set role primary`
    Primary(StateArgs),
    /// Change places with the other laptop: swap both roles of a profile, or make the edit of this side and say the other
    Handover(StateArgs),
    /// Forget another laptop that the state file no longer names
    ForgetPeer {
        #[command(flatten)]
        state: StateArgs,
        /// Also while that laptop's database is written to
        #[arg(long)]
        force: bool,
    },
    /// The copies of the database that were replaced or kept; needs no daemon
    #[command(args_conflicts_with_subcommands = true)]
    SetAside {
        #[command(subcommand)]
        command: Option<set_aside::Command>,
        #[command(flatten)]
        list: set_aside::ListArgs,
    },
    /// Try Paceline out: two laptops in a directory of their own, which is removed at the end
    Demo(demo::DemoArgs),
    /// What stands for RaceDB in the demo
    #[command(hide = true)]
    DemoApp,
    /// Print the JSON Schema of the state file
    Schema,
}

#[derive(Debug, Subcommand)]
enum Setting {
    /// Declare the role of this laptop
    Role {
        /// The new role
        #[arg(value_parser = one_of(&[Role::Primary, Role::Standby, Role::Failover, Role::Recovery]))]
        role: Role,
        #[command(flatten)]
        state: StateArgs,
    },
}

/// Reads one of these roles.
fn one_of(roles: &'static [Role]) -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(roles.iter().map(|role| role.word())).try_map(|word| {
        let role = roles.iter().copied().find(|role| role.word() == word);
        role.ok_or("not a role")
    })
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
    logging::start();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads for slow calls are to take no signal: only ours looks whether there was one before it executes anew.
        .on_thread_start(crate::supervise::signals::hold_back)
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
        Command::Status { state, json, watch } => commands::status(&state, json, watch).await,
        Command::History { state, number, json } => commands::history(&state, number, json),
        Command::Restart { state, force } => restart::run(&state, force).await,
        Command::Init(args) => init::init(&args),
        Command::Join(args) => join::join(&args).await,
        Command::Set(Setting::Role { role, state }) => role::set(&state, role).await,
        Command::Failover(state) => role::set(&state, Role::Failover).await,
        Command::Standby(state) => role::set(&state, Role::Standby).await,
        Command::Primary(state) => role::set(&state, Role::Primary).await,
        Command::Handover(state) => handover::run(&state).await,
        Command::ForgetPeer { state, force } => forget::run(&state, force).await,
        Command::SetAside {
            command: Some(set_aside::Command::List(list)),
            ..
        }
        | Command::SetAside { command: None, list } => set_aside::list(&list).await,
        Command::Demo(args) => demo::demo(&args).await,
        Command::DemoApp => demo::desk::app().await,
        Command::Schema => commands::schema(),
    }
}

/// Says why something is not done as things are, and what to do: a person must act.
fn refuse(why: &str, hint: &str) -> anyhow::Result<u8> {
    use std::io::Write as _;
    writeln!(anstream::stderr().lock(), "error: {why}\nhint: {hint}")?;
    Ok(exit::BLOCKED)
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
