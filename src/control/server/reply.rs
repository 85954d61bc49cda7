//! A request and where its answer goes.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::places::REQUESTS_MAX;
use crate::control::protocol::{EventName, Failure, FailureCode, Frame, Method, Progress};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// The process; 0 where the system does not tell.
    pub pid: i32,
}

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
pub(super) struct Outgoing {
    pub frame: Frame,
    /// The request of an answer counts until the answer is written.
    _counts: Option<Arc<OwnedSemaphorePermit>>,
}

/// Where the answer to one request goes. It is lost when the client went away; the request goes on.
/// A reply that is dropped without an answer says that the gateway ended.
#[derive(Debug)]
pub struct Reply {
    id: String,
    out: Option<mpsc::Sender<Outgoing>>,
    gone: CancellationToken,
    counts: Arc<OwnedSemaphorePermit>,
}

/// The connection of a request that was answered, for events after the answer.
/// [`serve`](super::serve) waits for it as for a [`Reply`].
#[derive(Debug)]
pub struct HeldConnection {
    out: mpsc::Sender<Outgoing>,
    gone: CancellationToken,
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
        self.gone.clone()
    }
}

impl Reply {
    pub(super) fn new(
        id: String,
        out: mpsc::Sender<Outgoing>,
        gone: CancellationToken,
        counts: Arc<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            id,
            out: Some(out),
            gone,
            counts,
        }
    }

    /// Answers: done, and keeps the connection for events; none when the answer could not be given.
    pub fn hold(self, payload: &impl Serialize) -> Option<HeldConnection> {
        let (out, gone) = (self.out.clone(), self.gone.clone());
        let counts = Arc::clone(&self.counts);
        self.done(payload);
        Some(HeldConnection {
            out: out?,
            gone,
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
            let _ = out.try_send(Outgoing {
                frame,
                _counts: Some(Arc::clone(&self.counts)),
            });
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
fn send_event(out: &mpsc::Sender<Outgoing>, event: EventName, payload: Value) {
    if out.capacity() <= REQUESTS_MAX {
        return;
    }
    let frame = Frame::Event {
        event: event.to_string(),
        payload,
    };
    let _ = out.try_send(Outgoing {
        frame,
        _counts: None,
    });
}
