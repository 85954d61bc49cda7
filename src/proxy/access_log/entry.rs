//! What a line of the access log is made of.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};

use crate::proxy::exchange_end::ExchangeEnd;
use crate::proxy::forwarded::Peer;
use crate::proxy::route_stats::RouteStats;

/// The most that is kept of a target: nginx takes no longer request line (large_client_header_buffers).
const TARGET_MAX: usize = 8192;

/// The most that is kept of any other text.
const TEXT_MAX: usize = 1024;

/// One line before it is written.
#[derive(Debug)]
pub struct AccessEntry {
    /// When the request ended.
    pub time: SystemTime,
    pub client: Peer,
    /// None when the head was not read to its end.
    pub asked: Option<AskedText>,
    /// 0 when no answer went out.
    pub status: u16,
    pub bytes: u64,
    pub duration: Duration,
    pub upstream: Option<Duration>,
    /// The route, and its generation.
    pub route: Option<(Arc<RouteStats>, u64)>,
    pub retries: u32,
    pub end: ExchangeEnd,
}

impl AccessEntry {
    /// What it takes of the queue, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.asked.as_ref().map_or(0, |asked| asked.texts.len())
    }
}

/// What a client asked; the parts share the memory of the request's head.
#[derive(Debug)]
pub struct LoggedHead {
    /// Who asked, as far as the peer may tell.
    pub client: Peer,
    pub method: Method,
    pub target: Uri,
    pub version: Version,
    pub host: Option<HeaderValue>,
    pub referer: Option<HeaderValue>,
    pub agent: Option<HeaderValue>,
}

/// What a client asked, copied: the memory of a head is given back when its request ends.
#[derive(Debug)]
pub struct AskedText {
    pub version: Version,
    /// All texts, one after the other, and where each ends.
    texts: Box<[u8]>,
    ends: [usize; 6],
}

impl LoggedHead {
    /// The texts of the request with this id, each cut where it is too long.
    pub fn text(&self, id: Option<&HeaderValue>) -> AskedText {
        let target = self
            .target
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let method = self.method.as_str().as_bytes();
        let parts: [&[u8]; 6] = [
            &target.as_bytes()[..target.len().min(TARGET_MAX)],
            field(id),
            field(self.host.as_ref()),
            field(self.referer.as_ref()),
            field(self.agent.as_ref()),
            &method[..method.len().min(TEXT_MAX)],
        ];
        let mut texts = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            texts.extend_from_slice(part);
            texts.len()
        });
        AskedText {
            version: self.version,
            texts: texts.into(),
            ends,
        }
    }
}

/// The beginning of a field, or nothing.
fn field(value: Option<&HeaderValue>) -> &[u8] {
    let bytes = value.map_or(&[][..], HeaderValue::as_bytes);
    &bytes[..bytes.len().min(TEXT_MAX)]
}

impl AskedText {
    /// Path and query.
    pub fn target(&self) -> &[u8] {
        self.part(0)
    }

    /// The id, or nothing; so with the others.
    pub fn id(&self) -> &[u8] {
        self.part(1)
    }

    pub fn host(&self) -> &[u8] {
        self.part(2)
    }

    pub fn referer(&self) -> &[u8] {
        self.part(3)
    }

    pub fn agent(&self) -> &[u8] {
        self.part(4)
    }

    pub fn method(&self) -> &[u8] {
        self.part(5)
    }

    fn part(&self, index: usize) -> &[u8] {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.texts[begin..self.ends[index]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_as_far_as_they_are_shown() {
        let agent = "a".repeat(5000);
        let asked = LoggedHead {
            client: Peer::Unix,
            method: Method::from_bytes(agent.as_bytes()).unwrap(),
            target: format!("/{}?x", "b".repeat(10_000)).parse().unwrap(),
            version: Version::HTTP_11,
            host: Some(HeaderValue::from_static("h:1")),
            referer: None,
            agent: Some(HeaderValue::from_str(&agent).unwrap()),
        };
        let text = asked.text(Some(&HeaderValue::from_static("id")));
        assert_eq!(
            (text.id(), text.host(), text.referer()),
            (&b"id"[..], &b"h:1"[..], &b""[..])
        );
        assert_eq!(text.target().len(), TARGET_MAX);
        assert_eq!(
            (text.agent().len(), text.method().len()),
            (TEXT_MAX, TEXT_MAX)
        );
    }
}
