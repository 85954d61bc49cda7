//! The successor's view of its predecessor.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::channel::{self, Receiver, Sender};
use super::failpoint;
use super::wire::{OFFER, Offer, ToPredecessor, ToSuccessor, VERSION};
use crate::gateway::outbox::Outbox;
use crate::os::process::PidFd;

/// The offer was written before this process began.
const READ: Duration = Duration::from_secs(1);

/// A predecessor that reads takes the last words at once; one that hangs is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// An offer has a few hundred bytes and one name for each listener.
const OFFER_MAX: usize = 64 * 1024;

/// An offer that this process was started with.
#[derive(Debug)]
pub struct IncomingOffer {
    pub offer: Offer,
    /// The lock, where there is one.
    pub lock: Option<OwnedFd>,
    /// The listeners, with the names that the service manager keeps them under.
    pub listeners: Vec<(Option<String>, OwnedFd)>,
    /// A pidfd for each of the offer's drainers, and a pipe for one that stays.
    pub drainers: Vec<OwnedFd>,
    /// A pidfd for each process of the predecessor that must not run beside ours.
    pub exclusive: Vec<PidFd>,
    stream: UnixStream,
}

impl IncomingOffer {
    /// Takes the offer, if this process was started with one. Once, before anything else opens
    /// descriptors.
    ///
    /// # Errors
    /// When there is one that cannot be used; the predecessor has been told, and serves on.
    pub fn take() -> Result<Option<Self>, String> {
        let Some(stream) = inherited(OFFER) else {
            return Ok(None);
        };
        failpoint::pass("new.started");
        match Self::read(&stream) {
            Ok((offer, descriptors)) => Ok(Some(Self::sort(offer, descriptors, stream))),
            Err(why) => Err(tell(&stream, why)),
        }
    }

    fn read(stream: &UnixStream) -> Result<(Offer, Vec<OwnedFd>), String> {
        let bad =
            |error: io::Error| format!("cannot read what the predecessor hands over: {error}");
        stream.set_read_timeout(Some(READ)).map_err(bad)?;
        let mut buffer = vec![0; OFFER_MAX];
        let (mut length, descriptors) = channel::receive_with(stream, &mut buffer).map_err(bad)?;
        while length > 0 && !buffer[..length].contains(&b'\n') && length < OFFER_MAX {
            let more = io::Read::read(&mut &*stream, &mut buffer[length..]).map_err(bad)?;
            if more == 0 {
                break;
            }
            length += more;
        }
        stream.set_read_timeout(None).map_err(bad)?;
        let text = buffer[..length]
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let version = serde_json::from_slice::<serde_json::Value>(text)
            .ok()
            .and_then(|value| value["version"].as_u64());
        if version != Some(u64::from(VERSION)) {
            let theirs = version.map_or("none".to_owned(), |version| version.to_string());
            return Err(format!(
                "this program speaks hand-over version {VERSION}, the running one {theirs}: restart it through the service manager"
            ));
        }
        let offer: Offer = serde_json::from_slice(text)
            .map_err(|error| format!("cannot read what the predecessor hands over: {error}"))?;
        let running = offer
            .exclusive
            .iter()
            .filter(|sidecar| sidecar.runs)
            .count();
        let wanted =
            usize::from(offer.lock) + offer.listeners.len() + of_drainers(&offer) + running;
        if descriptors.len() != wanted {
            return Err(format!(
                "the predecessor hands over {} descriptors instead of {wanted}",
                descriptors.len()
            ));
        }
        Ok((offer, descriptors))
    }

    fn sort(offer: Offer, descriptors: Vec<OwnedFd>, stream: UnixStream) -> Self {
        let mut descriptors = descriptors.into_iter();
        let lock = if offer.lock { descriptors.next() } else { None };
        let listeners = offer
            .listeners
            .iter()
            .cloned()
            .zip(descriptors.by_ref())
            .collect();
        let drainers = descriptors.by_ref().take(of_drainers(&offer)).collect();
        let exclusive = descriptors.map(PidFd::from).collect();
        Self {
            offer,
            lock,
            listeners,
            drainers,
            exclusive,
            stream,
        }
    }

    /// Begins to talk. What the predecessor says comes through `said`; none when
    /// it is gone.
    ///
    /// # Errors
    /// When the stream cannot be watched.
    pub fn converse(&self, said: Outbox<Option<ToSuccessor>>) -> io::Result<Predecessor> {
        let (to, from) = channel::open(self.stream.try_clone()?)?;
        to.send(&ToPredecessor::Hello {
            version: VERSION,
            pid: std::process::id(),
        });
        tokio::spawn(listen(from, said));
        Ok(Predecessor { to })
    }

    /// Tells the predecessor that this process cannot take over.
    pub fn refuse(&self, why: &str) {
        let _ = tell(&self.stream, why.to_owned());
    }
}

/// How many descriptors come for the drainers.
fn of_drainers(offer: &Offer) -> usize {
    offer.drainers.len()
        + offer
            .drainers
            .iter()
            .filter(|drainer| drainer.stays)
            .count()
}

fn tell(mut stream: &UnixStream, why: String) -> String {
    let failed = ToPredecessor::Failed { why: why.clone() };
    if let Ok(mut line) = serde_json::to_vec(&failed) {
        line.push(b'\n');
        // A predecessor that is gone needs no reason.
        let _ = io::Write::write_all(&mut stream, &line);
    }
    why
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
    // Whatever else carries this number, from a variable that a shell passed on, is none of ours.
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(borrowed.as_raw_fd()).ok()?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: open, and taken once: each variable is read by one place at the beginning of the
    // process.
    Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// The predecessor, while it is there.
#[derive(Clone, Debug)]
pub struct Predecessor {
    to: Sender<ToPredecessor>,
}

impl Predecessor {
    pub fn say(&self, message: &ToPredecessor) {
        self.to.send(message);
    }

    /// Waits until it has what was said: the end of this process would take it along.
    pub async fn heard(&self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.to.flushed()).await;
    }
}

async fn listen(mut from: Receiver<ToSuccessor>, said: Outbox<Option<ToSuccessor>>) {
    while let Ok(Some(message)) = from.next().await {
        if !said.send(Some(message)) {
            return;
        }
    }
    // When the loop is gone, so is everybody who might care.
    said.send(None);
}
