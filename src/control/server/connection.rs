//! One connection: requests in, answers and events out.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::places::{Place, REQUESTS_MAX};
use super::reply::{Call, Caller, EVENTS_MAX, Outgoing, Reply};
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
    let (out, frames) = mpsc::channel(EVENTS_MAX + REQUESTS_MAX);
    let gone = CancellationToken::new();
    // The writer ends when the last reply is gone, so answers survive both the end of the requests
    // and `stop`.
    let writing = write_all(writer, frames, gone.clone());
    let place = &place;
    let reading = async move {
        let _guard = gone.clone().drop_guard();
        let requests = RequestReader {
            place,
            caller,
            calls,
            out,
            gone: gone.clone(),
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = place.given_away() => {}
            () = gone.cancelled() => {}
            () = requests.read_all(reader) => {}
        }
    };
    tokio::join!(writing, reading);
}

struct RequestReader<'a> {
    place: &'a Place,
    caller: Caller,
    calls: mpsc::Sender<Call>,
    out: mpsc::Sender<Outgoing>,
    gone: CancellationToken,
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
            let reply =
                |id| Reply::new(id, self.out.clone(), self.gone.clone(), Arc::clone(&counts));
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

async fn write_all(
    mut writer: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Outgoing>,
    gone: CancellationToken,
) {
    while let Some(outgoing) = frames.recv().await {
        let written = timeout(WRITE_TIME, frames::write(&mut writer, &outgoing.frame)).await;
        if !matches!(written, Ok(Ok(()))) {
            return gone.cancel();
        }
    }
}
