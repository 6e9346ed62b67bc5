//! What the roles share: making sure that the facts a row reads are there, and the way from a copy on disk to a server
//! that serves it. Pure.

use uuid::Uuid;

use super::action::{Action, ConfigurationFiles, Plan, Reason, Start, Step};
use super::blocked::Blocked;
use super::configuration::{About, name_on_disk, names_to_purge, on_disk, render};
use super::end::{End, Waiting};
use super::refused::rejected;
use crate::desired::{Database, Desired};
use crate::lineage::{Origin, Relation};
use crate::observed::{
    Cluster, Configuration, Contradiction, Data, DataDirectory, Fact, Installation, Login, Moment, Observed,
    Peer, Postmaster, Secret, Server,
};

/// The facts that every row reads, all of them known.
pub(super) struct Situation<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
    /// What the copy on disk is; while a server runs, that server's word counts instead.
    pub(super) data: Data,
    pub(super) server: Server,
    pub(super) peer: &'a Peer,
    /// How our copy stands to the other laptop's; `None`: one of the two has no history.
    pub(super) relation: Option<Relation>,
    pub(super) now: Moment,
}

/// Gathers the facts; where one is missing or forbids everything, says so.
pub(super) fn situation<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    now: Moment,
) -> Result<Situation<'a>, End> {
    let blocked = |blocked| Err(End::Blocked(blocked));
    let data = match &observed.data.fact {
        Fact::Known(data) => data,
        Fact::Unknown(why) => return blocked(cannot_see("the data directory", why)),
    };
    let server = match (&observed.postmaster.fact, observed.server_state()) {
        (Fact::Unknown(why), _) => return blocked(cannot_see("the server's process", why)),
        (Fact::Known(Postmaster::Running(running)), _) if !running.ours => {
            return blocked(Blocked::ForeignServer {
                pid: running.pid,
                command_line: running.command_line.clone(),
            });
        }
        (Fact::Known(_), Fact::Unknown(why)) => return Err(End::Waiting(Waiting::ServerSilent(why))),
        (Fact::Known(_), Fact::Known(server)) => server,
    };
    let user = match &observed.server_user.fact {
        Fact::Known(Some(user)) => user,
        Fact::Known(None) => {
            return blocked(Blocked::NoServerUser {
                name: desired.postgres.os_user.clone(),
            });
        }
        Fact::Unknown(why) => return blocked(cannot_see("the server's user", why)),
    };
    let path = desired.postgres.data_directory.clone();
    if let DataDirectory::Cluster(cluster) = data
        && server == Server::Down
    {
        if cluster.owner_uid != user.uid {
            return blocked(Blocked::WrongOwner {
                path,
                owner_uid: cluster.owner_uid,
                user: user.name.clone(),
                user_uid: user.uid,
            });
        }
        // PostgreSQL's own rule (checkDataDir): nothing for others, at most read and search for the group.
        if cluster.mode & 0o027 != 0 {
            return blocked(Blocked::WrongMode {
                path,
                mode: cluster.mode,
            });
        }
        if cluster.mount_point {
            return blocked(Blocked::MountPoint { path });
        }
        if let Fact::Unknown(why) = &cluster.sidecar {
            return blocked(cannot_see("the note beside the data directory", why));
        }
    }
    let situation = Situation {
        desired,
        observed,
        data: data.state(),
        server,
        peer: &observed.peer,
        relation: observed.relation(),
        now,
    };
    if let DataDirectory::Cluster(cluster) = data
        && server == Server::Down
        // Without the programs the marks cannot be read either, so this comes before what the copy is.
        && let Err(missing) = situation.installation(Some(cluster.major))
    {
        return blocked(missing);
    }
    Ok(situation)
}

pub(super) fn cannot_see(what: &'static str, why: &str) -> Blocked {
    Blocked::CannotSee {
        what,
        why: why.to_owned(),
    }
}

impl Situation<'_> {
    /// A plan whose first part brings a database up that is not there yet.
    pub(super) fn create(&self) -> Plan {
        let path = &self.desired.postgres.data_directory;
        match &self.observed.remembered.fact {
            Fact::Unknown(why) => {
                return Plan::blocked(cannot_see("what was in the data directory before", why));
            }
            Fact::Known(Some(was)) => {
                return Plan::blocked(Blocked::DataGone {
                    path: path.clone(),
                    was: was.data_directory.clone(),
                    system_identifier: was.system_identifier.clone(),
                    memory: self.desired.home.join(crate::observed::Remembered::FILE),
                });
            }
            Fact::Known(None) => {}
        }
        if let Some(DataDirectory::Empty { mount_point: true }) = self.observed.data.known() {
            return Plan::blocked(Blocked::MountPoint { path: path.clone() });
        }
        if let Some(waiting) = self.leftovers() {
            return Plan::waiting(waiting);
        }
        let installation = match self.installation(None) {
            Ok(installation) => installation,
            Err(blocked) => return Plan::blocked(blocked),
        };
        let found = match &self.observed.configuration.fact {
            Fact::Known(found) => found,
            Fact::Unknown(why) => return Plan::blocked(cannot_see("the configuration in home", why)),
        };
        let about = About {
            major: installation.major,
            own: None,
            replica: false,
            follows: None,
            needed: None,
            synchronous: None,
        };
        let mut files = render(self.desired, &about, found);
        files.programs = Some(installation.clone());
        if let Some(rejected) = rejected(&files, found) {
            return Plan::blocked(rejected);
        }
        let mut steps = vec![step(
            Action::CreateCluster(installation.clone()),
            Reason::NoDatabase,
        )];
        if !on_disk(&files, found) {
            steps.push(step(
                Action::WriteConfiguration(Box::new(files)),
                Reason::ConfigurationDiffers,
            ));
        }
        steps.push(step(
            Action::StartServer(Start {
                programs: installation.clone(),
                standby: false,
            }),
            Reason::ServerDown,
        ));
        steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
        if self.desired.postgres.database.is_some() {
            steps.push(step(Action::EnsureDatabase, Reason::DatabaseDiffers));
        }
        Plan::new(steps, End::Converged)
    }

    /// The steps from a copy on disk to a running server, and `then` for what it comes to. A standby's copy is only read.
    pub(super) fn start(&self, reason: Reason, then: End) -> Plan {
        let standby = self.data == Data::Replica;
        let Some(cluster) = self.observed.cluster() else {
            return Plan::blocked(cannot_see(
                "the data directory",
                "it changed while it was looked at",
            ));
        };
        if let Some(waiting) = self.leftovers() {
            return Plan::waiting(waiting);
        }
        let installation = match self.installation(Some(cluster.major)) {
            Ok(installation) => installation.clone(),
            Err(blocked) => return Plan::blocked(blocked),
        };
        if let Some(rejected) = self.unstartable(cluster, standby) {
            return Plan::blocked(rejected);
        }
        let mut steps = match self.configure(cluster) {
            Ok(steps) => steps,
            Err(blocked) => return Plan::blocked(blocked),
        };
        steps.extend(self.purge(cluster));
        steps.push(step(
            Action::StartServer(Start {
                programs: installation,
                standby,
            }),
            reason,
        ));
        if !standby && Self::unnamed_on_disk(cluster) {
            steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
        }
        Plan::new(steps, then)
    }

    /// The steps that a running, writable server still needs; `then`: what it comes to without further ado.
    pub(super) fn serve(&self, then: End) -> Plan {
        let (Some(cluster), Some(facts)) = (self.observed.cluster(), self.observed.server_facts()) else {
            return Plan::blocked(cannot_see(
                "the data directory",
                "a server runs, but its database is not there",
            ));
        };
        let path = || self.desired.postgres.data_directory.clone();
        match &self.data {
            Data::Tainted => return Plan::blocked(Blocked::Tainted { path: path() }),
            Data::Replica => {
                return Plan::blocked(Blocked::StraySignalFile {
                    path: path().join("standby.signal"),
                });
            }
            Data::Recovering => {
                return Plan::blocked(Blocked::StraySignalFile {
                    path: path().join("recovery.signal"),
                });
            }
            // Without pg_control nobody can tell whose the sidecar is.
            Data::Unclear(contradiction @ Contradiction::ControlUnreadable(_)) => {
                return Plan::blocked(Blocked::Unclear {
                    path: path(),
                    contradiction: contradiction.clone(),
                });
            }
            // A running server's own word counts more than marks that it has not rewritten yet.
            Data::Unclear(Contradiction::SignalFileGone | Contradiction::BackupLabel)
            | Data::Empty
            | Data::NotOurs(_)
            | Data::Primary { .. } => {}
        }
        if let Fact::Unknown(why) = &cluster.sidecar {
            return Plan::blocked(cannot_see("the note beside the data directory", why));
        }
        let mut steps = match self.configure(cluster) {
            Ok(steps) => steps,
            Err(blocked) => return Plan::blocked(blocked),
        };
        // First: nothing opens the gate of a server whose epoch has no name.
        if !self.observed.timeline_named() && cluster.trusted_sidecar().is_some() {
            steps.insert(0, step(Action::NameEpoch, Reason::EpochUnnamed));
        }
        let written = steps.iter().find_map(|step| match &step.action {
            Action::WriteConfiguration(files) => Some(files.digest.clone()),
            _ => None,
        });
        let rewritten = written.is_some();
        let on_disk = || self.rendered_digest(cluster);
        // ALTER SYSTEM over something that the state file decides.
        let purge = self.purge(cluster);
        let in_force = names_to_purge(self.desired, &facts.auto_conf_in_force);
        let altered = purge.is_some() || !in_force.is_empty();
        steps.extend(purge);
        if let Some(digest) = written.or_else(on_disk) {
            let loaded = facts.configuration.as_ref() == Some(&digest);
            // Reading the same mistakes again would end the same way.
            if !rewritten && !altered && !facts.configuration_errors.is_empty() {
                let errors = facts.configuration_errors.clone();
                return Plan::new(steps, End::Blocked(Blocked::ConfigurationRejected { errors }));
            }
            if !loaded || altered {
                steps.push(step(
                    Action::ReloadServer {
                        configuration: digest,
                    },
                    Reason::NotLoaded,
                ));
            }
        }
        if !self.observed.timeline_named() {
            if cluster.trusted_sidecar().is_none() {
                steps.push(step(Action::NameEpoch, Reason::EpochUnnamed));
            }
        } else if cluster
            .trusted_sidecar()
            .is_none_or(|sidecar| sidecar.epochs != facts.epochs)
            || !self.remembers(cluster)
        {
            steps.push(step(Action::NameEpoch, Reason::SidecarBehind));
        }
        // Before the application's password, which may be made from this one.
        steps.extend(self.replication(facts));
        let end = match self
            .desired
            .postgres
            .database
            .as_ref()
            .map(|wanted| self.database(wanted))
        {
            Some(DatabaseNeed::Ensure) => {
                steps.push(step(Action::EnsureDatabase, Reason::DatabaseDiffers));
                then
            }
            Some(DatabaseNeed::Stuck(end)) => end,
            Some(DatabaseNeed::Nothing) | None if facts.pending_restart.is_empty() => then,
            Some(DatabaseNeed::Nothing) | None => {
                End::Waiting(Waiting::Restart(facts.pending_restart.clone()))
            }
        };
        // After the gate is open; before it is done the other laptop could not tell a rewind's target (POSTGRES-FACTS 8).
        if facts.checkpoint_timeline < facts.timeline {
            steps.push(step(Action::Checkpoint, Reason::NoCheckpointYet));
        }
        Plan::new(steps, end)
    }

    /// Whether `home` remembers this very database in this place. Where that cannot be read, it is not written anew.
    fn remembers(&self, cluster: &Cluster) -> bool {
        let (Some(sidecar), Some(remembered)) = (cluster.trusted_sidecar(), self.observed.remembered.known())
        else {
            return true;
        };
        remembered.as_ref().is_some_and(|was| {
            was.system_identifier == sidecar.system_identifier
                && was.data_directory == self.desired.postgres.data_directory
                && was.origin == sidecar.origin
        })
    }

    /// Adoption, if it is not ours yet, and its configuration, if that is not on disk.
    pub(super) fn configure(&self, cluster: &Cluster) -> Result<Vec<Step>, Blocked> {
        let found = match &self.observed.configuration.fact {
            Fact::Known(found) => found,
            Fact::Unknown(why) => return Err(cannot_see("the configuration in home", why)),
        };
        let mut steps = Vec::new();
        if cluster.trusted_sidecar().is_none() {
            steps.push(step(Action::AdoptCluster, Reason::NotOursYet));
        }
        let files = self.files(cluster, found);
        if !on_disk(&files, found) && !self.stays(&files, found) {
            let waits = self.observed.server_facts().map(|facts| facts.synchronous);
            let reason = match (self.synchronous().is_some(), waits) {
                (true, Some(false)) => Reason::FollowerReady,
                (false, Some(true)) => Reason::FollowerAway,
                (true | false, Some(true | false) | None) => Reason::ConfigurationDiffers,
            };
            steps.push(step(Action::WriteConfiguration(Box::new(files)), reason));
        }
        Ok(steps)
    }

    /// The configuration that a primary's copy needs when it is a standby's, if that is not on disk.
    pub(super) fn configure_as_standby(&self, cluster: &Cluster, follows: Option<Uuid>) -> Option<Step> {
        let found = self.observed.configuration.known()?;
        let files = self.files_as(cluster, found, true, follows);
        (!on_disk(&files, found)).then(|| {
            step(
                Action::WriteConfiguration(Box::new(files)),
                Reason::ConfigurationDiffers,
            )
        })
    }

    /// The configuration of this copy.
    pub(super) fn files(&self, cluster: &Cluster, found: &Configuration) -> ConfigurationFiles {
        let follows = cluster
            .trusted_sidecar()
            .and_then(|sidecar| sidecar.epochs.last())
            .map(|epoch| epoch.uuid);
        self.files_as(cluster, found, self.replica(), follows)
    }

    /// The same, as a standby's that follows this epoch, or a primary's.
    fn files_as(
        &self,
        cluster: &Cluster,
        found: &Configuration,
        replica: bool,
        follows: Option<Uuid>,
    ) -> ConfigurationFiles {
        let about = About {
            major: cluster.major,
            own: own_configuration(cluster),
            replica,
            follows,
            needed: cluster.control.known().map(|control| control.needed),
            synchronous: self.synchronous().filter(|_| !replica),
        };
        let mut files = render(self.desired, &about, found);
        let stale = Some(&Secret::There {
            passfile_current: false,
        });
        files.passfile = self.desired.peer.is_some() && self.observed.secret.known() == stale;
        files.programs = self.installation(Some(cluster.major)).ok().cloned();
        files
    }

    /// The name of the configuration as it should be, or of the one that stays.
    pub(super) fn rendered_digest(&self, cluster: &Cluster) -> Option<String> {
        let found = self.observed.configuration.known()?;
        let files = self.files(cluster, found);
        if self.stays(&files, found) {
            return name_on_disk(found);
        }
        Some(files.digest)
    }

    /// Whether the copy follows another: by the server's word, else by its marks.
    pub(super) fn replica(&self) -> bool {
        match self.observed.server_facts() {
            Some(facts) => facts.in_recovery,
            None => self.data == Data::Replica,
        }
    }

    /// What `postgresql.auto.conf` must not hold.
    pub(super) fn purge(&self, cluster: &Cluster) -> Option<Step> {
        let names = names_to_purge(self.desired, &cluster.auto_conf_names);
        (!names.is_empty()).then(|| step(Action::PurgeAutoConf(names), Reason::AutoConfWins))
    }

    pub(super) fn leftovers(&self) -> Option<Waiting> {
        match self.observed.postmaster.known() {
            Some(Postmaster::Down { leftovers }) if !leftovers.is_empty() => {
                Some(Waiting::Leftovers(leftovers.clone()))
            }
            _ => None,
        }
    }

    /// The programs for data of this major version; without data the newest.
    pub(super) fn installation(&self, major: Option<u32>) -> Result<&Installation, Blocked> {
        let found = match &self.observed.installations.fact {
            Fact::Known(found) => found,
            Fact::Unknown(why) => return Err(cannot_see("the PostgreSQL programs", why)),
        };
        found
            .iter()
            .filter(|installation| major.is_none_or(|major| major == installation.major))
            .max_by_key(|installation| installation.major)
            .ok_or_else(|| Blocked::NoInstallation {
                major,
                found: found.clone(),
                declared: self.desired.postgres.bin_directory.clone(),
            })
    }

    fn unnamed_on_disk(cluster: &Cluster) -> bool {
        let timeline = cluster.control.known().map(|control| control.timeline);
        cluster.trusted_sidecar().is_none_or(|sidecar| {
            sidecar.intended.is_some()
                || !sidecar
                    .epochs
                    .iter()
                    .any(|epoch| Some(epoch.timeline) == timeline)
        })
    }

    fn database(&self, wanted: &Database) -> DatabaseNeed {
        let facts = match &self.observed.database.fact {
            Fact::Unknown(why) => {
                return DatabaseNeed::Stuck(End::Waiting(Waiting::DatabaseUnseen(why.clone())));
            }
            Fact::Known(facts) if facts.about != (wanted.name.clone(), wanted.owner.clone()) => {
                let why = "the declaration just changed".to_owned();
                return DatabaseNeed::Stuck(End::Waiting(Waiting::DatabaseUnseen(why)));
            }
            Fact::Known(facts) => facts,
        };
        let stuck = |blocked| DatabaseNeed::Stuck(End::Blocked(blocked));
        let path = wanted.password_file.clone();
        match &facts.login {
            Login::BadPasswordFile(why) => {
                return stuck(Blocked::PasswordFile {
                    path,
                    why: why.clone(),
                });
            }
            Login::NoPasswordFile if wanted.password_file_declared => {
                return stuck(Blocked::PasswordFile {
                    path,
                    why: "there is no such file".to_owned(),
                });
            }
            // A file that is ours is made together with the role; a role that was there first keeps its password.
            Login::NoPasswordFile | Login::WrongPassword if facts.role && !wanted.password_file_declared => {
                return stuck(Blocked::UnknownPassword {
                    role: wanted.owner.clone(),
                    path,
                });
            }
            Login::NoPasswordFile | Login::WrongPassword => return DatabaseNeed::Ensure,
            Login::Failed(why) if facts.role && facts.owner.is_some() => {
                return stuck(Blocked::AppLogin {
                    role: wanted.owner.clone(),
                    why: why.clone(),
                });
            }
            Login::Works | Login::NotTried | Login::Failed(_) => {}
        }
        if facts.role && facts.owner.as_ref() == Some(&wanted.owner) {
            DatabaseNeed::Nothing
        } else {
            DatabaseNeed::Ensure
        }
    }
}

enum DatabaseNeed {
    Nothing,
    Ensure,
    Stuck(End),
}

/// The own configuration files of an adopted cluster.
fn own_configuration(cluster: &Cluster) -> Option<&crate::lineage::OwnConfiguration> {
    match &cluster.trusted_sidecar()?.origin {
        Origin::Created => None,
        Origin::Adopted(own) => Some(own),
    }
}

pub(super) fn step(action: Action, reason: Reason) -> Step {
    Step { action, reason }
}
