//! Whether a sidecar is ready: it listens on its port, answers a path, or says so itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::notify_socket::NotifySocket;
use crate::config::Ready;
use crate::os::port::{self, Server, Stranger};
use crate::os::process;

/// Between two looks at a port. The kernel has no event for a program that begins to listen.
const POLL: Duration = Duration::from_millis(5);

/// The same for a slow starter, after [`EAGER`].
const POLL_LATER: Duration = Duration::from_millis(25);

/// How long a start is watched closely.
const EAGER: Duration = Duration::from_secs(2);

/// How long one HTTP answer may take. A readiness probe is repeated after that. A server that is
/// asked to finish its work answers at once; a longer wait would only take from the time that the
/// work itself has.
pub const ANSWER: Duration = Duration::from_secs(2);

/// After this long without the right listener we look whether it listens elsewhere, and again each
/// time it passes.
const ELSEWHERE: Duration = Duration::from_millis(500);

/// What is odd about a slow start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// In words that follow the sidecar's name.
    pub text: String,
    /// Whether it is most likely not to get better by itself.
    pub hopeless: bool,
}

/// What to look for.
#[derive(Debug)]
pub struct ReadinessProbe<'a> {
    pub ready: &'a Ready,
    /// The port assigned to it.
    pub port: u16,
    /// Whether that can be another one at the next start.
    pub private: bool,
    pub pid: u32,
    /// Its notify socket, for [`Ready::Notify`].
    pub notify: Option<&'a NotifySocket>,
}

impl ReadinessProbe<'_> {
    /// Waits until the sidecar is ready; tells `hint` once what is odd about a slow one.
    pub async fn ready(&self, hint: impl FnMut(Hint)) -> Arc<Server> {
        let Some(notify) = self.notify else {
            return self.listens(hint).await;
        };
        notify.ready().await;
        tokio::select! {
            server = self.listens(hint) => server,
            never = notify.read_on() => match never {},
        }
    }

    async fn listens(&self, mut hint: impl FnMut(Hint)) -> Arc<Server> {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let places = loopback.map(|host| {
            let address = SocketAddr::new(host, self.port);
            Arc::new(Server::new(address, self.pid))
        });
        let begun = Instant::now();
        let mut look_elsewhere = begun + ELSEWHERE;
        let mut hinted = false;
        loop {
            let mut odd = None;
            for server in &places {
                match self.answers(server).await {
                    Ok(()) => return Arc::clone(server),
                    Err(hint) => odd = odd.or(hint),
                }
            }
            let now = Instant::now();
            if !hinted && now >= look_elsewhere {
                look_elsewhere = now + ELSEWHERE;
                if let Some(odd) = odd.or_else(|| self.elsewhere()) {
                    hint(odd);
                    hinted = true;
                }
            }
            let eager = now.duration_since(begun) < EAGER;
            tokio::time::sleep(if eager { POLL } else { POLL_LATER }).await;
        }
    }

    fn elsewhere(&self) -> Option<Hint> {
        let found = port::listening_of(&process::descendants(self.pid));
        if found.iter().any(|address| address.port() == self.port) {
            return None;
        }
        let other = found.first()?.port();
        let assigned = self.port;
        let text = format!(
            "is listening on {other} instead of the assigned port {assigned}: use {{port}} in its command or $PORT in the program, or `--port {other}`"
        );
        Some(Hint {
            text,
            hopeless: true,
        })
    }

    /// Whether it listens there, and answers its path with success, where it has one; if not, what
    /// is odd.
    async fn answers(&self, server: &Server) -> Result<(), Option<Hint>> {
        let answered = async {
            let Ready::Http(path) = self.ready else {
                return server.connect().await.map(|_| None);
            };
            let request = format!("GET {path} HTTP/1.1\r\nuser-agent: gateway-probe");
            let status = status_of(server, &request).await?;
            Ok(Some((path, status)))
        };
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Ok(None | Some((_, 200..400)))) => Ok(()),
            Ok(Ok(Some((path, status)))) => Err(Some(Hint {
                text: format!("answers {path} with {status}"),
                hopeless: false,
            })),
            Ok(Err(error)) => {
                Err(Stranger::of(&error).map(|stranger| self.taken(server, stranger)))
            }
            Err(_) => Err(None),
        }
    }

    fn taken(&self, server: &Server, stranger: &Stranger) -> Hint {
        let (address, holder) = (server.at.address, &stranger.holder);
        Hint {
            text: format!("is not what listens on {address}: that is {holder}"),
            hopeless: self.private,
        }
    }
}

/// The status that a sidecar answers. `request` is the head of the request without its end.
pub async fn status_of(server: &Server, request: &str) -> io::Result<u16> {
    let mut stream = server.connect().await?;
    let address = server.at.address;
    let request = format!("{request}\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.1 200"
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head)
        .ok()
        .filter(|head| head.starts_with("HTTP/"))
        .and_then(|head| head.get(9..12)?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
