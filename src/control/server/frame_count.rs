//! How many frames of a WebSocket begin in what comes (RFC 6455, section 5.2).

/// Bytes of the shortest head, of a client's mask, and of the longest form of a length.
const SHORTEST: usize = 2;
const MASK: usize = 4;
const LONGEST: usize = SHORTEST + 8 + MASK;

/// Where in the sequence of frames the bytes are that came so far.
#[derive(Debug, Default)]
pub struct FrameCount {
    /// The head that is under way.
    head: [u8; LONGEST],
    /// Bytes of it.
    begun: usize,
    /// Bytes of the payload that did not come yet.
    payload: u64,
}

impl FrameCount {
    /// These bytes come next. How many heads end in them is returned. What breaks the protocol is for who
    /// reads the frames to say: here it only must not be counted as less.
    pub fn add(&mut self, mut bytes: &[u8]) -> u32 {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let here = usize::try_from(self.payload).unwrap_or(usize::MAX);
                let (skipped, rest) = bytes.split_at(here.min(bytes.len()));
                self.payload -= skipped.len() as u64;
                bytes = rest;
                continue;
            }
            self.head[self.begun] = bytes[0];
            self.begun += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_of_head() {
                self.payload = payload;
                self.begun = 0;
                frames += 1;
            }
        }
        frames
    }

    /// The length of the payload behind the head, once that is whole.
    fn payload_of_head(&self) -> Option<u64> {
        let head = &self.head[..self.begun];
        let second = *head.get(1)?;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { MASK };
        if head.len() < SHORTEST + extended + mask {
            return None;
        }
        let length = &head[SHORTEST..SHORTEST + extended];
        Some(match extended {
            0 => u64::from(second & 0x7f),
            _ => { length.iter() }.fold(0, |all, byte| all << 8 | u64::from(*byte)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a client with so many bytes, whose length is written in so many.
    fn frame(length: usize, extended: usize) -> Vec<u8> {
        let short = match extended {
            0 => length as u8,
            2 => 126,
            _ => 127,
        };
        let bytes = (length as u64).to_be_bytes();
        let head = [&[0x81, 0x80 | short][..], &bytes[8 - extended..], &[7; 4]].concat();
        [head, vec![0x81; length]].concat()
    }

    #[test]
    fn each_frame_counts_once_however_the_bytes_come() {
        let frames = [
            (0, 0),
            (125, 0),
            (126, 2),
            (3, 2),
            (70_000, 8),
            (0, 8),
            (0, 0),
        ];
        let all: Vec<u8> = (frames.iter())
            .flat_map(|(length, extended)| frame(*length, *extended))
            .collect();
        for at_once in [1, 2, 3, 7, 4096, all.len()] {
            let mut count = FrameCount::default();
            let counted: u32 = all.chunks(at_once).map(|bytes| count.add(bytes)).sum();
            assert_eq!(counted, 7, "{at_once} bytes at once");
        }
        let unmasked = [0x81, 0x02, b'{', b'}', 0x89, 0x00];
        assert_eq!(FrameCount::default().add(&unmasked), 2);
    }
}
