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
use super::ticket::Ticket;
use super::upstream::UpstreamLease;

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
    _ticket: Ticket,
    in_flight: InFlight,
}

impl ResponseBody {
    /// A text of the gateway's own.
    pub fn local(text: impl Into<Bytes>) -> Self {
        Self::Local(Full::new(text.into()), None)
    }

    /// An upstream's response; `lease` when its connection can be used again.
    pub fn proxied(
        body: Incoming,
        lease: Option<UpstreamLease>,
        ticket: Ticket,
        in_flight: InFlight,
    ) -> Self {
        let mut proxied = Proxied {
            body,
            lease,
            _ticket: ticket,
            in_flight,
        };
        if proxied.body.is_end_stream() {
            proxied.finish();
        }
        Self::Proxied(Box::new(proxied))
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
}

/// The bytes of a frame that are body.
fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Local(text, in_flight) => {
                let frame = Pin::new(text).poll_frame(cx);
                if let (Poll::Ready(Some(Ok(frame))), Some(in_flight)) = (&frame, in_flight) {
                    in_flight.record.handed_over(length(frame));
                }
                frame.map_err(|never| match never {})
            }
            Self::Proxied(proxied) => {
                let mut frame = ready!(Pin::new(&mut proxied.body).poll_frame(cx));
                if let Some(trailers) = frame
                    .as_mut()
                    .and_then(|frame| frame.as_mut().ok()?.trailers_mut())
                {
                    headers::trailers(trailers);
                }
                let record = &mut proxied.in_flight.record;
                match &frame {
                    Some(Ok(frame)) => record.handed_over(length(frame)),
                    Some(Err(_)) => record.ends(ExchangeEnd::Failed),
                    None => {}
                }
                if frame.is_none() || proxied.body.is_end_stream() {
                    proxied.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(text, _) => text.is_end_stream(),
            Self::Proxied(proxied) => proxied.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(text, _) => text.size_hint(),
            Self::Proxied(proxied) => proxied.body.size_hint(),
        }
    }
}
