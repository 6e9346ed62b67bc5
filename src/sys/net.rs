//! TCP ports: is one free, and who has it. The addresses of this machine.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::process;

/// A port that is free on the loopback address now.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether somebody listens on this address. Like a server's own bind (the standard library sets SO_REUSEADDR), so
/// that connections that are only timing out do not count.
pub fn in_use(address: SocketAddr) -> bool {
    matches!(TcpListener::bind(address), Err(e) if e.kind() == io::ErrorKind::AddrInUse)
}

/// The first of these addresses, written as in PostgreSQL's `listen_addresses`, on which somebody listens on this port.
/// A name that is no address is left to the server.
pub fn first_in_use(listen_addresses: &str, port: u16) -> Option<IpAddr> {
    listen_addresses
        .split(',')
        .filter_map(|element| match element.trim() {
            "*" | "0.0.0.0" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            other => other.parse().ok(),
        })
        .find(|ip| in_use(SocketAddr::new(*ip, port)))
}

/// Which process listens on a TCP port, as "python3 (process 4711)"; `None`: it cannot be seen (another user's).
pub fn listener(port: u16) -> Option<String> {
    let suffix = format!(":{port:04X}");
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // local address, state (0A: listening), inode
            if let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
                && local.ends_with(&suffix)
            {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    process::all().ok()?.into_iter().find_map(|pid| {
        let holds = fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.to_str() == Some(inode)));
        if !holds {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(format!("{} (process {pid})", name.trim()))
    })
}

/// The addresses under which another machine may reach this one, the most likely first: of interfaces that are up, no
/// loopback, no link-local IPv6 (it needs a zone, which differs from machine to machine).
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let usable = |interface: &nix::ifaddrs::InterfaceAddress| {
        interface
            .flags
            .contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    };
    let mut found: Vec<((bool, bool, bool), IpAddr)> = Vec::new();
    for interface in getifaddrs()?.filter(usable) {
        let Some(address) = interface.address else {
            continue;
        };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        let Some(ip) = v4.or_else(v6) else { continue };
        // Two laptops with a cable between them and nothing else give themselves 169.254.…: better than none.
        let improvised = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) if ip.is_unicast_link_local() => continue,
            IpAddr::V6(_) => false,
        };
        // A card has a device behind it; the bridge of a container engine, which nobody reaches from outside, has none.
        let card = Path::new("/sys/class/net")
            .join(&interface.interface_name)
            .join("device")
            .exists();
        if !found.iter().any(|(_, known)| *known == ip) {
            found.push(((ip.is_ipv6(), improvised, !card), ip));
        }
    }
    // Stable: within a kind the kernel's order stays.
    found.sort_by_key(|(last, _)| *last);
    Ok(found.into_iter().map(|(_, ip)| ip).collect())
}

/// The own address that packets to `other` would carry; `None`: there is no way to it now. Nothing is sent.
pub fn address_towards(other: IpAddr) -> Option<IpAddr> {
    let any = match other {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((other, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}
