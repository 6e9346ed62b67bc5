//! The role as which the other laptop logs in, its slot, and the secret that both share: each effect by itself, on a real
//! server.

mod common;
#[path = "common/effects.rs"]
mod effects;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{Laptop, eventually, text};
use effects::{Pair, SLOT, act, configure, desired, files, look, need};
use paceline::desired::Desired;
use paceline::hint::hint_of;
use paceline::observed::{Fact, Login, Secret};
use paceline::plan::{Action, ConfigurationFiles, ReplicationNeed};

/// The role is made once, put right when somebody changed it, and never waits for a standby.
#[test]
fn the_replication_role_is_put_right() {
    let mut pair = Pair::new();
    let alpha = &pair.alpha;
    let facts = |desired: &Desired| match look(desired).replication.fact {
        Fact::Known(facts) => facts,
        Fact::Unknown(why) => panic!("{why}"),
    };
    let role_only = ReplicationNeed {
        create_slot: None,
        ..need()
    };
    let ensure = |desired: &Desired, need: &ReplicationNeed| {
        act(desired, &Action::EnsureReplication(Box::new(need.clone())))
    };
    let secret = alpha.path("home/secrets/replication");
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&secret), mode(secret.parent().expect("directory"))),
        (0o600, 0o700)
    );
    assert!(fs::read_to_string(&secret).expect("secret").trim().len() >= 32);
    let verifier = || alpha.sql("select rolpassword from pg_authid where rolname = 'replicator'");
    let before = verifier();
    assert!(before.starts_with("SCRAM-SHA-256$"));

    ensure(&pair.alpha_desired, &need()).expect("twice");
    assert_eq!(verifier(), before, "a password that works is left alone");
    assert_eq!(alpha.sql("select count(*) from pg_replication_slots"), "1");
    let seen = facts(&pair.alpha_desired);
    assert!(seen.role && seen.login == Login::Works);
    let slots: Vec<&str> = seen.slots.iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(slots, [SLOT]);
    assert!(!seen.slots[0].active && !seen.slots[0].lost);

    for change in [
        "alter role replicator noreplication",
        "alter role replicator nologin",
        "alter role replicator password 'another'",
        "alter role replicator valid until '2020-01-01'",
        "alter role replicator noinherit",
        "revoke pg_read_all_stats from replicator",
        "revoke select on paceline.epoch from replicator",
        "revoke usage on schema paceline from replicator",
        "revoke execute on function pg_read_binary_file(text) from replicator",
        "revoke connect on database postgres from public; revoke connect on database postgres from replicator",
        "drop owned by replicator; drop role replicator",
    ] {
        alpha.sql(change);
        let seen = facts(&pair.alpha_desired);
        assert!(!seen.role || seen.login != Login::Works, "{change}: {seen:?}");
        ensure(&pair.alpha_desired, &role_only).unwrap_or_else(|error| panic!("{change}: {error:#}"));
        let seen = facts(&pair.alpha_desired);
        assert!(seen.role && seen.login == Login::Works, "{change}: {seen:?}");
    }

    // What a rewind does as this role.
    let passfile = alpha.path("pass");
    fs::write(
        &passfile,
        format!("*:*:*:*:{}", fs::read_to_string(&secret).expect("secret")),
    )
    .expect("write");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("mode");
    let output = alpha.psql(
        "postgres",
        "replicator",
        "select count(*) from pg_ls_dir('.', true, false); select size from pg_stat_file('PG_VERSION', true); \
         select length(pg_read_binary_file('global/pg_control')); \
         select length(pg_read_binary_file('PG_VERSION', 0, 2, true)); select count(*) from paceline.epoch",
        Some(&passfile),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));

    // A standby that is declared synchronous and away: the role does not wait for it.
    alpha.sql("alter system set synchronous_standby_names = 'ghost'");
    alpha.sql("select pg_reload_conf()");
    eventually("loaded", || {
        alpha.sql("show synchronous_standby_names") == "ghost"
    });
    alpha.sql("set synchronous_commit = local; alter role replicator nologin");
    ensure(&pair.alpha_desired, &role_only).expect("no standby is waited for");
    alpha.sql("alter system reset synchronous_standby_names");
    alpha.sql("select pg_reload_conf()");

    // Slots of others are nobody's business.
    alpha.sql("select pg_create_physical_replication_slot('backup_tool')");
    let foreign = ReplicationNeed {
        role: false,
        create_slot: None,
        drop_slots: vec!["backup_tool".to_owned()],
    };
    assert!(ensure(&pair.alpha_desired, &foreign).is_err());
    assert_eq!(
        alpha.sql("select count(*) from pg_replication_slots where slot_name = 'backup_tool'"),
        "1"
    );

    // The password is lost here, and the other laptop has it: it is not changed behind its back.
    let before = verifier();
    fs::remove_file(&secret).expect("remove");
    assert_eq!(facts(&pair.alpha_desired).login, Login::NoPasswordFile);
    let error = ensure(&pair.alpha_desired, &role_only).expect_err("no password");
    assert!(
        format!("{error:#}").contains("has a password already"),
        "{error:#}"
    );
    assert!(hint_of(&error).is_some_and(|hint| hint.contains("paceline join")));
    assert!(!secret.exists() && verifier() == before);

    // Any name.
    pair.alpha_desired.replication.user = "we\"ird: 'na\\me".to_owned();
    configure(&pair.alpha_desired, false, "");
    pair.alpha.sql("select pg_reload_conf()");
    eventually("loaded", || {
        pair.alpha
            .sql("select count(*) from pg_hba_file_rules where error is null and 'we\"ird: ''na\\me' = any(user_name)")
            == "3"
    });
    ensure(&pair.alpha_desired, &role_only).expect("any name");
    let seen = facts(&pair.alpha_desired);
    assert!(seen.role && seen.login == Login::Works, "{seen:?}");
}

/// libpq ignores a passfile that others may read; one with another password is of no use either.
#[test]
fn the_passfile_is_written_and_looked_at() {
    let laptop = Laptop::new("role: standby\nnode: bravo\nhome: home\npeer: 192.0.2.1\n");
    let desired = desired(&laptop);
    let secret = || look(&desired).secret.fact;
    let there = |passfile_current| Fact::Known(Secret::There { passfile_current });
    assert_eq!(secret(), Fact::Known(Secret::Missing));
    fs::create_dir_all(laptop.path("home/secrets")).expect("directory");
    let file = laptop.path("home/secrets/replication");
    fs::write(&file, "a:b\\c\nrest\n").expect("write");
    assert!(matches!(secret(), Fact::Known(Secret::Bad(why)) if why.contains("chmod 0600")));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    assert_eq!(secret(), there(false));
    configure(&desired, true, "");
    assert_eq!(secret(), there(true));
    let passfile = laptop.path("home/conf/replication.pgpass");
    assert_eq!(
        fs::read_to_string(&passfile).expect("passfile"),
        "*:*:*:replicator:a\\:b\\\\c\n"
    );
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o640)).expect("mode");
    assert_eq!(secret(), there(false));
    configure(&desired, true, "");
    assert_eq!(secret(), there(true));
    fs::write(&file, "another\n").expect("write");
    assert_eq!(secret(), there(false));
    fs::write(&file, "\n").expect("write");
    assert!(matches!(secret(), Fact::Known(Secret::Bad(_))));
    fs::remove_file(&file).expect("remove");
    let files = ConfigurationFiles {
        passfile: true,
        ..files(&desired)
    };
    let error = act(&desired, &Action::WriteConfiguration(Box::new(files))).expect_err("no secret");
    assert!(
        hint_of(&error).is_some_and(|hint| hint.contains("paceline join")),
        "{error:#}"
    );
}
