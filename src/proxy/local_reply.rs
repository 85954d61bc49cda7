//! Local replies: the gateway's own responses, each with its cause in plain words.

use std::time::Instant;

use http::{HeaderValue, Response, StatusCode, header};

use super::Refusal;
use super::response_body::ResponseBody;

/// Seconds until a client should try again: about what a restart takes.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

pub fn text(status: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    let mut text: String = text.into();
    text.push('\n');
    let mut response = Response::new(ResponseBody::local(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<ResponseBody> {
    let mut response = text(status, value.to_string());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// 503 with Retry-After.
pub fn unavailable(why: &str) -> Response<ResponseBody> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, format!("gateway: {why}"));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// 503 for longer than a restart takes, with the time until the next try as Retry-After.
pub fn refused(refusal: &Refusal) -> Response<ResponseBody> {
    let mut response = unavailable(&refusal.why);
    response.headers_mut().insert(
        header::RETRY_AFTER,
        HeaderValue::from(refusal.retry_after(Instant::now())),
    );
    response
}

/// 502: the upstream failed, and trying again could do the work twice.
pub fn bad_gateway(why: &str) -> Response<ResponseBody> {
    text(StatusCode::BAD_GATEWAY, format!("gateway: {why}"))
}
