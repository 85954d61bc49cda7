//! Admission: how many client connections may be open at once (`limits.connections`).

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Front;
use super::address_limits::{AddressGuard, PerAddress};
use super::forwarded::Peer;
use super::stats::{GaugeGuard, Stats};
use crate::os::mutex::lock;

/// The limit, shared by all accept loops.
#[derive(Debug)]
pub struct ConnectionLimit {
    slots: Arc<Semaphore>,
    /// How many slots there are, free or taken.
    limit: Mutex<usize>,
}

/// What a client connection occupies, until its socket is closed: a tunnel, too.
#[derive(Debug)]
pub struct ConnectionSlot {
    /// None for a connection beyond the limit: another process had admitted it, or it is turned away.
    _permit: Option<OwnedSemaphorePermit>,
    /// Counts the connection in the statistics.
    _open: GaugeGuard,
    /// Counts it for its client's address.
    address: Option<AddressGuard>,
}

impl ConnectionSlot {
    pub fn new(permit: Option<OwnedSemaphorePermit>, stats: &Arc<Stats>) -> Self {
        Self {
            _permit: permit,
            _open: GaugeGuard::new(stats, |stats| &stats.connections),
            address: None,
        }
    }

    /// Counts a connection that another process had admitted for its client's address.
    pub fn admitted(&mut self, front: &Front, peer: Peer) {
        if let Some((client, _)) = limited(front, peer) {
            let what = PerAddress::Connections;
            self.address = front.addresses.enter(what, client, usize::MAX);
        }
    }

    /// Counts the connection for its client's address; false where that has as many as it may.
    pub fn enter(&mut self, front: &Front, peer: Peer) -> bool {
        let Some((client, most)) = limited(front, peer) else {
            return true;
        };
        self.address = front.addresses.enter(PerAddress::Connections, client, most);
        if self.address.is_none() {
            front.stats.limited(PerAddress::Connections);
            front.limited.log(format_args!(
                "{client} is turned away with 429: it has {most} connections (limits.connections_per_address)"
            ));
        }
        self.address.is_some()
    }
}

/// The address that a connection counts for, and how many that may have, if it is limited.
fn limited(front: &Front, peer: Peer) -> Option<(IpAddr, usize)> {
    let table = front.table();
    let most = table.settings.limits.connections_per_address;
    let client = table.settings.forwarded.limited(peer);
    client.filter(|_| most > 0).map(|client| (client, most))
}

impl ConnectionLimit {
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
        }
    }

    /// Changes the limit. Where more connections are open already, none is closed: the limit falls
    /// only as far as slots are free, and further at the next call.
    pub fn set(&self, connections: usize) {
        let connections = connections.min(Semaphore::MAX_PERMITS);
        let mut limit = lock(&self.limit);
        if connections > *limit {
            self.slots.add_permits(connections - *limit);
            *limit = connections;
        } else {
            *limit -= self.slots.forget_permits(*limit - connections);
        }
    }

    /// Takes a slot, as soon as one is free.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// Takes a slot if one is free now.
    pub fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lower_limit_takes_effect_as_connections_end() {
        let limit = ConnectionLimit::new(2);
        let (first, second) = (limit.try_take(), limit.try_take());
        assert!(second.is_some() && limit.try_take().is_none());
        limit.set(1);
        drop(second);
        limit.set(1);
        assert!(limit.try_take().is_none(), "one is open, one is allowed");
        limit.set(2);
        let third = limit.take().await;
        assert!(third.is_some() && limit.try_take().is_none());
        drop(first);
        assert!(limit.try_take().is_some());
    }

    #[test]
    fn a_limit_may_be_higher_than_a_semaphore_counts() {
        let limit = ConnectionLimit::new(usize::MAX);
        limit.set(usize::MAX);
        assert!(limit.try_take().is_some());
    }
}
