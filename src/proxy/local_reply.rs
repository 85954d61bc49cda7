//! The gateway's own responses, each with its cause in plain words.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderValue, Response, StatusCode, header};
use tracing::warn;

use super::response_body::ResponseBody;
use crate::os::mutex::lock;

/// Seconds until a client should try again: about what a restart takes.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// At most one line in this time: thousands of requests may fail in a second, all for the same
/// reason.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Why the gateway answers a request itself, though it is meant for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotForwarded {
    /// The request is not valid HTTP.
    Invalid(&'static str),
    TransferCoding,
    /// The body is longer than this many bytes.
    TooLarge(u64),
    NoRoute,
    /// It waited for `hold.time`, or too many requests wait already; the text is the reason.
    Unavailable(String),
    /// No request is let in for now.
    Refused(Arc<Refusal>),
    /// The upstream failed, and trying again could do the work twice.
    BadGateway(String),
}

impl NotForwarded {
    pub fn reply(&self) -> Response<ResponseBody> {
        let unavailable = |why: &str, refusal| {
            let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, why);
            set_retry_after(&mut response, refusal);
            response
        };
        match self {
            Self::Invalid(why) => failure(StatusCode::BAD_REQUEST, why),
            Self::TransferCoding => failure(
                StatusCode::NOT_IMPLEMENTED,
                "no transfer coding but chunked is understood",
            ),
            Self::TooLarge(limit) => failure(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a request's body may have {limit} bytes here"),
            ),
            Self::NoRoute => failure(StatusCode::NOT_FOUND, "no route leads here"),
            Self::Unavailable(why) => unavailable(why, None),
            Self::Refused(refusal) => unavailable(&refusal.why, Some(refusal)),
            Self::BadGateway(why) => failure(StatusCode::BAD_GATEWAY, why),
        }
    }
}

/// Why the gateway cannot serve, for longer than a restart takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as a sentence.
    pub why: String,
    /// When sidecars are started or tried again.
    pub until: Instant,
}

impl Refusal {
    /// Retry-After, in whole seconds (RFC 9110, 10.2.3): at least one, and never less than the time
    /// that is left.
    fn retry_after(&self, now: Instant) -> u64 {
        let left = self.until.saturating_duration_since(now);
        (left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1)
    }
}

/// Says when to try again: after the time of a refusal, else after about the time of a restart.
pub fn set_retry_after(response: &mut Response<ResponseBody>, refusal: Option<&Refusal>) {
    let seconds = refusal.map_or(RETRY_AFTER, |refusal| {
        refusal.retry_after(Instant::now()).into()
    });
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
}

pub fn failure(status: StatusCode, why: &str) -> Response<ResponseBody> {
    typed(
        status,
        "text/plain; charset=utf-8",
        format!("gateway: {why}\n"),
    )
}

pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<ResponseBody> {
    typed(status, "application/json", format!("{value}\n"))
}

pub fn typed(
    status: StatusCode,
    content_type: &'static str,
    text: String,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::local(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Logs upstream errors, at most one in [`LOG_PAUSE`].
#[derive(Debug, Default)]
pub struct ErrorLog(Mutex<LogThrottle>);

#[derive(Debug, Default)]
struct LogThrottle {
    logged: Option<Instant>,
    suppressed: u64,
}

impl ErrorLog {
    /// Logs why a request was answered 502, unless another was logged just now.
    pub fn bad_gateway(&self, why: &str) {
        let mut state = lock(&self.0);
        if let Some(logged) = state.logged
            && logged.elapsed() < LOG_PAUSE
        {
            state.suppressed += 1;
            return;
        }
        let more = match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            suppressed => format!(" (and {suppressed} more since the last line like this)"),
        };
        state.logged = Some(Instant::now());
        warn!("[gateway] answered 502: {why}{more}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_never_too_early() {
        let now = Instant::now();
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (120_000, 120)] {
            let refusal = Refusal {
                why: String::new(),
                until: now + Duration::from_millis(millis),
            };
            assert_eq!(refusal.retry_after(now), seconds, "{millis}");
        }
        let past = Refusal {
            why: String::new(),
            until: now,
        };
        assert_eq!(past.retry_after(now + Duration::from_secs(9)), 1);
    }
}
