//! What carries frames: the two halves of a connection, whatever is below it.

use std::io;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::control::frames::{self, ReadLine};

/// What came from a client.
#[derive(Debug)]
pub enum Incoming {
    Text(Vec<u8>),
    /// A frame over the limit; nothing can be read any more.
    TooLong,
    /// The client sends nothing more, but reads the answers.
    End,
    /// Nothing that was asked can be answered any more.
    Over,
}

/// Frames from a client.
pub trait FrameSource: Send {
    fn next(&mut self) -> impl Future<Output = Incoming> + Send;
}

/// Frames to a client.
pub trait FrameSink: Send {
    fn send(&mut self, text: String) -> impl Future<Output = io::Result<()>> + Send;

    /// What has to be sent besides, until the next frame. May be dropped at any time.
    fn tend(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Lines from the control socket.
pub struct SocketLines(pub BufReader<OwnedReadHalf>);

impl FrameSource for SocketLines {
    async fn next(&mut self) -> Incoming {
        match frames::read_line(&mut self.0).await {
            Ok(ReadLine::Text(text)) => Incoming::Text(text),
            Ok(ReadLine::TooLong) => Incoming::TooLong,
            Ok(ReadLine::End) | Err(_) => Incoming::End,
        }
    }
}

impl FrameSink for OwnedWriteHalf {
    async fn send(&mut self, text: String) -> io::Result<()> {
        frames::write_line(self, text).await
    }

    async fn tend(&mut self) -> io::Result<()> {
        std::future::pending().await
    }
}
