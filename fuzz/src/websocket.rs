//! Frames of RFC 6455, however the stream is cut.

use gateway::internals::websocket::{Closing, Frames, close_frame};

/// Where the frames of a stream end, and where the first Close frame ends its header: an
/// independent reader that sees the whole stream at once.
fn reference(stream: &[u8]) -> (Vec<usize>, Option<usize>) {
    let (mut ends, mut closing, mut at) = (vec![0], None, 0_u128);
    let byte = |at: u128| stream.get(usize::try_from(at).ok()?).copied();
    while let (Some(first), Some(second)) = (byte(at), byte(at + 1)) {
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut payload = u128::from(second & 0x7f);
        if extended > 0 {
            let digits: Option<Vec<u8>> = (2..2 + extended).map(|skip| byte(at + skip)).collect();
            let Some(digits) = digits else { break };
            payload = digits
                .iter()
                .fold(0, |all, digit| (all << 8) + u128::from(*digit));
        }
        let payload_at = at + 2 + extended + u128::from(second >> 7) * 4;
        if payload_at > stream.len() as u128 {
            break;
        }
        if first & 0x0f == 8 && closing.is_none() {
            closing = usize::try_from(payload_at).ok();
        }
        at = payload_at + payload;
        if at > stream.len() as u128 {
            break;
        }
        ends.extend(usize::try_from(at));
    }
    (ends, closing)
}

/// Boundaries and the Close frame are found where the reference finds them, whatever the pieces;
/// what the gateway sends itself is one Close frame.
pub fn websocket(input: &[u8]) {
    let (ends, closing) = reference(input);
    for pieces in super::cuts(input) {
        let (mut frames, mut at) = (Frames::default(), 0);
        for piece in pieces {
            assert_eq!(frames.between(), ends.contains(&at), "between, at {at}");
            let next = ends.iter().find(|end| **end >= at).map(|end| end - at);
            let wanted = next.filter(|next| *next <= piece.len());
            let found = frames.boundary_in(piece);
            assert!(
                found == wanted || piece.is_empty(),
                "at {at}: {found:?}, and not {wanted:?}"
            );
            // In two steps over the boundary, as a tunnel that ends goes.
            let (head, tail) = piece.split_at(found.unwrap_or(0));
            frames.advance(head);
            assert!(found.is_none() || frames.between(), "at the boundary");
            frames.advance(tail);
            at += piece.len();
            let closed = closing.is_some_and(|closing| closing <= at);
            assert_eq!(frames.closing(), closed, "closing, at {at}");
        }
        assert_eq!(frames.between(), ends.contains(&at), "at the end");
        if frames.between() {
            for (masked, why) in [(false, Closing::Restart), (true, Closing::Idle)] {
                let close = close_frame(masked, why);
                let mut frames = Frames::default();
                frames.advance(&close[..close.len() - 1]);
                assert!(!frames.between());
                frames.advance(&close[close.len() - 1..]);
                assert!(frames.between() && frames.closing());
            }
        }
    }
}
