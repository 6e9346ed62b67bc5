//! A primary's copy that the other laptop went beyond is brought onto that one's history by pg_rewind. What only this copy
//! has is kept first (see [`keep`]).
//!
//! While the copy is changed it is tainted (see [`marker`]), until it is whole again: a killed pg_rewind leaves something
//! that would start and serve mixed data (POSTGRES-FACTS 13). What pg_rewind cannot do is found out before anything is
//! changed; then, too, the copy is marked, and the planner has the database copied anew. A line that is interrupted before
//! that changes nothing, and it is tried again.

mod copying;
pub mod keep;
mod marker;
mod source;
mod tools;

use anyhow::{Context as _, Result, bail};
use camino::Utf8PathBuf;

use self::keep::Parting;
use self::marker::{Phase, mark, unmark};
use self::source::Source;
use super::clone::{make_standby, say};
use super::epoch::write_sidecar;
use super::{Context, configure};
use crate::desired::Desired;
use crate::lineage::{Epoch, Lineage, Lsn, Origin, Sidecar};
use crate::observed::{ClusterState, ControlData, Data, DataDirectory, Fact, HandedOver, Postmaster};
use crate::plan::RewindSource;
use crate::probe::{self, FromInside, Prober, postmaster};
use crate::sys::files::{self, sync_parent, write_durably};
use crate::sys::users::Identity;

pub(super) async fn rewind(context: &Context<'_>, source: &RewindSource) -> Result<()> {
    let desired = context.desired;
    let user = context.server_user()?;
    let mut found = look(desired, source, &user).await?;
    tools::complete(source)?;
    super::can_reach(&desired.replication_passfile(), &user)?;
    configure::passfile(context)?;
    say(context, format!("asking {} what it holds", source.peer.host));
    let there = source::ask(desired, source).await?;
    keep::remove_unfinished(desired)?;
    keep::room(desired, source, &there)?;
    let fork = fork(&found.lineage, &there.confirmed.epochs);

    if found.control.state != ClusterState::ShutDown {
        recover(context, source, &user, fork).await?;
        found = look(desired, source, &user).await?;
    }
    possible(context, source, &user, &there).await?;
    let parting = Parting {
        control: &found.control,
        ours: &found.lineage,
        source,
        there: &there,
        fork,
    };
    let kept = keep::divergent(context, &user, &parting).await?;
    // Keeping it may have taken a while.
    look(desired, source, &user).await?;
    let own = OwnFiles::read(desired, &found.sidecar.origin)?;
    // From here on the copy is changed.
    mark(desired, Phase::Changing, kept)?;
    match tools::rewind(context, source, &user).await {
        Ok(()) => {}
        Err(failed) if failed.changed => return Err(failed.error.context("the database is copied anew")),
        Err(failed) => return Err(not_begun(desired, source, failed.error).await),
    }
    arrive(context, source, &user, found.sidecar, &there, &own).await
}

/// What is to be rewound.
struct Found {
    control: ControlData,
    lineage: Lineage,
    sidecar: Sidecar,
}

/// A primary's copy of this very database, on which no server runs.
async fn look(desired: &Desired, source: &RewindSource, user: &Identity) -> Result<Found> {
    let path = &desired.postgres.data_directory;
    match postmaster::look(desired, user)? {
        Postmaster::Running(running) => bail!("a server runs on {path}: process {}", running.pid),
        Postmaster::Down { leftovers } if !leftovers.is_empty() => {
            bail!("processes of a dead server are still there: {leftovers:?}")
        }
        Postmaster::Down { .. } => {}
    }
    let observed = Prober::default().look(desired, FromInside::default(), true).await;
    let data = match &observed.data.fact {
        Fact::Known(data) => data,
        Fact::Unknown(why) => bail!("cannot tell what is in {path}: {why}"),
    };
    if !matches!(data.state(), Data::Primary { .. }) {
        bail!(
            "what is in {path} is {} by now, and was a primary's copy; nothing was done",
            data.state().state()
        );
    }
    let cluster = data.cluster();
    let control = cluster.and_then(|cluster| cluster.control.known());
    let sidecar = cluster.and_then(|cluster| cluster.trusted_sidecar());
    let (Some(control), Some(sidecar), Some(lineage)) = (control, sidecar, observed.lineage()) else {
        bail!("what {path} holds cannot be seen any more");
    };
    if control.system_identifier != source.system_identifier {
        bail!(
            "{path} holds the database {}, and {} was to be rewound",
            control.system_identifier,
            source.system_identifier
        );
    }
    Ok(Found {
        control: control.clone(),
        lineage,
        sidecar: sidecar.clone(),
    })
}

/// Where the two histories part: where the first epoch begins that only one of them has.
fn fork(ours: &Lineage, theirs: &[Epoch]) -> Option<Lsn> {
    let first_theirs = theirs
        .iter()
        .find(|epoch| ours.held().all(|held| held.uuid != epoch.uuid));
    let first_ours = ours
        .held()
        .find(|epoch| theirs.iter().all(|other| other.uuid != epoch.uuid));
    let begins = [first_theirs, first_ours].into_iter().flatten();
    begins.map(|epoch| epoch.begin_lsn).min()
}

/// Recovers a crashed copy. It is marked meanwhile: a disk that lost what it had confirmed brings up a copy that goes less
/// far than the other laptop's and yet has records of its own, which would be taken for one that can simply follow.
async fn recover(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
    fork: Option<Lsn>,
) -> Result<()> {
    mark(context.desired, Phase::Recovering, None)?;
    let control = tools::recover(context, source, user).await?;
    if let Some(fork) = fork.filter(|fork| control.checkpoint < *fork) {
        bail!(
            "the crashed copy ends at {} after its recovery, before the other laptop took over at {fork}: its disk lost \
             what it had confirmed. The database is copied anew",
            control.checkpoint
        );
    }
    unmark(context.desired)
}

/// Finds out whether pg_rewind can do it.
async fn possible(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
    there: &Source,
) -> Result<()> {
    let why = match tools::preview(context, source, user).await {
        Ok(preview) if preview.nothing_to_do => tools::no_difference(),
        Ok(preview) => match preview.from.filter(|from| !reaches_back(there, *from)) {
            None => return Ok(()),
            Some(from) => anyhow::anyhow!(
                "the other laptop does not have the WAL from {from} on any more, which a rewind needs"
            ),
        },
        Err(error) => error,
    };
    Err(not_begun(context.desired, source, why).await)
}

/// A rewind that failed before it changed anything: tried again, if that was the line's fault; otherwise the copy is given
/// up for a new one.
async fn not_begun(desired: &Desired, source: &RewindSource, why: anyhow::Error) -> anyhow::Error {
    let answers = source::confirm(desired, source).await.is_ok();
    let marked = if answers {
        mark(desired, Phase::GivenUp, None)
    } else {
        unmark(desired)
    };
    match marked {
        Ok(()) if answers => why.context("this copy cannot be rewound; the database is copied anew"),
        Ok(()) => why,
        Err(error) => error,
    }
}

/// Whether the other laptop still has the WAL of this position.
fn reaches_back(there: &Source, from: Lsn) -> bool {
    there.wal.iter().any(|segment| {
        copying::position(&segment.name, segment.size)
            .is_some_and(|begin| begin <= from.0 && from.0 < begin + segment.size)
    })
}

/// The configuration files of an adopted cluster that lie in its data directory: a rewind puts the other laptop's in their
/// place, or removes them (POSTGRES-FACTS 15).
struct OwnFiles(Vec<(Utf8PathBuf, String)>);

impl OwnFiles {
    fn read(desired: &Desired, origin: &Origin) -> Result<Self> {
        let Origin::Adopted(own) = origin else {
            return Ok(Self(Vec::new()));
        };
        let paths = [&own.config_file, &own.hba_file, &own.ident_file];
        let inside = paths
            .into_iter()
            .flatten()
            .filter(|path| path.starts_with(&desired.postgres.data_directory));
        let mut files = Vec::new();
        for path in inside {
            let text = files::read_if_there(path).with_context(|| format!("cannot read {path}"))?;
            files.extend(text.map(|text| (path.clone(), text)));
        }
        Ok(Self(files))
    }

    fn write(&self, user: &Identity) -> Result<()> {
        for (path, text) in &self.0 {
            write_durably(path, text.as_bytes(), 0o600, Some(user.owner()))?;
        }
        Ok(())
    }
}

/// What the whole is for: a standby's copy that holds the epoch, and is trusted.
async fn arrive(
    context: &Context<'_>,
    source: &RewindSource,
    user: &Identity,
    before: Sidecar,
    there: &Source,
    own: &OwnFiles,
) -> Result<()> {
    let desired = context.desired;
    let path = &desired.postgres.data_directory;
    say(context, "putting the copy right".to_owned());
    has_its_wal(desired)?;
    own.write(user)?;
    // The whole of postgresql.auto.conf, for one, is the other laptop's now.
    make_standby(desired, path, user)?;
    let epochs = match source::confirm(desired, source).await {
        Ok(there) => there.epochs,
        // What was copied is seen by its timeline, too.
        Err(error) if source::is_silence(&error) => there.confirmed.epochs.clone(),
        Err(error) => return Err(error),
    };
    let control = probe::read_control(path, &source.programs.bin_directory, user).await?;
    let timeline = epochs.last().map(|epoch| epoch.timeline);
    if control.system_identifier != source.system_identifier || Some(control.timeline) != timeline {
        bail!(
            "{path} holds the database {} on timeline {} after the rewind, and was to hold {} on timeline {timeline:?}",
            control.system_identifier,
            control.timeline,
            source.system_identifier
        );
    }
    let sidecar = Sidecar {
        epochs,
        intended: None,
        ..before
    };
    write_sidecar(path, &sidecar)?;
    super::remember(desired, &sidecar)?;
    forget_the_handover(&desired.home)?;
    unmark(desired)?;
    let observed = Prober::default().look(desired, FromInside::default(), true).await;
    match observed.data.known().map(DataDirectory::state) {
        Some(Data::Replica) => Ok(()),
        other => bail!("{path} is {other:?} after the rewind, and was to be a standby's"),
    }
}

/// The WAL that the copy is replayed from came with the rewind. Without it the server would wait for it for ever.
fn has_its_wal(desired: &Desired) -> Result<()> {
    let data = &desired.postgres.data_directory;
    let path = data.join("backup_label");
    let label = files::read_if_there(&path).with_context(|| format!("cannot read {path}"))?;
    // START WAL LOCATION: 0/3000060 (file 000000010000000000000003)
    let first = label.as_deref().and_then(|label| {
        let line = label
            .lines()
            .find(|line| line.starts_with("START WAL LOCATION:"))?;
        line.split("(file ").nth(1)?.strip_suffix(')')
    });
    let Some(first) = first else {
        bail!("{path} does not say where the WAL begins that the copy needs");
    };
    // On whatever timeline: the first segment of a new one begins with the end of the old one.
    let number = first.get(8..).unwrap_or_default();
    let wal = data.join("pg_wal");
    let entries = wal
        .read_dir_utf8()
        .with_context(|| format!("cannot list {wal}"))?;
    let found = entries
        .flatten()
        .any(|entry| entry.file_name().len() == 24 && entry.file_name().get(8..) == Some(number));
    if !found {
        bail!("{first} is not in {wal} after the rewind: the other laptop does not have that WAL any more");
    }
    Ok(())
}

/// What was promised of a copy that is another one now.
pub(super) fn forget_the_handover(home: &camino::Utf8Path) -> Result<()> {
    let path = home.join(HandedOver::FILE);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => {
            removed.with_context(|| format!("cannot remove {path}"))?;
            sync_parent(&path).with_context(|| format!("cannot make the removal of {path} durable"))
        }
    }
}
