//! Where a stream can end in order: between two server-sent events, between two chunks of its server,
//! or where its server pauses.

use bytes::Bytes;
use http::header::{self, HeaderMap};

use super::upstream_connection::ReceivedChunks;

/// What has been handed over of a stream, as far as its borders go.
#[derive(Debug)]
pub enum StreamBorders {
    Events(EventBorder),
    Chunks {
        received: ReceivedChunks,
        handed_over: u64,
    },
    /// Its bytes tell nothing.
    Pauses,
}

impl StreamBorders {
    /// For an answer with this head.
    pub fn of(headers: &HeaderMap, received: ReceivedChunks) -> Self {
        if is_event_stream(headers) {
            Self::Events(EventBorder::default())
        } else if received.chunked {
            Self::Chunks {
                received,
                handed_over: 0,
            }
        } else {
            Self::Pauses
        }
    }

    /// Whether the answer is complete at a border.
    pub fn completes(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    /// Whether it stands at a border while its server sends nothing.
    pub fn at_border(&self) -> bool {
        match self {
            Self::Events(events) => events.between(),
            Self::Chunks {
                received,
                handed_over,
            } => received.border() == *handed_over,
            Self::Pauses => true,
        }
    }

    /// How many bytes of `data` may pass so that it stands at a border; none when there is no border
    /// in them.
    pub fn last_in(&self, data: &Bytes) -> Option<usize> {
        match self {
            Self::Events(events) => events.last_in(data),
            Self::Chunks {
                received,
                handed_over,
            } => {
                let more = received.border().checked_sub(*handed_over)?;
                usize::try_from(more)
                    .ok()
                    .filter(|more| *more > 0 && *more <= data.len())
            }
            Self::Pauses => None,
        }
    }

    /// `data` is handed over.
    pub fn advance(&mut self, data: &Bytes) {
        match self {
            Self::Events(events) => events.advance(data),
            Self::Chunks { handed_over, .. } => *handed_over += data.len() as u64,
            Self::Pauses => {}
        }
    }
}

/// Whether these are server-sent events in plain text.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let essence = headers.get(header::CONTENT_TYPE).and_then(|value| {
        let value = value.to_str().ok()?;
        value.split(';').next()
    });
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The last bytes of a stream of events: an event ends with an empty line.
#[derive(Debug, Default)]
pub struct EventBorder {
    last: [u8; 3],
    length: usize,
}

impl EventBorder {
    fn advance(&mut self, bytes: &[u8]) {
        for byte in &bytes[bytes.len().saturating_sub(self.last.len())..] {
            self.last.rotate_left(1);
            self.last[self.last.len() - 1] = *byte;
        }
        self.length = (self.length + bytes.len()).min(self.last.len());
    }

    /// Whether it stands between two events.
    fn between(&self) -> bool {
        let last = &self.last[self.last.len() - self.length..];
        // A line ends with CR LF, LF or CR.
        let ends = |end: &[u8]| last.ends_with(end);
        last.is_empty()
            || ends(b"\n\n")
            || ends(b"\n\r")
            || ends(b"\n\r\n")
            || ends(b"\r\r")
            || ends(b"\r\r\n")
    }

    fn last_in(&self, bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).rev().find(|end| {
            let mut probe = Self { ..*self };
            probe.advance(&bytes[..*end]);
            probe.between()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_with_an_empty_line_however_lines_end() {
        for (bytes, border) in [
            (&b"data: a\n\n"[..], Some(9)),
            (b"data: a\r\n\r\n", Some(11)),
            (b"data: a\r\r", Some(9)),
            (b"data: a\n\ndata: b\n\ndata: c", Some(18)),
            (b"data: a\n", None),
            (b"data: a\r\n", None),
            (b": alive\n", None),
        ] {
            assert_eq!(EventBorder::default().last_in(bytes), border, "{bytes:?}");
            for cut in 0..bytes.len() {
                let mut before = EventBorder::default();
                before.advance(&bytes[..cut]);
                let ends = border == Some(bytes.len());
                let found = before.last_in(&bytes[cut..]) == Some(bytes.len() - cut);
                assert_eq!(found, ends, "{bytes:?} after {cut}");
            }
        }
    }

    #[test]
    fn events_in_another_encoding_are_not_read() {
        let mut headers = HeaderMap::new();
        let kind = "Text/Event-Stream; charset=utf-8".parse().unwrap();
        headers.insert(header::CONTENT_TYPE, kind);
        assert!(is_event_stream(&headers));
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(!is_event_stream(&headers));
    }
}
