//! How much of a request was read, as the gateway counts it beside hyper: a request that was read
//! ahead is lost when its connection closes or moves to another process.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use gateway::internals::ConnectionProgress;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// A client that sends these pieces, and then neither sends nor closes.
struct Client {
    pieces: VecDeque<Vec<u8>>,
    /// Whether the next read finds nothing yet.
    wait: bool,
    /// Whether there is a wait before each piece.
    slow: bool,
    progress: Arc<ConnectionProgress>,
}

impl hyper::rt::Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wait) {
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return Poll::Pending;
        };
        let rest = piece.split_off(piece.len().min(buffer.remaining()));
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        self.wait = self.slow;
        buffer.put_slice(&piece);
        self.progress.received(&piece);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.progress.begin_write();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves the client with hyper, as the gateway does, up to the moment in which the response to
/// request number `last` is known and not sent. Returns whether it came so far.
fn serve(pieces: &[&[u8]], slow: bool, last: usize) -> bool {
    let progress = ConnectionProgress::new();
    let client = Client {
        pieces: pieces
            .iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| piece.to_vec())
            .collect(),
        wait: false,
        slow,
        progress: Arc::clone(&progress),
    };
    let rounds = 2 * pieces.len() + 2;
    let (begun, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let at_last = Rc::new(Cell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        progress.begin_request(request.body().size_hint().exact());
        begun.set(begun.get() + 1);
        let (progress, at_last) = (Arc::clone(&progress), Rc::clone(&at_last));
        let (begun, answered) = (Rc::clone(&begun), Rc::clone(&answered));
        Box::pin(async move {
            let complete = request.into_body().collect().await.is_ok();
            progress.body_ended();
            if complete && begun.get() == last {
                at_last.set(Some(progress.read_whole()));
                pending::<()>().await;
            }
            answered.set(answered.get() + 1);
            progress.end_request();
            Ok::<_, Infallible>(Response::new(Empty::<&'static [u8]>::new()))
        })
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .serve_connection(client, service);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        if at_last.get().is_some() {
            break;
        }
        if Pin::new(&mut connection).poll(&mut cx).is_ready() {
            return false;
        }
    }
    let ahead = connection.into_parts().read_buf;
    match at_last.get() {
        Some(whole) => {
            assert_eq!(
                whole,
                ahead.is_empty(),
                "request {last}, whole or not; read ahead: {:?}",
                String::from_utf8_lossy(&ahead)
            );
            true
        }
        None => {
            let between = begun.get() == answered.get();
            assert_eq!(
                progress.idle(),
                between && ahead.is_empty(),
                "after {} requests, idle or not; read ahead: {:?}",
                answered.get(),
                String::from_utf8_lossy(&ahead)
            );
            false
        }
    }
}

/// The gateway knows exactly when hyper has read a part of the next request, however the stream is
/// cut and however many requests it holds.
pub fn http_progress(input: &[u8]) {
    for pieces in super::cuts(input) {
        for slow in [false, true] {
            for last in 1..5 {
                if !serve(&pieces, slow, last) {
                    break;
                }
            }
        }
    }
}
