//! A request and where its answer goes.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::answer_form::{AnswerForm, Counts, Dialect};
use super::places::{Counted, REQUESTS_MAX};
use super::queued_event::{QUEUE_MAX, QueuedEvent};
use crate::control::access::Caller;
use crate::control::protocol::{EventName, Failure, FailureCode, Method, Progress};
use crate::text::words::Words;

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
    /// An answer. Its requests count until it is written.
    Answer { text: String, counts: Counts },
    /// About a request or lease.
    Notice(String),
    /// To a subscriber.
    Event(QueuedEvent, Dialect),
}

impl Outgoing {
    /// As it is sent, and what counts until then; no text where no reader would take it.
    pub fn into_text(self) -> (Option<String>, Counts) {
        match self {
            Self::Answer { text, counts } => (Some(text), counts),
            Self::Notice(text) => (Some(text), Counts::new()),
            Self::Event(event, dialect) => (event.text(dialect), Counts::new()),
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

    /// Sends an answer, if there is one to be sent.
    pub fn answer(&self, answer: Option<(String, Counts)>) {
        if let Some((text, counts)) = answer {
            // There is room for an answer to each request that counts.
            let _ = self.frames.try_send(Outgoing::Answer { text, counts });
        }
    }
}

/// Where the answer to one request goes. It is lost when the client went away; the request goes on.
/// A reply that is dropped without an answer says that the gateway ended.
#[derive(Debug)]
pub struct Reply {
    form: Option<AnswerForm>,
    dialect: Dialect,
    out: Option<ConnectionOut>,
    counts: Counted,
}

/// The connection of a request that was answered, for events after the answer.
/// [`serve`](super::serve) waits for it as for a [`Reply`].
#[derive(Debug)]
pub struct HeldConnection {
    out: ConnectionOut,
    /// In which its events are.
    dialect: Dialect,
    /// It is not idle.
    _counts: Counted,
}

impl HeldConnection {
    /// Sends an event; lost when the client went away.
    pub fn event(&self, event: EventName, payload: Value) {
        send_event(&self.out, self.dialect, event, payload);
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

    /// Puts an event into the queue.
    pub(super) fn try_send(&self, event: QueuedEvent) -> Result<(), TrySendError<Outgoing>> {
        let event = Outgoing::Event(event, self.dialect);
        self.out.events.try_send(event)
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

    pub(super) fn new(form: AnswerForm, out: ConnectionOut, counts: Counted) -> Self {
        Self {
            dialect: form.dialect(),
            form: Some(form),
            out: Some(out),
            counts,
        }
    }

    /// Answers: done, and keeps the connection for events; none when the answer could not be given.
    pub fn hold(self, payload: &impl Serialize) -> Option<HeldConnection> {
        let out = self.out.clone();
        let (counts, dialect) = (Arc::clone(&self.counts), self.dialect);
        self.done(payload);
        Some(HeldConnection {
            out: out?,
            dialect,
            _counts: counts,
        })
    }

    pub fn progress(&self, progress: &Progress) {
        let payload = serde_json::to_value(progress).unwrap_or_default();
        if let Some(out) = &self.out {
            send_event(out, self.dialect, EventName::Progress, payload);
        }
    }

    pub fn done(mut self, payload: &impl Serialize) {
        match serde_json::to_value(payload) {
            Ok(payload) => self.send(Ok(payload)),
            Err(error) => {
                let message = format!("the answer has no JSON form: {error}");
                self.fail(Failure::new(FailureCode::Failed, message));
            }
        }
    }

    pub fn fail(mut self, failure: Failure) {
        self.send(Err(failure));
    }

    /// Answers once; later calls do nothing.
    fn send(&mut self, result: Result<Value, Failure>) {
        if let (Some(out), Some(form)) = (self.out.take(), self.form.take()) {
            out.answer(form.text(result, Arc::clone(&self.counts)));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let message = "the gateway ended before it could answer";
        self.send(Err(Failure::new(FailureCode::Failed, message)));
    }
}

/// Sends an event where that leaves room for the answers.
fn send_event(out: &ConnectionOut, dialect: Dialect, event: EventName, payload: Value) {
    if out.frames.capacity() <= REQUESTS_MAX {
        return;
    }
    if let Some(text) = dialect.event(event.word(), payload, None) {
        let _ = out.frames.try_send(Outgoing::Notice(text));
    }
}
