//! What a process offers to its successor, and the descriptors that go with it.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::channel;
use super::predecessors::Predecessors;
use super::wire::{Enclosed, Exclusive, HandedDrainer, Offer, ToSuccessor};
use crate::gateway::generation::Generation;
use crate::gateway::listeners::Listeners;
use crate::os::process::PidFd;
use crate::state::lock::Lock;

/// An offer, and what is to be enclosed.
#[derive(Debug)]
pub struct Offering<'a> {
    pub offer: Offer,
    pub listeners: &'a Listeners,
    pub predecessors: &'a Predecessors,
    /// The generation that serves.
    pub current: Option<&'a Generation>,
    /// Its number.
    pub serves: u64,
    /// Milliseconds that this process has for its drain.
    pub drain_ms: u64,
}

impl Offering<'_> {
    /// A socket pair with the offer in it: our end, and the one for the successor to inherit. `work`
    /// is the pipe of a process that stays in front of its successor, `way_back` the stream by which
    /// the successor may offer the service back.
    ///
    /// # Errors
    /// When the pair or a descriptor cannot be made.
    pub fn prepare(
        self,
        lock: Option<&Lock>,
        work: Option<&OwnedFd>,
        way_back: Option<&UnixStream>,
    ) -> io::Result<(Offered, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((self.write(ours, lock, work, way_back)?, theirs))
    }

    /// Writes the offer to a process at the other end of `stream`.
    ///
    /// # Errors
    /// When it cannot be written, or a descriptor cannot be made.
    pub fn write(
        mut self,
        stream: UnixStream,
        lock: Option<&Lock>,
        work: Option<&OwnedFd>,
        way_back: Option<&UnixStream>,
    ) -> io::Result<Offered> {
        let own = PidFd::open(std::process::id())?;
        let listeners = self.listeners.to_hand_over();
        let older = self.predecessors.drainers();
        // Our own children, not reaped yet: no other process has their numbers.
        let exclusive = self.current.map(Generation::exclusive).unwrap_or_default();
        let exclusive: Vec<(String, Option<PidFd>)> = exclusive
            .into_iter()
            .map(|(name, pid)| (name, PidFd::open(pid).ok()))
            .collect();
        let running = exclusive.iter().filter_map(|(_, process)| process.as_ref());
        // In the order that `Enclosed` states.
        let descriptors: Vec<BorrowedFd<'_>> = (lock.map(AsFd::as_fd).into_iter())
            .chain(listeners.iter().map(|(_, fd)| *fd))
            .chain([own.as_fd()])
            .chain(work.map(AsFd::as_fd))
            .chain(older.iter().flat_map(|(_, fds)| fds.iter().copied()))
            .chain(running.map(AsFd::as_fd))
            .chain(way_back.map(AsFd::as_fd))
            .collect();
        let me = HandedDrainer {
            pid: std::process::id(),
            generation: self.serves,
            left_ms: Some(self.drain_ms),
            stays: work.is_some(),
        };
        let named = |(name, process): &(String, Option<PidFd>)| Exclusive {
            name: name.clone(),
            runs: process.is_some(),
        };
        self.offer.enclosed = Enclosed {
            lock: lock.is_some(),
            listeners: listeners.iter().map(|(name, _)| name.clone()).collect(),
            drainers: std::iter::once(me)
                .chain(older.iter().map(|(drainer, _)| drainer.clone()))
                .collect(),
            exclusive: exclusive.iter().map(named).collect(),
            way_back: way_back.is_some(),
        };
        let line = channel::line(&self.offer)?;
        let sent = channel::send_with(&stream, &line, &descriptors)?;
        // The descriptors went with the first bytes.
        (&stream).write_all(&line[sent..])?;
        Ok(Offered(Some(stream)))
    }
}

/// Our end of the stream with an offer. A successor that comes to nobody, because it was given up or
/// came too late, finds that it was called off: from an end that is merely closed it would conclude
/// that this process died, and take the service.
#[derive(Debug)]
pub struct Offered(Option<UnixStream>);

impl Offered {
    /// For a successor that is wanted.
    ///
    /// # Errors
    /// When it was claimed before.
    pub fn claim(mut self) -> io::Result<UnixStream> {
        self.0
            .take()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(mut stream) = self.0.take()
            && let Ok(line) = channel::line(&ToSuccessor::Abort { main: false })
        {
            // The offer left room for it.
            let _ = stream.write_all(&line);
        }
    }
}
