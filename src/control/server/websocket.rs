//! The control protocol over WebSocket: a frame is a text message.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::connection::WRITE_TIME;
use super::transport::{FrameSink, FrameSource, Incoming};
use crate::control::counters::{ControlCounters, ControlRefusal};
use crate::control::protocol::FRAME_MAX;

/// How long a client may say nothing before it is asked for a sign of life, and after that. Proxies on
/// the way close what is silent for a minute.
const PING_AFTER: Duration = Duration::from_secs(30);

/// How long the other side has for its part of the closing handshake: a living one needs a round trip.
const CLOSING: Duration = Duration::from_secs(2);

/// What a connection reads in one go: most requests are shorter. It is kept while the connection lasts.
const READ_BUFFER: usize = 4 * 1024;

/// Messages of one client that are read in a second, for as long as they come; and how many at once
/// before that. A person or a program that shows the gateway needs a few.
const MESSAGES_PER_SECOND: u32 = 50;
const MESSAGES_AT_ONCE: u32 = 200;

/// A connection after its handshake.
pub type ControlSocket = WebSocketStream<TcpStream>;

/// The server's side of a connection, of which `early` was read with the handshake.
pub async fn accept(socket: TcpStream, early: Vec<u8>) -> ControlSocket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * FRAME_MAX)
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX));
    WebSocketStream::from_partially_read(socket, early, Role::Server, Some(config)).await
}

/// Both halves of a connection.
pub fn halves(
    stream: ControlSocket,
    counters: Arc<ControlCounters>,
) -> (MessageSource, MessageSink) {
    let (sink, stream) = stream.split();
    let ping = Arc::new(Notify::new());
    let source = MessageSource {
        stream,
        ping: Arc::clone(&ping),
        pace: Pace::default(),
        counters,
        fault: None,
    };
    (source, MessageSink { sink, ping })
}

/// Requests of a client.
pub struct MessageSource {
    stream: SplitStream<ControlSocket>,
    /// Asks the other half for a ping.
    ping: Arc<Notify>,
    pace: Pace,
    counters: Arc<ControlCounters>,
    /// What was wrong with what came.
    fault: Option<CloseCause>,
}

/// Answers and events for a client.
pub struct MessageSink {
    sink: SplitSink<ControlSocket, Message>,
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

/// Lets so many messages through.
#[derive(Debug)]
struct Pace {
    /// When the messages so far are worked off.
    until: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            until: Instant::now(),
        }
    }
}

impl Pace {
    /// Waits until one more may be read.
    async fn next(&mut self) {
        let now = Instant::now();
        let each = Duration::from_secs(1) / MESSAGES_PER_SECOND;
        self.until = self.until.max(now) + each;
        sleep_until(self.until - each * MESSAGES_AT_ONCE).await;
    }
}

impl MessageSource {
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

impl FrameSource for MessageSource {
    async fn next(&mut self) -> Incoming {
        let mut asked = false;
        loop {
            match timeout(PING_AFTER, self.stream.next()).await {
                Ok(read) => {
                    asked = false;
                    self.pace.next().await;
                    if let Some(came) = self.came(read) {
                        return came;
                    }
                }
                Err(_) if asked => return self.over(ControlRefusal::Silent, CloseCause::Silent),
                Err(_) => {
                    asked = true;
                    self.ping.notify_one();
                }
            }
        }
    }
}

impl FrameSink for MessageSink {
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
pub async fn close((source, sink): (MessageSource, MessageSink), closing: CloseCause) {
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
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_pass_at_once_up_to_a_number_and_then_at_a_pace() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        for _ in 0..MESSAGES_AT_ONCE {
            pace.next().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..2 * MESSAGES_PER_SECOND {
            pace.next().await;
        }
        let took = begun.elapsed();
        let expected = Duration::from_secs(2);
        assert!(took >= expected && took < 2 * expected, "{took:?}");
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
}
