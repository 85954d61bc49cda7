//! Who may be connected at once: so many of our own user, and root besides. Where all places of a
//! kind are taken, a new connection gets the place of the one that has been idle the longest.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::os::mutex::lock;

/// Connections of our own user at once. Each waiting gatewayctl holds one, and each
/// subscriber; more are the fault of a script, or of a sidecar.
pub const OWN_MAX: usize = 256;

/// Connections of root, where that is another user: for people, however many our own user makes.
pub const ROOT_MAX: usize = 16;

/// Requests of one connection whose answers were not written yet. gatewayctl sends one at a time.
pub const REQUESTS_MAX: usize = 16;

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
    own: bool,
    /// One is taken for each request until its answer is written, and for each lease.
    requests: Arc<Semaphore>,
    /// When it was made, or had its last request.
    used: Mutex<Instant>,
    given_away: CancellationToken,
}

impl Seat {
    fn is_idle(&self) -> bool {
        self.requests.available_permits() == REQUESTS_MAX
    }
}

impl Places {
    /// A place for a connection of this user; none when all are taken and none of them is idle.
    pub fn take(&self, uid: u32) -> Option<Place> {
        let own = uid == nix::unistd::geteuid().as_raw();
        let most = if own { OWN_MAX } else { ROOT_MAX };
        let mut seats = lock(&self.0);
        if seats.iter().filter(|seat| seat.own == own).count() >= most {
            let idle = (0..seats.len()).filter(|at| seats[*at].own == own && seats[*at].is_idle());
            let longest = idle.min_by_key(|at| *lock(&seats[*at].used))?;
            seats.swap_remove(longest).given_away.cancel();
        }
        let seat = Arc::new(Seat {
            own,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
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
    pub async fn begin_request(&self) -> Option<Arc<OwnedSemaphorePermit>> {
        *lock(&self.seat.used) = Instant::now();
        let requests = Arc::clone(&self.seat.requests);
        // The semaphore is never closed.
        requests.acquire_owned().await.ok().map(Arc::new)
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
