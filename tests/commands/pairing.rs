//! `init` and `join`: two laptops get a state file each and the same secret, and nobody else gets to see it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::common::text;
use super::{Place, mode, ok, refused};

/// The line for the other laptop, and the code in it.
pub(super) fn line_of(said: &str) -> (String, String) {
    let line = said.lines().find(|line| line.contains(" <<< '")).expect("a line");
    let code = line.split('\'').nth(1).expect("a code");
    (line.trim().to_owned(), code.to_owned())
}

#[test]
fn init_writes_a_valid_file_a_secret_and_a_permission() {
    let place = Place::new();
    let said = ok(&place.run("init state.yaml --home home --node alpha"));
    assert!(said.contains("state.yaml (role: primary)"), "{said}");
    assert_eq!(place.names(), ["home", "state.yaml"]);
    assert_eq!(mode(&place.path("state.yaml")), 0o644);
    assert_eq!(mode(&place.path("home")), 0o755);
    assert_eq!(mode(&place.path("home/secrets")), 0o700);
    assert_eq!(mode(&place.path("home/secrets/replication")), 0o600);
    assert_eq!(mode(&place.path("home/new-database")), 0o644);
    assert_eq!(place.read("home/new-database"), "");
    let secret = place.read("home/secrets/replication");
    assert!(secret.trim_end().len() >= 32, "{secret}");

    let checked = ok(&place.run("check state.yaml"));
    assert!(checked.contains("alpha is declared primary"), "{checked}");
    let (line, code) = line_of(&said);
    assert!(line.starts_with("paceline join "), "{line}");
    assert!(code.starts_with(secret.trim_end()), "{code}");
    // The secret is on no command line, and in no file but its own.
    assert!(
        !line
            .split("<<<")
            .next()
            .expect("command")
            .contains(secret.trim_end())
    );
    assert!(!place.read("state.yaml").contains(secret.trim_end()));
}

#[test]
fn init_does_not_touch_what_is_there() {
    let place = Place::new();
    let first = ok(&place.run("init state.yaml --home home"));
    place.write("state.yaml", "role: standby # mine\n");
    refused(&place.run("init state.yaml --home home"), 1, "is there already");
    assert_eq!(place.read("state.yaml"), "role: standby # mine\n");

    // Without the state file the secret stays the same, and so does the line.
    fs::remove_file(place.path("state.yaml")).expect("remove");
    let second = ok(&place.run("init state.yaml --home home"));
    assert!(second.contains("kept the replication secret"), "{second}");
    assert_eq!(line_of(&first), line_of(&second));

    // A link that leads nowhere is somebody's, too.
    symlink("nowhere", place.path("link.yaml")).expect("link");
    refused(&place.run("init link.yaml --home home"), 1, "is there already");
    assert_eq!(place.names(), ["home", "link.yaml", "state.yaml"]);

    // A secret that others can read is none.
    fs::set_permissions(
        place.path("home/secrets/replication"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("mode");
    refused(&place.run("init other.yaml --home home"), 1, "others may read it");
    assert!(!place.path("other.yaml").exists());
}

#[test]
fn init_says_ports_and_addresses_where_they_are_not_the_usual_ones() {
    let place = Place::new();
    let said = ok(&place.run(
        "init state.yaml --home home --role standby --peer alpha.local --port 5433 --api-port 9000 --node bravo",
    ));
    let (line, _) = line_of(&said);
    assert!(
        line.contains(":5433 --api-port 9000 --role primary <<<"),
        "{line}"
    );
    // Nobody asked this one to make a database.
    assert!(!place.path("home/new-database").exists());
    let state = place.read("state.yaml");
    for words in [
        "\nrole: standby\n",
        "\npeer: alpha.local\n",
        "port: 5433",
        ":9000\"",
        "\nnode: bravo\n",
    ] {
        assert!(state.contains(words), "{state}");
    }
    ok(&place.run("check state.yaml"));
}

#[test]
fn init_allows_no_new_database_where_one_was() {
    let place = Place::new();
    fs::create_dir_all(place.path("home/data/base")).expect("directory");
    let said = ok(&place.run("init state.yaml --home home"));
    assert!(said.contains("did not allow a new, empty database"), "{said}");
    assert!(!place.path("home/new-database").exists());
}

#[test]
fn init_refuses_what_would_not_be_valid_or_safe() {
    let place = Place::new();
    refused(
        &place.run("init state.yaml --home home --node not/a/name"),
        1,
        "is not a name for a laptop",
    );
    refused(
        &place.run("init state.yaml --home home --peer 1.2.3"),
        1,
        "peer: ",
    );
    refused(
        &place.run("init a/b/state.yaml --home home"),
        1,
        "cannot make its directory",
    );
    assert!(!place.path("home/new-database").exists());
    let before = place.names();

    // A secret in a git working tree is pushed sooner or later; also through a link.
    fs::create_dir_all(place.path("project/.git")).expect("directory");
    symlink("project", place.path("link")).expect("link");
    for home in ["project/deep/home", "link/home"] {
        let stderr = refused(
            &place.run(&format!("init state.yaml --home {home}")),
            1,
            "git working tree",
        );
        assert!(stderr.contains("--home DIR"), "{stderr}");
    }
    fs::remove_file(place.path("link")).expect("remove");
    assert_eq!(fs::read_dir(place.path("project")).expect("read").count(), 1);
    fs::remove_dir_all(place.path("project")).expect("remove");
    assert_eq!(place.names(), before);
    // The state file itself may be in one.
    fs::create_dir_all(place.path("project/.git")).expect("directory");
    ok(&place.run("init project/state.yaml --home home"));
}

#[test]
fn init_writes_where_the_environment_says() {
    let place = Place::new();
    let output = place
        .command(&["init", "--home", "home"])
        .env("PACELINE_STATE", place.path("conf/of-mine.yaml"))
        .output()
        .expect("run");
    let said = ok(&output);
    assert!(said.contains("/conf/of-mine.yaml"), "{said}");
    ok(&place.run("check conf/of-mine.yaml"));
}

// ---- join ----------------------------------------------------------------------------------------------------------

#[test]
fn two_laptops_are_paired() {
    let place = Place::new();
    let said = ok(&place.run("init a.yaml --home a --node alpha --port 5433 --api-port 9000"));
    let (_, code) = line_of(&said);
    let joined = place.run_with(
        "join 10.99.0.1:5433 b.yaml --api-port 9000 --home b --node bravo --own-port 5444",
        &format!("{code}\n"),
    );
    let output = ok(&joined);
    assert_eq!(
        place.read("a/secrets/replication"),
        place.read("b/secrets/replication")
    );
    assert_eq!(mode(&place.path("b/secrets/replication")), 0o600);
    assert_eq!(mode(&place.path("b/secrets")), 0o700);
    assert!(!place.path("b/new-database").exists());
    for file in ["a.yaml", "b.yaml"] {
        ok(&place.run(&format!("check {file}")));
    }
    let state = place.read("b.yaml");
    assert!(state.contains("\nrole: standby\n"), "{state}");
    assert!(
        state.contains("\npeer: { host: 10.99.0.1, port: 5433, api_port: 9000 }\n"),
        "{state}"
    );
    // The line for the first laptop names this one, with its port; it is valid there.
    let line = output
        .lines()
        .find(|line| line.starts_with("  peer: "))
        .expect("a line");
    assert!(line.contains(":5444"), "{line}");
    if !line.contains("ADDRESS-OF-THIS-LAPTOP") {
        place.write("a.yaml", &format!("{}{}\n", place.read("a.yaml"), line.trim()));
        // The two are one laptop here, with different ports.
        ok(&place.run("check a.yaml"));
    }
    // The secret is told to nobody.
    let secret = place.read("b/secrets/replication");
    for said in [&joined.stdout, &joined.stderr] {
        assert!(!text(said).contains(secret.trim_end()));
    }
}

#[test]
fn the_printed_line_works_in_a_shell() {
    if !Path::new("/bin/bash").exists() {
        skip!("there is no bash");
    }
    let place = Place::new();
    let said = ok(&place.run("init a.yaml --home a --node alpha --peer 10.99.0.2"));
    let (line, _) = line_of(&said);
    // The address would be this very laptop.
    let host = line.split(' ').nth(2).expect("host");
    let line = line.replace(host, "10.99.0.1 b.yaml --home b");
    fs::create_dir(place.path("bin")).expect("directory");
    symlink(env!("CARGO_BIN_EXE_paceline"), place.path("bin/paceline")).expect("link");
    let mut bash = Command::new("/bin/bash");
    place.set_up(&mut bash).args(["-c", &line]);
    bash.env("PATH", format!("{}:/usr/bin:/bin", place.path("bin").display()));
    ok(&bash.output().expect("bash"));
    assert_eq!(
        place.read("a/secrets/replication"),
        place.read("b/secrets/replication")
    );
}

#[test]
fn a_mistyped_code_is_noticed_and_shown_nowhere() {
    let place = Place::new();
    let said = ok(&place.run("init a.yaml --home a"));
    let (_, code) = line_of(&said);
    let swapped: String = [&code[1..2], &code[..1], &code[2..]].concat();
    for wrong in [
        code[1..].to_owned(),
        format!("{code}0"),
        swapped,
        "hello".to_owned(),
    ] {
        if wrong == code {
            continue;
        }
        let output = place.run_with("join 10.99.0.1 b.yaml --home b", &wrong);
        let stderr = refused(&output, 1, "is mistyped");
        assert!(!stderr.contains(&wrong), "{stderr}");
    }
    let output = place.run("join 10.99.0.1 b.yaml --home b");
    refused(&output, 1, "there is no pairing code");
    assert!(!place.path("b").exists() && !place.path("b.yaml").exists());
}

#[test]
fn join_replaces_neither_a_secret_nor_a_state_file() {
    let place = Place::new();
    let said = ok(&place.run("init a.yaml --home a"));
    let (_, code) = line_of(&said);
    ok(&place.run_with("join 10.99.0.1 b.yaml --home b", &code));
    let (state, secret) = (place.read("b.yaml"), place.read("b/secrets/replication"));

    // Once more is no harm.
    let again = ok(&place.run_with("join 10.99.0.1 b.yaml", &code));
    assert!(
        again.contains("is this one already") && again.contains("left "),
        "{again}"
    );

    // Another laptop: the file is left, and the line that it needs is said.
    let other = place.run_with("join 10.99.0.9:5433 b.yaml", &code);
    assert_eq!(other.status.code(), Some(4), "{}", text(&other.stderr));
    let said = text(&other.stdout);
    assert!(
        said.contains("it names 10.99.0.1") && said.contains("  peer: \"10.99.0.9:5433\"\n"),
        "{said}"
    );

    // Options that the file contradicts are not lost in silence.
    refused(
        &place.run_with("join 10.99.0.1 b.yaml --home elsewhere", &code),
        1,
        "says otherwise: `home`",
    );

    // Another secret.
    let said = ok(&place.run("init c.yaml --home c"));
    let (_, other) = line_of(&said);
    let stderr = refused(
        &place.run_with("join 10.99.0.1 b.yaml", &other),
        1,
        "holds another replication secret",
    );
    assert!(stderr.contains("remove that file"), "{stderr}");

    // An invalid file is shown as such, before anybody types a code.
    place.write("broken.yaml", "role: standbye\n");
    refused(&place.run("join 10.99.0.1 broken.yaml"), 3, "broken.yaml:1:7");

    fs::create_dir_all(place.path("project/.git")).expect("directory");
    refused(
        &place.run("join 10.99.0.1 d.yaml --home project/home"),
        1,
        "git working tree",
    );
    assert_eq!(
        (place.read("b.yaml"), place.read("b/secrets/replication")),
        (state, secret)
    );
    assert!(!place.path("d.yaml").exists());
}

/// Starts `join` on a terminal and waits for its question.
fn at_the_prompt(place: &Place) -> (std::process::Child, nix::pty::OpenptyResult) {
    let terminal = openpty(None, None).expect("a terminal");
    let mut child = place
        .command(&["join", "10.99.0.1", "b.yaml", "--home", "b"])
        .stdin(terminal.slave.try_clone().expect("stdin"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let stderr = child.stderr.as_mut().expect("stderr");
    let mut said = Vec::new();
    while !said.ends_with(b"not shown here): ") {
        let mut byte = [0];
        assert_eq!(
            stderr.read(&mut byte).expect("read"),
            1,
            "no prompt: {}",
            text(&said)
        );
        said.push(byte[0]);
    }
    let flags = tcgetattr(&terminal.slave).expect("attributes").local_flags;
    assert!(!flags.contains(LocalFlags::ECHO));
    (child, terminal)
}

#[test]
fn a_code_that_is_typed_is_not_shown() {
    let place = Place::new();
    let said = ok(&place.run("init a.yaml --home a"));
    let (_, code) = line_of(&said);
    let (child, terminal) = at_the_prompt(&place);
    let mut keyboard = fs::File::from(terminal.master);
    writeln!(keyboard, "{code}").expect("type");
    ok(&child.wait_with_output().expect("wait"));
    assert_eq!(
        place.read("a/secrets/replication"),
        place.read("b/secrets/replication")
    );
    // Afterwards the terminal is as before, and nothing but the end of the line was seen on it.
    let flags = tcgetattr(&terminal.slave).expect("attributes").local_flags;
    assert!(flags.contains(LocalFlags::ECHO));
    drop(terminal.slave);
    let mut seen = Vec::new();
    // A terminal without its other end says so with an error, not with an end of file.
    drop(keyboard.read_to_end(&mut seen));
    assert_eq!(text(&seen).trim(), "");
}

#[test]
fn a_person_who_gives_up_gets_the_terminal_back() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let place = Place::new();
        let (child, terminal) = at_the_prompt(&place);
        kill(Pid::from_raw(i32::try_from(child.id()).expect("pid")), signal).expect("signal");
        let output = child.wait_with_output().expect("wait");
        assert_eq!(
            output.status.code(),
            Some(1),
            "{signal}: {}",
            text(&output.stderr)
        );
        let flags = tcgetattr(&terminal.slave).expect("attributes").local_flags;
        assert!(flags.contains(LocalFlags::ECHO), "{signal}");
        assert!(place.names().is_empty());
    }
}
