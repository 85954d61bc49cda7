//! Interim responses (status 1xx) of a server, such as 103 Early Hints, on their way to the client
//! before the response itself: a proxy passes them on (RFC 9110, 15.2).
//!
//! hyper's server sends one response for a request. So the client's socket writes the others itself, when hyper has
//! nothing left to write; the response is given to hyper only after that.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{EMPTY_HEADER, Header, Response, Status};
use tokio::sync::Notify;
use tracing::debug;

use super::headers;
use super::response_framing::INTERIM_MAX;
use crate::os::mutex::lock;

/// Interim responses that are not written yet.
#[derive(Debug, Default)]
pub struct Interim {
    bytes: Mutex<Vec<u8>>,
    any: AtomicBool,
    /// Notified when some came, and when all are written.
    changed: Notify,
}

impl Interim {
    /// These whole `heads` of up to so many `lines` came from the server. One that is not valid is left
    /// out; hyper refuses the response after it.
    pub fn add(&self, mut heads: &[u8], lines: usize) {
        let mut room = vec![EMPTY_HEADER; lines];
        loop {
            let mut response = Response::new(&mut room);
            let Ok(Status::Complete(length)) = response.parse(heads) else {
                return;
            };
            heads = &heads[length..];
            let status = response
                .code
                .and_then(|code| StatusCode::from_u16(code).ok());
            if let (Some(status), Some(fields)) = (status, fields(response.headers)) {
                self.add_one(status, fields);
            }
        }
    }

    fn add_one(&self, status: StatusCode, fields: HeaderMap) {
        let head = headers::interim(status, fields);
        let mut bytes = lock(&self.bytes);
        if bytes.len() + head.len() > INTERIM_MAX {
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

fn fields(headers: &[Header<'_>]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(fields)
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
