//! Listening sockets: bound here or passed by a service manager, with their backlog. They stay open
//! while clients may wait in the listen queue.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcp};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener as StdUnix;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self, Backlog, sockopt};

use crate::config::Listen;
use crate::os::platform;
use crate::os::port::{self, knock};
use crate::os::unix_socket;

/// Clients that may wait to be accepted; the kernel limits it to net.core.somaxconn (4096 by default
/// since 5.4).
pub const BACKLOG: i32 = 4096;

/// Seconds of silence before the kernel asks a client whether it is still there; the default of two
/// hours keeps abandoned WebSockets for too long. 75 s is what macOS waits between its probes.
#[cfg(target_os = "linux")]
const KEEPALIVE_IDLE: u32 = 75;

#[derive(Debug)]
pub enum ListenSocket {
    Tcp(StdTcp),
    /// A unix stream socket, and the device and inode of the path that leads to it, if one does.
    Unix(StdUnix, Option<(u64, u64)>),
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: {}", self.listen(), self.cause())]
pub enum BindError {
    Taken(Listen),
    /// A port below 1024 or a directory without permission, an address of no network, a full table
    /// of descriptors.
    Failed {
        listen: Listen,
        source: io::Error,
    },
}

impl BindError {
    /// The cause without the address.
    pub fn cause(&self) -> String {
        match self {
            Self::Taken(_) => "another program listens there".to_owned(),
            Self::Failed { listen, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!(
                    "{} ({source}): {}",
                    not_permitted(listen),
                    permitted(listen)
                )
            }
            Self::Failed { source, .. } => source.to_string(),
        }
    }

    pub fn listen(&self) -> &Listen {
        match self {
            Self::Taken(listen) | Self::Failed { listen, .. } => listen,
        }
    }
}

/// What this user may not do.
fn not_permitted(listen: &Listen) -> String {
    let first = port::unprivileged_start();
    match listen {
        Listen::Tcp(address) if address.port() < first => {
            format!("this user may not use a port below {first}")
        }
        Listen::Tcp(_) => "this user may not use it".to_owned(),
        Listen::Unix(path) => {
            let dir = path.parent().unwrap_or(path);
            format!("this user may make no socket in {}", dir.display())
        }
    }
}

/// What to do about that.
fn permitted(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(_) => {
            let last = port::unprivileged_start().saturating_sub(1);
            format!("run it with sudo, or choose a port above {last}, as in --listen 8080")
        }
        Listen::Unix(_) => {
            "run it with sudo, or choose a directory of this user, such as $XDG_RUNTIME_DIR"
                .to_owned()
        }
    }
}

impl ListenSocket {
    /// Binds and listens.
    ///
    /// # Errors
    /// [`BindError`], which names the address and the cause.
    pub fn bind(listen: &Listen) -> Result<Self, BindError> {
        let result = match listen {
            Listen::Tcp(addr) => bind_tcp(*addr).map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).map(|listener| Self::Unix(listener, place(path))),
        };
        let listen = listen.clone();
        result.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken(listen),
            _ => BindError::Failed { listen, source },
        })
    }

    /// Takes over a socket that another process passed; none when it is not a listening stream socket.
    pub fn adopt(fd: OwnedFd) -> Option<Self> {
        if !socket::getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false) {
            return None;
        }
        let tcp = StdTcp::from(fd);
        if tcp.local_addr().is_ok() {
            return Some(Self::Tcp(tcp));
        }
        // Neither has an address of another family.
        let unix = StdUnix::from(OwnedFd::from(tcp));
        let path = unix.local_addr().ok()?.as_pathname().map(Path::to_owned);
        let place = path.and_then(|path| place_of(&unix, &path));
        Some(Self::Unix(unix, place))
    }

    /// Where it listens; for port 0, with the port that the kernel chose.
    pub fn local(&self) -> Option<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Listen::tcp),
            Self::Unix(listener, _) => {
                let addr = listener.local_addr().ok()?;
                Some(Listen::Unix(addr.as_pathname()?.to_owned()))
            }
        }
    }

    /// Whether this is the socket of a configured address, and clients still reach it there.
    pub fn serves(&self, listen: &Listen) -> bool {
        match (self, listen) {
            (Self::Tcp(_), Listen::Tcp(_)) => self.local().as_ref() == Some(listen),
            // As long as the socket is open, its inode belongs to no other file, even when the path
            // is gone.
            (Self::Unix(_, known), Listen::Unix(path)) => {
                self.local().as_ref() == Some(listen) && known.is_some() && *known == place(path)
            }
            _ => false,
        }
    }

    /// Sets the options of the connections that will be accepted here: no delay for small responses,
    /// and keep-alive probes to clients that vanished. Linux copies them from the listener.
    ///
    /// # Errors
    /// When the kernel refuses an option.
    pub fn tune(&self) -> io::Result<()> {
        if let Self::Tcp(listener) = self {
            socket::setsockopt(listener, sockopt::TcpNoDelay, &true)?;
            socket::setsockopt(listener, sockopt::KeepAlive, &true)?;
            #[cfg(target_os = "linux")]
            socket::setsockopt(listener, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
        }
        Ok(())
    }

    /// Lets no new client into the listen queue; those that are in it stay. For the end of a
    /// listener that no other process holds. A client that comes now is refused as soon as the
    /// socket is closed, instead of reset.
    pub fn refuse(&self) {
        match self {
            Self::Tcp(listener) => {
                // Not every kernel lets a process without privilege do so. A queue for one client
                // is the shortest that there is: at most one is reset.
                if platform::drop_new_connections(listener).is_err()
                    && let Ok(shortest) = Backlog::new(0)
                {
                    let _ = socket::listen(listener, shortest);
                }
            }
            Self::Unix(..) => self.remove_path(),
        }
    }

    /// Removes the path of a unix listener, if it still leads to this very socket.
    pub fn remove_path(&self) {
        let (Self::Unix(_, Some(known)), Some(Listen::Unix(path))) = (self, self.local()) else {
            return;
        };
        // A path that is not removed is replaced by the next process.
        let _ = unix_socket::in_directory_of(&path, |entry| {
            if place(entry) == Some(*known) {
                fs::remove_file(entry)?;
            }
            Ok(())
        });
    }

    /// A second handle on the same socket.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener, place) => listener
                .try_clone()
                .map(|listener| Self::Unix(listener, *place)),
        }
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<StdTcp> {
    let fd = port::bound(addr)?;
    socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}

/// Binds a unix listener. A socket file without a listener is replaced, one with a listener is not.
fn bind_unix(path: &Path) -> io::Result<StdUnix> {
    match unix_socket::in_directory_of(path, make_room) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        tried => tried?,
    }
    // Whoever may enter the directory may connect.
    let listener = unix_socket::bind_address(path, 0o666)?;
    socket::listen(&listener, Backlog::new(BACKLOG)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket without a listener.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => match knock(path) {
            // A full queue has a listener, too; waiting for room in it might never end.
            Ok(()) | Err(Errno::EAGAIN) => Err(io::ErrorKind::AddrInUse.into()),
            Err(Errno::ECONNREFUSED) => fs::remove_file(path),
            Err(error) => Err(error.into()),
        },
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name that is not a socket",
        )),
        Err(error) => Err(error),
    }
}

/// Device and inode of a socket's path.
fn place(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::symlink_metadata(path)
        .ok()
        .filter(|meta| meta.file_type().is_socket())?;
    Some((meta.dev(), meta.ino()))
}

/// Device and inode of `path`, if connecting to it reaches this very socket. The path may have been
/// removed, or lead to another one by now.
fn place_of(listener: &StdUnix, path: &Path) -> Option<(u64, u64)> {
    let place = place(path)?;
    // /proc/net/unix lists each bound socket's inode and path; the socket's own inode is that of
    // its descriptor.
    let ours = nix::sys::stat::fstat(listener).ok()?.st_ino.to_string();
    let (Ok(table), Some(path)) = (fs::read_to_string("/proc/net/unix"), path.to_str()) else {
        return Some(place);
    };
    // Columns: number, references, protocol, flags, type, state, inode, path. Accepted connections
    // bear the path, too, but only listeners have the flag __SO_ACCEPTCON; a newer socket bound to
    // the same path would be a second one of them.
    const LISTENS: &str = "00010000";
    // A path may hold blanks: it is what the line ends with.
    let here: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_suffix(path)?.strip_suffix(' '))
        .map(|before| before.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.len() == 7 && columns[3] == LISTENS)
        .collect();
    matches!(here.as_slice(), [only] if only[6] == ours).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let first = ListenSocket::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let listen = first.local().unwrap();
        assert!(first.serves(&listen));
        let error = ListenSocket::bind(&listen).unwrap_err();
        assert!(
            matches!(&error, BindError::Taken(at) if *at == listen),
            "{error}"
        );
    }

    #[test]
    fn a_dead_unix_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let listen = Listen::Unix(path.clone());
        let first = ListenSocket::bind(&listen).unwrap();
        assert!(first.serves(&listen));
        assert!(matches!(
            ListenSocket::bind(&listen),
            Err(BindError::Taken(_))
        ));
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(first.serves(&listen), "with a client in its queue, too");
        let ListenSocket::Unix(listener, _) = &first else {
            unreachable!()
        };
        assert!(
            ListenSocket::adopt(listener.try_clone().unwrap().into())
                .unwrap()
                .serves(&listen),
            "as the next process finds it, too"
        );
        drop(first);
        let second = ListenSocket::bind(&listen).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!second.serves(&listen), "the path is gone");
        fs::write(&path, "x").unwrap();
        assert!(ListenSocket::bind(&listen).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"x", "a file is never removed");
    }

    /// The owner of the directory could put another file in the socket's place in between.
    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_is_done_to_a_unix_listener_by_its_path_after_the_bind() {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        let watched = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(dir.path(), watched).unwrap();
        let _socket = ListenSocket::bind(&Listen::Unix(path.clone())).unwrap();
        let facts = fs::symlink_metadata(&path).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o666);
        let seen: Vec<_> = (inotify.read_events().unwrap().iter())
            .map(|event| event.mask)
            .collect();
        assert_eq!(seen, [AddWatchFlags::IN_CREATE]);
    }

    #[test]
    fn a_listener_removes_its_own_socket_and_nothing_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listen = Listen::Unix(path.clone());
        let first = ListenSocket::bind(&listen).unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        let second = ListenSocket::bind(&listen).unwrap();
        first.remove_path();
        assert!(second.serves(&listen));
        second.remove_path();
        assert!(!path.exists());
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        let listener = StdTcp::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(ListenSocket::adopt(client.into()).is_none());
        assert!(ListenSocket::adopt(listener.into()).is_some());
        assert!(ListenSocket::adopt(fs::File::open("/dev/null").unwrap().into()).is_none());
    }
}
