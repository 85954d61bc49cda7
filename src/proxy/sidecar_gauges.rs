//! What the metrics tell of each sidecar: where it stands, and what its processes use.

use std::sync::Arc;
use std::time::Duration;

use crate::os::jobs::aside;
use crate::os::process::ProcessTable;

/// How long the processes may be looked through: a machine that has too many for that has other worries, and
/// the page is served without these figures.
const LOOK: Duration = Duration::from_secs(2);

/// The path of the page.
pub const METRICS: &str = "/_gateway/metrics";

/// A sidecar of the generation that serves, as the gateway's run loop knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarGauges {
    pub name: String,
    /// Its process; 0 while none runs.
    pub pid: u32,
    /// The generation for which it was started or restarted last.
    pub generation: u64,
    pub ready: bool,
    pub failing: bool,
    /// Unplanned restarts of this copy.
    pub restarts: u64,
}

/// What the processes of a sidecar use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub memory_bytes: Option<u64>,
    pub cpu_ms: Option<u64>,
}

/// Every one of these, with what it uses now.
pub async fn used_now(sidecars: Arc<Vec<SidecarGauges>>) -> Vec<(SidecarGauges, Usage)> {
    let unknown = |one: &SidecarGauges| (one.clone(), Usage::default());
    let looked = Arc::clone(&sidecars);
    // In a thread: who serves clients does not wait for that.
    let look = move || {
        let processes = ProcessTable::read();
        let usage = |one: &SidecarGauges| Usage {
            memory_bytes: processes.memory(one.pid),
            cpu_ms: processes.cpu_ms(one.pid),
        };
        looked.iter().map(|one| (one.clone(), usage(one))).collect()
    };
    let used = aside(LOOK, look).await;
    used.unwrap_or_else(|| sidecars.iter().map(unknown).collect())
}
