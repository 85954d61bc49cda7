//! How a task reports to the run loop without knowing it: each message becomes an event there.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

/// Takes messages of one kind, in the order in which they are sent.
pub struct Outbox<T>(Arc<dyn Fn(T) -> bool + Send + Sync>);

impl<T: Send + 'static> Outbox<T> {
    /// An outbox and the receiver of its messages.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<T>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let outbox = Self(Arc::new(move |message| sender.send(message).is_ok()));
        (outbox, receiver)
    }

    /// An outbox for a task that knows only its own messages; `event` makes a `T` of each.
    pub fn outbox<U>(&self, event: impl Fn(U) -> T + Send + Sync + 'static) -> Outbox<U> {
        let events = self.clone();
        Outbox(Arc::new(move |message| events.send(event(message))))
    }
}

impl<T> Outbox<T> {
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
