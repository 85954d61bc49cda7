//! What the head of a message may be, and how many of its lines hyper is given.

/// The most header lines that hyper parses in room on the stack (`DEFAULT_MAX_HEADERS` of hyper 1.12). For a
/// parser of 1,000 lines it allocates 64,000 bytes for each head: a tenth of the time of a small
/// request.
const PARSED_LINES: usize = 100;

/// Lines from which on those that hyper has no use for are taken off its heads. What is left up to
/// [`PARSED_LINES`] is for those that it uses, wherever they stand.
const PLAIN_LINES: usize = 80;

/// What the head of a request or a response may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Its most bytes.
    pub size: usize,
    /// Its most header lines: `limits.headers`
    pub lines: usize,
    /// `gateway.keep_header_case`: only hyper itself keeps the case, so it is given every line.
    pub keep_case: bool,
}

impl HeadLimits {
    /// How many header lines hyper takes.
    pub fn parsed(self) -> usize {
        match self.keep_case {
            true => self.lines,
            false => self.lines.min(PARSED_LINES),
        }
    }

    /// The lines after so many of a head are surplus: those that hyper has no use for are taken off.
    pub fn plain(self) -> usize {
        match self.parsed() < self.lines {
            true => PLAIN_LINES,
            false => usize::MAX,
        }
    }
}
