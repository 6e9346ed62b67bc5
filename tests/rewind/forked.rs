//! Two laptops whose histories parted, without daemons.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use camino::Utf8PathBuf;
use paceline::desired::{Desired, PeerAddress};
use paceline::exec::keep::{REPORT, Report};
use paceline::observed::{Data, DataState, Fact, Secret};
use paceline::plan::configuration::quote;
use paceline::plan::{Action, CloneSource, RewindSource};

use crate::common::{self, bin_directory, crash_server, eventually, stop_server};
use crate::effects::{Pair, SLOT, act, configure, look, need, programs, set_aside, siblings, start};

/// Alpha was the primary and is down; bravo took over, and is written to.
pub(crate) struct Forked {
    pub(crate) pair: Pair,
    pub(crate) source: RewindSource,
}

/// How alpha went down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Crash,
    Stop,
}

/// Bravo follows alpha and has all of its rows.
pub(crate) fn following() -> Pair {
    let pair = Pair::new();
    pair.clone(DataState::Empty).expect("clone");
    follow(&pair.bravo_desired, pair.alpha.port);
    start(&pair.bravo_desired, true);
    let end = pair.alpha.sql("select pg_current_wal_lsn()");
    let level =
        format!("select pg_last_wal_receive_lsn() >= '{end}' and pg_last_wal_replay_lsn() >= '{end}'");
    eventually("level", || pair.bravo.try_sql(&level).as_deref() == Some("t"));
    pair
}

/// Alpha writes something that bravo never gets, and goes down. Bravo is a standby without it.
pub(crate) fn cut_off(pair: &Pair, end: End, apart: impl FnOnce(&Pair)) {
    stop_server(&pair.bravo.data());
    pair.alpha.sql("insert into riders values (666)");
    apart(pair);
    match end {
        End::Crash => crash_server(&pair.alpha.data()),
        End::Stop => stop_server(&pair.alpha.data()),
    }
    start(&pair.bravo_desired, true);
}

impl Forked {
    /// Bravo has all but alpha's last row.
    pub(crate) fn new(end: End) -> Self {
        Self::with(end, |_| {})
    }

    /// The same; `apart`: what happens on alpha while bravo is cut off.
    pub(crate) fn with(end: End, apart: impl FnOnce(&Pair)) -> Self {
        let pair = following();
        cut_off(&pair, end, apart);
        let forked = Self::taken_over(pair);
        act(&forked.pair.bravo_desired, &Action::Checkpoint).expect("checkpoint");
        forked
    }

    /// Bravo, a standby whose primary is gone, takes over and writes.
    pub(crate) fn taken_over(mut pair: Pair) -> Self {
        pair.bravo.sql("select pg_promote()");
        act(&pair.bravo_desired, &Action::NameEpoch).expect("name");
        act(&pair.bravo_desired, &Action::EnsureReplication(Box::new(need()))).expect("slot");
        pair.bravo.sql("insert into riders values (2)");
        let peer = PeerAddress {
            host: "127.0.0.1".to_owned(),
            port: pair.bravo.port,
            api_port: pair.bravo.api,
        };
        pair.alpha_desired.peer = Some(peer.clone());
        let last = "select uuid from paceline.epoch order by timeline desc limit 1";
        let source = RewindSource {
            peer,
            programs: programs(),
            system_identifier: pair
                .bravo
                .sql("select system_identifier from pg_control_system()"),
            epoch: pair.bravo.sql(last).parse().expect("uuid"),
        };
        Self { pair, source }
    }

    pub(crate) fn rewind(&self) -> anyhow::Result<()> {
        self.rewind_to(&self.source)
    }

    pub(crate) fn rewind_to(&self, source: &RewindSource) -> anyhow::Result<()> {
        act(
            &self.pair.alpha_desired,
            &Action::Rewind(Box::new(source.clone())),
        )
    }

    /// Refused with these words; alpha's copy is the primary's that it was, and nothing was made beside it.
    pub(crate) fn refuses(&self, source: &RewindSource, words: &str) -> anyhow::Error {
        let before = siblings(&self.pair.alpha);
        let error = self.rewind_to(source).expect_err(words);
        let said = format!("{error:#}");
        assert!(said.contains(words), "{said}");
        assert_eq!(siblings(&self.pair.alpha), before, "{said}");
        assert_eq!(self.state(), DataState::Primary, "{said}");
        error
    }

    pub(crate) fn state(&self) -> DataState {
        state(&self.pair.alpha_desired)
    }

    /// Fails with these words, and leaves the copy for nobody but a clone, which then succeeds.
    pub(crate) fn ends_in_a_copy(&self, source: &RewindSource, words: &str) {
        let said = format!("{:#}", self.rewind_to(source).expect_err(words));
        assert!(said.contains(words) && said.contains("copied anew"), "{said}");
        assert_eq!(self.state(), DataState::Tainted, "{said}");
        self.copy_anew();
    }

    /// Copies it anew, as the planner would have it.
    pub(crate) fn copy_anew(&self) {
        let copy = CloneSource {
            peer: self.source.peer.clone(),
            programs: programs(),
            system_identifier: self.source.system_identifier.clone(),
            epoch: self.source.epoch,
            replaces: DataState::Tainted,
        };
        act(&self.pair.alpha_desired, &Action::Clone(Box::new(copy))).expect("clone");
        self.assert_follows();
    }

    /// Alpha's copy is a standby's that is trusted; started, it streams bravo's rows, and those alone.
    pub(crate) fn assert_follows(&self) {
        let (alpha, bravo, desired) = (&self.pair.alpha, &self.pair.bravo, &self.pair.alpha_desired);
        let observed = look(desired);
        let Fact::Known(data) = &observed.data.fact else {
            panic!("{:?}", observed.data.fact)
        };
        assert_eq!(data.state(), Data::Replica);
        let cluster = data.cluster().expect("a database");
        let sidecar = cluster.trusted_sidecar().expect("sidecar");
        assert_eq!(
            sidecar.epochs.last().map(|epoch| epoch.uuid),
            Some(self.source.epoch)
        );
        assert_eq!(sidecar.epochs.len(), 2);
        let current = Secret::There {
            passfile_current: true,
        };
        assert_eq!(observed.secret.fact, Fact::Known(current));
        for name in ["postmaster.pid", "recovery.signal", REPORT] {
            assert!(
                !desired.postgres.data_directory.join(name).as_std_path().exists(),
                "{name}"
            );
        }
        assert!(cluster.backup_label, "it begins where the histories part");
        for name in siblings(alpha) {
            assert!(
                ["data", "data.paceline.json", "data.paceline-lock"].contains(&name.as_str())
                    || name.starts_with("data.set-aside-"),
                "{name} was left"
            );
        }
        follow(desired, bravo.port);
        start(desired, true);
        eventually("streaming", || {
            alpha
                .try_sql("select status from pg_stat_wal_receiver")
                .as_deref()
                == Some("streaming")
        });
        bravo.sql("insert into riders values (3)");
        let rows = "select string_agg(bib::text, ',' order by bib) from riders";
        eventually("the same rows", || alpha.sql(rows) == bravo.sql(rows));
        assert_eq!(alpha.sql(rows), "2,3,7");
    }

    /// The one copy that was set aside, and its report.
    pub(crate) fn kept(&self) -> (PathBuf, Report) {
        let [kept] = &set_aside(&self.pair.alpha)[..] else {
            panic!("{:?}", siblings(&self.pair.alpha))
        };
        (kept.clone(), report(kept))
    }
}

/// What a laptop's copy is.
pub(crate) fn state(desired: &Desired) -> DataState {
    match look(desired).data.fact {
        Fact::Known(data) => data.state().state(),
        Fact::Unknown(why) => panic!("{why}"),
    }
}

/// The report of a copy that was set aside.
pub(crate) fn report(kept: &Path) -> Report {
    let text = fs::read_to_string(kept.join(REPORT)).expect("report");
    serde_json::from_str(&text).expect("JSON")
}

/// The configuration of a standby of the server on this port.
pub(crate) fn follow(desired: &Desired, port: u16) {
    let conninfo = format!(
        "host=127.0.0.1 port={port} user=replicator passfile={}",
        desired.replication_passfile()
    );
    let more = format!(
        "primary_conninfo = {}\nprimary_slot_name = '{SLOT}'\n",
        quote(&conninfo)
    );
    configure(desired, true, &more);
}

/// PostgreSQL's programs, with a shell script in place of one; `{real}` is the one that it stands for.
pub(crate) fn with_script(laptop: &common::Laptop, name: &str, script: &str) -> Utf8PathBuf {
    let directory = laptop.path("bin");
    drop(fs::remove_dir_all(&directory));
    fs::create_dir(&directory).expect("directory");
    for entry in fs::read_dir(bin_directory()).expect("programs") {
        let entry = entry.expect("entry");
        if entry.file_name() != name {
            symlink(entry.path(), directory.join(entry.file_name())).expect("link");
        }
    }
    let real = bin_directory().join(name);
    let text = format!("#!/bin/sh\n{script}\n").replace("{real}", &real.display().to_string());
    fs::write(directory.join(name), text).expect("write");
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).expect("mode");
    Utf8PathBuf::from_path_buf(directory).expect("UTF-8")
}
