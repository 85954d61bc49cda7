//! A sidecar's output: cut into lines, handed to the log, the last ones kept for when it dies.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::runtime::{Builder, Handle};
use tracing::warn;

use super::keeper::Pipes;
use super::repetition::Repetition;
use super::secret_lines::SecretLines;
use crate::os::mutex::lock;
use crate::text::last_words::telling;
use crate::text::log::{OutputStream, SidecarLog};

/// A line longer than this is cut in pieces, so that a program that never ends its line cannot eat
/// the memory. journald's own LineMax is 48 KiB.
const LINE_MAX: usize = 16 * 1024;

/// Lines kept for error messages, and how much of each: the error may stand above a long stack.
const LAST_LINES: usize = 120;
const LAST_LINE_MAX: usize = 500;

/// The last output of a sidecar, shared between the readers and the report of its death.
#[derive(Debug)]
pub struct SidecarOutput {
    log: Option<SidecarLog>,
    secrets: Arc<SecretLines>,
    last: Mutex<VecDeque<String>>,
    /// How many lines it has printed; changed with `last`.
    printed: AtomicU64,
    begun: Instant,
    /// Milliseconds after `begun` at which it last printed something new.
    progress: AtomicU64,
    /// What its start has printed; none once it is ready.
    repetition: Mutex<Option<Repetition>>,
}

impl SidecarOutput {
    /// Keeps the last lines; passes every line to `log`, if there is one, and to `secrets` those in
    /// which it hides something.
    pub fn new(log: Option<SidecarLog>, secrets: Arc<SecretLines>) -> Arc<Self> {
        Arc::new(Self {
            log,
            secrets,
            last: Mutex::default(),
            printed: AtomicU64::new(0),
            begun: Instant::now(),
            progress: AtomicU64::new(0),
            repetition: Mutex::new(Some(Repetition::default())),
        })
    }

    /// The lines among the last ones that tell why it ended, the oldest first.
    pub fn last_words(&self) -> Vec<String> {
        telling(lock(&self.last).make_contiguous())
    }

    /// How many lines it has printed so far.
    pub fn printed(&self) -> u64 {
        self.printed.load(Ordering::Relaxed)
    }

    /// The same of what it printed after its first `printed` lines.
    pub fn last_words_after(&self, printed: u64) -> Vec<String> {
        let mut last = lock(&self.last);
        let lines = last.make_contiguous();
        let new = usize::try_from(self.printed().saturating_sub(printed)).unwrap_or(usize::MAX);
        telling(&lines[lines.len().saturating_sub(new)..])
    }

    /// When its start last printed something new, or began.
    pub fn last_progress(&self) -> Instant {
        self.begun + Duration::from_millis(self.progress.load(Ordering::Relaxed))
    }

    /// Its start is over: nobody asks for its progress any more.
    pub fn started(&self) {
        *lock(&self.repetition) = None;
    }

    /// A line, or the beginning of one, was printed.
    fn note_progress(&self, piece: &[u8], whole: bool) {
        let mut repetition = lock(&self.repetition);
        if repetition
            .as_mut()
            .is_some_and(|seen| seen.is_new(piece, whole))
        {
            let now = self.begun.elapsed().as_millis() as u64;
            self.progress.store(now, Ordering::Relaxed);
        }
    }

    /// Takes a line. Colours and other sequences for terminals are dropped: logs and messages are
    /// read elsewhere, and escaped they would hide the words.
    fn line(&self, stream: OutputStream, bytes: &[u8]) {
        self.note_progress(bytes, true);
        let text = String::from_utf8_lossy(bytes);
        let text = strip_str(text.trim_end_matches(['\n', '\r'])).to_string();
        if let Some(log) = &self.log
            && log.line(stream, &text)
        {
            self.secrets.keep(&text);
        }
        let mut last = lock(&self.last);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.chars().take(LAST_LINE_MAX).collect());
        self.printed.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads both pipes to their ends, in the thread that reads the output of all sidecars: one
    /// that floods its output, or a log that is slow to take it, does not slow down who decides.
    pub fn read_all(self: &Arc<Self>, pipes: Pipes) -> impl Future<Output = ()> + use<> {
        let runtime = reading_thread();
        let readers = [
            (OutputStream::Out, pipes.out),
            (OutputStream::Err, pipes.err),
        ]
        .map(|(stream, pipe)| {
            let output = Arc::clone(self);
            runtime.spawn(async move {
                match pipe::Receiver::from_owned_fd(pipe) {
                    Ok(pipe) => output.read(stream, pipe).await,
                    Err(error) => {
                        warn!("[gateway] the output of a sidecar cannot be read: {error}")
                    }
                }
            })
        });
        async {
            join_all(readers).await;
        }
    }

    /// Reads a stream to its end, line by line.
    async fn read(self: Arc<Self>, stream: OutputStream, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; LINE_MAX];
        let mut filled = 0;
        loop {
            // A read error is the end: the other side of the pipe is gone.
            let count = from.read(&mut buffer[filled..]).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            filled += count;
            let mut start = 0;
            while let Some(end) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
                self.line(stream, &buffer[start..start + end]);
                start += end + 1;
            }
            buffer.copy_within(start..filled, 0);
            filled -= start;
            if filled == LINE_MAX {
                self.line(stream, &buffer);
                filled = 0;
            }
            if filled > 0 {
                self.note_progress(&buffer[..filled], false);
            }
        }
        if filled > 0 {
            self.line(stream, &buffer[..filled]);
        }
    }
}

/// The thread that reads the output of all sidecars; where the system gives none, the calling one
/// reads it.
fn reading_thread() -> Handle {
    static THREAD: OnceLock<Option<Handle>> = OnceLock::new();
    let start = || {
        let runtime = Builder::new_current_thread().enable_io().build().ok()?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("output".to_owned());
        thread
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .ok()?;
        Some(handle)
    };
    THREAD
        .get_or_init(start)
        .clone()
        .unwrap_or_else(Handle::current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_found_however_they_arrive_and_endless_ones_are_cut() {
        let output = SidecarOutput::new(None, Arc::default());
        let mut text = b"one\ntwo\r\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', LINE_MAX * 3 + 5));
        text.extend(b"\nlast");
        Arc::clone(&output).read(OutputStream::Out, &text[..]).await;
        let words: Vec<String> = lock(&output.last).iter().cloned().collect();
        assert_eq!(words[..2], ["one", "two"]);
        assert_eq!(words.len(), 7);
        assert!(words.iter().all(|line| line.len() <= LAST_LINE_MAX));
        assert_eq!(words[5], "xxxxx");
        assert_eq!(words[6], "last");
    }

    #[tokio::test]
    async fn colours_and_links_for_terminals_are_dropped() {
        let output = SidecarOutput::new(None, Arc::default());
        let text = "\u{1b}[90m12:00\u{1b}[39m \u{1b}[1;31mError\u{1b}[0m: \u{1b}]8;;http://x\u{1b}\\here\u{1b}]8;;\u{1b}\\\tü\n";
        Arc::clone(&output)
            .read(OutputStream::Err, text.as_bytes())
            .await;
        assert_eq!(output.last_words(), ["12:00 Error: here\tü"]);
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let output = SidecarOutput::new(None, Arc::default());
        let text: String = (0..220).map(|n| format!("line {n}\n")).collect();
        Arc::clone(&output)
            .read(OutputStream::Err, text.as_bytes())
            .await;
        assert_eq!(lock(&output.last).front().unwrap(), "line 100");
        assert_eq!(output.last_words().last().unwrap(), "line 219");
    }
}
