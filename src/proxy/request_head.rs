//! Judges the head of a request before hyper reads it: what is refused gets a response with a body, a
//! log line and a count, and what hyper does not take, though others do, is written as it takes it.

use std::mem::MaybeUninit;

use http::{StatusCode, Uri};
use httparse::{Error, Header, Request, Status};

use super::head_limits::HeadLimits;
use super::surplus_lines::{self, SurplusLines};
use crate::text::escape::escape;

/// Most header lines for which nothing is allocated: more than browsers send.
const USUAL_LINES: usize = 64;

/// The longest target that the http crate can hold.
const TARGET_MAX: usize = u16::MAX as usize - 1;

/// How much of a refused request is logged.
const SHOWN: usize = 80;

/// The first bytes of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

/// The first byte of TLS: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What is done with a head.
#[derive(Debug)]
pub enum Verdict {
    Fits,
    /// hyper takes this head in its place, and these lines are added to the request.
    Mended(Vec<u8>, SurplusLines),
    Refused(HeadError),
}

/// Why a head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadError {
    pub status: StatusCode,
    /// For everybody.
    pub why: &'static str,
    /// Its method and path, as far as they are known, for the log.
    pub request: String,
}

type Checked<T = ()> = Result<T, (StatusCode, &'static str)>;

/// Judges a complete head, with the empty line that ends it.
pub fn judge(head: &[u8], limits: HeadLimits) -> Verdict {
    let fault = match check(head, limits) {
        Ok(lines) if lines <= limits.parsed() => return Verdict::Fits,
        Ok(_) => return mended(head, limits),
        Err(fault) => fault,
    };
    match mend(head) {
        Some(head) if check(&head, limits).is_ok() => mended(&head, limits),
        _ => Verdict::Refused(HeadError::new(fault, head)),
    }
}

fn mended(head: &[u8], limits: HeadLimits) -> Verdict {
    match surplus_lines::shorten(head, limits) {
        Some((head, surplus)) => Verdict::Mended(head, surplus),
        None => {
            let why = "the request has too many header lines about its connection and its body";
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Verdict::Refused(HeadError::new((status, why), head))
        }
    }
}

/// Why the beginning of a head is refused before its rest comes.
pub fn refuse_early(beginning: &[u8], limits: HeadLimits) -> Option<HeadError> {
    if beginning.len() > limits.size {
        return Some(HeadError::new(too_long(), beginning));
    }
    let line = request_line(beginning);
    let begun = match line.ends_with(b"\n") {
        true => Some(beginning),
        // What may yet be mended is waited for.
        false => (!line.contains(&b' ')).then_some(line),
    };
    let fault = parse(begun?, limits.lines, |_, _| Ok(())).err()?;
    let mended = mend(beginning);
    let hopeless = mended.is_none_or(|head| parse(&head, limits.lines, |_, _| Ok(())).is_err());
    hopeless.then(|| HeadError::new(fault, beginning))
}

impl HeadError {
    fn new((status, why): (StatusCode, &'static str), head: &[u8]) -> Self {
        let line = request_line(head).trim_ascii_end();
        // A query may hold secrets.
        let line = line.split(|byte| *byte == b'?').next().unwrap_or(line);
        let request = match line.first() {
            Some(&TLS_HANDSHAKE) => "TLS".to_owned(),
            _ => {
                let line = String::from_utf8_lossy(line);
                escape(&line).chars().take(SHOWN).collect()
            }
        };
        Self {
            status,
            why,
            request,
        }
    }

    /// A head that hyper takes in place of the one that is refused. The connection closes after it.
    pub fn stand_in(head: &[u8]) -> Vec<u8> {
        let method = match request_line(head).starts_with(b"HEAD ") {
            true => "HEAD",
            false => "GET",
        };
        let mut stand_in = format!("{method} / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n");
        let text = String::from_utf8_lossy(head);
        let accept = text.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("accept").then(|| value.trim())
        });
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if let Some(accept) = accept.filter(|accept| accept.chars().all(plain)) {
            stand_in.push_str("accept: ");
            stand_in.push_str(accept);
            stand_in.push_str("\r\n");
        }
        stand_in.push_str("\r\n");
        stand_in.into_bytes()
    }
}

/// The first line that is not empty, with its end where that has come.
fn request_line(head: &[u8]) -> &[u8] {
    split_line(head).0
}

/// The first line that is not empty, with its end where that has come, and what comes after it.
fn split_line(head: &[u8]) -> (&[u8], &[u8]) {
    let empty = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let head = &head[empty.count()..];
    head.split_at(memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1))
}

/// Checks a complete head. Returns how many header lines it has.
fn check(head: &[u8], limits: HeadLimits) -> Checked<usize> {
    if head.len() > limits.size {
        return Err(too_long());
    }
    parse(head, limits.lines, |request, length| {
        // hyper must find the end of the head where it was found here.
        if length != Some(head.len()) {
            return Err(bad(
                "a line of the request's head does not end as it should",
            ));
        }
        check_target(request)?;
        check_body(request)?;
        Ok(request.headers.len())
    })
}

/// Parses a head, or its beginning, with at most so many `lines`, and looks at it, with the length of
/// a complete one.
fn parse<T>(
    head: &[u8],
    lines: usize,
    look: impl Fn(&Request<'_, '_>, Option<usize>) -> Checked<T>,
) -> Checked<T> {
    let mut few = [MaybeUninit::uninit(); USUAL_LINES];
    let few = &mut few[..lines.min(USUAL_LINES)];
    let parsed = match parse_into(head, few, &look) {
        Err(Error::TooManyHeaders) if lines > USUAL_LINES => {
            parse_into(head, &mut vec![MaybeUninit::uninit(); lines], &look)
        }
        parsed => parsed,
    };
    parsed.unwrap_or_else(|error| Err(misread(error, head)))
}

fn parse_into<'h, T>(
    head: &'h [u8],
    headers: &mut [MaybeUninit<Header<'h>>],
    look: impl Fn(&Request<'_, '_>, Option<usize>) -> Checked<T>,
) -> Result<Checked<T>, Error> {
    let mut request = Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(head, headers)? {
        Status::Complete(length) => Some(length),
        Status::Partial => None,
    };
    Ok(look(&request, length))
}

/// Why a head cannot be parsed.
fn misread(error: Error, head: &[u8]) -> (StatusCode, &'static str) {
    let line = request_line(head);
    match error {
        Error::TooManyHeaders => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has more header lines than limits.headers allows",
        ),
        Error::Version if line.starts_with(HTTP2_PREFACE) => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "this is HTTP/2, and HTTP/1.1 is spoken here",
        ),
        Error::Version if third_word(line).starts_with(b"HTTP/") => (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "HTTP/1.1 and HTTP/1.0 are spoken here",
        ),
        Error::Token if line.first() == Some(&TLS_HANDSHAKE) => {
            bad("this looks like TLS, and HTTP without it is spoken here")
        }
        Error::HeaderName => bad("a header line of the request has no valid name"),
        Error::HeaderValue => bad("a header of the request has a character that is not allowed"),
        Error::NewLine | Error::Version | Error::Token | Error::Status => {
            bad("the request's first line is not one of HTTP/1.1")
        }
    }
}

fn third_word(line: &[u8]) -> &[u8] {
    let mut words = line.split(|byte| *byte == b' ');
    words.nth(2).unwrap_or_default()
}

/// The forms of a target: a path, a URI, `*` of the server as a whole, and what CONNECT asks for
/// (RFC 9112, 3.2).
fn check_target(request: &Request<'_, '_>) -> Checked {
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    if target.len() > TARGET_MAX {
        let why = "the request's target is too long";
        return Err((StatusCode::URI_TOO_LONG, why));
    }
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~?=&%+,:;@!*'()$".contains(byte);
    if target.starts_with('/') && target.as_bytes().iter().all(usual) {
        return Ok(());
    }
    let known = match (method, target.parse::<Uri>()) {
        (_, Err(_)) => false,
        ("CONNECT", Ok(_)) => true,
        ("OPTIONS", Ok(_)) if target == "*" => true,
        (_, Ok(_)) if target.starts_with('/') => true,
        (_, Ok(uri)) => uri.scheme().is_some() && uri.authority().is_some(),
    };
    match known {
        true => Ok(()),
        false => Err(bad("the request's target is not valid")),
    }
}

/// How long the body is must be said once, in one way: else two servers could find two ends
/// (RFC 9112, 6.1 and 6.3).
fn check_body(request: &Request<'_, '_>) -> Checked {
    let (mut length, mut coding) = (None, None);
    for header in request.headers.iter() {
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let found = number(header.value);
                if found.is_none() || length.is_some_and(|length| Some(length) != found) {
                    return Err(bad("the request's Content-Length is not valid"));
                }
                length = found;
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                let earlier = coding.replace(header.value);
                if earlier.is_some() {
                    return Err(bad("the request has two Transfer-Encoding lines"));
                }
            }
            _ => {}
        }
    }
    let Some(coding) = coding else {
        return Ok(());
    };
    if length.is_some() {
        return Err(bad(
            "a request has Content-Length or Transfer-Encoding, not both",
        ));
    }
    if request.version != Some(1) {
        return Err(bad("Transfer-Encoding needs HTTP/1.1"));
    }
    // The chunks are taken off here; what is under them would arrive as if it had no coding.
    if !coding.eq_ignore_ascii_case(b"chunked") {
        let why = "no transfer coding but chunked is understood";
        return Err((StatusCode::NOT_IMPLEMENTED, why));
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn bad(why: &'static str) -> (StatusCode, &'static str) {
    (StatusCode::BAD_REQUEST, why)
}

fn too_long() -> (StatusCode, &'static str) {
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request's head is longer than limits.header_size allows",
    )
}

/// The same head with a request line that hyper takes, if the line can be understood: one space
/// between its parts, characters in the target percent-encoded that the http crate does not take, and the
/// highest version that is spoken here for a higher minor one (RFC 9110, 2.5).
fn mend(head: &[u8]) -> Option<Vec<u8>> {
    let (line, headers) = split_line(head);
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || line.starts_with(b" ") {
        return None;
    }
    let version = match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => {
            if *minor == b'0' {
                "HTTP/1.0"
            } else {
                "HTTP/1.1"
            }
        }
        _ => return None,
    };
    let mut mended = Vec::with_capacity(head.len() + 64);
    mended.extend_from_slice(method);
    mended.push(b' ');
    // The authority of a URI is as it is.
    let path = match memchr::memmem::find(target, b"://") {
        Some(scheme) if !target.starts_with(b"/") => {
            let authority = scheme + 3;
            let path = target[authority..]
                .iter()
                .position(|byte| b"/?".contains(byte));
            authority + path?
        }
        _ => 0,
    };
    if target.iter().any(u8::is_ascii_control) {
        return None;
    }
    mended.extend_from_slice(&target[..path]);
    for &byte in &target[path..] {
        if byte.is_ascii() && !b"\"<>`".contains(&byte) {
            mended.push(byte);
        } else {
            mended.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    mended.push(b' ');
    mended.extend_from_slice(version.as_bytes());
    mended.extend_from_slice(b"\r\n");
    mended.extend_from_slice(headers);
    Some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        size: 1024,
        lines: 200,
        keep_case: false,
    };

    fn status(head: &[u8]) -> Option<u16> {
        match judge(head, LIMITS) {
            Verdict::Refused(error) => Some(error.status.as_u16()),
            _ => None,
        }
    }

    #[test]
    fn a_target_may_have_every_character_but_blanks_and_control_characters() {
        for byte in 0..=u8::MAX {
            for place in ["/a", "/a?b=", "http://h/", "http://h?"] {
                let mut head = format!("GET {place}").into_bytes();
                head.push(byte);
                head.extend_from_slice(b"c HTTP/1.1\r\nhost: h\r\n\r\n");
                let fits = !byte.is_ascii_control() && byte != b' ';
                assert_eq!(status(&head).is_none(), fits, "{place} with {byte:#x}");
            }
        }
    }

    #[test]
    fn what_cannot_become_a_request_is_refused_before_its_end() {
        let early = |bytes: &[u8]| {
            let error = refuse_early(bytes, LIMITS);
            error.map(|error| (error.status.as_u16(), error.request))
        };
        for begun in [
            &b"\r\n"[..],
            b"G",
            b"GET ",
            b"GET /\xff HT",
            b"GET /\xff HTTP/1.7\r\nX",
        ] {
            assert_eq!(early(begun), None, "{}", String::from_utf8_lossy(begun));
        }
        assert_eq!(early(b"\x16\x03\x01\x02"), Some((400, "TLS".to_owned())));
        assert_eq!(early(b"GET /?key=1\n"), Some((400, "GET /".to_owned())));
        assert_eq!(
            early(b"GET / HTTP/1.1\nX Y: 1\n"),
            Some((400, "GET / HTTP/1.1".to_owned()))
        );
        assert_eq!(early(&[b'a'; 2000]), Some((431, "a".repeat(SHOWN))));
    }

    #[test]
    fn a_head_of_many_lines_is_one_of_too_many_beyond_the_limit() {
        let head = |lines| format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(lines)).into_bytes();
        assert!(matches!(judge(&head(100), LIMITS), Verdict::Fits));
        assert_eq!(status(&head(200)), None);
        assert_eq!(status(&head(201)), Some(431));
        let few = HeadLimits { lines: 3, ..LIMITS };
        assert!(matches!(judge(&head(3), few), Verdict::Fits));
        assert!(matches!(judge(&head(4), few), Verdict::Refused(_)));
    }

    #[test]
    fn a_stand_in_has_the_method_and_the_wishes_of_the_request() {
        let stand_in = HeadError::stand_in(b"HEAD /x HTTP/1.1\r\nACCEPT: text/html\r\n\r\n");
        assert!(matches!(judge(&stand_in, LIMITS), Verdict::Fits));
        let text = String::from_utf8(stand_in).unwrap();
        assert!(text.starts_with("HEAD / HTTP/1.1\r\n") && text.contains("accept: text/html\r\n"));
        let hostile = HeadError::stand_in(b"GET / HTTP/1.1\nAccept: a\x00\rGET b\n");
        assert!(matches!(judge(&hostile, LIMITS), Verdict::Fits));
    }
}
