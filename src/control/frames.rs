//! Frames on a stream: one JSON text a line, none over [`FRAME_MAX`].

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::protocol::{FRAME_MAX, Frame};

#[derive(Debug)]
pub enum ReadFrame {
    Frame(Frame),
    /// A line that is no frame, and why.
    Garbage(String),
    /// The line is over [`FRAME_MAX`]; the stream cannot be read further.
    TooLong,
    End,
}

/// Reads the next frame; skips empty lines, and a last line without its newline, which was cut.
pub async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<ReadFrame> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut *stream).take(FRAME_MAX as u64 + 1);
        limited.read_until(b'\n', &mut line).await?;
        if line.len() > FRAME_MAX {
            return Ok(ReadFrame::TooLong);
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(ReadFrame::End);
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        return Ok(match serde_json::from_slice(text) {
            Ok(frame) => ReadFrame::Frame(frame),
            Err(error) => ReadFrame::Garbage(error.to_string()),
        });
    }
}

/// Writes a frame and its newline.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
