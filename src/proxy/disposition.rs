//! What ends a client connection that neither its client nor an error ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

use super::drain::{KeepAlive, WorkerState};
use super::forwarded::Peer;
use super::progress::ConnectionProgress;
use super::seats::OpenClient;

/// How long a kept connection may be silent before a drain closes it: longer than most clients'
/// pause between two requests.
const SILENCE: Duration = Duration::from_secs(15);

/// What ends a connection that neither the client nor an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its socket goes to another process.
    Migrate,
    /// It closes after the request under way, or after the first request of a new client.
    CloseAfterResponse,
    /// It closes at once: it was silent for [`SILENCE`].
    CloseSilent,
    /// It closes at once: it is idle, and a new client needs its place.
    GiveWay,
}

/// Whether a client is one of those that the limit allows.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    Within(&'a OpenClient),
    /// It gets one answer of the gateway's own.
    Beyond,
    /// The watchdog: the limit is not for it.
    Exempt,
}

impl Standing<'_> {
    /// Ready when a client that the limit allows gives way to a new one.
    fn poll_gives_way(self, cx: &Context<'_>) -> Poll<()> {
        match self {
            Self::Within(client) => client.poll_gives_way(cx),
            Self::Beyond | Self::Exempt => Poll::Pending,
        }
    }
}

/// Who a connection is served for.
#[derive(Clone, Copy, Debug)]
pub struct ServedClient<'a> {
    pub peer: Peer,
    pub standing: Standing<'a>,
    pub progress: &'a Arc<ConnectionProgress>,
}

/// Waits until the state of the workers ends this connection. Polled after the connection in the
/// same task, so it sees a connection that has just done all it could.
pub async fn of(state: &mut watch::Receiver<WorkerState>, client: ServedClient<'_>) -> Disposition {
    let progress = client.progress;
    let moves = matches!(client.standing, Standing::Within(_));
    loop {
        let (migrates, keep_alive) = {
            let state = state.borrow_and_update();
            (state.migrates() && moves, state.keep_alive)
        };
        let idle = poll_fn(|_| match progress.idle() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let close = async {
            match keep_alive {
                KeepAlive::Kept => std::future::pending().await,
                KeepAlive::Draining { since } => {
                    progress.silent(since, SILENCE).await;
                    Disposition::CloseSilent
                }
                KeepAlive::Closing => Disposition::CloseAfterResponse,
            }
        };
        tokio::select! {
            biased;
            () = idle, if migrates => return Disposition::Migrate,
            disposition = close => return disposition,
            // In ordinary service a connection waits for nothing else.
            () = poll_fn(|cx| client.standing.poll_gives_way(cx)) => return Disposition::GiveWay,
            _ = state.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::proxy::drain::Accepting;
    use crate::proxy::head_limits::HeadLimits;
    use crate::proxy::seats::Seats;

    fn receive(progress: &ConnectionProgress) {
        let limits = HeadLimits {
            size: 1024,
            lines: 10,
            keep_case: false,
        };
        progress.received(b"GET / HTTP/1.1\r\n\r\n", limits);
    }

    fn answered() -> Arc<ConnectionProgress> {
        let progress = ConnectionProgress::new();
        receive(&progress);
        progress.begin_request(Some(0));
        progress.end_request(Instant::now());
        progress
    }

    async fn within(
        time: Duration,
        state: &watch::Sender<WorkerState>,
        progress: &Arc<ConnectionProgress>,
        peer: Peer,
    ) -> Option<Disposition> {
        let mut state = state.subscribe();
        let open = Arc::<Seats>::default().enter(progress);
        let standing = match peer {
            Peer::Watchdog => Standing::Exempt,
            _ => Standing::Within(&open),
        };
        let client = ServedClient {
            peer,
            standing,
            progress,
        };
        let disposition = of(&mut state, client);
        tokio::time::timeout(time, disposition).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_stays_until_the_state_of_the_workers_says_otherwise() {
        let state = watch::Sender::default();
        let progress = answered();
        let day = Duration::from_secs(86_400);
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, None);
        state.send_if_modified(|state| state.restrict(Accepting::QueueOnly));
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, None);
        state.send_if_modified(|state| state.drain(Instant::now()));
        assert_eq!(
            within(SILENCE / 2, &state, &progress, Peer::Unix).await,
            None
        );
        state.send_if_modified(|state| state.restrict(Accepting::Stopped));
        let silent = Some(Disposition::CloseSilent);
        let rest = SILENCE / 2 + Duration::from_millis(10);
        assert_eq!(within(rest, &state, &progress, Peer::Unix).await, silent);
        state.send_if_modified(WorkerState::close_connections);
        let closed = Some(Disposition::CloseAfterResponse);
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_migrates_a_busy_one_and_the_watchdog_do_not() {
        let state = watch::Sender::new(WorkerState::default());
        let (destination, _sockets) = mpsc::unbounded_channel();
        state.send_if_modified(|state| state.migrate_to(destination));
        let day = Duration::from_secs(86_400);
        let (idle, busy) = (answered(), answered());
        receive(&busy);
        let migrated = Some(Disposition::Migrate);
        assert_eq!(within(day, &state, &idle, Peer::Unix).await, migrated);
        busy.begin_request(Some(0));
        assert_eq!(within(day, &state, &busy, Peer::Unix).await, None);
        assert_eq!(within(day, &state, &idle, Peer::Watchdog).await, None);
        state.send_if_modified(WorkerState::close_connections);
        let closed = Some(Disposition::CloseAfterResponse);
        assert_eq!(within(day, &state, &idle, Peer::Unix).await, migrated);
        assert_eq!(within(day, &state, &busy, Peer::Unix).await, closed);
        assert_eq!(within(day, &state, &idle, Peer::Watchdog).await, closed);
    }
}
