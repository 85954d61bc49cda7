//! The waiter: the process whose pid the outside knows. Where this pid must survive, the first
//! process that hands over stays: it passes signals on, starts later successors, reaps children,
//! and ends with the status of the last process behind it. A [`Link`] leads to it from each of them:
//! a message is one byte, with descriptors where needed.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::WaitStatus;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::incoming::inherited;
use super::program::Program;
use super::spawn::{Executing, Parentage, Spawned, not_loaded, spawn};
use super::wire::{LINK, OFFER};
use super::{channel, failpoint};
use crate::gateway::signals::{SignalRequest, Signals};
use crate::os::mutex::lock;
use crate::os::process::{PidFd, orphans};

/// Asks the waiter to start a successor that inherits the descriptor of the message.
const SPAWN: u8 = b's';

/// Says that the sender serves now.
const CURRENT: u8 = b'c';

/// How long a waiter may take to start a process: it only forks and executes, unless it was stopped.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the program may take to be loaded for another process, which waits for the answer.
const LOADED: Duration = Duration::from_secs(4);

/// An event behind the waiter.
#[derive(Debug)]
pub enum WaiterEvent {
    /// A process has ended.
    Ended(u32, Option<WaitStatus>),
    /// Another process serves now.
    Current(u32),
    /// The process at the other end requests a successor that inherits this descriptor.
    Spawn(Arc<UnixStream>, OwnedFd),
}

/// Hears that a signal ended a process behind the waiter: nobody else can know it.
pub type Killed = Box<dyn Fn(u32, Signal) + Send>;

pub struct Waiter {
    program: Program,
    children: HashMap<u32, PidFd>,
    current: u32,
    /// How the process that served, or the last one, ended.
    status: Option<WaitStatus>,
    killed: Killed,
    sender: mpsc::UnboundedSender<WaiterEvent>,
    events: mpsc::UnboundedReceiver<WaiterEvent>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("current", &self.current)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

impl Waiter {
    pub fn new(program: Program) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            program,
            children: HashMap::new(),
            current: 0,
            status: None,
            killed: Box::new(|_, _| ()),
            sender,
            events,
        }
    }

    /// Begins to start a process behind it that inherits `end`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn spawn(&mut self, end: &impl AsFd) -> io::Result<Executing> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        let inherited = [(OFFER, end.as_fd()), (LINK, theirs.as_fd())];
        let executing = spawn(&self.program, &inherited, Parentage::Child)?;
        let Some(Spawned { pid, pidfd }) = executing.spawned() else {
            return Ok(executing);
        };
        orphans::spare(*pid);
        let pidfd = PidFd::from(pidfd.as_fd().try_clone_to_owned()?);
        let ended = pidfd.ended();
        let (pid, sender) = (*pid, self.sender.clone());
        tokio::spawn(listen(pid, stream, sender.clone()));
        tokio::spawn(async move {
            ended.wait().await;
            let status = orphans::status_of_ours(pid).await;
            let _ = sender.send(WaiterEvent::Ended(pid, status));
        });
        self.children.insert(pid, pidfd);
        Ok(executing)
    }

    pub async fn next(&mut self) -> Option<WaiterEvent> {
        self.events.recv().await
    }

    pub fn happen(&mut self, event: WaiterEvent) {
        match event {
            WaiterEvent::Current(pid) => self.current = pid,
            WaiterEvent::Spawn(from, end) => {
                let executing = self.spawn(&end);
                tokio::spawn(async move {
                    let spawned = match executing {
                        Ok(executing) => executing.done(LOADED).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = &spawned {
                        error!("[gateway] cannot start a successor: {error}");
                    }
                    // A process that is gone needs no answer, and its offer is void.
                    let _ = answer(&from, spawned);
                });
            }
            WaiterEvent::Ended(pid, status) => {
                orphans::forget(pid);
                self.children.remove(&pid);
                if let Some(WaitStatus::Signaled(_, signal, _)) = status {
                    warn!("[gateway] pid {pid} was ended by {signal}");
                    (self.killed)(pid, signal);
                }
                if pid == self.current || self.current == 0 {
                    self.status = status;
                }
            }
        }
    }

    /// Sets who hears of a process that a signal ended.
    #[must_use]
    pub fn on_kill(mut self, killed: Killed) -> Self {
        self.killed = killed;
        self
    }

    /// Whether no process is left behind it.
    fn alone(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether a process behind it has got the service and still runs. One that was given up before
    /// does not count.
    pub fn is_in_front(&self) -> bool {
        self.current != 0 && !self.alone()
    }

    /// This process serves again.
    pub fn resume(&mut self) {
        self.current = 0;
        self.status = None;
    }

    /// Passes a signal on to the process that serves.
    pub fn forward(&self, asked: SignalRequest) {
        let Some(child) = self.children.get(&self.current) else {
            return;
        };
        let signal = match asked {
            SignalRequest::Stop | SignalRequest::HangUp => Signal::SIGTERM,
            SignalRequest::Interrupt => Signal::SIGINT,
            SignalRequest::Reload => Signal::SIGHUP,
            SignalRequest::Restart => Signal::SIGUSR1,
            SignalRequest::Respawn => Signal::SIGUSR2,
        };
        // The end of a process that is gone is noticed elsewhere.
        let _ = child.signal(signal);
    }

    /// Waits until the last process behind it has ended, and returns how that one did. Nothing else
    /// is left to do in this process.
    pub async fn wait(mut self, signals: &mut Signals) -> WaiterEnd {
        failpoint::pass("waiter.alone");
        info!(
            "[gateway] pid {} stays in front of pid {}, which serves",
            std::process::id(),
            self.current
        );
        while !self.alone() {
            tokio::select! {
                asked = signals.next() => self.forward(asked),
                Some(event) = self.next() => self.happen(event),
            }
        }
        WaiterEnd {
            last: self.current,
            code: exit_code(self.status),
            killed: matches!(self.status, Some(WaitStatus::Signaled(..))),
        }
    }
}

/// How the last process behind a waiter ended.
#[derive(Clone, Copy, Debug)]
pub struct WaiterEnd {
    pub last: u32,
    /// Its exit code as a shell tells it.
    pub code: u8,
    /// Whether a signal ended it.
    pub killed: bool,
}

/// The exit code as a shell tells it: 128 plus the number of the signal that killed the process.
fn exit_code(status: Option<WaitStatus>) -> u8 {
    match status {
        Some(WaitStatus::Exited(_, code)) => code as u8,
        Some(WaitStatus::Signaled(_, signal, _)) => 128 + signal as u8,
        _ => 1,
    }
}

/// Receives what a process behind the waiter asks for. Its end is noticed elsewhere.
async fn listen(pid: u32, stream: UnixStream, sender: mpsc::UnboundedSender<WaiterEvent>) {
    let stream = Arc::new(stream);
    while let Ok(Some((byte, mut descriptors))) = channel::receive_byte(&stream).await {
        let event = match (byte, descriptors.pop()) {
            (SPAWN, Some(end)) => WaiterEvent::Spawn(Arc::clone(&stream), end),
            (CURRENT, _) => WaiterEvent::Current(pid),
            _ => continue,
        };
        if sender.send(event).is_err() {
            return;
        }
    }
}

/// Answers a request to spawn: with the pid and a pidfd, or with the error.
fn answer(stream: &UnixStream, spawned: io::Result<Spawned>) -> io::Result<usize> {
    match spawned {
        Ok(Spawned { pid, pidfd }) => {
            channel::send_with(stream, &pid.to_ne_bytes(), &[pidfd.as_fd()])
        }
        Err(error) => {
            let errno = match error.kind() {
                io::ErrorKind::TimedOut => libc::ETIMEDOUT,
                _ => error.raw_os_error().unwrap_or(libc::EIO),
            };
            channel::send_with(stream, &errno.to_ne_bytes(), &[])
        }
    }
}

/// The connection to the waiter in front of this process.
#[derive(Debug)]
pub struct Link {
    stream: StdStream,
    /// Answers that did not come in time. They come first when they come: the stream keeps order.
    late: Mutex<u32>,
}

impl Link {
    /// The link that this process has inherited, if any.
    pub fn take() -> Option<Self> {
        let stream = inherited(LINK)?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        Some(Self {
            stream,
            late: Mutex::default(),
        })
    }

    /// Tells the waiter that this process serves now.
    pub fn current(&self) {
        // If the waiter is gone, there is nothing to tell.
        let _ = channel::send_with(&self.stream, &[CURRENT], &[]);
    }

    /// The pid of the waiter, which started this process; none when it is gone.
    pub fn waiter(&self) -> Option<u32> {
        let parent = u32::try_from(nix::unistd::getppid().as_raw()).ok();
        parent.filter(|_| self.alive())
    }

    /// Whether the waiter is still alive.
    pub fn alive(&self) -> bool {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0], peek) != Ok(0)
    }

    /// Asks the waiter to start a successor that inherits `end`. Blocks until it has answered.
    ///
    /// # Errors
    /// When it cannot, when it is gone, or when it does not answer in time. It may start the
    /// successor later: what `end` is connected to must call that one off.
    pub fn spawn(&self, end: &StdStream) -> io::Result<Spawned> {
        let mut late = lock(&self.late);
        while *late > 0 {
            // What it started for that request was called off.
            drop(self.answer()?);
            *late -= 1;
        }
        channel::send_with(&self.stream, &[SPAWN], &[end.as_fd()])?;
        self.answer().inspect_err(|_| *late += 1)?
    }

    /// The next answer of the waiter.
    ///
    /// # Errors
    /// When none comes.
    fn answer(&self) -> io::Result<io::Result<Spawned>> {
        let mut number = [0; 4];
        let received = channel::receive_with(&self.stream, &mut number);
        let (length, mut descriptors) = received.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the first process of this service, which starts the others, did not answer within {} s: is it stopped?",
                    ANSWER.as_secs()
                ),
            ),
            _ => error,
        })?;
        Ok(match (length, descriptors.pop()) {
            (4, Some(pidfd)) => Ok(Spawned {
                pid: u32::from_ne_bytes(number),
                pidfd: PidFd::from(pidfd),
            }),
            (4, None) => Err(match i32::from_ne_bytes(number) {
                libc::ETIMEDOUT => not_loaded(LOADED),
                errno => io::Error::from_raw_os_error(errno),
            }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }
}
