//! The service manager: what is known about it, what it is told, and how long it lets an end take.

use std::time::Duration;

use tracing::warn;

use super::budget::{EXTEND_BY, EndBudget, KillTime, PlannedEnd, Surroundings};
use super::lifecycle::{FORCE_EXIT, Phase};
use super::listeners::ListenerOrigin;
use super::outbox::Outbox;
use super::strategy::{StrategyChoice, StrategyFacts, StrategyRefusal, choose};
use crate::config::{Config, Env};
use crate::control::protocol::RestartParams;
use crate::launchd::own_job::{self, JobAnswer, JobFacts};
use crate::launchd::{EXIT_TIMEOUT_LEAST, throttle};
use crate::os::process::OwnProgram;
use crate::supervisor::{Evidence, Supervisor, SupervisorVerdict, detect};
use crate::systemd::Notifier;
use crate::systemd::unit::{UnitFacts, facts_of};

/// FileDescriptorStoreMax= of our units, for a service manager that does not answer.
const FD_STORE_MAX: usize = 64;

/// The room for silent clients that is suggested besides the listeners: what our units leave with
/// 16 of them.
const CLIENTS_ROOM: usize = 48;

/// What the service managers of this machine say about our process.
#[derive(Debug, Default)]
pub struct ManagerReport {
    /// systemd about our unit; none when it does not answer.
    unit: Option<Box<UnitFacts>>,
    /// launchd about our job.
    job: JobAnswer,
}

/// How often systemd is asked about our unit, and how long after one answer: on a busy machine it takes
/// a moment until it holds what it was told to. Where the bus does not answer a temporary user, nothing
/// changes.
const TRIES: usize = 3;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Who supervises this process, and what they have heard from it.
#[derive(Debug)]
pub struct Supervision {
    instance: String,
    verdict: SupervisorVerdict,
    /// What systemd says about our unit; none while it has not answered.
    unit: Option<UnitFacts>,
    /// What launchd says about our job.
    job: JobAnswer,
    /// Our program, to know whether it was replaced.
    program: Option<OwnProgram>,
    /// What a predecessor knew.
    handed: Option<SupervisorVerdict>,
    /// Whether the process in front of this one, whose pid the outside knew, is gone.
    front_lost: bool,
    no_respawn: bool,
    /// For when the service manager listens to this process.
    notifier: Notifier,
    /// Whether the service manager listens to the successor instead.
    successor_is_main: bool,
    /// A RELOADING=1 waits for its READY=1.
    reloading: bool,
    /// systemd has heard READY=1.
    announced: bool,
    /// The service manager waits for our end: its clock runs.
    end_asked: bool,
    /// The whole machine, or the user's manager, goes down.
    machine_stopping: bool,
}

impl Supervision {
    /// What can be told without asking anybody. `handed` is what a predecessor knew.
    pub fn new(instance: &str, handed: Option<SupervisorVerdict>, notifier: Notifier) -> Self {
        let env = Env::real();
        let verdict = detect(&Evidence {
            handed: handed.clone(),
            ..Evidence::gather(&env, instance)
        });
        let no_respawn = env.is_on("GATEWAY_NO_RESPAWN");
        Self {
            instance: instance.to_owned(),
            verdict,
            unit: None,
            job: JobAnswer::Unknown,
            program: OwnProgram::look(),
            handed,
            front_lost: false,
            no_respawn,
            notifier,
            successor_is_main: false,
            reloading: false,
            announced: false,
            end_asked: false,
            machine_stopping: false,
        }
    }

    /// Asks the service managers about our process, in a task.
    pub fn ask(&self, answer: Outbox<ManagerReport>) {
        self.ask_for_listeners(answer, 1);
    }

    /// The same, and again where it did not answer in time or does not hold our listeners yet.
    fn ask_for_listeners(&self, answer: Outbox<ManagerReport>, tries: usize) {
        let instance = self.instance.clone();
        tokio::spawn(async move {
            for _ in 0..tries {
                let env = Env::real();
                let (unit, job) =
                    tokio::join!(facts_of(std::process::id()), own_job::find(&env, &instance));
                let holds = unit.as_ref().is_some_and(UnitFacts::holds_listeners);
                let unit = unit.map(Box::new);
                if !answer.send(ManagerReport { unit, job }) || holds {
                    return;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        });
    }

    /// They have answered. systemd is to keep so many listeners.
    pub fn learn(&mut self, ManagerReport { unit, job }: ManagerReport, listeners: usize) {
        if let Some(unit) = &unit
            && self.unit.is_some()
            && self.holds_listeners()
            && (unit.fd_store_max as usize) < listeners
        {
            warn!(
                "[gateway] systemd keeps {} of {listeners} listeners: a restart of the process closes the others; set FileDescriptorStoreMax={} in {} (systemctl edit {})",
                unit.fd_store_max,
                listeners + CLIENTS_ROOM,
                unit.unit,
                unit.unit
            );
        }
        self.unit = unit.map(|unit| *unit);
        // No answer takes nothing back.
        if job != JobAnswer::Unknown {
            self.job = job;
        }
        self.verdict = detect(&Evidence {
            manager: self.unit.clone(),
            job: self.job.clone(),
            handed: self.handed.clone(),
            ..Evidence::gather(&Env::real(), &self.instance)
        });
        if self.front_lost {
            self.lose_front();
        }
    }

    /// The process in front of this one has ended: who followed it does not know this one. systemd
    /// and launchd end what is left of it.
    pub fn lose_front(&mut self) {
        self.front_lost = true;
        let followed = &self.verdict.supervisor;
        if !followed.tracks_pid() || matches!(followed, Supervisor::Launchd { .. }) {
            return;
        }
        self.verdict = SupervisorVerdict {
            reason: format!("{followed} followed the process in front, which has ended"),
            supervisor: Supervisor::Init,
        };
    }

    pub fn verdict(&self) -> &SupervisorVerdict {
        &self.verdict
    }

    /// Whether somebody answers our end with a new start.
    pub fn is_service(&self) -> bool {
        self.verdict.supervisor.is_service()
    }

    /// Whether a person sits before this process and sees how it ends.
    pub fn at_terminal(&self) -> bool {
        self.verdict.supervisor == Supervisor::Terminal
    }

    /// Whether systemd ends what is left when its main process dies, and starts the next one; a
    /// waiter in front of this process is that main process.
    pub fn by_systemd(&self) -> bool {
        matches!(self.verdict.supervisor, Supervisor::Systemd { .. })
    }

    /// Whether the service manager keeps the listeners.
    pub fn holds_listeners(&self) -> bool {
        self.notifier.active()
    }

    /// How many descriptors its fd store takes besides so many listeners.
    pub fn fd_store_room(&self, listeners: usize) -> usize {
        let max = self.unit.as_ref().map(|unit| unit.fd_store_max as usize);
        max.unwrap_or(FD_STORE_MAX).saturating_sub(listeners)
    }

    /// Where a restart would put the next generation now, and why.
    pub fn choose(
        &self,
        config: &Config,
        params: &RestartParams,
        drainers: usize,
        phase: &Phase,
        listeners: ListenerOrigin,
    ) -> Result<StrategyChoice, StrategyRefusal> {
        let unit = self.unit.as_ref();
        let by_launchd =
            self.job().is_some_and(|job| job.keep_alive) && listeners == ListenerOrigin::PassedOn;
        choose(&StrategyFacts {
            mode: config.restart.mode,
            verdict: &self.verdict,
            fresh: params.fresh,
            update: params.update,
            no_respawn: self.no_respawn,
            can_speak_mainpid: self.notifier().active()
                && unit.is_none_or(|unit| unit.hears_main()),
            holder: match (unit, &self.verdict.supervisor) {
                _ if by_launchd => Some(true),
                (None, Supervisor::Systemd { .. }) => None,
                _ => Some(unit.is_some_and(|unit| unit.relaunches() && unit.holds_listeners())),
            },
            other_identity: self.job().is_some_and(|job| job.is_pinned)
                && self.program.as_ref().is_none_or(OwnProgram::is_replaced),
            drainers,
            by_own_means: !params.force
                && config.sidecar.values().any(|spec| spec.reload.is_some()),
            waits: matches!(phase, Phase::Waiting { .. }),
            sticky: !params.force && config.sidecar.values().any(|spec| spec.sticky.is_some()),
        })
    }
}

/// What it is told.
impl Supervision {
    /// Speaks to the service manager; to nobody while the successor is the main process.
    pub fn notifier(&self) -> Notifier {
        if self.successor_is_main {
            Notifier::from_parts(None, 0)
        } else {
            self.notifier
        }
    }

    /// From here on this process is the main one.
    pub fn become_main(&mut self, notifier: Notifier) {
        self.notifier = notifier;
        self.successor_is_main = false;
    }

    /// Makes the successor the main process: from here on only that one is listened to. What it says
    /// counts only after the end of what comes back.
    pub fn make_main(&mut self, successor: u32) -> impl Future<Output = ()> + Send + use<> {
        let status = format!("pid {successor} takes over");
        self.notifier().main_pid(successor, &status);
        self.successor_is_main = true;
        Notifier::flushed()
    }

    /// The successor did not take over.
    pub fn take_back(&mut self) {
        self.successor_is_main = false;
    }

    pub fn begin_reload(&mut self) {
        self.reloading = true;
        self.notifier().reloading("reloading the configuration");
    }

    /// A RELOADING=1 that was sent gets its READY=1, whatever came of it.
    pub fn finish_reload(&mut self, detail: &str) {
        if std::mem::take(&mut self.reloading) {
            self.notifier().ready(detail);
        }
    }

    /// Brings its view up to date while this process serves; the first time it hears READY=1, and is
    /// asked about our unit: only now does it have what it is to keep for the next process.
    pub fn serving(&mut self, detail: &str, answer: impl FnOnce() -> Outbox<ManagerReport>) {
        if self.announced {
            self.working(detail);
        } else {
            self.announced = true;
            let tries = if self.notifier.active() { TRIES } else { 1 };
            self.ask_for_listeners(answer(), tries);
            self.notifier().ready(detail);
        }
    }

    /// Brings its view up to date, once it has heard that the service is there.
    pub fn working(&self, detail: &str) {
        if self.announced && !self.reloading {
            self.notifier().status(detail);
        }
    }

    pub fn extend(&self) {
        self.notifier().extend(EXTEND_BY);
    }
}

/// How long an end may take.
impl Supervision {
    /// The service manager has asked for our end, to start the next process.
    pub fn end_asked(&mut self, machine_stopping: bool) {
        self.end_asked = true;
        self.machine_stopping = machine_stopping;
    }

    /// The end that makes room for the next start, asked for by the service manager or not.
    pub fn end_budget(&self, drain: Option<Duration>) -> EndBudget {
        EndBudget::of(
            PlannedEnd::Restart(drain),
            self.surroundings(self.end_asked),
        )
    }

    /// The same for an end that the service manager has not asked for.
    pub fn own_end_budget(&self, drain: Option<Duration>) -> EndBudget {
        EndBudget::of(PlannedEnd::Restart(drain), self.surroundings(false))
    }

    /// How long a stop may take whose drain is this long.
    pub fn stop_limit(&self, drain: Duration) -> Duration {
        let end = EndBudget::of(PlannedEnd::Stop(drain), self.surroundings(true));
        end.force_exit.unwrap_or(FORCE_EXIT)
    }

    fn surroundings(&self, clock_runs: bool) -> Surroundings {
        let patience = match &self.unit {
            _ if !clock_runs => KillTime::Endless,
            _ if self.by_launchd() => match self.job() {
                Some(job) => job.exit_timeout.map_or(KillTime::Endless, KillTime::Limit),
                None => KillTime::Limit(EXIT_TIMEOUT_LEAST),
            },
            Some(unit) => unit.timeout_stop.map_or(KillTime::Endless, KillTime::Limit),
            None if self.by_systemd() => KillTime::Unanswered,
            None => KillTime::Endless,
        };
        Surroundings {
            patience,
            extends: self.notifier().active() && self.by_systemd(),
            machine_stopping: self.machine_stopping,
        }
    }

    /// How long launchd must see this process, which has run for `uptime`, before it starts the next
    /// one without a pause.
    pub fn launchd_delay(&self, uptime: Duration, configured: Duration) -> Duration {
        let interval = self
            .job()
            .map_or(throttle::THROTTLE_DEFAULT, |job| job.throttle);
        match self.by_launchd() {
            true => throttle::exit_delay(uptime, interval, configured),
            false => Duration::ZERO,
        }
    }

    fn by_launchd(&self) -> bool {
        matches!(self.verdict.supervisor, Supervisor::Launchd { .. })
    }

    /// The job of launchd that this process is, as far as launchd has said it.
    fn job(&self) -> Option<&JobFacts> {
        match &self.job {
            JobAnswer::Job(job) => Some(job),
            JobAnswer::NotAJob | JobAnswer::Unknown => None,
        }
    }
}
