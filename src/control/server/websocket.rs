//! The control protocol over WebSocket: a frame is a text message.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::connection::WRITE_TIME;
use super::paced_socket::{Heard, PacedSocket, READ_MAX};
use super::transport::{FrameSink, FrameSource, Incoming};
use crate::control::counters::{ControlCounters, ControlRefusal};
use crate::control::protocol::FRAME_MAX;

/// How long a client may say nothing before it is asked for a sign of life, and after that. Proxies on
/// the way close what is silent for a minute.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long the other side has for its part of the closing handshake: a living one needs a round trip.
const CLOSING: Duration = Duration::from_secs(2);

/// A connection after its handshake.
pub type ControlSocket<S> = WebSocketStream<PacedSocket<S>>;

/// The server's side of a connection, of which `early` was read with the handshake.
pub async fn accept<S>(socket: S, early: Vec<u8>) -> ControlSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_MAX)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * FRAME_MAX)
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX));
    let socket = PacedSocket::new(socket, early);
    WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await
}

/// Both halves of a connection.
pub fn halves<S>(
    stream: ControlSocket<S>,
    counters: Arc<ControlCounters>,
) -> (MessageSource<S>, MessageSink<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let heard = stream.get_ref().heard();
    let (sink, stream) = stream.split();
    let ping = Arc::new(Notify::new());
    let source = MessageSource {
        stream,
        ping: Arc::clone(&ping),
        heard,
        counters,
        fault: None,
    };
    (source, MessageSink { sink, ping })
}

/// Requests of a client.
pub struct MessageSource<S> {
    stream: SplitStream<ControlSocket<S>>,
    /// Asks the other half for a ping.
    ping: Arc<Notify>,
    heard: Heard,
    counters: Arc<ControlCounters>,
    /// What was wrong with what came.
    fault: Option<CloseCause>,
}

/// Answers and events for a client.
pub struct MessageSink<S> {
    sink: SplitSink<ControlSocket<S>, Message>,
    ping: Arc<Notify>,
}

/// How the server closes a connection: a status of RFC 6455, or of its registry, and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// Another process serves, or will when this one has ended.
    Restart,
    Stop,
    /// Another client has got its place.
    GivenAway,
    Silent,
    /// The client has broken the protocol of WebSocket.
    Broken,
    NotText,
    NotUtf8,
    TooLong,
}

impl CloseCause {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Restart => (CloseCode::Restart, "service restart"),
            Self::Stop => (CloseCode::Away, "the gateway stops"),
            Self::GivenAway => (CloseCode::Again, "too many control connections"),
            Self::Silent => (CloseCode::Away, "no sign of life"),
            Self::Broken => (CloseCode::Protocol, "not the protocol of WebSocket"),
            Self::NotText => (CloseCode::Unsupported, "frames are text"),
            Self::NotUtf8 => (CloseCode::Invalid, "text is UTF-8"),
            Self::TooLong => (CloseCode::Size, "a frame may have 1048576 bytes"),
        };
        CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        }
    }
}

impl<S> MessageSource<S> {
    /// What was wrong with what came, if that ended the conversation.
    pub fn fault(&self) -> Option<CloseCause> {
        self.fault
    }

    fn over(&mut self, what: ControlRefusal, fault: CloseCause) -> Incoming {
        self.counters.refused(what);
        self.fault = Some(fault);
        Incoming::Over
    }

    /// Something came, or the connection ended.
    fn came(&mut self, read: Option<Result<Message, Error>>) -> Option<Incoming> {
        let message = match read {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                self.fault = Some(CloseCause::TooLong);
                return Some(Incoming::TooLong);
            }
            // It has left without a word, which is no fault.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                return Some(Incoming::Over);
            }
            Some(Err(Error::Protocol(_) | Error::Capacity(_) | Error::AttackAttempt)) => {
                return Some(self.over(ControlRefusal::Malformed, CloseCause::Broken));
            }
            Some(Err(Error::Utf8(_))) => {
                return Some(self.over(ControlRefusal::Malformed, CloseCause::NotUtf8));
            }
            Some(Err(_)) | None => return Some(Incoming::Over),
        };
        match message {
            Message::Text(text) => Some(Incoming::Text(text.as_bytes().to_vec())),
            Message::Binary(_) => Some(self.over(ControlRefusal::Malformed, CloseCause::NotText)),
            // What is due in return is sent by the library, with the next read. After a Close frame that
            // ends.
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> FrameSource for MessageSource<S> {
    async fn next(&mut self) -> Incoming {
        // When a ping was asked for, if nothing came since.
        let mut asked = None;
        loop {
            let heard = self.heard.at();
            let silent_since = asked.filter(|asked| heard <= *asked).unwrap_or(heard);
            match timeout_at(silent_since + PING_AFTER, self.stream.next()).await {
                Ok(read) => {
                    if let Some(came) = self.came(read) {
                        return came;
                    }
                }
                // A part of a message is a sign of life.
                Err(_) if self.heard.at() > silent_since => {}
                Err(_) if silent_since > heard => {
                    return self.over(ControlRefusal::Silent, CloseCause::Silent);
                }
                Err(_) => {
                    asked = Some(Instant::now());
                    self.ping.notify_one();
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> FrameSink for MessageSink<S> {
    async fn send(&mut self, text: String) -> io::Result<()> {
        let sent = self.sink.send(Message::text(text)).await;
        sent.map_err(io::Error::other)
    }

    async fn tend(&mut self) -> io::Result<()> {
        self.ping.notified().await;
        let ping = self.sink.send(Message::Ping(Vec::new().into()));
        match timeout(WRITE_TIME, ping).await {
            Ok(sent) => sent.map_err(io::Error::other),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Closes the connection: what the client still sends is thrown away, because the close frame is lost
/// where the socket is closed before that is read.
pub async fn close<S>((source, sink): (MessageSource<S>, MessageSink<S>), closing: CloseCause)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(mut stream) = source.stream.reunite(sink.sink) else {
        return;
    };
    let handshake = async {
        if stream.close(Some(closing.frame())).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // One that does not take part is disconnected.
    let _ = timeout(CLOSING, handshake).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpStream;

    use super::*;
    use crate::control::server::paced_socket::{FRAMES_AT_ONCE, FRAMES_PER_SECOND};

    /// The head of a masked frame; the mask is 0, so that the payload stands as it is.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u64).to_be_bytes();
        [&[first, 0xff][..], &length, &[0; 4], payload].concat()
    }

    async fn open() -> (
        MessageSource<DuplexStream>,
        MessageSink<DuplexStream>,
        DuplexStream,
    ) {
        let (ours, client) = duplex(2 * FRAME_MAX);
        let (source, sink) = halves(accept(ours, Vec::new()).await, Arc::default());
        (source, sink, client)
    }

    #[tokio::test(start_paused = true)]
    async fn frames_pass_at_once_up_to_a_number_and_then_at_a_pace() {
        // A message in empty pieces, one of pings before it, and many messages.
        for (each, last) in [(0x01, 0x80), (0x89, 0x81)] {
            let (mut source, _sink, mut client) = open().await;
            let mut all = frame(each, b"");
            let more = FRAMES_AT_ONCE + 4 * FRAMES_PER_SECOND;
            let next = if each == 0x01 { 0x00 } else { each };
            all.extend(frame(next, b"").repeat(more as usize));
            all.extend(frame(last, b"{}"));
            client.write_all(&all).await.unwrap();
            let begun = Instant::now();
            let came = source.next().await;
            assert!(
                matches!(&came, Incoming::Text(text) if text == b"{}"),
                "{came:?}"
            );
            let took = begun.elapsed();
            // Up to a read of 4 KiB, which holds 292 of them, comes early.
            assert!(
                took > Duration::ZERO && took < Duration::from_secs(5),
                "{took:?}"
            );
        }
        let (mut source, _sink, mut client) = open().await;
        let begun = Instant::now();
        let count = FRAMES_AT_ONCE + 20 * FRAMES_PER_SECOND;
        client
            .write_all(&frame(0x81, b"{}").repeat(count as usize))
            .await
            .unwrap();
        for _ in 0..count {
            source.next().await;
        }
        let took = begun.elapsed();
        assert!(
            took > Duration::from_secs(13) && took < Duration::from_secs(21),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_without_a_sign_of_life_is_pinged_and_then_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let counters = Arc::new(ControlCounters::default());
        let stream = accept(socket, Vec::new()).await;
        let (mut source, mut sink) = halves(stream, Arc::clone(&counters));
        let begun = Instant::now();
        let (came, pinged) = tokio::join!(source.next(), sink.tend());
        assert!(matches!(came, Incoming::Over), "{came:?}");
        pinged.unwrap();
        assert_eq!(source.fault(), Some(CloseCause::Silent));
        assert!(begun.elapsed() >= 2 * PING_AFTER, "{:?}", begun.elapsed());
        let mut ping = [0; 2];
        client.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        let silent = (ControlRefusal::Silent, 1);
        assert!(counters.refusals().any(|refusal| refusal == silent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_takes_minutes_is_a_sign_of_life() {
        let (mut source, _sink, mut client) = open().await;
        let text = vec![b' '; FRAME_MAX];
        let sending = async {
            for part in frame(0x81, &text).chunks(FRAME_MAX / 8) {
                tokio::time::sleep(PING_AFTER - Duration::from_secs(1)).await;
                client.write_all(part).await.unwrap();
            }
        };
        let (came, ()) = tokio::join!(source.next(), sending);
        assert!(matches!(&came, Incoming::Text(came) if *came == text));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_without_a_word_has_said_nothing_wrong() {
        let (mut source, _sink, client) = open().await;
        drop(client);
        assert!(matches!(source.next().await, Incoming::Over));
        assert_eq!(source.fault(), None);
    }
}
