//! Who may be connected at once: so many of our own user, and root besides. Where all places of a
//! kind are taken, a new connection gets the place of the one that has been idle the longest.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::control::access::{Authority, Caller};
use crate::os::mutex::lock;

/// Connections of our own user at once. Each waiting gatewayctl holds one, and each
/// subscriber; more are the fault of a script, or of a sidecar.
pub const OWN_MAX: usize = 256;

/// Connections of root, where that is another user: for people, however many our own user makes.
pub const ROOT_MAX: usize = 16;

/// Connections over WebSocket of those who have the owner's token, and as many of those who have the
/// reader's: none of them takes a place from gatewayctl, nor a reader from an owner.
pub const REMOTE_MAX: usize = 128;

/// Requests of one connection whose answers were not written yet. gatewayctl sends one at a time.
pub const REQUESTS_MAX: usize = 16;

/// Counts a request, or what is held after it, for its connection.
pub type Counted = Arc<RequestCount>;

/// One request of a connection, until it is dropped.
#[derive(Debug)]
pub struct RequestCount {
    permit: Option<OwnedSemaphorePermit>,
    seat: Arc<Seat>,
}

impl Drop for RequestCount {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.seat.freed.notify_waiters();
    }
}

#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Vec<Arc<Seat>>>>);

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    seat: Arc<Seat>,
}

#[derive(Debug)]
struct Seat {
    kind: PlaceKind,
    /// One is taken for each request until its answer is written, and for each lease.
    requests: Arc<Semaphore>,
    /// Notified whenever one is given back.
    freed: Notify,
    /// When it was made, or had its last request.
    used: Mutex<Instant>,
    given_away: CancellationToken,
}

/// Places for which others do not compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceKind {
    Own,
    Root,
    Owner,
    Reader,
}

impl PlaceKind {
    fn of(caller: Caller) -> Self {
        match caller {
            Caller::Local { uid, .. } if uid == nix::unistd::geteuid().as_raw() => Self::Own,
            Caller::Local { .. } => Self::Root,
            Caller::Remote { authority, .. } => match authority {
                Authority::Owner => Self::Owner,
                Authority::Reader => Self::Reader,
            },
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Own => OWN_MAX,
            Self::Root => ROOT_MAX,
            Self::Owner | Self::Reader => REMOTE_MAX,
        }
    }
}

impl Seat {
    fn is_idle(&self) -> bool {
        self.requests.available_permits() == REQUESTS_MAX
    }
}

impl Places {
    /// A place for a connection of this client; none when all are taken and none of them is idle.
    pub fn take(&self, caller: Caller) -> Option<Place> {
        let kind = PlaceKind::of(caller);
        let mut seats = lock(&self.0);
        if seats.iter().filter(|seat| seat.kind == kind).count() >= kind.most() {
            let idle =
                (0..seats.len()).filter(|at| seats[*at].kind == kind && seats[*at].is_idle());
            let longest = idle.min_by_key(|at| *lock(&seats[*at].used))?;
            seats.swap_remove(longest).given_away.cancel();
        }
        let seat = Arc::new(Seat {
            kind,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            freed: Notify::new(),
            used: Mutex::new(Instant::now()),
            given_away: CancellationToken::new(),
        });
        seats.push(Arc::clone(&seat));
        Some(Place {
            places: self.clone(),
            seat,
        })
    }
}

impl Place {
    /// Waits until one more request may be under way.
    pub async fn begin_request(&self) -> Counted {
        *lock(&self.seat.used) = Instant::now();
        let requests = Arc::clone(&self.seat.requests);
        Arc::new(RequestCount {
            // The semaphore is never closed.
            permit: requests.acquire_owned().await.ok(),
            seat: Arc::clone(&self.seat),
        })
    }

    /// Waits until no request is under way and nothing is held. It takes nothing from the requests that
    /// come meanwhile.
    pub async fn idle(&self) {
        loop {
            let mut freed = pin!(self.seat.freed.notified());
            // From here on, so that nothing is missed between the look and the wait.
            freed.as_mut().enable();
            if self.seat.is_idle() {
                return;
            }
            freed.await;
        }
    }

    /// Another connection has got this place.
    pub async fn given_away(&self) {
        self.seat.given_away.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.0).retain(|seat| !Arc::ptr_eq(seat, &self.seat));
    }
}
