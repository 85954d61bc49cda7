//! The body of a client's request on its way to the upstream. It can be offered to another attempt
//! as long as no byte of it was taken.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::exchange_end::ExchangeEnd;
use super::lazy_timer::LazyTimer;
use super::log_throttle::LogThrottle;
use super::progress::{ConnectionProgress, InFlight};
use super::stats::{Limit, Stats};
use super::{forwarded, headers};
use crate::config::LimitsSection;
use crate::os::mutex::lock;

/// How long the rest of a body is read and thrown away after a response that did not want it, so
/// that the client can read the response instead of a reset, and use its connection again where the
/// rest is short. nginx's lingering_time is 30 s.
const DISCARD: Duration = Duration::from_secs(30);

/// How long such a rest may bring nothing. nginx's lingering_timeout is 5 s.
const DISCARD_SILENCE: Duration = Duration::from_secs(5);

/// The body of a client's request, shared between attempts.
#[derive(Clone, Debug)]
pub struct ClientBody {
    shared: Arc<ClientBodyState>,
}

/// The connection that a body comes from, and where its stalls are counted and logged.
#[derive(Debug)]
struct BodyOwner {
    progress: Arc<ConnectionProgress>,
    stats: Arc<Stats>,
    cuts: Arc<LogThrottle>,
}

#[derive(Debug)]
struct ClientBodyState {
    flow: Mutex<Flow>,
    /// Told when the body was read to its end; none where there is nothing to read.
    connection: Option<BodyOwner>,
    limits: BodyLimits,
    /// The client sends it only after `100 Continue`, which it gets when the body is first polled.
    expects_continue: bool,
    taken: AtomicBool,
    ended: AtomicBool,
    too_large: AtomicBool,
    stalled: AtomicBool,
    /// Whether it is not what its coding says.
    invalid: AtomicBool,
    /// Whether the client left in the middle of it.
    broken_off: AtomicBool,
    /// Whether its trailers may say who the request comes from.
    claims: AtomicBool,
}

/// What a body may be.
#[derive(Clone, Copy, Debug)]
struct BodyLimits {
    /// `limits.body`; `u64::MAX` without limit.
    size: u64,
    /// `limits.body_idle`
    idle: Duration,
}

/// The body, and what is known of its way so far.
#[derive(Debug)]
struct Flow {
    /// None only while it is dropped.
    body: Option<Incoming>,
    /// Bytes that came.
    size: u64,
    /// Since when the next bytes are awaited, while they are.
    waits: Option<Instant>,
    timer: LazyTimer,
    /// When the last of it came, where it was awaited at all.
    ended: Option<Instant>,
}

impl ClientBody {
    /// The body of a request, within `limits`. `expects_continue` when the client sent
    /// `Expect: 100-continue`.
    pub fn new(
        body: Incoming,
        limits: &LimitsSection,
        expects_continue: bool,
        (stats, cuts): (&Arc<Stats>, &Arc<LogThrottle>),
        in_flight: &InFlight,
    ) -> Self {
        let ended = body.is_end_stream();
        let connection = (in_flight.progress())
            .filter(|_| !ended)
            .map(|progress| BodyOwner {
                progress: Arc::clone(progress),
                stats: Arc::clone(stats),
                cuts: Arc::clone(cuts),
            });
        let limits = BodyLimits {
            size: if limits.body == 0 {
                u64::MAX
            } else {
                limits.body
            },
            idle: limits.body_idle.0,
        };
        let flow = Flow {
            body: Some(body),
            size: 0,
            waits: None,
            timer: LazyTimer::default(),
            ended: None,
        };
        let shared = ClientBodyState {
            flow: Mutex::new(flow),
            connection,
            limits,
            expects_continue,
            taken: AtomicBool::new(false),
            ended: AtomicBool::new(ended),
            too_large: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            invalid: AtomicBool::new(false),
            broken_off: AtomicBool::new(false),
            claims: AtomicBool::new(true),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// From here on its trailers do not say who the request comes from.
    pub fn drop_claims(&self) {
        self.shared.claims.store(false, Ordering::Relaxed);
    }

    /// Whether a byte of it was taken: then it cannot be offered again.
    pub fn taken(&self) -> bool {
        self.shared.taken.load(Ordering::Acquire)
    }

    /// Whether there is nothing (more) to read.
    pub fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// When the last of it came, if that was awaited.
    pub fn ended_at(&self) -> Option<Instant> {
        self.flow().ended
    }

    /// Whether it was longer than the limit.
    pub fn too_large(&self) -> bool {
        self.shared.too_large.load(Ordering::Acquire)
    }

    /// Whether nothing came of it for too long.
    pub fn stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::Acquire)
    }

    /// Whether its chunks or trailers are not valid.
    pub fn invalid(&self) -> bool {
        self.shared.invalid.load(Ordering::Acquire)
    }

    /// Whether the client left in the middle of it.
    pub fn broken_off(&self) -> bool {
        self.shared.broken_off.load(Ordering::Acquire)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &*self.shared;
        let mut flow = self.flow();
        let Some(body) = flow.body.as_mut() else {
            return Poll::Ready(None);
        };
        let Poll::Ready(mut frame) = Pin::new(&mut *body).poll_frame(cx) else {
            return shared.poll_stalled(&mut flow, cx).map(Some);
        };
        let ends = body.is_end_stream();
        flow.waits = None;
        if let Some(trailers) = frame
            .as_mut()
            .and_then(|frame| frame.as_mut().ok()?.trailers_mut())
        {
            headers::trailers(trailers);
            if !shared.claims.load(Ordering::Relaxed) {
                forwarded::drop_claims(trailers);
            }
        }
        if frame.is_some() {
            shared.taken.store(true, Ordering::Release);
        }
        if let Some(Ok(frame)) = &frame {
            flow.size += frame.data_ref().map_or(0, |data| data.len() as u64);
            if flow.size > shared.limits.size {
                shared.too_large.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
        }
        let failed = matches!(frame, Some(Err(_)));
        if let Some(Err(error)) = &frame {
            let fault = match is_invalid(error) {
                true => &shared.invalid,
                false => &shared.broken_off,
            };
            fault.store(true, Ordering::Release);
        }
        if failed || frame.is_none() || ends {
            shared.ended.store(true, Ordering::Release);
            flow.ended = Some(Instant::now());
        }
        if !failed && (frame.is_none() || ends) {
            shared.read_to_its_end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Client)))
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.shared.flow)
    }
}

impl ClientBodyState {
    /// Waits for a client that sends nothing, as long as it may.
    fn poll_stalled<T>(&self, flow: &mut Flow, cx: &mut Context<'_>) -> Poll<Result<T, BodyError>> {
        let limit = self.limits.idle;
        if limit.is_zero() {
            return Poll::Pending;
        }
        let since = *flow.waits.get_or_insert_with(Instant::now);
        flow.timer.poll_at(since + limit, cx).map(|()| {
            if !self.stalled.swap(true, Ordering::AcqRel)
                && let Some(owner) = &self.connection
            {
                owner.progress.ends(ExchangeEnd::TimedOut);
                owner.stats.expired(Limit::Body);
                owner.cuts.log(format_args!(
                    "a client sent nothing of its request's body for {limit:?} (limits.body_idle)"
                ));
            }
            Err(BodyError::Stalled)
        })
    }

    fn read_to_its_end(&self) {
        if let Some(owner) = &self.connection {
            owner.progress.body_ended();
        }
    }
}

impl Drop for ClientBodyState {
    /// No attempt wants the body any more: reads and throws away what the client still sends, so that
    /// the client can read the response. When this ends before the body, the connection closes.
    fn drop(&mut self) {
        let wanted = !*self.ended.get_mut()
            && !*self.stalled.get_mut()
            && (!self.expects_continue || *self.taken.get_mut());
        let body = self
            .flow
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .body
            .take()
            .filter(|_| wanted);
        let connection = self.connection.take();
        if let (Some(body), Some(owner), Ok(runtime)) =
            (body, connection, tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                if discard(body).await {
                    owner.progress.body_ended();
                }
            });
        }
    }
}

/// Reads a body and throws it away. Returns whether it came to its end.
async fn discard(mut body: Incoming) -> bool {
    let last = Instant::now() + DISCARD;
    while !body.is_end_stream() {
        let until = last.min(Instant::now() + DISCARD_SILENCE);
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(_))) => {}
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    true
}

/// Whether a body ended early because of what was sent, not because nothing more came.
fn is_invalid(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}

/// Why a client's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client disconnected or violated the protocol.
    #[error("the client's body broke off: {0}")]
    Client(#[source] hyper::Error),
    /// Longer than `limits.body`.
    #[error("the request's body is longer than limits.body allows")]
    TooLarge,
    /// Nothing came for `limits.body_idle`.
    #[error("nothing came of the request's body for limits.body_idle")]
    Stalled,
}

/// What one attempt sends: the client's body, or nothing.
#[derive(Debug)]
pub struct RequestBody(pub Option<ClientBody>);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &self.0 {
            Some(body) => body.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(ClientBody::ended)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self
            .0
            .as_ref()
            .and_then(|body| body.flow().body.as_ref().map(Body::size_hint));
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}
