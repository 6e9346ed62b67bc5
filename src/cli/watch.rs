//! `status --watch`: the status again with every change: drawn anew on a terminal, a line each elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use camino::Utf8Path;
use tokio::time::sleep;

use super::{client, exit, render};
use crate::desired::Desired;
use crate::status::Status;
use crate::sys::clock;

/// So many seconds a question waits for news.
const WAIT: u64 = 30;
/// How soon a daemon that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// All of it, in place of what was there.
    Screen,
    /// One line for each change.
    Lines,
    /// One JSON document for each change.
    Json,
}

/// Until somebody ends it, or nobody reads it any more. A daemon that is gone may come back.
pub(super) async fn watch(desired: &Desired, file: &Utf8Path, json: bool) -> Result<u8> {
    let form = match (json, io::stdout().is_terminal()) {
        (true, _) => Form::Json,
        (false, true) => Form::Screen,
        (false, false) => Form::Lines,
    };
    let mut path = "/v1/status".to_owned();
    let mut said: Option<String> = None;
    loop {
        let (text, answered) = match ask(desired, &path).await {
            Ok(status) => {
                path = format!("/v1/status?after={}&wait={WAIT}", status.revision);
                (shown(&status, file, form)?, true)
            }
            Err(error) => {
                // A daemon that starts counts from the beginning again.
                "/v1/status".clone_into(&mut path);
                let text = match form {
                    Form::Screen => {
                        format!("{error:#}\nhint: is `paceline run` running? it is asked again\n")
                    }
                    Form::Lines => format!("{error:#}"),
                    Form::Json => String::new(),
                };
                (text, false)
            }
        };
        // On a terminal positions and ages are drawn anew with every answer.
        let news = said.as_ref() != Some(&text) || (form == Form::Screen && answered);
        if news && !text.is_empty() {
            match draw(&text, form) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::OK),
                drawn => drawn?,
            }
        }
        said = Some(text);
        if !answered {
            sleep(AGAIN).await;
        }
    }
}

async fn ask(desired: &Desired, path: &str) -> Result<Status> {
    let limit = Duration::from_secs(WAIT + 5);
    let text = client::get_within(limit, desired.api_listen, path).await?;
    Ok(serde_json::from_str(&text)?)
}

fn shown(status: &Status, file: &Utf8Path, form: Form) -> Result<String> {
    Ok(match form {
        Form::Screen => render::status(status, file),
        Form::Lines => render::line(status),
        Form::Json => serde_json::to_string(status)?,
    })
}

fn draw(text: &str, form: Form) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match form {
        Form::Screen => write!(
            out,
            "{CLEAR}{text}\nas of {}; Ctrl-C ends this\n",
            clock::timestamp()
        )?,
        Form::Lines => writeln!(out, "{} {text}", clock::timestamp())?,
        Form::Json => writeln!(out, "{text}")?,
    }
    out.flush()
}
