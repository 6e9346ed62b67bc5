//! The link to the other laptop, over real sockets: what is believed, what is not, and how long anything may take.

#[path = "../common/mod.rs"]
mod common;
mod fake;
mod link;
mod memory;
mod sql;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use paceline::desired::{self, Desired, Surroundings};
use paceline::observed::{Failing, Link, Unanswered};
use paceline::peer::{Handle, View, follow};
use tokio::sync::watch;
use tokio::time::timeout;

/// The password that both laptops share.
const PASSWORD: &str = "a password of both";

const REFUSED: Failing = Failing::Unanswered(Unanswered::Refused);
const SILENT: Failing = Failing::Unanswered(Unanswered::Silent);

/// This laptop: a home with a secret, and a declaration that names the other one.
struct Here {
    directory: tempfile::TempDir,
    desired: Desired,
    declared: watch::Sender<Arc<Desired>>,
}

impl Here {
    /// The other laptop's daemon and server are at these ports.
    fn new(api_port: u16, port: u16) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let home = directory.path().to_str().expect("UTF-8").to_owned();
        let surroundings = Surroundings {
            path: format!("{home}/state.yaml").into(),
            root: false,
            user: "crew".to_owned(),
            hostname: "alpha".to_owned(),
            node: None,
            addresses: Vec::new(),
            state_home: home.clone().into(),
        };
        let text = format!(
            "role: standby\nhome: {home}\npostgres: {{ port: 9 }}\n\
             peer: {{ host: 127.0.0.1, port: {port}, api_port: {api_port} }}\n\
             replication: {{ password_file: secret }}\n"
        );
        let desired = desired::validate(&text, &surroundings).expect("valid");
        let (declared, _) = watch::channel(Arc::new(desired.clone()));
        let here = Self {
            directory,
            desired,
            declared,
        };
        here.set_password(PASSWORD);
        here
    }

    fn set_password(&self, password: &str) {
        let path = &self.desired.replication.password_file;
        fs::write(path, format!("{password}\n")).expect("write");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
    }

    /// Declares something else, as an edited state file does.
    fn declare(&mut self, change: impl FnOnce(&mut Desired)) {
        change(&mut self.desired);
        self.declared.send_replace(Arc::new(self.desired.clone()));
    }

    fn receiver(&self) -> watch::Receiver<Arc<Desired>> {
        self.declared.subscribe()
    }

    fn follow(&self) -> Following {
        let (handle, _) = follow(self.receiver());
        Following {
            views: handle.views(),
            handle,
        }
    }

    fn memory_file(&self) -> std::path::PathBuf {
        self.directory.path().join("peer.json")
    }
}

/// A link at work.
struct Following {
    handle: Handle,
    views: watch::Receiver<View>,
}

impl Following {
    /// Waits for a view that fits.
    async fn wait(&mut self, what: &str, mut fits: impl FnMut(&View) -> bool) -> View {
        let waited = timeout(common::LIMIT, self.views.wait_for(|view| fits(view)))
            .await
            .map(|view| view.expect("the link is at work").clone());
        waited.unwrap_or_else(|_| panic!("never came: {what}; last: {:#?}", self.views.borrow()))
    }

    async fn answered(&mut self) -> View {
        self.wait("an answer", |view| link_of(view).answered.is_some())
            .await
    }

    /// Waits for a failure of this kind that says this; gives all that it says. Nothing was believed until then. (It
    /// need not be the first: on a busy machine anybody can be late.)
    async fn fails(&mut self, how: Failing, words: &str) -> String {
        let view = self
            .wait(&format!("{how:?}: {words}"), |view| {
                assert_eq!(link_of(view).answered, None);
                link_of(view)
                    .failed
                    .as_ref()
                    .is_some_and(|failed| failed.how == how && failed.why.contains(words))
            })
            .await;
        let failed = link_of(&view).failed.clone().expect("failed");
        assert!(!failed.why.contains(PASSWORD), "{}", failed.why);
        failed.why
    }
}

fn link_of(view: &View) -> &Link {
    view.link.as_ref().expect("there is another laptop")
}

/// A port where nobody listens.
fn closed() -> u16 {
    common::port()
}
