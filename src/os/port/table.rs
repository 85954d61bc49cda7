//! Listening sockets from the tables in /proc/net: for kernels and sandboxes without sock_diag,
//! such as gVisor.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::{fs, io};

use super::socket::Socket;
use crate::config::Listen;

/// The TCP sockets that listen on a port, of either family; on every port for 0.
pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    let mut table = fs::read_to_string("/proc/net/tcp")?;
    // A kernel without IPv6 has no such table.
    table.push_str(&fs::read_to_string("/proc/net/tcp6").unwrap_or_default());
    Ok(table
        .lines()
        .filter_map(inet)
        .filter(|socket| port == 0 || socket.listen.port() == Some(port))
        .collect())
}

/// The unix sockets that listen somewhere in the file system.
pub fn unix() -> io::Result<Vec<Socket>> {
    // A path is any bytes.
    Ok(fs::read("/proc/net/unix")?
        .split(|byte| *byte == b'\n')
        .filter_map(local)
        .collect())
}

/// A line about a TCP socket that listens.
pub fn inet(line: &str) -> Option<Socket> {
    /// TCP_LISTEN of the kernel's net/tcp_states.h.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (addr, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // An address consists of 32-bit words in the machine's own byte order.
    let word = |at| u32::from_str_radix(addr.get(at..at + 8)?, 16).ok();
    let bytes: Vec<u8> = (0..addr.len())
        .step_by(8)
        .map(|at| word(at).map(u32::to_ne_bytes))
        .collect::<Option<Vec<_>>>()?
        .concat();
    let addr: IpAddr = if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        Ipv4Addr::from(bytes).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
    };
    let listen = Listen::tcp(SocketAddr::new(addr, port));
    let (uid, inode) = (fields.get(7)?.parse().ok(), fields.get(9)?.parse().ok()?);
    Some(Socket::new(listen, inode, uid))
}

/// A line about a unix socket that listens at a path.
pub fn local(line: &[u8]) -> Option<Socket> {
    /// __SO_ACCEPTCON of the kernel's linux/net.h.
    const LISTENS: &str = "00010000";
    // Columns: number, references, protocol, flags, type, state, inode; then a blank and the name,
    // which may hold anything.
    let mut rest = line;
    let mut column = || {
        let begin = rest.trim_ascii_start();
        let end = begin.iter().position(|byte| *byte == b' ')?;
        let (column, behind) = begin.split_at(end);
        rest = behind;
        str::from_utf8(column).ok()
    };
    let columns = [(); 7].map(|()| column());
    let [_, _, _, Some(LISTENS), _, _, Some(inode)] = columns else {
        return None;
    };
    let path = rest
        .strip_prefix(b" ")
        .filter(|path| path.starts_with(b"/"))?;
    let listen = Listen::Unix(OsStr::from_bytes(path).into());
    Some(Socket::new(listen, inode.parse().ok()?, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use crate::os::port::diag;

    /// Those at `listen`, with what both ways show.
    fn told(sockets: std::io::Result<Vec<Socket>>, listen: &Listen) -> Vec<(u64, Listen)> {
        let found = sockets
            .unwrap()
            .into_iter()
            .filter(|socket| socket.listen == *listen);
        found.map(|socket| (socket.inode, socket.listen)).collect()
    }

    #[test]
    fn the_tables_say_what_the_kernel_says() {
        for address in [
            "127.0.0.1:0",
            "[::1]:0",
            "0.0.0.0:0",
            "[::]:0",
            "[::ffff:127.0.0.1]:0",
        ] {
            let listener = TcpListener::bind(address).unwrap();
            let listen = Listen::tcp(listener.local_addr().unwrap());
            let port = listen.port().unwrap();
            assert_eq!(told(tcp(port), &listen), told(diag::tcp(port), &listen));
            assert_eq!(told(tcp(port), &listen).len(), 1);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let listen = Listen::Unix(path);
        assert_eq!(told(unix(), &listen), told(diag::unix(), &listen));
        assert_eq!(told(unix(), &listen).len(), 1);
    }
}
