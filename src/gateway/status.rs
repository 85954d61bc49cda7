//! What `status` shows.

use std::sync::atomic::Ordering;

use super::lifecycle::Phase;
use super::recovery::Rung;
use super::run_loop::Gateway;
use crate::control::protocol::{
    HANDOVER_VERSION, PROTOCOL_VERSION, RestartParams, SidecarStatus, Stage, Status,
};
use crate::sidecar::SidecarState;

impl Gateway {
    /// What it is doing, and that in words.
    pub(super) fn stage(&self) -> (Stage, String) {
        let troubles = self
            .current
            .as_ref()
            .map(|generation| generation.troubles())
            .unwrap_or_default();
        match self.machine.phase() {
            Phase::Waiting { .. } => match (
                self.standing.recovery.rung(),
                self.standing.recovery.sentence(),
            ) {
                (Rung::Throttled { .. }, Some(why)) => (Stage::Throttled, why),
                (_, Some(why)) => (Stage::SafeMode, why),
                (_, None) => (Stage::Failed, "waiting before the next start".to_owned()),
            },
            Phase::Starting(..) => {
                let why = self
                    .standing
                    .recovery
                    .sentence()
                    .map_or(String::new(), |why| format!(" ({why})"));
                (
                    Stage::Starting,
                    format!("starting the first generation{why}"),
                )
            }
            Phase::Prepared(_) => (Stage::Starting, "ready to take over".to_owned()),
            Phase::Handing { .. } => (
                Stage::Restarting,
                format!(
                    "generation {} serves while a successor gets ready",
                    self.machine.current()
                ),
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
                format!(
                    "generation {} serves while the next is built",
                    self.machine.current()
                ),
            ),
            Phase::Serving if !troubles.is_empty() => (Stage::Degraded, troubles.join("; ")),
            Phase::Serving if matches!(self.standing.recovery.rung(), Rung::LastGood { .. }) => (
                Stage::Degraded,
                self.standing.recovery.sentence().unwrap_or_default(),
            ),
            Phase::Serving if !self.drains.is_empty() => {
                let older: Vec<String> = self
                    .drains
                    .iter()
                    .map(|drain| drain.generation.to_string())
                    .collect();
                let text = format!(
                    "generation {} serves; {} finishes its work",
                    self.machine.current(),
                    older.join(", ")
                );
                (Stage::Draining, text)
            }
            Phase::Serving => (
                Stage::Ready,
                format!("generation {} serves", self.machine.current()),
            ),
        }
    }

    pub(super) fn status(&self) -> Status {
        let (stage, detail) = self.stage();
        let front = &self.context.front;
        let stats = &front.stats;
        Status {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.loaded.instance.clone(),
            pid: std::process::id(),
            handover: HANDOVER_VERSION,
            program: Some(self.program.path().display().to_string()),
            stage,
            detail,
            uptime_ms: front.started.elapsed().as_millis() as u64,
            generation: self.machine.current(),
            supervisor: (&self.supervision.verdict).into(),
            strategy: self
                .choice(&RestartParams::default())
                .map_or_else(|refusal| refusal.why, |choice| choice.to_string())
                .into(),
            listeners: self.listeners.addresses(),
            config: self.loaded.path.as_ref().map(|path| {
                std::path::absolute(path)
                    .unwrap_or_else(|_| path.clone())
                    .display()
                    .to_string()
            }),
            state_dir: self.paths.state.display().to_string(),
            connections: stats.connections.load(Ordering::Relaxed),
            requests: stats.requests.load(Ordering::Relaxed),
            tunnels: stats.tunnels.load(Ordering::Relaxed),
            held: stats.held.load(Ordering::Relaxed),
            sidecars: self.sidecars(),
            drainers: self
                .drains
                .iter()
                .map(|drain| drain.status())
                .chain(self.predecessors.status())
                .collect(),
            leases: self.leases.status(),
            recovery: self.standing.status(front.started.elapsed()),
            last_restart: self.answers.last.clone(),
        }
    }

    fn sidecars(&self) -> Vec<SidecarStatus> {
        let Some(current) = &self.current else {
            return Vec::new();
        };
        let status = |unit: &std::sync::Arc<super::slot::Slot>| {
            let sidecar = unit.sidecar();
            let (state, pid, cause) = match sidecar.state() {
                SidecarState::Starting { pid, hint } => {
                    ("starting", pid, hint.map(|hint| hint.text))
                }
                SidecarState::Ready { pid, .. } => ("ready", pid, None),
                SidecarState::Backoff { failure } => ("backoff", 0, Some(failure.cause.clone())),
                SidecarState::Stopping { pid } => ("stopping", pid, None),
                SidecarState::Stopped { failure } => {
                    ("stopped", 0, failure.map(|failure| failure.cause.clone()))
                }
            };
            SidecarStatus {
                name: unit.name().to_owned(),
                state: state.to_owned(),
                cause,
                pid,
                port: sidecar.port(),
                restarts: sidecar.restarts(),
                command: self.context.redactor.command(&unit.spec().command),
            }
        };
        current.slots.values().map(status).collect()
    }
}
