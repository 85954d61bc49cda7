//! Whether a sidecar is ready: it listens on its port, answers a path, or says so itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::notify_socket::NotifySocket;
use crate::config::Ready;
use crate::os::port;
use crate::os::process;

/// Between two looks at a port. The kernel tells nobody when a program begins to listen, so there
/// is nothing to wait for.
const POLL: Duration = Duration::from_millis(5);

/// The same for a slow starter, after [`EAGER`].
const POLL_LATER: Duration = Duration::from_millis(25);

/// How long a start is watched closely.
const EAGER: Duration = Duration::from_secs(2);

/// How long one HTTP answer may take; a slower one is asked for again.
const ANSWER: Duration = Duration::from_secs(2);

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
    pub pid: u32,
    /// Its notify socket, for [`Ready::Notify`].
    pub notify: Option<&'a NotifySocket>,
}

impl ReadinessProbe<'_> {
    /// Waits until the sidecar is ready; tells `hint` once what is odd about a slow one.
    pub async fn ready(&self, hint: impl FnMut(Hint)) -> SocketAddr {
        let Some(notify) = self.notify else {
            return self.listens(hint).await;
        };
        notify.ready().await;
        tokio::select! {
            address = self.listens(hint) => address,
            never = notify.read_on() => match never {},
        }
    }

    async fn listens(&self, mut hint: impl FnMut(Hint)) -> SocketAddr {
        let begun = Instant::now();
        let mut look_elsewhere = begun + ELSEWHERE;
        let mut hinted = false;
        loop {
            let mut answer = None;
            if let Some(address) = self.listener().await {
                match self.answers(address).await {
                    ProbeAnswer::Good => return address,
                    ProbeAnswer::Bad(text) => {
                        answer = Some(Hint {
                            text,
                            hopeless: false,
                        })
                    }
                    ProbeAnswer::None => {}
                }
            }
            let now = Instant::now();
            if !hinted && now >= look_elsewhere {
                look_elsewhere = now + ELSEWHERE;
                if let Some(odd) = answer.or_else(|| self.elsewhere()) {
                    hint(odd);
                    hinted = true;
                }
            }
            tokio::time::sleep(if now.duration_since(begun) < EAGER {
                POLL
            } else {
                POLL_LATER
            })
            .await;
        }
    }

    /// The address of the sidecar's own listener on its port.
    async fn listener(&self) -> Option<SocketAddr> {
        for host in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            let address = SocketAddr::new(host, self.port);
            if TcpStream::connect(address).await.is_ok() && self.owned() {
                return Some(address);
            }
        }
        None
    }

    /// Whether the listener belongs to the sidecar: a stranger on its port would be taken for it
    /// otherwise.
    fn owned(&self) -> bool {
        let found = port::listening_of(&process::descendants(self.pid));
        found.incomplete
            || found
                .addresses
                .iter()
                .any(|address| address.port() == self.port)
    }

    fn elsewhere(&self) -> Option<Hint> {
        let found = port::listening_of(&process::descendants(self.pid));
        if found
            .addresses
            .iter()
            .any(|address| address.port() == self.port)
        {
            return None;
        }
        let other = found.addresses.first()?.port();
        let told = self.port;
        let text = format!(
            "is listening on {other} instead of the assigned port {told}: use {{port}} in its command or $PORT in the program, or `--port {other}`"
        );
        Some(Hint {
            text,
            hopeless: true,
        })
    }

    async fn answers(&self, address: SocketAddr) -> ProbeAnswer {
        let Ready::Http(path) = self.ready else {
            return ProbeAnswer::Good;
        };
        let asking = async {
            let mut stream = TcpStream::connect(address).await.ok()?;
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: gateway-probe\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.ok()?;
            // "HTTP/1.1 200"
            std::str::from_utf8(&head)
                .ok()?
                .get(9..12)?
                .parse::<u16>()
                .ok()
        };
        match tokio::time::timeout(ANSWER, asking).await.ok().flatten() {
            Some(200..400) => ProbeAnswer::Good,
            Some(status) => ProbeAnswer::Bad(format!("answers {path} with {status}")),
            None => ProbeAnswer::None,
        }
    }
}

/// How a sidecar answered.
enum ProbeAnswer {
    Good,
    Bad(String),
    None,
}
