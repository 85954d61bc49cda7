//! The twin of linux.rs, which describes the functions: the list of all TCP sockets, which every user
//! may read, and libproc, which shows the processes of the own user (to root, all of them). The
//! "inode" of a socket is the kernel's handle of it, which is the same in both.

use std::io;
use std::net::SocketAddr;

use super::Socket;
use crate::config::Listen;
use crate::os::darwin::{ListeningSocket, calls, fdinfo, pcb};
use crate::os::process;

/// The default of macOS, for where it cannot be read.
const EPHEMERAL: u16 = 49_152;

pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    let listeners = calls::sysctl(c"net.inet.tcp.pcblist_n").map(|list| pcb::listeners(&list));
    let mut found: Vec<Socket> = match listeners {
        Ok(listeners) => listeners.into_iter().map(socket).collect(),
        // A sandbox may forbid the list: then the sockets that libproc shows have to do.
        Err(error) => Some(of_processes())
            .filter(|found| !found.is_empty())
            .ok_or(error)?,
    };
    found.retain(|socket| matches!(socket.listen, Listen::Tcp(address) if port == 0 || address.port() == port));
    Ok(found)
}

pub fn listener_at(address: SocketAddr) -> io::Result<Option<Socket>> {
    tcp(address.port()).map(|sockets| Socket::taking(sockets, address))
}

/// Only of processes that may be looked into.
pub fn unix() -> io::Result<Vec<Socket>> {
    let mut found = of_processes();
    found.retain(|socket| matches!(socket.listen, Listen::Unix(_)));
    Ok(found)
}

/// The listeners of every process that may be looked into, each once.
fn of_processes() -> Vec<Socket> {
    let mut found: Vec<Socket> = Vec::new();
    for info in process::all().filter_map(calls::sockets).flatten() {
        if let Some(listener) = fdinfo::listener(&info)
            && !found.iter().any(|socket| socket.inode == listener.handle)
        {
            found.push(socket(listener));
        }
    }
    found
}

fn socket(listener: ListeningSocket) -> Socket {
    Socket {
        v6only: listener.v6only,
        queue: listener.queue,
        ..Socket::new(listener.listen, listener.handle, listener.uid)
    }
}

pub fn sockets_of(pid: u32) -> Option<Vec<u64>> {
    let sockets = calls::sockets(pid)?;
    Some(
        sockets
            .iter()
            .filter_map(|info| fdinfo::handle(info))
            .collect(),
    )
}

/// The first port that every user may bind, at one address; at all addresses they may bind any.
pub fn unprivileged_start() -> u16 {
    1024
}

pub fn ephemeral_start() -> u16 {
    calls::sysctl(c"net.inet.ip.portrange.first")
        .ok()
        .and_then(|value| u16::try_from(i32::from_ne_bytes(value.try_into().ok()?)).ok())
        .unwrap_or(EPHEMERAL)
}
