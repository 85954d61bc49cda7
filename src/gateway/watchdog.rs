//! The watchdog of the service manager, which is fed as long as the front door works. The proof: a
//! connection put into each serving thread's own queue must bring back our own `/healthz` through
//! the whole HTTP stack. A probe by address would reach the wrong process during a hand-over, and
//! fail on a full queue.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Interval;
use tracing::error;

use super::option_future::{every, or_never};
use super::outbox::Outbox;
use crate::proxy::{Front, IDENTITY, Workers};
use crate::systemd::Notifier;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n";

/// Whether the front door works; the text says why not.
pub type CheckResult = Result<(), String>;

/// The service manager's watchdog: fed as long as the front door answers.
#[derive(Debug)]
pub struct Watchdog {
    /// How often the front door is asked, and how long it may take; none without a watchdog.
    period: Option<Duration>,
    ticks: Option<Interval>,
}

impl Watchdog {
    /// Feeds as often as the service manager of `notifier` wants it.
    pub fn new(notifier: Notifier) -> Self {
        let period = notifier.watchdog_interval();
        Self {
            period,
            ticks: period.map(every),
        }
    }

    /// Returns when it is time for the next check; never without a watchdog.
    pub async fn due(&mut self) {
        or_never(self.ticks.as_mut().map(Interval::tick)).await;
    }

    /// Asks the front door in a task; the result goes to `checked`.
    pub fn check(&self, workers: &Arc<Workers>, front: &Arc<Front>, checked: Outbox<CheckResult>) {
        let Some(limit) = self.period else { return };
        let (workers, front) = (Arc::clone(workers), Arc::clone(front));
        tokio::spawn(async move {
            checked.send(check(&workers, &front, limit).await);
        });
    }

    /// Feeds it when the check went well, and says why when it did not.
    pub fn feed(result: CheckResult, notifier: Notifier) {
        match result {
            Ok(()) => notifier.watchdog(),
            Err(why) => error!(
                "[gateway] the front door does not answer itself: {why}; the watchdog is not fed"
            ),
        }
    }
}

/// Whether every serving thread answers within `limit`, or answered clients meanwhile.
///
/// # Errors
/// What does not work.
async fn check(workers: &Workers, front: &Front, limit: Duration) -> CheckResult {
    let before = front.stats.answers_total();
    // Whether the clients' own requests tell that it works.
    let answers = || front.stats.answers_total() > before;
    let ends = match workers.probe() {
        Ok(ends) => ends,
        Err(why) => {
            // No descriptor is left for a pair.
            tokio::time::sleep(limit / 2).await;
            return if answers() { Ok(()) } else { Err(why) };
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
        Err(_) if answers() => Ok(()),
        Err(_) => Err(format!("no answer in {} ms", limit.as_millis())),
    }
}

async fn ask(end: StdUnixStream, identity: &str) -> io::Result<()> {
    let mut stream = UnixStream::from_std(end)?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let ours = answer.lines().any(|line| {
        line.split_once(": ")
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case(IDENTITY) && value == identity)
    });
    if answer.starts_with("HTTP/1.1 200") && ours {
        Ok(())
    } else {
        Err(io::Error::other("the answer is not ours"))
    }
}
