//! Frames on a stream: one JSON text a line, none over [`FRAME_MAX`].

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use serde_json::Value;

use super::protocol::{FRAME_MAX, Failure, FailureCode, Frame};

/// How much of a request's id is repeated where the answer was too long, maybe for that very id.
const ID_ECHOED: usize = 1000;

#[derive(Debug)]
pub enum ReadFrame {
    Frame(Frame),
    /// A line that is no frame, and why.
    Garbage(String),
    /// The line is over [`FRAME_MAX`]; the stream cannot be read further.
    TooLong,
    End,
}

/// A line of a stream.
#[derive(Debug)]
pub enum ReadLine {
    Text(Vec<u8>),
    /// It is over [`FRAME_MAX`]; the stream cannot be read further.
    TooLong,
    End,
}

/// Reads the next frame.
pub async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<ReadFrame> {
    Ok(match read_line(stream).await? {
        ReadLine::Text(text) => match serde_json::from_slice(&text) {
            Ok(frame) => ReadFrame::Frame(frame),
            Err(error) => ReadFrame::Garbage(error.to_string()),
        },
        ReadLine::TooLong => ReadFrame::TooLong,
        ReadLine::End => ReadFrame::End,
    })
}

/// Reads the next line; skips empty ones, and a last one without its newline, which was cut.
pub async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<ReadLine> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut *stream).take(FRAME_MAX as u64 + 1);
        limited.read_until(b'\n', &mut line).await?;
        if line.len() > FRAME_MAX {
            return Ok(ReadLine::TooLong);
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Ok(ReadLine::End);
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        line.pop();
        return Ok(ReadLine::Text(line));
    }
}

/// Writes a frame and its newline. In the place of an answer that no reader would take is a failure
/// that says so; such an event is lost.
///
/// # Errors
/// Also for such a request.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    match text_of(frame)? {
        Some(text) => write_line(stream, text).await,
        None => Ok(()),
    }
}

/// Writes a text and a newline.
pub async fn write_line(
    stream: &mut (impl AsyncWrite + Unpin),
    mut line: String,
) -> io::Result<()> {
    line.push('\n');
    stream.write_all(line.as_bytes()).await
}

/// A frame as it is sent; none of an event that no reader would take.
///
/// # Errors
/// Those of [`write()`].
pub fn text_of(frame: &Frame) -> io::Result<Option<String>> {
    let text = serde_json::to_string(frame)?;
    if text.len() < FRAME_MAX {
        return Ok(Some(text));
    }
    let why = format!("{} bytes are more than a frame may have", text.len());
    match frame {
        Frame::Res { id, .. } => Ok(Some(serde_json::to_string(&too_long(id, &why))?)),
        Frame::Event { .. } => Ok(None),
        Frame::Req { .. } => Err(io::Error::new(io::ErrorKind::InvalidInput, why)),
    }
}

fn too_long(id: &str, why: &str) -> Frame {
    let message = format!("the answer is too long: {why}");
    Frame::Res {
        id: id.chars().take(ID_ECHOED).collect(),
        ok: false,
        payload: Value::Null,
        error: Some(Failure::new(FailureCode::Failed, message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_no_reader_would_take_says_so_instead() {
        let payload = Value::from("x".repeat(FRAME_MAX));
        let event = Frame::Event {
            event: "progress".to_owned(),
            payload: payload.clone(),
            seq: None,
        };
        let answer = Frame::Res {
            id: "7".to_owned(),
            ok: true,
            payload,
            error: None,
        };
        let mut sent = Vec::new();
        write(&mut sent, &event).await.unwrap();
        write(&mut sent, &answer).await.unwrap();
        let ReadFrame::Frame(Frame::Res { id, ok, error, .. }) =
            read(&mut sent.as_slice()).await.unwrap()
        else {
            panic!("{} bytes", sent.len());
        };
        assert_eq!((id.as_str(), ok), ("7", false));
        assert!(error.unwrap().message.contains("too long"));
    }
}
