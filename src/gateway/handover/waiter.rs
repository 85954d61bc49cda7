//! The waiter: the process whose pid the outside knows. Where this pid must survive, the first
//! process that hands over stays: it passes signals on, starts later successors, reaps children,
//! and ends with the status of the last process behind it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info};

use super::link::{self, CURRENT, SPAWN};
use super::program::Program;
use super::spawn::{Parentage, Spawned, number, spawn};
use super::wire::{LINK, OFFER};
use super::{channel, failpoint};
use crate::gateway::option_future::or_never;
use crate::gateway::signals::{SignalRequest, Signals};
use crate::os::platform;
use crate::os::process::PidFd;

/// An event behind the waiter.
#[derive(Debug)]
pub enum WaiterEvent {
    /// A process has ended.
    Ended(u32),
    /// Another process serves now.
    Current(u32),
    /// A process requests a successor that inherits this descriptor.
    Spawn(u32, OwnedFd),
}

#[derive(Debug)]
pub struct Waiter {
    program: Program,
    children: HashMap<u32, Child>,
    current: u32,
    status: u8,
    sender: mpsc::UnboundedSender<WaiterEvent>,
    events: mpsc::UnboundedReceiver<WaiterEvent>,
}

#[derive(Debug)]
struct Child {
    pidfd: PidFd,
    stream: std::sync::Arc<UnixStream>,
}

impl Waiter {
    /// A waiter without processes behind it.
    pub fn new(program: Program) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            program,
            children: HashMap::new(),
            current: 0,
            status: 0,
            sender,
            events,
        }
    }

    /// Starts a process behind it that inherits `end`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, end: &impl AsFd) -> io::Result<Spawned> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let numbers = [(OFFER, number(end)), (LINK, number(&theirs))];
        let spawned = spawn(
            &self.program,
            &[end.as_fd(), theirs.as_fd()],
            &numbers,
            Parentage::Child,
        )?;
        let stream = std::sync::Arc::new(UnixStream::from_std(ours)?);
        let pidfd = PidFd::from(spawned.pidfd.as_fd().try_clone_to_owned()?);
        let ended = pidfd.ended()?;
        let (pid, sender) = (spawned.pid, self.sender.clone());
        tokio::spawn(listen(pid, std::sync::Arc::clone(&stream), sender.clone()));
        tokio::spawn(async move {
            ended.wait().await;
            let _ = sender.send(WaiterEvent::Ended(pid));
        });
        self.children.insert(pid, Child { pidfd, stream });
        Ok(spawned)
    }

    pub async fn next(&mut self) -> Option<WaiterEvent> {
        self.events.recv().await
    }

    pub fn happen(&mut self, event: WaiterEvent) {
        match event {
            WaiterEvent::Current(pid) => self.current = pid,
            WaiterEvent::Spawn(from, end) => {
                let spawned = self.spawn(&end);
                if let Err(error) = &spawned {
                    error!("[gateway] cannot start a successor: {error}");
                }
                if let Some(child) = self.children.get(&from) {
                    // A process that is gone needs no answer, and its offer is void.
                    let _ = link::answer(&child.stream, &spawned);
                }
            }
            WaiterEvent::Ended(pid) => {
                let status = reap(pid);
                self.children.remove(&pid);
                if pid == self.current || self.current == 0 {
                    self.status = status;
                }
            }
        }
    }

    /// Whether no process is left behind it.
    pub fn alone(&self) -> bool {
        self.children.is_empty()
    }

    /// Passes a signal on to the process that serves.
    pub fn forward(&self, asked: SignalRequest) {
        let Some(child) = self.children.get(&self.current) else {
            return;
        };
        let signal = match asked {
            SignalRequest::Stop => Signal::SIGTERM,
            SignalRequest::Interrupt => Signal::SIGINT,
            SignalRequest::Reload => Signal::SIGHUP,
            SignalRequest::Restart => Signal::SIGUSR1,
            SignalRequest::Respawn => Signal::SIGUSR2,
        };
        // The end of a process that is gone is noticed elsewhere.
        let _ = child.pidfd.signal(signal);
    }

    /// Waits until the last process behind it has ended, and returns the status of that one.
    /// Nothing else is left to do in this process.
    pub async fn wait(mut self, signals: &mut Signals) -> u8 {
        failpoint::pass("waiter.alone");
        info!(
            "[gateway] pid {} stays in front of pid {}, which serves",
            std::process::id(),
            self.current
        );
        // Orphans become children of process 1, which must reap them.
        let mut orphans = if std::process::id() == 1 {
            signal(SignalKind::child()).ok()
        } else {
            None
        };
        while !self.alone() {
            tokio::select! {
                asked = signals.next() => self.forward(asked),
                Some(event) = self.next() => self.happen(event),
                _ = or_never(orphans.as_mut().map(UnixSignal::recv)) => self.reap_orphans(),
            }
        }
        self.status
    }

    fn reap_orphans(&mut self) {
        // Only looked at, not reaped: the own children are reaped where their end is handled.
        while let Some(pid) = platform::ended_child() {
            if self.children.contains_key(&(pid.as_raw() as u32)) {
                return;
            }
            let _ = waitpid(pid, None);
        }
    }
}

/// The exit code as a shell tells it: 128 plus the number of the signal that killed the process.
fn reap(pid: u32) -> u8 {
    match waitpid(Pid::from_raw(pid as i32), None) {
        Ok(WaitStatus::Exited(_, code)) => code as u8,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as u8,
        _ => 1,
    }
}

async fn listen(
    pid: u32,
    stream: std::sync::Arc<UnixStream>,
    sender: mpsc::UnboundedSender<WaiterEvent>,
) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        let mut byte = [0; 1];
        let event = match stream.try_io(Interest::READABLE, || {
            channel::receive_with(&*stream, &mut byte)
        }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok((1, mut descriptors)) => match (byte[0], descriptors.pop()) {
                (SPAWN, Some(end)) => WaiterEvent::Spawn(pid, end),
                (CURRENT, _) => WaiterEvent::Current(pid),
                _ => continue,
            },
            // Its end is noticed elsewhere.
            _ => return,
        };
        if sender.send(event).is_err() {
            return;
        }
    }
}
