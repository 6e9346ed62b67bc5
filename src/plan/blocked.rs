//! Why a plan is blocked until a person acts, and what that person has to do.
//!
//! Every text here is read by a volunteer at seven in the morning: what, with which value, why, what to do.

use std::fmt;

use camino::Utf8PathBuf;

use super::pair_end::PeerBlock;
use super::rule::Fault;
use crate::observed::{Contradiction, Installation};

/// Why nothing (more) is done until a person acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// A fact about this laptop could not be seen.
    CannotSee {
        /// What was looked at.
        what: &'static str,
        /// Why it could not be seen.
        why: String,
    },
    /// The data directory's path holds something that is no database.
    NotOurs {
        /// The path.
        path: Utf8PathBuf,
        /// What is there.
        what: String,
    },
    /// The directory is empty although a database was there before.
    DataGone {
        /// Where it should be.
        path: Utf8PathBuf,
        /// Where it was.
        was: Utf8PathBuf,
        /// Which one.
        system_identifier: String,
        /// The file that remembers it.
        memory: Utf8PathBuf,
    },
    /// The marks of the data directory contradict each other.
    Unclear {
        /// The data directory.
        path: Utf8PathBuf,
        /// How.
        contradiction: Contradiction,
    },
    /// An interrupted rewind or restore.
    Tainted {
        /// The data directory.
        path: Utf8PathBuf,
    },
    /// A recovery from a backup was begun by somebody else and is not finished.
    UnfinishedRecovery {
        /// Its signal file.
        path: Utf8PathBuf,
    },
    /// A primary's server refuses writes because of a setting.
    ToldToBeReadOnly,
    /// A standby's copy on a laptop that is declared primary, without another laptop.
    StandbyCopy,
    /// A signal file appeared under a running primary.
    StraySignalFile {
        /// The file.
        path: Utf8PathBuf,
    },
    /// Declared standby without another laptop.
    StandbyWithoutPeer,
    /// Declared failover without anything to take over.
    NothingToFailOverTo,
    /// A server that Paceline did not start runs on the data directory.
    ForeignServer {
        /// Its process id.
        pid: i32,
        /// How it was started.
        command_line: String,
    },
    /// The data directory is a mount point and would have to be renamed.
    MountPoint {
        /// The data directory.
        path: Utf8PathBuf,
    },
    /// The user that the server shall run as does not exist.
    NoServerUser {
        /// Its name.
        name: String,
    },
    /// The data directory belongs to somebody else.
    WrongOwner {
        /// The data directory.
        path: Utf8PathBuf,
        /// Its owner.
        owner_uid: u32,
        /// The server's user.
        user: String,
        /// The server's user.
        user_uid: u32,
    },
    /// The data directory can be read by others; PostgreSQL refuses that.
    WrongMode {
        /// The data directory.
        path: Utf8PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There are no programs for the data's major version, or none at all.
    NoInstallation {
        /// The major version of the data; `None`: any would do.
        major: Option<u32>,
        /// What there is.
        found: Vec<Installation>,
        /// Where a person said they are.
        declared: Option<Utf8PathBuf>,
    },
    /// The server refuses parts of its configuration.
    ConfigurationRejected {
        /// In its words.
        errors: Vec<String>,
    },
    /// The application's password file is missing or unusable.
    PasswordFile {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The application's role exists with a password that Paceline does not know.
    UnknownPassword {
        /// The role.
        role: String,
        /// Where the password would be looked for.
        path: Utf8PathBuf,
    },
    /// The application's role cannot log in.
    AppLogin {
        /// The role.
        role: String,
        /// The server's words.
        why: String,
    },
    /// The planner made a mistake, and the plan checker saw it.
    PlanRefused {
        /// Which.
        fault: Fault,
        /// What was planned: the short names of its actions.
        plan: Vec<&'static str>,
    },
    /// Because of the other laptop.
    Peer(PeerBlock),
    /// The backup that is to be restored cannot be used.
    Backup {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CannotSee { what, why } => write!(f, "cannot see {what}: {why}"),
            Self::NotOurs { path, what } => write!(f, "{path} is no database: {what}"),
            Self::DataGone {
                path,
                was,
                system_identifier,
                ..
            } => {
                write!(
                    f,
                    "{path} is empty, but a database (system identifier {system_identifier}) was there before"
                )?;
                if was == path {
                    Ok(())
                } else {
                    write!(f, ", in {was}")
                }
            }
            Self::Unclear { path, contradiction } => match contradiction {
                Contradiction::SignalFileGone => {
                    write!(
                        f,
                        "the copy in {path} followed another server and its standby.signal is gone"
                    )
                }
                Contradiction::BackupLabel => {
                    write!(
                        f,
                        "there is a backup_label in {path}, but no signal file: an unfinished copy, or a primary \
                               that crashed during a backup"
                    )
                }
                Contradiction::ControlUnreadable(why) => write!(f, "cannot tell what {path} holds: {why}"),
            },
            Self::Tainted { path } => write!(f, "a rewind or restore of {path} was interrupted"),
            Self::UnfinishedRecovery { path } => {
                write!(
                    f,
                    "there is {path}: a recovery from a backup was begun and is not finished"
                )
            }
            Self::ToldToBeReadOnly => {
                f.write_str("the server refuses writes: default_transaction_read_only is on")
            }
            Self::StandbyCopy => f.write_str("this laptop is declared primary, but its copy is a standby's"),
            Self::StraySignalFile { path } => {
                write!(
                    f,
                    "somebody created {path}: at its next start the server would not be a primary any more"
                )
            }
            Self::StandbyWithoutPeer => {
                f.write_str("this laptop is declared standby, but the state file names no other laptop")
            }
            Self::NothingToFailOverTo => {
                f.write_str("this laptop is declared failover, but it holds no database")
            }
            Self::ForeignServer { pid, command_line } => {
                write!(
                    f,
                    "a server that Paceline did not start runs on the data directory: process {pid}, {command_line}"
                )
            }
            Self::MountPoint { path } => write!(
                f,
                "the data directory {path} is a mount point, and Paceline must be able to rename it"
            ),
            Self::NoServerUser { name } => {
                write!(f, "the server's user {name:?} does not exist on this laptop")
            }
            Self::WrongOwner {
                path,
                owner_uid,
                user,
                user_uid,
            } => {
                write!(
                    f,
                    "the data directory {path} belongs to uid {owner_uid}, but the server runs as {user} (uid {user_uid})"
                )
            }
            Self::WrongMode { path, mode } => {
                write!(
                    f,
                    "the data directory {path} has mode {mode:04o}; PostgreSQL accepts only 0700 and 0750"
                )
            }
            Self::NoInstallation {
                major,
                found,
                declared,
            } => {
                match major {
                    Some(major) => write!(
                        f,
                        "the data is PostgreSQL {major}'s and its programs were not found"
                    )?,
                    None => f.write_str("no PostgreSQL server programs were found")?,
                }
                if let Some(declared) = declared {
                    write!(f, " in {declared} (`bin_directory`)")?;
                }
                if !found.is_empty() {
                    let list: Vec<String> = found
                        .iter()
                        .map(|i| format!("{} in {}", i.version, i.bin_directory))
                        .collect();
                    write!(f, "; found: {}", list.join(", "))?;
                }
                Ok(())
            }
            Self::ConfigurationRejected { errors } => {
                write!(f, "the server refuses its configuration: {}", errors.join("; "))
            }
            Self::PasswordFile { path, why } => write!(f, "cannot use the password file {path}: {why}"),
            Self::UnknownPassword { role, path } => {
                write!(
                    f,
                    "the role {role:?} exists already, and {path} does not hold its password"
                )
            }
            Self::AppLogin { role, why } => write!(f, "the role {role:?} cannot log in: {why}"),
            Self::PlanRefused { fault, plan } => write!(
                f,
                "the plan ({}) breaks a rule that no plan may break, so nothing of it is done: {fault}",
                plan.join(", ")
            ),
            Self::Peer(block) => block.fmt(f),
            Self::Backup { why } => write!(f, "the backup cannot be restored: {why}"),
        }
    }
}

impl Blocked {
    /// What a person has to do.
    pub fn hint(&self) -> String {
        match self {
            Self::CannotSee { .. } => {
                "mend what the message names; where it says permission denied, run Paceline as root or as the server's user".to_owned()
            }
            Self::NotOurs { path, .. } => {
                format!(
                    "move it away (Paceline never deletes it), or set `postgres: data_directory:` to another place than {path}"
                )
            }
            Self::DataGone { memory, .. } => {
                format!(
                    "is the disk mounted? If you really want to begin with a new, empty database, delete {memory}"
                )
            }
            Self::Unclear { path, contradiction } => match contradiction {
                Contradiction::SignalFileGone => {
                    format!(
                        "put it back with `touch {path}/standby.signal`; a standby becomes a primary by promotion, never by deleting that file"
                    )
                }
                Contradiction::BackupLabel => {
                    format!(
                        "if it is a copy, make it again; if this server crashed during a backup of itself, move {path}/backup_label aside (do not delete it)"
                    )
                }
                Contradiction::ControlUnreadable(_) => {
                    "nothing was changed; restore the directory from a backup or from the other laptop"
                        .to_owned()
                }
            },
            Self::Tainted { path } => format!(
                "do not start it. Bring the other laptop back: with `standby` here this one copies it anew. If there is none, the copy \
                 from before lies beside {path}: move this one away and that one here"
            ),
            Self::UnfinishedRecovery { path } => format!(
                "finish it with PostgreSQL's own means (Paceline cannot do that yet); if the file was created by mistake: rm {path}"
            ),
            Self::ToldToBeReadOnly => "find where it is set (select * from pg_db_role_setting; the adopted cluster's own file) and take it out".to_owned(),
            Self::StandbyCopy => "declare `role: failover` if the other laptop is dead".to_owned(),
            Self::StraySignalFile { path } => format!("remove it: rm {path}"),
            Self::StandbyWithoutPeer => {
                "write `role: primary`, or name the other laptop under `peer`".to_owned()
            }
            Self::NothingToFailOverTo => {
                "write `standby` to copy the other laptop's database, `primary` to make a new one, or bring the data back".to_owned()
            }
            Self::ForeignServer { pid, command_line } => {
                if command_line.contains("/etc/postgresql/") {
                    "stop it and keep it from starting at boot, for example: systemctl disable --now postgresql; Paceline then starts it".to_owned()
                } else {
                    format!(
                        "stop it the way it was started (or: kill -INT {pid}, a fast shutdown); Paceline then starts it"
                    )
                }
            }
            Self::MountPoint { path } => {
                format!("set `postgres: data_directory:` to a directory inside it, such as {path}/data")
            }
            Self::NoServerUser { .. } => {
                "install PostgreSQL's server package, or set `postgres: os_user:`".to_owned()
            }
            Self::WrongOwner { path, user, .. } => format!("chown -R {user}: {path}"),
            Self::WrongMode { path, .. } => format!("chmod 0700 {path}"),
            Self::NoInstallation { major, declared, .. } => match (major, declared) {
                (_, Some(_)) => {
                    "correct `postgres: bin_directory:`, or remove it to let Paceline look for itself"
                        .to_owned()
                }
                (Some(major), None) => format!(
                    "install them, on Debian: apt-get install postgresql-{major}; or set `postgres: bin_directory:`"
                ),
                (None, None) => {
                    "install them, on Debian: apt-get install postgresql; or set `postgres: bin_directory:`"
                        .to_owned()
                }
            },
            Self::ConfigurationRejected { .. } => {
                "correct `postgres: settings:` (or `hba:`) in the state file".to_owned()
            }
            Self::PasswordFile { path, .. } => {
                format!("put the password on the first line of {path}, owned by the daemon's user, mode 0600")
            }
            Self::UnknownPassword { path, .. } => {
                format!(
                    "put the role's password into {path} (mode 0600), or name a file with `password_file:` to have the role's password set from it"
                )
            }
            Self::AppLogin { .. } => {
                "mend what the server says; `postgres: hba:` lines stand before Paceline's own".to_owned()
            }
            Self::PlanRefused { .. } => {
                "this is a mistake in Paceline; nothing was done. Please report it with the output of `paceline status --json` of both \
                 laptops. As soon as the state file or the situation changes it is decided anew"
                    .to_owned()
            }
            Self::Peer(block) => block.hint(),
            Self::Backup { .. } => "put the backup there, or correct `recovery`: it goes on by itself. Nothing was touched; `role: primary` \
                 goes on with what is here"
                .to_owned(),
        }
    }
}
