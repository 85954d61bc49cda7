//! Messages to systemd (sd_notify(3)); outside systemd they do nothing.
//!
//! A thread of its own sends them in their order: a service manager that stands still stops nobody
//! here.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::unix::pipe;
use tracing::warn;

use crate::os::jobs::Jobs;

/// How STATUS= begins while a service runs, but waits for an address that somebody else has.
pub const WAITING: &str = "waiting for ";

/// How STATUS= begins while a service runs, but waits for an address that nobody has and that cannot
/// be bound.
pub const CANNOT_LISTEN: &str = "unable to listen on ";

/// How STATUS= begins while a service runs, but somebody else owns its state directory.
pub const STANDING_BY: &str = "standing by for ";

/// What a service waits for that runs but does not serve yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The process that holds an address.
    Address,
    /// A permission, a directory or whatever else it takes to bind an address.
    Means,
    /// The owner of the state directory.
    Owner,
}

impl WaitsFor {
    /// From the STATUS= of a service.
    pub fn of_status(text: &str) -> Option<Self> {
        [
            (WAITING, Self::Address),
            (CANNOT_LISTEN, Self::Means),
            (STANDING_BY, Self::Owner),
        ]
        .into_iter()
        .find_map(|(begin, waits)| text.starts_with(begin).then_some(waits))
    }
}

/// Messages that may wait to be sent. A gateway sends a few a minute, a start with many listeners
/// some dozens at once.
const QUEUE_MAX: usize = 1024;

/// How long [`Notifier::flush`] and [`Notifier::flushed`] wait; systemd reads within milliseconds.
const FLUSH: Duration = Duration::from_secs(1);

/// The thread that sends.
static SENDER: OnceLock<Jobs> = OnceLock::new();

/// Leaves lines, with descriptors, to the thread that sends.
fn queue(lines: String, fds: Vec<OwnedFd>) {
    let sender = SENDER.get_or_init(|| Jobs::start("notify", QUEUE_MAX));
    if !sender.push(move || send_now(&lines, &fds)) {
        warn!("[gateway] cannot speak to the service manager: it reads nothing");
    }
}

fn send_now(lines: &str, fds: &[OwnedFd]) {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    if let Err(error) = sd_notify::notify_with_fds(&[NotifyState::Custom(lines)], &fds) {
        warn!("[gateway] cannot speak to the service manager at $NOTIFY_SOCKET: {error}");
    }
}

/// Speaks to systemd, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Notifier {
    active: bool,
    /// What the watchdog allows, in microseconds; 0 when it is off.
    watchdog_usec: u64,
}

impl Notifier {
    /// A notifier for this process: active when `$NOTIFY_SOCKET` is set.
    pub fn new() -> Self {
        let ours =
            std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let usec = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|usec| usec.parse().ok())
            .unwrap_or(0);
        Self {
            active: Self::address_of_environment().is_some(),
            watchdog_usec: if ours { usec } else { 0 },
        }
    }

    /// Blocks until everything is sent, at most for a second: before the process ends.
    pub fn flush() {
        if let Some(sender) = SENDER.get() {
            sender.flush(FLUSH);
        }
    }

    /// Ends when everything is sent, or after a second: before another process speaks to the service
    /// manager.
    pub fn flushed() -> impl Future<Output = ()> + Send + use<> {
        let sent = SENDER.get().map(Jobs::done);
        async move {
            if let Some(sent) = sent {
                let _ = tokio::time::timeout(FLUSH, sent).await;
            }
        }
    }

    /// A notifier for the successor of a process that had these: `$WATCHDOG_PID` of its environment
    /// names an ancestor, and whether anybody listens is for the ancestor to say. The socket itself
    /// is inherited: another address than `$NOTIFY_SOCKET` is not used.
    pub fn from_parts(address: Option<&str>, watchdog_usec: u64) -> Self {
        let inherited = Self::address_of_environment();
        if address.is_some() && address != inherited.as_deref() {
            warn!(
                "[gateway] $NOTIFY_SOCKET is not what the predecessor had ({address:?}): the service manager is not spoken to"
            );
        }
        Self {
            active: address.is_some() && address == inherited.as_deref(),
            watchdog_usec,
        }
    }

    /// Where it sends to; none when nobody listens. For [`from_parts`](Self::from_parts).
    pub fn address(self) -> Option<String> {
        Self::address_of_environment().filter(|_| self.active)
    }

    fn address_of_environment() -> Option<String> {
        // A path that is not UTF-8 is not one that systemd makes.
        std::env::var("NOTIFY_SOCKET")
            .ok()
            .filter(|socket| !socket.is_empty())
    }

    pub fn active(self) -> bool {
        self.active
    }

    /// What the watchdog allows, in microseconds; 0 when it is off. For
    /// [`from_parts`](Self::from_parts).
    pub fn watchdog_usec(self) -> u64 {
        self.watchdog_usec
    }

    /// Half of what the watchdog allows, if it is on: how often [`watchdog`](Self::watchdog) must
    /// be called.
    pub fn watchdog_interval(self) -> Option<Duration> {
        (self.active && self.watchdog_usec > 1)
            .then(|| Duration::from_micros(self.watchdog_usec / 2))
    }

    /// From now on `pid` is the main process, and only what it says counts. It must be a child of
    /// the manager (or of init), or its death is not seen at once.
    pub fn main_pid(self, pid: u32, status: &str) {
        self.send(&[NotifyState::MainPid(pid), NotifyState::Status(status)]);
    }

    /// Waits until everything that was sent before is read: a process that is then no longer the main
    /// process can send without being taken for it. Whether the manager confirmed it within
    /// `limit`; true at once when nobody listens.
    pub async fn barrier(self, limit: Duration) -> bool {
        if !self.active {
            return true;
        }
        // The manager closes its copy of the one end when it comes to the message, and the other
        // end tells (sd_notify_barrier(3)).
        let asked = std::io::pipe().and_then(|(reader, writer): (PipeReader, _)| {
            queue("BARRIER=1".to_owned(), vec![writer.into()]);
            pipe::Receiver::from_owned_fd(OwnedFd::from(reader))
        });
        match asked {
            Ok(closed) => tokio::time::timeout(limit, closed.readable())
                .await
                .is_ok_and(|end| end.is_ok()),
            Err(error) => {
                warn!("[gateway] cannot ask the service manager for an answer: {error}");
                false
            }
        }
    }

    /// Ready (or ready again after a reload), with a status in plain words.
    pub fn ready(self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A status in plain words.
    pub fn status(self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    /// A reload has begun; [`ready`](Self::ready) must follow, whatever comes of it.
    pub fn reloading(self, status: &str) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now, NotifyState::Status(status)]),
            Err(_) => self.send(&[NotifyState::Reloading, NotifyState::Status(status)]),
        }
    }

    /// On the way out.
    pub fn stopping(self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Give a start this much more time from now on.
    pub fn extend(self, time: Duration) {
        let usec = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(usec)]);
    }

    pub fn watchdog(self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Keep this descriptor for the next process, under `name`.
    pub fn store(self, name: &str, fd: BorrowedFd<'_>) {
        if !self.active {
            return;
        }
        match fd.try_clone_to_owned() {
            Ok(fd) => queue(
                lines(&[NotifyState::FdStore, NotifyState::FdName(name)]),
                vec![fd],
            ),
            Err(error) => {
                warn!("[gateway] the service manager cannot keep {name}: {error}");
            }
        }
    }

    /// Keep the descriptors of this name no longer.
    pub fn remove(self, name: &str) {
        self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    fn send(self, states: &[NotifyState<'_>]) {
        if self.active {
            queue(lines(states), Vec::new());
        }
    }
}

/// One line a state: a text that has line breaks, perhaps from a sidecar, must not become another
/// message.
fn lines(states: &[NotifyState<'_>]) -> String {
    let states = states
        .iter()
        .map(|state| state.to_string().replace('\n', " "));
    states.collect::<Vec<_>>().join("\n")
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_text_cannot_speak_for_the_gateway() {
        let states = [NotifyState::Ready, NotifyState::Status("up\nMAINPID=1")];
        assert_eq!(lines(&states), "READY=1\nSTATUS=up MAINPID=1");
    }
}
