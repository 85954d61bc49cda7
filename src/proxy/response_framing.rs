//! As much of the framing of responses (RFC 9112) as it takes to know where the lines of a head and the
//! chunks of a body end. hyper keeps that to itself.

/// Follows the bytes that a server sends for one request.
#[derive(Debug, Default)]
pub struct ResponseFraming {
    part: FramingPart,
    /// Bytes of chunks so far, without their framing.
    data: u64,
    /// The same at the end of the last whole chunk.
    border: u64,
    /// A header line says that it is chunked.
    chunked: bool,
    /// Whole header lines of the present head.
    lines: usize,
    /// Heads of interim responses; the last one may be incomplete.
    interim: Vec<u8>,
    /// So many bytes of it are whole heads.
    interim_whole: usize,
}

#[derive(Debug)]
enum FramingPart {
    /// A head, in its first line: so much of it came, and so much of its status.
    StatusLine { at: usize, status: u32 },
    /// Another line of a head: how many bytes of it came, and how much of [`CHUNKED`] they end with.
    HeaderLine {
        length: usize,
        word: usize,
        interim: bool,
    },
    /// The line before a chunk: its size so far, and whether that is complete.
    Size { size: u64, complete: bool },
    /// A chunk, of which so much is to come.
    Chunk(u64),
    /// The end of the line after a chunk.
    ChunkEnd,
    /// A body that is not chunked: nothing of it came.
    Body,
    /// What is no chunk, or comes after the last one.
    Rest,
}

impl Default for FramingPart {
    fn default() -> Self {
        Self::StatusLine { at: 0, status: 0 }
    }
}

/// What a header line of a chunked response has (RFC 9112, 7.1). Another response is not followed: it
/// can be long.
const CHUNKED: &[u8] = b"chunked";

/// How much of interim responses is kept until it is fetched. What comes beyond it is dropped: it only
/// tells what is to come.
pub const INTERIM_MAX: usize = 64 * 1024;

/// Where the status stands in `HTTP/1.1 200 OK`.
const STATUS: std::ops::Range<usize> = 9..12;

/// Whether another head follows the one with this status. After 101 comes another protocol.
fn is_interim(status: u32) -> bool {
    (100..200).contains(&status) && status != 101
}

impl FramingPart {
    /// The begin of a header line.
    fn line(interim: bool) -> Self {
        Self::HeaderLine {
            length: 0,
            word: 0,
            interim,
        }
    }
}

impl ResponseFraming {
    /// How many bytes of chunks came up to the end of the last whole chunk. It says nothing of a
    /// response that is not chunked.
    pub fn border(&self) -> u64 {
        self.border
    }

    /// Whether the next byte belongs to a head.
    pub fn in_head(&self) -> bool {
        matches!(
            self.part,
            FramingPart::StatusLine { .. } | FramingPart::HeaderLine { .. }
        )
    }

    /// How many header lines of the present head came whole.
    pub fn head_lines(&self) -> usize {
        self.lines
    }

    /// Whether the server has more of this response, as far as it can be told: it ends in a head, before
    /// the first byte of a body, or in a chunk.
    pub fn is_cut(&self) -> bool {
        match self.part {
            FramingPart::Rest => false,
            FramingPart::Size { size, complete } => self.data == 0 || size > 0 || complete,
            _ => true,
        }
    }

    /// The heads of interim responses but 100 that came whole since this was last asked.
    pub fn take_interim(&mut self) -> Option<Vec<u8>> {
        let whole = std::mem::take(&mut self.interim_whole);
        if whole == 0 {
            return None;
        }
        let begun = self.interim.split_off(whole);
        Some(std::mem::replace(&mut self.interim, begun))
    }

    /// Moves on by `bytes`, up to the line after the first `most` header lines of a head. Returns
    /// how many bytes are left.
    pub fn advance(&mut self, mut bytes: &[u8], most: usize) -> usize {
        while let [first, rest @ ..] = bytes {
            if self.lines >= most && self.at_line() {
                return bytes.len();
            }
            match &mut self.part {
                FramingPart::Body | FramingPart::Rest => {
                    self.part = FramingPart::Rest;
                    return 0;
                }
                FramingPart::Chunk(left) => {
                    let count = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= count as u64;
                    self.data += count as u64;
                    if *left == 0 {
                        self.border = self.data;
                        self.part = FramingPart::ChunkEnd;
                    }
                    bytes = &bytes[count..];
                }
                _ => {
                    bytes = match self.take_line(bytes) {
                        Some(length) => &bytes[length..],
                        None => {
                            self.step(*first);
                            rest
                        }
                    };
                }
            }
        }
        0
    }

    /// Whether the next byte is the first of a header line, or the end of an empty one.
    fn at_line(&self) -> bool {
        matches!(self.part, FramingPart::HeaderLine { length: 0, .. })
    }

    /// Takes the first line of a head, or a header line that says nothing of chunks, if it is at the
    /// begin of `bytes` and whole: most are, and each response has some. Returns its length.
    fn take_line(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.part {
            FramingPart::StatusLine { at: 0, .. } => {
                let end = memchr::memchr(b'\n', bytes)?;
                let digits = bytes[..end].get(STATUS).unwrap_or_default();
                let digits = digits.iter().map(|byte| char::from(*byte).to_digit(10));
                let status = digits.fold(0, |status, digit| status * 10 + digit.unwrap_or(0));
                self.part = self.begin_head(status);
                Some(end + 1)
            }
            FramingPart::HeaderLine {
                length: 0,
                interim: false,
                ..
            } if !matches!(bytes.first(), Some(b't' | b'T' | b'\r' | b'\n')) => {
                let end = memchr::memchr(b'\n', bytes)?;
                self.lines += 1;
                Some(end + 1)
            }
            _ => None,
        }
    }

    /// What comes after the first line of a head.
    fn begin_head(&mut self, status: u32) -> FramingPart {
        self.lines = 0;
        self.interim.truncate(self.interim_whole);
        let interim = is_interim(status);
        // The gateway itself has told the client to go on, where that was asked.
        if interim && status != 100 {
            let line = format!("HTTP/1.1 {status} \r\n");
            self.interim.extend_from_slice(line.as_bytes());
        }
        FramingPart::line(interim)
    }

    /// Takes one byte that is not of a chunk.
    fn step(&mut self, byte: u8) {
        if self.interim.len() > self.interim_whole {
            if self.interim.len() < INTERIM_MAX {
                self.interim.push(byte);
            } else {
                self.interim.truncate(self.interim_whole);
            }
        }
        self.part = match (&self.part, byte) {
            (&FramingPart::StatusLine { status, .. }, b'\n') => self.begin_head(status),
            (FramingPart::StatusLine { at, status }, _) => FramingPart::StatusLine {
                status: match char::from(byte).to_digit(10) {
                    Some(digit) if STATUS.contains(at) => status * 10 + digit,
                    _ => *status,
                },
                at: at + 1,
            },
            (
                FramingPart::HeaderLine {
                    length: 0, interim, ..
                },
                b'\n',
            ) => match (interim, self.chunked) {
                (true, _) => {
                    self.lines = 0;
                    self.interim_whole = self.interim.len();
                    FramingPart::default()
                }
                (false, true) => FramingPart::Size {
                    size: 0,
                    complete: false,
                },
                (false, false) => FramingPart::Body,
            },
            (FramingPart::HeaderLine { interim, .. }, b'\n') => {
                self.lines += 1;
                FramingPart::line(*interim)
            }
            (
                FramingPart::HeaderLine {
                    length,
                    word,
                    interim,
                },
                _,
            ) => {
                // No part of the word begins it again, but for its first letter.
                let word = match CHUNKED.get(*word) {
                    Some(next) if byte.eq_ignore_ascii_case(next) => word + 1,
                    _ => usize::from(byte.eq_ignore_ascii_case(&CHUNKED[0])),
                };
                self.chunked |= word == CHUNKED.len();
                FramingPart::HeaderLine {
                    length: length + usize::from(byte != b'\r'),
                    word,
                    interim: *interim,
                }
            }
            (FramingPart::Size { size: 0, .. }, b'\n') => FramingPart::Rest,
            (FramingPart::Size { size, .. }, b'\n') => FramingPart::Chunk(*size),
            (FramingPart::Size { size, complete }, byte) => {
                match char::from(byte).to_digit(16).filter(|_| !complete) {
                    Some(digit) => FramingPart::Size {
                        size: size.saturating_mul(16).saturating_add(digit.into()),
                        complete: false,
                    },
                    // An extension, or the end of the line.
                    None => FramingPart::Size {
                        size: *size,
                        complete: true,
                    },
                }
            }
            (FramingPart::ChunkEnd, b'\n') => FramingPart::Size {
                size: 0,
                complete: false,
            },
            (FramingPart::ChunkEnd, _) => FramingPart::ChunkEnd,
            (FramingPart::Chunk(_) | FramingPart::Body | FramingPart::Rest, _) => FramingPart::Rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_chunk_is_found_however_the_bytes_are_cut() {
        let head: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let all = [head, b"a;x=1f\r\n0123456789\r\n3\r\nab\n\r\n0\r\n\r\n5\r\n"].concat();
        for step in 1..all.len() {
            let mut framing = ResponseFraming::default();
            let mut borders = Vec::new();
            for piece in all.chunks(step) {
                framing.advance(piece, usize::MAX);
                borders.push(framing.border());
            }
            assert_eq!(borders.last(), Some(&13), "in pieces of {step}");
            if step == 1 {
                borders.dedup();
                assert_eq!(borders, [0, 10, 13]);
            }
        }
    }

    #[test]
    fn a_chunk_that_is_not_complete_does_not_count() {
        let mut framing = ResponseFraming::default();
        framing.advance(
            b"HTTP/1.1 200 OK\nTransfer-Encoding: gzip, CHUNKED\n\n2\r\nab\r\n4\r\nabc",
            usize::MAX,
        );
        assert_eq!(framing.border(), 2);
        framing.advance(b"d", usize::MAX);
        assert_eq!(framing.border(), 6);
    }

    #[test]
    fn a_response_that_is_not_chunked_is_not_followed() {
        let mut framing = ResponseFraming::default();
        framing.advance(
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nx: chunk\r\n\r\n2\r\nab\r\n",
            usize::MAX,
        );
        assert_eq!(framing.border(), 0);
        assert!(matches!(framing.part, FramingPart::Rest));
    }

    #[test]
    fn a_head_whose_lines_begin_in_any_way_is_followed_to_its_end() {
        for line in [
            "a: b",
            "t: u",
            "",
            "\r",
            " chunk",
            "Transfer-Encoding: chunked",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nx: y\r\n{line}\r\ntransfer-encoding: chunked");
            let mut framing = ResponseFraming::default();
            framing.advance(format!("{head}\r\n\r\n2\r\nab\r\n").as_bytes(), usize::MAX);
            // An empty line ends the head.
            let border = if line.trim().is_empty() { 0 } else { 2 };
            assert_eq!(framing.border(), border, "{line:?}");
        }
    }

    #[test]
    fn interim_responses_are_told_whole_and_in_their_order() {
        let all = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\nlink: a\n\nHTTP/1.1 102 \r\nT: b\r\n\r\nHTTP/1.1 200 OK\r\nc: d\r\n\r\n";
        for step in 1..all.len() {
            let (mut framing, mut told) = (ResponseFraming::default(), Vec::new());
            for piece in all.as_bytes().chunks(step) {
                framing.advance(piece, usize::MAX);
                told.extend(framing.take_interim().unwrap_or_default());
            }
            let told = String::from_utf8(told).unwrap();
            let expected = "HTTP/1.1 103 \r\nlink: a\n\nHTTP/1.1 102 \r\nT: b\r\n\r\n";
            assert_eq!(told, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn an_interim_response_that_is_too_long_is_dropped_and_the_next_one_is_told() {
        let long = "a".repeat(INTERIM_MAX);
        let mut framing = ResponseFraming::default();
        framing.advance(b"HTTP/1.1 103 x\r\na: ", usize::MAX);
        framing.advance(long.as_bytes(), usize::MAX);
        framing.advance(b"\r\n\r\nHTTP/1.1 103 x\r\nb: c\r\n\r\n", usize::MAX);
        let told = framing.take_interim().unwrap();
        assert_eq!(told, b"HTTP/1.1 103 \r\nb: c\r\n\r\n");
    }
}
