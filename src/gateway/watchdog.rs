//! Proof that the front door works: a connection put into each serving thread's own queue must
//! bring back our own `/healthz` through the whole HTTP stack. A probe by address would reach the
//! wrong process during a hand-over, and fail on a full queue.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::proxy::{Front, IDENTITY, Workers};

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n";

/// Whether every serving thread answers within `limit`, or answered clients meanwhile.
///
/// # Errors
/// What does not work.
pub async fn check(workers: &Workers, front: &Front, limit: Duration) -> Result<(), String> {
    let before = front.stats.answers_total();
    let ends = match workers.probe() {
        Ok(ends) => ends,
        Err(why) => {
            // No descriptor is left for a pair: then the clients' own requests tell whether it
            // works.
            tokio::time::sleep(limit / 2).await;
            return if front.stats.answers_total() > before {
                Ok(())
            } else {
                Err(why)
            };
        }
    };
    let asking = async {
        for (index, end) in ends.into_iter().enumerate() {
            ask(end, &front.identity)
                .await
                .map_err(|why| format!("thread {index}: {why}"))?;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, asking).await {
        Ok(result) => result,
        Err(_) if front.stats.answers_total() > before => Ok(()),
        Err(_) => Err(format!("no answer in {} ms", limit.as_millis())),
    }
}

async fn ask(end: StdUnixStream, identity: &str) -> Result<(), String> {
    let talk = async {
        let mut stream = UnixStream::from_std(end)?;
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = talk.await.map_err(|error| error.to_string())?;
    let ours = answer.lines().any(|line| {
        line.strip_prefix(IDENTITY)
            .is_some_and(|rest| rest.trim_start_matches([':', ' ']) == identity)
    });
    if answer.starts_with("HTTP/1.1 200") && ours {
        Ok(())
    } else {
        Err("the answer is not ours".to_owned())
    }
}
