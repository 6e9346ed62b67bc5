//! Laptops in networks of their own, for what cannot be had on one loopback address: a cable that is pulled, answers
//! that get lost, a laptop that loses its power without a farewell, an address that changes.
//!
//! Each host is a network namespace with one card, `eth0`; all of them are plugged into the bridge of another one, the
//! "router". Nothing of it is visible in the network of this machine, so tests in parallel do not meet. What is not
//! separate: processes, files, clocks, and `/sys` (`paceline init` would list this machine's cards).
//!
//! It needs root, iproute2 and nftables, and a kernel and a container that permit it: see `tests/install-network.sh`.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::pair::Pair;
use super::{As, LIMIT, Laptop, port, processes, root, wait_gone};

/// How the names of our namespaces begin; then come the process that made them, a number, and the host.
const MARK: &str = "paceline-test";
const NAMED: &str = "/run/netns";

/// A network that is there, or the end of a test that says why not.
#[macro_export]
macro_rules! network {
    () => {
        match $crate::common::net::Network::new() {
            Ok(network) => network,
            Err(why) => $crate::skip!("{why}"),
        }
    };
}

/// A laptop's place in the network.
#[derive(Debug)]
pub struct Host {
    /// Its name, and that of its port at the router.
    name: &'static str,
    namespace: String,
    number: u8,
    address: Mutex<Ipv4Addr>,
}

impl Host {
    pub fn address(&self) -> Ipv4Addr {
        *self.address.lock().expect("address")
    }

    /// Does this in the host's network: connections and processes that it begins are the host's. `None`: the host is
    /// switched off.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Option<T> {
        inside(&self.namespace, act)
    }

    /// Asks a laptop over HTTP, from here; `None`: nobody answers.
    pub fn get(&self, laptop: &Laptop, path: &str) -> Option<(u16, String)> {
        let at = (laptop.address(), laptop.api);
        self.inside(|| http_get(at, path)).flatten()
    }

    /// Its packet filter lets nobody in at this port.
    pub fn close_port(&self, port: u16) {
        let rules = format!(
            "table inet closed {{ chain input {{ type filter hook input priority 0; tcp dport {port} drop; }}; }}"
        );
        nft(&self.namespace, &rules);
    }

    /// What it sends arrives so much later. `Err`: this kernel cannot (it has no netem).
    pub fn delay(&self, milliseconds: u32) -> Result<(), String> {
        let queue = format!("qdisc replace dev eth0 root netem delay {milliseconds}ms");
        run("tc", &format!("-n {} {queue}", self.namespace))
    }

    /// It gets another address of the same network, as from a DHCP server.
    pub fn change_address(&self, last: u8) {
        let [a, b, c, _] = self.address().octets();
        let new = Ipv4Addr::new(a, b, c, last);
        let namespace = &self.namespace;
        ip(&format!("-n {namespace} addr flush dev eth0"));
        ip(&format!("-n {namespace} addr add {new}/24 dev eth0"));
        *self.address.lock().expect("address") = new;
    }

    /// Everything that runs there.
    fn processes(&self) -> Vec<i32> {
        processes_in(&self.namespace)
    }
}

pub struct Network {
    pub alpha: Arc<Host>,
    pub bravo: Arc<Host>,
    /// A computer that only uses the database: at the start, at the finish.
    pub station: Arc<Host>,
    router: String,
}

impl Network {
    /// `Err`: why there can be none here.
    pub fn new() -> Result<Self, String> {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        permitted().inspect_err(|why| {
            assert!(
                std::env::var_os("PACELINE_TEST_NETWORK").is_none(),
                "tests/run.sh found that namespaces are permitted: {why}"
            );
        })?;
        remove_leftovers();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{MARK}-{}-{number}", std::process::id());
        let host = |name: &'static str, last: u8| {
            Arc::new(Host {
                name,
                namespace: format!("{tag}-{name}"),
                number: last,
                address: Mutex::new(Ipv4Addr::new(10, 99, number, last)),
            })
        };
        // From here on `drop` removes what was made.
        let network = Self {
            alpha: host("alpha", 1),
            bravo: host("bravo", 2),
            station: host("station", 3),
            router: format!("{tag}-router"),
        };
        ip(&format!("netns add {}", network.router));
        ip(&format!("-n {} link add bridge type bridge", network.router));
        ip(&format!("-n {} link set bridge up", network.router));
        for host in network.hosts() {
            network.plug_in(host);
        }
        Ok(network)
    }

    fn hosts(&self) -> [&Host; 3] {
        [&self.alpha, &self.bravo, &self.station]
    }

    /// Alpha declared primary, bravo standby, each on its host; no daemon runs yet.
    pub fn pair(&self, alpha_more: &str, bravo_more: &str) -> Pair {
        let on = |host: &Arc<Host>| Laptop::on(Arc::clone(host), "");
        Pair::of(on(&self.alpha), on(&self.bravo), alpha_more, bravo_more)
    }

    /// A host as it is when it is switched on, at the router.
    fn plug_in(&self, host: &Host) {
        let (router, name, namespace) = (&self.router, host.name, &host.namespace);
        ip(&format!("netns add {namespace}"));
        // The same card each time: the others remember its hardware address.
        let card = format!(
            "peer name eth0 address 02:00:00:00:00:{:02x} netns {namespace}",
            host.number
        );
        ip(&format!("-n {router} link add {name} type veth {card}"));
        ip(&format!("-n {router} link set {name} master bridge up"));
        ip(&format!("-n {namespace} addr add {}/24 dev eth0", host.address()));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} link set lo up"));
    }

    /// Pulls the host's cable.
    pub fn cut(&self, host: &Host) {
        ip(&format!("-n {} link set {} down", self.router, host.name));
    }

    /// Switches the router off: nobody hears anybody.
    pub fn cut_all(&self) {
        for host in self.hosts() {
            self.cut(host);
        }
    }

    /// Whatever `from` sends is lost; it hears the others.
    pub fn one_way(&self, from: &Host) {
        self.lose(from, "ether type ip drop");
    }

    /// These two do not hear each other, but everybody else does: the clients of some access points are kept apart.
    pub fn keep_apart(&self, one: &Host, other: &Host) {
        for (from, to) in [(one, other), (other, one)] {
            self.lose(from, &format!("ip daddr {} drop", to.address()));
        }
    }

    /// A packet filter at the router drops what comes from this host and fits.
    fn lose(&self, from: &Host, fits: &str) {
        let name = from.name;
        // Addresses are still looked up (ARP): only so the other direction goes on.
        let rules = format!(
            "table netdev lost {{ chain {name} {{ type filter hook ingress device {name} priority 0; {fits}; }}; }}"
        );
        nft(&self.router, &rules);
    }

    /// A narrow Wi-Fi with long queues: what goes to the host arrives at this rate (such as "8mbit"), and up to so many
    /// milliseconds late.
    pub fn narrow(&self, to: &Host, rate: &str, queue: u32) {
        let shaper = format!("tbf rate {rate} burst 16kb latency {queue}ms");
        let at = format!("-n {} qdisc replace dev {} root {shaper}", self.router, to.name);
        run("tc", &at).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Everything works again. A laptop without power stays off.
    pub fn heal(&self) {
        nft(&self.router, "flush ruleset");
        for host in self.hosts().into_iter().filter(|host| there(&host.namespace)) {
            nft(&host.namespace, "flush ruleset");
            // There may be none.
            drop(run(
                "tc",
                &format!("-n {} qdisc del dev eth0 root", host.namespace),
            ));
            ip(&format!("-n {} link set {} up", self.router, host.name));
        }
    }

    /// The laptop loses its power: daemon, server and application are gone at once, and nobody is told. (What was not
    /// fsynced yet is kept all the same: its disk is this machine's.)
    pub fn power_cut(&self, laptop: &mut Laptop) {
        let host = laptop.host();
        // First, so that the kernel's farewells to the peers of dead processes do not get out.
        self.cut(&host);
        // Stopped before they are killed, so that none sees another one die.
        for pid in host.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        }
        kill_all_in(&host.namespace);
        laptop.kill_daemon();
        // Its kernel forgets its connections.
        ip(&format!("-n {} link del {}", self.router, host.name));
        ip(&format!("netns del {}", host.namespace));
    }

    /// Switches a laptop without power on again; its daemon is then started by the test.
    pub fn power_on(&self, laptop: &Laptop) {
        self.plug_in(&laptop.host());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts() {
            remove(&host.namespace);
        }
        remove(&self.router);
    }
}

impl Laptop {
    /// A laptop at this place in a network. Its server's port is one of this machine: the server has a socket in
    /// PostgreSQL's common directory, too.
    pub fn on(host: Arc<Host>, yaml: &str) -> Self {
        Self::make(As::Us, Some(host), (port(), 8432), yaml)
    }

    /// Where the other laptop finds it.
    pub fn address(&self) -> Ipv4Addr {
        self.host
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |host| host.address())
    }

    /// Does this in the laptop's network. `None`: it is switched off.
    pub(super) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Option<T> {
        match &self.host {
            None => Some(act()),
            Some(host) => host.inside(act),
        }
    }

    fn host(&self) -> Arc<Host> {
        Arc::clone(self.host.as_ref().expect("a laptop in a network"))
    }

    /// The server freezes, with all its processes: it is there, and does not answer.
    pub fn freeze(&self) {
        let frozen = super::signal_server(&self.data(), Signal::SIGSTOP);
        assert!(!frozen.is_empty(), "there is no server");
    }

    pub fn thaw(&self) {
        super::signal_server(&self.data(), Signal::SIGCONT);
    }
}

/// Asks a daemon over HTTP; `None`: nobody answers.
pub(super) fn http_get(at: (Ipv4Addr, u16), path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let code = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((code, body))
}

/// Whether two hosts can be had here.
fn permitted() -> Result<(), String> {
    if !root() {
        return Err("network namespaces need root".to_owned());
    }
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if let Err(why) = run(program, "-V") {
            return Err(format!("{why} (hint: apt-get install {package})"));
        }
    }
    let probe = format!(
        "{MARK}-{}-0-probe-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let bridge = run("ip", &format!("netns add {probe}"))
        .and_then(|()| run("ip", &format!("-n {probe} link add bridge type bridge")));
    remove(&probe);
    bridge.map_err(|why| format!("network namespaces are not permitted here: {why}"))
}

fn namespace_file(namespace: &str) -> PathBuf {
    PathBuf::from(NAMED).join(namespace)
}

fn there(namespace: &str) -> bool {
    namespace_file(namespace).exists()
}

/// Does this in a thread that has moved into the namespace; processes that it starts are born there.
fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> Option<T> {
    let file = File::open(namespace_file(namespace)).ok()?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).expect("move into the namespace");
            act()
        });
        Some(
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    })
}

fn processes_in(namespace: &str) -> Vec<i32> {
    let id = |path: PathBuf| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let Some(wanted) = id(namespace_file(namespace)) else {
        return Vec::new();
    };
    // Of a dead process that nobody has waited for yet, the link cannot be read.
    let there = |pid: &i32| id(PathBuf::from(format!("/proc/{pid}/ns/net"))) == Some(wanted);
    processes().into_iter().filter(there).collect()
}

fn kill_all_in(namespace: &str) {
    loop {
        let found = processes_in(namespace);
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            wait_gone(pid);
        }
    }
}

/// Removes a namespace, if it is there, with all that runs in it.
fn remove(namespace: &str) {
    if there(namespace) {
        kill_all_in(namespace);
        // Somebody else may remove leftovers at the same time.
        if let Err(why) = run("ip", &format!("netns del {namespace}"))
            && there(namespace)
        {
            eprintln!("{why}");
        }
    }
}

/// Removes what a test run left that was killed.
fn remove_leftovers() {
    let names = fs::read_dir(NAMED).into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let maker = name
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_prefix('-')?.split('-').next()?.parse::<i32>().ok());
        if maker.is_some_and(|pid| !super::alive(pid)) {
            remove(&name);
        }
    }
}

fn ip(arguments: &str) {
    run("ip", arguments).unwrap_or_else(|why| panic!("{why}"));
}

/// Gives a namespace's packet filter these rules.
fn nft(namespace: &str, rules: &str) {
    inside(namespace, || run_with("nft", "-f -", rules))
        .expect("a namespace")
        .unwrap_or_else(|why| panic!("{why}: {rules}"));
}

fn run(program: &str, arguments: &str) -> Result<(), String> {
    run_with(program, arguments, "")
}

fn run_with(program: &str, arguments: &str, input: &str) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display| format!("{program} {arguments}: {why}");
    let mut child = Command::new(program)
        .args(arguments.split_whitespace())
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let written = child.stdin.take().expect("stdin").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    written.map_err(|error| failed(&error))
}
