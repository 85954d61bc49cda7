//! What carries frames: the two halves of a connection, whatever is below it.

use std::io;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::control::frames::{self, ReadFrame};
use crate::control::protocol::Frame;

/// What came from a client.
#[derive(Debug)]
pub enum Incoming {
    Frame(Frame),
    /// No frame, and why.
    Garbage(String),
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
    fn send(&mut self, frame: &Frame) -> impl Future<Output = io::Result<()>> + Send;

    /// What has to be sent besides, until the next frame. May be dropped at any time.
    fn tend(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Lines from the control socket.
pub struct SocketLines(pub BufReader<OwnedReadHalf>);

impl FrameSource for SocketLines {
    async fn next(&mut self) -> Incoming {
        match frames::read(&mut self.0).await {
            Ok(ReadFrame::Frame(frame)) => Incoming::Frame(frame),
            Ok(ReadFrame::Garbage(why)) => Incoming::Garbage(why),
            Ok(ReadFrame::TooLong) => Incoming::TooLong,
            Ok(ReadFrame::End) | Err(_) => Incoming::End,
        }
    }
}

impl FrameSink for OwnedWriteHalf {
    async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        frames::write(self, frame).await
    }

    async fn tend(&mut self) -> io::Result<()> {
        std::future::pending().await
    }
}
