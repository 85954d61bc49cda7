//! What this process is told of its own requests through the front door ([`Peer::Passage`]), and no
//! client is: which server answered, or why none did.
//!
//! [`Peer::Passage`]: super::forwarded::Peer::Passage

use http::{HeaderValue, Response};

use super::local_reply::NotForwarded;
use super::response_body::ResponseBody;

/// Names the sidecar or the upstream that answered; not there in a reply of the gateway's own.
pub const ANSWERED_BY: &str = "x-gateway-answered-by";

/// Why there is a reply of the gateway's own.
pub const CAUSE: &str = "x-gateway-cause";

/// Says in a reply why no server answered.
pub fn tell_cause(reply: &mut Response<ResponseBody>, error: &NotForwarded) {
    let cause = error
        .cause()
        .map(str::as_bytes)
        .map(HeaderValue::from_bytes);
    if let Some(Ok(cause)) = cause {
        reply.headers_mut().insert(CAUSE, cause);
    }
}

/// Says in a response which server answered, whatever the server says of that.
pub fn tell_server(response: &mut Response<ResponseBody>) {
    let server = response.body().server().map(HeaderValue::from_str);
    let headers = response.headers_mut();
    match server {
        Some(Ok(server)) => {
            headers.insert(ANSWERED_BY, server);
            headers.remove(CAUSE);
        }
        _ => drop(headers.remove(ANSWERED_BY)),
    }
}
