//! The access log: one line for each request, written by a thread of its own, so that no request waits
//! for a disk, a journal or a pipe. What they do not take in time is dropped and counted.

mod destination;
mod entry;
mod line;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::error;

pub use destination::{check, open};
pub use entry::{AccessEntry, LoggedHead};

use super::log_throttle::LogThrottle;
use crate::config::{AccessLogFormat, AccessLogTarget, Config};
use crate::os::mutex::lock;
use crate::text::redact::Redactor;
use destination::Destination;
use line::Lines;

/// How much may wait to be written, in bytes: some ten thousand lines, a second of a busy front door.
const ROOM: usize = 4 << 20;

/// With so much waiting, it is written at once.
const URGENT: usize = ROOM / 4;

/// How long the first line waits for others to be written with: a wake-up of the thread for each line
/// would cost as much as the request. A person who follows the log does not notice.
const GATHER: Duration = Duration::from_millis(50);

/// How long the last lines may take to be written when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The access log of a process. It is off until it is set.
#[derive(Debug, Default)]
pub struct AccessLog {
    on: AtomicBool,
    state: Mutex<LogState>,
    changed: Condvar,
    redactor: OnceLock<Redactor>,
    /// How many lines were lost so far: there was no room, or they could not be written.
    pub lost: AtomicU64,
}

#[derive(Debug, Default)]
struct LogState {
    /// Whether the thread runs.
    started: bool,
    waiting: Vec<AccessEntry>,
    /// The size of all of them.
    bytes: usize,
    /// Whether somebody waits for what is there to be written.
    hurry: bool,
    /// Whether the thread writes.
    writes: bool,
    /// What the log is to be from now on.
    set: Option<LogSettings>,
}

/// Where the lines go, and what they look like.
#[derive(Clone, Debug)]
struct LogSettings {
    target: AccessLogTarget,
    format: AccessLogFormat,
    redactor: Redactor,
}

impl AccessLog {
    /// Whether lines are wanted.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The lines show none of the secrets that this redactor knows, or learns.
    pub fn hide(&self, redactor: &Redactor) {
        let _ = self.redactor.set(redactor.clone());
    }

    /// From here on the log is as the configuration says; a file is opened anew.
    pub fn set(self: &Arc<Self>, config: &Config) {
        let settings = LogSettings {
            target: config.gateway.access_log.clone(),
            format: config.gateway.access_log_format,
            redactor: self.redactor.get().cloned().unwrap_or_default(),
        };
        let on = settings.target != AccessLogTarget::Off;
        let mut state = self.lock();
        if !state.started {
            if !on {
                return;
            }
            let log = Arc::clone(self);
            let thread = std::thread::Builder::new().name("access-log".to_owned());
            if let Err(error) = thread.spawn(move || log.write_all()) {
                error!("[gateway] there is no access log, because it gets no thread: {error}");
                return;
            }
            state.started = true;
        }
        state.set = Some(settings);
        self.on.store(on, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Takes a line without waiting; drops it when there is no room.
    pub fn push(&self, entry: AccessEntry) {
        let size = entry.size();
        let mut state = self.lock();
        let before = state.bytes;
        if before + size > ROOM {
            drop(state);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.push(entry);
        state.bytes += size;
        let wakes = before == 0 || (before < URGENT && state.bytes >= URGENT);
        drop(state);
        if wakes {
            self.changed.notify_all();
        }
    }

    /// Waits until all lines are written, but not for long; to be called before the process ends.
    pub fn flush(&self) {
        let end = Instant::now() + LAST_LINES;
        let mut state = self.lock();
        while state.started && (state.bytes > 0 || state.writes || state.set.is_some()) {
            state.hurry = true;
            self.changed.notify_all();
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return;
            };
            state = self.wait(state, left);
        }
    }

    fn write_all(&self) {
        let mut lines = Lines::default();
        let mut destination = Destination::None;
        let (troubles, losses) = (LogThrottle::default(), LogThrottle::default());
        let mut reported = 0;
        loop {
            let (mut entries, set) = self.next();
            if !matches!(destination, Destination::None) {
                // They were meant for where the log went before.
                self.write(&mut destination, &mut lines, &entries, &troubles);
                entries.clear();
            }
            if let Some(settings) = set {
                lines.set(settings.format, settings.redactor);
                destination = destination.change(&settings.target);
            }
            self.write(&mut destination, &mut lines, &entries, &troubles);
            let lost = self.lost.load(Ordering::Relaxed);
            if lost > reported {
                let more = lost - reported;
                losses.log(format_args!(
                    "the access log stood still or was too slow: {more} lines were lost"
                ));
                reported = lost;
            }
            self.lock().writes = false;
            self.changed.notify_all();
        }
    }

    fn write(
        &self,
        destination: &mut Destination,
        lines: &mut Lines,
        entries: &[AccessEntry],
        troubles: &LogThrottle,
    ) {
        if let Some(failure) = destination.write(lines, entries) {
            self.lost.fetch_add(failure.lost, Ordering::Relaxed);
            troubles.log(format_args!(
                "the access log cannot be written: {}",
                failure.why
            ));
        }
    }

    /// Waits for lines, or for another setting.
    fn next(&self) -> (Vec<AccessEntry>, Option<LogSettings>) {
        let mut state = self.lock();
        while state.waiting.is_empty() && state.set.is_none() {
            state.hurry = false;
            state = match self.changed.wait(state) {
                Ok(state) => state,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        let end = Instant::now() + GATHER;
        while !state.hurry
            && state.set.is_none()
            && state.bytes < URGENT
            && let Some(left) = end.checked_duration_since(Instant::now())
        {
            state = self.wait(state, left);
        }
        state.writes = true;
        state.bytes = 0;
        (std::mem::take(&mut state.waiting), state.set.take())
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        lock(&self.state)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, LogState>,
        limit: Duration,
    ) -> MutexGuard<'a, LogState> {
        self.changed
            .wait_timeout(state, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}
