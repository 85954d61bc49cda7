//! What a text from a client asks.

use serde_json::Value;

use super::answer_form::{AnswerForm, Dialect};
use super::places::REQUESTS_MAX;
use crate::control::protocol::Frame;
use crate::control::protocol::json_rpc::{self, RpcCall};

/// What is asked, before its method is looked at.
#[derive(Debug)]
pub enum AskedMessage {
    One {
        form: AnswerForm,
        method: String,
        params: Value,
    },
    /// Several of JSON-RPC; in the place of one that is none, the answer to it.
    Batch(Vec<Result<RpcCall, Value>>),
    /// No frame, and why.
    NoFrame(String),
    /// No request of JSON-RPC: the answer to it.
    NoRequest(Value),
}

impl AskedMessage {
    /// Reads a text of a client that has spoken this dialect so far: what is no JSON is in none.
    pub fn in_text(text: &[u8], dialect: Dialect) -> Self {
        let message = match serde_json::from_slice(text) {
            Ok(message) => message,
            Err(error) => {
                return match dialect {
                    Dialect::Frames => Self::NoFrame(format!("not a frame: {error}")),
                    Dialect::JsonRpc => Self::NoRequest(json_rpc::not_parsed(&error.to_string())),
                };
            }
        };
        match message {
            Value::Array(all) => Self::batch(all),
            Value::Object(message) if json_rpc::is_meant(&message) => {
                match json_rpc::call_of(Value::Object(message)) {
                    Ok(RpcCall { id, method, params }) => Self::One {
                        form: AnswerForm::JsonRpc(id),
                        method,
                        params,
                    },
                    Err(answer) => Self::NoRequest(answer),
                }
            }
            message => match serde_json::from_value(message) {
                Ok(Frame::Req { id, method, params }) => Self::One {
                    form: AnswerForm::Frame(id),
                    method,
                    params,
                },
                Ok(_) => Self::NoFrame("only `req` frames are read here".to_owned()),
                Err(error) => Self::NoFrame(format!("not a frame: {error}")),
            },
        }
    }

    fn batch(all: Vec<Value>) -> Self {
        let refuse = |why: &str| Self::NoRequest(json_rpc::invalid(Value::Null, why));
        match all.len() {
            0 => refuse("a batch has requests"),
            1..=REQUESTS_MAX => Self::Batch(all.into_iter().map(json_rpc::call_of).collect()),
            _ => refuse(&format!("a batch may have {REQUESTS_MAX} requests")),
        }
    }

    /// The dialect of the message, where that can be told.
    pub fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::One { form, .. } => Some(form.dialect()),
            Self::Batch(_) | Self::NoRequest(_) => Some(Dialect::JsonRpc),
            Self::NoFrame(_) => None,
        }
    }
}
