//! Servers that do not speak HTTP/1: what they are, by what they say when they are asked in HTTP/1.

use std::fmt;

use crate::text::escape::escape;

/// How much of an answer that is not HTTP/1 is shown.
pub const SHOWN: usize = 40;

/// The frame type SETTINGS (RFC 9113, 6.5), with which each side of HTTP/2 begins, and GOAWAY, with
/// which it refuses what it does not understand. The type is the fourth byte of a frame.
const HTTP2_FRAMES: [u8; 2] = [0x04, 0x07];
pub const HTTP2_FRAME_HEAD: usize = 9;

/// A TLS record of the type alert (RFC 8446, 5.1), as a TLS server answers what is not TLS.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];

/// What a server speaks that does not speak HTTP/1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtherProtocol {
    Http2,
    Tls,
    /// It said this, escaped and shortened.
    Said(String),
    /// It closes each connection at once.
    Closes,
}

/// In words that follow the sidecar's name: what it was, and what to do.
impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("does not speak HTTP/1; ")?;
        match self {
            Self::Http2 => f.write_str(
                "it speaks HTTP/2 only, as gRPC servers do: let it speak HTTP/1.1 too, or let its clients connect to it directly",
            ),
            Self::Tls => f.write_str(
                "it expects TLS: let it speak plain HTTP on its private port, where only the gateway connects",
            ),
            Self::Said(text) => write!(
                f,
                "it answered with \"{text}\": only HTTP/1.1 and WebSocket pass through the gateway, let other clients connect to it directly"
            ),
            Self::Closes => f.write_str(
                "it closes each connection without an answer to HEAD /: only HTTP/1.1 and WebSocket pass through the gateway, let other clients connect to it directly",
            ),
        }
    }
}

impl OtherProtocol {
    /// By the beginning of what it sends.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() >= HTTP2_FRAME_HEAD && bytes[0] == 0 && HTTP2_FRAMES.contains(&bytes[3]) {
            return Self::Http2;
        }
        if bytes.starts_with(&TLS_ALERT) {
            return Self::Tls;
        }
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
        Self::Said(escape(text.trim_end()).into_owned())
    }
}
