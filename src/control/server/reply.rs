//! A request and where its answer goes.

use serde::Serialize;
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
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where the answer to one request goes. The answer is lost when the client went away, which does not
/// concern the request. A reply that is dropped without an answer says that the gateway ended.
#[derive(Debug)]
pub struct Reply {
    id: String,
    out: Option<mpsc::UnboundedSender<Frame>>,
    gone: CancellationToken,
}

/// The connection of a request that was answered, for what goes on beyond the answer. It keeps
/// [`serve`](super::serve) like a [`Reply`].
#[derive(Debug)]
pub struct HeldConnection {
    out: mpsc::UnboundedSender<Frame>,
    gone: CancellationToken,
}

impl HeldConnection {
    /// Sends an event; lost when the client went away.
    pub fn event(&self, event: EventName, payload: serde_json::Value) {
        let _ = self.out.send(Frame::Event {
            event: event.to_string(),
            payload,
        });
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
        let held = self.out.clone().map(|out| HeldConnection {
            out,
            gone: self.gone.clone(),
        });
        self.done(payload);
        held
    }

    pub fn progress(&self, progress: &Progress) {
        let payload = serde_json::to_value(progress).unwrap_or_default();
        if let Some(out) = &self.out {
            let _ = out.send(Frame::Event {
                event: EventName::Progress.to_string(),
                payload,
            });
        }
    }

    pub fn done(mut self, payload: &impl Serialize) {
        match serde_json::to_value(payload) {
            Ok(payload) => self.send(true, payload, None),
            Err(error) => self.refuse(
                FailureCode::Failed,
                format!("the answer has no JSON form: {error}"),
            ),
        }
    }

    pub fn fail(mut self, failure: Failure) {
        self.refuse(failure.code, failure.message);
    }

    fn refuse(&mut self, code: FailureCode, message: String) {
        self.send(
            false,
            serde_json::Value::Null,
            Some(Failure { code, message }),
        );
    }

    fn send(&mut self, ok: bool, payload: serde_json::Value, error: Option<Failure>) {
        if let Some(out) = self.out.take() {
            let _ = out.send(Frame::Res {
                id: std::mem::take(&mut self.id),
                ok,
                payload,
                error,
            });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.out.is_some() {
            self.refuse(
                FailureCode::Failed,
                "the gateway ended before it could answer".into(),
            );
        }
    }
}
