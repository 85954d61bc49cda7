//! The log is written by a thread of its own: who decides or serves never waits for a journal that
//! stands still or for a pipe that nobody reads.
//!
//! What the log does not take in time is dropped and counted; the count is logged when it takes
//! lines again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may wait to be written, in bytes: some thousand lines, more than a restart logs.
const ROOM: usize = 1 << 20;

/// How much of it the output of sidecars may use, so that a sidecar that floods the log leaves room
/// for the gateway's own lines.
const OUTPUT_ROOM: usize = ROOM / 2;

/// What a line costs besides its text, in bytes.
const ENTRY: usize = 128;

/// A log that took nothing for this long stands still. A slow one (a terminal, a journal on a busy
/// disk) takes a line within milliseconds.
const STALLED: Duration = Duration::from_secs(1);

/// Writes one line; may block.
type Write = Box<dyn FnOnce() + Send>;

/// Lines that wait to be written.
pub struct LogQueue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<(usize, Write)>,
    /// The size of all of them, and of the line that is being written.
    bytes: usize,
    /// Lines that were dropped since the last report.
    lost: u64,
    /// When the log last took a line, or the queue was empty.
    taken: Instant,
}

impl LogQueue {
    /// Starts the thread; `report` logs how many lines were lost. None where the system gives no
    /// thread.
    pub fn start(report: impl Fn(u64) + Send + 'static) -> Option<Arc<Self>> {
        let queue = Arc::new(Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                lost: 0,
                taken: Instant::now(),
            }),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_all(&report))
            .ok()?;
        Some(queue)
    }

    /// Takes a line of `length` bytes without waiting; drops it when there is no room.
    pub fn push(&self, length: usize, write: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.add(ROOM, length, Box::new(write));
        self.changed.notify_all();
    }

    /// Takes a line of a sidecar. While the log is only slow it waits for room, so that the sidecar
    /// is slowed down and nothing is lost; when the log stands still it drops the line.
    pub fn push_output(&self, length: usize, write: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        while state.bytes + length + ENTRY > OUTPUT_ROOM {
            let Some(patience) = STALLED.checked_sub(state.taken.elapsed()) else {
                break;
            };
            state = self.wait(state, patience);
        }
        state.add(OUTPUT_ROOM, length, Box::new(write));
        self.changed.notify_all();
    }

    /// Waits until everything is written, at most for `limit`; whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while state.bytes > 0 {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.wait(state, left);
        }
        true
    }

    fn write_all(&self, report: &dyn Fn(u64)) {
        let mut state = self.lock();
        loop {
            let Some((size, write)) = state.waiting.pop_front() else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            write();
            state = self.lock();
            state.taken = Instant::now();
            let lost = std::mem::take(&mut state.lost);
            if lost > 0 {
                drop(state);
                report(lost);
                state = self.lock();
            }
            state.bytes -= size;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, limit) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

impl State {
    fn add(&mut self, room: usize, length: usize, write: Write) {
        let size = length + ENTRY;
        if self.bytes + size > room {
            self.lost += 1;
            return;
        }
        if self.bytes == 0 {
            self.taken = Instant::now();
        }
        self.bytes += size;
        self.waiting.push_back((size, write));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A log that takes a line only when `go` says so.
    struct StalledLog {
        queue: Arc<LogQueue>,
        go: Sender<()>,
        held: Arc<Mutex<Receiver<()>>>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl StalledLog {
        fn new() -> Self {
            let (go, held) = channel();
            let written = Arc::<Mutex<Vec<String>>>::default();
            let reports = Arc::clone(&written);
            let report = move |lost| reports.lock().unwrap().push(format!("lost {lost}"));
            Self {
                queue: LogQueue::start(report).unwrap(),
                go,
                held: Arc::new(Mutex::new(held)),
                written,
            }
        }

        fn line(&self, text: &str) -> impl FnOnce() + Send + 'static {
            let (held, written, text) = (
                Arc::clone(&self.held),
                Arc::clone(&self.written),
                text.to_owned(),
            );
            move || {
                let _ = held.lock().unwrap().recv();
                written.lock().unwrap().push(text);
            }
        }
    }

    #[test]
    fn a_log_that_stands_still_stops_nobody_and_the_loss_is_counted() {
        let log = StalledLog::new();
        let begun = Instant::now();
        for number in 0..20 {
            log.queue
                .push(ROOM / 10, log.line(&format!("line {number}")));
        }
        assert!(!log.queue.flush(Duration::from_millis(50)));
        assert!(begun.elapsed() < STALLED, "no line waited");
        drop(log.go);
        assert!(log.queue.flush(Duration::from_secs(60)));
        let written = log.written.lock().unwrap().clone();
        assert_eq!(written[..3], ["line 0", "lost 11", "line 1"]);
        assert_eq!(written.len(), 10);
    }

    #[test]
    fn the_output_of_sidecars_waits_for_a_slow_log_and_leaves_room() {
        let log = StalledLog::new();
        for _ in 0..2 {
            log.queue
                .push_output(OUTPUT_ROOM / 2 - ENTRY, log.line("output"));
        }
        // The log takes a line while this one waits for room.
        let (go, third) = (log.go.clone(), log.line("third"));
        let queue = Arc::clone(&log.queue);
        let waiting = std::thread::spawn(move || queue.push_output(1, third));
        go.send(()).unwrap();
        waiting.join().unwrap();
        // It stands still: lines of sidecars are dropped, the gateway's own are not.
        log.queue.push_output(OUTPUT_ROOM / 2, log.line("dropped"));
        log.queue.push(OUTPUT_ROOM / 2, log.line("ours"));
        drop((log.go, go));
        assert!(log.queue.flush(Duration::from_secs(60)));
        assert_eq!(
            *log.written.lock().unwrap(),
            ["output", "output", "lost 1", "third", "ours"]
        );
    }
}
