//! A client between two requests goes to another process: it is sent there, and identified there.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::AsFd;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::drain::{Migration, WorkerState};
use super::forwarded::Peer;
use super::moved_client::{Announcement, MovedClient};

/// The client's socket, and its peer.
///
/// # Errors
/// When the client is gone, or the runtime cannot watch its socket.
pub fn identify(client: MovedClient) -> io::Result<(TcpStream, Peer)> {
    let stream = StdTcpStream::from(client.socket);
    stream.set_nonblocking(true)?;
    let peer = match stream.peer_addr() {
        Ok(addr) => Peer::Tcp(addr.ip()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Err(error),
        // The peer has no internet address: a unix socket.
        Err(_) => Peer::Unix,
    };
    let peer = match client.announced {
        Announcement::None => peer,
        Announcement::Client(address) => Peer::Announced(address),
    };
    Ok((TcpStream::from_std(stream)?, peer))
}

/// Sends the socket to the other process. This process closes its own descriptor with the
/// connection, which leaves the other one open.
pub fn send(state: &watch::Receiver<WorkerState>, socket: &TcpStream, peer: Peer) {
    if let Migration::To(destination) = &state.borrow().migration
        && let Ok(socket) = socket.as_fd().try_clone_to_owned()
    {
        let announced = peer.announcement();
        // Nobody receives only when the process ends.
        let _ = destination.send(MovedClient { socket, announced });
    }
}
