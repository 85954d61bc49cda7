//! Clients that ask without a pause, and whether a loss has an explanation.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::support::client::{self, Conn, Fault, Target, within};
use crate::support::site::FRONT;

/// New clients in a second, each with one request.
const PER_SECOND: u32 = 40;

/// Far above what a round lets a client wait: the longest stop, a hold and a start together.
const PATIENCE: Duration = Duration::from_secs(60);

const REQUEST: &str = "GET /pid HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n";

/// An answer that did not come.
#[derive(Clone, Debug)]
pub struct Loss {
    /// When the client connected.
    pub asked: Instant,
    /// When it knew.
    pub known: Instant,
    pub how: LossKind,
}

/// How a client lost its answer.
#[derive(Clone, Debug)]
pub enum LossKind {
    /// By the connection.
    Transport(Fault),
    /// By an answer that is an error.
    Status(u16, String),
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(fault) => write!(f, "{fault}"),
            Self::Status(status, body) => write!(f, "status {status}: {}", body.trim()),
        }
    }
}

/// What all clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub answered: u64,
    pub slowest: Duration,
    pub lost: Vec<Loss>,
}

/// The clients, on a thread of their own.
pub struct Clients {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    thread: std::thread::JoinHandle<()>,
}

impl Clients {
    /// Begins on a thread that is in the network of the caller.
    pub fn start() -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::default()));
        let (token, shared) = (stop.clone(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || client::block_on(arrivals(token, shared)));
        Self { stop, seen, thread }
    }

    /// What they saw since this was asked before.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Lets every client have its answer.
    pub fn stop(self) -> Seen {
        self.stop.cancel();
        self.thread.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn arrivals(stop: CancellationToken, seen: Arc<Mutex<Seen>>) {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0_u32.. {
        tokio::select! {
            () = sleep_until(began + number * Duration::from_secs(1) / PER_SECOND) => {}
            () = stop.cancelled() => break,
        }
        let seen = Arc::clone(&seen);
        tasks.spawn(async move { one(&seen).await });
        while tasks.try_join_next().is_some() {}
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn one(seen: &Mutex<Seen>) {
    let asked = Instant::now();
    let answer = within(PATIENCE, async {
        let target = Target::Tcp(FRONT);
        Conn::open(&target).await?.exchange(REQUEST).await
    });
    let how = match answer.await {
        Ok(answer) if answer.status() == 200 => None,
        Ok(answer) => Some(LossKind::Status(answer.status(), answer.text())),
        Err(fault) => Some(LossKind::Transport(fault)),
    };
    let known = Instant::now();
    let mut seen = seen.lock().unwrap();
    match how {
        None => {
            seen.answered += 1;
            seen.slowest = seen.slowest.max(known - asked);
        }
        Some(how) => seen.lost.push(Loss { asked, known, how }),
    }
}
