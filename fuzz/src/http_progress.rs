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

use gateway::internals::{ConnectionProgress, HeadLimits};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

const LIMITS: HeadLimits = HeadLimits {
    size: 64 * 1024,
    lines: 100,
    keep_case: false,
};

/// A client that sends these pieces, and then neither sends nor closes.
struct Client {
    pieces: VecDeque<Vec<u8>>,
    /// Whether the next read finds nothing yet.
    wait: bool,
    /// Whether there is a wait before each piece.
    slow: bool,
    /// How many bytes were read.
    read: Rc<Cell<usize>>,
    /// None for hyper alone.
    progress: Option<Arc<ConnectionProgress>>,
}

impl Client {
    fn sends(pieces: &[&[u8]], slow: bool, progress: Option<&Arc<ConnectionProgress>>) -> Self {
        Self {
            pieces: pieces
                .iter()
                .filter(|piece| !piece.is_empty())
                .map(|piece| piece.to_vec())
                .collect(),
            wait: false,
            slow,
            read: Rc::default(),
            progress: progress.map(Arc::clone),
        }
    }
}

impl hyper::rt::Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let kept = self.progress.as_ref();
            let kept = kept.and_then(|progress| progress.kept(buffer.remaining(), LIMITS));
            if let Some(kept) = kept {
                buffer.put_slice(&kept);
                return Poll::Ready(Ok(()));
            }
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
            self.read.set(self.read.get() + piece.len());
            let progress = self.progress.as_ref();
            let passed = progress.map_or(piece.len(), |progress| progress.received(&piece, LIMITS));
            if passed > 0 {
                buffer.put_slice(&piece[..passed]);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl hyper::rt::Write for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(progress) = &self.progress {
            progress.begin_write();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(progress) = &self.progress {
            progress.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// hyper, set up as the gateway does.
fn as_the_gateway() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.half_close(true).header_read_timeout(None);
    builder
}

/// Where request number `last` ends in what a client sends, by hyper alone.
fn end_of(input: &[u8], last: usize) -> Option<usize> {
    if last == 0 {
        return Some(0);
    }
    let client = Client::sends(&[input], false, None);
    let read = Rc::clone(&client.read);
    let (begun, complete) = (Cell::new(0), Rc::new(Cell::new(false)));
    let service = service_fn(|request: Request<Incoming>| {
        begun.set(begun.get() + 1);
        let (at_last, complete) = (begun.get() == last, Rc::clone(&complete));
        Box::pin(async move {
            if request.into_body().collect().await.is_ok() && at_last {
                complete.set(true);
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Empty::<&'static [u8]>::new()))
        })
    });
    let mut connection = as_the_gateway().serve_connection(client, service);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 * last + 2 {
        if complete.get() || Pin::new(&mut connection).poll(&mut cx).is_ready() {
            break;
        }
    }
    let ahead = connection.into_parts().read_buf;
    complete.get().then(|| read.get() - ahead.len())
}

/// Serves the client with hyper, as the gateway does, up to the moment in which the response to
/// request number `last` is known and not sent. Returns whether it came so far.
fn serve(pieces: &[&[u8]], slow: bool, last: usize) -> bool {
    let input = pieces.concat();
    let progress = ConnectionProgress::new();
    let client = Client::sends(pieces, slow, Some(&progress));
    let read = Rc::clone(&client.read);
    let rounds = 2 * pieces.len() + 2;
    let (begun, answered) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (at_last, refused) = (Rc::new(Cell::new(None)), Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        progress.begin_request(request.body().size_hint().exact());
        refused.set(refused.get() || progress.take_judgement().0.is_some());
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
            progress.end_request(std::time::Instant::now().into());
            Ok::<_, Infallible>(Response::new(Empty::<&'static [u8]>::new()))
        })
    });
    let mut connection = as_the_gateway().serve_connection(client, service);
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
    if refused.get() {
        return false;
    }
    let ends_at = |number| end_of(&input, number);
    match at_last.get() {
        Some(whole) => {
            assert!(ahead.is_empty(), "hyper has a byte of the next request");
            // None where only hyper alone refuses the head.
            if let Some(end) = ends_at(last) {
                assert_eq!(whole, read.get() == end, "request {last}, whole or not");
            }
            true
        }
        None => {
            let between = begun.get() == answered.get();
            if let Some(end) = ends_at(answered.get()) {
                assert_eq!(
                    progress.idle(),
                    between && read.get() == end,
                    "after {} requests, idle or not",
                    answered.get(),
                );
            }
            false
        }
    }
}

/// The gateway knows exactly when a part of the next request was read, and hyper never has it, however
/// the stream is cut and however many requests it holds.
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
