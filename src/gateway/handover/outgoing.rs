//! The old process's view of its successor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::channel::{self, Receiver, Sender};
use super::spawn::Spawned;
use super::wire::{Offer, ToPredecessor, ToSuccessor};
use crate::gateway::Happening;
use crate::sidecar::PidFd;

/// How long a successor may take to say its first word: it has only read its configuration by then. Generous, because a
/// machine that restarts a gateway may be busy with an update.
const HELLO: Duration = Duration::from_secs(15);

/// How long it may be silent while it gets ready; it speaks every second.
const SILENCE: Duration = Duration::from_secs(10);

/// How long it may take to end when it is told to, before it is killed. It serves nobody yet.
const END: Duration = Duration::from_secs(2);

/// What the old process learns.
#[derive(Debug)]
pub enum News {
    /// The successor says something.
    Said(ToPredecessor),
    /// It is gone, hangs, or speaks another language.
    Lost(String),
}

/// A successor.
#[derive(Debug)]
pub struct Successor {
    /// Its pid.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
    pidfd: PidFd,
    to: Sender<ToSuccessor>,
    listening: JoinHandle<()>,
}

/// A socket pair with the offer already in it. The other end is for the successor to inherit.
///
/// # Errors
/// When the pair cannot be made, or does not take the offer.
pub fn prepare(offer: &Offer, descriptors: &[BorrowedFd<'_>]) -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut line = serde_json::to_vec(offer)?;
    line.push(b'\n');
    channel::send_with(&ours, &line, descriptors)?;
    Ok((ours, theirs))
}

impl Successor {
    /// Listens to a successor that was started with the other end of `stream`.
    ///
    /// # Errors
    /// When the stream cannot be watched.
    pub fn listen(stream: UnixStream, spawned: Spawned, generation: u64, happened: mpsc::UnboundedSender<Happening>) -> io::Result<Self> {
        let (to, from) = channel::open(stream)?;
        let Spawned { pid, pidfd } = spawned;
        let listening = tokio::spawn(listen(from, generation, happened));
        Ok(Self { pid, generation, pidfd, to, listening })
    }

    /// Says something.
    pub fn say(&self, message: &ToSuccessor) {
        self.to.send(message);
    }

    /// Passes on what a signal asked of this process.
    pub fn signal(&self, signal: Signal) {
        // One that is gone is noticed by its end.
        let _ = self.pidfd.signal(signal);
    }

    /// Ends it at once.
    pub fn kill(&self) {
        // Gone is as good.
        let _ = self.pidfd.signal(Signal::SIGKILL);
    }

    /// Ends one that must not serve. It is waited for, so that nothing of it is left.
    pub async fn end(self) {
        self.listening.abort();
        self.to.send(&ToSuccessor::Abort);
        let Ok(ended) = self.pidfd.ended() else {
            let _ = self.pidfd.signal(Signal::SIGKILL);
            return;
        };
        if tokio::time::timeout(END, ended.wait()).await.is_err() {
            // Gone just now is as good.
            let _ = self.pidfd.signal(Signal::SIGKILL);
            ended.wait().await;
        }
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

async fn listen(mut from: Receiver<ToPredecessor>, generation: u64, happened: mpsc::UnboundedSender<Happening>) {
    let mut stage = Stage::Unheard;
    let why = loop {
        let next = match stage.patience() {
            Some(limit) => tokio::time::timeout(limit, from.next()).await,
            None => Ok(from.next().await),
        };
        match next {
            Ok(Ok(Some(message))) => {
                stage = stage.after(&message);
                let bye = matches!(message, ToPredecessor::Bye | ToPredecessor::Failed { .. });
                if happened.send(Happening::Successor(generation, News::Said(message))).is_err() || bye {
                    return;
                }
            }
            Ok(Ok(None)) => break format!("the successor ended {}", stage.words()),
            Ok(Err(error)) => break format!("the successor speaks another language: {error}"),
            Err(_) => {
                break format!(
                    "the successor hangs: {} s without a word {}",
                    stage.patience().unwrap_or_default().as_secs(),
                    stage.words()
                );
            }
        }
    };
    // When the loop is gone, nobody has a successor.
    let _ = happened.send(Happening::Successor(generation, News::Lost(why)));
}

#[derive(Clone, Copy)]
enum Stage {
    Unheard,
    Getting,
    Serving,
}

impl Stage {
    fn patience(self) -> Option<Duration> {
        match self {
            Self::Unheard => Some(HELLO),
            Self::Getting => Some(SILENCE),
            Self::Serving => None,
        }
    }

    fn after(self, message: &ToPredecessor) -> Self {
        match (self, message) {
            (_, ToPredecessor::Serving) | (Self::Serving, _) => Self::Serving,
            _ => Self::Getting,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unheard => "before it said a word",
            Self::Getting => "before it served",
            Self::Serving => "without a goodbye",
        }
    }
}
