//! Waiting for what may not be there.

use std::future::pending;

/// What a future gives; never anything where there is none.
pub async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
