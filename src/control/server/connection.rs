//! One connection: requests in, answers and events out.

use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::reply::{Call, Caller, Reply};
use crate::control::frames::{self, ReadFrame};
use crate::control::protocol::{FRAME_MAX, Failure, FailureCode, Frame, Method};

/// How long a client may take to read an answer. Answers fit the socket's buffer, so only a client
/// that stopped reading takes longer.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Reads requests until the client closes the connection or `stop`, and writes answers until every
/// reply has its own.
pub async fn converse(
    stream: UnixStream,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    stop: CancellationToken,
) {
    let (reader, writer) = stream.into_split();
    let (out, frames) = mpsc::unbounded_channel();
    // The writer ends when the last reply is gone, so answers survive both the end of the requests
    // and `stop`.
    let writing = write_all(writer, frames);
    let gone = CancellationToken::new();
    let reading = async move {
        let _guard = gone.clone().drop_guard();
        tokio::select! {
            () = stop.cancelled() => {}
            () = read_all(reader, caller, calls, out, gone) => {}
        }
    };
    tokio::join!(writing, reading);
}

async fn read_all(
    reader: OwnedReadHalf,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    out: mpsc::UnboundedSender<Frame>,
    gone: CancellationToken,
) {
    let mut reader = BufReader::new(reader);
    let refuse = |id: &str, message: String| {
        let reply = Reply::new(id.to_owned(), out.clone(), gone.clone());
        reply.fail(Failure::new(FailureCode::BadRequest, message));
    };
    loop {
        let (id, method, params) = match frames::read(&mut reader).await {
            Ok(ReadFrame::Frame(Frame::Req { id, method, params })) => (id, method, params),
            Ok(ReadFrame::Frame(_)) => {
                refuse("", "only `req` frames are read here".into());
                continue;
            }
            Ok(ReadFrame::Garbage(error)) => {
                refuse("", format!("not a frame: {error}"));
                continue;
            }
            Ok(ReadFrame::TooLong) => {
                return refuse("", format!("a frame may have {FRAME_MAX} bytes"));
            }
            Ok(ReadFrame::End) | Err(_) => return,
        };
        let reply = Reply::new(id, out.clone(), gone.clone());
        let call = match Method::parse(&method, params) {
            Ok(method) => Call {
                method,
                caller,
                reply,
            },
            Err(failure) => {
                reply.fail(failure);
                continue;
            }
        };
        // A failed send drops the call and its reply, which then answers with a failure.
        let _ = calls.send(call).await;
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        let written = timeout(WRITE_TIME, frames::write(&mut writer, &frame)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}
