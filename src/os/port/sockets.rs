//! Which listening sockets keep a gateway from an address.

use std::io;

use super::kernel::{tcp, unix};
use super::socket::Socket;
use crate::config::Listen;

/// The sockets that keep a gateway from listening at an address.
///
/// # Errors
/// When the kernel does not list its sockets: on Linux, when neither sock_diag nor /proc/net can be
/// read.
pub fn in_the_way_of(listen: &Listen) -> io::Result<Vec<Socket>> {
    let mut found = match listen {
        Listen::Tcp(address) => tcp(address.port())?,
        Listen::Unix(_) => unix()?,
    };
    // For port 0 the kernel chooses a free port.
    found.retain(|socket| listen.port() != Some(0) && socket.is_in_the_way_of(listen));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    use crate::os::port::can_be_had;

    #[test]
    fn what_is_in_the_way_is_what_a_bind_meets() {
        let addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]"];
        for held in addresses {
            let listener = TcpListener::bind(format!("{held}:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            for wanted in addresses {
                let address: SocketAddr = format!("{wanted}:{port}").parse().unwrap();
                let free = can_be_had(&Listen::Tcp(address)).unwrap();
                let found = in_the_way_of(&Listen::Tcp(address)).unwrap();
                // Another test may have the port on another address.
                let ours = found
                    .iter()
                    .any(|socket| socket.listen == Listen::Tcp(listener.local_addr().unwrap()));
                assert!(
                    !free || !ours,
                    "{held} is held, {wanted} can be had, but {found:?}"
                );
                assert!(
                    free || !found.is_empty(),
                    "{held} is held, {wanted} cannot be had, and nothing is in its way"
                );
            }
        }
    }
}
