//! How things stand: for `status`, for the service manager and for `/readyz`.
//!
//! These are methods of [`Gateway`] because a status shows every component. They change nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gateway;
use jiff::Timestamp;

use crate::control::protocol::{
    HANDOVER_VERSION, PROTOCOL_VERSION, RestartParams, SidecarStateName, SidecarStatus, Stage,
    Status,
};
use crate::gateway::context::GatewayContext;
use crate::gateway::lifecycle::Phase;
use crate::gateway::recovery::Rung;
use crate::gateway::slot::Slot;
use crate::os::process::ProcessTable;
use crate::proxy::Reason;
use crate::sidecar::{GOOD, SidecarState};

impl Gateway {
    /// What it is doing, also as a sentence.
    pub(super) fn stage(&self) -> (Stage, String) {
        let serves = self.machine.current();
        let ladder = &self.recovery.ladder;
        match self.machine.phase() {
            Phase::Waiting { .. } => match (ladder.rung(), ladder.sentence()) {
                (Rung::Throttled { .. }, Some(why)) => (Stage::Throttled, why),
                (_, Some(why)) => (Stage::SafeMode, why),
                (_, None) => (Stage::Failed, "waiting before the next start".to_owned()),
            },
            Phase::Starting(..) => {
                let why = ladder.sentence().map(|why| format!(" ({why})"));
                let text = "starting the first generation".to_owned();
                (Stage::Starting, text + &why.unwrap_or_default())
            }
            Phase::Prepared(_) => (Stage::Starting, "ready to take over".to_owned()),
            Phase::Handing { .. } => (
                Stage::Restarting,
                format!("generation {serves} serves while a successor gets ready"),
            ),
            Phase::Yielded { .. } => (
                Stage::Draining,
                "another process serves; this one finishes its work".to_owned(),
            ),
            Phase::Leaving { .. } => (
                Stage::Draining,
                "finishing its work, then the service manager starts the next".to_owned(),
            ),
            Phase::Stopping { .. } | Phase::Ended => (
                Stage::Stopping,
                "finishing what is under way, then gone".to_owned(),
            ),
            Phase::Building(_) => (
                Stage::Restarting,
                format!("generation {serves} serves while the next is built"),
            ),
            Phase::Serving => self.stage_of_serving(),
        }
    }

    fn stage_of_serving(&self) -> (Stage, String) {
        let serves = self.machine.current();
        let troubles = self.generations.troubles();
        let failing = self.generations.failing();
        let stalled = self.context.front.stalled();
        let older = self.generations.busy_numbers();
        if !troubles.is_empty() {
            (Stage::Degraded, troubles.join("; "))
        } else if !failing.is_empty() {
            let minutes = GOOD.as_secs() / 60;
            let text = format!(
                "{}; it serves now, and counts as well after {minutes} min of that, or at once after `gatewayctl recover`",
                failing.join("; ")
            );
            (Stage::Degraded, text)
        } else if !stalled.is_empty() {
            (Stage::Degraded, stalled.join("; "))
        } else if matches!(self.recovery.ladder.rung(), Rung::LastGood { .. }) {
            let why = self.recovery.ladder.sentence();
            (Stage::Degraded, why.unwrap_or_default())
        } else {
            // An older one that still has work takes nothing from the one that serves.
            let older: Vec<String> = older.iter().map(ToString::to_string).collect();
            let older = (!older.is_empty()).then(|| match &older[..] {
                [one] => format!("generation {one} finishes its work"),
                several => format!("generations {} finish their work", several.join(", ")),
            });
            let all: Vec<String> = std::iter::once(format!("generation {serves} serves"))
                .chain(older)
                .chain(self.generations.optional_troubles())
                .chain(self.refused_copies.remarks())
                .collect();
            (Stage::Ready, all.join("; "))
        }
    }

    /// Whether the service manager may take this process for ready: its own generation serves, or
    /// nothing but the front door is to serve.
    pub(super) fn is_serving(&self) -> bool {
        matches!(
            self.machine.phase(),
            Phase::Serving
                | Phase::Building(_)
                | Phase::Handing { .. }
                | Phase::Waiting { .. }
                | Phase::Leaving { .. }
        )
    }

    /// Why `/readyz` says that this process is not ready, empty when it is; none where what it said
    /// last stays. `detail` tells what the process is doing.
    pub(super) fn health(&self, detail: &str) -> Option<Vec<Reason>> {
        let reason = match self.machine.phase() {
            // In a planned restart, requests are served or wait: that is ready.
            Phase::Building(_) | Phase::Handing { .. } => return None,
            Phase::Serving => {
                let troubles = self.generations.troubles().into_iter();
                let word = "a server is not ready";
                return Some(troubles.map(|why| Reason { word, why }).collect());
            }
            Phase::Waiting { .. } => {
                let (word, why) = ("waiting", detail.to_owned());
                return Some(vec![Reason { word, why }]);
            }
            Phase::Starting(..) | Phase::Prepared(_) => "starting",
            // Clients whose connection is still here learn that another process is better.
            Phase::Yielded { .. } | Phase::Leaving { .. } => "finishing its work",
            Phase::Stopping { .. } | Phase::Ended => "stopping",
        };
        Some(vec![Reason::new(reason)])
    }

    /// What `/readyz` calls degraded, though every request is served.
    pub(super) fn remark(&self) -> Option<Reason> {
        let mut remarks = self.generations.failing();
        let mut word = "a server fails again and again";
        let ladder = &self.recovery.ladder;
        if matches!(ladder.rung(), Rung::LastGood { .. }) {
            word = "the last good configuration serves";
            remarks.extend(ladder.sentence());
        }
        let optional = self.generations.optional_troubles();
        if remarks.is_empty() && !optional.is_empty() {
            word = "a server that is not required is not ready";
            remarks = optional;
        }
        let why = remarks.join("; ");
        (!why.is_empty()).then_some(Reason { word, why })
    }

    pub(super) fn status(&self) -> Status {
        let (stage, detail) = self.stage();
        let front = &self.context.front;
        let stats = &front.stats;
        let loaded = &self.material.loaded;
        let processes = ProcessTable::read();
        let current = self.generations.current().into_iter();
        let sidecars = current
            .flat_map(|current| current.slots.values())
            .map(|slot| {
                let refused = self.refused_copies.of(slot.name());
                let status = sidecar_status(slot, refused, &self.context);
                SidecarStatus {
                    memory_bytes: processes.memory(status.pid),
                    cpu_ms: processes.cpu_ms(status.pid),
                    ..status
                }
            });
        Status {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: loaded.instance.clone(),
            pid: std::process::id(),
            handover: HANDOVER_VERSION,
            program: Some(self.successor.program.path().display().to_string()),
            stage,
            detail,
            uptime_ms: front.started.elapsed().as_millis() as u64,
            generation: self.machine.current(),
            supervisor: self.supervision.verdict().into(),
            strategy: self
                .supervision
                .choose(
                    &loaded.config,
                    &RestartParams::default(),
                    self.predecessor.predecessors.len(),
                    self.machine.phase(),
                    self.front_door.listeners.origin(),
                )
                .map_or_else(|refusal| refusal.why, |choice| choice.to_string())
                .into(),
            listeners: self.front_door.listeners.addresses(),
            config: loaded.path.as_ref().map(|path| {
                std::path::absolute(path)
                    .unwrap_or_else(|_| path.clone())
                    .display()
                    .to_string()
            }),
            config_read_at: Some(loaded.read_at.to_string()),
            state_dir: self.paths.state.display().to_string(),
            connections: stats.connections.load(Ordering::Relaxed),
            requests: stats.requests.load(Ordering::Relaxed),
            tunnels: stats.tunnels.load(Ordering::Relaxed),
            held: stats.held.load(Ordering::Relaxed),
            sidecars: sidecars.collect(),
            drainers: self
                .generations
                .draining_in(&processes)
                .chain(self.predecessor.predecessors.status_in(&processes))
                .collect(),
            leases: self.leases.status(),
            recovery: self.recovery.status(front.started.elapsed()),
            last_restart: self.requests.last.clone(),
        }
    }
}

pub(super) fn sidecar_status(
    slot: &Arc<Slot>,
    refused_copies: u32,
    context: &GatewayContext,
) -> SidecarStatus {
    let sidecar = slot.sidecar();
    let (state, pid, cause) = match sidecar.state() {
        SidecarState::Starting { pid, hint } => {
            (SidecarStateName::Starting, pid, hint.map(|hint| hint.text))
        }
        SidecarState::Ready { pid, other, .. } => {
            let other = other.map(|other| other.to_string());
            (SidecarStateName::Ready, pid, other)
        }
        SidecarState::Backoff { failure } => {
            (SidecarStateName::Backoff, 0, Some(failure.cause.clone()))
        }
        SidecarState::Stopping { pid } => (SidecarStateName::Stopping, pid, None),
        SidecarState::Stopped { failure } => (
            SidecarStateName::Stopped,
            0,
            failure.map(|failure| failure.cause.clone()),
        ),
    };
    SidecarStatus {
        name: slot.name().to_owned(),
        state,
        cause,
        pid,
        port: sidecar.port(),
        exposed: (sidecar.exposed().iter())
            .map(ToString::to_string)
            .collect(),
        generation: slot.generation(),
        since: Some(slot.since().to_string()),
        restarts: sidecar.restarts(),
        deaths: sidecar.deaths(),
        last_death: sidecar.last_death(),
        last_death_at: (sidecar.last_death_age())
            .and_then(|age| Timestamp::now().checked_sub(age).ok())
            .map(|at| at.to_string()),
        last_words: (sidecar.last_failure())
            .map(|failure| failure.last_words.clone())
            .unwrap_or_default(),
        failing: sidecar.failing().is_some(),
        refused_copies,
        memory_bytes: None,
        cpu_ms: None,
        command: context.redactor.command(&slot.spec().command),
    }
}
