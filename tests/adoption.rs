//! A database that Paceline did not make: taken over, its data untouched. Real daemon, real servers.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use common::{
    Laptop, bin_directory, crash_server, give, port, postgres, postmaster_of, root, stop_server, text,
};

/// Debian's own access rules.
const DEBIAN_HBA: &str = "local   all   postgres   peer\nlocal   all   all   peer\n\
    host   all   all   127.0.0.1/32   scram-sha-256\n";

/// Runs one of PostgreSQL's programs as the server's user.
fn tool(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(bin_directory().join(program));
    command.args(arguments).current_dir("/").env_clear();
    if root() {
        let user = postgres();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let output = command.output().expect(program);
    assert!(output.status.success(), "{program}: {}", text(&output.stderr));
    output
}

/// A cluster that somebody made with initdb, as one does by hand.
struct Old {
    laptop: Laptop,
    data: PathBuf,
    /// Where its server listens while somebody runs it by hand.
    port: u16,
}

impl Old {
    /// `more` goes below `postgres:` of the state file.
    fn new(more: &str) -> Self {
        Self::at("old", more)
    }

    fn at(name: &str, more: &str) -> Self {
        let laptop = Laptop::primary(&format!("  data_directory: \"{name}\"\n{more}"));
        let old = Self {
            data: laptop.path(name),
            port: port(),
            laptop,
        };
        fs::create_dir_all(&old.data).expect("data directory");
        fs::create_dir(old.laptop.path("sockets")).expect("sockets");
        give(&old.data);
        give(&old.laptop.path("sockets"));
        let data = old.data.to_str().expect("UTF-8");
        tool("initdb", &["-N", "-U", "postgres", "-A", "trust", "-D", data]);
        old
    }

    /// Starts its server by hand; gives its process id.
    fn by_hand(&self, more: &str) -> i32 {
        let sockets = self.laptop.path("sockets");
        let options = format!(
            "-p {} -k '{}' -c listen_addresses='' {more}",
            self.port,
            sockets.display()
        );
        let (data, log) = (self.data.to_str().expect("UTF-8"), sockets.join("log"));
        let log = log.to_str().expect("UTF-8");
        tool("pg_ctl", &["start", "-w", "-D", data, "-l", log, "-o", &options]);
        postmaster_of(&self.data).expect("a server")
    }

    /// SQL in the server that was started by hand.
    fn sql(&self, sql: &str) -> String {
        let (sockets, port) = (self.laptop.path("sockets"), self.port.to_string());
        let arguments = [
            "-XAtq",
            "-h",
            sockets.to_str().expect("UTF-8"),
            "-p",
            &port,
            "-U",
            "postgres",
            "-c",
            sql,
        ];
        text(&tool("psql", &arguments).stdout).trim().to_owned()
    }

    /// Runs its server by hand once, for this SQL.
    fn lived(self, sql: &str) -> Self {
        self.by_hand("");
        // One by one: some statements want no transaction around them.
        for statement in sql.split("; ") {
            self.sql(statement);
        }
        stop_server(&self.data);
        self
    }

    fn append(&self, name: &str, lines: &str) {
        let path = self.data.join(name);
        let before = fs::read_to_string(&path).expect("read");
        fs::write(path, before + lines).expect("write");
    }

    fn sidecar_path(&self) -> PathBuf {
        PathBuf::from(format!("{}.paceline.json", self.data.display()))
    }

    fn sidecar(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.sidecar_path()).expect("sidecar")).expect("JSON")
    }
}

const RIDERS: &str = "create table riders (bib int); insert into riders values (1), (2), (3)";

/// What the data directory holds that is not the server's to write.
fn untouched(data: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    [
        "postgresql.conf",
        "pg_hba.conf",
        "pg_ident.conf",
        "postgresql.auto.conf",
        "PG_VERSION",
    ]
    .iter()
    .map(|name| {
        let path = data.join(name);
        let modified = fs::metadata(&path).and_then(|meta| meta.modified()).expect(name);
        ((*name).to_owned(), fs::read(path).expect(name), modified)
    })
    .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("postmaster."))
        .collect();
    names.sort();
    names
}

fn adopted(crashed: bool) {
    let old = Old::at("old data", "");
    old.append("postgresql.conf", "work_mem = 7MB\nport = 1\nfsync = off\n");
    old.append("pg_hba.conf", "host all all 10.9.8.0/24 md5\n");
    old.by_hand("");
    old.sql(RIDERS);
    if crashed {
        crash_server(&old.data);
    } else {
        stop_server(&old.data);
    }
    let (before, entries) = (untouched(&old.data), names(&old.data));

    let planned = old.laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(4), "{}", text(&planned.stderr));
    assert!(
        text(&planned.stdout).starts_with("1. adopt the existing database (its data is not touched)"),
        "{}",
        text(&planned.stdout)
    );
    assert!(!old.sidecar_path().exists(), "plan must change nothing");

    let mut old = old;
    old.laptop.start();
    let status = old.laptop.wait_serving();
    assert_eq!(status["data"]["state"], "primary");
    assert_eq!(old.laptop.sql("select count(*) from riders"), "3");
    let sidecar = old.sidecar();
    assert_eq!(sidecar["origin"]["kind"], "adopted");
    assert_eq!(sidecar["intended"], serde_json::Value::Null);
    assert_eq!(
        old.laptop
            .sql("select string_agg(uuid::text, ',') from paceline.epoch"),
        sidecar["epochs"][0]["uuid"].as_str().expect("uuid")
    );
    // Its own setting counts, except where Paceline depends on another.
    assert_eq!(
        old.laptop
            .sql("select current_setting('work_mem'), current_setting('fsync'), current_setting('port')"),
        format!("7MB|on|{}", old.laptop.port)
    );
    // Its access rules are kept, after the line without which Paceline could not work.
    let hba = fs::read_to_string(old.laptop.path("home/conf/pg_hba.conf")).expect("pg_hba.conf");
    let at = |words: &str| {
        hba.find(words)
            .unwrap_or_else(|| panic!("{words} is not in {hba}"))
    };
    assert!(
        at("local all postgres peer map=paceline") < at("host all all 10.9.8.0/24 md5"),
        "{hba}"
    );
    assert_eq!(
        old.laptop
            .sql("select count(*) from pg_hba_file_rules where error is not null"),
        "0"
    );
    assert!(
        old.laptop.log().contains("adopted an existing database"),
        "{}",
        old.laptop.log()
    );

    assert!(old.laptop.stop().success());
    assert_eq!(untouched(&old.data), before);
    assert_eq!(names(&old.data), entries);
}

/// A crew has run its database for years and now installs Paceline beside it.
#[test]
fn a_cluster_that_was_shut_down_is_adopted() {
    adopted(false);
}

/// The same, and the laptop had lost its power before.
#[test]
fn a_cluster_that_crashed_is_adopted() {
    adopted(true);
}

/// A cluster in Debian's layout: the configuration lies outside the data directory.
fn debian() -> Old {
    let old = Old::at("lib/15/race", "  database: { name: racedb, owner: racedb }\n");
    let etc = old.laptop.path("etc");
    fs::create_dir_all(etc.join("conf.d")).expect("conf.d");
    let show = |path: &Path| path.display().to_string();
    let conf = format!(
        "data_directory = '{}'\t# use data in another directory\nhba_file = '{}'\nident_file = '{}'\n\
         external_pid_file = '{}'\nport = 5432\ninclude_dir = 'conf.d'\n",
        show(&old.data),
        show(&etc.join("pg_hba.conf")),
        show(&etc.join("pg_ident.conf")),
        show(&old.laptop.path("sockets/main.pid")),
    );
    fs::write(etc.join("postgresql.conf"), conf).expect("write");
    fs::write(
        etc.join("pg_hba.conf"),
        format!("{DEBIAN_HBA}host all all 10.9.8.0/24 md5\n"),
    )
    .expect("write");
    fs::write(etc.join("pg_ident.conf"), "old smith jones\n").expect("write");
    fs::write(etc.join("conf.d/race.conf"), "work_mem = '9MB'\n").expect("write");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::remove_file(old.data.join(name)).expect("remove");
    }
    // As Debian's pg_ctlcluster does it; its access rule is `peer`, so rows are made under another.
    let trust = old.laptop.path("sockets/hba");
    fs::write(&trust, "local all all trust\n").expect("write");
    old.by_hand(&format!(
        "-c config_file='{}' -c hba_file='{}'",
        show(&etc.join("postgresql.conf")),
        show(&trust)
    ));
    old.sql(RIDERS);
    stop_server(&old.data);
    old
}

/// Debian keeps a cluster's configuration in /etc, found again by what its last start was told. Debian's pg_hba.conf
/// lets local users in by `peer` only; the application's role must get in by its password all the same.
#[test]
fn a_cluster_in_debians_layout_is_adopted() {
    let mut old = debian();
    let before = fs::read(old.laptop.path("etc/pg_hba.conf")).expect("read");
    old.laptop.start();
    old.laptop.wait_serving();
    assert_eq!(old.laptop.sql("select count(*) from riders"), "3");
    assert_eq!(old.laptop.sql("show work_mem"), "9MB");
    assert_eq!(old.laptop.sql("show port"), old.laptop.port.to_string());
    let own = old.sidecar()["origin"].clone();
    assert_eq!(
        own["config_file"],
        old.laptop.path("etc/postgresql.conf").to_str().expect("UTF-8")
    );
    assert_eq!(
        own["hba_file"],
        old.laptop.path("etc/pg_hba.conf").to_str().expect("UTF-8")
    );
    let read = |name: &str| fs::read_to_string(old.laptop.path(name)).expect("read");
    assert!(read("home/conf/pg_hba.conf").contains("host all all 10.9.8.0/24 md5"));
    assert!(read("home/conf/pg_ident.conf").contains("old smith jones"));
    assert!(!old.data.join("postgresql.conf").exists());
    assert_eq!(
        fs::read(old.laptop.path("etc/pg_hba.conf")).expect("read"),
        before
    );
}

/// Debian's place for the configuration of `.../15/main` is asked only for the cluster that it names: a copy on another
/// disk whose path happens to end alike is not that one, and must not run with a stranger's settings.
#[test]
fn the_configuration_of_another_cluster_is_not_taken() {
    let version = bin_directory()
        .parent()
        .expect("parent")
        .file_name()
        .expect("version")
        .to_owned();
    let name = format!("copy/{}/main", version.display());
    // Only what is adopted matters: the port is taken, so that no server starts.
    let mut old = Old::at(&name, "");
    let _program = TcpListener::bind(("127.0.0.1", old.laptop.port)).expect("listen");
    old.laptop.start();
    old.laptop.wait_reason("failed", "is in use by");
    let own = old.sidecar()["origin"].clone();
    assert_eq!(
        own["config_file"],
        old.data.join("postgresql.conf").to_str().expect("UTF-8")
    );
    assert_eq!(
        own["hba_file"],
        old.data.join("pg_hba.conf").to_str().expect("UTF-8")
    );
}

/// Somebody tidies up and deletes the note beside the data directory. It comes back, and the adopted cluster's own
/// configuration is still found although its last start was ours.
#[test]
fn the_own_configuration_survives_the_loss_of_the_sidecar() {
    let mut old = debian();
    // Not what this test is about.
    fs::write(
        old.laptop.path("etc/pg_hba.conf"),
        "local all all scram-sha-256\nhost all all 10.9.8.0/24 md5\n",
    )
    .expect("write");
    old.laptop.start();
    let epochs = old.laptop.wait_serving()["data"]["epochs"].clone();
    assert!(old.laptop.stop().success());
    fs::remove_file(old.sidecar_path()).expect("remove");
    old.laptop.start();
    assert_eq!(old.laptop.wait_serving()["data"]["epochs"], epochs);
    assert_eq!(old.laptop.sql("show work_mem"), "9MB");
    assert_eq!(
        old.laptop
            .sql("select count(*) from pg_hba_file_rules where address = '10.9.8.0'"),
        "1"
    );
}

/// `ALTER SYSTEM` writes postgresql.auto.conf, which beats every other file (POSTGRES-FACTS 20): a stale
/// `primary_conninfo` or `port` there makes a server that nobody finds.
#[test]
fn alter_system_does_not_win_over_the_state_file() {
    let mut old = Old::new("  settings: { maintenance_work_mem: 33MB }\n").lived(
        "alter system set port = 1; alter system set primary_conninfo = 'host=10.0.0.1'; \
         alter system set work_mem = '11MB'; alter system set maintenance_work_mem = '22MB'; \
         alter system set application_name = 'it''s # port = 3'",
    );
    let auto = || fs::read_to_string(old.data.join("postgresql.auto.conf")).expect("read");
    let kept: String = auto()
        .split_inclusive('\n')
        .filter(|line| {
            !["port", "primary_conninfo", "maintenance_work_mem"]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .collect();
    assert_eq!(kept.lines().count(), 4, "{kept}");
    let planned = old.laptop.run(&["plan"]);
    assert!(
        text(&planned.stdout)
            .contains("remove maintenance_work_mem, port, primary_conninfo from postgresql.auto.conf"),
        "{}",
        text(&planned.stdout)
    );
    old.laptop.start();
    old.laptop.wait_serving();
    assert_eq!(
        fs::read_to_string(old.data.join("postgresql.auto.conf")).expect("read"),
        kept
    );
    assert_eq!(
        old.laptop.sql("select current_setting('port'), current_setting('work_mem'), current_setting('maintenance_work_mem')"),
        format!("{}|11MB|33MB", old.laptop.port)
    );
}

/// An adopted server in which the application's role and database are there already, made by somebody else.
fn with_role(more: &str) -> Old {
    let old = Old::new(more);
    fs::write(
        old.data.join("pg_hba.conf"),
        "local all postgres trust\nlocal all all scram-sha-256\n",
    )
    .expect("write");
    let old = old.lived("create role racedb login password 'of-long-ago'");
    old.lived("create database racedb")
}

const PASSWORD: &str = "select rolpassword from pg_authid where rolname = 'racedb'";
const OWNER: &str = "select pg_get_userbyid(datdba) from pg_database where datname = 'racedb'";

/// Another program may log in with the role's password: nobody changes it without being told to.
#[test]
fn a_password_that_is_not_known_is_not_changed() {
    let mut old = with_role("  database: { name: racedb, owner: racedb }\n");
    old.laptop.start();
    let (reason, hint) = old
        .laptop
        .wait_reason("blocked", "the role \"racedb\" exists already");
    let path = old.laptop.path("home/secrets/racedb");
    assert!(
        reason.contains(path.to_str().expect("UTF-8")) && hint.contains("password_file"),
        "{reason}; {hint}"
    );
    let before = old.laptop.sql(PASSWORD);
    assert!(before.starts_with("SCRAM"), "{before}");
    let planned = old.laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(5), "{}", text(&planned.stdout));
    assert_eq!(old.laptop.sql(OWNER), "postgres");

    fs::create_dir_all(path.parent().expect("parent")).expect("directory");
    fs::write(path.with_extension("new"), "of-long-ago\n").expect("write");
    private(&path.with_extension("new"));
    fs::rename(path.with_extension("new"), &path).expect("rename");
    old.laptop.wait_serving();
    assert_eq!(old.laptop.sql(PASSWORD), before);
    assert_eq!(old.laptop.sql(OWNER), "racedb");
}

/// A declared password file is the order to set that password; and the database goes to the declared owner.
#[test]
fn a_declared_password_is_set() {
    let mut old = with_role("  database: { name: racedb, owner: racedb, password_file: secret }\n");
    fs::write(old.laptop.path("secret"), "brand new: \\'\"\n").expect("write");
    private(&old.laptop.path("secret"));
    old.laptop.start();
    old.laptop.wait_serving();
    assert_eq!(old.laptop.sql(OWNER), "racedb");
    let passfile = old.laptop.path("pgpass");
    fs::write(&passfile, "*:*:*:*:brand new\\: \\\\'\"\n").expect("write");
    private(&passfile);
    let output = old
        .laptop
        .psql("racedb", "racedb", "select current_user", Some(&passfile));
    assert_eq!(text(&output.stdout), "racedb\n", "{}", text(&output.stderr));
    assert!(!old.laptop.log().contains("brand new"));
    let server = fs::read_to_string(old.laptop.path("home/log/postgres.log")).expect("log");
    assert!(!server.contains("brand new"));
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
}

/// A server that somebody else runs (a service that starts at boot, an old script) is that somebody's to stop.
#[test]
fn a_server_that_somebody_else_runs_is_left_alone() {
    let mut old = Old::new("").lived(RIDERS);
    let pid = old.by_hand("");
    let planned = old.laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(5), "{}", text(&planned.stdout));
    assert!(
        text(&planned.stdout).contains(&format!("process {pid}, ")),
        "{}",
        text(&planned.stdout)
    );
    let applied = old.laptop.run(&["apply"]);
    assert_eq!(applied.status.code(), Some(5), "{}", text(&applied.stdout));

    old.laptop.start();
    let (reason, hint) = old
        .laptop
        .wait_reason("blocked", "a server that Paceline did not start");
    assert!(
        reason.contains(&pid.to_string()) && hint.contains("Paceline then starts it"),
        "{reason}; {hint}"
    );
    let status = old.laptop.wait_gate("closed");
    assert_eq!(
        status["plan"]["actions"].as_array().map(Vec::len),
        Some(0),
        "{status:#}"
    );
    assert_eq!(
        (postmaster_of(&old.data), old.sql("select count(*) from riders")),
        (Some(pid), "3".to_owned())
    );
    assert!(!old.sidecar_path().exists());
    // A daemon that ends leaves it alone, too.
    assert!(old.laptop.stop().success());
    assert_eq!(postmaster_of(&old.data), Some(pid));

    old.laptop.start();
    old.laptop.wait_plan("blocked");
    stop_server(&old.data);
    old.laptop.wait_serving();
    assert_eq!(old.laptop.sql("select count(*) from riders"), "3");
}
