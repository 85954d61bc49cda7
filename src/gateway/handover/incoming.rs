//! The successor's view of its predecessor.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::channel::{self, Sender};
use super::failpoint;
use super::wire::{Enclosed, OFFER, Offer, ToPredecessor, ToSuccessor, VERSION};
use crate::gateway::outbox::Outbox;
use crate::os::process::PidFd;
use crate::systemd::PassedFd;

/// The offer was written before this process began.
const READ: Duration = Duration::from_secs(1);

/// An offer has a few hundred bytes and one name for each listener.
const OFFER_MAX: usize = 64 * 1024;

/// The way to the predecessor.
pub type Predecessor = Sender<ToPredecessor>;

/// An offer that this process was started with.
#[derive(Debug)]
pub struct IncomingOffer {
    pub offer: Offer,
    /// The lock, where there is one.
    pub lock: Option<OwnedFd>,
    /// The listeners, with the names that the service manager keeps them under, or "passed".
    pub listeners: Vec<PassedFd>,
    /// A pidfd for each of the offer's drainers, and a pipe for one that stays.
    pub drainers: Vec<OwnedFd>,
    /// A pidfd for each process of the predecessor that must not run beside ours.
    pub exclusive: Vec<PidFd>,
    /// By which the service may be offered back, for a while.
    pub way_back: Option<UnixStream>,
    /// What came after the offer: the predecessor may have more to say before it is read.
    received: Vec<u8>,
    stream: UnixStream,
}

impl IncomingOffer {
    /// Takes the offer, if this process was started with one. Once, before anything else opens
    /// descriptors.
    ///
    /// # Errors
    /// When there is one that cannot be used; the predecessor knows, and serves on.
    pub fn take() -> Result<Option<Self>, String> {
        let Some(stream) = inherited(OFFER) else {
            return Ok(None);
        };
        failpoint::pass("new.started");
        let offer = Self::receive(stream)?;
        let gone = || "the predecessor is gone, and has left no offer".to_owned();
        offer.ok_or_else(gone).map(Some)
    }

    /// Reads the offer that is in `stream`; none where nobody is at its other end any more.
    ///
    /// # Errors
    /// When there is one that cannot be used; who made it knows.
    pub fn receive(stream: UnixStream) -> Result<Option<Self>, String> {
        let read = read(&stream).inspect_err(|why| refuse(&stream, why.clone(), false))?;
        let Some((offer, descriptors, received)) = read else {
            return Ok(None);
        };
        let mut descriptors = descriptors.into_iter();
        let enclosed = &offer.enclosed;
        let lock = enclosed.lock.then(|| descriptors.next()).flatten();
        let listeners = enclosed.listeners.iter().zip(descriptors.by_ref());
        let listeners = listeners.map(|(name, fd)| PassedFd {
            name: name.clone().unwrap_or_else(|| "passed".to_owned()),
            fd,
        });
        Ok(Some(Self {
            lock,
            listeners: listeners.collect(),
            drainers: descriptors.by_ref().take(of_drainers(enclosed)).collect(),
            exclusive: (descriptors.by_ref().take(of_exclusive(enclosed)))
                .map(PidFd::from)
                .collect(),
            way_back: descriptors.next().map(UnixStream::from),
            offer,
            received,
            stream,
        }))
    }

    /// Begins to talk. What the predecessor says comes through `said`; none when it is gone.
    ///
    /// # Errors
    /// When the stream cannot be watched.
    pub fn converse(&self, said: Outbox<Option<ToSuccessor>>) -> io::Result<Predecessor> {
        let (to, mut from) = channel::open(self.stream.try_clone()?, self.received.clone())?;
        to.send(ToPredecessor::Hello {
            version: VERSION,
            pid: std::process::id(),
        });
        tokio::spawn(async move {
            while let Ok(Some(message)) = from.next().await {
                if !said.send(Some(message)) {
                    return;
                }
            }
            said.send(None);
        });
        Ok(to)
    }

    /// Tells the predecessor that this process cannot take over.
    pub fn refuse(&self, why: &str) {
        refuse(&self.stream, why.to_owned(), false);
    }

    /// The same, because the configuration is not valid.
    pub fn refuse_configuration(&self, why: &str) {
        refuse(&self.stream, why.to_owned(), true);
    }
}

/// An offer, its descriptors, and what came after it.
type ReadOffer = (Offer, Vec<OwnedFd>, Vec<u8>);

/// The offer; none where the other end is closed, and nothing came.
fn read(stream: &UnixStream) -> Result<Option<ReadOffer>, String> {
    let bad = |error: io::Error| format!("cannot read what the predecessor hands over: {error}");
    stream.set_read_timeout(Some(READ)).map_err(bad)?;
    let (mut buffer, mut length, mut descriptors) = (vec![0; OFFER_MAX], 0, Vec::new());
    let received = loop {
        if let Some(end) = buffer[..length].iter().position(|byte| *byte == b'\n') {
            break buffer[end + 1..length].to_vec();
        }
        let (more, came) = channel::receive_with(stream, &mut buffer[length..]).map_err(bad)?;
        descriptors.extend(came);
        length += more;
        if length == 0 {
            return Ok(None);
        }
        if more == 0 {
            break Vec::new();
        }
    };
    stream.set_read_timeout(None).map_err(bad)?;
    let mut lines = buffer[..length].split(|byte| *byte == b'\n');
    let text = lines.next().unwrap_or_default();
    let version = serde_json::from_slice::<serde_json::Value>(text)
        .ok()
        .and_then(|value| value["version"].as_u64());
    if version != Some(u64::from(VERSION)) {
        let theirs = version.map_or("none".to_owned(), |version| version.to_string());
        return Err(format!(
            "this program speaks hand-over version {VERSION}, the running one {theirs}: restart it through the service manager"
        ));
    }
    let offer: Offer = serde_json::from_slice(text).map_err(|error| bad(error.into()))?;
    let enclosed = &offer.enclosed;
    let wanted = usize::from(enclosed.lock)
        + enclosed.listeners.len()
        + of_drainers(enclosed)
        + of_exclusive(enclosed)
        + usize::from(enclosed.way_back);
    if descriptors.len() != wanted {
        return Err(format!(
            "the predecessor hands over {} descriptors instead of {wanted}",
            descriptors.len()
        ));
    }
    Ok(Some((offer, descriptors, received)))
}

/// How many descriptors come for the drainers.
fn of_drainers(enclosed: &Enclosed) -> usize {
    let drainers = enclosed.drainers.iter();
    drainers.map(|drainer| 1 + usize::from(drainer.stays)).sum()
}

/// How many descriptors come for sidecars that must not run twice.
fn of_exclusive(enclosed: &Enclosed) -> usize {
    let exclusive = enclosed.exclusive.iter();
    exclusive.filter(|sidecar| sidecar.runs).count()
}

fn refuse(mut stream: &UnixStream, why: String, invalid: bool) {
    if let Ok(line) = channel::line(&ToPredecessor::Failed { why, invalid }) {
        // A predecessor that is gone needs no reason.
        let _ = stream.write_all(&line);
    }
}

/// A socket that this process inherited under the number in a variable; none when there is no
/// socket.
#[allow(unsafe_code, reason = "an inherited descriptor is a bare number")]
pub(super) fn inherited(variable: &str) -> Option<UnixStream> {
    let number: RawFd = std::env::var(variable)
        .ok()?
        .parse()
        .ok()
        .filter(|number| *number > 2)?;
    // SAFETY: borrowed for calls that fail cleanly when the number is not an open descriptor.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    // A shell may have passed the variable on: then the number belongs to something else.
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(borrowed.as_raw_fd()).ok()?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: open, and taken once: each variable is read by one place at the beginning of the
    // process.
    Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_predecessor_says_before_its_offer_is_read_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let offer = serde_json::json!({
            "version": VERSION, "pid": 7, "instance": "a", "stateDir": "/s", "generation": 2,
            "request": "r", "reason": "", "askedAt": "", "lock": false, "listeners": [],
            "drainers": [], "exclusive": [], "notify": null, "watchdogUsec": 0,
            "verdict": {"supervisor": "init", "reason": ""},
        });
        let mut line = channel::line(&offer).unwrap();
        // One message, as a kernel may deliver two.
        line.extend(channel::line(&ToSuccessor::Abort { main: false }).unwrap());
        (&ours).write_all(&line).unwrap();
        let (offer, descriptors, received) = read(&theirs).unwrap().unwrap();
        assert_eq!((offer.pid, descriptors.len()), (7, 0));
        drop(ours);
        let (_, mut from) = channel::open::<ToPredecessor>(theirs, received).unwrap();
        let said = from.next::<ToSuccessor>().await.unwrap();
        assert!(
            matches!(said, Some(ToSuccessor::Abort { main: false })),
            "{said:?}"
        );
    }
}
