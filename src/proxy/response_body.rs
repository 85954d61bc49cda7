//! The body of an answer: ours, or an upstream's that holds its ticket until the last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::backend::Ticket;
use super::in_flight::InFlight;
use super::request_body::ClientBody;
use super::upstream::{Connection, Upstream};

/// The body of an answer to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// An answer of our own.
    Own(
        Option<Bytes>,
        #[allow(dead_code, reason = "held until the answer is written")] Option<InFlight>,
    ),
    Proxied(Box<Proxied>),
}

/// An upstream's answer with everything that ends when it ends.
#[derive(Debug)]
pub struct Proxied {
    body: Incoming,
    /// The upstream connection, to be kept when the answer is whole.
    lease: Option<Lease>,
    _ticket: Ticket,
    _answering: InFlight,
}

/// An upstream connection on loan.
#[derive(Debug)]
pub struct Lease {
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
    pub fn proxied(
        body: Incoming,
        lease: Option<Lease>,
        ticket: Ticket,
        in_flight: InFlight,
    ) -> Self {
        let mut proxied = Proxied {
            body,
            lease,
            _ticket: ticket,
            _answering: in_flight,
        };
        if proxied.body.is_end_stream() {
            proxied.finish();
        }
        Self::Proxied(Box::new(proxied))
    }

    /// Ties the end of the answer to the connection's book-keeping.
    pub fn in_flight(self, in_flight: InFlight) -> Self {
        match self {
            Self::Own(text, _) => Self::Own(text, Some(in_flight)),
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
            Self::Own(text, _) => Poll::Ready(
                text.take()
                    .filter(|text| !text.is_empty())
                    .map(|text| Ok(Frame::data(text))),
            ),
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
            Self::Own(text, _) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Proxied(proxied) => proxied.body.size_hint(),
        }
    }
}
