//! Where lines of the log go besides the log, while somebody follows them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tracing::Level;

/// A line of the log, without the name of who printed it.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    pub level: Level,
    /// None for the gateway's own.
    pub sidecar: Option<&'a str>,
    pub text: &'a str,
}

/// Takes lines.
pub type Tap = Arc<dyn Fn(LogLine<'_>) + Send + Sync>;

static TAP: RwLock<Option<Tap>> = RwLock::new(None);

/// Whether there is one: asked for each line.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Begins to give each line to `tap`; ends that where it is none. A tap must not wait.
pub fn set(tap: Option<Tap>) {
    let mut place = TAP.write().unwrap_or_else(PoisonError::into_inner);
    OPEN.store(tap.is_some(), Ordering::Release);
    *place = tap;
}

/// Gives a line to those who follow the log; makes it only where somebody does.
pub fn pass<'a>(line: impl FnOnce() -> LogLine<'a>) {
    if !OPEN.load(Ordering::Acquire) {
        return;
    }
    // Released before the tap is called, which may log itself.
    let tap = TAP.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(tap) = tap {
        tap(line());
    }
}
