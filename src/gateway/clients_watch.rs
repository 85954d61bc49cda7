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
    before: GenerationInfo,
    tally: RequestTally,
    held: u64,
}

impl ClientsWatch {
    /// Begins to watch the clients of the generation `before`.
    pub fn begin(front: &Front, before: &GenerationInfo) -> Self {
        front.stats.watch_holds();
        Self {
            before: before.clone(),
            tally: front.table().routes.tally(&names([before])),
            held: front.stats.clients_held.load(Ordering::Relaxed),
        }
    }

    /// What clients saw since then of these sidecars, and of those `after`.
    pub fn seen(&self, front: &Front, after: &GenerationInfo) -> ClientsSeen {
        let now = front.table().routes.tally(&names([&self.before, after]));
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

fn names<'a>(generations: impl IntoIterator<Item = &'a GenerationInfo>) -> BTreeSet<&'a str> {
    let sidecars = generations.into_iter().flat_map(|one| &one.sidecars);
    sidecars.map(|(name, _)| name.as_str()).collect()
}
