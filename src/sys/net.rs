//! TCP ports: is one free, and who has it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};

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
