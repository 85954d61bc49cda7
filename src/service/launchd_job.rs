//! A gateway as a job of launchd: loaded, unloaded, and asked about. What launchctl answers is never taken
//! for what came of it: `print` says that.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::error::ServiceError;
use super::launchd_record::JobRecord;
use super::layout::Installed;
use super::manager::UnitState;
use crate::launchd::EXIT_TIMEOUT_MOST;
use crate::launchd::disabled;
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::job_print::{JobPrint, JobState, LastEnd};
use crate::launchd::launchctl::{Launchctl, LaunchctlAnswer, LaunchctlVerdict};
use crate::launchd::throttle::THROTTLE_DEFAULT;
use crate::os::process::{PidFd, ancestors};
use crate::state::paths::Scope;
use crate::systemd::words::{ActiveState, LoadState, SubState, Word};
use crate::text::shell;

/// After SIGKILL, until the process is gone and launchd knows it.
const REAP: Duration = Duration::from_secs(5);

/// How long a load is tried again: what may be in its way is the end of the job before, which had its
/// time already.
const LOAD_LIMIT: Duration = Duration::from_secs(15);

/// Between two questions: launchd tells nobody that a label is free.
const PAUSE: Duration = Duration::from_millis(100);

/// siginfo's si_code of a process that ended by itself, and of one that a signal ended.
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;

/// The code of a start that launchd itself gave up.
pub(super) const EX_CONFIG: i32 = 78;

/// What launchd knows of a label.
enum Presence {
    NotLoaded,
    Loaded(JobPrint),
    NoDomain,
}

/// A job, wherever it is or would be loaded.
pub(super) struct LaunchdJob<'a> {
    launchctl: Launchctl,
    unit: &'a Installed,
    pub domain: LaunchdDomain,
    /// As it is now, where it is loaded.
    pub loaded: Option<JobPrint>,
}

impl<'a> LaunchdJob<'a> {
    /// Finds the domain that has the job, else the one in which it would run.
    ///
    /// # Errors
    /// Where there is no launchd, or no domain of this user.
    pub async fn find(unit: &'a Installed) -> Result<Self, ServiceError> {
        let uid = nix::unistd::geteuid().as_raw();
        let mut free = None;
        for job in Self::candidates(unit)? {
            match job.look().await? {
                Presence::Loaded(print) => {
                    let loaded = Some(print);
                    return Ok(Self { loaded, ..job });
                }
                Presence::NotLoaded
                    if free.is_none()
                        && (job.domain == LaunchdDomain::System || job.has_domain().await?) =>
                {
                    free = Some(job);
                }
                Presence::NotLoaded | Presence::NoDomain => {}
            }
        }
        free.ok_or_else(|| {
            ServiceError::failed(format!(
                "launchd has no domain for user {uid}: nobody is logged in"
            ))
            .next("log in at the screen or by ssh, then the same command again")
        })
    }

    /// Its process, where it has one.
    pub fn main_pid(&self) -> Option<u32> {
        self.loaded.as_ref()?.pid
    }

    /// The job in every domain that there is, loaded there or not.
    ///
    /// # Errors
    /// When launchd cannot be asked.
    pub async fn everywhere(unit: &'a Installed) -> Result<Vec<Self>, ServiceError> {
        let mut found = Vec::new();
        for job in Self::candidates(unit)? {
            let loaded = match job.look().await? {
                Presence::Loaded(print) => Some(print),
                Presence::NotLoaded => None,
                Presence::NoDomain => continue,
            };
            found.push(Self { loaded, ..job });
        }
        Ok(found)
    }

    /// The job in each domain in which it may be.
    fn candidates(unit: &'a Installed) -> Result<Vec<Self>, ServiceError> {
        let launchctl = Launchctl::find()
            .ok_or_else(|| ServiceError::failed("there is no launchd on this machine"))?;
        let uid = nix::unistd::geteuid().as_raw();
        let domains = match unit.scope {
            Scope::System => vec![LaunchdDomain::System],
            Scope::User => vec![LaunchdDomain::Gui(uid), LaunchdDomain::User(uid)],
        };
        let job = |domain| Self {
            launchctl: launchctl.clone(),
            unit,
            domain,
            loaded: None,
        };
        Ok(domains.into_iter().map(job).collect())
    }

    /// Whether launchd is told not to load it, at the next login or boot either.
    pub async fn is_disabled(&self) -> Result<bool, ServiceError> {
        let domain = self.domain.to_string();
        let answer = self.launchctl.call(&["print-disabled", &domain]).await?;
        let is_said = answer.verdict == LaunchctlVerdict::Done;
        Ok(is_said && disabled::is_disabled(&answer.output, &self.unit.unit))
    }

    /// What the job is doing, in the words that there are for a unit. A job of ours is always kept alive, so
    /// one that is loaded and does not run is about to.
    pub fn state(&self) -> UnitState {
        let Some(job) = &self.loaded else {
            return UnitState::default();
        };
        let (exit_kind, exit_status) = match job.last_end {
            Some(LastEnd::Exited(code)) => (CLD_EXITED, code),
            Some(LastEnd::Signalled(signal)) => (CLD_KILLED, signal),
            // There is no word of a unit's for it; the errors say it in launchd's.
            Some(LastEnd::ByKernel(_) | LastEnd::Unseen) | None => (0, 0),
        };
        UnitState {
            load: Word::Known(LoadState::Loaded),
            active: Word::Known(match (job.state, job.pid) {
                (JobState::Ending, _) => ActiveState::Deactivating,
                (JobState::Running, Some(_)) => ActiveState::Active,
                _ => ActiveState::Activating,
            }),
            sub: match job.state {
                JobState::Scheduled => Word::Known(SubState::AutoRestart),
                _ => Word::default(),
            },
            main_pid: job.pid.unwrap_or(0),
            exit_kind,
            exit_status,
            ..UnitState::default()
        }
    }

    /// How it fares, for an error.
    pub fn fares(&self) -> Option<String> {
        let job = self.loaded.as_ref()?;
        let (runs, throttle) = (job.runs?, job.throttle?);
        let end = job.last_end.filter(|end| *end != LastEnd::Exited(0));
        let end = end.map_or(String::new(), |end| format!("; the last one {end}"));
        Some(format!(
            "launchd has started it {runs} times, and does so at most every {} s{end}",
            throttle.as_secs()
        ))
    }

    /// Whether this process belongs to the job.
    pub fn is_inside(&self) -> bool {
        let pid = self.main_pid();
        pid.is_some_and(|pid| ancestors(std::process::id()).contains(&pid))
    }

    /// Asks again.
    pub async fn refresh(&mut self) -> Result<(), ServiceError> {
        self.loaded = match self.look().await? {
            Presence::Loaded(print) => Some(print),
            Presence::NotLoaded | Presence::NoDomain => None,
        };
        Ok(())
    }

    /// Loads the job, which starts it. One that is loaded is fine.
    ///
    /// # Errors
    /// When launchd refuses it, or has not taken it in time; it names the command that loads it.
    pub async fn load(&mut self) -> Result<(), ServiceError> {
        if self.load_once().await? {
            return Ok(());
        }
        // launchd has given its program up, and forgets that with the job.
        self.unload().await?;
        self.load_once().await.map(drop)
    }

    /// False where launchd has given its program up.
    async fn load_once(&mut self) -> Result<bool, ServiceError> {
        let (domain, target) = (self.domain.to_string(), self.target());
        let path = self.unit.path.to_string_lossy().into_owned();
        let mut was_read = false;
        // Whoever turned it off asks for it now. It is possible for every label, so it says nothing.
        self.launchctl.call(&["enable", &target]).await?;
        let deadline = Instant::now() + LOAD_LIMIT;
        loop {
            let answer = self.launchctl.call(&["bootstrap", &domain, &path]).await?;
            was_read |= answer.verdict == LaunchctlVerdict::Done;
            self.refresh().await?;
            if self
                .loaded
                .as_ref()
                .is_some_and(|job| job.state != JobState::Ending)
            {
                break;
            }
            let is_final = matches!(
                answer.verdict,
                LaunchctlVerdict::Refused | LaunchctlVerdict::NoDomain
            );
            if is_final || Instant::now() >= deadline {
                let why = answer.output.trim().to_owned();
                let by_hand = format!(
                    "launchctl bootstrap {domain} {}",
                    shell::word(&self.unit.path)
                );
                return Err(ServiceError::failed(format!(
                    "launchd did not load {} into {domain}: launchctl {}",
                    self.unit.unit, answer.ended
                ))
                .quoting(why.lines())
                .next(format!(
                    "{by_hand}\ngatewayctl start --instance {}   (tries again)",
                    self.unit.instance
                )));
            }
            sleep(PAUSE).await;
        }
        if was_read {
            self.record().loaded()?;
        }
        // A domain may hold back what nobody demands, for days. It waits until the job is started, which
        // a throttle delays: what came of it is asked below.
        let answer = self.launchctl.call(&["kickstart", &target]).await?;
        self.refresh().await?;
        Ok(match answer.verdict {
            LaunchctlVerdict::InPenaltyBox => false,
            // It hangs on some systems. That it is the throttle that takes so long is as well cured by a load.
            LaunchctlVerdict::TooSlow => self.main_pid().is_some() || !self.could_not_start(),
            _ => true,
        })
    }

    fn could_not_start(&self) -> bool {
        let end = self.loaded.as_ref().and_then(|job| job.last_end);
        matches!(end, Some(LastEnd::Exited(EX_CONFIG) | LastEnd::ByKernel(_)))
    }

    /// Ends the process and has launchd start the next one, while the job stays loaded and launchd holds its
    /// sockets. False where that did not give another process: then it is to be loaded anew.
    ///
    /// # Errors
    /// When launchd cannot be asked.
    pub async fn start_anew(&mut self) -> Result<bool, ServiceError> {
        self.refresh().await?;
        let Some(job) = self.loaded.clone() else {
            return Ok(false);
        };
        let Some(before) = job.pid.filter(|_| self.record().is_current()) else {
            return Ok(false);
        };
        // It waits for the end of the one, and for the start of the next.
        let limit = exit_limit(&job) + job.throttle.unwrap_or(THROTTLE_DEFAULT) + REAP;
        let target = self.target();
        let arguments = ["kickstart", "-k", &target];
        self.launchctl.call_within(&arguments, limit).await?;
        self.refresh().await?;
        let now = self.main_pid();
        Ok(now.is_some_and(|pid| pid != before))
    }

    /// What is noted of it.
    pub fn record(&self) -> JobRecord<'a> {
        JobRecord::of(self.unit)
    }

    /// Unloads the job, which stops it, and waits until launchd has forgotten it and its process is gone.
    /// Whether it was loaded.
    ///
    /// # Errors
    /// When launchd refuses, or it is still there when it must have been killed.
    pub async fn unload(&mut self) -> Result<bool, ServiceError> {
        self.refresh().await?;
        let Some(job) = self.loaded.clone() else {
            self.record().unloaded()?;
            return Ok(false);
        };
        // Opened before the end begins, so that it is this process. One that has ended cannot be opened.
        let process = job.pid.and_then(|pid| PidFd::open(pid).ok());
        let limit = exit_limit(&job);
        let deadline = Instant::now() + limit;
        let target = self.target();
        let arguments: &[&str] = match self.launchctl.bootout_waits().await {
            true => &["bootout", "--wait", &target],
            false => &["bootout", &target],
        };
        let answer = self.launchctl.call_within(arguments, limit).await?;
        if answer.verdict == LaunchctlVerdict::Refused {
            return Err(ServiceError::failed(format!(
                "launchd did not unload {target}: launchctl {}",
                answer.ended
            ))
            .quoting(answer.output.trim().lines()));
        }
        if let Some(process) = process {
            // Too late is told below.
            let _ = timeout(limit, process.ended().wait()).await;
        }
        loop {
            self.refresh().await?;
            if self.loaded.is_none() {
                self.record().unloaded()?;
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Err(ServiceError::still_starting(format!(
                    "{target} is still ending after {} s",
                    limit.as_secs()
                ))
                .next(format!("launchctl print {target}")));
            }
            sleep(PAUSE).await;
        }
    }

    fn target(&self) -> String {
        format!("{}/{}", self.domain, self.unit.unit)
    }

    async fn has_domain(&self) -> Result<bool, ServiceError> {
        let domain = self.domain.to_string();
        let answer = self.launchctl.call(&["print", &domain]).await?;
        match answer.verdict {
            LaunchctlVerdict::Done => Ok(true),
            LaunchctlVerdict::NoDomain | LaunchctlVerdict::NotThere => Ok(false),
            // Another domain must not be taken for it.
            _ => Err(unanswered(&domain, &answer)),
        }
    }

    async fn look(&self) -> Result<Presence, ServiceError> {
        let answer = self.launchctl.call(&["print", &self.target()]).await?;
        match answer.verdict {
            LaunchctlVerdict::Done => Ok(Presence::Loaded(JobPrint::parse(&answer.output))),
            LaunchctlVerdict::NotThere => Ok(Presence::NotLoaded),
            LaunchctlVerdict::NoDomain => Ok(Presence::NoDomain),
            LaunchctlVerdict::AlreadySo
            | LaunchctlVerdict::TryAgain
            | LaunchctlVerdict::InPenaltyBox
            | LaunchctlVerdict::Refused
            | LaunchctlVerdict::TooSlow => Err(unanswered(&self.target(), &answer)),
        }
    }
}

fn unanswered(target: &str, answer: &LaunchctlAnswer) -> ServiceError {
    ServiceError::failed(format!(
        "launchd cannot be asked about {target}: launchctl {}",
        answer.ended
    ))
    .next(format!("launchctl print {target}"))
}

/// The longest that its end takes.
fn exit_limit(job: &JobPrint) -> Duration {
    let limit = job.exit_timeout.filter(|limit| !limit.is_zero());
    limit.unwrap_or(EXIT_TIMEOUT_MOST) + REAP
}
