//! `demo`: two laptops in a directory of their own, to play with, or playing an event day by themselves.
//!
//! The demo is a user like any other: it starts daemons, asks them over HTTP, edits their state files and speaks SQL.
//! It decides nothing about roles.

pub(super) mod desk;
mod node;
mod place;
mod script;

use std::fmt::Display;
use std::io::{BufRead as _, Write as _};

use anyhow::Result;
use camino::Utf8PathBuf;
use clap::Args;
use tokio::sync::mpsc;

use self::node::{Node, follows, serves};
use self::place::Place;
use super::{exit, pairing, render};
use crate::desired::Role;
use crate::hint::{hint_of, hinted};
use crate::supervise::signals::Requests;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Play an event day without a person, and check that no acknowledged registration is lost
    #[arg(long)]
    script: bool,
    /// Where the demo makes its own directory [default: $TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    directory: Option<Utf8PathBuf>,
    /// Leave the demo's directory in place at the end
    #[arg(long)]
    keep: bool,
}

pub(super) async fn demo(args: &DemoArgs) -> Result<u8> {
    // Whatever is asked of us, a terminal that is closed (SIGHUP) included, means the end.
    let mut asked = Requests::listen()?;
    let place = Place::make(args.directory.as_deref())?;
    let mut pair = place.furnish().inspect_err(|_| place.remove())?;
    let played = tokio::select! {
        played = play(args.script, &mut pair) => played,
        _ = asked.next() => Ok(if args.script { exit::INTERNAL } else { exit::OK }),
    };
    say("\nending both: the daemons stop their application, then their server");
    let [alpha, bravo] = &mut pair;
    tokio::select! {
        _ = async { tokio::join!(alpha.end(), bravo.end()) } => {}
        _ = asked.next() => say("asked again: killing them"),
    }
    let rest = place::kill(&place.directory, &place.user).await?;
    if !rest.is_empty() {
        return Err(hinted(
            format!(
                "these processes of the demo do not end: {rest:?}; its directory stays: {}",
                place.directory
            ),
            "kill -9 them, then remove the directory",
        ));
    }
    if args.keep || played.is_err() {
        say(format_args!("the demo's directory stays: {}", place.directory));
    } else {
        place.remove();
    }
    played
}

async fn play(script: bool, pair: &mut [Node; 2]) -> Result<u8> {
    if script {
        return script::play(pair).await;
    }
    let [alpha, bravo] = &mut *pair;
    say("starting two laptops, alpha and bravo; a line for every change");
    alpha.start()?;
    bravo.start()?;
    alpha.wait("alpha serves", serves).await?;
    bravo.wait("bravo follows alpha", follows).await?;
    say("\nBoth are up. Edit `role:` in these files with an editor, or type a command here.\n");
    for node in &*pair {
        let state = pairing::shell(node.state.as_str());
        say(format_args!("{}  edit      {state}", node.name));
        say(format_args!(
            "       status    {} status {state}",
            pairing::shell(node.program.as_str())
        ));
        let sockets = node.desired.socket_directory();
        let sockets = pairing::shell(sockets.as_str());
        say(format_args!(
            "       database  psql -h {sockets} -p {} -U postgres racedb",
            node.desired.postgres.port
        ));
    }
    say(format_args!(
        "\n{HELP}\n\nAn event: kill alpha, failover bravo, start alpha (and read what it says).\n"
    ));
    let mut commands = lines();
    loop {
        let [alpha, bravo] = &mut *pair;
        let line = tokio::select! {
            () = alpha.news() => continue,
            () = bravo.news() => continue,
            // Without an input there are still signals.
            Some(line) = commands.recv() => line,
        };
        if line.trim() == "quit" {
            return Ok(exit::OK);
        }
        if let Err(error) = obey(&line, pair).await {
            say(format_args!("{error:#}\n{}", hint_of(&error).unwrap_or_default()));
        }
    }
}

const HELP: &str = "\
kill NODE      it loses power: daemon, application and server are gone at once (kill -9)
crash NODE     only its server crashes (kill -9)
start NODE     start its daemon
failover NODE  edit the one word in its state file; also: primary NODE, standby NODE
status         how both are
quit           end (or Ctrl-C)";

/// Does what a person typed.
async fn obey(line: &str, pair: &mut [Node; 2]) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words == ["status"] {
        for node in pair.iter() {
            if let Some(status) = node.status() {
                say(render::status(&status, &node.state));
            }
        }
        return Ok(());
    }
    match words.as_slice() {
        [] => Ok(()),
        [command, name] => match (*command, pair.iter_mut().find(|node| node.name == *name)) {
            ("kill", Some(node)) => node.lose_power().await,
            ("crash", Some(node)) => node.crash_server().await,
            ("start", Some(node)) => node.start(),
            ("primary", Some(node)) => node.declare(Role::Primary),
            ("standby", Some(node)) => node.declare(Role::Standby),
            ("failover", Some(node)) => node.declare(Role::Failover),
            _ => Err(hinted(format!("cannot do {line:?}"), HELP)),
        },
        _ => Err(hinted(format!("cannot do {line:?}"), HELP)),
    }
}

/// The lines of standard input. A thread of its own reads them: a read of a terminal cannot be given up.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut read = std::io::stdin().lock().lines();
        while let Some(Ok(line)) = read.next()
            && sender.send(line).is_ok()
        {}
    });
    lines
}

/// Tells the person. Nobody who reads (`| head`) is no reason to leave two servers behind.
fn say(text: impl Display) {
    drop(writeln!(anstream::stdout().lock(), "{text}"));
}

/// The same with the time of day, and about whom.
fn report(who: &str, what: &str) {
    say(format_args!(
        "{} {who:6} {what}",
        jiff::Zoned::now().strftime("%H:%M:%S")
    ));
}
