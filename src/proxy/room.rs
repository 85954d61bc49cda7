//! Room for one more client at the limit of connections: one that is silent gives way; where none is,
//! the new one gets a place among a few that are turned away.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::Front;
use super::local_reply::NotForwarded;
use super::seats::Seats;
use crate::os::descriptors;
use crate::os::mutex::lock;

/// Which clients one set of workers serves, within the limit and beyond it.
#[derive(Debug, Default)]
pub struct Room {
    pub seats: Arc<Seats>,
    crowd: Mutex<Crowd>,
}

/// The clients beyond the limit.
#[derive(Debug, Default)]
struct Crowd {
    /// The oldest first, each with what tells it that its place is another's.
    members: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
}

/// A place beyond the limit, until dropped.
#[derive(Debug)]
pub struct CrowdPlace {
    room: Arc<Room>,
    id: u64,
    lost: oneshot::Receiver<()>,
}

impl Room {
    /// Counts and logs that a client is turned away. Returns why.
    pub fn turn_away(&self, front: &Front) -> NotForwarded {
        let most = front.table().settings.limits.connections;
        let why = NotForwarded::Crowded(match self.seats.taken() < most {
            true => {
                "no client is idle, and they have every descriptor that clients may have (ulimit -n, LimitNOFILE=)".to_owned()
            }
            false => format!("{most} clients are connected (limits.connections), and none of them is idle"),
        });
        front.errors.note(&why, None);
        front.stats.crowded.fetch_add(1, Ordering::Relaxed);
        why
    }

    /// A place beyond the limit; where there is none left, the one that was taken first.
    pub fn join_crowd(self: &Arc<Self>) -> CrowdPlace {
        let (lose, lost) = oneshot::channel();
        let mut crowd = lock(&self.crowd);
        let id = crowd.next;
        crowd.next += 1;
        crowd.members.push_back((id, lose));
        while crowd.members.len() > descriptors::crowd().max(1) {
            crowd.members.pop_front();
        }
        CrowdPlace {
            room: Arc::clone(self),
            id,
            lost,
        }
    }
}

impl CrowdPlace {
    /// Waits until the place is another's.
    pub async fn lost(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for CrowdPlace {
    fn drop(&mut self) {
        let mut crowd = lock(&self.room.crowd);
        crowd.members.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_came_first_loses_the_place_beyond_the_limit() {
        let room = Arc::new(Room::default());
        let mut places: Vec<_> = (0..=descriptors::crowd().max(1))
            .map(|_| room.join_crowd())
            .collect();
        let last = places.len() - 1;
        assert!(places[0].lost().now_or_never().is_some());
        assert!(places[last].lost().now_or_never().is_none());
        places.pop();
        let _again = room.join_crowd();
        assert!(places[1].lost().now_or_never().is_none(), "one had left");
    }
}
