//! The form in which the hosts and paths of routes and of requests are compared: two spellings of one
//! resource are the same here. What is forwarded stays as it came.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::uri::Authority;

use crate::text::percent;

/// A host without its port and the dot of the root, in small letters.
pub fn host(field: &str) -> Cow<'_, str> {
    if field.starts_with('[') {
        return ipv6(field);
    }
    let host = field.split(':').next().unwrap_or_default();
    let host = host.trim_end_matches('.');
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

fn ipv6(field: &str) -> Cow<'_, str> {
    let host = field.find(']').map_or(field, |end| &field[..=end]);
    let literal = host.trim_matches(['[', ']']).parse::<Ipv6Addr>();
    match literal {
        Ok(address) => Cow::Owned(format!("[{address}]")),
        Err(_) => Cow::Owned(host.to_ascii_lowercase()),
    }
}

/// Whether a field can be a host with or without a port. What has user information, a path or an empty
/// label could be read as two hosts by two servers.
pub fn is_host(field: &str) -> bool {
    is_plain_host(field.as_bytes()) || is_authority(field)
}

/// Whether it is one without a doubt: letters, digits and hyphens between dots, and perhaps a port. Most
/// are, and nothing needs to be parsed.
fn is_plain_host(field: &[u8]) -> bool {
    let mut last = b'.';
    let end = field.iter().position(|&byte| {
        let label_begins = last == b'.';
        let fits = byte.is_ascii_alphanumeric() || byte == b'-' || (byte == b'.' && !label_begins);
        if fits {
            last = byte;
        }
        !fits
    });
    let port = match end.map(|end| &field[end..]) {
        None => b"80",
        Some([b':', port @ ..]) => port,
        Some(_) => return false,
    };
    // A number of five digits is left to the parser.
    last != b'.' && (1..=4).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
}

fn is_authority(field: &str) -> bool {
    let Ok(authority) = field.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let rest = field.strip_prefix(host);
    let port = rest.and_then(|rest| match rest {
        "" => Some(""),
        _ => rest.strip_prefix(':'),
    });
    let labels = host.strip_suffix('.').unwrap_or(host);
    let literal = host.starts_with('[');
    port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        && (literal || labels.split('.').all(|label| !label.is_empty()))
}

/// A path with its escapes decoded, without dot segments and doubled slashes, as nginx resolves it;
/// what leads above the root ends there (RFC 3986, 5.2.4). A percent sign that stays one, blanks and
/// bytes beyond ASCII are escaped.
pub fn path(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_plain(path.as_bytes()) {
        return Cow::Borrowed(path);
    }
    let decoded = percent::decode(path.as_bytes());
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut open = false;
    for segment in decoded.split(|byte| *byte == b'/').skip(1) {
        open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b".." => drop(segments.pop()),
            b"" | b"." => {}
            name => segments.push(name),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        segment.iter().for_each(|byte| encode(*byte, &mut normal));
    }
    if open || segments.is_empty() {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// Whether a path has nothing to decode or to resolve.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    path.iter().all(|&byte| {
        let before = std::mem::replace(&mut last, byte);
        byte.is_ascii_graphic() && byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'))
    })
}

fn encode(byte: u8, to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_graphic() && byte != b'%' {
        to.push(byte as char);
    } else {
        to.push('%');
        to.push(DIGITS[usize::from(byte >> 4)] as char);
        to.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_resolve_as_in_nginx() {
        for (given, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/jobs", "/jobs"),
            ("//jobs", "/jobs"),
            ("///jobs//7", "/jobs/7"),
            ("/%6aobs", "/jobs"),
            ("/%6Aobs", "/jobs"),
            ("/x/../jobs", "/jobs"),
            ("/x/%2e%2E/jobs", "/jobs"),
            ("/x%2f..%2Fjobs", "/jobs"),
            ("/./jobs/.", "/jobs/"),
            ("/jobs/..", "/"),
            ("/jobs/x/..", "/jobs/"),
            ("/../../jobs", "/jobs"),
            ("/jobs/", "/jobs/"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/c.", "/a..b/c."),
            // One escape is decoded once.
            ("/%256aobs", "/%256aobs"),
            ("/%25", "/%25"),
            ("/%", "/%25"),
            ("/%zz%6", "/%25zz%256"),
            ("/a b", "/a%20b"),
            ("/a%20b+c", "/a%20b+c"),
            ("/%3fjobs%23", "/?jobs#"),
            ("/ä", "/%C3%A4"),
            ("/%c3%a4", "/%C3%A4"),
            ("/%FF%00", "/%FF%00"),
            ("/Jobs", "/Jobs"),
        ] {
            assert_eq!(path(given), normal, "{given}");
        }
    }

    #[test]
    fn hosts_lose_port_case_and_the_dot_of_the_root() {
        for (given, normal) in [
            ("Admin.Example.ORG.", "admin.example.org"),
            ("a.example.org.:80", "a.example.org"),
            ("a:443", "a"),
            ("a:", "a"),
            ("127.0.0.1:18789", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
        ] {
            assert!(is_host(given), "{given}");
            assert_eq!(host(given), normal, "{given}");
        }
    }

    #[test]
    fn what_is_no_host() {
        for text in [
            "",
            " ",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a, b",
            "../../etc",
            "a/b",
            "u@a",
            "a:b",
            "a:1:2",
            ":80",
            "[::1",
            "[::1]x",
            "%61dmin",
            "a\\b",
            "http://a",
            "a?b",
            "a#b",
        ] {
            assert!(!is_host(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plainly_a_host_is_one_for_the_parser(text in "[aZ9:.-]{0,12}(:[0-9]{0,6})?") {
            prop_assert!(!is_plain_host(text.as_bytes()) || is_authority(&text), "{}", text);
        }

        #[test]
        fn a_normal_form_stays(text in "\\PC*", of in "[/.%2eEfF6aA5c ]{0,24}") {
            for text in [text, format!("/{of}"), of] {
                let once = path(&text).into_owned();
                prop_assert_eq!(path(&once), once.as_str());
                let once = host(&text).into_owned();
                prop_assert_eq!(host(&once), once.as_str());
            }
        }

        #[test]
        fn a_path_begins_with_one_slash_and_has_no_dot_segments(of in "[/.%2eEfF6aA]{0,24}") {
            let normal = path(&format!("/{of}")).into_owned();
            prop_assert!(normal.starts_with('/') && !normal.contains("//"), "{}", normal);
            prop_assert!(normal.split('/').all(|name| name != "." && name != ".."), "{}", normal);
        }

        #[test]
        fn escaping_any_byte_changes_nothing(names in "[a-z/.]{0,12}", which in any::<u16>()) {
            let escaped: String = std::iter::once("/".to_owned())
                .chain(names.bytes().enumerate().map(|(at, byte)| match which >> (at % 16) & 1 {
                    1 => format!("%{byte:02x}"),
                    _ => (byte as char).to_string(),
                }))
                .collect();
            let plain = format!("/{names}");
            prop_assert_eq!(path(&escaped), path(&plain));
        }
    }
}
