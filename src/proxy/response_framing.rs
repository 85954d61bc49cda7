//! As much of the framing of responses (RFC 9112) as it takes to know where the chunks of one end.
//! hyper keeps that to itself.

/// Follows the bytes that a server sends for one request.
#[derive(Debug, Default)]
pub struct ChunkFraming {
    part: FramingPart,
    /// Bytes of chunks so far, without their framing.
    data: u64,
    /// The same at the end of the last whole chunk.
    border: u64,
    /// A header line says that it is chunked.
    chunked: bool,
}

#[derive(Debug)]
enum FramingPart {
    /// A head, in its first line.
    StatusLine { at: usize, interim: bool },
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
    /// What is no chunk, or comes after the last one.
    Rest,
}

impl Default for FramingPart {
    fn default() -> Self {
        Self::StatusLine {
            at: 0,
            interim: false,
        }
    }
}

/// What a header line of a chunked response has (RFC 9112, 7.1). Another response is not followed: it
/// can be long.
const CHUNKED: &[u8] = b"chunked";

/// Where the first digit of the status stands in `HTTP/1.1 200 OK`.
const STATUS: usize = 9;

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

impl ChunkFraming {
    /// How many bytes of chunks came up to the end of the last whole chunk. It says nothing of a
    /// response that is not chunked.
    pub fn border(&self) -> u64 {
        self.border
    }

    /// Moves on by `bytes`.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            match &mut self.part {
                FramingPart::Rest => return,
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
                    bytes = match self.skipped(bytes) {
                        Some(line) => &bytes[line..],
                        None => {
                            self.step(*first);
                            rest
                        }
                    };
                }
            }
        }
    }

    /// The length of a header line at the begin of `bytes` that is whole and says nothing of chunks:
    /// most are, and each response has some.
    fn skipped(&self, bytes: &[u8]) -> Option<usize> {
        let at_line = matches!(self.part, FramingPart::HeaderLine { length: 0, .. });
        let other = !matches!(bytes.first(), Some(b't' | b'T' | b'\r' | b'\n'));
        let end = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
        (at_line && other)
            .then(|| end(bytes))
            .flatten()
            .map(|end| end + 1)
    }

    /// Takes one byte that is not of a chunk.
    fn step(&mut self, byte: u8) {
        self.part = match (&self.part, byte) {
            (FramingPart::StatusLine { interim, .. }, b'\n') => FramingPart::line(*interim),
            (FramingPart::StatusLine { at, interim }, _) => FramingPart::StatusLine {
                interim: *interim || (*at == STATUS && byte == b'1'),
                at: at + 1,
            },
            (
                FramingPart::HeaderLine {
                    length: 0, interim, ..
                },
                b'\n',
            ) => match (interim, self.chunked) {
                (true, _) => FramingPart::default(),
                (false, true) => FramingPart::Size {
                    size: 0,
                    complete: false,
                },
                (false, false) => FramingPart::Rest,
            },
            (FramingPart::HeaderLine { interim, .. }, b'\n') => FramingPart::line(*interim),
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
            (FramingPart::Chunk(_) | FramingPart::Rest, _) => FramingPart::Rest,
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
            let mut framing = ChunkFraming::default();
            let mut borders = Vec::new();
            for piece in all.chunks(step) {
                framing.advance(piece);
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
        let mut framing = ChunkFraming::default();
        framing
            .advance(b"HTTP/1.1 200 OK\nTransfer-Encoding: gzip, CHUNKED\n\n2\r\nab\r\n4\r\nabc");
        assert_eq!(framing.border(), 2);
        framing.advance(b"d");
        assert_eq!(framing.border(), 6);
    }

    #[test]
    fn a_response_that_is_not_chunked_is_not_followed() {
        let mut framing = ChunkFraming::default();
        framing.advance(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nx: chunk\r\n\r\n2\r\nab\r\n");
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
            let mut framing = ChunkFraming::default();
            framing.advance(format!("{head}\r\n\r\n2\r\nab\r\n").as_bytes());
            // An empty line ends the head.
            let border = if line.trim().is_empty() { 0 } else { 2 };
            assert_eq!(framing.border(), border, "{line:?}");
        }
    }
}
