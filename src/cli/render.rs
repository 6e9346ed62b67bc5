//! Plans and status for people, and the exit code that goes with them.

use std::fmt::Write as _;
use std::time::Duration;

use camino::Utf8Path;

use super::exit;
use crate::lineage::Lsn;
use crate::status::{LossSection, PeerSection, PlanSection, PlanState, ServerSection, Status};

/// The exit code for a plan that stands like this.
pub(super) fn code(state: PlanState) -> u8 {
    match state {
        PlanState::Converged => exit::OK,
        PlanState::Converging | PlanState::Waiting => exit::PENDING,
        PlanState::Blocked => exit::BLOCKED,
        PlanState::Failed => exit::INTERNAL,
    }
}

/// The word of the status document.
const fn word(state: PlanState) -> &'static str {
    match state {
        PlanState::Converged => "converged",
        PlanState::Converging => "converging",
        PlanState::Waiting => "waiting",
        PlanState::Blocked => "blocked",
        PlanState::Failed => "failed",
    }
}

/// A plan for people. `file`: where a consent is to be written.
pub(super) fn plan(section: &PlanSection, file: &Utf8Path) -> String {
    let mut out = String::new();
    for (number, action) in section.actions.iter().enumerate() {
        let _ = writeln!(out, "{}. {action}", number + 1);
    }
    if let Some(progress) = &section.progress {
        let _ = writeln!(out, "now: {progress}");
    }
    let word = word(section.state);
    let _ = match &section.reason {
        Some(reason) => writeln!(out, "{word}: {reason}"),
        None => writeln!(out, "{word}"),
    };
    if let Some(hint) = &section.hint {
        let kind = match section.state {
            // Nothing has to be done.
            PlanState::Converged => "note",
            PlanState::Converging | PlanState::Waiting | PlanState::Blocked | PlanState::Failed => "hint",
        };
        let _ = writeln!(out, "{kind}: {hint}");
    }
    if let Some(token) = &section.consent {
        consent(&mut out, section, token, file);
    }
    out
}

/// What a person may allow, after what would do without it: first what it may cost, then the word.
fn consent(out: &mut String, section: &PlanSection, token: &str, file: &Utf8Path) {
    out.push_str("\nOnly if that cannot be done:\n");
    if let Some(loss) = &section.loss {
        let _ = writeln!(out, "  what would be lost: {}", lost(loss));
        let _ = writeln!(
            out,
            "    this copy goes to {}{}",
            position(loss.position),
            loss.replayed_until
                .as_ref()
                .map(|time| format!("; its last transaction is of {time}"))
                .unwrap_or_default()
        );
        let _ = writeln!(
            out,
            "    the other laptop's copy went to {}{}",
            position(loss.peer_position),
            loss.peer_seen
                .as_ref()
                .map(|time| format!(" when that was last known, {time}"))
                .unwrap_or_default()
        );
    }
    let danger = section.danger.as_deref().unwrap_or("go on all the same");
    let _ = writeln!(
        out,
        "  to {danger}, write this line in {file}. It allows that once, as things are now:\n    consent: \"{token}\""
    );
}

fn position(position: Option<Lsn>) -> String {
    position.map_or("an unknown position".to_owned(), |position| position.to_string())
}

/// What is known of what is lost. What is not known is never "nothing".
fn lost(loss: &LossSection) -> String {
    match loss.missing_bytes {
        Some(0) => {
            "nothing that is known of; what the other laptop wrote after it was last seen, nobody can say"
                .to_owned()
        }
        Some(missing) => format!(
            "{} of WAL that only the other laptop is known to have, and what it wrote after that",
            bytes(missing)
        ),
        None => "how much is not known".to_owned(),
    }
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // As it is shown, so that nothing is "1024 kB".
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A status document for people. `file`: the state file.
pub(super) fn status(status: &Status, file: &Utf8Path) -> String {
    let mut out = String::new();
    let paused = if status.desired.paused { " (paused)" } else { "" };
    let _ = writeln!(out, "node     {}", status.node);
    let _ = writeln!(out, "role     {}{paused}", status.desired.role);
    server(&mut out, &status.server);
    let lag = status
        .server
        .lag_bytes
        .map(|lag| format!(", {} behind the other laptop", bytes(lag)));
    let _ = writeln!(
        out,
        "data     {}, timeline {}, position {}{}",
        status.data.state,
        or_dash(status.data.timeline),
        or_dash(status.server.lsn),
        lag.unwrap_or_default()
    );
    if let Some(given) = &status.handed_over {
        let _ = writeln!(
            out,
            "         handed over at {}: it is only read until a laptop takes over",
            given.shutdown_checkpoint_lsn
        );
    }
    if status.peer.declared {
        let _ = writeln!(out, "peer     {}", peer(&status.peer));
    }
    let _ = writeln!(out, "gate     {}: {}", status.gate.state, status.gate.reason);
    if let Some(app) = &status.app {
        let text = |key: &str| match &app[key] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let _ = writeln!(
            out,
            "app      {} (port {}, process {})",
            text("state"),
            text("port"),
            text("pid")
        );
        if let Some(end) = app["last_end"].as_str() {
            let _ = writeln!(out, "         last: {end}");
        }
    }
    for notice in &status.notices {
        let _ = writeln!(out, "note     {notice}");
    }
    for key in &status.desired.unsupported {
        let _ = writeln!(out, "note     not supported yet: {key}");
    }
    if let Some(warning) = &status.desired.warning {
        let _ = writeln!(out, "warning  {warning}");
    }
    if let Some(error) = &status.desired.error {
        let _ = writeln!(
            out,
            "\nthe state file is not taken; the last valid one stays in force:\n{}\n",
            error.trim_end()
        );
    }
    out.push_str(&plan(&status.plan, file));
    out
}

fn server(out: &mut String, server: &ServerSection) {
    let _ = writeln!(
        out,
        "server   {}{} (PostgreSQL {}, port {}, process {})",
        server.state,
        if server.streaming { ", streaming" } else { "" },
        or_dash(server.version.as_ref()),
        or_dash(server.port),
        or_dash(server.pid)
    );
    if let Some(reason) = &server.reason {
        let _ = writeln!(out, "         {reason}");
    }
    match server.durability.as_deref() {
        Some("sync") => out.push_str("         a commit waits for the other laptop (durability: sync)\n"),
        Some("degraded") => out.push_str(
            "         DEGRADED: a commit does not wait for the other laptop, which does not follow (durability: sync)\n",
        ),
        Some(_) | None => {}
    }
}

/// A laptop in one line.
pub(super) fn line(status: &Status) -> String {
    let plan = &status.plan;
    let mut out = format!(
        "{} {}{}, server {}{}, gate {}, {}",
        status.node,
        status.desired.role,
        if status.desired.paused { " (paused)" } else { "" },
        status.server.state,
        if status.server.streaming {
            " (streaming)"
        } else {
            ""
        },
        status.gate.state,
        word(plan.state)
    );
    if let Some(words) = plan.reason.as_ref().or(plan.actions.first()) {
        let _ = write!(out, ": {words}");
    }
    if let (PlanState::Blocked | PlanState::Failed, Some(hint)) = (plan.state, &plan.hint) {
        let _ = write!(out, " (hint: {hint})");
    }
    // An error's text may have several.
    out.replace('\n', " ")
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// The other laptop in one line.
fn peer(peer: &PeerSection) -> String {
    let name = peer.node.clone().unwrap_or_else(|| "the other laptop".to_owned());
    if !peer.reachable {
        let age = peer.age_ms.map(|ms| {
            format!(
                " for {}",
                humantime::format_duration(Duration::from_secs(ms / 1000))
            )
        });
        return format!(
            "{name} does not answer{}: {}",
            age.unwrap_or_default(),
            peer.reason.as_deref().unwrap_or("it was not asked yet")
        );
    }
    let role = peer.role.map_or("its daemon does not answer".to_owned(), |role| {
        format!("declared {role}")
    });
    let streaming = match peer.streaming {
        Some(true) => ", streaming",
        Some(false) => ", not streaming",
        None => "",
    };
    let data = peer
        .data
        .map(|data| format!(", its copy is {data}"))
        .unwrap_or_default();
    let lag = peer
        .lag_bytes
        .map(|lag| format!(", {} behind", bytes(lag)))
        .unwrap_or_default();
    let flag = peer
        .flag
        .map(|flag| format!(", {}", flag.word()))
        .unwrap_or_default();
    format!(
        "{name}: {role}, server {}{streaming}{data}{lag}{flag}",
        peer.server.as_deref().unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (count, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 kB"),
            (10_189, "10 kB"),
            (1_048_063, "1023 kB"),
            (1_048_575, "1.0 MB"),
            (16 << 20, "16 MB"),
            (3 << 30, "3.0 GB"),
            (u64::MAX, "16777216 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    fn blocked() -> PlanSection {
        PlanSection {
            state: PlanState::Blocked,
            flag: None,
            progress: None,
            actions: Vec::new(),
            reason: Some("the other laptop may hold more".to_owned()),
            hint: Some("write `primary` there".to_owned()),
            consent: Some("7f3a9c".to_owned()),
            danger: Some("go on all the same".to_owned()),
            loss: Some(LossSection {
                position: None,
                replayed_until: None,
                peer_position: Some(Lsn(0x500_0400)),
                peer_seen: None,
                missing_bytes: None,
            }),
        }
    }

    /// Who reads from above finds what costs nothing first; and nothing unknown looks like nothing.
    #[test]
    fn a_consent_comes_last() {
        let file = Utf8Path::new("/etc/paceline/state.yaml");
        let mut section = blocked();
        assert_eq!(
            plan(&section, file),
            "blocked: the other laptop may hold more\nhint: write `primary` there\n\nOnly if that cannot be done:\n  \
             what would be lost: how much is not known\n    this copy goes to an unknown position\n    the other \
             laptop's copy went to 0/5000400\n  to go on all the same, write this line in /etc/paceline/state.yaml. It \
             allows that once, as things are now:\n    consent: \"7f3a9c\"\n"
        );
        section.loss = Some(LossSection {
            position: Some(Lsn(0x500_0148)),
            replayed_until: Some("14:05".to_owned()),
            peer_position: Some(Lsn(0x500_0400)),
            peer_seen: Some("2026-06-06T14:05:00Z".to_owned()),
            missing_bytes: Some(696),
        });
        let text = plan(&section, file);
        for words in [
            "what would be lost: 696 bytes of WAL that only",
            "this copy goes to 0/5000148; its last transaction is of 14:05",
            "went to 0/5000400 when that was last known, 2026-06-06T14:05:00Z",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn advice_is_no_demand() {
        let section = PlanSection {
            state: PlanState::Converged,
            reason: None,
            consent: None,
            loss: None,
            ..blocked()
        };
        assert_eq!(
            plan(&section, Utf8Path::new("f")),
            "converged\nnote: write `primary` there\n"
        );
    }
}
