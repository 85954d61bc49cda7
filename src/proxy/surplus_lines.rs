//! Header lines that hyper is not given: with up to `limits.headers` lines in a head, its parser
//! would cost every request what only a head of many lines needs ([`HeadLimits`]). They are taken off a
//! head on its way to hyper, and added to the message that hyper makes of it.

use std::io;

use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::io::ReadBuf;

use super::head_limits::HeadLimits;
use super::response_framing::ResponseFraming;

/// What hyper reads of a head, to know where a message ends and what becomes of its connection.
const READ_BY_HYPER: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    header::TRAILER,
];

/// The header lines that were taken off one head.
#[derive(Debug, Default)]
pub struct SurplusLines {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// What they have in bytes.
    size: usize,
}

impl SurplusLines {
    /// Takes a whole `line`, unless hyper needs it, or is to refuse it.
    fn take(&mut self, line: &[u8]) -> bool {
        let taken = field(line).filter(|(name, _)| !READ_BY_HYPER.contains(name));
        let Some(field) = taken else {
            return false;
        };
        self.size += line.len();
        self.fields.push(field);
        true
    }

    /// Adds them to the message that they belong to.
    pub fn append_to(self, headers: &mut HeaderMap) {
        for (name, value) in self.fields {
            headers.append(name, value);
        }
    }
}

/// The name and the value of a header line.
fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let colon = memchr::memchr(b':', line)?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let mut value = &line[colon + 1..];
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    Some((name, HeaderValue::from_bytes(value).ok()?))
}

/// A complete head of a request without its surplus lines, and these; nothing where it has more lines
/// that hyper needs than it takes.
pub fn shorten(head: &[u8], limits: HeadLimits) -> Option<(Vec<u8>, SurplusLines)> {
    let (mut short, mut surplus) = (Vec::with_capacity(head.len()), SurplusLines::default());
    let empty = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let lines = head[empty.count()..].split_inclusive(|byte| *byte == b'\n');
    let mut kept = 0;
    for (fields, line) in lines.enumerate() {
        // The first line is no field, and the last one is empty.
        if fields <= limits.plain() || !surplus.take(line) {
            short.extend_from_slice(line);
            kept += 1;
        }
    }
    (kept <= limits.parsed() + 2).then_some((short, surplus))
}

/// Takes the surplus lines off heads of responses as they are read.
#[derive(Debug, Default)]
pub struct SurplusFilter {
    /// The beginning of a line whose end was not read.
    line: BytesMut,
    /// What hyper is given next.
    ready: BytesMut,
}

impl SurplusFilter {
    /// Gives hyper what is ready, as far as there is room. Returns whether there was something.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready[..count]);
        self.ready.advance(count);
        count > 0
    }

    /// Whether a line is not complete.
    pub fn in_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// These bytes were read; they begin, or go on, with a line after so many of a head that the next
    /// ones are surplus.
    ///
    /// # Errors
    /// When the head has more lines, or more in bytes, than a head may have.
    pub fn add(
        &mut self,
        mut bytes: &[u8],
        framing: &mut ResponseFraming,
        surplus: &mut SurplusLines,
        limits: HeadLimits,
    ) -> io::Result<()> {
        while framing.in_head()
            && let Some(end) = memchr::memchr(b'\n', bytes)
        {
            let (rest_of_line, rest) = bytes.split_at(end + 1);
            self.line.extend_from_slice(rest_of_line);
            bytes = rest;
            if framing.head_lines() < limits.plain() || !surplus.take(&self.line) {
                self.ready.extend_from_slice(&self.line);
            }
            framing.advance(&self.line, usize::MAX);
            self.line.clear();
            if framing.head_lines() > limits.lines || surplus.size > limits.size {
                return Err(too_large());
            }
            if framing.in_head() && framing.head_lines() == 0 {
                // Of an interim response, which only tells what is to come.
                *surplus = SurplusLines::default();
            }
        }
        if framing.in_head() {
            self.line.extend_from_slice(bytes);
            let fits = self.line.len() <= limits.size;
            return fits.then_some(()).ok_or_else(too_large);
        }
        framing.advance(bytes, usize::MAX);
        self.ready.extend_from_slice(bytes);
        Ok(())
    }
}

fn too_large() -> io::Error {
    let why = "the head of the response has more lines than limits.headers allows, or is too long";
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        size: 4096,
        lines: 200,
        keep_case: false,
    };

    /// What hyper gets of `pieces`, and what is taken off.
    fn filtered<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> io::Result<(Vec<u8>, HeaderMap)> {
        let mut filter = SurplusFilter::default();
        let (mut framing, mut surplus) = (ResponseFraming::default(), SurplusLines::default());
        let mut given = Vec::new();
        for piece in pieces {
            let left = match filter.in_line() {
                true => piece.len(),
                false => framing.advance(piece, LIMITS.plain()),
            };
            let (plain, left) = piece.split_at(piece.len() - left);
            given.extend_from_slice(plain);
            if !left.is_empty() {
                filter.add(left, &mut framing, &mut surplus, LIMITS)?;
            }
            let mut room = [0; 7];
            loop {
                let mut buf = ReadBuf::new(&mut room);
                if !filter.give(&mut buf) {
                    break;
                }
                given.extend_from_slice(buf.filled());
            }
        }
        let mut headers = HeaderMap::new();
        surplus.append_to(&mut headers);
        Ok((given, headers))
    }

    #[test]
    fn surplus_lines_are_taken_off_however_the_bytes_are_cut() {
        let interim = format!("HTTP/1.1 103 Hints\r\n{}\r\n", "Link: a\r\n".repeat(100));
        let begin = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(LIMITS.plain()));
        let late = "content-LENGTH: 3\r\n";
        let body = "\r\nx: y\nz: 1\r\n\r\n";
        let all = format!("{interim}{begin}C:  d \t\nT: u\r\n{late}C: e\r\n{body}");
        let shown = format!("{begin}{late}{body}");
        for step in 1..all.len() {
            let (given, surplus) = filtered(all.as_bytes().chunks(step)).unwrap();
            let given = String::from_utf8(given).unwrap();
            assert!(given.starts_with("HTTP/1.1 103"), "in pieces of {step}");
            assert!(given.ends_with(&shown), "in pieces of {step}: {given}");
            assert_eq!(given.matches("Link").count(), LIMITS.plain());
            let surplus: Vec<_> = surplus
                .iter()
                .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
                .collect();
            assert_eq!(surplus, [("c", "d"), ("c", "e"), ("t", "u")]);
        }
    }

    #[test]
    fn what_follows_a_change_of_protocol_is_no_head() {
        let tunnel = "a: b\r\n".repeat(300);
        let all =
            format!("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n{tunnel}");
        for step in [1, 10, all.len()] {
            let (given, surplus) = filtered(all.as_bytes().chunks(step)).unwrap();
            assert!(given == all.as_bytes() && surplus.is_empty());
        }
    }

    #[test]
    fn a_head_that_is_too_much_is_an_error() {
        let head = |line: &str, count| format!("HTTP/1.1 200 OK\r\n{}\r\n", line.repeat(count));
        let fits = |head: String| filtered(head.as_bytes().chunks(100)).is_ok();
        assert!(fits(head("a: b\r\n", LIMITS.lines)));
        assert!(!fits(head("a: b\r\n", LIMITS.lines + 1)));
        let long = "x".repeat(LIMITS.size / 10);
        assert!(fits(head(&format!("a: {long}\r\n"), LIMITS.plain() + 9)));
        assert!(!fits(head(&format!("a: {long}\r\n"), LIMITS.plain() + 10)));
        let begin = "a: b\r\n".repeat(LIMITS.plain());
        assert!(!fits(head(&format!("{begin}c: {}", long.repeat(11)), 1)));
    }

    #[test]
    fn hyper_is_given_every_line_where_it_keeps_their_case() {
        let limits = HeadLimits {
            keep_case: true,
            ..LIMITS
        };
        assert_eq!((limits.parsed(), limits.plain()), (200, usize::MAX));
        let few = HeadLimits {
            lines: 50,
            ..LIMITS
        };
        assert_eq!((few.parsed(), few.plain()), (50, usize::MAX));
    }
}
