//! The seats of the clients within the limit of connections, in the order in which they give way to
//! new ones.
//!
//! A client that asks one request after the other takes no lock for it: the order tells since when it
//! *was* silent, and a look at the client itself tells whether it still is. Who looks and finds it
//! answered since moves its seat to where it belongs now; one that is busy leaves the order, and is
//! told to come back when it is silent. So each request of a client costs at most one such look,
//! however many clients there are: a new client finds its place in O(log n).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::time::Instant;

use super::progress::{ConnectionProgress, Silence};
use crate::os::mutex::lock;

/// How long a client that has connected may take to send its first request before its place can be
/// another's: TCP sends a lost packet again after 1 s, and after 2 s more (RFC 6298).
pub const FIRST_REQUEST: Duration = Duration::from_secs(3);

/// The clients of one set of workers within the limit.
#[derive(Debug, Default)]
pub struct Seats(Mutex<Seating>);

#[derive(Debug, Default)]
struct Seating {
    seats: Slab<SeatPlace>,
    /// The seats whose clients may be silent, by the moment from which on each may give way.
    order: BTreeSet<(Instant, usize)>,
}

#[derive(Debug)]
struct SeatPlace {
    seat: Arc<ClientSeat>,
    /// Where it is in the order.
    from: Option<Instant>,
}

/// What is between a client and the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Turn {
    /// It is in the order, not later than it belongs there.
    Ordered,
    /// It comes to the order as soon as it is silent after a request. A new client is in it already, as
    /// far back as one belongs there that never sends a request.
    Comes,
    /// It gives way as soon as it is silent.
    GivesWay,
}

impl Turn {
    const ALL: [Self; 3] = [Self::Ordered, Self::Comes, Self::GivesWay];
}

#[derive(Debug)]
struct ClientSeat {
    progress: Arc<ConnectionProgress>,
    /// A [`Turn`].
    turn: AtomicU8,
    /// Wakes the connection's task to look at its turn.
    changed: AtomicWaker,
}

/// A client within the limit, until dropped.
#[derive(Debug)]
pub struct OpenClient {
    seats: Arc<Seats>,
    key: usize,
    seat: Arc<ClientSeat>,
}

impl Seats {
    /// A client is served within the limit. A new one may be about to send its first request.
    pub fn enter(self: &Arc<Self>, progress: &Arc<ConnectionProgress>) -> OpenClient {
        let (from, turn) = match progress.silence() {
            Some(Silence::Kept(since)) => (since, Turn::Ordered),
            Some(Silence::New) | None => (Instant::now() + FIRST_REQUEST, Turn::Comes),
        };
        let seat = Arc::new(ClientSeat {
            progress: Arc::clone(progress),
            turn: AtomicU8::new(turn as u8),
            changed: AtomicWaker::new(),
        });
        let mut seating = lock(&self.0);
        let key = seating.seats.insert(SeatPlace {
            seat: Arc::clone(&seat),
            from: None,
        });
        seating.place(key, Some(from));
        drop(seating);
        OpenClient {
            seats: Arc::clone(self),
            key,
            seat,
        }
    }

    /// How many clients are served within the limit.
    pub fn taken(&self) -> usize {
        lock(&self.0).seats.len()
    }

    /// Asks the client to give way that could do so for the longest time. Returns whether there is one.
    pub fn make_room(&self) -> bool {
        let now = Instant::now();
        let mut seating = lock(&self.0);
        while let Some(&(from, key)) = seating.order.first()
            && from <= now
        {
            seating.place(key, None);
            let Some(seat) = seating
                .seats
                .get(key)
                .map(|placed| Arc::clone(&placed.seat))
            else {
                continue;
            };
            match seat.progress.silence() {
                Some(Silence::Kept(since)) if since > from => seating.place(key, Some(since)),
                Some(_) => {
                    seat.turns(Turn::GivesWay);
                    return true;
                }
                // If it falls silent at this very moment, it is woken after that.
                None => seat.turns(Turn::Comes),
            }
        }
        false
    }
}

impl Seating {
    /// Moves a seat to another place in the order, or out of it.
    fn place(&mut self, key: usize, from: Option<Instant>) {
        let Some(placed) = self.seats.get_mut(key) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut placed.from, from) {
            self.order.remove(&(before, key));
        }
        if let Some(from) = from {
            self.order.insert((from, key));
        }
    }
}

impl ClientSeat {
    fn turn(&self) -> Turn {
        let turn = self.turn.load(Ordering::Acquire);
        Turn::ALL[usize::from(turn) % Turn::ALL.len()]
    }

    fn turns(&self, turn: Turn) {
        self.turn.store(turn as u8, Ordering::Release);
        self.changed.wake();
    }
}

impl OpenClient {
    /// Ready when the client gives way now. Polled whenever its connection was.
    pub fn poll_gives_way(&self, cx: &Context<'_>) -> Poll<()> {
        self.seat.changed.register(cx.waker());
        match (self.seat.turn(), self.seat.progress.silence()) {
            (Turn::GivesWay, Some(_)) => Poll::Ready(()),
            (Turn::Comes, Some(Silence::Kept(since))) => {
                self.comes(since);
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    /// Comes to the order, unless it was just found there.
    fn comes(&self, since: Instant) {
        let mut seating = lock(&self.seats.0);
        // Only who holds the lock changes a turn.
        if self.seat.turn() == Turn::Comes {
            seating.place(self.key, Some(since));
            self.seat.turn.store(Turn::Ordered as u8, Ordering::Release);
        }
    }
}

impl Drop for OpenClient {
    fn drop(&mut self) {
        let mut seating = lock(&self.seats.0);
        seating.place(self.key, None);
        seating.seats.try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;
    use crate::proxy::head_limits::HeadLimits;

    struct Client {
        progress: Arc<ConnectionProgress>,
        open: OpenClient,
    }

    impl Client {
        fn new(seats: &Arc<Seats>) -> Self {
            let progress = ConnectionProgress::new();
            let open = seats.enter(&progress);
            Self { progress, open }
        }

        fn asks(&self) {
            let limits = HeadLimits {
                size: 1024,
                lines: 10,
                keep_case: false,
            };
            self.progress.received(b"GET / HTTP/1.1\r\n\r\n", limits);
            self.progress.begin_request(Some(0));
            assert!(!self.gives_way());
        }

        async fn is_answered(&self) {
            tokio::time::advance(Duration::from_millis(1)).await;
            self.progress.end_request(tokio::time::Instant::now());
        }

        async fn exchange(&self) {
            self.asks();
            self.is_answered().await;
            assert!(!self.gives_way());
        }

        /// Its connection is polled.
        fn gives_way(&self) -> bool {
            let polled = poll_fn(|cx| self.open.poll_gives_way(cx)).now_or_never();
            polled.is_some()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_that_is_silent_for_longest_gives_way() {
        let seats = Arc::default();
        let [busy, second, first, new] = [(); 4].map(|()| Client::new(&seats));
        assert!(!seats.make_room(), "all may be about to send");
        busy.asks();
        for client in [&second, &first, &second] {
            client.exchange().await;
        }
        assert!(seats.make_room() && first.gives_way() && !second.gives_way());
        assert!(seats.make_room() && second.gives_way());
        assert!(!seats.make_room() && !new.gives_way());
        tokio::time::advance(FIRST_REQUEST).await;
        assert!(seats.make_room() && new.gives_way());
        assert!(!seats.make_room() && !busy.gives_way());
        assert_eq!(seats.taken(), 4);
        drop([busy, second, first, new]);
        assert_eq!(seats.taken(), 0);
        assert!(lock(&seats.0).order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_busy_comes_back_when_it_is_silent() {
        let seats = Arc::default();
        let client = Client::new(&seats);
        client.exchange().await;
        client.asks();
        assert!(!seats.make_room() && !seats.make_room());
        client.is_answered().await;
        assert!(!client.gives_way(), "its connection is polled");
        assert!(seats.make_room() && client.gives_way());
        assert!(!seats.make_room(), "it gives way to one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_again_before_it_gives_way_is_answered_first() {
        let seats = Arc::default();
        let client = Client::new(&seats);
        client.exchange().await;
        assert!(seats.make_room());
        client.asks();
        client.is_answered().await;
        assert!(client.gives_way());
    }

    /// 100,000 new clients find nobody who gives way among 10,000: at a look at each of these, a thousand
    /// million looks.
    #[tokio::test(start_paused = true)]
    async fn nobody_looks_at_all_clients_for_each_new_one() {
        let seats = Arc::default();
        let clients: Vec<_> = (0..10_000).map(|_| Client::new(&seats)).collect();
        for client in &clients {
            client.exchange().await;
            client.asks();
        }
        assert!(!seats.make_room());
        assert!(lock(&seats.0).order.is_empty(), "all were looked at");
        let begun = std::time::Instant::now();
        for _ in 0..100_000 {
            assert!(!seats.make_room());
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        let last = &clients[9_999];
        last.is_answered().await;
        assert!(!last.gives_way());
        assert!(seats.make_room() && last.gives_way());
    }
}
