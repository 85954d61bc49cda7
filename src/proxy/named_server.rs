//! A server that is known by a name: its addresses, asked for again and again.
//!
//! The system's resolver (`getaddrinfo`) reads /etc/hosts, DNS and whatever else the machine is set
//! up with; it blocks, so it is asked on a thread that serves nobody, for each name on one at a time.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::happy_eyeballs;

/// How long an answer is used before the name is asked for again. The system's resolver does not tell
/// how long one is valid; Envoy asks again after 5 s, too (dns_refresh_rate).
const FRESH: Duration = Duration::from_secs(5);

/// How long after that the answer still serves while the resolver fails or is slow: as long as a
/// resolver takes to start again. Later, the address may be somebody else's.
const STALE: Duration = Duration::from_secs(30);

/// How long a request waits for the resolver before the answer of before serves it (RFC 8767,
/// section 5, recommends 1.8 s).
const RESOLVER_WAIT: Duration = Duration::from_millis(1800);

/// A name or an address, and a port.
#[derive(Debug)]
pub struct NamedServer {
    host: String,
    port: u16,
    /// What the resolver said last.
    answer: watch::Sender<Resolved>,
    /// Whether it is being asked.
    asking: AtomicBool,
}

#[derive(Debug, Default)]
struct Resolved {
    /// How often the resolver has answered.
    count: u64,
    /// The addresses it found, and when.
    found: Option<(Vec<SocketAddr>, Instant)>,
    /// Why it found none the last time.
    failed: Option<String>,
}

impl Resolved {
    /// The addresses, if they are younger than `age`.
    fn within(&self, age: Duration) -> Option<Vec<SocketAddr>> {
        let (addresses, at) = self.found.as_ref()?;
        (at.elapsed() < age).then(|| addresses.clone())
    }
}

impl fmt::Display for NamedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl NamedServer {
    pub fn new(host: String, port: u16) -> Arc<Self> {
        Arc::new(Self {
            host,
            port,
            answer: watch::Sender::default(),
            asking: AtomicBool::new(false),
        })
    }

    /// Connects to the first of its addresses that answers. The caller limits the time.
    ///
    /// # Errors
    /// When the name has no address, or none of them answers.
    pub async fn connect(self: &Arc<Self>) -> io::Result<TcpStream> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect((ip, self.port)).await,
            Err(_) => happy_eyeballs::connect(&self.addresses().await?).await,
        }
    }

    async fn addresses(self: &Arc<Self>) -> io::Result<Vec<SocketAddr>> {
        let mut answers = self.answer.subscribe();
        let (count, stale) = {
            let answer = answers.borrow_and_update();
            if let Some(addresses) = answer.within(FRESH) {
                return Ok(addresses);
            }
            (answer.count, answer.within(FRESH + STALE))
        };
        self.ask();
        let next = async {
            let answer = answers.wait_for(|answer| answer.count != count).await;
            // This server itself holds the sender.
            let answer = answer.map_err(io::Error::other)?;
            match (&answer.failed, &answer.found) {
                (None, Some((addresses, _))) => Ok(addresses.clone()),
                (why, _) => {
                    let why = why.as_deref().unwrap_or("no answer");
                    Err(io::Error::other(format!(
                        "cannot resolve {}: {why}",
                        self.host
                    )))
                }
            }
        };
        match stale {
            None => next.await,
            Some(stale) => match tokio::time::timeout(RESOLVER_WAIT, next).await {
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(_)) | Err(_) => Ok(stale),
            },
        }
    }

    /// Asks the resolver, unless it is being asked. The question outlives the request that began it.
    fn ask(self: &Arc<Self>) {
        if !self.asking.swap(true, Ordering::AcqRel) {
            let question = Question(Arc::clone(self));
            drop(tokio::task::spawn_blocking(move || question.ask()));
        }
    }
}

/// One question to the resolver. One that is dropped unanswered, with the thread that it waited for,
/// is over, too.
struct Question(Arc<NamedServer>);

impl Question {
    fn ask(self) {
        let server = &self.0;
        let answer = (server.host.as_str(), server.port).to_socket_addrs();
        let addresses = answer.map(Iterator::collect::<Vec<_>>);
        server.answer.send_modify(|current| match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                current.found = Some((addresses, Instant::now()));
                current.failed = None;
            }
            Ok(_) => current.failed = Some("it has no address".to_owned()),
            Err(error) => current.failed = Some(error.to_string()),
        });
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::Release);
        self.0.answer.send_modify(|answer| answer.count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(server: &NamedServer, address: &str, age: Duration) {
        let at = Instant::now().checked_sub(age).unwrap();
        server.answer.send_modify(|answer| {
            answer.found = Some((vec![address.parse().unwrap()], at));
        });
    }

    #[tokio::test]
    async fn an_answer_is_used_for_a_while_then_asked_for_and_at_last_forgotten() {
        // No resolver knows this name (RFC 6761).
        let server = NamedServer::new("gateway.invalid".to_owned(), 80);
        let why = server.addresses().await.unwrap_err().to_string();
        assert!(why.starts_with("cannot resolve gateway.invalid: "), "{why}");
        let (asked, address) = (server.answer.borrow().count, "192.0.2.1:80");
        found(&server, address, Duration::ZERO);
        let fresh = server.addresses().await.unwrap();
        assert_eq!(fresh, [address.parse::<SocketAddr>().unwrap()]);
        assert_eq!(server.answer.borrow().count, asked, "nobody was asked");
        found(&server, address, FRESH);
        assert_eq!(
            server.addresses().await.unwrap(),
            fresh,
            "it is known still"
        );
        assert!(server.answer.borrow().count > asked, "and was asked for");
        found(&server, address, FRESH + STALE);
        assert!(server.addresses().await.is_err(), "it is too old");
    }

    #[tokio::test]
    async fn many_requests_ask_once_at_a_time() {
        let server = NamedServer::new("localhost".to_owned(), 80);
        let all = (0..100).map(|_| server.addresses());
        let all = futures_util::future::join_all(all).await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().is_ok_and(|one| !one.is_empty()))
        );
        assert_eq!(server.answer.borrow().count, 1);
    }
}
