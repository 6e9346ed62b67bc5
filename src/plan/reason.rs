//! Why an action is taken: the second half of every step, and of every line of the log about one.

use std::fmt;

/// Why an action is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The role asks for a database and there is none.
    NoDatabase,
    /// There is a database without a sidecar.
    NotOursYet,
    /// The configuration on disk is not what the state file says.
    ConfigurationDiffers,
    /// Commits are to wait for the other laptop, which follows closely.
    FollowerReady,
    /// Commits must not wait any longer for the other laptop, which does not follow.
    FollowerAway,
    /// Names in `postgresql.auto.conf` would win over the state file.
    AutoConfWins,
    /// The role asks for a running server.
    ServerDown,
    /// The same, and the last one crashed: it recovers by itself.
    ServerCrashed,
    /// The state file asks for a restore that was not done yet.
    RestoreDeclared,
    /// The copy is a standby's and may be read.
    StandbyCopy,
    /// The server runs with an older configuration.
    NotLoaded,
    /// The timeline that is being written has no recorded name yet.
    EpochUnnamed,
    /// The sidecar does not list what the database lists.
    SidecarBehind,
    /// The application's role or database is missing or not as declared.
    DatabaseDiffers,
    /// The other laptop has the database.
    PeerHasDatabase,
    /// What this copy needs next is not on the other laptop any more.
    WalGone,
    /// Its making was interrupted.
    HalfMade,
    /// The other laptop went on to an epoch that this copy can follow.
    EpochFollowed,
    /// The other laptop can be followed, and nothing streams.
    NotStreaming,
    /// With both signal files the next start after a promotion would fail.
    BothSignalFiles,
    /// A promotion while the replay is paused would shut the server down.
    ReplayPaused,
    /// The state file says that the other laptop is gone.
    FailoverDeclared,
    /// Both laptops were off, and this one is declared primary.
    PrimaryDeclared,
    /// What the other laptop needs is missing or not as declared.
    ReplicationDiffers,
    /// There was none since the promotion.
    NoCheckpointYet,
    /// A failover shall not have to wait for it.
    ReadyToTakeOver,
    /// The other laptop took over: this server must not be written to.
    Superseded,
    /// This laptop is declared standby and the other one can take over.
    HandingOver,
    /// The other laptop took over, and this copy can follow it as it is.
    AncestorOfPeer,
    /// The other laptop gave its copy away, and this one holds all of it.
    HandoverReceived,
    /// Nobody took the copy that was given away.
    TakenBack,
    /// A person consented to it.
    Consented,
    /// A changed setting needs it, and on a standby nobody minds.
    RestartNeeded,
    /// A person asked for it.
    RestartRequested,
    /// The server that was to be restarted is gone.
    Restarted,
    /// The daemon was asked to end.
    Ending,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDatabase => "the data directory is empty",
            Self::NotOursYet => "Paceline did not make this database",
            Self::ConfigurationDiffers => "it differs from the state file",
            Self::AutoConfWins => "that file would win over the state file",
            Self::ServerDown => "the server is down",
            Self::ServerCrashed => "the server crashed; it recovers by itself",
            Self::FollowerReady => {
                "the other laptop follows closely: a commit waits for it from now on (durability: sync)"
            }
            Self::FollowerAway => {
                "the other laptop does not follow: a commit does not wait for it any more (durability: sync)"
            }
            Self::RestoreDeclared => "the state file asks for it, and it was not done yet",
            Self::StandbyCopy => "this copy is a standby's: it may be read, not written",
            Self::NotLoaded => "the server runs with an older configuration",
            Self::EpochUnnamed => "this stretch of the database's history has no name yet",
            Self::SidecarBehind => "the note beside the data directory is behind the database",
            Self::DatabaseDiffers => "it is missing or not as declared",
            Self::PeerHasDatabase => "the other laptop has the database",
            Self::WalGone => "what it needs next is not on the other laptop any more",
            Self::HalfMade => "the making of this copy was interrupted",
            Self::EpochFollowed => "the other laptop went on to it, and this copy can follow",
            Self::NotStreaming => "the other laptop can be followed, and nothing streams",
            Self::BothSignalFiles => "it would survive a promotion and make the next start fail",
            Self::ReplayPaused => "everything that was received has to be replayed",
            Self::FailoverDeclared => "the state file says that the other laptop is gone",
            Self::PrimaryDeclared => "both laptops were off, and this one is declared primary",
            Self::ReplicationDiffers => "it is missing or not as declared",
            Self::NoCheckpointYet => "there was none since the promotion",
            Self::ReadyToTakeOver => "a failover shall not have to wait for it",
            Self::Superseded => "the other laptop took over, so this one must not be written to",
            Self::HandingOver => "this laptop is declared standby, and the other one is ready to take over",
            Self::AncestorOfPeer => "the other laptop took over, and this copy can follow it as it is",
            Self::HandoverReceived => "the other laptop handed over, and this copy holds everything",
            Self::TakenBack => "nobody took over what this laptop handed over",
            Self::Consented => "a person consented to it",
            Self::RestartNeeded => "changed settings need a restart, and a standby may be restarted at once",
            Self::RestartRequested => "a restart was asked for (paceline restart)",
            Self::Restarted => "the server that was to be restarted is gone, and another one runs",
            Self::Ending => "the daemon was asked to end",
        })
    }
}
