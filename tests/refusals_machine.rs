//! What Paceline refuses about the laptop around the database: disks, ports, programs, users, files. One clear message
//! with what to do, nothing lost, and once a person has done it, it goes on by itself. Real daemon, real server.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{As, Laptop, bin_directory, root, text};

const DATABASE: &str = "  database: { name: racedb, owner: racedb, password_file: secret }\n";

/// A file system of its own, unmounted at the end whatever the test did.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).expect("mount point");
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", show(path)]);
        Self(path.to_owned())
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), show(&self.0)]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server may still be on it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn show(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// `plan` and `apply` end with this code and say this; the daemon, too, if it is `blocked`.
fn refused(laptop: &Laptop, code: i32, words: &[&str]) {
    for command in ["plan", "apply"] {
        let output = laptop.run(&[command]);
        let said = text(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command}: {said}{}",
            text(&output.stderr)
        );
        for word in words {
            assert!(said.contains(word), "{command}: {word}: {said}");
        }
    }
    assert!(!laptop.data().exists());
}

/// The disk is full before there is a database: numbers, no half of one, and room makes it go on.
#[test]
fn no_room_for_a_new_database() {
    if !root() {
        skip!("only root mounts");
    }
    let mut laptop = Laptop::primary("  data_directory: disk/data\n");
    let disk = Disk::mount(&laptop.path("disk"), "size=20m,mode=755");
    let applied = laptop.run(&["apply"]);
    assert_eq!(applied.status.code(), Some(1), "{}", text(&applied.stdout));
    let said = text(&applied.stdout);
    assert!(
        said.contains("there are only 19 MB free at") && said.contains("a new database takes 96 MB"),
        "{said}"
    );
    assert!(said.contains("hint: free some space"), "{said}");
    laptop.start();
    laptop.wait_reason("failed", "there are only 19 MB free");
    laptop.wait_gate("closed");
    assert!(!disk.0.join("data").exists() && !disk.0.join("data.paceline-initdb").exists());
    disk.remount("size=300m");
    laptop.wait_serving();
    laptop.stop();
}

/// The disk gets full while initdb works (here: of files): its words, and what it left is removed.
#[test]
fn the_disk_gets_full_under_initdb() {
    if !root() {
        skip!("only root mounts");
    }
    let mut laptop = Laptop::primary("  data_directory: disk/data\n");
    let disk = Disk::mount(&laptop.path("disk"), "size=300m,nr_inodes=200,mode=755");
    laptop.start();
    laptop.wait_reason("failed", "No space left on device");
    assert!(!disk.0.join("data").exists() && !disk.0.join("data.paceline-initdb").exists());
    disk.remount("nr_inodes=100000");
    laptop.wait_serving();
    assert!(!disk.0.join("data.paceline-initdb").exists());
    laptop.stop();
}

/// A disk mounted at the data directory itself cannot be renamed (POSTGRES-FACTS 40).
#[test]
fn a_data_directory_that_is_a_mount_point() {
    if !root() {
        skip!("only root mounts");
    }
    let laptop = Laptop::primary("");
    let disk = Disk::mount(&laptop.data(), "size=300m");
    let planned = laptop.run(&["plan"]);
    let said = text(&planned.stdout);
    assert_eq!(planned.status.code(), Some(5), "{said}");
    assert!(
        said.contains("is a mount point") && said.contains(&format!("such as {}/data", disk.0.display())),
        "{said}"
    );
    let mut laptop = laptop.started();
    laptop.wait_reason("blocked", "is a mount point");
    assert_eq!(fs::read_dir(&disk.0).expect("list").count(), 0);
    drop(disk);
    laptop.wait_serving();
    laptop.stop();
}

/// A link to a bigger disk: a new directory cannot be renamed onto it. Either it works or a person is told; initdb is not
/// run again and again.
#[test]
fn a_data_directory_that_is_a_link() {
    let mut laptop = Laptop::primary("");
    fs::create_dir_all(laptop.path("home")).expect("home");
    fs::create_dir(laptop.path("big")).expect("directory");
    std::os::unix::fs::symlink(laptop.path("big"), laptop.data()).expect("link");
    laptop.start();
    let status = laptop.wait("an end", |status| {
        ["converged", "blocked", "failed"].contains(&status["plan"]["state"].as_str().unwrap_or_default())
    });
    let plan = &status["plan"];
    let told = plan["state"] == "blocked"
        && plan["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("link"));
    assert!(told || plan["state"] == "converged", "{status:#}");
    assert!(!laptop.path("home/data.paceline-initdb").exists());
}

/// Another program has the port: PostgreSQL alone would say so in its log only.
#[test]
fn the_port_is_in_use() {
    let mut laptop = Laptop::primary("");
    let program = TcpListener::bind(("127.0.0.1", laptop.port)).expect("listen");
    laptop.start();
    let (reason, hint) = laptop.wait_reason("failed", "is in use by");
    assert!(
        reason.contains(&format!("port {} on 127.0.0.1", laptop.port)),
        "{reason}"
    );
    assert!(
        reason.contains(&format!("(process {})", std::process::id())),
        "{reason}"
    );
    assert!(hint.contains("`postgres: port:`"), "{hint}");
    laptop.wait_gate("closed");
    let applied = Laptop::primary("");
    applied.write_state(&Laptop::primary_yaml("").replace("{port}", &laptop.port.to_string()));
    let output = applied.run(&["apply"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(
        text(&output.stdout).contains("hint: stop that program"),
        "{}",
        text(&output.stdout)
    );
    drop(program);
    laptop.wait_serving();
}

#[test]
fn no_programs() {
    let mut laptop = Laptop::primary("  bin_directory: programs\n");
    fs::create_dir(laptop.path("programs")).expect("directory");
    let place = laptop.path("programs");
    let words = [
        "no PostgreSQL server programs were found in",
        show(&place),
        "hint: correct `postgres: bin_directory:`",
    ];
    refused(&laptop, 5, &words);
    laptop.start();
    laptop.wait_reason("blocked", words[0]);
    fs::remove_dir(&place).expect("remove");
    std::os::unix::fs::symlink(bin_directory(), &place).expect("link");
    laptop.wait_serving();
}

#[test]
fn a_user_that_does_not_exist() {
    let laptop = Laptop::primary("  os_user: postgers\n");
    refused(
        &laptop,
        5,
        &[
            "the server's user \"postgers\" does not exist",
            "hint: install PostgreSQL's server package, or set `postgres: os_user:`",
        ],
    );
    let mut laptop = laptop.started();
    laptop.wait_reason("blocked", "\"postgers\"");
    assert!(laptop.stop().success());
}

/// The first start with a typing error, and with more than the laptop has: the server's words, and the corrected file is
/// enough.
#[test]
fn a_setting_that_the_server_refuses() {
    for (value, state, words, hints) in [
        (
            "plenty",
            "blocked",
            "`postgres: settings: shared_buffers`",
            "in the state file",
        ),
        ("900GB", "failed", "does not start", "postgres.log"),
    ] {
        let laptop = Laptop::primary(&format!("  settings: {{ shared_buffers: {value} }}\n")).started();
        let (reason, hint) = laptop.wait_reason(state, words);
        assert!(hint.contains(hints), "{reason}; {hint}");
        laptop.wait_gate("closed");
        laptop.write_state(&Laptop::primary_yaml("  settings: { shared_buffers: 16MB }\n"));
        laptop.wait_serving();
        assert_eq!(laptop.sql("show shared_buffers"), "16MB");
    }
}

/// The application's password: never guessed, never read from a file that others can read.
#[test]
fn password_files() {
    let mut laptop = Laptop::primary(DATABASE);
    let secret = laptop.path("secret");
    laptop.start();
    let (reason, hint) = laptop.wait_reason("blocked", "there is no such file");
    assert!(
        reason.contains(show(&secret)) && hint.contains("mode 0600"),
        "{reason}; {hint}"
    );
    let planned = laptop.run(&["plan"]);
    assert_eq!(planned.status.code(), Some(5), "{}", text(&planned.stdout));

    fs::write(&secret, "open\n").expect("write");
    mode(&secret, 0o644);
    laptop.wait_reason("blocked", "its mode is 0644, so others may read it");
    fs::write(&secret, "").expect("write");
    mode(&secret, 0o600);
    laptop.wait_reason("blocked", "its first line is empty");
    assert_eq!(
        laptop.sql("select count(*) from pg_roles where rolname = 'racedb'"),
        "0"
    );
    fs::write(&secret, "closed\n").expect("write");
    laptop.wait_serving();
    assert_eq!(
        laptop.sql("select count(*) from pg_roles where rolname = 'racedb'"),
        "1"
    );
    // Changed later: the role gets it.
    fs::write(&secret, "another\n").expect("write");
    let before = laptop.sql("select rolpassword from pg_authid where rolname = 'racedb'");
    common::eventually("the new password", || {
        laptop.sql("select rolpassword from pg_authid where rolname = 'racedb'") != before
    });
}

#[test]
fn state_files_and_exit_codes() {
    let laptop = Laptop::new("rolle: primary\n");
    let code = |arguments: &[&str]| {
        let output = laptop.run(arguments);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for command in ["check", "plan", "apply"] {
        let (code, said) = code(&[command]);
        assert_eq!(code, Some(3), "{said}");
        assert!(
            said.contains("state.yaml:1:1") && said.contains("did you mean \"role\"?"),
            "{said}"
        );
    }
    fs::remove_file(laptop.state_file()).expect("remove");
    for command in ["check", "plan", "apply"] {
        let (code, said) = code(&[command]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(show(&laptop.state_file())), "{said}");
    }
    for wrong in [&["chekc"][..], &["check", "--nod"], &["plan", "one", "two"]] {
        let (code, said) = code(wrong);
        assert_eq!(code, Some(2), "{said}");
    }
    laptop.write_state(&format!(
        "{}archive: {{ directory: /media/usb }}\n",
        Laptop::primary_yaml("")
    ));
    let (code, said) = code(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("valid: alpha is declared primary") && said.contains("`archive` is not supported yet"),
        "{said}"
    );
    assert!(!laptop.path("home").exists(), "nothing was made");
}

/// An ordinary user, and a home that is root's.
#[test]
fn a_home_that_cannot_be_written() {
    if !root() {
        skip!("only root makes directories that its daemon cannot write");
    }
    for home in ["closed/home", "closed"] {
        let yaml = Laptop::primary_yaml("").replace("home: home", &format!("home: {home}"));
        let laptop = Laptop::with(
            As::Postgres,
            &yaml.replace("postgres:\n", "postgres:\n  os_user: postgres\n"),
        );
        fs::create_dir(laptop.path("closed")).expect("directory");
        for command in ["run", "apply"] {
            let output = laptop.run(&[command]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command}: {said}");
            assert!(
                said.contains("ermission denied") && said.contains(show(&laptop.path(home))),
                "{said}"
            );
            assert!(
                said.contains("hint: run Paceline as root, or set `home:`"),
                "{said}"
            );
        }
        assert_eq!(fs::read_dir(laptop.path("closed")).expect("list").count(), 0);
    }
}

/// The status cannot be served: the event goes on without it.
#[test]
fn the_interfaces_port_is_in_use() {
    let mut laptop = Laptop::primary("");
    let program = TcpListener::bind(("127.0.0.1", laptop.api)).expect("listen");
    laptop.launch();
    laptop.wait_log("plan: converged");
    assert_eq!(laptop.sql("select 1"), "1");
    let said = laptop.log();
    let said: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("cannot serve the status"))
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains(&format!("(process {})", std::process::id())) && said[0].contains("`api: listen:`"),
        "{said:?}"
    );
    drop(program);
    laptop.wait_log("status is served");
    laptop.wait_serving();
    assert_eq!(laptop.log().matches("cannot serve the status").count(), 1);
}
