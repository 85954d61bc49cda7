//! What clients see while a restart is under way: the front door's counters, from when it was asked for.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::protocol::GenerationInfo;
use crate::proxy::{ClientFailure, Front, RequestTally};
use crate::state::clients_seen::ClientsSeen;
use crate::text::words::Words;

/// How long a verdict waits for the requests that were held: most are answered as soon as the next
/// server is ready, and nobody shall wait long for the slow ones.
pub const SETTLE: Duration = Duration::from_secs(3);

/// The counters when a restart was asked for.
#[derive(Debug)]
pub struct ClientsWatch {
    sidecars: WatchedClients,
    tally: RequestTally,
    held: u64,
}

/// Whose clients are watched.
#[derive(Debug)]
enum WatchedClients {
    /// Those of this generation, and of the next one.
    All(GenerationInfo),
    /// This one alone: what happens to others is none of its restart's doing.
    One(String),
}

impl WatchedClients {
    fn names<'a>(&'a self, after: Option<&'a GenerationInfo>) -> BTreeSet<&'a str> {
        match self {
            Self::One(name) => BTreeSet::from([name.as_str()]),
            Self::All(before) => {
                let sidecars = [before].into_iter().chain(after);
                let sidecars = sidecars.flat_map(|one| &one.sidecars);
                sidecars.map(|(name, _)| name.as_str()).collect()
            }
        }
    }
}

impl ClientsWatch {
    /// Begins to watch the clients of the generation `before`, or those of one `sidecar`.
    pub fn begin(front: &Front, before: &GenerationInfo, sidecar: Option<&str>) -> Self {
        front.stats.watch_holds();
        let sidecars = match sidecar {
            Some(name) => WatchedClients::One(name.to_owned()),
            None => WatchedClients::All(before.clone()),
        };
        Self {
            tally: front.table().routes.tally(&sidecars.names(None)),
            sidecars,
            held: front.stats.clients_held.load(Ordering::Relaxed),
        }
    }

    /// What clients saw since then of these sidecars, and of those `after`.
    pub fn seen(&self, front: &Front, after: &GenerationInfo) -> ClientsSeen {
        let now = front
            .table()
            .routes
            .tally(&self.sidecars.names(Some(after)));
        let before = &self.tally;
        let failed = ClientFailure::ALL.iter().filter_map(|kind| {
            let place = *kind as usize;
            let times = now.failed[place].saturating_sub(before.failed[place]);
            (times > 0).then(|| (kind.word().to_owned(), times))
        });
        let held = front.stats.clients_held.load(Ordering::Relaxed);
        ClientsSeen {
            answered: now.answered.saturating_sub(before.answered),
            failed: failed.collect(),
            held: held.saturating_sub(self.held),
            longest_hold_ms: front.stats.longest_hold_ms(),
            streams_ended: now.streams_ended.saturating_sub(before.streams_ended),
            tunnels_ended: now.tunnels_ended.saturating_sub(before.tunnels_ended),
        }
    }
}
