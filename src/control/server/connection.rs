//! One connection: requests in, answers and events out.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::places::Place;
use super::reply::{Call, Caller, ConnectionEnd, ConnectionOut, Reply, ToWrite};
use crate::control::frames::{self, ReadFrame};
use crate::control::protocol::{FRAME_MAX, Failure, FailureCode, Frame, Method};

/// How long a client may take to read an answer. Answers fit the socket's buffer, so only a client
/// that stopped reading takes longer: its connection ends.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Reads requests until the client closes the connection, stops reading or loses its place, or until
/// `stop`; writes answers until every reply has its own.
pub async fn converse(
    stream: UnixStream,
    caller: Caller,
    place: Place,
    calls: mpsc::Sender<Call>,
    stop: CancellationToken,
) {
    let (reader, writer) = stream.into_split();
    let end = ConnectionEnd::default();
    let (out, to_write) = ConnectionOut::new(end.clone());
    // The writer ends when the last reply is gone, so answers survive both the end of the requests
    // and `stop`.
    let writing = write_all(writer, to_write, end.clone());
    let place = &place;
    let reading = async move {
        let _guard = end.gone.clone().drop_guard();
        let requests = RequestReader {
            place,
            caller,
            calls,
            out,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = place.given_away() => {}
            () = end.gone.cancelled() => {}
            () = end.finish.cancelled() => {}
            () = requests.read_all(reader) => {}
        }
    };
    tokio::join!(writing, reading);
}

struct RequestReader<'a> {
    place: &'a Place,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    out: ConnectionOut,
}

impl RequestReader<'_> {
    async fn read_all(self, reader: OwnedReadHalf) {
        let mut reader = BufReader::new(reader);
        loop {
            let Ok(read) = frames::read(&mut reader).await else {
                return;
            };
            // Nothing more is read until the client has taken earlier answers.
            let Some(counts) = self.place.begin_request().await else {
                return;
            };
            let reply = |id| Reply::new(id, self.out.clone(), Arc::clone(&counts));
            let refuse = |message: String| {
                reply(String::new()).fail(Failure::new(FailureCode::BadRequest, message));
            };
            match read {
                ReadFrame::Frame(Frame::Req { id, method, params }) => {
                    self.ask(&method, params, reply(id)).await;
                }
                ReadFrame::Frame(_) => refuse("only `req` frames are read here".into()),
                ReadFrame::Garbage(error) => refuse(format!("not a frame: {error}")),
                ReadFrame::TooLong => {
                    return refuse(format!("a frame may have {FRAME_MAX} bytes"));
                }
                ReadFrame::End => return,
            }
        }
    }

    async fn ask(&self, method: &str, params: serde_json::Value, reply: Reply) {
        let method = match Method::parse(method, params) {
            Ok(method) => method,
            Err(failure) => return reply.fail(failure),
        };
        let call = Call {
            method,
            caller: self.caller,
            reply,
        };
        // A failed send drops the call and its reply, which then answers with a failure.
        let _ = self.calls.send(call).await;
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut to_write: ToWrite, end: ConnectionEnd) {
    let writing = async {
        while let Some(outgoing) = to_write.next().await {
            let frame = outgoing.frame();
            match timeout(WRITE_TIME, frames::write(&mut writer, &frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return end.slow.cancel(),
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = end.slow.cancelled() => {}
    }
    if end.slow.is_cancelled() {
        tracing::warn!("[gateway] control socket: a client does not read and is disconnected");
    }
    end.gone.cancel();
}
