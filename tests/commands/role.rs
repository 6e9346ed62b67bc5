//! `set role` and its short forms: one word of the state file changes, and nothing else about it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use super::common::{port, postgres, root, text};
use super::{Place, ok, refused};

#[test]
fn only_the_word_changes() {
    let place = Place::new();
    for (before, after) in [
        ("role: standby", "role: failover"),
        (
            "# ours\nrole:  standby   # é\nnode: b\n",
            "# ours\nrole:  failover   # é\nnode: b\n",
        ),
        (
            "\u{feff}node: b\r\nrole: \"standby\" # x\r\n",
            "\u{feff}node: b\r\nrole: \"failover\" # x\r\n",
        ),
        ("{\"role\": 'standby'}\n", "{\"role\": 'failover'}\n"),
    ] {
        place.write("state.yaml", before);
        let output = place.run("set role failover state.yaml");
        let said = ok(&output);
        assert!(
            said.ends_with("/state.yaml: role: standby -> failover\n") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(place.read("state.yaml"), after);
        assert_eq!(place.names(), ["state.yaml"]);
    }
    // The short forms, on the file that is found by itself.
    for word in ["standby", "primary", "failover"] {
        ok(&place.run(word));
        assert_eq!(place.read("state.yaml"), format!("{{\"role\": '{word}'}}\n"));
    }
}

#[test]
fn a_role_that_is_there_already_touches_nothing() {
    let place = Place::new();
    place.write("state.yaml", "role: standby\n");
    let facts = || {
        let meta = fs::metadata(place.path("state.yaml")).expect("metadata");
        (
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        )
    };
    let before = facts();
    let said = ok(&place.run("standby state.yaml"));
    assert!(said.contains("role is standby already"), "{said}");
    assert_eq!(facts(), before);
}

#[test]
fn links_stay_links() {
    let place = Place::new();
    fs::create_dir_all(place.path("v1")).expect("directory");
    fs::create_dir_all(place.path("conf")).expect("directory");
    place.write("v1/real.yaml", "role: standby\n");
    symlink("v1", place.path("current")).expect("link");
    symlink("../current/real.yaml", place.path("conf/state.yaml")).expect("link");
    symlink("conf/state.yaml", place.path("state.yaml")).expect("link");
    for (path, role) in [("state.yaml", "failover"), ("conf/state.yaml", "standby")] {
        ok(&place.run(&format!("{role} {path}")));
        assert_eq!(place.read("v1/real.yaml"), format!("role: {role}\n"));
        for link in ["state.yaml", "conf/state.yaml", "current"] {
            assert!(
                fs::symlink_metadata(place.path(link))
                    .expect("metadata")
                    .is_symlink(),
                "{link}"
            );
        }
    }
    assert!(
        !fs::symlink_metadata(place.path("v1/real.yaml"))
            .expect("metadata")
            .is_symlink()
    );
}

#[test]
fn a_profile_of_both_laptops_is_edited_in_the_own_entry() {
    let place = Place::new();
    for profile in [
        "nodes:\n  alpha: { role: primary, address: 10.99.0.1 } # a\n  bravo: {role: standby, address: 10.99.0.2}\n",
        "nodes:\n  alpha:\n    role: primary\n    address: 10.99.0.1\n  bravo:\n    address: 10.99.0.2\n    role: standby\n",
    ] {
        place.write("state.yaml", profile);
        let said = ok(&place.run("set role failover state.yaml --node bravo"));
        assert!(said.contains("nodes.bravo.role: standby -> failover"), "{said}");
        assert_eq!(place.read("state.yaml"), profile.replace("standby", "failover"));
        ok(&place.run("standby state.yaml --node alpha"));
        assert_eq!(
            place.read("state.yaml"),
            profile
                .replace("standby", "failover")
                .replace("primary", "standby")
        );
        refused(
            &place.run("primary state.yaml --node charlie"),
            3,
            "not among the laptops",
        );
    }
}

#[test]
fn mode_and_owner_stay() {
    let place = Place::new();
    place.write("state.yaml", "role: standby\n");
    let path = place.path("state.yaml");
    if root() {
        let user = postgres();
        nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).expect("chown");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).expect("mode");
    let before = fs::metadata(&path).expect("metadata");
    ok(&place.run("failover state.yaml"));
    let after = fs::metadata(&path).expect("metadata");
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (before.mode(), before.uid(), before.gid())
    );
    assert_ne!(after.ino(), before.ino(), "replaced, not written over");
}

#[test]
fn what_cannot_be_edited_is_left_alone() {
    let place = Place::new();
    for (state, role, code, words) in [
        ("role: standbye\n", "primary", 3, "did you mean"),
        ("node: b\n", "primary", 3, "the key \"role\" is missing"),
        ("role: &r standby\n", "primary", 3, "are not supported"),
        (
            "role: standby\nrole: primary\n",
            "primary",
            3,
            "stands here twice",
        ),
        ("role: standby\n", "recovery", 3, "would not be valid"),
        ("role: >-\n  standby\n", "primary", 1, "cannot be changed for you"),
    ] {
        place.write("state.yaml", state);
        refused(&place.run(&format!("set role {role} state.yaml")), code, words);
        assert_eq!(place.read("state.yaml"), state);
        assert_eq!(place.names(), ["state.yaml"]);
    }
    refused(&place.run("failover nowhere.yaml"), 3, "there is no such file");
    assert_eq!(place.run("set role boss state.yaml").status.code(), Some(2));
}

#[test]
fn a_closed_directory_does_not_keep_anybody_from_failing_over() {
    let place = Place::new();
    let conf = place.path("conf");
    let state = place.path("conf/state.yaml");
    fs::create_dir(&conf).expect("directory");
    fs::write(&state, "role: standby # ours\n").expect("write");
    let (open, closed) = (
        fs::Permissions::from_mode(0o755),
        fs::Permissions::from_mode(0o555),
    );
    if root() {
        let user = postgres();
        nix::unistd::chown(&state, Some(user.uid), Some(user.gid)).expect("chown");
    }
    let inode = fs::metadata(&state).expect("metadata").ino();
    fs::set_permissions(&conf, closed.clone()).expect("mode");
    let output = place.run_as_user("failover conf/state.yaml");
    ok(&output);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("was written over"), "{stderr}");
    assert_eq!(place.read("conf/state.yaml"), "role: failover # ours\n");
    assert_eq!(fs::metadata(&state).expect("metadata").ino(), inode);
    // And shorter again.
    ok(&place.run_as_user("primary conf/state.yaml"));
    assert_eq!(place.read("conf/state.yaml"), "role: primary # ours\n");

    // A file that is closed as well is left alone.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o444)).expect("mode");
    let output = place.run_as_user("failover conf/state.yaml");
    fs::set_permissions(&conf, open).expect("mode");
    refused(&output, 1, "the file is as it was");
    assert_eq!(place.read("conf/state.yaml"), "role: primary # ours\n");
}

#[test]
fn a_file_that_is_mounted_by_itself_is_written_over() {
    let place = Place::new();
    place.write("outside.yaml", "role: standby\n");
    place.write("state.yaml", "");
    let mut inside = Command::new("unshare");
    place.set_up(&mut inside);
    let script = format!(
        "mount --bind outside.yaml state.yaml || exit 99; exec {} failover state.yaml",
        env!("CARGO_BIN_EXE_paceline")
    );
    let output = inside.args(["-m", "sh", "-c", &script]).output();
    match output {
        Ok(output) if output.status.code() == Some(0) => {
            let stderr = text(&output.stderr);
            assert!(stderr.contains("mounted into this place by itself"), "{stderr}");
            assert_eq!(place.read("outside.yaml"), "role: failover\n");
            assert_eq!(place.names(), ["outside.yaml", "state.yaml"]);
        }
        Ok(output) if !text(&output.stderr).contains("error:") => {
            skip!("nothing can be mounted here: {}", text(&output.stderr))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_keeps_a_role_from_its_effect_is_said() {
    let place = Place::new();
    let api = port();
    let state = format!("role: standby\npaused: true\napi: {{ listen: \"127.0.0.1:{api}\" }}\n");
    place.write("state.yaml", &state);
    let output = place.run("failover state.yaml");
    ok(&output);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("paused: true"), "{stderr}");
    assert!(
        stderr.contains(&format!("no daemon answers at 127.0.0.1:{api}; start it with")),
        "{stderr}"
    );

    // Where one answers, nothing is said.
    let listener = std::net::TcpListener::bind(("127.0.0.1", api)).expect("listen");
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).expect("read") > 0);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).expect("answer");
    });
    place.write("state.yaml", &state.replace("paused: true\n", ""));
    let output = place.run("failover state.yaml");
    ok(&output);
    assert_eq!(text(&output.stderr), "");
    daemon.join().expect("daemon");
}
