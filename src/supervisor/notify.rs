//! What systemd is told (sd_notify(3)). Outside systemd every message is a silent no-op.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Speaks to systemd, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Notifier {
    active: bool,
}

impl Notifier {
    /// A notifier for this process: active when `$NOTIFY_SOCKET` is set.
    pub fn new() -> Self {
        Self { active: std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()) }
    }

    /// Whether anybody listens.
    pub fn active(self) -> bool {
        self.active
    }

    /// Half of what the watchdog allows, if it is on: how often [`watchdog`](Self::watchdog) must be called.
    pub fn watchdog_interval(self) -> Option<Duration> {
        let usec: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        (self.active && ours && usec > 0).then(|| Duration::from_micros(usec / 2))
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

    /// Alive.
    pub fn watchdog(self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Keep this descriptor for the next life, under `name`.
    pub fn store(self, name: &str, fd: BorrowedFd<'_>) {
        if self.active {
            self.report(sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[fd]));
        }
    }

    /// Keep the descriptors of this name no longer.
    pub fn remove(self, name: &str) {
        self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    fn send(self, states: &[NotifyState<'_>]) {
        if self.active {
            self.report(sd_notify::notify(states));
        }
    }

    fn report(self, result: io::Result<()>) {
        if let Err(error) = result {
            warn!("[gateway] cannot speak to the service manager at $NOTIFY_SOCKET: {error}");
        }
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
