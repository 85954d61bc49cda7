//! The recovery ladder, performed: what it says is remembered, told and shown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{ConfigOrigin, Recovery, RecoveryAction, Rung};
use crate::control::protocol::{RecoveryRung, RecoveryStatus};
use crate::gateway::alert::{self, AlertKind};
use crate::gateway::building::one_line;
use crate::gateway::changed::{self, SeenVersion};
use crate::gateway::config_source::Material;
use crate::gateway::context::GatewayContext;
use crate::gateway::lifecycle::{Fallback, StartMode};
use crate::gateway::outbox::Outbox;
use crate::gateway::record::LifeRecord;
use crate::proxy::{Front, Reason, Refusal};
use crate::state::history::PreviousEnd;
use crate::state::terms::{EndReason, RungName};
use crate::state::trace::Carried;

/// Where this life stands on the ladder, and its record.
#[derive(Debug)]
pub struct RecoveryDriver {
    pub record: LifeRecord,
    pub ladder: Recovery,
    /// How the process before ended.
    before: PreviousEnd,
    /// Why the process ends, when somebody wants it to.
    wanted: Option<EndReason>,
    /// Why a start failed.
    broken: Option<String>,
    /// The rung that was told last.
    told: RungName,
    /// The generation whose configuration was kept as the last good one.
    kept: u64,
    /// In safe mode: looks at the configuration file.
    watch: Option<AbortOnDropHandle<()>>,
    /// In safe mode: the configuration file as it was seen last, whatever is being tried meanwhile.
    seen: Arc<SeenVersion>,
}

/// How the life of this process ends.
#[derive(Debug)]
pub struct LifeEnd {
    pub code: u8,
    pub uptime: Duration,
    /// What a forced end cut.
    pub cut: Vec<String>,
    /// The trace that goes on in the next process.
    pub trace: Option<Carried>,
    /// Nothing ever served, and nobody answers the end with a new start by himself.
    pub failed_by_hand: bool,
}

impl RecoveryDriver {
    /// A life that begins by itself, with the lock held: its first mode, what the ladder asks for,
    /// and the restart trace that the life before left. `usual` is what a failing start leads to
    /// elsewhere.
    pub fn begin(
        record: LifeRecord,
        material: &Material,
        usual: Fallback,
    ) -> (Self, StartMode, Vec<RecoveryAction>, Option<Carried>) {
        let throttle = &material.loaded.config.recovery.throttle;
        // systemd forgets the result of a run when it begins the next: there is none to be had
        // here.
        let begun = record.begin(throttle, None);
        let configuration = material.configuration.clone();
        let (ladder, first) = Recovery::begin(begun.start, configuration, throttle.stable.0);
        let mode = ladder.entry(usual);
        let driver = Self::new(record, ladder, begun.before);
        (driver, mode, first, begun.trace)
    }

    /// A life that is to take over from one that serves.
    pub fn successor(record: LifeRecord, material: &Material) -> Self {
        let ladder = Recovery::successor(material.loaded.config.recovery.throttle.stable.0);
        Self::new(record, ladder, PreviousEnd::HandedOver)
    }

    fn new(record: LifeRecord, ladder: Recovery, before: PreviousEnd) -> Self {
        let told = ladder.shown(Duration::ZERO).rung;
        Self {
            record,
            ladder,
            before,
            wanted: None,
            broken: None,
            told,
            kept: 0,
            watch: None,
            seen: Arc::default(),
        }
    }

    /// Whether sidecars waited before they were started: the configuration may have changed meanwhile.
    pub fn has_waited(&self) -> bool {
        matches!(
            self.ladder.rung(),
            Rung::Throttled { .. } | Rung::Safe { .. }
        )
    }

    /// For status; none when normal.
    pub fn status(&self, now: Duration) -> Option<RecoveryStatus> {
        let shown = self.ladder.shown(now);
        Some(RecoveryStatus {
            rung: RecoveryRung::of(shown.rung)?,
            reason: shown.reason?,
            retry_ms: shown.left_ms,
        })
    }
}

/// The ladder.
impl RecoveryDriver {
    /// The configuration of what serves and is ready will do when a later one will not.
    pub fn keep_good(&mut self, generation: u64, material: &Material) {
        if self.kept != generation && material.configuration == ConfigOrigin::Valid {
            self.kept = generation;
            self.record.good(&material.loaded);
        }
    }

    /// Does what the ladder asks for. When that is an alert of safe mode, the reason comes back, for
    /// the caller to keep a bundle about it.
    pub fn perform(
        &self,
        action: RecoveryAction,
        context: &Arc<GatewayContext>,
        on_give_up: &[String],
    ) -> Option<String> {
        self.record.perform(&action);
        let RecoveryAction::Alert(alert) = action else {
            return None;
        };
        alert::run(context, on_give_up, &alert);
        (alert.kind == AlertKind::Rung(RungName::SafeMode)).then_some(alert.reason)
    }

    /// Shows clients where the ladder stands. True when the rung is another than at the last call,
    /// which is then told and recorded.
    pub fn show(&mut self, front: &Front) -> bool {
        let why = self.ladder.sentence();
        let refusal = self.ladder.refused_until().zip(why.clone());
        let word = match self.ladder.rung() {
            Rung::Throttled { .. } => "throttled",
            _ => "safe mode",
        };
        front.refuse(refusal.map(|(until, why)| Refusal {
            reason: Reason { word, why },
            until: front.started + until,
        }));
        let shown = self.ladder.shown(front.started.elapsed());
        if shown.rung == std::mem::replace(&mut self.told, shown.rung) {
            return false;
        }
        match why {
            Some(why) => warn!("[gateway] {why}"),
            None => info!(
                "[gateway] no longer in the way: the configured sidecars run or are being started"
            ),
        }
        self.record.rung(&shown);
        true
    }

    /// In safe mode a change of the configuration file leads to a trial: `changed` hears of it.
    pub fn watch_configuration(&mut self, file: impl FnOnce() -> PathBuf, changed: Outbox<()>) {
        let Rung::Safe { trial_at, .. } = self.ladder.rung() else {
            self.watch = None;
            self.seen = Arc::default();
            return;
        };
        if trial_at.is_none() {
            self.watch = None;
        } else if self.watch.is_none() {
            let (path, seen) = (file(), Arc::clone(&self.seen));
            self.watch = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                changed::changed(&path, &seen).await;
                changed.send(());
            })));
        }
    }

    /// The configuration file has changed; tells whether that leads to a trial.
    pub fn configuration_changed(&mut self) -> bool {
        let watched = self.watch.take().is_some();
        if watched {
            info!("[gateway] the configuration has changed: trying the sidecars");
        }
        watched
    }
}

/// The record of this life.
impl RecoveryDriver {
    /// Writes that the life is under way.
    pub fn started(&self, supervisor: &str) {
        self.record.started(
            supervisor,
            &self.ladder.shown(Duration::ZERO),
            self.before.clone(),
        );
    }

    /// The service is this process's, after one that lived until now.
    pub fn take_over(&self, supervisor: &str) {
        self.record.take_over();
        self.started(supervisor);
    }

    /// This life goes on, after a successor that was the owner on record.
    pub fn go_on(&mut self, supervisor: &str) {
        self.wanted = None;
        self.before = PreviousEnd::Unplanned(Some("it had just taken over".to_owned()));
        self.take_over(supervisor);
    }

    /// Somebody wants this process to end: the first reason counts.
    pub fn set_exit_reason(&mut self, why: EndReason) {
        self.wanted.get_or_insert(why);
    }

    /// Remembers why a start failed.
    pub fn start_failed(&mut self, why: &str) {
        self.ladder.failed(why);
        self.broken = Some(why.to_owned());
    }

    /// A generation serves.
    pub fn start_succeeded(&mut self) {
        self.broken = None;
    }

    /// Writes that the life ends.
    pub fn end(&self, end: LifeEnd) {
        let reason = match (&self.wanted, &self.broken) {
            (Some(wanted), _) => wanted.clone(),
            (None, Some(broken)) => EndReason::CannotStart(one_line(broken)),
            (None, None) => EndReason::Other("unknown".to_owned()),
        };
        // Who starts it by hand, reads why it failed and tries again is not slowed down.
        let by_hand = end.failed_by_hand && self.broken.is_some();
        self.record.ended(
            self.wanted.is_some() || by_hand,
            end.code,
            &reason,
            end.uptime.as_millis() as u64,
            end.cut,
            end.trace,
        );
    }
}
