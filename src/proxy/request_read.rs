//! Follows what is read from a client to the end of the present request, to tell whether a part of
//! the next one was read, too. It sees the bytes before hyper does, and a body's kind after it.

/// How many bytes may be read ahead and still be followed: hyper itself buffers about 400 KiB.
const AHEAD_MAX: usize = 512 * 1024;

/// What was read of the present request, and beyond it.
#[derive(Debug, Default)]
pub struct RequestRead {
    part: Part,
    /// What came after the present request, or after its head while its body is unknown.
    ahead: Vec<u8>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Part {
    Head(Line),
    /// A head is complete, and what its body is comes next.
    Body,
    /// So much more of a body.
    Length(u64),
    ChunkSize {
        size: u64,
        /// Whether all digits were read.
        known: bool,
    },
    /// So much more of a chunk, its line break included.
    Chunk(u64),
    Trailers(Line),
    /// The request is complete.
    End,
    /// This is not followed any more.
    Lost,
}

/// What was read of a line of a head. An empty one ends the head, but for those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing at all.
    None,
    /// Only empty lines before the head.
    Before,
    Start,
    Return,
    Text,
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Line::None)
    }
}

impl Line {
    /// Takes one byte, or more within a line. Returns how many, and none where they end the head.
    fn next(self, bytes: &[u8]) -> (usize, Option<Self>) {
        match (self, bytes.first()) {
            (Self::None | Self::Before, Some(b'\r' | b'\n')) => (1, Some(Self::Before)),
            (Self::Start | Self::Return, Some(b'\n')) => (1, None),
            (Self::Start, Some(b'\r')) => (1, Some(Self::Return)),
            _ => match memchr::memchr(b'\n', bytes) {
                Some(end) => (end + 1, Some(Self::Start)),
                None => (bytes.len(), Some(Self::Text)),
            },
        }
    }
}

impl RequestRead {
    /// Something was read. `between` says whether hyper is done with the request before.
    pub fn add(&mut self, bytes: &[u8], between: bool) {
        if between && matches!(self.part, Part::End) && self.ahead.is_empty() {
            self.part = Part::default();
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            if matches!(self.part, Part::Body | Part::End) {
                if self.ahead.len() + rest.len() > AHEAD_MAX {
                    self.lose();
                } else {
                    self.ahead.extend_from_slice(rest);
                }
                return;
            }
            let taken = self.take(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// hyper has read a head. Its body has this length, or is chunked.
    pub fn begin(&mut self, body: Option<u64>) {
        let mut ahead = std::mem::take(&mut self.ahead);
        if matches!(self.part, Part::End) {
            // Its head was read ahead.
            self.part = Part::default();
            self.add(&ahead, false);
            ahead = std::mem::take(&mut self.ahead);
        }
        self.part = match (self.part, body) {
            (Part::Body, Some(0)) => Part::End,
            (Part::Body, Some(length)) => Part::Length(length),
            (Part::Body, None) => Part::CHUNK_SIZE,
            _ => Part::Lost,
        };
        self.add(&ahead, false);
    }

    /// What comes is no request, or is not understood.
    pub fn lose(&mut self) {
        *self = Self {
            part: Part::Lost,
            ahead: Vec::new(),
        };
    }

    /// Whether the bytes read end with this request.
    pub fn whole(&self) -> bool {
        matches!(self.part, Part::End | Part::Head(Line::None)) && self.ahead.is_empty()
    }

    /// Whether the present request is complete and something of the next was read.
    pub fn begun_next(&self) -> bool {
        matches!(self.part, Part::End) && !self.ahead.is_empty()
    }

    /// Takes some of `bytes`, at least one, that belong to one part. Returns how many.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let (byte, mut taken) = (bytes.first().copied().unwrap_or_default(), 1);
        let mut count = |left: u64| {
            let more = left.min(bytes.len() as u64);
            taken = usize::try_from(more).unwrap_or(bytes.len());
            left - more
        };
        self.part = match self.part {
            Part::Head(line) => {
                let (length, line) = line.next(bytes);
                taken = length;
                line.map_or(Part::Body, Part::Head)
            }
            Part::Length(left) => match count(left) {
                0 => Part::End,
                left => Part::Length(left),
            },
            Part::ChunkSize { size: 0, .. } if byte == b'\n' => Part::Trailers(Line::Start),
            Part::ChunkSize { size, .. } if byte == b'\n' => Part::Chunk(size.saturating_add(2)),
            Part::ChunkSize { size, known } => match char::from(byte).to_digit(16) {
                Some(digit) if !known => Part::ChunkSize {
                    size: size.saturating_mul(16).saturating_add(digit.into()),
                    known,
                },
                _ => Part::ChunkSize { size, known: true },
            },
            Part::Chunk(left) => match count(left) {
                0 => Part::CHUNK_SIZE,
                left => Part::Chunk(left),
            },
            Part::Trailers(line) => {
                let (length, line) = line.next(bytes);
                taken = length;
                line.map_or(Part::End, Part::Trailers)
            }
            part => part,
        };
        taken
    }
}

impl Part {
    const CHUNK_SIZE: Self = Self::ChunkSize {
        size: 0,
        known: false,
    };
}
