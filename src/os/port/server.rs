//! Connections to a server on loopback, and to nobody who took its place.
//!
//! Every local user can bind a private port too, once `ps` shows it: before the server does, at the
//! loopback address of the other family, or when the server closes its listener. So a connection
//! counts only when the socket that listens at its very address is held by the server's processes.
//! The processes are looked at once for each such socket; each connection only asks whether it is
//! still that socket.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{Depth, Holder, Socket, kernel, who};
use crate::config::Listen;
use crate::os::accept_queue::{AcceptQueue, ConnectTurn, ConnectTurns};
use crate::os::mutex::lock;
use crate::os::process;

/// How often a connection is tried while the server changes its listener.
const TRIES: usize = 3;

/// How long a socket counts as a stranger's: a look at the processes takes milliseconds, and many
/// requests may wait for the same answer. The server may have passed it on meanwhile.
const STRANGE: Duration = Duration::from_millis(100);

/// Where a server listens, and whose processes must hold the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    pub address: SocketAddr,
    /// The first process of the server; its group and their descendants are the server, too.
    pub pid: u32,
}

/// A server to connect to.
#[derive(Debug)]
pub struct Server {
    pub at: ServerAddress,
    listener: Mutex<Listener>,
    turns: ConnectTurns,
    /// One look at the processes at a time.
    look: tokio::sync::Mutex<()>,
}

/// What is known of the socket at the address.
#[derive(Clone, Debug)]
enum Listener {
    Unknown,
    Own(Socket),
    Strange {
        socket: Socket,
        holder: String,
        since: Instant,
    },
}

/// Another program listens at the address of a server.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// The program, for the operator of the gateway.
    pub holder: String,
    /// Whether this was not known before.
    pub new: bool,
}

impl fmt::Display for Stranger {
    // Clients may read this, and need not know who it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another program listens at its address")
    }
}

impl std::error::Error for Stranger {}

impl Stranger {
    /// The stranger for whom a connection was not made.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn error(holder: &str, new: bool) -> io::Error {
        let holder = holder.to_owned();
        io::Error::new(io::ErrorKind::ConnectionRefused, Self { holder, new })
    }
}

impl Server {
    /// `pid` is the first process of the server.
    pub fn new(address: SocketAddr, pid: u32) -> Self {
        ServerAddress { address, pid }.into()
    }

    /// Connects to the server, and to nobody else.
    ///
    /// # Errors
    /// When nobody listens at its address, or a [`Stranger`]; when the kernel does not say who
    /// listens.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        for _ in 0..TRIES {
            let known = match &*lock(&self.listener) {
                Listener::Own(socket) => Some(socket.clone()),
                _ => None,
            };
            let own = match known {
                Some(own) => own,
                None => self.find().await?,
            };
            let stream = TcpStream::connect(self.at.address).await?;
            // The same socket before and after: no other can have taken the connection.
            let after = kernel::listener_at(self.at.address)?;
            if let Some(same) = after.filter(|after| after.is(&own)) {
                self.turns.saw(same.queue);
                return Ok(stream);
            }
            self.forget(&own);
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    /// A turn to connect, where the server's accept queue has room and nobody waits for it.
    pub fn turn_now(&self) -> Option<ConnectTurn<'_>> {
        self.turns.now(|| self.queue())
    }

    /// Waits for a turn to connect.
    pub async fn turn(&self) -> ConnectTurn<'_> {
        self.turns.next(|| self.queue()).await
    }

    fn queue(&self) -> Option<AcceptQueue> {
        let listener = kernel::listener_at(self.at.address).ok()??;
        Some(listener.queue)
    }

    fn forget(&self, own: &Socket) {
        let mut listener = lock(&self.listener);
        if matches!(&*listener, Listener::Own(socket) if socket.is(own)) {
            *listener = Listener::Unknown;
        }
    }

    /// The server's listener. Others that look for it meanwhile wait, and get the same answer.
    async fn find(&self) -> io::Result<Socket> {
        let _one = self.look.lock().await;
        let socket =
            kernel::listener_at(self.at.address)?.ok_or(io::ErrorKind::ConnectionRefused)?;
        let known = lock(&self.listener).clone();
        let known_holder = match known {
            Listener::Own(own) if own.is(&socket) => return Ok(own),
            Listener::Strange {
                socket: known,
                holder,
                since,
            } if known.is(&socket) => {
                if since.elapsed() < STRANGE {
                    return Err(Stranger::error(&holder, false));
                }
                Some(holder)
            }
            _ => None,
        };
        let new = known_holder.is_none();
        let at = self.at;
        let look = move || match at.holds(&socket) {
            true => Ok(socket),
            false => Err((socket, known_holder.unwrap_or_else(|| at.holder()))),
        };
        let (known, found) = match tokio::task::spawn_blocking(look)
            .await
            .map_err(io::Error::other)?
        {
            Ok(socket) => (Listener::Own(socket.clone()), Ok(socket)),
            Err((socket, holder)) => {
                let error = Stranger::error(&holder, new);
                let known = Listener::Strange {
                    socket,
                    holder,
                    since: Instant::now(),
                };
                (known, Err(error))
            }
        };
        *lock(&self.listener) = known;
        found
    }
}

impl From<ServerAddress> for Server {
    fn from(at: ServerAddress) -> Self {
        Self {
            at,
            listener: Mutex::new(Listener::Unknown),
            turns: ConnectTurns::default(),
            look: tokio::sync::Mutex::default(),
        }
    }
}

impl ServerAddress {
    /// Whether the server's processes hold a socket. Where one of them may not be looked into, a
    /// socket of its user will do, and one of root, who could take everything anyway: no other user
    /// can make such a socket.
    fn holds(&self, socket: &Socket) -> bool {
        let mut hidden_users = HashSet::new();
        for pid in process::descendants(self.pid) {
            match kernel::sockets_of(pid) {
                Some(held) if held.contains(&socket.inode) => return true,
                Some(_) => {}
                None => hidden_users.extend(process::users(pid)),
            }
        }
        let of_hidden = |uid| !hidden_users.is_empty() && (uid == 0 || hidden_users.contains(&uid));
        socket.uid.is_some_and(of_hidden)
    }

    /// The addresses beyond loopback at which the server listens on its port, as far as that can be
    /// seen: who reaches this machine reaches it there.
    pub fn exposed(&self) -> Vec<IpAddr> {
        let sockets = kernel::tcp(self.address.port()).unwrap_or_default();
        let descendants = process::descendants(self.pid).into_iter();
        let held: HashSet<u64> = descendants
            .filter_map(kernel::sockets_of)
            .flatten()
            .collect();
        // That one is the server's own in any case: it was connected to.
        let taking = Socket::taking(sockets.clone(), self.address);
        let own = |socket: &&Socket| {
            held.contains(&socket.inode) || taking.as_ref().is_some_and(|taking| taking.is(socket))
        };
        let address = |socket: &Socket| match &socket.listen {
            Listen::Tcp(address) if !address.ip().is_loopback() => Some(address.ip()),
            _ => None,
        };
        let mut exposed: Vec<IpAddr> = sockets.iter().filter(own).filter_map(address).collect();
        exposed.sort();
        exposed.dedup();
        exposed
    }

    /// Who listens at the address, in words.
    fn holder(&self) -> String {
        let holders = who(&Listen::tcp(self.address), &[], Depth::First);
        let names: Vec<String> = holders.iter().map(Holder::to_string).collect();
        match names.is_empty() {
            true => "a process that is gone again".to_owned(),
            false => names.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process in a group of its own, as every sidecar is, that holds a listener.
    fn holding(listener: &TcpListener) -> Child {
        let input = OwnedFd::from(listener.try_clone().unwrap());
        let mut command = Command::new("sleep");
        command.arg("60").stdin(Stdio::from(input)).process_group(0);
        command.spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A server that is this process.
    fn server(listener: &TcpListener) -> Server {
        Server::new(listener.local_addr().unwrap(), std::process::id())
    }

    #[tokio::test]
    async fn only_the_servers_own_listener_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        server(&listener).connect().await.unwrap();
        let other = holding(&TcpListener::bind("127.0.0.1:0").unwrap());
        let theirs = Server::new(listener.local_addr().unwrap(), other.id());
        for new in [true, false] {
            let error = theirs.connect().await.unwrap_err();
            let stranger = Stranger::of(&error).unwrap();
            let me = format!("(pid {}, uid ", std::process::id());
            assert!(stranger.holder.contains(&me), "{}", stranger.holder);
            assert_eq!(stranger.new, new);
        }
        end(other);
    }

    #[tokio::test]
    async fn a_listener_that_the_server_passed_on_to_another_process_stays_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = holding(&listener);
        let server = Server::new(listener.local_addr().unwrap(), first.id());
        server.connect().await.unwrap();
        let second = holding(&listener);
        end(first);
        server.connect().await.unwrap();
        end(second);
    }

    #[tokio::test]
    async fn a_server_that_listens_anew_is_found_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (server, address) = (server(&listener), server(&listener).at.address);
        let first = server.connect().await.unwrap();
        drop((first, listener));
        let error = server.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let _again = TcpListener::bind(address).unwrap();
        server.connect().await.unwrap();
    }

    #[test]
    fn what_listens_at_more_than_loopback_is_exposed() {
        for (address, exposed) in [
            ("127.0.0.1:0", None),
            ("127.0.0.2:0", None),
            ("[::1]:0", None),
            ("0.0.0.0:0", Some("0.0.0.0")),
            ("[::]:0", Some("::")),
        ] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let at = |pid| ServerAddress { address, pid };
            let expected: Vec<IpAddr> = exposed.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(at(std::process::id()).exposed(), expected);
        }
        // What somebody else has at the port is no exposure of the server.
        let own = TcpListener::bind("[::1]:0").unwrap();
        let address = own.local_addr().unwrap();
        let other = holding(&TcpListener::bind("127.0.0.1:0").unwrap());
        let _theirs = TcpListener::bind(("0.0.0.0", address.port())).unwrap();
        let pid = other.id();
        assert!(ServerAddress { address, pid }.exposed().is_empty());
        end(other);
    }

    #[tokio::test]
    async fn a_listener_at_another_address_of_the_port_does_not_count() {
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let port = v6.local_addr().unwrap().port();
        let server = Server::new(([127, 0, 0, 1], port).into(), std::process::id());
        assert!(server.connect().await.is_err());
    }
}
