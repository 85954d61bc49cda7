//! Follows what is read from a client, request by request, before hyper gets it. A head goes on when it
//! is complete and judged, and nothing beyond it before hyper has told what its body is: so hyper
//! never has a byte of the next request, and each head is judged in its turn.

use bytes::{Bytes, BytesMut};

use super::head_limits::HeadLimits;
use super::request_head::{self, HeadError, Verdict};
use super::surplus_lines::SurplusLines;

/// What was read of the present request, and beyond it.
#[derive(Debug, Default)]
pub struct RequestRead {
    part: Part,
    /// What was read and not given to hyper.
    kept: BytesMut,
    /// So much of it may be given.
    ready: usize,
    /// So much of a head that is not complete was looked through for its end.
    seen: usize,
    /// With so much of it read, its beginning is judged again: at twice the size each time, so that
    /// a head in single bytes is no work.
    judge_at: usize,
    /// Why the request that hyper is given next is refused.
    refused: Option<HeadError>,
    /// What the head lacks that hyper is given next.
    surplus: SurplusLines,
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
    /// These bytes were read. Returns how many of them hyper may have at once: a beginning; the rest is
    /// kept.
    pub fn add(&mut self, bytes: &[u8], limits: HeadLimits) -> usize {
        if !self.kept.is_empty() {
            self.kept.extend_from_slice(bytes);
            self.follow_body();
            return 0;
        }
        let mut passed = 0;
        if matches!(self.part, Part::End | Part::Head(Line::None)) {
            passed = self.head(bytes, limits);
            if self.ready > 0 {
                return 0;
            }
        }
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty())
            && self.part.goes_on()
        {
            passed += self.take(rest);
        }
        self.kept.extend_from_slice(&bytes[passed..]);
        passed
    }

    /// What hyper may have of what was kept, at most `room` bytes. It asks because it wants more.
    pub fn give(&mut self, room: usize, limits: HeadLimits) -> Option<Bytes> {
        if self.ready == 0 && !self.kept.is_empty() {
            match self.part {
                Part::End | Part::Head(_) => {
                    let kept = std::mem::take(&mut self.kept);
                    let passed = self.head(&kept, limits);
                    if passed > 0 || self.ready == 0 {
                        (self.kept, self.ready) = (kept, passed);
                    }
                }
                // hyper does not see the end of a head where it was seen here.
                Part::Body => self.lose(),
                _ => {}
            }
        }
        let count = self.ready.min(room);
        if count == 0 {
            // Usual: what is read of a request mostly goes on at once. A split would allocate.
            return None;
        }
        let given = self.kept.split_to(count);
        self.ready -= count;
        if self.kept.is_empty() {
            // A body that came with its head is not held for the time of its connection.
            self.kept = BytesMut::new();
        }
        Some(given.freeze())
    }

    /// Takes a head from the beginning of `bytes`, which are all that was read and not given. Returns
    /// its length when it is complete and may be given; what is given in its place is kept.
    fn head(&mut self, bytes: &[u8], limits: HeadLimits) -> usize {
        if matches!(self.part, Part::End) {
            self.part = Part::default();
        }
        while let Part::Head(line) = self.part
            && let Some(rest) = bytes.get(self.seen..).filter(|rest| !rest.is_empty())
        {
            let (length, line) = line.next(rest);
            self.seen += length;
            self.part = line.map_or(Part::Body, Part::Head);
        }
        if matches!(self.part, Part::Head(_)) {
            if bytes.len() >= self.judge_at || bytes.len() > limits.size {
                self.judge_at = 2 * bytes.len();
                if let Some(error) = request_head::refuse_early(bytes, limits) {
                    self.refuse(error, bytes);
                }
            }
            return 0;
        }
        let length = std::mem::take(&mut self.seen);
        self.judge_at = 0;
        let (head, rest) = bytes.split_at(length);
        match request_head::judge(head, limits) {
            Verdict::Fits => return length,
            Verdict::Mended(head, surplus) => {
                self.surplus = surplus;
                self.ready = head.len();
                self.kept = BytesMut::from(head.as_slice());
                self.kept.extend_from_slice(rest);
            }
            Verdict::Refused(error) => self.refuse(error, head),
        }
        0
    }

    /// hyper gets another request in place of this one, and no further one.
    fn refuse(&mut self, error: HeadError, head: &[u8]) {
        let stand_in = HeadError::stand_in(head);
        self.lose();
        self.ready = stand_in.len();
        self.kept = BytesMut::from(stand_in.as_slice());
        self.refused = Some(error);
    }

    /// Of the request that hyper has just read: why it is refused, if it is, and the header lines that
    /// it lacks.
    pub fn take_judgement(&mut self) -> (Option<HeadError>, SurplusLines) {
        (self.refused.take(), std::mem::take(&mut self.surplus))
    }

    /// hyper has read a head. Its body has this length, or is chunked.
    pub fn begin(&mut self, body: Option<u64>) {
        self.part = match (self.part, body) {
            (Part::Body, Some(0)) => Part::End,
            (Part::Body, Some(length)) => Part::Length(length),
            (Part::Body, None) => Part::CHUNK_SIZE,
            _ => Part::Lost,
        };
        self.follow_body();
    }

    /// Finds how much of what is kept belongs to the body.
    fn follow_body(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        while let Some(rest) = kept.get(self.ready..).filter(|rest| !rest.is_empty())
            && self.part.goes_on()
        {
            self.ready += self.take(rest);
        }
        self.kept = kept;
    }

    /// What comes is no request, or is not understood.
    pub fn lose(&mut self) {
        self.part = Part::Lost;
        self.ready = self.kept.len();
    }

    /// Whether the bytes read end with this request.
    pub fn whole(&self) -> bool {
        matches!(self.part, Part::End | Part::Head(Line::None)) && self.kept.len() == self.ready
    }

    /// Whether something of the next request was read.
    pub fn begun_next(&self) -> bool {
        matches!(self.part, Part::Body) || self.kept.len() > self.ready
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
            Part::Lost => {
                taken = bytes.len();
                Part::Lost
            }
            part @ (Part::Head(_) | Part::Body | Part::End) => part,
        };
        taken
    }
}

impl Part {
    /// Whether what comes goes on to hyper as it comes.
    fn goes_on(self) -> bool {
        !matches!(self, Self::Head(_) | Self::Body | Self::End)
    }

    const CHUNK_SIZE: Self = Self::ChunkSize {
        size: 0,
        known: false,
    };
}
