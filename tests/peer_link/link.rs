//! Over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline::api;
use paceline::desired::{PeerAddress, Role};
use paceline::lineage::Lsn;
use paceline::observed::{DataState, Fact, Failing, Peer, SeesUs, Server};
use paceline::peer::{Knock, ask_once};
use paceline::sys::clock;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::fake::{Fake, Reply, document, good, http, status};
use crate::{Following, Here, REFUSED, SILENT, closed, link_of};

const WAIT: Duration = Duration::ZERO;

/// A round may take so long, whatever the other end does; a test machine that is busy, longer.
const ROUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_answer_with_our_secret_is_believed() {
    let fake = Fake::new(good(4)).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    let before = clock::now();
    let view = link.answered().await;
    let Peer::Known(facts) = view.at(clock::now(), WAIT) else {
        panic!("{view:?}")
    };
    assert_eq!(facts.node.as_deref(), Some("bravo"));
    assert_eq!(facts.role, Some(Role::Primary));
    assert_eq!(facts.data, DataState::Primary);
    assert_eq!(facts.server, Fact::Known(Server::Writable));
    assert_eq!(facts.major, Some(15));
    assert_eq!(
        facts.lineage.as_ref().and_then(|lineage| lineage.position),
        Some(Lsn(5))
    );
    assert!(facts.gate_open);
    assert_eq!(
        facts.sees,
        Some(SeesUs {
            role: Some(Role::Standby),
            flag: None
        })
    );
    assert!(facts.asked_at <= facts.at && facts.at >= before);
}

#[tokio::test]
async fn a_newer_document_is_understood() {
    let mut newer = document(4);
    newer["future"] = json!({"a": [1, 2]});
    newer["plan"]["future"] = json!(1);
    newer["plan"]["flag"] = json!("taking");
    newer["desired"]["role"] = json!("arbiter");
    newer["server"]["state"] = json!("levitating");
    newer["peer"]["node"] = json!("charlie");
    let fake = Fake::new(Reply::Sealed(newer, crate::PASSWORD)).await;
    let view = Here::new(fake.port, closed()).follow().answered().await;
    let facts = link_of(&view).answered.clone().expect("answered");
    assert_eq!(facts.flag, Some(paceline::observed::Flag::Taking));
    // What this version does not know is not known, and what is said of a third laptop is not about us.
    assert_eq!(facts.role, None);
    assert!(matches!(facts.server, Fact::Unknown(why) if why.contains("levitating")));
    assert_eq!(facts.sees, None);
}

#[tokio::test]
async fn nobody_is_believed_without_our_secret() {
    let mut half = document(1);
    half.as_object_mut().expect("object").remove("data");
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    for (reply, words) in [
        (
            Reply::Sealed(document(1), "another one"),
            "not with our replication secret; compare",
        ),
        (Reply::Unsealed(document(1)), "as if it had none"),
        (Reply::Replayed(document(1)), "not with our replication secret"),
        (
            Reply::Sealed(Value::String("x".repeat(2 << 20)), crate::PASSWORD),
            "more than 1048576 bytes",
        ),
        (
            Reply::Sealed(half, crate::PASSWORD),
            "cannot be understood: missing field `data`",
        ),
        (raw("SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "not in HTTP"),
        (
            raw(&format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(1 << 20))),
            "not in HTTP",
        ),
        (
            raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            "404 Not Found",
        ),
        (
            raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"),
            "503",
        ),
        (
            Reply::Raw(http("Paceline-Auth: \u{e9}\r\n", "{}")),
            "not with our",
        ),
    ] {
        let fake = Fake::new(reply).await;
        let here = Here::new(fake.port, closed());
        let mut link = here.follow();
        link.fails(Failing::Unauthenticated, words).await;
        let view = link.views.borrow().clone();
        assert!(matches!(
            view.at(clock::now(), WAIT),
            Peer::Unauthenticated { .. }
        ));
        assert!(!here.memory_file().exists());
    }
}

#[tokio::test]
async fn without_a_secret_of_our_own_nobody_is_believed() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    std::fs::remove_file(&here.desired.replication.password_file).expect("remove");
    let mut link = here.follow();
    let why = link
        .fails(Failing::Unauthenticated, "no replication secret on this laptop")
        .await;
    assert!(why.contains("paceline join"), "{why}");
    // It counts as soon as it is there.
    here.set_password(crate::PASSWORD);
    link.answered().await;
}

#[tokio::test]
async fn refusing_and_silence_are_told_apart() {
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    for (reply, expected, words) in [
        (
            raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 23\r\n\r\nthe daemon is starting\n"),
            REFUSED,
            "is starting",
        ),
        (
            raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
            REFUSED,
            "breaks the connection off",
        ),
        (raw("HTTP/1.1 200"), REFUSED, "breaks the connection off"),
        (raw(""), REFUSED, "breaks the connection off"),
        // The server's port refuses; the daemon's hangs.
        (Reply::Nothing, SILENT, "does not answer within"),
        (Reply::Dripping, SILENT, "does not answer within"),
    ] {
        let fake = Fake::new(reply).await;
        let started = Instant::now();
        Here::new(fake.port, closed())
            .follow()
            .fails(expected, words)
            .await;
        assert!(started.elapsed() < ROUND, "{words}: {:?}", started.elapsed());
    }
    Here::new(closed(), closed())
        .follow()
        .fails(REFUSED, "refuses the connection")
        .await;
}

/// What a laptop looks like that is switched off: nothing comes back at all.
#[tokio::test]
async fn who_does_not_even_accept_is_silent() {
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind("127.0.0.1:0".parse().expect("address"))
        .expect("bind");
    let listener = socket.listen(0).expect("listen");
    let address = listener.local_addr().expect("address");
    let mut filling = Vec::new();
    // Until the queue is full.
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        filling.push(stream);
    }
    let here = Here::new(address.port(), address.port());
    let started = Instant::now();
    let mut link = here.follow();
    link.fails(SILENT, "does not answer within").await;
    assert!(started.elapsed() < ROUND);
    // Two failures settle it, when nobody is to be waited for.
    let view = link
        .wait("a second failure", |view| {
            link_of(view)
                .failed
                .as_ref()
                .is_some_and(|failed| failed.attempts >= 2)
        })
        .await;
    let later = link_of(&view).began.after(Duration::from_secs(2));
    assert!(matches!(view.at(later, WAIT), Peer::Unknown(silence) if silence.settled));
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_silence() {
    let mut here = Here::new(closed(), closed());
    here.declare(|desired| {
        desired.peer.as_mut().expect("peer").host = "no-such-laptop.invalid".to_owned();
    });
    here.follow().fails(SILENT, "no-such-laptop.invalid").await;
}

/// News come when they are published, and an idle laptop is asked about once a second.
#[tokio::test]
async fn news_come_at_once_and_rest_costs_little() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    link.answered().await;
    let started = Instant::now();
    let first = link.views.borrow().asked_at;
    let mut at = first;
    for _ in 0..3 {
        at = link
            .wait("the next answer", |view| view.asked_at > at)
            .await
            .asked_at;
    }
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_secs(2),
        "{elapsed:?} for {:?}",
        fake.asked()
    );
    assert!(
        fake.asked()[1..]
            .iter()
            .all(|path| path == "/v1/status?after=1&wait=1"),
        "{:?}",
        fake.asked()
    );
    let mut news = document(2);
    news["plan"]["flag"] = json!("starting");
    fake.reply(Reply::Sealed(news, crate::PASSWORD));
    link.wait("the news", |view| {
        link_of(view)
            .answered
            .as_ref()
            .is_some_and(|facts| facts.flag.is_some())
    })
    .await;
}

/// A daemon that ignores what it is asked about waiting is not asked all the time.
#[tokio::test]
async fn a_daemon_that_does_not_wait_is_not_asked_all_the_time() {
    let fake = Fake::new(Reply::AtOnce(document(1))).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    let mut at = link.answered().await.asked_at;
    let started = Instant::now();
    for _ in 0..3 {
        at = link
            .wait("the next answer", |view| view.asked_at > at)
            .await
            .asked_at;
    }
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", fake.asked());
}

#[tokio::test]
async fn asking_now_cuts_a_long_poll_short() {
    let fake = Fake::new(good(1)).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    link.answered().await;
    for _ in 0..5 {
        let polls = fake.asked().len();
        let moment = link.handle.ask_now();
        assert!(!link.views.borrow().asked_since(moment));
        let view = link.wait("an answer", |view| view.asked_since(moment)).await;
        let facts = link_of(&view).answered.as_ref().expect("answered");
        assert!(facts.asked_at >= moment);
        assert!(
            fake.asked()[polls..].iter().any(|path| path.ends_with("&wait=0")),
            "{:?}",
            fake.asked()
        );
    }
    // Failures count as well: who asked for it learns of them.
    fake.reply(Reply::Raw(Vec::new()));
    let moment = link.handle.ask_now();
    let view = link.wait("a failure", |view| view.asked_since(moment)).await;
    assert!(link_of(&view).failed.is_some());
}

/// A laptop that comes back asks us before we would ask it again: nobody shall have to wait for that. It was once asked at
/// its turn only, a second later, and could not follow before (its slot is made by whoever sees it). Compared with a link
/// that nobody knocks at, since a busy machine is slow for both.
#[tokio::test]
async fn a_silent_laptop_that_knocks_is_asked_soon() {
    let here = Here::new(closed(), closed());
    let attempts = |link: &Following| {
        link_of(&link.views.borrow())
            .failed
            .as_ref()
            .map_or(0, |failed| failed.attempts)
    };
    let (mut knocked, mut left) = (here.follow(), here.follow());
    for link in [&mut knocked, &mut left] {
        link.wait("settled", |view| {
            link_of(view)
                .failed
                .as_ref()
                .is_some_and(|failed| failed.attempts > 8)
        })
        .await;
    }
    let before = (attempts(&knocked), attempts(&left));
    while attempts(&knocked) < before.0 + 12 {
        knocked.handle.knock().heard();
        knocked.views.changed().await.expect("the link is at work");
    }
    let meanwhile = attempts(&left) - before.1;
    assert!(
        meanwhile < 9,
        "the one that nobody knocked at was asked {meanwhile} times as well"
    );
}

#[tokio::test]
async fn another_address_is_a_new_beginning() {
    let old = Fake::new(good(1)).await;
    let mut there = document(1);
    there["node"] = json!("charlie");
    let new = Fake::new(Reply::Sealed(there, crate::PASSWORD)).await;
    let mut here = Here::new(old.port, closed());
    let mut link = here.follow();
    link.answered().await;
    // What does not concern the link cuts nothing short.
    here.declare(|desired| desired.role = Role::Failover);
    let asked = old.asked().len();
    here.declare(|desired| desired.peer.as_mut().expect("peer").api_port = new.port);
    link.wait("the new one", |view| {
        link_of(view)
            .answered
            .as_ref()
            .is_some_and(|facts| facts.node.as_deref() == Some("charlie"))
    })
    .await;
    assert!(old.asked().len() <= asked + 1);
    // Nothing of the old one counts while the new one is silent.
    here.declare(|desired| desired.peer.as_mut().expect("peer").api_port = closed());
    let view = link
        .wait("a failure", |view| link_of(view).failed.is_some())
        .await;
    assert_eq!(link_of(&view).answered, None);
}

#[tokio::test]
async fn a_daemon_that_asks_itself_says_so() {
    let mut own = document(1);
    own["node"] = json!("alpha");
    own["pid"] = json!(std::process::id());
    let fake = Fake::new(Reply::Sealed(own, crate::PASSWORD)).await;
    let here = Here::new(fake.port, closed());
    let mut link = here.follow();
    link.fails(Failing::Unauthenticated, "is this very daemon: correct `peer`")
        .await;
}

/// Both ends are ours.
#[tokio::test]
async fn our_interface_proves_itself_to_our_link() {
    let port = crate::common::port();
    let there = Here::new(closed(), closed());
    let (publish, published) = watch::channel(None);
    tokio::spawn(api::serve(
        format!("127.0.0.1:{port}").parse().expect("address"),
        published,
        there.receiver(),
        Knock::default(),
    ));
    let here = Here::new(port, closed());
    let mut link = here.follow();
    // Before its first look it answers that it is starting.
    link.wait("starting", |view| {
        link_of(view)
            .failed
            .as_ref()
            .is_some_and(|failed| failed.why.contains("is starting"))
    })
    .await;
    publish.send_replace(Some(Arc::new(status(1))));
    link.answered().await;
    // The secret is changed while both run.
    let refused = |view: &paceline::peer::View| {
        link_of(view)
            .failed
            .as_ref()
            .is_some_and(|failed| failed.how == Failing::Unauthenticated)
    };
    there.set_password("a new one");
    link.handle.ask_now();
    link.wait("another secret", refused).await;
    here.set_password("a new one");
    link.wait("an answer again", |view| link_of(view).failed.is_none())
        .await;
    std::fs::remove_file(&there.desired.replication.password_file).expect("remove");
    link.handle.ask_now();
    link.wait("no secret", refused).await;
}

/// Whoever does not ask for a seal, or in the wrong way, gets none, and nobody gets the secret.
#[tokio::test]
async fn only_a_real_question_is_sealed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let port = crate::common::port();
    let here = Here::new(closed(), closed());
    let (_publish, published) = watch::channel(Some(Arc::new(status(1))));
    tokio::spawn(api::serve(
        format!("127.0.0.1:{port}").parse().expect("address"),
        published,
        here.receiver(),
        Knock::default(),
    ));
    let good = format!("Paceline-Nonce: {}\r\n", "ab".repeat(32));
    for (header, sealed) in [
        (good.as_str(), true),
        ("", false),
        ("Paceline-Nonce: ab\r\n", false),
        ("Paceline-Nonce: \r\n", false),
    ] {
        let mut stream = loop {
            match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream
            .write_all(format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{header}\r\n").as_bytes())
            .await
            .expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.contains("paceline-auth: "), sealed, "{header:?}: {answer}");
        assert!(!answer.contains(crate::PASSWORD));
    }
}

#[tokio::test]
async fn a_command_asks_once() {
    let fake = Fake::new(good(1)).await;
    let mut here = Here::new(fake.port, closed());
    let view = ask_once(&here.desired).await;
    assert!(matches!(view.at(clock::now(), WAIT), Peer::Known(_)));
    assert_eq!(fake.asked().len(), 1);
    // It changes nothing.
    assert!(!here.memory_file().exists());

    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = silent.local_addr().expect("address").port();
    for (api_port, most) in [(closed(), Duration::from_secs(1)), (port, ROUND)] {
        here.declare(|desired| {
            desired.peer = Some(PeerAddress {
                host: "127.0.0.1".to_owned(),
                port: closed(),
                api_port,
            });
            desired.safety.peer_wait = Duration::from_secs(10);
        });
        let started = Instant::now();
        let view = ask_once(&here.desired).await;
        assert!(started.elapsed() < most, "{:?}", started.elapsed());
        assert!(
            matches!(view.at(clock::now(), here.desired.safety.peer_wait), Peer::Unknown(silence) if silence.settled)
        );
    }
    here.declare(|desired| desired.peer = None);
    assert_eq!(ask_once(&here.desired).await.link, None);
}
