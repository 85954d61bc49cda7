//! A timer for limits that are set often and reached rarely.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// Made at the first wait, and moved only when it fires or a deadline comes before it: a deadline
/// that is put off again and again costs nothing.
#[derive(Debug, Default)]
pub struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready when `deadline` is over; else the task is woken at it, or before.
    pub fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.0
            && timer.deadline() <= deadline
            && timer.as_mut().poll(cx).is_pending()
        {
            // Usual, and the clock need not be read.
            return Poll::Pending;
        }
        loop {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            let timer = self
                .0
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
