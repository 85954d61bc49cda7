//! One connection: requests in, answers and events out.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::answer_form::{AnswerForm, Batch, Dialect, short};
use super::asked::AskedMessage;
use super::places::Place;
use super::reply::{Call, ConnectionEnd, ConnectionOut, Reply, ToWrite};
use super::transport::{FrameSink, FrameSource, Incoming};
use crate::control::access::Caller;
use crate::control::counters::{ControlCounters, ControlRefusal, count};
use crate::control::protocol::json_rpc::RpcCall;
use crate::control::protocol::{FRAME_MAX, Failure, FailureCode, Method};

/// How long a client may take to read an answer. Answers fit the socket's buffer, so only a client
/// that stopped reading takes longer: its connection ends.
pub const WRITE_TIME: Duration = Duration::from_secs(10);

/// What a connection has of the server.
#[derive(Clone, Debug)]
pub struct Service {
    pub calls: mpsc::Sender<Call>,
    pub counters: Arc<ControlCounters>,
}

/// Why nothing more is read from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadingEnd {
    /// The client has left, or sent what cannot be understood.
    Client,
    /// The server ends, or has told its subscriber everything.
    Server,
    /// Another connection has got its place.
    GivenAway,
    /// The client does not read.
    Slow,
}

/// Reads requests until the client closes the connection, stops reading or loses its place, or until
/// `stop`; writes answers until every reply has its own.
pub async fn converse(
    (source, sink): (&mut impl FrameSource, &mut impl FrameSink),
    caller: Caller,
    place: &Place,
    service: &Service,
    stop: impl Future<Output = ()> + Send,
) -> ReadingEnd {
    let end = ConnectionEnd::default();
    let (out, to_write) = ConnectionOut::new(caller, end.clone());
    // The writer ends when the last reply is gone, so answers survive both the end of the requests
    // and `stop`.
    let writing = write_all(sink, to_write, caller, service, end.clone());
    let reading = async {
        let _guard = end.gone.clone().drop_guard();
        let requests = RequestReader {
            place,
            caller,
            service,
            out,
        };
        tokio::select! {
            () = stop => ReadingEnd::Server,
            () = place.given_away() => ReadingEnd::GivenAway,
            () = end.finish.cancelled() => ReadingEnd::Server,
            () = end.gone.cancelled() => ReadingEnd::Client,
            broken = requests.read_all(source) => {
                if broken {
                    end.over.cancel();
                }
                ReadingEnd::Client
            }
        }
    };
    let ((), read) = tokio::join!(writing, reading);
    match end.slow.is_cancelled() {
        true => ReadingEnd::Slow,
        false => read,
    }
}

struct RequestReader<'a> {
    place: &'a Place,
    caller: Caller,
    service: &'a Service,
    out: ConnectionOut,
}

impl RequestReader<'_> {
    /// Whether nothing can be answered any more.
    async fn read_all(self, source: &mut impl FrameSource) -> bool {
        let mut dialect = Dialect::Frames;
        loop {
            let asked = match source.next().await {
                Incoming::Text(text) => AskedMessage::in_text(&text, dialect),
                Incoming::TooLong => {
                    let why = format!("a frame may have {FRAME_MAX} bytes");
                    self.refuse(ControlRefusal::TooLong, why, dialect).await;
                    return false;
                }
                Incoming::End => return false,
                Incoming::Over => return true,
            };
            dialect = asked.dialect().unwrap_or(dialect);
            self.take(asked).await;
        }
    }

    async fn take(&self, asked: AskedMessage) {
        match asked {
            AskedMessage::One {
                form,
                method,
                params,
            } => self.ask(&method, params, self.reply(form).await).await,
            AskedMessage::Batch(all) => {
                let batch = Batch::new(all.len());
                for one in all {
                    self.ask_in_batch(one, &batch).await;
                }
            }
            AskedMessage::NoFrame(why) => {
                self.refuse(ControlRefusal::Malformed, why, Dialect::Frames)
                    .await;
            }
            AskedMessage::NoRequest(answer) => {
                self.service.counters.refused(ControlRefusal::Malformed);
                let counts = self.place.begin_request().await;
                self.out.answer(Some((short(&answer), vec![counts])));
            }
        }
    }

    async fn ask_in_batch(&self, one: Result<RpcCall, Value>, batch: &Arc<Batch>) {
        match one {
            Ok(RpcCall { id, method, params }) => {
                let form = AnswerForm::Batched(id, Arc::clone(batch));
                self.ask(&method, params, self.reply(form).await).await;
            }
            Err(answer) => {
                self.service.counters.refused(ControlRefusal::Malformed);
                let counts = self.place.begin_request().await;
                self.out.answer(batch.add(Some(answer), counts));
            }
        }
    }

    /// Nothing more is read until the client has taken earlier answers.
    async fn reply(&self, form: AnswerForm) -> Reply {
        let counts = self.place.begin_request().await;
        Reply::new(form, self.out.clone(), counts)
    }

    /// The answer to what has no id that is known.
    async fn refuse(&self, what: ControlRefusal, why: String, dialect: Dialect) {
        self.service.counters.refused(what);
        let form = match dialect {
            Dialect::Frames => AnswerForm::Frame(String::new()),
            Dialect::JsonRpc => AnswerForm::JsonRpc(Some(Value::Null)),
        };
        let reply = self.reply(form).await;
        reply.fail(Failure::new(FailureCode::BadRequest, why));
    }

    async fn ask(&self, method: &str, params: Value, reply: Reply) {
        let method = match Method::parse(method, params) {
            Ok(method) => method,
            Err(failure) => return reply.fail(failure),
        };
        let name = method.name();
        if self.caller.authority() < name.needs() {
            self.service.counters.refused(ControlRefusal::Forbidden);
            let why = format!("`{name}` needs the owner's token; this one only reads");
            return reply.fail(Failure::new(FailureCode::Forbidden, why));
        }
        let call = Call {
            method,
            caller: self.caller,
            reply,
        };
        // A failed send drops the call and its reply, which then answers with a failure.
        let _ = self.service.calls.send(call).await;
    }
}

async fn write_all(
    sink: &mut impl FrameSink,
    mut to_write: ToWrite,
    caller: Caller,
    service: &Service,
    end: ConnectionEnd,
) {
    let writing = async {
        loop {
            let outgoing = tokio::select! {
                outgoing = to_write.next() => outgoing,
                tended = sink.tend() => match tended {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Some(outgoing) = outgoing else { return };
            let (text, _counts) = outgoing.into_text();
            let Some(text) = text else { continue };
            match timeout(WRITE_TIME, sink.send(text)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return end.slow.cancel(),
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = end.slow.cancelled() => {}
        () = end.over.cancelled() => {}
    }
    if end.slow.is_cancelled() {
        count(&service.counters.dropped);
        tracing::warn!(
            "[gateway] control connection: a client does not read and is disconnected: {caller}"
        );
    }
    end.gone.cancel();
}
