//! Answers of our own, each with its cause in plain words.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;
use super::client_io::Phase;
use super::stats::{Open, Stats};

/// Seconds that a client is told to wait before it asks again: about what a restart takes.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// One request on its way to its answer; dropped when the last byte is handed over or the client is gone.
#[derive(Debug)]
pub struct Answering {
    phase: Option<Arc<Phase>>,
    _open: Open,
}

impl Answering {
    /// A request whose head just came in.
    pub fn begin(phase: &Arc<Phase>, stats: &Arc<Stats>) -> Self {
        phase.busy();
        Self { phase: Some(Arc::clone(phase)), _open: Open::new(stats, |stats| &stats.requests) }
    }
}

impl Answering {
    /// The connection became a tunnel: no limit on silence applies to it any more.
    pub fn upgraded(mut self) {
        self.phase = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.idle();
        }
    }
}

/// A short text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    let mut text: String = text.into();
    text.push('\n');
    let mut response = Response::new(ResponseBody::own(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<ResponseBody> {
    let mut response = text(status, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 503 with Retry-After.
pub fn unavailable(why: &str) -> Response<ResponseBody> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, format!("gateway: {why}"));
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// 502: the upstream failed, and trying again could do the work twice.
pub fn bad_gateway(why: &str) -> Response<ResponseBody> {
    text(StatusCode::BAD_GATEWAY, format!("gateway: {why}"))
}
