//! A secret that a person types: the terminal does not show it, and is as before afterwards, whatever happened.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// Longer lines are no secrets; a pipe that never ends its line must not fill the memory.
const LONGEST: u64 = 4096;

/// Reads one line from standard input. From a terminal it is asked for with `prompt` on standard error and not shown;
/// `None`: the person gave up (Ctrl-C, or the terminal went away).
pub async fn read_secret(prompt: &str) -> io::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return read_line().map(Some);
    }
    // The signals that would end us are caught before the terminal is changed: their default action restores nothing.
    // One that would suspend us is caught too, and does nothing: the shell would get a terminal that shows nothing.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let _suspend = signal(SignalKind::from_raw(nix::libc::SIGTSTP))?;
    let _hidden = Hidden::hide()?;
    {
        let mut terminal = io::stderr().lock();
        write!(terminal, "{prompt}")?;
        terminal.flush()?;
    }
    let line = tokio::task::spawn_blocking(read_line);
    tokio::select! {
        line = line => line?.map(Some),
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hangup.recv() => Ok(None),
        _ = quit.recv() => Ok(None),
    }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(LONGEST).read_line(&mut line)?;
    Ok(line)
}

/// While this lives, the terminal on standard input shows nothing of what is typed but the end of the line.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn hide() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden
            .local_flags
            .insert(LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        // Not with a flush: the line may have been pasted together with the command.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}
