//! URLs in an answer's head that name the sidecar's private address: a client that is redirected there
//! would reach nothing from another machine, and after the next restart nobody would. They get the
//! scheme and the host that the client used.
//!
//! Some servers, as nginx, write the name of the request's host before their own port: that is private,
//! too.

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LOCATION};

const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// How a server calls the loopback address that it listens at.
const PRIVATE_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// How a client reaches the front door.
#[derive(Clone, Copy, Debug)]
pub struct PublicOrigin<'a> {
    pub https: bool,
    /// As in its Host field.
    pub host: &'a str,
}

/// Makes the URLs of an answer public; its server listens on `port`.
pub fn make_public(headers: &mut HeaderMap, port: u16, origin: PublicOrigin<'_>) {
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(value) = headers.get_mut(name) {
            replace(value, 0, port, origin);
        }
    }
    if let Some(value) = headers.get_mut(REFRESH)
        && let Some(begin) = refresh_url(value.as_bytes())
    {
        replace(value, begin, port, origin);
    }
}

/// Where the URL begins in `5; url=http://…` or `0;URL='http://…'`.
fn refresh_url(value: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"url=";
    let key = value
        .windows(KEY.len())
        .position(|window| window.eq_ignore_ascii_case(KEY))?;
    let begin = key + KEY.len();
    let quoted = matches!(value.get(begin), Some(b'"' | b'\''));
    Some(begin + usize::from(quoted))
}

/// Replaces the scheme and host of the URL that begins at `begin`, if they are the private ones.
fn replace(value: &mut HeaderValue, begin: usize, port: u16, origin: PublicOrigin<'_>) {
    let (before, url) = value.as_bytes().split_at(begin);
    let Some((scheme, rest)) = behind_private_host(url, port, origin.host) else {
        return;
    };
    let scheme: &[u8] = match (scheme, origin.https) {
        (false, _) => b"//",
        (true, false) => b"http://",
        (true, true) => b"https://",
    };
    let public = [before, scheme, origin.host.as_bytes(), rest].concat();
    if let Ok(public) = HeaderValue::from_bytes(&public) {
        *value = public;
    }
}

/// Of a URL with the private address: whether it has a scheme, and what follows the address.
fn behind_private_host<'u>(url: &'u [u8], port: u16, public: &str) -> Option<(bool, &'u [u8])> {
    let begins: [(&[u8], bool); 3] = [(b"http://", true), (b"https://", true), (b"//", false)];
    let (scheme, rest) = begins.iter().find_map(|(begin, scheme)| {
        let start = url.get(..begin.len())?;
        (start.eq_ignore_ascii_case(begin)).then(|| (*scheme, &url[begin.len()..]))
    })?;
    let end = rest.iter().position(|byte| b"/?#\"'".contains(byte));
    let (authority, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let (host, own) = std::str::from_utf8(authority).ok()?.rsplit_once(':')?;
    let mut hosts = PRIVATE_HOSTS.into_iter().chain([name_of(public)]);
    let private = hosts.any(|name| host.eq_ignore_ascii_case(name));
    (private && own.parse() == Ok(port)).then_some((scheme, rest))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(name: HeaderName, value: &str, https: bool) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        let host = "example.org:8080";
        make_public(&mut headers, 30116, PublicOrigin { https, host });
        String::from_utf8(headers[&name].as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_private_address_becomes_the_one_that_the_client_used() {
        for (private, expected) in [
            (
                "http://127.0.0.1:30116/dir/",
                "http://example.org:8080/dir/",
            ),
            ("HTTP://LocalHost:30116", "http://example.org:8080"),
            ("https://[::1]:30116?a=1#b", "http://example.org:8080?a=1#b"),
            (
                "http://Example.org:30116/dir/",
                "http://example.org:8080/dir/",
            ),
            ("//localhost:30116/ü", "//example.org:8080/ü"),
        ] {
            for name in [LOCATION, CONTENT_LOCATION] {
                assert_eq!(public(name, private, false), expected);
            }
        }
        let secure = public(LOCATION, "http://127.0.0.1:30116/", true);
        assert_eq!(secure, "https://example.org:8080/");
    }

    #[test]
    fn a_refresh_keeps_its_time_and_its_quotes() {
        for (private, expected) in [
            (
                "5; url=http://127.0.0.1:30116/x",
                "5; url=http://example.org:8080/x",
            ),
            (
                "0;URL='http://localhost:30116'",
                "0;URL='http://example.org:8080'",
            ),
            ("5", "5"),
            ("5; url=", "5; url="),
        ] {
            assert_eq!(public(REFRESH, private, false), expected);
        }
    }

    #[test]
    fn a_host_has_a_name_with_or_without_a_port() {
        for (host, name) in [
            ("a", "a"),
            ("a:1", "a"),
            ("[::1]", "[::1]"),
            ("[::1]:1", "[::1]"),
        ] {
            assert_eq!(name_of(host), name);
        }
    }

    #[test]
    fn every_other_url_stays() {
        for other in [
            "/dir/",
            "http://127.0.0.1:30117/",
            "http://127.0.0.1/",
            "http://example.org/",
            "http://example.org:8081/",
            "http://127.0.0.1:301160/",
            "http://127.0.0.2:30116/",
            "http://127.0.0.1:30116.example.com/",
            "http://127.0.0.1:30116@example.com/",
            "http://user@127.0.0.1:30116/",
            "https://example.com/?next=http://127.0.0.1:30116/",
            "ftp://127.0.0.1:30116/",
            "http:",
            "",
        ] {
            assert_eq!(public(LOCATION, other, true), other);
        }
    }
}
