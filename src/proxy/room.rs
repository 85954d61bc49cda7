//! Room for one more client at the limit of connections. The kept client that is silent for longest
//! gives way; where none is silent, the new one gets a place among a few that are turned away.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slab::Slab;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Front;
use super::local_reply::NotForwarded;
use super::progress::ConnectionProgress;
use crate::os::descriptors;
use crate::os::mutex::lock;

/// How long a client that has connected may take to send its first request before its place can be
/// another's: TCP sends a lost packet again after 1 s, and after 2 s more (RFC 6298).
pub const FIRST_REQUEST: Duration = Duration::from_secs(3);

/// Which clients one set of workers serves, within the limit and beyond it.
#[derive(Debug, Default)]
pub struct Room {
    clients: Mutex<Slab<Arc<ConnectionProgress>>>,
    crowd: Mutex<Crowd>,
}

/// The clients beyond the limit.
#[derive(Debug, Default)]
struct Crowd {
    /// The oldest first, each with what tells it that its place is another's.
    members: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
}

/// A client within the limit, until dropped.
#[derive(Debug)]
pub struct OpenClient {
    room: Arc<Room>,
    key: usize,
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
        let why = NotForwarded::Crowded(match self.clients() < most {
            true => {
                "no client is idle, and they have every descriptor that clients may have (ulimit -n, LimitNOFILE=)".to_owned()
            }
            false => format!("{most} clients are connected (limits.connections), and none of them is idle"),
        });
        front.errors.note(&why, None);
        front.stats.crowded.fetch_add(1, Ordering::Relaxed);
        why
    }

    /// A client is served within the limit.
    pub fn enter(self: &Arc<Self>, progress: &Arc<ConnectionProgress>) -> OpenClient {
        OpenClient {
            room: Arc::clone(self),
            key: lock(&self.clients).insert(Arc::clone(progress)),
        }
    }

    /// How many clients are served within the limit.
    pub fn clients(&self) -> usize {
        lock(&self.clients).len()
    }

    /// Asks the client that is silent for longest to give way. Returns whether there is one.
    pub fn make(&self) -> bool {
        let clients = lock(&self.clients);
        let now = Instant::now();
        let silent = clients
            .iter()
            .filter_map(|(_, client)| Some((client.gives_way(now, FIRST_REQUEST)?, client)));
        let oldest = silent.min_by_key(|(since, _)| *since);
        if let Some((_, client)) = &oldest {
            client.displace();
        }
        oldest.is_some()
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

impl Drop for OpenClient {
    fn drop(&mut self) {
        lock(&self.room.clients).try_remove(self.key);
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
    use std::future::poll_fn;

    use super::*;
    use crate::proxy::request_head::HeadLimits;

    #[tokio::test(start_paused = true)]
    async fn the_client_that_is_silent_for_longest_gives_way() {
        let room = Arc::new(Room::default());
        assert!(!room.make(), "nobody is there");
        let clients = [(); 4].map(|()| ConnectionProgress::new());
        let _open = clients.each_ref().map(|client| room.enter(client));
        let [busy, second, first, new] = &clients;
        busy.begin_request(Some(0));
        for client in [first, second] {
            client.received(
                b"GET / HTTP/1.1\r\n\r\n",
                HeadLimits {
                    size: 1024,
                    lines: 10,
                },
            );
            client.begin_request(Some(0));
            client.end_request();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let displaced = |client: &Arc<ConnectionProgress>| {
            poll_fn(|cx| client.poll_displaced(cx))
                .now_or_never()
                .is_some()
        };
        assert!(room.make() && displaced(first) && !displaced(second));
        assert!(room.make() && displaced(second));
        assert!(!room.make() && !displaced(new), "it may be about to send");
        tokio::time::advance(FIRST_REQUEST).await;
        assert!(room.make() && displaced(new));
        assert!(!room.make() && !displaced(busy));
    }

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
