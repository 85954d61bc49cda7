//! A request and where its answer goes.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::places::REQUESTS_MAX;
use super::queued_event::{QUEUE_MAX, QueuedEvent};
use crate::control::access::Caller;
use crate::control::protocol::{EventName, Failure, FailureCode, Frame, Method, Progress};

#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub caller: Caller,
    pub reply: Reply,
}

/// Events that wait for a client that is slow to read; those beyond are lost to it.
pub(super) const EVENTS_MAX: usize = 64;

/// A frame on its way to the client.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// An answer. Its request counts until it is written.
    Answer {
        frame: Frame,
        _counts: Arc<OwnedSemaphorePermit>,
    },
    /// About a request or lease.
    Notice(Frame),
    /// To a subscriber.
    Event(QueuedEvent),
}

impl Outgoing {
    pub fn frame(&self) -> Cow<'_, Frame> {
        match self {
            Self::Answer { frame, .. } | Self::Notice(frame) => Cow::Borrowed(frame),
            Self::Event(event) => Cow::Owned(event.frame()),
        }
    }
}

/// What is written to one connection, and how it ends.
#[derive(Clone, Debug)]
pub(super) struct ConnectionOut {
    /// Answers and notices, which go before events.
    frames: mpsc::Sender<Outgoing>,
    /// Events for a subscriber.
    events: mpsc::Sender<Outgoing>,
    end: ConnectionEnd,
    /// Whose connection it is.
    caller: Caller,
}

/// How a connection ends.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionEnd {
    /// The client has left, or nothing is read from it any more.
    pub gone: CancellationToken,
    /// Nothing more is read: it ends when all is written.
    pub finish: CancellationToken,
    /// It does not read: it ends at once.
    pub slow: CancellationToken,
    /// Nothing reaches it any more: it ends at once.
    pub over: CancellationToken,
}

/// What is to be written to one connection.
#[derive(Debug)]
pub(super) struct ToWrite {
    frames: mpsc::Receiver<Outgoing>,
    events: mpsc::Receiver<Outgoing>,
}

impl ToWrite {
    /// The next; none when nobody can send anything any more.
    pub async fn next(&mut self) -> Option<Outgoing> {
        tokio::select! {
            biased;
            Some(frame) = self.frames.recv() => Some(frame),
            Some(event) = self.events.recv() => Some(event),
            else => None,
        }
    }
}

impl ConnectionOut {
    pub fn new(caller: Caller, end: ConnectionEnd) -> (Self, ToWrite) {
        let (frames, of_frames) = mpsc::channel(EVENTS_MAX + REQUESTS_MAX);
        let (events, of_events) = mpsc::channel(QUEUE_MAX);
        let out = Self {
            frames,
            events,
            end,
            caller,
        };
        let to_write = ToWrite {
            frames: of_frames,
            events: of_events,
        };
        (out, to_write)
    }
}

/// Where the answer to one request goes. It is lost when the client went away; the request goes on.
/// A reply that is dropped without an answer says that the gateway ended.
#[derive(Debug)]
pub struct Reply {
    id: String,
    out: Option<ConnectionOut>,
    counts: Arc<OwnedSemaphorePermit>,
}

/// The connection of a request that was answered, for events after the answer.
/// [`serve`](super::serve) waits for it as for a [`Reply`].
#[derive(Debug)]
pub struct HeldConnection {
    out: ConnectionOut,
    /// It is not idle.
    _counts: Arc<OwnedSemaphorePermit>,
}

impl HeldConnection {
    /// Sends an event; lost when the client went away.
    pub fn event(&self, event: EventName, payload: Value) {
        send_event(&self.out, event, payload);
    }

    /// Cancelled when the client closes the connection, or nothing is read from it any more.
    pub fn gone(&self) -> CancellationToken {
        self.out.end.gone.clone()
    }

    /// Whether this reply goes to the same connection.
    pub(super) fn is_of(&self, reply: &Reply) -> bool {
        let out = reply.out.as_ref();
        out.is_some_and(|out| out.events.same_channel(&self.out.events))
    }

    /// Whose it is.
    pub(super) fn caller(&self) -> Caller {
        self.out.caller
    }

    pub(super) fn end(&self) -> ConnectionEnd {
        self.out.end.clone()
    }

    pub(super) fn events(&self) -> &mpsc::Sender<Outgoing> {
        &self.out.events
    }

    /// Ends the connection when all is written.
    pub(super) fn finish(&self) {
        self.out.end.finish.cancel();
    }

    /// Ends the connection of a client that does not read.
    pub(super) fn drop_slow(&self) {
        self.out.end.slow.cancel();
    }
}

impl Reply {
    /// Who asks.
    pub(super) fn caller(&self) -> Option<Caller> {
        self.out.as_ref().map(|out| out.caller)
    }

    pub(super) fn new(id: String, out: ConnectionOut, counts: Arc<OwnedSemaphorePermit>) -> Self {
        Self {
            id,
            out: Some(out),
            counts,
        }
    }

    /// Answers: done, and keeps the connection for events; none when the answer could not be given.
    pub fn hold(self, payload: &impl Serialize) -> Option<HeldConnection> {
        let out = self.out.clone();
        let counts = Arc::clone(&self.counts);
        self.done(payload);
        Some(HeldConnection {
            out: out?,
            _counts: counts,
        })
    }

    pub fn progress(&self, progress: &Progress) {
        let payload = serde_json::to_value(progress).unwrap_or_default();
        if let Some(out) = &self.out {
            send_event(out, EventName::Progress, payload);
        }
    }

    pub fn done(mut self, payload: &impl Serialize) {
        match serde_json::to_value(payload) {
            Ok(payload) => self.send(payload, None),
            Err(error) => {
                let message = format!("the answer has no JSON form: {error}");
                self.fail(Failure::new(FailureCode::Failed, message));
            }
        }
    }

    pub fn fail(mut self, failure: Failure) {
        self.send(Value::Null, Some(failure));
    }

    /// Answers once; later calls do nothing.
    fn send(&mut self, payload: Value, error: Option<Failure>) {
        if let Some(out) = self.out.take() {
            let frame = Frame::Res {
                id: std::mem::take(&mut self.id),
                ok: error.is_none(),
                payload,
                error,
            };
            // There is room for an answer to each request that counts.
            let answer = Outgoing::Answer {
                frame,
                _counts: Arc::clone(&self.counts),
            };
            let _ = out.frames.try_send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let message = "the gateway ended before it could answer";
        self.send(
            Value::Null,
            Some(Failure::new(FailureCode::Failed, message)),
        );
    }
}

/// Sends an event where that leaves room for the answers.
fn send_event(out: &ConnectionOut, event: EventName, payload: Value) {
    if out.frames.capacity() <= REQUESTS_MAX {
        return;
    }
    let frame = Frame::Event {
        event: event.to_string(),
        payload,
        seq: None,
    };
    let _ = out.frames.try_send(Outgoing::Notice(frame));
}
