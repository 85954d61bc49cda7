//! Listeners at which a proxy says first whose connection it passes on (the PROXY protocol).
//!
//! A missing header is never guessed away: a client that a proxy passes on unannounced would be taken for
//! the proxy, and so for one of this machine.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::drain::{KeepAlive, WorkerState};
use super::forwarded::Peer;
use super::proxy_header::{Announced, HEADER_MAX, Parsed, parse};
use super::{Front, Settings};
use crate::config::Listen;

/// How long a header may take once the gateway stops or hands over: a proxy sends it with the connection.
/// TCP sends a lost packet again after 1 s, and after 2 s more (RFC 6298).
const LAST: Duration = Duration::from_secs(3);

/// Whether clients of the listener at `local` are announced.
pub fn announces(settings: &Settings, local: Option<&Listen>) -> bool {
    local.is_some_and(|local| is_among(&settings.proxy_protocol, local))
}

/// Port 0 among those that are asked for is whichever the kernel chose.
fn is_among(asked: &[Listen], local: &Listen) -> bool {
    asked.iter().any(|asked| match (asked, local) {
        (Listen::Tcp(asked), Listen::Tcp(local)) if asked.port() == 0 => asked.ip() == local.ip(),
        _ => asked == local,
    })
}

/// A client that was just accepted.
#[derive(Debug)]
pub struct Arrival {
    pub stream: TcpStream,
    pub peer: Peer,
    /// Whether a proxy says first whose connection it is.
    pub announced: bool,
}

impl Arrival {
    /// Who the client is; none when its connection must be closed.
    pub async fn client(
        &self,
        front: &Front,
        workers: &watch::Sender<WorkerState>,
    ) -> Option<Peer> {
        match self.announced {
            // In a box: the task of a client that is not announced stays small.
            true => Box::pin(client(front, workers, &self.stream, self.peer)).await,
            false => Some(self.peer),
        }
    }
}

/// The client for whom a proxy at `peer` speaks, from the header with which the connection begins; none
/// when the connection must be closed. Nothing is read beyond the header.
async fn client(
    front: &Front,
    workers: &watch::Sender<WorkerState>,
    stream: &TcpStream,
    peer: Peer,
) -> Option<Peer> {
    let (trusted, limit) = {
        let settings = &front.table().settings;
        (
            settings.forwarded.may_announce(peer),
            settings.limits.header_time,
        )
    };
    if !trusted {
        front.cuts.log(format_args!(
            "a client at {peer} is disconnected: this address takes only proxies (gateway.proxy_protocol), and that is none of trusted_proxies"
        ));
        return None;
    }
    let mut state = workers.subscribe();
    let ending = async {
        let ends = state
            .wait_for(|state| state.migrates() || !matches!(state.keep_alive, KeepAlive::Kept));
        // An error means that the workers end.
        drop(ends.await);
        tokio::time::sleep(LAST).await;
    };
    let taken = tokio::select! {
        taken = timeout(limit.0, take(stream)) => taken.unwrap_or(Taken::Not("it does not come (limits.header_time)")),
        () = ending => return None,
    };
    match taken {
        Taken::Header(Announced::Proxy) => Some(peer),
        Taken::Header(Announced::Client(address)) => Some(Peer::Announced(Some(address))),
        Taken::Header(Announced::Unknown) => Some(Peer::Announced(None)),
        // Load balancers see by a connection alone whether somebody is here.
        Taken::Nothing => None,
        Taken::Not(why) => {
            front.cuts.log(format_args!(
                "a connection of {peer} is closed: no header of the PROXY protocol (gateway.proxy_protocol): {why}"
            ));
            None
        }
    }
}

enum Taken {
    Header(Announced),
    /// The connection was closed before its first byte.
    Nothing,
    /// No header, for this reason.
    Not(&'static str),
}

/// Takes the header off a connection. Bytes stay in the socket until the header is complete.
async fn take(stream: &TcpStream) -> Taken {
    let mut seen = vec![0; HEADER_MAX];
    loop {
        let Ok(ready) = stream.ready(Interest::READABLE).await else {
            return Taken::Nothing;
        };
        let mut count = 0;
        let parsed = stream.try_io(Interest::READABLE, || {
            count = recv(stream.as_raw_fd(), &mut seen, MsgFlags::MSG_PEEK)?;
            match parse(&seen[..count]) {
                // The runtime is to wait for more.
                Parsed::Incomplete if count > 0 => Err(io::ErrorKind::WouldBlock.into()),
                parsed => Ok(parsed),
            }
        });
        match parsed {
            Ok(Parsed::Complete(length, announced)) => {
                return match skip(stream, &mut seen[..length]) {
                    Ok(()) => Taken::Header(announced),
                    Err(_) => Taken::Nothing,
                };
            }
            Ok(Parsed::Invalid(why)) => return Taken::Not(why),
            Ok(Parsed::Incomplete) => return Taken::Nothing,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Taken::Nothing,
            // All that came before the end of the connection was there.
            Err(_) if ready.is_read_closed() && count > 0 => {
                return Taken::Not("the connection ended within it");
            }
            Err(_) => {}
        }
    }
}

/// Reads what is known to be there.
fn skip(stream: &TcpStream, mut header: &mut [u8]) -> io::Result<()> {
    while !header.is_empty() {
        let count = recv(stream.as_raw_fd(), header, MsgFlags::empty())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        header = &mut header[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn listen(text: &str) -> Listen {
        text.parse().unwrap()
    }

    #[test]
    fn a_listener_announces_where_it_is_asked_to() {
        let asked = [
            listen("127.0.0.1:80"),
            listen("127.0.0.2:0"),
            listen("unix:/a"),
        ];
        for (local, expected) in [
            ("127.0.0.1:80", true),
            ("127.0.0.1:81", false),
            ("127.0.0.2:4711", true),
            ("unix:/a", true),
            ("unix:/b", false),
        ] {
            assert_eq!(is_among(&asked, &listen(local)), expected, "{local}");
        }
        assert!(!is_among(&[], &listen("unix:/a")));
    }

    #[tokio::test]
    async fn exactly_the_header_is_taken_however_it_comes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let header = b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n";
        for cut in 0..header.len() {
            let address = listener.local_addr().unwrap();
            let mut proxy = TcpStream::connect(address).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let sending = async {
                proxy.write_all(&header[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                proxy.write_all(&header[cut..]).await.unwrap();
                proxy.write_all(b"GET").await.unwrap();
            };
            let (taken, ()) = tokio::join!(take(&stream), sending);
            let client = Announced::Client([203, 0, 113, 7].into());
            assert!(matches!(taken, Taken::Header(announced) if announced == client));
            let mut rest = [0; 3];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"GET");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_the_header_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (sent, nothing) in [(&b""[..], true), (b"PROXY TCP4", false)] {
            let address = listener.local_addr().unwrap();
            let mut proxy = TcpStream::connect(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            proxy.write_all(sent).await.unwrap();
            drop(proxy);
            let taken = take(&stream).await;
            assert_eq!(matches!(taken, Taken::Nothing), nothing);
            assert!(nothing || matches!(taken, Taken::Not(_)));
        }
    }
}
