//! The body of a response: the gateway's own, or an upstream's that holds its ticket until the last
//! byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::exchange_end::ExchangeEnd;
use super::headers;
use super::progress::InFlight;
use super::sessions::SessionTap;
use super::streams::{Stream, StreamStep};
use super::ticket::Ticket;
use super::upstream::UpstreamLease;
use super::upstream_response::UpstreamResponse;

/// The body of a response to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// A reply of the gateway's own.
    Local(Full<Bytes>, Option<InFlight>),
    Proxied(Box<Proxied>),
}

/// An upstream's response with everything that ends when it ends.
#[derive(Debug)]
pub struct Proxied {
    body: Incoming,
    /// The upstream connection, to be kept when the response is complete.
    lease: Option<UpstreamLease>,
    ticket: Ticket,
    in_flight: InFlight,
    /// Where its length is not announced.
    stream: Option<Stream>,
    /// Looks for a session in its beginning.
    session: Option<SessionTap>,
}

/// Why the body of a response breaks off.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    #[error("its server is replaced, and new requests wait for that")]
    BrokenOff,
}

impl ResponseBody {
    /// A text of the gateway's own.
    pub fn local(text: impl Into<Bytes>) -> Self {
        Self::Local(Full::new(text.into()), None)
    }

    /// The body of an upstream's response.
    pub fn proxied(response: UpstreamResponse, in_flight: InFlight) -> Response<Self> {
        let UpstreamResponse {
            response,
            ticket,
            lease,
            borders,
            session,
        } = response;
        response.map(|body| {
            let mut proxied = Proxied {
                body,
                lease,
                ticket,
                in_flight,
                stream: borders.map(Stream::new),
                session,
            };
            if proxied.body.is_end_stream() {
                proxied.finish();
            }
            Self::Proxied(Box::new(proxied))
        })
    }

    /// The server that it comes from; none of a reply of the gateway's own.
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Local(..) => None,
            Self::Proxied(proxied) => Some(proxied.ticket.backend()),
        }
    }

    /// A reply of the gateway's own to a request, which ends so and is in flight until its last byte.
    pub fn of_request(
        reply: Response<Self>,
        mut in_flight: InFlight,
        end: ExchangeEnd,
    ) -> Response<Self> {
        in_flight.record.answered(reply.status());
        in_flight.record.ends(end);
        reply.map(|body| match body {
            Self::Local(text, _) => Self::Local(text, Some(in_flight)),
            proxied @ Self::Proxied(_) => proxied,
        })
    }
}

impl Proxied {
    fn finish(&mut self) {
        self.in_flight.record.ends(ExchangeEnd::Done);
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The gateway ends it, whatever its server still has.
    fn end_early(&mut self, end: ExchangeEnd) {
        self.ticket.ends_early();
        self.in_flight.record.ends(end);
        // Dropped: the rest of the answer is on its connection.
        self.lease = None;
    }

    /// Learns the session that the answer begins, before its client does.
    fn look_for_session(&mut self, frame: &Frame<Bytes>) {
        let (Some(session), Some(data)) = (&mut self.session, frame.data_ref()) else {
            return;
        };
        if !session.see(data) {
            self.session = None;
        }
    }

    /// Whether the gateway ended it, and the answer is complete.
    fn is_complete(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_complete)
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let Some(stream) = &mut self.stream else {
            return Pin::new(&mut self.body)
                .poll_frame(cx)
                .map_err(ResponseBodyError::Upstream);
        };
        let frame = match stream.is_over() {
            false => Pin::new(&mut self.body).poll_frame(cx)?,
            true => Poll::Pending,
        };
        let end = self.ticket.streams();
        let step = match frame.map(|frame| frame.map(Frame::into_data)) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(trailers))) => StreamStep::Frame(trailers),
            Poll::Ready(Some(Ok(data))) => stream.data(data, end),
            Poll::Pending => {
                let progress = self.in_flight.progress();
                let written = progress.is_none_or(|progress| progress.may_interrupt());
                stream.wait(end, written, cx)
            }
        };
        match step {
            StreamStep::Frame(frame) => Poll::Ready(Some(Ok(frame))),
            StreamStep::Wait => Poll::Pending,
            StreamStep::End => Poll::Ready(None),
            StreamStep::BreakOff => Poll::Ready(Some(Err(ResponseBodyError::BrokenOff))),
        }
    }
}

/// The bytes of a frame that are body.
fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match &mut *self {
            Self::Local(text, in_flight) => {
                let frame = Pin::new(text).poll_frame(cx);
                if let (Poll::Ready(Some(Ok(frame))), Some(in_flight)) = (&frame, in_flight) {
                    in_flight.record.handed_over(length(frame));
                }
                frame.map_err(|never| match never {})
            }
            Self::Proxied(proxied) => {
                if proxied.is_complete() {
                    return Poll::Ready(None);
                }
                let mut frame = ready!(proxied.poll_frame(cx));
                if let Some(trailers) = frame
                    .as_mut()
                    .and_then(|frame| frame.as_mut().ok()?.trailers_mut())
                {
                    headers::trailers(trailers);
                }
                if let Some(Ok(frame)) = &frame {
                    proxied.look_for_session(frame);
                }
                let record = &mut proxied.in_flight.record;
                match &frame {
                    Some(Ok(frame)) => record.handed_over(length(frame)),
                    Some(Err(ResponseBodyError::Upstream(_))) => record.ends(ExchangeEnd::Failed),
                    Some(Err(ResponseBodyError::BrokenOff)) => proxied.end_early(ExchangeEnd::Cut),
                    None => {}
                }
                if proxied.is_complete() {
                    proxied.end_early(ExchangeEnd::Ended);
                } else if frame.is_none() || proxied.body.is_end_stream() {
                    proxied.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(text, _) => text.is_end_stream(),
            Self::Proxied(proxied) => proxied.body.is_end_stream() || proxied.is_complete(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(text, _) => text.size_hint(),
            Self::Proxied(proxied) => proxied.body.size_hint(),
        }
    }
}
