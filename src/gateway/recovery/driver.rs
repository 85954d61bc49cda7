//! The recovery ladder, performed: what it says is remembered, told and shown.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::{Env, whereabouts};
use crate::control::protocol::RecoveryStatus;
use crate::gateway::config_source::Material;
use crate::gateway::generation::one_line;
use crate::gateway::lifecycle::{Event, Fallback, Phase, StartMode};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::record::{Begun, LifeRecord};
use crate::gateway::recovery::{ConfigOrigin, Recovery, RecoveryAction, Rung};
use crate::gateway::run_loop::Gateway;
use crate::gateway::{alert, changed};
use crate::proxy::Refusal;
use crate::state::history::PreviousEnd;
use crate::state::trace::Carried;

/// Where this life stands on the ladder, and its pen.
#[derive(Debug)]
pub struct RecoveryDriver {
    pub record: LifeRecord,
    pub recovery: Recovery,
    /// What the configuration of the current generation is worth; before the first, that of the one
    /// to be tried.
    pub configuration: ConfigOrigin,
    /// How the process before ended.
    pub before: PreviousEnd,
    /// Why the process ends, when somebody wants it to.
    pub wanted: Option<String>,
    /// Why a start failed.
    pub broken: Option<String>,
    /// The rung that was told last.
    told: &'static str,
    /// The generation whose configuration was kept as the last good one.
    kept: u64,
    /// In safe mode: looks at the configuration file.
    watch: Option<JoinHandle<()>>,
    /// What the ladder asked for at the beginning.
    first: Vec<RecoveryAction>,
}

impl RecoveryDriver {
    /// A life that begins by itself, with the lock held, and the restart trace that the one before
    /// left. `usual` is what a failing start leads to elsewhere.
    pub fn begin(
        record: LifeRecord,
        material: &Material,
        usual: Fallback,
    ) -> (Self, StartMode, Option<Carried>) {
        let throttle = &material.loaded.config.recovery.throttle;
        // systemd forgets the result of a run when it begins the next: there is none to be had
        // here.
        let Begun {
            start,
            before,
            trace,
        } = record.begin(throttle, None);
        let (recovery, first) = Recovery::begin(
            start,
            material.configuration.clone(),
            throttle.stable.0,
            Duration::ZERO,
        );
        let entry = recovery.entry(usual);
        (
            Self {
                first,
                before,
                ..Self::new(record, recovery, material.configuration.clone())
            },
            entry,
            trace,
        )
    }

    /// A life that is to take over from one that serves.
    pub fn successor(record: LifeRecord, material: &Material) -> Self {
        let recovery = Recovery::successor(material.loaded.config.recovery.throttle.stable.0);
        Self {
            before: PreviousEnd::HandedOver,
            ..Self::new(record, recovery, material.configuration.clone())
        }
    }

    fn new(record: LifeRecord, recovery: Recovery, configuration: ConfigOrigin) -> Self {
        let told = recovery.shown(Duration::ZERO).rung;
        let before = PreviousEnd::Unknown;
        Self {
            record,
            recovery,
            configuration,
            before,
            wanted: None,
            broken: None,
            told,
            kept: 0,
            watch: None,
            first: Vec::new(),
        }
    }

    /// Writes that the life is under way.
    pub fn started(&self, supervisor: &str) {
        self.record.started(
            supervisor,
            &self.recovery.shown(Duration::ZERO),
            self.before.clone(),
        );
    }

    /// For status; none when normal.
    pub fn status(&self, now: Duration) -> Option<RecoveryStatus> {
        let shown = self.recovery.shown(now);
        Some(RecoveryStatus {
            rung: shown.rung.replace('-', "_"),
            reason: shown.reason?,
            retry_ms: shown.left_ms,
        })
    }
}

impl Gateway {
    /// What the ladder asks for at the beginning of a life.
    pub fn begin_recovery(&mut self) {
        let first = std::mem::take(&mut self.standing.first);
        if let Some(sentence) = self.standing.recovery.sentence() {
            warn!("[gateway] {sentence}");
        }
        self.climb(first);
    }

    /// Follows the lifecycle. After each of its steps, when a sidecar changed, and when the
    /// ladder's time has come.
    pub fn follow_recovery(&mut self) {
        let serves = matches!(
            self.machine.phase(),
            Phase::Serving | Phase::Building(_) | Phase::Handing { .. }
        );
        let ready = serves
            && self.machine.owns()
            && self
                .current
                .as_ref()
                .is_some_and(|current| current.troubles().is_empty());
        if ready && self.machine.phase() == &Phase::Serving {
            // What served at first without being ready.
            self.traces.ready();
        }
        if ready {
            self.keep_good();
        }
        let now = self.now();
        let actions = self
            .standing
            .recovery
            .follow(self.machine.phase(), ready, now);
        self.climb(actions);
    }

    /// The configuration of what serves and is ready will do when a later one will not.
    fn keep_good(&mut self) {
        let number = self.machine.current();
        if self.standing.kept != number && self.standing.configuration == ConfigOrigin::Valid {
            self.standing.kept = number;
            self.standing.record.good(&self.loaded);
        }
    }

    pub fn climb(&mut self, actions: Vec<RecoveryAction>) {
        for action in actions {
            self.standing.record.perform(&action);
            let RecoveryAction::Alert(alert) = action else {
                continue;
            };
            alert::run(
                &self.context,
                &self.loaded.config.recovery.on_give_up,
                &alert,
            );
            if alert.rung == "safe-mode" {
                self.bundle("safe-mode", &alert.reason);
            }
        }
        let front = &self.context.front;
        let standing = &mut self.standing;
        let why = standing.recovery.sentence();
        let refusal = standing.recovery.refused_until().zip(why.clone());
        front.refuse(refusal.map(|(until, why)| Refusal {
            why,
            until: front.started + until,
        }));
        front.set_remark(
            why.clone()
                .filter(|_| matches!(standing.recovery.rung(), Rung::LastGood { .. })),
        );
        let shown = standing.recovery.shown(front.started.elapsed());
        if shown.rung != std::mem::replace(&mut standing.told, shown.rung) {
            match why {
                Some(why) => warn!("[gateway] {why}"),
                None => info!(
                    "[gateway] no longer in the way: the configured sidecars run or are being started"
                ),
            }
            standing.record.rung(&shown);
            self.refresh();
        }
        self.watch_configuration();
    }

    /// In safe mode a change of the file leads to a trial.
    fn watch_configuration(&mut self) {
        let waits = matches!(
            self.standing.recovery.rung(),
            Rung::Safe {
                trial_at: Some(_),
                ..
            }
        );
        match (waits, self.standing.watch.take()) {
            (true, None) => {
                let (path, happened) = (self.configuration_file(), self.happened.clone());
                self.standing.watch = Some(tokio::spawn(async move {
                    changed::changed(&path).await;
                    // When the loop is gone, nothing is tried.
                    let _ = happened.send(LoopEvent::ConfigurationChanged);
                }));
            }
            (true, watch) => self.standing.watch = watch,
            (false, Some(watch)) => watch.abort(),
            (false, None) => {}
        }
    }

    fn configuration_file(&self) -> PathBuf {
        self.loaded
            .path
            .clone()
            .unwrap_or_else(|| whereabouts(&self.context.flags, &Env::real()).path)
    }

    pub fn configuration_changed(&mut self) {
        if self.standing.watch.take().is_some() {
            info!("[gateway] the configuration has changed: trying the sidecars");
            self.step(Event::Recover);
        }
    }

    /// Somebody wants this process to end: the first reason counts.
    pub fn wanted(&mut self, why: &str) {
        self.standing.wanted.get_or_insert_with(|| why.to_owned());
    }

    /// This life goes on, after a successor that was the owner on record.
    pub fn goes_on(&mut self) {
        self.control.open();
        self.record_owner();
        self.standing.wanted = None;
        self.standing.before = PreviousEnd::Unplanned(Some("it had just taken over".to_owned()));
        self.standing.record.take_over();
        self.standing.started(&self.supervision.verdict.to_string());
    }

    /// Writes that the life ends. That of a candidate never began.
    pub fn record_end(&mut self, code: u8, cut: Vec<String>) {
        if !self.machine.owned() {
            return;
        }
        let carried = self.traces.hand_over(
            "supervised",
            "exit",
            &self.supervision.verdict.supervisor.to_string(),
        );
        let standing = &self.standing;
        let reason = match (&standing.wanted, &standing.broken) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(broken)) => format!("cannot start: {}", one_line(broken)),
            (None, None) => "unknown".to_owned(),
        };
        let uptime = self.now().as_millis() as u64;
        // Who starts it by hand, reads why it failed, and tries again, is not slowed down.
        let by_hand =
            self.current.is_none() && standing.broken.is_some() && self.supervision.by_hand();
        standing.record.ended(
            standing.wanted.is_some() || by_hand,
            code,
            &reason,
            uptime,
            cut,
            carried,
        );
    }

    /// Keeps what is known about trouble.
    pub fn bundle(&self, reason: &str, error: &str) {
        let uptime = self.now().as_millis() as u64;
        self.standing.record.bundle(
            reason,
            Some(error),
            uptime,
            serde_json::to_value(self.status()).unwrap_or_default(),
        );
    }
}
