//! What a process and all its descendants hold.

use schemars::JsonSchema;
use serde::Serialize;

use super::stats::{SummaryStats, slope, tenths, thousandths};
use crate::os::process::ProcessTable;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// What all processes of a gateway hold together; null where the system does not tell.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSnapshot {
    /// When: `start`, `before` a restart, `ready` at its end, `settled` after the delay.
    pub phase: &'static str,
    /// When it was taken, in milliseconds since the start of the sample.
    pub ms: f64,
    /// Memory in RAM, in MiB; what processes share counts for each.
    pub rss_mb: Option<f64>,
    /// Open descriptors.
    pub fd_count: Option<u64>,
    pub thread_count: Option<u64>,
    pub process_count: Option<u64>,
    /// Processor time so far, ended children included, in milliseconds.
    pub cpu_ms: Option<u64>,
}

impl ResourceSnapshot {
    /// Of a process, the members of its group, and all their descendants.
    pub fn take(root: u32, phase: &'static str, ms: f64) -> Self {
        let table = ProcessTable::read();
        let processes = table.descendants(root).len() as u64;
        Self {
            phase,
            ms: tenths(ms),
            rss_mb: (table.memory(root)).map(|bytes| thousandths(bytes as f64 / MEBIBYTE)),
            fd_count: table.open_descriptors(root),
            thread_count: table.threads(root),
            process_count: Some(processes).filter(|count| *count > 0),
            cpu_ms: table.cpu_ms(root),
        }
    }
}

/// What one restart more adds: the least-squares slope over the restarts of a sample, as they had settled;
/// null of fewer than two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSlope {
    pub rss_mb_per_restart: Option<f64>,
    pub fd_count_per_restart: Option<f64>,
    pub thread_count_per_restart: Option<f64>,
    pub process_count_per_restart: Option<f64>,
}

impl ResourceSlope {
    pub fn of<'a>(snapshots: impl IntoIterator<Item = &'a ResourceSnapshot>) -> Self {
        let snapshots: Vec<&ResourceSnapshot> = snapshots.into_iter().collect();
        let over = |of: fn(&ResourceSnapshot) -> Option<f64>| {
            let values = snapshots.iter().map(|snapshot| of(snapshot));
            slope(&values.collect::<Option<Vec<f64>>>()?).map(thousandths)
        };
        Self {
            rss_mb_per_restart: over(|it| it.rss_mb),
            fd_count_per_restart: over(|it| it.fd_count.map(|count| count as f64)),
            thread_count_per_restart: over(|it| it.thread_count.map(|count| count as f64)),
            process_count_per_restart: over(|it| it.process_count.map(|count| count as f64)),
        }
    }
}

/// The slopes of several samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlopeSummary {
    pub rss_mb_per_restart: Option<SummaryStats>,
    pub fd_count_per_restart: Option<SummaryStats>,
    pub thread_count_per_restart: Option<SummaryStats>,
    pub process_count_per_restart: Option<SummaryStats>,
}

impl SlopeSummary {
    pub fn of(slopes: &[&ResourceSlope]) -> Self {
        let over = |of: fn(&ResourceSlope) -> Option<f64>| {
            SummaryStats::of(slopes.iter().filter_map(|slope| of(slope)))
        };
        Self {
            rss_mb_per_restart: over(|it| it.rss_mb_per_restart),
            fd_count_per_restart: over(|it| it.fd_count_per_restart),
            thread_count_per_restart: over(|it| it.thread_count_per_restart),
            process_count_per_restart: over(|it| it.process_count_per_restart),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_something() {
        let held = ResourceSnapshot::take(std::process::id(), "start", 1.25);
        assert!(
            held.thread_count >= Some(1) && held.process_count >= Some(1),
            "{held:?}"
        );
        assert!(held.rss_mb > Some(1.0) && held.cpu_ms.is_some() && held.fd_count >= Some(3));
    }

    #[test]
    fn what_a_restart_adds() {
        let at = |rss_mb, fd_count| ResourceSnapshot {
            phase: "settled",
            ms: 0.0,
            rss_mb: Some(rss_mb),
            fd_count,
            thread_count: Some(4),
            process_count: Some(1),
            cpu_ms: None,
        };
        let snapshots = [at(8.0, Some(30)), at(8.5, Some(31)), at(9.0, None)];
        let slope = ResourceSlope::of(&snapshots);
        assert_eq!(slope.rss_mb_per_restart, Some(0.5));
        assert_eq!(slope.thread_count_per_restart, Some(0.0));
        assert_eq!(slope.fd_count_per_restart, None, "one is not known");
        assert_eq!(ResourceSlope::of(&snapshots[..1]), ResourceSlope::default());
    }
}
