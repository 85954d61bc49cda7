//! The gateway's own responses. Whoever asks reads what happened in general: addresses, commands and
//! causes are for who runs it, in the log, in `gatewayctl status` and `gatewayctl why`.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::exchange_end::ExchangeEnd;
use super::log_throttle::LogThrottle;
use super::request_head::HeadError;
use super::response_body::ResponseBody;

/// Seconds until a client should try again: about what a restart takes.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// What a client reads whose body has bad chunks or trailers.
const BODY_INVALID: &str = "the request's body is not what its coding says";

/// Why the gateway answers a request itself, though it is meant for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotForwarded {
    /// The request is not valid HTTP.
    Invalid(&'static str),
    /// Its head is refused; the connection closes, because what follows cannot be understood.
    Head(HeadError),
    /// The body is longer than this many bytes.
    TooLarge(u64),
    NoRoute,
    /// It was forwarded here already; the text says by which route.
    Loop(String),
    /// The client's address has as many requests in flight as it may.
    TooMany,
    /// It waited for `hold.time`, or too many requests wait already; the text is the reason.
    Unavailable(String),
    /// No request is let in for now.
    Refused(Arc<Refusal>),
    /// All connections are taken; the text says by how many clients.
    Crowded(String),
    /// The upstream failed, and trying again could do the work twice.
    BadGateway(String),
    /// Nothing came of the client's body for `limits.body_idle`.
    BodyStalled,
    /// The client's body is not what its coding says.
    BodyInvalid,
    /// The client left in the middle of its body: hardly anybody reads the answer.
    BodyBrokenOff,
    /// The upstream did not answer within `limits.answer`; the text says which.
    AnswerTimeout(String),
}

impl NotForwarded {
    /// The response, in the form that the client wants.
    pub fn reply(&self, form: Form) -> Response<ResponseBody> {
        match self {
            Self::Invalid(why) => failure(StatusCode::BAD_REQUEST, why, form),
            Self::Head(error) => failure(error.status, error.why, form),
            Self::TooLarge(limit) => failure(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a request's body may have {limit} bytes here"),
                form,
            ),
            Self::NoRoute => failure(StatusCode::NOT_FOUND, "no route leads here", form),
            Self::Loop(_) => failure(
                StatusCode::LOOP_DETECTED,
                "the request came back to where it had been",
                form,
            ),
            Self::TooMany => {
                let why = "too many requests from this address; try again soon";
                let mut response = failure(StatusCode::TOO_MANY_REQUESTS, why, form);
                set_retry_after(&mut response, None);
                response
            }
            Self::Unavailable(_) | Self::Refused(_) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let mut response = failure(
                    status,
                    "the service is not available now; try again soon",
                    form,
                );
                set_retry_after(&mut response, self.refusal());
                response
            }
            Self::Crowded(_) => {
                let why = "too many clients are connected now; try again soon";
                let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, why, form);
                set_retry_after(&mut response, None);
                closing(response)
            }
            Self::BadGateway(_) => failure(
                StatusCode::BAD_GATEWAY,
                "the server behind gave no answer",
                form,
            ),
            Self::BodyStalled => {
                let why = "nothing came of the request's body for too long";
                closing(failure(StatusCode::REQUEST_TIMEOUT, why, form))
            }
            Self::BodyInvalid => closing(failure(StatusCode::BAD_REQUEST, BODY_INVALID, form)),
            Self::BodyBrokenOff => {
                let why = "the request's body broke off";
                closing(failure(StatusCode::BAD_REQUEST, why, form))
            }
            Self::AnswerTimeout(_) => failure(
                StatusCode::GATEWAY_TIMEOUT,
                "the server behind did not answer in time",
                form,
            ),
        }
    }

    /// What happened, for who runs the gateway; none where the reply says all.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Unavailable(why)
            | Self::Crowded(why)
            | Self::BadGateway(why)
            | Self::Loop(why)
            | Self::AnswerTimeout(why) => Some(why),
            Self::Refused(refusal) => Some(&refusal.reason.why),
            _ => None,
        }
    }

    /// How a request ends with this reply.
    pub fn end(&self) -> ExchangeEnd {
        match self {
            Self::BadGateway(_) => ExchangeEnd::Failed,
            Self::BodyStalled | Self::AnswerTimeout(_) => ExchangeEnd::TimedOut,
            _ => ExchangeEnd::Refused,
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// In what form a client reads a reply of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A person with a browser.
    Html,
    Json,
    Text,
}

impl Form {
    /// The form that a client wants, by its Accept field: of those that it likes best, the first.
    pub fn wanted(accept: Option<&HeaderValue>) -> Self {
        let ranges = accept.and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let mut best = (Self::Text, 0.0);
        for range in ranges.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or("") {
                range if range.eq_ignore_ascii_case("text/html") => Self::Html,
                range if range.eq_ignore_ascii_case("application/json") => Self::Json,
                range if range.eq_ignore_ascii_case("text/plain") => Self::Text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            let quality = quality.unwrap_or(1.0);
            if quality > best.1 {
                best = (form, quality);
            }
        }
        best.0
    }

    /// The form that the sender of these headers wants.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::wanted(headers.get(header::ACCEPT))
    }
}

/// Why not all is well: in a word for everybody, and in full for who runs the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub word: &'static str,
    pub why: String,
}

impl Reason {
    /// A word that says all.
    pub fn new(word: &'static str) -> Self {
        Self {
            word,
            why: word.to_owned(),
        }
    }
}

/// Why the gateway cannot serve, for longer than a restart takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
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

/// Says that the connection closes after this.
pub fn closing(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Says when to try again: after the time of a refusal, else after about the time of a restart.
pub fn set_retry_after(response: &mut Response<ResponseBody>, refusal: Option<&Refusal>) {
    let seconds = refusal.map_or(RETRY_AFTER, |refusal| {
        refusal.retry_after(Instant::now()).into()
    });
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
}

/// A reply that says `why` something failed. No text of a client may be in it.
pub fn failure(status: StatusCode, why: &str, form: Form) -> Response<ResponseBody> {
    let mut response = message(status, why, form);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A reply that says `text`. No text of a client may be in it.
pub fn message(status: StatusCode, text: &str, form: Form) -> Response<ResponseBody> {
    match form {
        Form::Text => typed(
            status,
            "text/plain; charset=utf-8",
            format!("gateway: {text}\n"),
        ),
        Form::Json => json(
            status,
            &serde_json::json!({"status": status.as_u16(), "message": text}),
        ),
        Form::Html => {
            let title = status.canonical_reason().unwrap_or_default();
            let number = status.as_u16();
            let page = format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{number} {title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n"
            );
            typed(status, "text/html; charset=utf-8", page)
        }
    }
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

/// Logs why requests were not answered by a server, throttled for each status.
#[derive(Debug, Default)]
pub struct ErrorLog {
    bad_gateway: LogThrottle,
    unavailable: LogThrottle,
    timed_out: LogThrottle,
    crowded: LogThrottle,
    refused: LogThrottle,
    looped: LogThrottle,
}

impl ErrorLog {
    /// Logs what the client is not told. A refusal was logged when it began.
    pub fn note(&self, error: &NotForwarded, id: Option<&HeaderValue>) {
        let (throttle, status, why) = match error {
            NotForwarded::BadGateway(why) => (&self.bad_gateway, 502, why),
            NotForwarded::Unavailable(why) => (&self.unavailable, 503, why),
            NotForwarded::AnswerTimeout(why) => (&self.timed_out, 504, why),
            NotForwarded::Crowded(why) => (&self.crowded, 503, why),
            NotForwarded::Invalid(why) => {
                return self.note_refused(StatusCode::BAD_REQUEST, why, id);
            }
            NotForwarded::TooLarge(limit) => {
                let why = format!("a body is longer than {limit} bytes (limits.body)");
                return self.note_refused(StatusCode::PAYLOAD_TOO_LARGE, &why, id);
            }
            NotForwarded::BodyInvalid => {
                return self.note_refused(StatusCode::BAD_REQUEST, BODY_INVALID, id);
            }
            NotForwarded::Head(HeadError {
                status,
                why,
                request,
            }) => return self.note_refused(*status, &format!("{why}: {request}"), id),
            NotForwarded::Loop(why) => (&self.looped, 508, why),
            _ => return,
        };
        throttle.log(format_args!("answered {status}: {why}{}", OfRequest(id)));
    }

    /// Logs why a request was refused.
    pub fn note_refused(&self, status: StatusCode, why: &str, id: Option<&HeaderValue>) {
        let (status, id) = (status.as_u16(), OfRequest(id));
        self.refused
            .log(format_args!("refused with {status}: {why}{id}"));
    }
}

/// Which request a line is about, where it has an id.
struct OfRequest<'a>(Option<&'a HeaderValue>);

impl std::fmt::Display for OfRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An id is text.
        match self.0.and_then(|id| id.to_str().ok()) {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retry_after_is_never_too_early() {
        let now = Instant::now();
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (120_000, 120)] {
            let refusal = Refusal {
                reason: Reason::new("throttled"),
                until: now + Duration::from_millis(millis),
            };
            assert_eq!(refusal.retry_after(now), seconds, "{millis}");
        }
        let past = Refusal {
            reason: Reason::new("throttled"),
            until: now,
        };
        assert_eq!(past.retry_after(now + Duration::from_secs(9)), 1);
    }

    #[test]
    fn a_browser_gets_a_page_and_a_program_what_it_asks_for() {
        for (accept, form) in [
            ("", Form::Text),
            ("*/*", Form::Text),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Form::Html,
            ),
            ("application/json", Form::Json),
            (
                "Application/JSON; charset=utf-8, text/plain, */*",
                Form::Json,
            ),
            ("text/html;q=0.5, application/json;q=0.9", Form::Json),
            ("text/html;q=0", Form::Text),
            ("text/html;q=many", Form::Html),
        ] {
            let value = HeaderValue::from_static(accept);
            assert_eq!(Form::wanted(Some(&value)), form, "{accept}");
        }
        assert_eq!(Form::wanted(None), Form::Text);
    }

    #[test]
    fn what_a_server_said_or_where_it_is_is_not_told_to_everybody() {
        let secret = "10.0.0.9:31763 broke off".to_owned();
        let reason = Reason {
            word: "throttled",
            why: secret.clone(),
        };
        let until = Instant::now();
        for error in [
            NotForwarded::BadGateway(secret.clone()),
            NotForwarded::Unavailable(secret.clone()),
            NotForwarded::Loop(secret.clone()),
            NotForwarded::Refused(Arc::new(Refusal { reason, until })),
        ] {
            for form in [Form::Html, Form::Json, Form::Text] {
                let shown = format!("{:?}", error.reply(form));
                assert!(!shown.contains("31763"), "{shown}");
            }
        }
    }
}
