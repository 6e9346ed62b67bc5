//! A laptop that answers over HTTP as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paceline::peer::auth::Secret;
use paceline::status::Status;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This document, sealed with a secret of this password.
    Sealed(Value, &'static str),
    /// The same, at once, whatever the question says about waiting.
    AtOnce(Value),
    /// The answer to another question.
    Replayed(Value),
    /// A document without a seal.
    Unsealed(Value),
    /// These bytes.
    Raw(Vec<u8>),
    /// A byte of an endless answer now and then.
    Dripping,
    /// Nothing, for good.
    Nothing,
}

pub struct Fake {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    reply: watch::Sender<Reply>,
}

impl Fake {
    pub async fn new(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (reply, replies) = watch::channel(reply);
        let asked = Arc::default();
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, replies.clone(), Arc::clone(&heard)));
            }
        });
        Self { port, asked, reply }
    }

    pub fn reply(&self, reply: Reply) {
        self.reply.send_replace(reply);
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("asked").clone()
    }
}

async fn serve(stream: TcpStream, mut replies: watch::Receiver<Reply>, asked: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let (mut path, mut nonce) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            rest.split(' ').next().expect("path").clone_into(&mut path);
        } else if let Some(rest) = line.to_lowercase().strip_prefix("paceline-nonce:") {
            rest.trim().clone_into(&mut nonce);
        } else if line.trim().is_empty() {
            break;
        }
    }
    asked.lock().expect("asked").push(path.clone());
    let mut reply = replies.borrow_and_update().clone();
    // A long poll.
    if let Reply::Sealed(document, _) = &reply
        && let Some((after, wait)) = path
            .strip_prefix("/v1/status?after=")
            .and_then(|query| query.split_once("&wait="))
        && document["revision"].as_u64() == after.parse().ok()
    {
        let wait = Duration::from_secs(wait.parse().expect("seconds"));
        drop(timeout(wait, replies.changed()).await);
        reply = replies.borrow().clone();
    }
    let sealed = |document: &Value, password: &str, nonce: &str| {
        let body = document.to_string();
        let seal = Secret::new(password).seal(nonce, &path, body.as_bytes());
        http(&format!("Paceline-Auth: {seal}\r\n"), &body)
    };
    let bytes = match &reply {
        Reply::Sealed(document, password) => sealed(document, password, &nonce),
        Reply::AtOnce(document) => sealed(document, super::PASSWORD, &nonce),
        Reply::Replayed(document) => sealed(document, super::PASSWORD, &"0".repeat(64)),
        Reply::Unsealed(document) => http("", &document.to_string()),
        Reply::Raw(bytes) => bytes.clone(),
        Reply::Dripping => {
            let mut drops = interval(Duration::from_millis(50));
            let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
            while stream.write_all(&bytes).await.is_ok() {
                drops.tick().await;
                bytes = b" ".to_vec();
            }
            return;
        }
        Reply::Nothing => std::future::pending().await,
    };
    drop(stream.write_all(&bytes).await);
}

pub fn http(headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a laptop in good order publishes: the stable fields, and what this version needs besides.
pub fn document(revision: u64) -> Value {
    json!({
        "node": "bravo", "revision": revision, "version": "0", "pid": 0,
        "desired": {"role": "primary", "paused": false, "digest": "", "unsupported": []},
        "data": {
            "state": "primary", "crashed": false, "position_proven": true, "system_identifier": "7",
            "timeline": 1, "major": 15, "epochs": [],
            "lineage": {"system_identifier": "7", "epochs": [], "timeline": 1, "position": "0/5"},
        },
        "server": {"state": "writable", "streaming": false, "lsn": "0/5"},
        "peer": {"declared": true, "reachable": true, "age_ms": 1, "node": "alpha", "role": "standby"},
        "plan": {"state": "converged", "actions": []},
        "gate": {"state": "open", "reason": ""},
    })
}

/// The same as the daemon has it.
pub fn status(revision: u64) -> Status {
    serde_json::from_value(document(revision)).expect("a status document")
}

/// Answered as it should be.
pub fn good(revision: u64) -> Reply {
    Reply::Sealed(document(revision), super::PASSWORD)
}
