//! Whether a sidecar is ready: it answers a request, listens on its port, answers a path, or says so
//! itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::failed_workers::FailedWorkers;
use super::first_request::{FirstAnswer, first_answer};
use super::notify_socket::NotifySocket;
use crate::config::Ready;
use crate::os::port::{self, Server, Stranger};
use crate::os::process;
use crate::proxy::OtherProtocol;

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

/// A server that accepts and answers nothing for so long is named: one that loads for longer is
/// slow, and an operator wants to know what is waited for.
const UNANSWERED: Duration = Duration::from_secs(3);

/// A connection that is closed sooner than this, before any answer, was closed at once. One that is
/// closed later may belong to a worker that ended while it loaded.
const AT_ONCE: Duration = Duration::from_secs(1);

/// So many connections closed at once, one after the other, are the way of a server that does not
/// speak HTTP; a single one may have met a server that has just begun to listen.
const CLOSED_TIMES: u32 = 3;

/// Between two requests to a server that closed the connection of the first.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Between two requests for a path that is not answered with success: the server answers, so it loads
/// something else, and each request costs it time and a line in its log. So late at most is it taken
/// for ready.
const WRONG_ANSWER: Duration = Duration::from_millis(250);

/// The same after [`EAGER`]: whatever it lacks, it does not come in a moment.
const WRONG_ANSWER_LATER: Duration = Duration::from_secs(1);

/// How long the rest of an answer is read, and how much of it: a server whose client is gone before
/// it has written everything logs an error, which would stand among its last words.
const REST: Duration = Duration::from_millis(500);
const REST_MAX: u64 = 64 * 1024;

/// A longer head of an answer is not read to its end.
const HEAD_MAX: usize = 16 * 1024;

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
    /// How long it may take; see [`UNANSWERED`].
    pub start_timeout: Duration,
    /// Its notify socket, for [`Ready::Notify`].
    pub notify: Option<&'a NotifySocket>,
}

/// A sidecar that is ready.
#[derive(Debug)]
pub struct ReadyServer {
    pub server: Arc<Server>,
    /// What it speaks, if that is not HTTP/1.
    pub other: Option<OtherProtocol>,
}

/// Why a sidecar is not ready at an address.
enum NotYet {
    /// Nothing is odd, as far as that is known.
    Nothing,
    Odd(Hint),
    /// It answers, and says that it is not ready.
    Wrong(Hint),
    /// It closed the connection without an answer.
    Closed {
        at_once: bool,
    },
}

impl ReadinessProbe<'_> {
    /// Waits until the sidecar is ready; tells `hint` what is odd about a slow one, each at most
    /// once.
    pub async fn ready(&self, hint: impl FnMut(Hint)) -> ReadyServer {
        let Some(notify) = self.notify else {
            return self.listens(hint).await;
        };
        notify.ready().await;
        tokio::select! {
            server = self.listens(hint) => server,
            never = notify.read_on() => match never {},
        }
    }

    async fn listens(&self, mut hint: impl FnMut(Hint)) -> ReadyServer {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let places = loopback.map(|host| {
            let address = SocketAddr::new(host, self.port);
            Arc::new(Server::new(address, self.pid))
        });
        let begun = Instant::now();
        let mut look_elsewhere = begun + ELSEWHERE;
        let (mut hinted, mut unanswered) = (false, false);
        let mut workers = FailedWorkers::default();
        let mut closed = 0;
        loop {
            let mut odd = None;
            let (mut was_closed, mut was_wrong) = (false, false);
            for server in &places {
                let slow = |slow: Hint| {
                    if !std::mem::replace(&mut unanswered, true) {
                        hint(slow);
                    }
                };
                match self.answers(server, slow).await {
                    Ok(other) => {
                        let server = Arc::clone(server);
                        return ReadyServer { server, other };
                    }
                    Err(NotYet::Nothing) => {}
                    Err(NotYet::Odd(what)) => odd = odd.or(Some(what)),
                    Err(NotYet::Wrong(what)) => {
                        was_wrong = true;
                        odd = odd.or(Some(what));
                    }
                    Err(NotYet::Closed { at_once }) => {
                        was_closed = true;
                        closed = if at_once { closed + 1 } else { 0 };
                        if closed >= CLOSED_TIMES {
                            let (server, other) = (Arc::clone(server), Some(OtherProtocol::Closes));
                            return ReadyServer { server, other };
                        }
                    }
                }
            }
            let now = Instant::now();
            if !hinted && now >= look_elsewhere {
                look_elsewhere = now + ELSEWHERE;
                let odd = odd.or_else(|| self.elsewhere());
                if let Some(odd) = odd.or_else(|| self.stands_still(&mut workers, now)) {
                    hint(odd);
                    hinted = true;
                }
            }
            let eager = now.duration_since(begun) < EAGER;
            let pause = match (was_closed, was_wrong, eager) {
                (true, ..) => ASK_AGAIN,
                (_, true, true) => WRONG_ANSWER,
                (_, true, false) => WRONG_ANSWER_LATER,
                (.., true) => POLL,
                (.., false) => POLL_LATER,
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn stands_still(&self, workers: &mut FailedWorkers, now: Instant) -> Option<Hint> {
        let code = workers.look(self.pid, now)?;
        let text = format!(
            "stands still: a process that it started failed (exit code {code}), and it takes no notice"
        );
        // It may wait for something else, such as its database.
        Some(Hint {
            text,
            hopeless: false,
        })
    }

    fn elsewhere(&self) -> Option<Hint> {
        let found = port::listening_of(&process::descendants(self.pid));
        if found.iter().any(|address| address.port() == self.port) {
            return None;
        }
        let other = found.first()?.port();
        let assigned = self.port;
        let text = format!(
            "is listening on {other} instead of the assigned port {assigned}: use {{port}} in its command or $PORT in the program, or `--app-port {other}`"
        );
        Some(Hint {
            text,
            hopeless: true,
        })
    }

    /// Whether it is ready there, and what it speaks if that is not HTTP/1; if not, why. `slow` is
    /// told of one that accepts and does not answer.
    async fn answers(
        &self,
        server: &Server,
        slow: impl FnOnce(Hint),
    ) -> Result<Option<OtherProtocol>, NotYet> {
        match self.ready {
            Ready::Answers => self.answers_first(server, slow).await,
            Ready::Http(path) => self.answers_path(server, path).await.map(|()| None),
            Ready::Tcp | Ready::Notify => self.connect(server).await.map(|_| None),
        }
    }

    /// A connection to the sidecar's own listener.
    async fn connect(&self, server: &Server) -> Result<TcpStream, NotYet> {
        match tokio::time::timeout(ANSWER, server.connect()).await {
            Ok(connected) => connected.map_err(|error| self.refused(server, &error)),
            Err(_) => Err(NotYet::Nothing),
        }
    }

    /// It is asked once, and its answer waited for: a server that loads finds one request when it
    /// is done, not one for each time that somebody grew impatient.
    async fn answers_first(
        &self,
        server: &Server,
        slow: impl FnOnce(Hint),
    ) -> Result<Option<OtherProtocol>, NotYet> {
        let stream = self.connect(server).await?;
        let asked = Instant::now();
        let address = server.at.address;
        let answer = first_answer(stream, address);
        tokio::pin!(answer);
        // Before the start is given up.
        let patience = UNANSWERED.min(self.start_timeout / 2);
        let answer = match tokio::time::timeout(patience, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                slow(unanswered(address));
                answer.await
            }
        };
        match answer {
            FirstAnswer::Http(_) => Ok(None),
            FirstAnswer::Other(other) => Ok(Some(other)),
            FirstAnswer::Closed => Err(NotYet::Closed {
                at_once: asked.elapsed() < AT_ONCE,
            }),
        }
    }

    async fn answers_path(&self, server: &Server, path: &str) -> Result<(), NotYet> {
        let request = format!("GET {path} HTTP/1.1\r\nUser-Agent: gateway-probe");
        match tokio::time::timeout(ANSWER, status_of(server, &request)).await {
            Ok(Ok(200..400)) => Ok(()),
            Ok(Ok(status)) => Err(NotYet::Wrong(Hint {
                text: format!("answers {path} with {status}"),
                hopeless: false,
            })),
            Ok(Err(error)) => Err(self.refused(server, &error)),
            Err(_) => Err(NotYet::Nothing),
        }
    }

    fn refused(&self, server: &Server, error: &io::Error) -> NotYet {
        match Stranger::of(error) {
            Some(stranger) => NotYet::Odd(self.taken(server, stranger)),
            None => NotYet::Nothing,
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

/// It accepts, and has not answered for a while.
fn unanswered(address: SocketAddr) -> Hint {
    Hint {
        text: format!(
            "listens on {address} and has not answered HEAD /: it may take long to load; if it never answers that, `--ready /PATH` names a path that it answers"
        ),
        hopeless: false,
    }
}

/// The status that a sidecar answers. `request` is the head of the request without its end.
pub async fn status_of(server: &Server, request: &str) -> io::Result<u16> {
    let mut stream = server.connect().await?;
    let address = server.at.address;
    let request = format!("{request}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.1 200"
    let mut head = vec![0; 12];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head)
        .ok()
        .filter(|head| head.starts_with("HTTP/"))
        .and_then(|head| head.get(9..12)?.parse().ok());
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let status = status.ok_or_else(invalid)?;
    // The answer is known, and nobody waits for the rest.
    tokio::spawn(tokio::time::timeout(REST, read_rest(stream, head)));
    Ok(status)
}

/// Reads what follows the beginning of an answer, as far as it says how long it is, and else to its end.
async fn read_rest(mut stream: TcpStream, mut head: Vec<u8>) -> io::Result<()> {
    let body = loop {
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() > HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let read = (head.len() - body) as u64;
    let left = length_of(&head[..body]).map_or(REST_MAX, |length| length.min(REST_MAX));
    let mut rest = stream.take(left.saturating_sub(read));
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The length of a body that its head tells.
fn length_of(head: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    })
}
