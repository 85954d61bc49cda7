//! How a task reports to the run loop without knowing it: each message becomes an event there.

use std::fmt;
use std::sync::Arc;

/// Takes messages of one kind, in the order in which they are sent.
pub struct Outbox<T>(Arc<dyn Fn(T) -> bool + Send + Sync>);

impl<T> Outbox<T> {
    /// An outbox whose messages go to `deliver`, which tells whether somebody receives them.
    pub fn new(deliver: impl Fn(T) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(deliver))
    }

    /// Sends a message; false when the loop has ended, so that nobody receives it.
    pub fn send(&self, message: T) -> bool {
        (self.0)(message)
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}
