//! Two laptops that know of each other, on this machine: each with a directory, ports, daemon and server of its own,
//! and the same replication password.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::Laptop;

/// The password that both share.
pub const SECRET: &str = "the same on both laptops";

pub struct Pair {
    pub alpha: Laptop,
    pub bravo: Laptop,
}

impl Pair {
    /// Alpha declared primary, bravo standby; no daemon runs yet.
    pub fn new() -> Self {
        Self::with("", "")
    }

    /// The same with more in their state files.
    pub fn with(alpha_more: &str, bravo_more: &str) -> Self {
        Self::of(Laptop::new(""), Laptop::new(""), alpha_more, bravo_more)
    }

    /// These two laptops.
    pub fn of(alpha: Laptop, bravo: Laptop, alpha_more: &str, bravo_more: &str) -> Self {
        let pair = Self { alpha, bravo };
        for laptop in [&pair.alpha, &pair.bravo] {
            secret(&laptop.path("home"), SECRET);
        }
        pair.declare_alpha("primary", alpha_more);
        pair.declare_bravo("standby", bravo_more);
        pair
    }

    /// Both run; bravo has copied alpha and follows it.
    pub fn following() -> Self {
        Self::new().into_following()
    }

    pub fn into_following(mut self) -> Self {
        self.alpha.launch();
        self.bravo.launch();
        self.alpha.wait_log("status is served");
        self.bravo.wait_log("status is served");
        self.alpha.wait_serving();
        self.bravo.wait_streaming();
        self
    }

    pub fn declare_alpha(&self, role: &str, more: &str) {
        self.alpha.write_state(&yaml("alpha", role, &self.bravo, more));
    }

    pub fn declare_bravo(&self, role: &str, more: &str) {
        self.bravo.write_state(&yaml("bravo", role, &self.alpha, more));
    }

    /// Alpha, which holds one row and whatever `more` writes, has handed over, and bravo is gone before it took over.
    pub fn abandoned(more: impl Fn(&Self)) -> Self {
        // On a busy machine bravo may be faster than we are; then it is tried again.
        for _ in 0..5 {
            let mut pair = Self::following();
            pair.alpha
                .sql("create table riders (bib int); insert into riders values (1)");
            pair.bravo.wait_sql("select count(*) from riders", "1");
            more(&pair);
            pair.declare_bravo("primary", "");
            pair.bravo.wait_reason("waiting", "serves; this one follows it");
            pair.declare_alpha("standby", "");
            pair.alpha.wait_log("action=\"promise_handover\"");
            pair.bravo.kill_daemon();
            super::crash_server(&pair.bravo.data());
            if !pair.bravo.log().contains("action=\"promote\"") {
                return pair;
            }
        }
        panic!("bravo was always faster");
    }

    /// Alpha loses power: daemon and server are gone at once.
    pub fn kill_alpha(&mut self) {
        self.alpha.kill_daemon();
        super::crash_server(&self.alpha.data());
    }
}

pub fn yaml(node: &str, role: &str, peer: &Laptop, more: &str) -> String {
    let listen = if peer.address().is_loopback() {
        "127.0.0.1"
    } else {
        "0.0.0.0"
    };
    format!(
        "role: {role}\nnode: {node}\nhome: home\napi: {{ listen: \"{listen}:{{api}}\" }}\n\
         peer: {{ host: {}, port: {}, api_port: {} }}\nsafety: {{ peer_wait: 1s }}\n\
         postgres:\n  port: {{port}}\n{more}",
        peer.address(),
        peer.port,
        peer.api
    )
}

/// Puts the replication password in its place.
pub fn secret(home: &Path, password: &str) {
    let directory = home.join("secrets");
    fs::create_dir_all(&directory).expect("make");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("mode");
    let file = directory.join("replication");
    fs::write(&file, format!("{password}\n")).expect("write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
}

impl Laptop {
    /// Follows the other laptop, and everything is there.
    pub fn wait_streaming(&self) -> Value {
        self.wait("streaming", |status| {
            status["plan"]["state"] == "converged" && status["server"]["streaming"] == true
        })
    }
}
