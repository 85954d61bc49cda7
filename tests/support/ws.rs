//! As much of RFC 6455 as a test needs: a handshake, masked text frames, the Close frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::client::{Conn, Fault, Head, Target};

/// The sample key of RFC 6455, section 1.3, and the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A constant mask is as good as a random one here: no browser is protected.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text or binary message, whole.
    Message(Bytes),
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The close frame with its code (1005 when it carries none) and reason.
    Close(u16, String),
}

/// An open WebSocket.
pub struct WebSocket {
    conn: Conn,
}

/// The request that opens one.
pub fn handshake(path: &str) -> String {
    handshake_with(path, "")
}

/// The same with these header lines.
pub fn handshake_with(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

impl WebSocket {
    /// Opens one; the error holds the answer's head when it was not 101.
    pub async fn open(target: &Target, path: &str) -> Result<Self, (Fault, Option<Head>)> {
        Self::open_by(target, &handshake(path)).await
    }

    /// The same by this request.
    pub async fn open_by(target: &Target, request: &str) -> Result<Self, (Fault, Option<Head>)> {
        let conn = Conn::open(target).await.map_err(|fault| (fault, None))?;
        Self::over(conn, request).await
    }

    /// The same on a connection that is open already.
    pub async fn over(mut conn: Conn, request: &str) -> Result<Self, (Fault, Option<Head>)> {
        conn.send(request).await.map_err(|fault| (fault, None))?;
        let head = conn.head().await.map_err(|fault| (fault, None))?;
        let accepted = head.status() == 101 && head.get("sec-websocket-accept") == Some(ACCEPT);
        if !accepted {
            return Err((
                Fault::Garbage(format!("no WebSocket: {}", head.first)),
                Some(head),
            ));
        }
        Ok(Self { conn })
    }

    /// Sends a text message.
    pub async fn send(&mut self, text: &str) -> Result<(), Fault> {
        self.conn.send(frame(0x1, text.as_bytes())).await
    }

    /// Sends a close frame.
    pub async fn close(&mut self, code: u16) -> Result<(), Fault> {
        self.conn.send(frame(0x8, &code.to_be_bytes())).await
    }

    /// Reads the next frame; `Eof` when the connection ended without a close frame. May be dropped
    /// and called again.
    pub async fn next(&mut self) -> Result<Frame, Fault> {
        loop {
            if let Some((first, payload)) = split_frame(self.conn.buffered()) {
                return understand(first, payload);
            }
            if self.conn.more().await? == 0 {
                return Err(if self.conn.buffered().is_empty() {
                    Fault::Eof
                } else {
                    Fault::Truncated
                });
            }
        }
    }

    /// Sends a text and expects it back.
    pub async fn echo(&mut self, text: &str) -> Result<(), Fault> {
        self.send(text).await?;
        match self.next().await? {
            Frame::Message(answer) if answer == text.as_bytes() => Ok(()),
            other => Err(Fault::Garbage(format!("{other:?} instead of the echo"))),
        }
    }

    /// The connection below.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Takes a whole frame off the front, when there is one: its first byte and its payload.
fn split_frame(buf: &mut BytesMut) -> Option<(u8, Bytes)> {
    let first = *buf.first()?;
    let (header, length) = match buf.get(1)? & 0x7f {
        126 => (
            4,
            u64::from(u16::from_be_bytes(buf.get(2..4)?.try_into().unwrap())),
        ),
        127 => (10, u64::from_be_bytes(buf.get(2..10)?.try_into().unwrap())),
        short => (2, u64::from(short)),
    };
    let length = usize::try_from(length).unwrap();
    if buf.len() < header + length {
        return None;
    }
    buf.advance(header);
    Some((first, buf.split_to(length).freeze()))
}

fn understand(first: u8, payload: Bytes) -> Result<Frame, Fault> {
    match first {
        0x81 | 0x82 => Ok(Frame::Message(payload)),
        0x88 if payload.len() >= 2 => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            Ok(Frame::Close(
                code,
                String::from_utf8_lossy(&payload[2..]).into_owned(),
            ))
        }
        0x88 => Ok(Frame::Close(1005, String::new())),
        0x89 => Ok(Frame::Ping(payload)),
        0x8a => Ok(Frame::Pong(payload)),
        other => Err(Fault::Garbage(format!("frame begins with {other:#04x}"))),
    }
}

/// A whole frame of a client.
pub fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0x80 | opcode);
    match payload.len() {
        short @ 0..126 => frame.put_u8(0x80 | u8::try_from(short).unwrap()),
        long if long < 65_536 => {
            frame.put_u8(0x80 | 126);
            frame.put_u16(u16::try_from(long).unwrap());
        }
        long => {
            frame.put_u8(0x80 | 127);
            frame.put_u64(long as u64);
        }
    }
    frame.put_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame.freeze()
}
