//! The link to the other laptop: asks it again and again, and says what it answered. It only reads and decides nothing.
//!
//! Its daemon is asked over HTTP (a long poll, so that news come at once), and believed only with a proof that it knows
//! our secret: see [`auth`]. While its daemon does not answer, its PostgreSQL is asked: see [`sql`]. What was learned is
//! on disk before it is published: see [`memory`].

mod address;
mod asker;
pub mod auth;
pub mod document;
pub(crate) mod http;
pub mod memory;
mod scram;
pub mod sql;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use self::asker::{Asker, Outcome};
use self::auth::Secret;
use self::memory::Keeper;
pub use self::trouble::Trouble;
use crate::desired::{Desired, PeerAddress, SslMode};
use crate::history;
use crate::observed::{
    Fact, Failed, Failing, KNOWN_FOR, Link, Moment, Peer, PeerFacts, PeerMemory, Silence, Unanswered,
};
use crate::sys::clock;

/// So many seconds a daemon may wait for news before it answers. An answer counts for two.
const WAIT: u64 = 1;
/// Rounds begin this far apart at least, however fast the news come.
const BREATH: Duration = Duration::from_millis(10);
/// How long after a failed round the next one begins, while silence is not settled.
const SOON: Duration = Duration::from_millis(300);
/// The same when it is settled, and while only the server answers.
const USUAL: Duration = Duration::from_secs(1);
/// The same when somebody asked us who may be the other laptop. Anybody can make us ask so often, and no more.
const KNOCKED: Duration = Duration::from_millis(100);

/// What is known of the other laptop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What it answered and how it failed to; `None`: no other laptop is declared, and none is remembered.
    pub link: Option<Link>,
    /// What is on disk of it. `Unknown` also while what was learned cannot be written.
    pub memory: Fact<Option<PeerMemory>>,
    /// When the last round began that came to an end, well or not.
    pub asked_at: Option<Moment>,
}

impl View {
    /// Whether the other laptop was asked (with or without success) at that moment or later, or there is none. Together
    /// with [`Handle::ask_now`] that is "publish, then look".
    pub fn asked_since(&self, moment: Moment) -> bool {
        self.link.is_none() || self.asked_at.is_some_and(|asked_at| asked_at >= moment)
    }

    /// The other laptop, if nothing that was heard of it counts any more: the laptop slept since.
    pub fn not_asked(now: Moment) -> Peer {
        Peer::Unknown(Silence {
            how: Unanswered::NotYet,
            why: "this laptop slept, and the other one was not asked since".to_owned(),
            since: now,
            position: None,
            settled: false,
        })
    }

    /// The other laptop, as far as it can be relied on at this moment.
    pub fn at(&self, now: Moment, peer_wait: Duration) -> Peer {
        match (&self.link, &self.memory) {
            (Some(link), _) => link.at(now, peer_wait),
            (None, Fact::Known(_)) => Peer::None,
            // There may have been one: nobody can be asked, and that is not "never".
            (None, Fact::Unknown(why)) => Peer::Unknown(Silence {
                how: Unanswered::Silent,
                why: why.clone(),
                since: now,
                position: None,
                settled: true,
            }),
        }
    }
}

/// How the link is read and hurried.
#[derive(Clone, Debug)]
pub struct Handle {
    views: watch::Receiver<View>,
    poke: Arc<Notify>,
    knock: Knock,
}

/// What those who answer the other laptop's questions hold: while it does not answer ours, its asking says that it may
/// do so by now. Only a hint; nothing is concluded from it.
#[derive(Clone, Debug, Default)]
pub struct Knock(Arc<Notify>);

impl Knock {
    /// Somebody asked us who may be the other laptop.
    pub fn heard(&self) {
        self.0.notify_one();
    }
}

impl Handle {
    /// What is known, now and from now on. There is a first value at once, with what is remembered.
    pub fn views(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    /// Has the other laptop asked at once: a question that waits for news is cut short. Gives the moment to compare
    /// with [`View::asked_since`].
    pub fn ask_now(&self) -> Moment {
        let now = clock::now();
        self.poke.notify_one();
        now
    }

    /// To be told of questions that may be the other laptop's.
    pub fn knock(&self) -> Knock {
        self.knock.clone()
    }
}

/// Follows the other laptop until `desired` is closed. To be called inside a runtime; the task ends otherwise only by a
/// panic.
pub fn follow(desired: watch::Receiver<Arc<Desired>>) -> (Handle, JoinHandle<()>) {
    let declared = Arc::clone(&desired.borrow());
    let memory = Keeper::open(&declared.home);
    let whom = Whom::of(&declared, &memory);
    let (publish, views) = watch::channel(View {
        link: whom.as_ref().map(|_| Link::new(clock::now())),
        memory: memory.fact(),
        asked_at: None,
    });
    let (poke, knock) = (Arc::new(Notify::new()), Knock::default());
    let follower = Follower {
        desired,
        declared,
        whom,
        memory,
        asker: Asker::default(),
        poke: Arc::clone(&poke),
        knock: knock.clone(),
        publish,
        revision: None,
        said: None,
        hurry: true,
        began: Instant::now(),
        next: Instant::now(),
    };
    (Handle { views, poke, knock }, tokio::spawn(follower.run()))
}

/// Asks for a command that needs no daemon: once, and once more if that fails, each time for about a second at most.
/// Nothing is written. Two failures count as settled at once: the link is dated back by `peer_wait`, since nobody is
/// there who could wait. (Within that time after the laptop was switched on it cannot be dated back so far; then silence
/// is not settled.)
pub async fn ask_once(desired: &Desired) -> View {
    let memory = Keeper::open(&desired.home);
    let Some(whom) = Whom::of(desired, &memory) else {
        return View {
            link: None,
            memory: memory.fact(),
            asked_at: None,
        };
    };
    let uptime = clock::now().since(Moment::default());
    let patience = desired.safety.peer_wait.max(KNOWN_FOR);
    let mut link = Link::new(Moment::from_boot(uptime.saturating_sub(patience)));
    let mut asker = Asker::default();
    let mut asked_at = clock::now();
    for _ in 0..crate::observed::FAILED_ATTEMPTS {
        asked_at = clock::now();
        match asker.ask(desired, &whom.address, None, 0).await {
            Outcome::Daemon(facts, _) | Outcome::Server(facts, _) => {
                link.answered = Some(*facts);
                link.failed = None;
                break;
            }
            Outcome::Failed(trouble) => link.failed = Some(failed(link.failed.as_ref(), trouble)),
        }
    }
    View {
        link: Some(link),
        memory: memory.fact(),
        asked_at: Some(asked_at),
    }
}

/// Our secret, or why there is none.
fn our_secret(desired: &Desired) -> Result<Secret, String> {
    let file = &desired.replication.password_file;
    match Secret::read(file) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(format!(
            "there is no replication secret on this laptop ({file}); `paceline init` makes one, `paceline join` takes \
             the other laptop's over"
        )),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Counts one failure more.
fn failed(before: Option<&Failed>, trouble: Trouble) -> Failed {
    Failed {
        // Somebody who answered without our secret was not silent.
        attempts: before
            .filter(|before| before.how != Failing::Unauthenticated)
            .map_or(0, |before| before.attempts)
            .saturating_add(1),
        at: clock::now(),
        how: trouble.how,
        why: trouble.why,
    }
}

/// Whom to ask, and as whom: what begins anew when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whom {
    address: PeerAddress,
    us: (String, u16),
    user: String,
    password_file: camino::Utf8PathBuf,
    sslmode: SslMode,
}

impl Whom {
    /// The declared laptop, else the one that is remembered.
    fn of(desired: &Desired, memory: &Keeper) -> Option<Self> {
        let address = desired.peer.as_ref().or_else(|| memory.address())?;
        Some(Self {
            address: address.clone(),
            us: (desired.node.clone(), desired.postgres.port),
            user: desired.replication.user.clone(),
            password_file: desired.replication.password_file.clone(),
            sslmode: desired.replication.sslmode,
        })
    }
}

struct Follower {
    desired: watch::Receiver<Arc<Desired>>,
    declared: Arc<Desired>,
    whom: Option<Whom>,
    memory: Keeper,
    asker: Asker,
    poke: Arc<Notify>,
    knock: Knock,
    publish: watch::Sender<View>,
    /// Of the document that the last round brought. Without one there is no news to wait for.
    revision: Option<u64>,
    /// How the last round ended, as it was logged.
    said: Option<Said>,
    /// Somebody waits for the next answer.
    hurry: bool,
    /// When the last round began.
    began: Instant,
    /// When the next one does.
    next: Instant,
}

/// How a round ended before its end.
enum Cut {
    /// Another laptop is to be asked, or in another way; or nobody any more.
    Declared,
    /// Somebody wants an answer now.
    Poked,
}

impl Follower {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                // Cancel-safe: values of a watch channel stay marked as unseen.
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.declare(),
                    Err(_) => return,
                },
                // Cancel-safe: the permit is kept.
                () = self.poke.notified() => self.poked(),
                // Cancel-safe: the permit is kept. While it answers, news come by themselves.
                () = self.knock.0.notified() => if self.revision.is_none() {
                    self.next = self.next.min(self.began + KNOCKED);
                },
                () = sleep_until(self.next), if self.whom.is_some() || self.forgettable() => {}
            }
            if self.next > Instant::now() {
                continue;
            }
            match self.whom.clone() {
                Some(whom) => self.round(whom).await,
                None if self.forgettable() => self.look_again(),
                None => {}
            }
        }
    }

    /// Asks once, unless what is to be asked changes in the meantime.
    async fn round(&mut self, whom: Whom) {
        let started = Instant::now();
        self.began = started;
        let asked_at = clock::now();
        let wait = if self.hurry || self.revision.is_none() {
            0
        } else {
            WAIT
        };
        self.hurry = false;
        if self.forgotten(&whom) {
            return self.aim();
        }
        let ended = {
            let declared = Arc::clone(&self.declared);
            let asking = self.asker.ask(&declared, &whom.address, self.revision, wait);
            tokio::pin!(asking);
            loop {
                tokio::select! {
                    biased;
                    changed = self.desired.changed() => {
                        let now = Arc::clone(&self.desired.borrow_and_update());
                        self.declared = now;
                        // Nobody is to wait for an answer from the wrong laptop.
                        if changed.is_err() || Whom::of(&self.declared, &self.memory).as_ref() != Some(&whom) {
                            break Err(Cut::Declared);
                        }
                    }
                    // A question that does not wait is answered soon, and the next one follows it at once: whoever pokes
                    // all the time cannot keep us from ever getting an answer.
                    () = self.poke.notified(), if wait > 0 => break Err(Cut::Poked),
                    outcome = &mut asking => break Ok(outcome),
                }
            }
        };
        match ended {
            // What came meanwhile is not to be remembered either.
            Ok(_) if self.forgotten(&whom) => self.aim(),
            Ok(outcome) => self.take(outcome, &whom, asked_at, started, wait).await,
            Err(Cut::Declared) => self.declare(),
            Err(Cut::Poked) => self.poked(),
        }
    }

    /// Whether `paceline forget-peer` ended the memory of a laptop that the file does not name.
    fn forgotten(&mut self, whom: &Whom) -> bool {
        if self.declared.peer.is_none() && self.memory.gone() {
            self.memory.read(&self.declared.home);
        }
        Whom::of(&self.declared, &self.memory).as_ref() != Some(whom)
    }

    /// Whether there is nobody to ask, only because what is remembered cannot be read: a person may mend or end that.
    fn forgettable(&self) -> bool {
        self.declared.peer.is_none() && self.memory.troubled()
    }

    /// Reads what is remembered again, where nobody can be asked.
    fn look_again(&mut self) {
        self.memory.read(&self.declared.home);
        self.next = Instant::now() + USUAL;
        self.aim();
    }

    /// Takes the declaration in.
    fn declare(&mut self) {
        self.declared = Arc::clone(&self.desired.borrow_and_update());
        self.aim();
    }

    fn poked(&mut self) {
        if self.declared.peer.is_none() {
            self.memory.read(&self.declared.home);
            self.aim();
        }
        self.hurry = true;
        self.next = Instant::now();
    }

    /// Whom to ask from now on. What was seen at another address does not count for this one.
    fn aim(&mut self) {
        let whom = Whom::of(&self.declared, &self.memory);
        let memory = self.memory.fact();
        if whom == self.whom {
            self.publish.send_if_modified(|view| {
                let news = view.memory != memory;
                view.memory = memory;
                news
            });
            return;
        }
        let elsewhere =
            whom.as_ref().map(|whom| &whom.address) != self.whom.as_ref().map(|whom| &whom.address);
        match &whom {
            Some(whom) => {
                tracing::info!(host = %whom.address.host, port = whom.address.api_port, "asking the other laptop");
            }
            None => tracing::info!("there is no other laptop"),
        }
        self.whom = whom;
        self.asker = Asker::default();
        self.revision = None;
        self.hurry = true;
        self.next = Instant::now();
        let began = clock::now();
        self.publish.send_modify(|view| {
            view.memory = memory;
            view.asked_at = None;
            view.link = self.whom.is_some().then(|| match view.link.take() {
                Some(link) if !elsewhere => Link { failed: None, ..link },
                Some(_) | None => Link::new(began),
            });
        });
    }

    /// Takes in what a round came to, and says when the next one begins.
    async fn take(&mut self, outcome: Outcome, whom: &Whom, asked_at: Moment, started: Instant, wait: u64) {
        self.say(&outcome);
        let known = self.revision.take();
        let link = self.publish.borrow().link.clone();
        let mut link = link.unwrap_or_else(|| Link::new(asked_at));
        let pause = match outcome {
            Outcome::Daemon(facts, revision) => {
                self.memory.keep(&facts, &whom.address).await;
                // A daemon that does not wait for news is not asked all the time.
                let rash =
                    wait > 0 && known == Some(revision) && started.elapsed() < Duration::from_secs(wait) / 2;
                self.revision = Some(revision);
                link.answered = Some(*facts);
                link.failed = None;
                if rash { USUAL } else { BREATH }
            }
            Outcome::Server(facts, _) => {
                link.failed = None;
                if outweighs(link.answered.as_ref(), facts.at) {
                    SOON
                } else {
                    self.memory.keep(&facts, &whom.address).await;
                    link.answered = Some(*facts);
                    USUAL
                }
            }
            Outcome::Failed(trouble) => {
                link.failed = Some(failed(link.failed.as_ref(), trouble));
                match link.at(clock::now(), self.declared.safety.peer_wait) {
                    Peer::Unknown(silence) if silence.settled => USUAL,
                    Peer::Unauthenticated { .. } => USUAL,
                    Peer::None | Peer::Unknown(_) | Peer::Known(_) => SOON,
                }
            }
        };
        self.next = started + pause;
        self.publish.send_replace(View {
            link: Some(link),
            memory: self.memory.fact(),
            asked_at: Some(asked_at),
        });
    }

    /// One line for each change, none for each attempt.
    fn say(&mut self, outcome: &Outcome) {
        let now = match outcome {
            Outcome::Daemon(..) => Said::Answers,
            Outcome::Server(..) => Said::ServerOnly,
            Outcome::Failed(trouble) => Said::Fails(trouble.how),
        };
        if self.said.replace(now) == Some(now) {
            return;
        }
        let (state, reason) = match outcome {
            Outcome::Daemon(..) => ("answers", None),
            Outcome::Server(_, why) => ("answers with its PostgreSQL only", Some(why.to_string())),
            Outcome::Failed(trouble) => match trouble.how {
                Failing::Unanswered(_) => ("does not answer", Some(trouble.to_string())),
                Failing::Unauthenticated => ("is not believed", Some(trouble.to_string())),
            },
        };
        history::record(
            &self.declared.home,
            "peer",
            &serde_json::json!({ "state": state, "reason": reason }),
        );
        match outcome {
            Outcome::Daemon(facts, _) => {
                tracing::info!(node = facts.node.as_deref(), "the other laptop answers");
            }
            Outcome::Server(_, why) => tracing::warn!("of the other laptop only PostgreSQL answers: {why}"),
            Outcome::Failed(trouble) => match trouble.how {
                Failing::Unanswered(_) => tracing::warn!("the other laptop does not answer: {trouble}"),
                Failing::Unauthenticated => tracing::error!("{trouble}"),
            },
        }
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Answers,
    ServerOnly,
    Fails(Failing),
}

/// Whether a daemon's word still counts. Its server's word, which nobody seals, does not replace that.
fn outweighs(answered: Option<&PeerFacts>, now: Moment) -> bool {
    answered.is_some_and(|facts| facts.node.is_some() && now.since(facts.at) <= KNOWN_FOR)
}
