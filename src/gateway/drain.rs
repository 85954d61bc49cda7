//! The end of an older generation: its work finishes within its budget, then its sidecars stop.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::{info, warn};

use super::progress::Reporter;
use super::unit::{Patience, Unit};
use crate::control::protocol::DrainStatus;
use crate::front::GOODBYE;

/// How often whoever waits for a drain is told how it goes.
const TELL: Duration = Duration::from_secs(1);

/// How often a drain that takes long says in the log what it waits for.
const STILL_DRAINING: Duration = Duration::from_secs(30);

/// One generation on its way out.
#[derive(Debug)]
pub struct Drain {
    /// Its number.
    pub generation: u64,
    units: Vec<(Arc<Unit>, Patience)>,
    begun: Instant,
    report: Reporter,
}

impl Drain {
    /// A drain of these units, each with its patience; `report` tells whoever asked for the restart.
    pub fn new(generation: u64, units: Vec<(Arc<Unit>, Patience)>, report: Reporter) -> Arc<Self> {
        Arc::new(Self { generation, units, begun: Instant::now(), report })
    }

    /// Closes the doors, waits, cuts what is left, stops the sidecars.
    pub async fn run(&self) {
        let units = self.units.iter().map(|(unit, patience)| async {
            unit.backend().set(crate::front::Door::Gone);
            if !finish(unit, *patience, self.begun).await {
                warn!("[gateway] generation {}: drain time is over; cutting {}", self.generation, unit.backend().blockers().join(", "));
                unit.backend().cut();
            }
            unit.stop(unit.spec().stop_timeout.0).await;
        });
        let all = join_all(units);
        tokio::pin!(all);
        let mut told = (0, 0);
        let mut tell = tokio::time::interval(TELL);
        let mut warn = tokio::time::interval_at(self.begun + STILL_DRAINING, STILL_DRAINING);
        loop {
            tokio::select! {
                biased;
                _ = &mut all => break,
                _ = warn.tick() => self.warn(),
                _ = tell.tick() => self.tell(&mut told),
            }
        }
        self.report.tell("drained", format!("generation {} is gone", self.generation));
        info!("[gateway] generation {} is gone after {} ms", self.generation, self.begun.elapsed().as_millis());
    }

    /// Tells what is left, when it changed.
    fn tell(&self, told: &mut (u64, u64)) {
        let DrainStatus { requests, tunnels, .. } = self.status();
        if (requests, tunnels) != std::mem::replace(told, (requests, tunnels)) && requests + tunnels > 0 {
            let left = format!("requests {requests}, tunnels {tunnels}");
            self.report.tell("draining", format!("generation {} finishes its work: {left}", self.generation));
        }
    }

    fn warn(&self) {
        let status = self.status();
        let left = status.left_ms.map_or("without limit".to_owned(), |left| format!("for {} s more", left / 1000));
        warn!("[gateway] generation {} still drains, {left}: {}", self.generation, status.blockers.join(", "));
    }

    /// What it still waits for.
    pub fn status(&self) -> DrainStatus {
        let mut status = DrainStatus { generation: self.generation, pid: 0, requests: 0, tunnels: 0, left_ms: Some(0), blockers: Vec::new() };
        for (unit, patience) in &self.units {
            let counts = unit.backend().counts();
            status.requests += counts.requests as u64;
            status.tunnels += counts.tunnels as u64;
            status.blockers.extend(unit.backend().blockers());
            let limit = patience.requests.map(|time| time.saturating_sub(self.begun.elapsed()).as_millis() as u64);
            status.left_ms = status.left_ms.zip(limit).map(|(a, b)| a.max(b));
        }
        status
    }

    /// The sidecars that are on their way out.
    pub fn units(&self) -> impl Iterator<Item = Arc<Unit>> {
        self.units.iter().map(|(unit, _)| Arc::clone(unit))
    }
}

/// Waits for a unit's work; false when its time is over before. Tunnels are ended at the end of theirs.
async fn finish(unit: &Unit, patience: Patience, begun: Instant) -> bool {
    let backend = unit.backend();
    let tunnels = async {
        tokio::time::sleep_until(begun + patience.tunnels).await;
        backend.end_tunnels();
        // Longer than this only a handshake without an answer takes, which is cut with the rest.
        let _ = tokio::time::timeout(GOODBYE, backend.wait_tunnels()).await;
    };
    let requests = async {
        match patience.requests {
            Some(time) => tokio::time::sleep_until(begun + time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = backend.wait_all() => true,
        _ = async { tokio::join!(requests, tunnels) } => false,
    }
}
