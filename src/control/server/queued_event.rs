//! An event that waits until its subscriber has read those before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::answer_form::Dialect;
use crate::control::protocol::EventName;
use crate::text::words::Words;

/// Events that may wait for one subscriber. A restart of a hundred sidecars tells some four hundred
/// at once; who is further behind does not read.
pub const QUEUE_MAX: usize = 1024;

/// An event that waits for its subscriber.
#[derive(Debug)]
pub struct QueuedEvent {
    pub name: EventName,
    pub payload: Arc<Value>,
    pub seq: u64,
    pub bytes: usize,
    /// The bytes that wait in the same queue, of which these are a part.
    pub queued: Arc<AtomicUsize>,
}

impl QueuedEvent {
    /// As it is sent; none where no reader would take it.
    pub fn text(&self, dialect: Dialect) -> Option<String> {
        let payload = (*self.payload).clone();
        dialect.event(self.name.word(), payload, Some(self.seq))
    }
}

impl Drop for QueuedEvent {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
