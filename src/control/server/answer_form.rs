//! How answers and events are written: as frames of this protocol, or in JSON-RPC.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::places::Counted;
use crate::control::frames;
use crate::control::protocol::{FRAME_MAX, Failure, Frame, json_rpc};
use crate::os::mutex::lock;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Frames,
    JsonRpc,
}

/// Which request an answer is for.
#[derive(Debug)]
pub enum AnswerForm {
    /// A `req` with this id.
    Frame(String),
    /// A request of JSON-RPC; a notification has no id, and no answer.
    JsonRpc(Option<Value>),
    /// One of several that are answered together.
    Batched(Option<Value>, Arc<Batch>),
}

/// Permits of the requests that an answer is for, until it is written.
pub type Counts = Vec<Counted>;

/// The answers to the requests of a batch, until there are all of them.
#[derive(Debug)]
pub struct Batch(Mutex<Gathered>);

#[derive(Debug)]
struct Gathered {
    left: usize,
    answers: Vec<Value>,
    counts: Counts,
}

impl Dialect {
    /// An event as it is sent; none of one that no reader would take.
    pub fn event(self, event: &str, payload: Value, seq: Option<u64>) -> Option<String> {
        match self {
            Self::Frames => {
                let frame = Frame::Event {
                    event: event.to_owned(),
                    payload,
                    seq,
                };
                frames::text_of(&frame).ok().flatten()
            }
            Self::JsonRpc => {
                let text = json_rpc::notification(event, &payload, seq).to_string();
                Some(text).filter(|text| text.len() < FRAME_MAX)
            }
        }
    }
}

impl AnswerForm {
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Frame(_) => Dialect::Frames,
            Self::JsonRpc(_) | Self::Batched(..) => Dialect::JsonRpc,
        }
    }

    /// The answer as it is sent, once there is something to send.
    pub fn text(self, result: Result<Value, Failure>, counts: Counted) -> Option<(String, Counts)> {
        match self {
            Self::Frame(id) => {
                let ok = result.is_ok();
                let (payload, error) = match result {
                    Ok(payload) => (payload, None),
                    Err(failure) => (Value::Null, Some(failure)),
                };
                let frame = Frame::Res {
                    id,
                    ok,
                    payload,
                    error,
                };
                let text = frames::text_of(&frame).ok().flatten()?;
                Some((text, vec![counts]))
            }
            Self::JsonRpc(id) => {
                let answer = json_rpc::answer(&id?, &result);
                Some((short(&answer), vec![counts]))
            }
            Self::Batched(id, batch) => {
                batch.add(id.map(|id| json_rpc::answer(&id, &result)), counts)
            }
        }
    }
}

impl Batch {
    /// Of so many requests.
    pub fn new(left: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Gathered {
            left,
            answers: Vec::new(),
            counts: Vec::new(),
        })))
    }

    /// One more is answered, a notification with nothing. With the last one, the answers as they are sent.
    pub fn add(&self, answer: Option<Value>, counts: Counted) -> Option<(String, Counts)> {
        let mut gathered = lock(&self.0);
        gathered.left = gathered.left.saturating_sub(1);
        gathered.answers.extend(answer);
        gathered.counts.push(counts);
        if gathered.left > 0 || gathered.answers.is_empty() {
            return None;
        }
        let answers = std::mem::take(&mut gathered.answers);
        let text = Value::from(answers.clone()).to_string();
        let text = match text.len() < FRAME_MAX {
            true => text,
            false => {
                let why = format!("{} bytes are more than a frame may have", text.len());
                let short = answers.iter().map(|one| json_rpc::too_long(one, &why));
                Value::from_iter(short).to_string()
            }
        };
        Some((text, std::mem::take(&mut gathered.counts)))
    }
}

/// An answer of JSON-RPC, or in its place one that says that it is too long.
pub fn short(answer: &Value) -> String {
    let text = answer.to_string();
    if text.len() < FRAME_MAX {
        return text;
    }
    let why = format!("{} bytes are more than a frame may have", text.len());
    json_rpc::too_long(answer, &why).to_string()
}
