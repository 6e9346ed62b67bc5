//! What `home` remembers.

use std::fs;

use camino::Utf8Path;
use paceline::desired::Role;
use paceline::lineage::Lsn;
use paceline::observed::{DataState, Fact, PeerMemory};
use paceline::peer::memory::read;
use serde_json::json;

use crate::fake::{Fake, Reply, document, good};
use crate::{Here, closed, link_of};

fn on_disk(here: &Here) -> Option<PeerMemory> {
    read(Utf8Path::from_path(here.directory.path()).expect("UTF-8")).expect("readable")
}

#[tokio::test]
async fn what_was_learned_is_on_disk_before_it_counts() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    assert_eq!(link.views.borrow().memory, Fact::Known(None));
    let view = link.answered().await;
    let memory = on_disk(&here).expect("on disk");
    assert_eq!(view.memory, Fact::Known(Some(memory.clone())));
    assert_eq!(memory.node.as_deref(), Some("bravo"));
    assert_eq!(memory.role, Some(Role::Primary));
    assert_eq!(memory.data, DataState::Primary);
    assert!(memory.writable);
    assert_eq!(Some(&memory.address), here.desired.peer.as_ref());

    // A flag: no view shows it that is not on disk.
    let mut news = document(2);
    news["plan"]["flag"] = json!("taking");
    fake.reply(Reply::Sealed(news, crate::PASSWORD));
    link.wait("the flag", |view| {
        let seen = link_of(view).answered.as_ref().and_then(|facts| facts.flag);
        assert!(seen.is_none() || on_disk(&here).is_some_and(|memory| memory.flag == seen));
        seen.is_some()
    })
    .await;

    // A position alone is not written each time; what could not be told erases nothing.
    let mut moved = document(3);
    moved["plan"]["flag"] = json!("taking");
    moved["data"]["lineage"]["position"] = json!("0/9");
    fake.reply(Reply::Sealed(moved, crate::PASSWORD));
    let position = |view: &paceline::peer::View| {
        let facts = link_of(view).answered.clone().expect("answered");
        facts.lineage.and_then(|lineage| lineage.position)
    };
    link.wait("the position", |view| position(view) == Some(Lsn(9)))
        .await;
    let before = on_disk(&here).and_then(|memory| memory.lineage);
    assert_eq!(before.as_ref().and_then(|lineage| lineage.position), Some(Lsn(5)));
    let mut blind = document(4);
    blind["data"]["lineage"] = json!(null);
    blind["data"]["state"] = json!("unknown");
    fake.reply(Reply::Sealed(blind, crate::PASSWORD));
    link.wait("no lineage", |view| position(view).is_none()).await;
    let memory = on_disk(&here).expect("on disk");
    assert_eq!(memory.data, DataState::Unknown);
    assert_eq!(
        memory.lineage.and_then(|lineage| lineage.position),
        Some(Lsn(9)),
        "the last that was known"
    );
}

#[tokio::test]
async fn it_is_kept_over_a_restart_and_over_a_file_that_names_nobody() {
    let fake = Fake::new(good(1)).await;
    let mut here = Here::new(fake.port, closed());
    here.follow().answered().await;
    let memory = on_disk(&here).expect("on disk");

    // The file no longer names it: it is still asked, and known at once.
    here.declare(|desired| desired.peer = None);
    let mut link = here.follow();
    assert_eq!(link.views.borrow().memory, Fact::Known(Some(memory)));
    link.answered().await;

    // Forgotten: nobody is asked any more.
    fs::remove_file(here.memory_file()).expect("remove");
    link.handle.ask_now();
    let view = link.wait("nobody", |view| view.link.is_none()).await;
    assert_eq!(view.memory, Fact::Known(None));
    assert!(view.asked_since(link.handle.ask_now()));

    // And again, when it is declared again.
    let peer = paceline::desired::PeerAddress {
        host: "127.0.0.1".to_owned(),
        port: closed(),
        api_port: fake.port,
    };
    here.declare(|desired| desired.peer = Some(peer));
    link.wait("an answer", |view| {
        view.link.as_ref().is_some_and(|link| link.answered.is_some())
    })
    .await;
}

#[tokio::test]
async fn a_damaged_memory_is_not_none() {
    let fake = Fake::new(Reply::Raw(Vec::new())).await;
    for rubbish in ["", "{", "[]", "{\"format\":1}", "{\"format\":1,\"address\":null}"] {
        let here = Here::new(fake.port, closed());
        fs::write(here.memory_file(), rubbish).expect("write");
        fake.reply(Reply::Raw(Vec::new()));
        let mut link = here.follow();
        link.fails(crate::REFUSED, "").await;
        let view = link.views.borrow().clone();
        assert!(
            matches!(&view.memory, Fact::Unknown(why) if why.contains("peer.json") && why.contains("damaged")),
            "{view:?}"
        );
        assert_eq!(fs::read_to_string(here.memory_file()).expect("read"), rubbish);
        // What its daemon says replaces it; the rubbish is kept beside it.
        fake.reply(good(1));
        let view = link.answered().await;
        assert_eq!(view.memory, Fact::Known(on_disk(&here)));
        let kept = here.directory.path().join("peer.json.damaged");
        assert_eq!(fs::read_to_string(kept).expect("read"), rubbish);
    }
}

#[tokio::test]
async fn a_newer_memory_stays_untouched() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    let newer = "{\"format\": 2, \"something\": \"else\"}";
    fs::write(here.memory_file(), newer).expect("write");
    let view = here.follow().answered().await;
    assert!(matches!(&view.memory, Fact::Unknown(why) if why.contains("newer Paceline")));
    assert_eq!(fs::read_to_string(here.memory_file()).expect("read"), newer);
}

/// A full disk, or a home that is gone: the facts count, and the planner sees that they are not on disk.
#[tokio::test]
async fn a_memory_that_cannot_be_written_is_unknown() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    let in_the_way = here.directory.path().join("peer.json.new");
    fs::create_dir(&in_the_way).expect("directory");
    let mut link = here.follow();
    let view = link.answered().await;
    assert!(
        matches!(&view.memory, Fact::Unknown(why) if why.contains("is not on disk: cannot write")),
        "{view:?}"
    );
    fs::remove_dir(in_the_way).expect("remove");
    let view = link
        .wait("on disk", |view| matches!(view.memory, Fact::Known(_)))
        .await;
    assert_eq!(view.memory, Fact::Known(on_disk(&here)));
}
