//! `X-Request-Id`: names one request in the logs of the client, the gateway and the server behind.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id of a client is replaced: it would stand in every log. A UUID has 36 bytes, a W3C trace
/// 55.
const LONGEST: usize = 128;

/// The digits of an id that is made here: 128 bits, as nginx's $request_id.
const DIGITS: usize = 32;

thread_local! {
    /// Keys that nobody knows, and how many ids were made: an id tells nothing about the next one.
    static SOURCE: (RandomState, RandomState, Cell<u64>) =
        (RandomState::new(), RandomState::new(), Cell::new(0));
}

/// The id of a request: the client's, if it sent one that can be shown anywhere, else a new one, which
/// takes the place of what it sent.
pub fn settle(headers: &mut HeaderMap) -> HeaderValue {
    let mut sent = headers.get_all(X_REQUEST_ID).iter();
    if let (Some(one), None) = (sent.next(), sent.next())
        && is_sane(one)
    {
        return one.clone();
    }
    let made = make();
    headers.insert(X_REQUEST_ID, made.clone());
    made
}

/// Whether an id can stand in a page, a log line and a shell without quotes.
fn is_sane(id: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+/=:@".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(fits)
}

fn make() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let number = SOURCE.with(|(first, second, count)| {
        let count = count.replace(count.get().wrapping_add(1));
        [first.hash_one(count), second.hash_one(count)]
    });
    let mut digits = [0; DIGITS];
    let bytes = number.iter().flat_map(|half| half.to_be_bytes());
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0xf)];
    }
    // Hexadecimal digits are a valid value.
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn settled(sent: &[&[u8]]) -> (HeaderValue, HeaderMap) {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        (settle(&mut headers), headers)
    }

    #[test]
    fn an_id_that_can_be_shown_is_kept() {
        for id in [
            "a",
            "0af7651916cd43dd-8448eb211c80319c",
            "00-4bf9:2f/3=@.+_",
        ] {
            let (kept, headers) = settled(&[id.as_bytes()]);
            assert_eq!((kept.as_bytes(), headers.len()), (id.as_bytes(), 1));
            assert_eq!(headers[X_REQUEST_ID], id);
        }
        let longest = [b'a'; LONGEST];
        assert_eq!(settled(&[&longest]).0.as_bytes(), longest);
    }

    #[test]
    fn any_other_is_replaced() {
        let long = [b'a'; LONGEST + 1];
        let hostile: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"a b"],
            &[b"a\"b"],
            &[b"<script>"],
            &[b"a\xff"],
            &[&long],
            &[b"a", b"b"],
        ];
        let mut seen = HashSet::new();
        for sent in hostile {
            let (made, headers) = settled(sent);
            assert_eq!(made.len(), DIGITS);
            assert!(made.as_bytes().iter().all(u8::is_ascii_hexdigit));
            assert_eq!(headers.get_all(X_REQUEST_ID).iter().count(), 1);
            assert_eq!(headers[X_REQUEST_ID], made);
            assert!(seen.insert(made), "made twice");
        }
    }
}
