//! Bodies on their way through: a client's body that can be offered again as long as nobody took a byte of it, and an
//! answer that holds its ticket until the last byte.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::answer::Answering;
use super::backend::Ticket;
use super::upstream::{Connection, Upstream};

/// How long what a client still sends is read and thrown away after an answer that did not want it, so that the client
/// lives to read the answer instead of a reset. nginx's lingering_time is 30 s, its lingering_timeout 5 s.
const LINGER: Duration = Duration::from_secs(30);

/// The body of a client's request, shared between attempts.
#[derive(Clone, Debug)]
pub struct ClientBody {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None only when it is dropped.
    body: Mutex<Option<Incoming>>,
    /// The client sends it only when it is told to: when it is first asked for.
    awaits_word: bool,
    taken: AtomicBool,
    ended: AtomicBool,
    too_large: AtomicBool,
    /// Bytes that may still come; `u64::MAX` without limit.
    left: Mutex<u64>,
}

impl ClientBody {
    /// Wraps a body of at most `limit` bytes; 0 means any. `awaits_word` when the client expects 100-continue.
    pub fn new(body: Incoming, limit: u64, awaits_word: bool) -> Self {
        let ended = body.is_end_stream();
        let left = if limit == 0 { u64::MAX } else { limit };
        let shared = Shared {
            body: Mutex::new(Some(body)),
            awaits_word,
            taken: AtomicBool::new(false),
            ended: AtomicBool::new(ended),
            too_large: AtomicBool::new(false),
            left: Mutex::new(left),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether a byte of it was taken: then it cannot be offered again.
    pub fn taken(&self) -> bool {
        self.shared.taken.load(Ordering::Acquire)
    }

    /// Whether there is nothing (more) to read.
    pub fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Whether it was longer than the limit.
    pub fn too_large(&self) -> bool {
        self.shared.too_large.load(Ordering::Acquire)
    }

    /// The body for one attempt.
    pub fn offer(&self) -> RequestBody {
        RequestBody(Some(self.clone()))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(frame) = self.body().as_mut().map(|body| Pin::new(body).poll_frame(cx)) else { return Poll::Ready(None) };
        match ready!(frame) {
            Some(Ok(frame)) => {
                self.shared.taken.store(true, Ordering::Release);
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
                if length > *left {
                    self.shared.too_large.store(true, Ordering::Release);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                if *left != u64::MAX {
                    *left -= length;
                }
                if self.body().as_ref().is_none_or(Incoming::is_end_stream) {
                    self.shared.ended.store(true, Ordering::Release);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.shared.ended.store(true, Ordering::Release);
                self.shared.taken.store(true, Ordering::Release);
                Poll::Ready(Some(Err(BodyError::Client(error))))
            }
            None => {
                self.shared.ended.store(true, Ordering::Release);
                Poll::Ready(None)
            }
        }
    }

    fn body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.shared.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// Nobody wants it any more: reads and throws away what the client still sends, so that it lives to read the answer.
    fn drop(&mut self) {
        let wanted = !*self.ended.get_mut() && (!self.awaits_word || *self.taken.get_mut());
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner).take().filter(|_| wanted);
        if let (Some(mut body), Ok(runtime)) = (body, tokio::runtime::Handle::try_current()) {
            let drain = async move { while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {} };
            runtime.spawn(tokio::time::timeout(LINGER, drain));
        }
    }
}

/// Why a client's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client went away or broke the protocol.
    #[error("the client's body broke off: {0}")]
    Client(#[source] hyper::Error),
    /// Longer than `limits.body`.
    #[error("the request's body is longer than limits.body allows")]
    TooLarge,
}

/// What an upstream connection sends: the client's body, or nothing.
#[derive(Debug)]
pub struct RequestBody(Option<ClientBody>);

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self(None)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &self.0 {
            Some(body) => body.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(ClientBody::ended)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.0.as_ref().and_then(|body| body.body().as_ref().map(Body::size_hint));
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

/// The body of an answer to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// An answer of our own.
    Own(Option<Bytes>, #[allow(dead_code, reason = "held until the answer is written")] Option<Answering>),
    /// An upstream's answer.
    Proxied(Box<Proxied>),
}

/// An upstream's answer with everything that ends when it ends.
#[derive(Debug)]
pub struct Proxied {
    body: Incoming,
    /// The upstream connection, to be kept when the answer is whole.
    lease: Option<Lease>,
    _ticket: Ticket,
    _answering: Answering,
}

/// An upstream connection on loan.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub connection: Connection,
    /// Where it goes back to.
    pub upstream: Arc<Upstream>,
    /// The request's body: a connection goes back only when all of it was sent.
    pub sent: ClientBody,
}

impl Lease {
    fn give_back(self) {
        if self.sent.ended() && !self.connection.broken() {
            self.upstream.keep(self.connection);
        }
    }
}

impl ResponseBody {
    /// A text of our own.
    pub fn own(text: impl Into<Bytes>) -> Self {
        Self::Own(Some(text.into()), None)
    }

    /// An upstream's answer; `lease` when its connection can be used again.
    pub fn proxied(body: Incoming, lease: Option<Lease>, ticket: Ticket, answering: Answering) -> Self {
        let mut proxied = Proxied { body, lease, _ticket: ticket, _answering: answering };
        if proxied.body.is_end_stream() {
            proxied.finish();
        }
        Self::Proxied(Box::new(proxied))
    }

    /// Ties the end of the answer to the connection's book-keeping.
    pub fn answering(self, answering: Answering) -> Self {
        match self {
            Self::Own(text, _) => Self::Own(text, Some(answering)),
            proxied => proxied,
        }
    }
}

impl Proxied {
    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own(text, _) => Poll::Ready(text.take().filter(|text| !text.is_empty()).map(|text| Ok(Frame::data(text)))),
            Self::Proxied(proxied) => {
                let frame = ready!(Pin::new(&mut proxied.body).poll_frame(cx));
                if frame.is_none() || proxied.body.is_end_stream() {
                    proxied.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text, _) => text.as_ref().is_none_or(Bytes::is_empty),
            Self::Proxied(proxied) => proxied.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Proxied(proxied) => proxied.body.size_hint(),
        }
    }
}
