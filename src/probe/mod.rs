//! Looks: at the data directory, the server's process, the server itself, the files in `home`.
//!
//! A probe reports what it saw or why it could not, and decides nothing. It changes nothing either: looking twice is
//! as good as looking once.

pub mod backup;
mod configuration;
mod control;
mod data_directory;
pub mod database;
pub mod postmaster;
mod programs;
pub mod replication;
pub mod restart;
pub mod server;

use camino::Utf8Path;

use crate::desired::Desired;
use crate::observed::{
    AppFacts, Cluster, Consents, DataDirectory, Fact, HandedOver, Installation, NEW_DATABASE_FILE, Observed,
    Peer, Postmaster, Remembered, Seen, ServerPhase, ServerUser,
};
use crate::sys::users::Identity;
use crate::sys::{clock, files, users};

pub use control::read as read_control;
pub(crate) use data_directory::TAINT_SUFFIX;
pub use data_directory::{own_configuration, read_sidecar, setting_name, sidecar_path};

/// Looks at this laptop again and again; keeps an open connection to the server and what is dear to find out.
#[derive(Debug, Default)]
pub struct Prober {
    session: server::Session,
    controls: control::Cache,
    programs: programs::Cache,
    around: Option<Surroundings>,
}

/// What only the daemon itself can say.
#[derive(Clone, Debug, Default)]
pub struct FromInside {
    /// The application, as its supervisor knows it.
    pub app: AppFacts,
    /// Whether it has seen the server writable.
    pub served: bool,
    /// Whether the daemon was asked to end.
    pub ending: bool,
}

/// What only a person or a package changes, and what costs more to find out than to remember for some seconds.
#[derive(Clone, Debug)]
struct Surroundings {
    identity: Identity,
    server_user: Seen<Option<ServerUser>>,
    installations: Seen<Vec<Installation>>,
    remembered: Seen<Option<Remembered>>,
}

impl Prober {
    /// The connection to the server, for those who act.
    pub fn shared(&self) -> server::Shared {
        self.session.shared()
    }

    /// Looks at everything. `thorough`: also at what seldom changes by itself (programs, users, settings, epochs, the
    /// application's database); otherwise, while the server is ready, the last look at those stands, with its age.
    pub async fn look(&mut self, desired: &Desired, inside: FromInside, thorough: bool) -> Observed {
        let identity = match &self.around {
            Some(around) if !thorough => around.identity.clone(),
            _ => server_user(desired),
        };
        let postmaster = Seen::new(Fact::from(postmaster::look(desired, &identity)), clock::now());
        let ready = match postmaster.known() {
            Some(Postmaster::Running(running)) if running.ours && running.phase == ServerPhase::Ready => {
                Some(running.pid)
            }
            _ => None,
        };
        let around = match self.around.take() {
            Some(around) if !thorough && ready.is_some() => around,
            _ => self.look_around(desired).await,
        };
        let data = data_directory::look(
            desired,
            around.installations.known().map_or(&[], Vec::as_slice),
            &mut self.controls,
            &around.identity,
            thorough || ready.is_none(),
        )
        .await;
        let data = Seen::new(Fact::from(data), clock::now());
        let asked = if let Some(pid) = ready {
            self.session.look(desired, pid, thorough).await
        } else {
            self.session.forget();
            server::Asked::nobody()
        };
        let now = clock::now();
        let sidecar = data
            .known()
            .and_then(DataDirectory::cluster)
            .and_then(Cluster::trusted_sidecar);
        let configuration = configuration::look(desired, sidecar, &around.identity);
        let running = match postmaster.known() {
            Some(Postmaster::Running(running)) => Some(running),
            Some(Postmaster::Down { .. }) | None => None,
        };
        let restart = restart::look(desired, running);
        let observed = Observed {
            configuration: Seen::new(Fact::from(configuration), now),
            remembered: around.remembered.clone(),
            handover_intention: Seen::new(Fact::from(note(&desired.home, HandedOver::FILE)), now),
            consents: Seen::new(Fact::from(consents(&desired.home)), now),
            data,
            postmaster,
            server: Seen::new(asked.server, now),
            database: Seen::new(asked.database, now),
            installations: around.installations.clone(),
            server_user: around.server_user.clone(),
            // The link fills these in: see `peer`.
            peer: Peer::None,
            peer_memory: Seen::new(Fact::Known(None), now),
            flag: None,
            replication: Seen::new(asked.replication, now),
            secret: Seen::new(replication::secret(desired, &around.identity), now),
            new_database_allowed: desired.home.join(NEW_DATABASE_FILE).exists(),
            backup: Seen::new(backup::look(desired), now),
            restart: Seen::new(Fact::from(restart), now),
            triggered: desired
                .postgres
                .trigger_file
                .as_ref()
                .is_some_and(|file| file.exists()),
            app: inside.app,
            served: inside.served,
            ending: inside.ending,
        };
        self.around = Some(around);
        observed
    }

    async fn look_around(&mut self, desired: &Desired) -> Surroundings {
        let user = users::find(&desired.postgres.os_user);
        let identity = user.as_ref().ok().cloned().flatten().unwrap_or_else(users::own);
        let installations = self
            .programs
            .look(desired.postgres.bin_directory.as_deref(), &identity)
            .await;
        let user = user.map(|found| {
            found.map(|user| ServerUser {
                name: user.name,
                uid: user.uid,
            })
        });
        let now = clock::now();
        Surroundings {
            identity,
            server_user: Seen::new(Fact::from(user), now),
            installations: Seen::new(Fact::Known(installations), now),
            remembered: Seen::new(Fact::from(remembered(&desired.home)), now),
        }
    }
}

/// The PostgreSQL programs on this laptop, and whom to run them as.
pub async fn installations(desired: &Desired) -> (Vec<Installation>, Identity) {
    let identity = server_user(desired);
    let declared = desired.postgres.bin_directory.as_deref();
    let found = programs::Cache::default().look(declared, &identity).await;
    (found, identity)
}

/// The user that the server runs as; ourselves if there is no such user (which is said as a fact of its own).
fn server_user(desired: &Desired) -> Identity {
    users::find(&desired.postgres.os_user)
        .ok()
        .flatten()
        .unwrap_or_else(users::own)
}

/// What `home` remembers of the data directory.
pub fn remembered(home: &Utf8Path) -> anyhow::Result<Option<Remembered>> {
    note(home, Remembered::FILE)
}

/// What persons consented to.
pub fn consents(home: &Utf8Path) -> anyhow::Result<Consents> {
    Ok(note(home, Consents::FILE)?.unwrap_or_default())
}

/// A note in `home`; `None`: there is no such file. One that cannot be understood is an error, never "there is none".
fn note<T: serde::de::DeserializeOwned>(home: &Utf8Path, name: &str) -> anyhow::Result<Option<T>> {
    use anyhow::Context as _;
    let path = home.join(name);
    files::read_if_there(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(text.map(|text| serde_json::from_str(&text)).transpose()?))
        .with_context(|| format!("cannot read {path}"))
}
