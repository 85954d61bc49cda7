//! The old process's view of its successor.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::channel::{self, Receiver, Sender};
use super::spawn::Spawned;
use super::wire::{ToPredecessor, ToSuccessor};
use crate::gateway::outbox::Outbox;
use crate::os::process::{self, PidFd, in_words};

/// How long a successor may take to send its first message: it has only read its configuration by
/// then.
/// Generous, because a machine that restarts a gateway may be busy with an update.
const HELLO: Duration = Duration::from_secs(15);

/// How long it may be silent while it gets ready; it speaks every second.
const SILENCE: Duration = Duration::from_secs(10);

/// How long it may take to end before it is killed: its sidecars have their stop timeout (10 s by
/// default).
const END: Duration = Duration::from_secs(12);

/// How long its sidecars may take after it was killed.
const SIDECAR_END: Duration = Duration::from_secs(10);

/// What the old process learns.
#[derive(Debug)]
pub enum News {
    /// The successor says something.
    Said(ToPredecessor),
    /// It is gone, hangs, or sends what this process does not know.
    Lost(String),
}

#[derive(Debug)]
pub struct Successor {
    pub pid: u32,
    pub generation: u64,
    pidfd: PidFd,
    /// Its sidecars, as they were when it reported its last step.
    children: Vec<PidFd>,
    to: Sender<ToSuccessor>,
    /// Cancelled when it has nothing more to do.
    finished: CancellationToken,
    listening: JoinHandle<()>,
}

impl Successor {
    /// Listens to a successor that was started with the other end of `stream`.
    ///
    /// # Errors
    /// When the stream cannot be watched.
    pub fn listen(
        stream: UnixStream,
        spawned: Spawned,
        generation: u64,
        news: Outbox<News>,
    ) -> io::Result<Self> {
        let (to, from) = channel::open(stream, Vec::new())?;
        let Spawned { pid, pidfd } = spawned;
        let finished = CancellationToken::new();
        let watched = PidFd::from(pidfd.as_fd().try_clone_to_owned()?);
        let listening = tokio::spawn(listen(from, watched, news, finished.clone()));
        Ok(Self {
            pid,
            generation,
            pidfd,
            children: Vec::new(),
            to,
            finished,
            listening,
        })
    }

    pub fn say(&self, message: ToSuccessor) {
        self.to.send(message);
    }

    /// Holds back what is said from here on until `event`.
    pub fn hold(&self, event: impl Future<Output = ()> + Send + 'static) {
        self.to.hold(event);
    }

    /// Takes note of its sidecars: when it is killed, the kernel ends them too, and that takes a
    /// while.
    pub fn know_children(&mut self) {
        self.children = children_of(self.pid);
    }

    /// Passes on what a signal asked of this process.
    pub fn signal(&self, signal: Signal) {
        // One that is gone is noticed by its end.
        let _ = self.pidfd.signal(signal);
    }

    /// Ends one that must not serve, and waits until it is gone with everything that it had
    /// started: what must not run twice may start again then. `at_once` when it must not have a
    /// moment more.
    pub async fn end(self, at_once: bool) {
        self.listening.abort();
        self.to.send(ToSuccessor::Abort { main: false });
        let ended = self.pidfd.ended();
        if at_once || timeout(END, ended.wait()).await.is_err() {
            let children = children_of(self.pid);
            // An error means that it is gone.
            let _ = self.pidfd.signal(Signal::SIGKILL);
            ended.wait().await;
            join_all(children.iter().map(follow_to_its_end)).await;
        }
        join_all(self.children.iter().map(follow_to_its_end)).await;
    }

    /// Stops together with one that has got the service: whichever of both the service manager takes
    /// for the main process, the end of the main process is the end of the other. So this process
    /// waits for the successor's work, and the successor for the end of this process.
    pub async fn finish(self) {
        self.to.send(ToSuccessor::Abort { main: true });
        let ended = self.pidfd.ended();
        tokio::select! {
            () = self.finished.cancelled() => {}
            () = ended.wait() => {}
        }
    }
}

/// The sidecars of a process that is about to be killed. The kernel ends them with it; that takes a
/// while.
fn children_of(pid: u32) -> Vec<PidFd> {
    let children: Vec<(u32, PidFd)> = process::children(pid)
        .into_iter()
        .filter_map(|child| Some((child, PidFd::open(child).ok()?)))
        .collect();
    // Whether they still are is asked when the descriptors are there: then none can be mistaken any
    // more.
    let still = process::children(pid);
    children
        .into_iter()
        .filter(|(child, _)| still.contains(child))
        .map(|(_, process)| process)
        .collect()
}

/// Waits until a process has ended that is about to; kills it with its group when it does not.
pub async fn follow_to_its_end(child: &PidFd) {
    let ended = child.ended();
    if timeout(SIDECAR_END, ended.wait()).await.is_err() {
        // Its group first, where the kernel can; an error means that it is gone.
        let _ = child.signal_group(Signal::SIGKILL);
        let _ = child.signal(Signal::SIGKILL);
        ended.wait().await;
    }
}

async fn listen(
    mut from: Receiver,
    process: PidFd,
    news: Outbox<News>,
    finished: CancellationToken,
) {
    let mut stage = SuccessorStage::Unheard;
    let why = loop {
        match timeout(stage.patience(), from.next()).await {
            Ok(Ok(Some(message))) => {
                stage = stage.after(&message);
                let ends = matches!(message, ToPredecessor::Bye | ToPredecessor::Failed { .. });
                if !news.send(News::Said(message)) {
                    return;
                }
                if ends {
                    while let Ok(Some(message)) = from.next().await
                        && !matches!(message, ToPredecessor::Finished)
                    {}
                    return finished.cancel();
                }
            }
            // Nobody serves: the service is taken back at once, however it ended.
            Ok(Ok(None)) if matches!(stage, SuccessorStage::Serving) => {
                break format!("the successor ended {}", stage.words());
            }
            Ok(Ok(None)) => break ended(process.exit_status().await, stage),
            Ok(Err(error)) => break format!("the successor sent an invalid message: {error}"),
            Err(_) => {
                break format!(
                    "the successor hangs: it was silent for {} s {}",
                    stage.patience().as_secs(),
                    stage.words()
                );
            }
        }
    };
    news.send(News::Lost(why));
}

/// What became of a successor that ended without a word.
fn ended(status: Option<ExitStatus>, stage: SuccessorStage) -> String {
    let stage = stage.words();
    match status {
        Some(status) => format!("the successor {} {stage}", in_words(status)),
        None => format!(
            "the successor ended {stage}; this system does not tell by which signal or exit code"
        ),
    }
}

#[derive(Clone, Copy)]
enum SuccessorStage {
    Unheard,
    Getting,
    Serving,
}

impl SuccessorStage {
    /// How long it may be silent.
    fn patience(self) -> Duration {
        match self {
            Self::Unheard => HELLO,
            Self::Getting => SILENCE,
            Self::Serving => Duration::MAX,
        }
    }

    fn after(self, message: &ToPredecessor) -> Self {
        match (self, message) {
            (_, ToPredecessor::Serving { .. }) | (Self::Serving, _) => Self::Serving,
            _ => Self::Getting,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unheard => "before its first message",
            Self::Getting => "before it served",
            Self::Serving => "unexpectedly",
        }
    }
}
