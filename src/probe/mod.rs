//! Looks: at the data directory, the server's process, the server itself, the files in `home`.
//!
//! A probe reports what it saw or why it could not, and decides nothing. It changes nothing either: looking twice is
//! as good as looking once.

mod configuration;
mod control;
mod data_directory;
pub mod database;
pub mod postmaster;
mod programs;
pub mod server;

use camino::Utf8Path;

use crate::desired::Desired;
use crate::observed::{
    Answer, AppFacts, DataDirectory, Fact, Observed, Peer, Postmaster, Remembered, Seen, ServerPhase,
    ServerUser,
};
use crate::sys::{clock, files, users};

pub use control::read as read_control;
pub use data_directory::{own_configuration, setting_name, sidecar_path};

/// Looks at this laptop again and again; keeps an open connection to the server and what is dear to find out.
#[derive(Debug, Default)]
pub struct Prober {
    session: server::Session,
    controls: control::Cache,
    programs: programs::Cache,
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

impl Prober {
    /// Looks at everything. `thorough`: also at what seldom changes by itself (settings, epochs, the application's
    /// database); otherwise the last look at those stands, with its age.
    pub async fn look(&mut self, desired: &Desired, inside: FromInside, thorough: bool) -> Observed {
        let server_user = users::find(&desired.postgres.os_user);
        let identity = server_user
            .as_ref()
            .ok()
            .cloned()
            .flatten()
            .unwrap_or_else(users::own);
        let installations = self
            .programs
            .look(desired.postgres.bin_directory.as_deref(), &identity)
            .await;
        let data = data_directory::look(desired, &installations, &mut self.controls, &identity).await;
        let data = Seen::new(Fact::from(data), clock::now());

        let postmaster = Fact::from(postmaster::look(desired));
        let postmaster = Seen::new(postmaster, clock::now());
        let ready = match postmaster.known() {
            Some(Postmaster::Running(running)) if running.ours && running.phase == ServerPhase::Ready => {
                Some(running.pid)
            }
            _ => None,
        };
        let (server, database) = match ready {
            Some(pid) => self.session.look(desired, pid, thorough).await,
            None => {
                self.session.forget();
                (
                    Fact::Known(Answer::NotAsked),
                    Fact::Unknown("the server does not answer yet".to_owned()),
                )
            }
        };
        let now = clock::now();
        let own = data
            .known()
            .and_then(DataDirectory::cluster)
            .and_then(|cluster| cluster.trusted_sidecar());
        Observed {
            configuration: Seen::new(Fact::from(configuration::look(desired, own, &identity)), now),
            remembered: Seen::new(Fact::from(remembered(&desired.home)), now),
            data,
            postmaster,
            server: Seen::new(server, now),
            database: Seen::new(database, now),
            installations: Seen::new(Fact::Known(installations), now),
            server_user: Seen::new(
                Fact::from(server_user.map(|found| {
                    found.map(|user| ServerUser {
                        name: user.name,
                        uid: user.uid,
                    })
                })),
                now,
            ),
            peer: match &desired.peer {
                None => Peer::None,
                Some(peer) => Peer::Unknown {
                    why: format!("asking {} is not supported yet", peer.host),
                },
            },
            app: inside.app,
            served: inside.served,
            ending: inside.ending,
        }
    }
}

/// What `home` remembers of the data directory.
pub fn remembered(home: &Utf8Path) -> anyhow::Result<Option<Remembered>> {
    use anyhow::Context as _;
    let path = home.join(Remembered::FILE);
    files::read_if_there(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(text.map(|text| serde_json::from_str(&text)).transpose()?))
        .with_context(|| format!("cannot read {path}"))
}
