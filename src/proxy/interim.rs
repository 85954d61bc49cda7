//! Interim responses (status 1xx) of a server, such as 103 Early Hints, on their way to the client
//! before the response itself: a proxy passes them on (RFC 9110, 15.2).
//!
//! hyper's server sends one response for a request. So the client's socket writes the others itself, when hyper has
//! nothing left to write; the response is given to hyper only after that.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use http::{HeaderMap, StatusCode};
use tokio::sync::Notify;
use tracing::debug;

use super::headers;
use crate::os::mutex::lock;

/// How much may wait for a client that does not read. What comes beyond it is dropped: it only tells what is to
/// come.
const WAITING_MAX: usize = 64 * 1024;

/// Interim responses that are not written yet.
#[derive(Debug, Default)]
pub struct Interim {
    bytes: Mutex<Vec<u8>>,
    any: AtomicBool,
    /// Notified when some came, and when all are written.
    changed: Notify,
}

impl Interim {
    /// One came from the server.
    fn add(&self, status: StatusCode, fields: &HeaderMap) {
        let head = headers::interim(status, fields);
        let mut bytes = lock(&self.bytes);
        if bytes.len() + head.len() > WAITING_MAX {
            debug!("a response {status} is dropped: the client does not read");
            return;
        }
        bytes.extend_from_slice(&head);
        self.any.store(true, Ordering::Release);
        drop(bytes);
        self.changed.notify_one();
    }

    /// What waits to be written, if anything does.
    pub fn waiting(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        let any = self.any.load(Ordering::Acquire);
        any.then(|| lock(&self.bytes))
    }

    /// So much of it is written. Returns whether that is all.
    pub fn written(&self, bytes: &mut Vec<u8>, count: usize) -> bool {
        bytes.drain(..count);
        if !bytes.is_empty() {
            return false;
        }
        *bytes = Vec::new();
        self.any.store(false, Ordering::Release);
        self.changed.notify_one();
        true
    }

    async fn all_written(&self) {
        while self.any.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }
}

/// Lets the interim responses to this request go to the client of this connection.
pub fn pass_on<B>(client: &Arc<Interim>, request: &mut http::Request<B>) {
    let owner = Arc::clone(client);
    hyper::ext::on_informational(request, move |response| {
        // The gateway itself has told the client to go on, where that was asked.
        if response.status() != StatusCode::CONTINUE {
            owner.add(response.status(), response.headers());
        }
    });
}

/// Waits for the response to a request, and until the client, if it gets interim responses, has them.
pub async fn before_response<T>(
    client: Option<&Interim>,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> T {
    let Some(client) = client else {
        return sending.await;
    };
    let sent = loop {
        tokio::select! {
            biased;
            sent = &mut sending => break sent,
            // This woke the task of the client's connection: it writes what came.
            () = client.changed.notified() => {}
        }
    };
    client.all_written().await;
    sent
}
