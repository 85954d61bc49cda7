//! Tasks whose end somebody waits for: a panic is an end, too.

use std::any::Any;

use tokio_util::task::AbortOnDropHandle;

/// How a task ended: the error says why it panicked.
pub type TaskEnd<T = ()> = Result<T, String>;

/// Runs `work` in a task of its own, which ends with the future that this returns.
///
/// # Errors
/// Why it panicked; [`log_panics`] tells where.
pub async fn caught<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    AbortOnDropHandle::new(tokio::spawn(work))
        .await
        .map_err(|error| match error.try_into_panic() {
            Ok(panic) => format!("internal error: {}", message(&*panic)),
            Err(error) => format!("internal error: {error}"),
        })
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

/// Writes each panic of this process to the log, with its place, instead of to standard error, which
/// may stand still.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string().replace('\n', " ");
        tracing::error!("[gateway] internal error, please report it: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_end_with_a_reason() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let panic = || std::panic::panic_any("a hole");
        let error = caught(async move { panic() }).await.unwrap_err();
        assert_eq!(error, "internal error: a hole");
    }
}
