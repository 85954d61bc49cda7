//! The body of a response: the gateway's own, or an upstream's that holds its ticket until the last
//! byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::progress::InFlight;
use super::ticket::Ticket;
use super::upstream::UpstreamLease;

/// The body of a response to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// A reply of the gateway's own.
    Local(
        Full<Bytes>,
        #[allow(dead_code, reason = "held until the response is written")] Option<InFlight>,
    ),
    Proxied(Box<Proxied>),
}

/// An upstream's response with everything that ends when it ends.
#[derive(Debug)]
pub struct Proxied {
    body: Incoming,
    /// The upstream connection, to be kept when the response is complete.
    lease: Option<UpstreamLease>,
    _ticket: Ticket,
    _in_flight: InFlight,
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
            _in_flight: in_flight,
        };
        if proxied.body.is_end_stream() {
            proxied.finish();
        }
        Self::Proxied(Box::new(proxied))
    }

    /// Keeps the request in flight until the last byte of a local reply.
    pub fn in_flight(self, in_flight: InFlight) -> Self {
        match self {
            Self::Local(text, _) => Self::Local(text, Some(in_flight)),
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Local(text, _) => Pin::new(text)
                .poll_frame(cx)
                .map_err(|never| match never {}),
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
