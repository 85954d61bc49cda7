//! A request and where its answer goes.

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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

/// Where the answer to one request goes. It is lost when the client went away; the request goes on.
/// A reply that is dropped without an answer says that the gateway ended.
#[derive(Debug)]
pub struct Reply {
    id: String,
    out: Option<mpsc::UnboundedSender<Frame>>,
    gone: CancellationToken,
}

/// The connection of a request that was answered, for events after the answer.
/// [`serve`](super::serve) waits for it as for a [`Reply`].
#[derive(Debug)]
pub struct HeldConnection {
    out: mpsc::UnboundedSender<Frame>,
    gone: CancellationToken,
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
        out: mpsc::UnboundedSender<Frame>,
        gone: CancellationToken,
    ) -> Self {
        Self {
            id,
            out: Some(out),
            gone,
        }
    }

    /// Answers: done, and keeps the connection for events; none when the answer could not be given.
    pub fn hold(self, payload: &impl Serialize) -> Option<HeldConnection> {
        let (out, gone) = (self.out.clone(), self.gone.clone());
        self.done(payload);
        Some(HeldConnection { out: out?, gone })
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
            let _ = out.send(Frame::Res {
                id: std::mem::take(&mut self.id),
                ok: error.is_none(),
                payload,
                error,
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

fn send_event(out: &mpsc::UnboundedSender<Frame>, event: EventName, payload: Value) {
    let _ = out.send(Frame::Event {
        event: event.to_string(),
        payload,
    });
}
