//! Headers of the PROXY protocol, however much of one has come.

use gateway::internals::proxy_header::{HEADER_MAX, Parsed, parse};

/// Longer inputs are looked at in fewer pieces.
const EACH_BYTE: usize = 600;

/// A header is incomplete until its last byte; from there on, or from where it cannot be one any more,
/// nothing that follows changes the verdict; none is awaited beyond the limit.
pub fn proxy_header(input: &[u8]) {
    let step = input.len() / EACH_BYTE + 1;
    let lengths = (0..input.len()).step_by(step).chain([input.len()]);
    let mut verdict = Parsed::Incomplete;
    for length in lengths {
        let parsed = parse(&input[..length]);
        match verdict {
            Parsed::Incomplete => verdict = parsed,
            decided => assert_eq!(parsed, decided, "after {length} bytes"),
        }
        if parsed == Parsed::Incomplete {
            assert!(length < HEADER_MAX, "{length} bytes are no header yet");
        }
    }
    if let Parsed::Complete(length, _) = verdict {
        assert!(length <= input.len().min(HEADER_MAX));
        assert_eq!(parse(&input[..length]), verdict);
        assert_eq!(parse(&input[..length - 1]), Parsed::Incomplete);
    }
}
