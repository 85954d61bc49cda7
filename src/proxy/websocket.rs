//! As much of RFC 6455 as closing a WebSocket takes: where frames begin and end, and the Close frame.

/// Why the gateway closes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Its server is restarted or stopped.
    Restart,
    /// Nothing went through it for `limits.tunnel_idle`.
    Idle,
}

impl Closing {
    /// The status and the reason of the Close frame.
    fn told(self) -> (u16, &'static [u8]) {
        match self {
            // "Service Restart" (registered with IANA for RFC 6455): the client should reconnect after
            // a random 5 to 30 s.
            Self::Restart => (1012, b"service restart"),
            // "Going away" (RFC 6455, section 7.4.1): no restart is announced, and nothing went wrong.
            Self::Idle => (1001, b"idle"),
        }
    }
}

/// Follows a stream of frames and knows when it stands between two.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    header: Vec<u8>,
    payload: u64,
    closing: bool,
}

impl Frames {
    /// How many of `bytes` may pass so that the stream stands between two frames as early as
    /// possible; all of them when no frame ends in them. Does not move on.
    pub fn boundary_in(&self, bytes: &[u8]) -> Option<usize> {
        if self.between() {
            return Some(0);
        }
        let mut probe = self.clone();
        let mut at = 0;
        while at < bytes.len() {
            at += probe.step(&bytes[at..]);
            if probe.between() {
                return Some(at);
            }
        }
        None
    }

    /// Moves on by `bytes`.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
    }

    /// Whether the stream stands between two frames.
    pub fn between(&self) -> bool {
        self.header.is_empty() && self.payload == 0
    }

    /// Whether a Close frame passed: nothing may follow it.
    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Takes some of `bytes`, at least one, and at most to the end of the frame.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let count = bytes
                .len()
                .min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= count as u64;
            return count;
        }
        self.header.push(bytes[0]);
        if self.header.len() >= 2 && self.header.len() == header_length(self.header[1]) {
            self.payload = payload_length(&self.header);
            self.closing |= self.header[0] & 0x0f == 8;
            self.header.clear();
        }
        1
    }
}

fn header_length(second: u8) -> usize {
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    mask + match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

fn payload_length(header: &[u8]) -> u64 {
    let big_endian = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |all, byte| (all << 8) | u64::from(*byte))
    };
    match header[1] & 0x7f {
        126 => big_endian(&header[2..4]),
        127 => big_endian(&header[2..10]),
        short => u64::from(short),
    }
}

/// A Close frame. A client's is masked, as the protocol demands: with a mask of zeros, which changes
/// nothing.
pub fn close_frame(masked: bool, closing: Closing) -> Vec<u8> {
    let (status, reason) = closing.told();
    let length = (2 + reason.len()) as u8;
    let mut frame = match masked {
        true => vec![0x88, 0x80 | length, 0, 0, 0, 0],
        false => vec![0x88, length],
    };
    frame.extend_from_slice(&status.to_be_bytes());
    frame.extend_from_slice(reason);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match payload {
            0..126 => bytes.push(mask | payload as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend_from_slice(&[1, 2, 3, 4]);
        }
        bytes.extend(std::iter::repeat_n(0xff, payload));
        bytes
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_stream_is_cut(
            frames in proptest::collection::vec((prop_oneof![0usize..300, 65500usize..65600], any::<bool>()), 1..5),
            cuts in proptest::collection::vec(1usize..400, 1..20),
        ) {
            let mut ends = vec![0];
            let mut stream = Vec::new();
            for (payload, masked) in frames {
                stream.extend(frame(payload, masked));
                ends.push(stream.len());
            }
            let mut tracker = Frames::default();
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                prop_assert_eq!(tracker.between(), ends.contains(&at));
                if at == stream.len() { break; }
                let piece = &stream[at..(at + cut).min(stream.len())];
                let expected = ends.iter().find(|end| **end >= at && **end <= at + piece.len()).map(|end| end - at);
                prop_assert_eq!(tracker.boundary_in(piece), expected);
                tracker.advance(piece);
                at += piece.len();
            }
            prop_assert!(!tracker.closing());
            tracker.advance(&close_frame(false, Closing::Restart));
            prop_assert!(tracker.closing() && tracker.between());
        }
    }
}
