//! Where messages go: the journal when standard error is connected to it, else standard error.
//!
//! Messages carry their `[gateway] ` prefix themselves, so that the journal's MESSAGE is the text
//! that a terminal shows.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use crate::text::escape::escape;
use crate::text::redact::Redactor;

/// The identifier of the gateway's own lines in the journal.
pub const IDENTIFIER: &str = "gateway";

/// The identifier of a sidecar's lines in the journal.
pub fn sidecar_identifier(name: &str) -> String {
    format!("{IDENTIFIER}-{name}")
}

/// Starts logging. A second call has no effect.
pub fn init() {
    let ours =
        |meta: &Metadata<'_>| meta.target().starts_with("gateway") && *meta.level() <= Level::INFO;
    let ours = filter_fn(ours).with_max_level_hint(LevelFilter::INFO);
    let registry = tracing_subscriber::registry();
    let dispatch = match journal(IDENTIFIER) {
        Some(layer) => Dispatch::new(registry.with(layer.with_filter(ours))),
        None => Dispatch::new(registry.with(Terminal.with_filter(ours))),
    };
    let _ = tracing::dispatcher::set_global_default(dispatch);
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
    let priorities = PriorityMappings {
        // The priority of what a service prints itself; it keeps `journalctl -p notice` short.
        info: Priority::Informational,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer().ok()?.with_field_prefix(None);
    let layer = layer.with_syslog_identifier(identifier.to_owned());
    Some(layer.with_priority_mappings(priorities))
}

/// The socket of journald (systemd's "Native Journal Protocol").
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// journald reads within milliseconds; on a machine without a free core it may take longer.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);

/// More empty datagrams than the smallest send buffer holds: the kernel counts more than 500 bytes
/// for each (struct sk_buff), and the smallest buffer is 4608 bytes (socket(7)).
const FILLERS: usize = 16;

/// Waits until the journal has read what this process logged, at most for a second; to be called
/// before the process ends: journald looks up the unit of an entry when it reads it, and neither
/// `journalctl -u` nor `gatewayctl why` finds an entry whose process has ended by then.
pub fn wait_for_journal() {
    if to_journal() {
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
    /// written is lost.
    pub fn line(&self, stream: OutputStream, text: &str) {
        let text = self.redactor.text(text);
        let text = escape(text.trim_end_matches(['\r', '\n']));
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

/// Writes in one piece, so that lines of several threads do not mix. There is no place to report an
/// error.
fn print(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Prints only the message.
struct Terminal;

impl<S: Subscriber> Layer<S> for Terminal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        print(&format(*event.metadata().level(), &message.0));
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
