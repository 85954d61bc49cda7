//! Where messages go: the journal when standard error is connected to it, else standard error.
//!
//! Messages carry their `[gateway] ` prefix themselves, so that the journal's MESSAGE is the text
//! that a terminal shows.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Value, Visit};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use super::log_file::VARIABLE as FILE_VARIABLE;
use super::log_file::{StderrFile, file_of_stderr};
use super::log_queue::LogQueue;
use super::log_tap::{self, LogLine};
pub use crate::text::escape::escape;
use crate::text::redact::Redactor;

/// The identifier of the gateway's own lines in the journal.
pub const IDENTIFIER: &str = "gateway";

/// The identifier of a sidecar's lines in the journal.
pub fn sidecar_identifier(name: &str) -> String {
    format!("{IDENTIFIER}-{name}")
}

/// The thread that writes, once [`init`] was called; before it, and where the system gives no
/// thread, each line is written at once.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Starts logging. A second call has no effect.
pub fn init() {
    let _ = FILE.set(StderrFile::find().map(Mutex::new));
    let ours =
        |meta: &Metadata<'_>| meta.target().starts_with("gateway") && *meta.level() <= Level::INFO;
    let ours = filter_fn(ours).with_max_level_hint(LevelFilter::INFO);
    let registry = tracing_subscriber::registry();
    let journal =
        journal(IDENTIFIER).map(|layer| Dispatch::new(tracing_subscriber::registry().with(layer)));
    let report = {
        let journal = journal.clone();
        move |lost| report_loss(journal.as_ref(), lost)
    };
    if let Some(queue) = LogQueue::start(report) {
        let _ = QUEUE.set(queue);
    }
    let dispatch = match journal {
        Some(journal) => Dispatch::new(registry.with(ToJournal(journal).with_filter(ours))),
        None => Dispatch::new(registry.with(Terminal.with_filter(ours))),
    };
    let _ = tracing::dispatcher::set_global_default(dispatch);
}

/// Logs that lines were lost, from the thread that writes.
fn report_loss(journal: Option<&Dispatch>, lost: u64) {
    let lines = if lost == 1 { "line was" } else { "lines were" };
    let text = format!("[gateway] the log stood still or was too slow: {lost} {lines} lost");
    match journal {
        Some(journal) => tracing::dispatcher::with_default(journal, || tracing::warn!("{text}")),
        None => print(&format(Level::WARN, &text)),
    }
}

/// Hands a line of about `length` bytes to the thread that writes.
fn enqueue(length: usize, write: impl FnOnce() + Send + 'static) {
    match QUEUE.get() {
        Some(queue) => queue.push(length, write),
        None => write(),
    }
}

/// Logs an error of several lines, for example with the last output of a sidecar, line by line.
pub fn error_lines(text: &str) {
    let mut lines = text.lines();
    tracing::error!("[gateway] {}", lines.next().unwrap_or_default());
    lines.for_each(|line| tracing::info!("[gateway] {line}"));
}

/// Whether standard error leads to the journal: `$JOURNAL_STREAM` names device and inode of the
/// stream that the service manager made, and a redirected descriptor is another one
/// (systemd.exec(5)).
pub fn to_journal() -> bool {
    let stat = nix::sys::stat::fstat(std::io::stderr().as_fd());
    let ours = stat.map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    ours.is_ok_and(|ours| std::env::var("JOURNAL_STREAM") == Ok(ours))
}

fn journal(identifier: &str) -> Option<tracing_journald::Layer> {
    if !to_journal() {
        return None;
    }
    journal_layer(identifier).ok()
}

fn journal_layer(identifier: &str) -> io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        // The priority of what a service prints itself; it keeps `journalctl -p notice` short.
        info: Priority::Informational,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer()?.with_field_prefix(None);
    let layer = layer.with_syslog_identifier(identifier.to_owned());
    Ok(layer.with_priority_mappings(priorities))
}

/// The identifier of the access log's lines in the journal.
const ACCESS_IDENTIFIER: &str = "gateway-access";

/// The journal for the access log, wherever standard error leads.
///
/// # Errors
/// When no journal runs on this machine.
pub fn access_journal() -> io::Result<Dispatch> {
    let layer = journal_layer(ACCESS_IDENTIFIER)?;
    Ok(Dispatch::new(tracing_subscriber::registry().with(layer)))
}

/// Writes one line of the access log; blocks while the journal does not read.
pub fn to_access_journal(journal: &Dispatch, line: &str) {
    tracing::dispatcher::with_default(journal, || tracing::info!("{}", line.trim_end()));
}

/// The socket of journald (systemd's "Native Journal Protocol").
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// journald reads within milliseconds; on a machine without a free core it may take longer.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);

/// More empty datagrams than the smallest send buffer holds: the kernel counts more than 500 bytes
/// for each (struct sk_buff), and the smallest buffer is 4608 bytes (socket(7)).
const FILLERS: usize = 16;

/// How long the last lines may take to be written when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Waits until what this process logged is written and the journal has read it, at most for a
/// second each; to be called before the process ends: journald looks up the unit of an entry when it
/// reads it, and neither `journalctl -u` nor `gatewayctl why` finds an entry whose process has ended
/// by then.
pub fn flush() {
    let written = QUEUE.get().is_none_or(|queue| queue.flush(LAST_LINES));
    if written && to_journal() {
        let _ = wait_for_reader(Path::new(JOURNAL_SOCKET));
    }
}

/// Returns when the reader of a socket has read all that was sent before: fills a send buffer with
/// empty datagrams, which journald ignores, until the first of them has been read.
fn wait_for_reader(socket: &Path) -> io::Result<()> {
    let own = UnixDatagram::unbound()?;
    own.connect(socket)?;
    own.set_write_timeout(Some(JOURNAL_PATIENCE))?;
    nix::sys::socket::setsockopt(&own, nix::sys::socket::sockopt::SndBuf, &1)?;
    for _ in 0..FILLERS {
        own.send(&[])?;
    }
    Ok(())
}

/// Standard output and standard error of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    Out,
    Err,
}

/// Writes the lines of one sidecar to the log.
#[derive(Clone, Debug)]
pub struct SidecarLog {
    name: String,
    redactor: Redactor,
    journal: Option<Dispatch>,
}

impl SidecarLog {
    /// The log of the sidecar `name`; in the journal its lines carry the identifier `gateway-NAME`
    /// and the field SIDECAR.
    pub fn new(name: &str, redactor: Redactor) -> Self {
        let journal = journal(&sidecar_identifier(name)).map(|layer| {
            let layer = layer.with_custom_fields([("SIDECAR", name)]);
            Dispatch::new(tracing_subscriber::registry().with(layer))
        });
        Self {
            name: name.to_owned(),
            redactor,
            journal,
        }
    }

    /// Logs one line, secrets hidden and control characters but tab escaped. A line that cannot be
    /// written is lost. Returns whether something in it was hidden.
    pub fn line(&self, stream: OutputStream, text: &str) -> bool {
        let redacted = self.redactor.text(text);
        let hidden = redacted != text;
        let text = escape(redacted.trim_end_matches(['\r', '\n'])).into_owned();
        log_tap::pass(|| LogLine {
            level: Level::INFO,
            sidecar: Some(&self.name),
            text: &text,
        });
        let length = text.len();
        let log = self.clone();
        let write = move || log.write(stream, &text);
        match QUEUE.get() {
            Some(queue) => queue.push_output(length, write),
            None => write(),
        }
        hidden
    }

    fn write(&self, stream: OutputStream, text: &str) {
        let Some(journal) = &self.journal else {
            return print(&format!("[{}] {text}\n", self.name));
        };
        let stream = match stream {
            OutputStream::Out => "stdout",
            OutputStream::Err => "stderr",
        };
        tracing::dispatcher::with_default(journal, || tracing::info!(STREAM = stream, "{text}"));
    }
}

/// The file that standard error leads to, if it is one; set by [`init`].
static FILE: OnceLock<Option<Mutex<StderrFile>>> = OnceLock::new();

/// What tells a process that takes over which file standard error leads to: the name of a variable and its
/// value. None where it is no file.
pub fn file_variable() -> Option<(&'static str, PathBuf)> {
    let file = FILE.get().and_then(Option::as_ref)?;
    let file = file.lock().unwrap_or_else(PoisonError::into_inner);
    Some((FILE_VARIABLE, file.path().to_owned()))
}

/// Where standard error leads to, for somebody who looks for it later: the file, or the terminal.
pub fn destination() -> Option<PathBuf> {
    if let Some((_, file)) = file_variable() {
        return Some(file);
    }
    let device = file_of_stderr().ok()?;
    device.starts_with("/dev").then_some(device)
}

/// Writes in one piece, so that lines of several threads do not mix. There is no place to report an
/// error.
fn print(line: &str) {
    let _ = print_line(line);
}

/// Writes a whole line to standard error, and follows a file that was moved away.
///
/// # Errors
/// Why it cannot be written.
pub fn print_line(line: &str) -> io::Result<()> {
    let file = FILE.get().and_then(Option::as_ref);
    let file = file.map(|file| file.lock().unwrap_or_else(PoisonError::into_inner));
    let stuck = file.and_then(|mut file| file.follow());
    let mut stderr = io::stderr().lock();
    if let Some(why) = stuck {
        let told = format(Level::WARN, &format!("[gateway] {why}"));
        stderr.write_all(told.as_bytes())?;
    }
    stderr.write_all(line.as_bytes())
}

/// Hands events to the journal of another thread.
struct ToJournal(Dispatch);

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut taken = TakenEvent {
            metadata: event.metadata(),
            values: Vec::new(),
        };
        event.record(&mut taken);
        let message = (taken.values.iter()).find(|(field, _)| field.name() == "message");
        pass_on(
            *event.metadata().level(),
            message.map_or("", |(_, text)| text),
        );
        let length = taken.values.iter().map(|(_, value)| value.len()).sum();
        let journal = self.0.clone();
        enqueue(length, move || taken.give_to(&journal));
    }
}

/// Gives a line of the gateway's own to those who follow the log.
fn pass_on(level: Level, message: &str) {
    let text = escape(message);
    log_tap::pass(|| LogLine {
        level,
        sidecar: None,
        text: text.strip_prefix("[gateway] ").unwrap_or(&text),
    });
}

/// An event that another thread can log.
struct TakenEvent {
    metadata: &'static Metadata<'static>,
    values: Vec<(Field, String)>,
}

/// More fields than any event of ours has.
const FIELDS_MAX: usize = 8;

impl TakenEvent {
    fn give_to(&self, subscriber: &Dispatch) {
        let Some((first, _)) = self.values.first() else {
            return;
        };
        let values: [(&Field, Option<&dyn Value>); FIELDS_MAX] =
            std::array::from_fn(|index| match self.values.get(index) {
                Some((field, value)) => (field, Some(value as &dyn Value)),
                None => (first, None),
            });
        tracing::dispatcher::with_default(subscriber, || {
            Event::dispatch(self.metadata, &self.metadata.fields().value_set(&values));
        });
    }
}

impl Visit for TakenEvent {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.values.push((field.clone(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.values.push((field.clone(), format!("{value:?}")));
    }
}

/// Prints nothing but the message.
struct Terminal;

impl<S: Subscriber> Layer<S> for Terminal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        pass_on(*event.metadata().level(), &message.0);
        let line = format(*event.metadata().level(), &message.0);
        enqueue(line.len(), move || print(&line));
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// The line for a terminal: the level of warnings and errors stands behind the prefix.
fn format(level: Level, message: &str) -> String {
    let mark = match level {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        _ => "",
    };
    let message = escape(message);
    match message.strip_prefix("[gateway] ") {
        Some(rest) => format!("[gateway] {mark}{rest}\n"),
        None => format!("{mark}{message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_drives_a_terminal_or_forges_a_line() {
        assert_eq!(
            format(Level::INFO, "a\n[gateway] ready"),
            "a\\n[gateway] ready\n"
        );
    }

    #[test]
    fn the_level_stands_behind_the_prefix() {
        assert_eq!(format(Level::INFO, "[gateway] ready"), "[gateway] ready\n");
        assert_eq!(
            format(Level::WARN, "[gateway] slow"),
            "[gateway] warning: slow\n"
        );
        assert_eq!(format(Level::ERROR, "bare"), "error: bare\n");
    }

    #[test]
    fn messages_are_taken_from_events_and_only_they() {
        #[derive(Clone, Default)]
        struct Messages(std::sync::Arc<std::sync::Mutex<Vec<String>>>);
        impl<S: Subscriber> Layer<S> for Messages {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut message = Message::default();
                event.record(&mut message);
                self.0.lock().unwrap().push(message.0);
            }
        }
        let seen = Messages::default();
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(seen.clone()));
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(generation = 3, "[gateway] ready ({})", "x")
        });
        assert_eq!(*seen.0.lock().unwrap(), ["[gateway] ready (x)"]);
    }

    #[test]
    fn what_was_logged_is_read_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"last words", &path).unwrap();
        let (read, seen) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            wait_for_reader(&path).unwrap();
            seen.try_recv()
        });
        let mut text = [0; 32];
        let length = journal.recv(&mut text).unwrap();
        read.send(text[..length].to_vec()).unwrap();
        for _ in 0..FILLERS {
            assert_eq!(journal.recv(&mut text).unwrap(), 0);
        }
        assert_eq!(waits.join().unwrap().unwrap(), b"last words");
    }

    #[test]
    fn the_wait_for_a_journal_that_reads_nothing_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _journal = UnixDatagram::bind(&path).unwrap();
        let error = wait_for_reader(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_sidecar_line_without_a_journal_goes_to_standard_error() {
        let log = SidecarLog::new("web", Redactor::default());
        assert!(log.journal.is_none() || to_journal());
        log.line(OutputStream::Out, "token=abc\r\n");
    }
}
