//! `/metrics`: the status as numbers, in Prometheus' text format. What is not known has no line; it is never 0.

use std::fmt::{Display, Write as _};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Sources, starting};
use crate::status::Status;

/// The format's own content type.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const SERVER_STATES: [&str; 6] = ["down", "starting", "writable", "read_only", "stopping", "unknown"];
const GATE_STATES: [&str; 3] = ["open", "holding", "closed"];
const PLAN_STATES: [&str; 5] = ["converged", "converging", "waiting", "blocked", "failed"];
const APP_STATES: [&str; 4] = ["stopped", "running", "stopping", "backing_off"];

pub(super) async fn metrics(State(sources): State<Sources>) -> Response {
    let now = sources.published.borrow().clone();
    let Some(status) = now else { return starting() };
    (
        [
            (header::CONTENT_TYPE, CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text(&status),
    )
        .into_response()
}

/// The whole page.
fn text(status: &Status) -> String {
    let mut page = Page::default();
    page.head("info", "This laptop, its daemon and what is declared; always 1.");
    let version = status.server.version.as_deref().unwrap_or_default();
    page.labelled(
        "info",
        &[
            ("node", status.node.as_str()),
            ("role", &status.desired.role),
            ("version", &status.version),
            ("postgresql", version),
        ],
        1,
    );
    page.one(
        "state_file_valid",
        "Whether the state file's present content is in force.",
        Some(u8::from(status.desired.error.is_none())),
    );
    page.one(
        "paused",
        "Whether Paceline only watches.",
        Some(u8::from(status.desired.paused)),
    );

    let server = &status.server;
    page.states("server_state", "The server.", &SERVER_STATES, &server.state);
    page.one(
        "server_streaming",
        "Whether the server streams from the other laptop.",
        Some(u8::from(server.streaming)),
    );
    page.one(
        "server_synchronous",
        "Whether a commit waits for the other laptop.",
        server.durability.as_ref().map(|word| u8::from(word == "sync")),
    );
    page.one(
        "server_lag_bytes",
        "How many bytes this copy is behind the other laptop's.",
        server.lag_bytes,
    );
    page.one(
        "server_wal_position_bytes",
        "Position written, or received and replayed.",
        server.lsn.map(|lsn| lsn.0),
    );
    page.one(
        "server_pending_restart",
        "How many settings wait for a restart of the server.",
        server.pending_restart.as_ref().map(Vec::len),
    );
    page.one(
        "timeline",
        "PostgreSQL's timeline of this copy.",
        status.data.timeline,
    );
    page.one(
        "data_crashed",
        "Whether the server of this copy did not shut down cleanly.",
        Some(u8::from(status.data.crashed)),
    );
    page.one(
        "handed_over",
        "Whether this laptop gave its copy away and nobody took over yet.",
        Some(u8::from(status.handed_over.is_some())),
    );

    page.states("gate_state", "The gate.", &GATE_STATES, &status.gate.state);
    if let Some(app) = &status.app {
        let state = app["state"].as_str().unwrap_or_default();
        page.states("app_state", "The application.", &APP_STATES, state);
        page.one(
            "app_failures",
            "How often in a row the application ended by itself.",
            app["failures"].as_u64(),
        );
    }

    let plan = serde_json::to_value(status.plan.state).unwrap_or_default();
    page.states(
        "plan_state",
        "The plan: blocked means that a person must act.",
        &PLAN_STATES,
        plan.as_str().unwrap_or_default(),
    );
    page.one(
        "plan_steps",
        "How many steps are to be taken.",
        Some(status.plan.actions.len()),
    );
    page.one(
        "consent_offered",
        "Whether a person may consent to a step that may lose something.",
        Some(u8::from(status.plan.consent.is_some())),
    );

    let peer = &status.peer;
    if peer.declared {
        page.one(
            "peer_reachable",
            "Whether the other laptop answered lately, with our secret.",
            Some(u8::from(peer.reachable)),
        );
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds")]
        let age = peer.age_ms.map(|ms| ms as f64 / 1000.0);
        page.one(
            "peer_age_seconds",
            "How long ago the other laptop answered; if it never did, for how long it has been asked.",
            age,
        );
        page.one(
            "peer_writable",
            "Whether the other laptop's server may be written to.",
            peer.server.as_ref().map(|server| u8::from(server == "writable")),
        );
        page.one(
            "peer_lag_bytes",
            "How many bytes the other laptop's copy is behind this one, which is written to.",
            peer.lag_bytes,
        );
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP paceline_{name} {help}\n# TYPE paceline_{name} gauge"
        );
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let _ = writeln!(self.0, "paceline_{name}{{{}}} {value}", labels.join(","));
    }

    /// A number; nothing, if it is not known.
    fn one(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.head(name, help);
            let _ = writeln!(self.0, "paceline_{name} {value}");
        }
    }

    /// One line for each state that there is; the present one has 1.
    fn states(&mut self, name: &str, help: &str, states: &[&str], is: &str) {
        self.head(name, help);
        for state in states {
            self.labelled(name, &[("state", state)], u8::from(*state == is));
        }
    }
}

/// A label's value: backslash, quote and line feed are the format's own.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_early() {
        let mut page = Page::default();
        page.labelled("info", &[("node", "a\\\"b\n")], 1);
        assert_eq!(page.0, "paceline_info{node=\"a\\\\\\\"b\\n\"} 1\n");
    }

    #[test]
    fn what_is_not_known_has_no_line() {
        let mut page = Page::default();
        page.one("lag_bytes", "Lag.", None::<u64>);
        assert_eq!(page.0, "");
    }
}
