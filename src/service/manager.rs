//! Driving units: every job is awaited, every question is asked of the manager itself.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Variant};

use super::error::{ServiceError, or_explain, unreachable};
use super::layout::Installed;
use crate::config::Env;
use crate::state::paths::Scope;
use crate::systemd::bus::{self, SystemdManagerProxy};
use crate::systemd::words::{
    ActiveState, JobResult, LoadState, ServiceResult, SubState, UnitFileState, Word,
};
use crate::systemd::{Properties, WaitsFor, journal};
use crate::text::words::words;

/// A start may be extended by the gateway (EXTEND_TIMEOUT_USEC) as long as its sidecars make
/// progress, a stop takes TimeoutStopSec=30; a job that says nothing for this long has a manager
/// that hangs.
pub const JOB_LIMIT: Duration = Duration::from_secs(600);

/// How many of the service's last lines are shown when it does not do what was asked.
const LAST_WORDS: usize = 6;

/// Among how many of its last messages an error is looked for: what is quoted follows it.
const LOOKED_AT: usize = 12;

/// How many characters of a line are shown while it starts.
const LINE_SHOWN: usize = 200;

/// The priority of an error (syslog(3)).
const ERROR: u8 = 3;

pub struct Manager {
    connection: Connection,
    proxy: SystemdManagerProxy<'static>,
    scope: Scope,
}

words! {
    /// What is asked of a unit.
    pub enum Job {
        Start = "start",
        Stop = "stop",
        /// Stop it if it runs, then start it.
        Restart = "restart",
        /// ExecReload=.
        Reload = "reload",
    }
}

/// What a service is doing, as its manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    pub load: Word<LoadState>,
    pub active: Word<ActiveState>,
    pub sub: Word<SubState>,
    /// 0 when none runs; 0 for a socket.
    pub main_pid: u32,
    pub result: Word<ServiceResult>,
    /// What the service says about itself.
    pub status_text: String,
    /// Its control group below the root of the hierarchy.
    pub control_group: String,
    /// CLD_EXITED (1), CLD_KILLED (2), CLD_DUMPED (3).
    pub exit_kind: i32,
    /// Exit code or signal of the last main process.
    pub exit_status: i32,
    /// How many descriptors its fd store holds.
    pub fd_store: u32,
}

impl UnitState {
    pub(super) fn of(said: &Properties) -> Self {
        Self {
            load: said.text("LoadState").into(),
            active: said.text("ActiveState").into(),
            sub: said.text("SubState").into(),
            main_pid: said.number("MainPID"),
            result: if said.is_socket() {
                Word::default()
            } else {
                said.text("Result").into()
            },
            status_text: said.text("StatusText"),
            control_group: said.text("ControlGroup"),
            exit_kind: said.number("ExecMainCode"),
            exit_status: said.number("ExecMainStatus"),
            fd_store: said.number("NFileDescriptorStore"),
        }
    }

    /// Whether it runs, is reloading included.
    pub fn is_active(&self) -> bool {
        self.active.is_up()
    }

    /// What it waits for while it runs but does not serve: what answers at its address is not it.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        WaitsFor::of_status(&self.status_text).filter(|_| self.is_active())
    }

    /// Whether nothing of it runs.
    pub fn is_down(&self) -> bool {
        self.active.is_down()
    }
}

impl Manager {
    /// Connects.
    pub async fn connect(scope: Scope, env: &Env<'_>) -> Result<Self, ServiceError> {
        let connected = bus::connect(scope, env).await;
        let connection = connected.map_err(|why| unreachable(scope, env, &why))?;
        let proxy = SystemdManagerProxy::new(&connection).await;
        let proxy = or_explain(proxy, "speak to systemd")?;
        Ok(Self {
            connection,
            proxy,
            scope,
        })
    }

    /// The manager's version number; 0 where it cannot be understood.
    pub async fn version(&self) -> Result<u32, ServiceError> {
        let text = or_explain(self.proxy.version().await, "ask systemd for its version")?;
        let digits: String = text
            .trim_start_matches("v")
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        Ok(digits.parse().unwrap_or(0))
    }

    /// Queues a job and waits for its end.
    ///
    /// # Errors
    /// When the job is refused, or not done after `limit`. A job that ends badly is a
    /// [`JobResult`].
    pub async fn job(
        &self,
        job: Job,
        unit: &str,
        limit: Duration,
    ) -> Result<Word<JobResult>, ServiceError> {
        let doing = format!("{job} {unit}");
        let queued = async {
            // Subscribed before the job is queued, or its end could be missed.
            let ends = self.job_ends().await?;
            let path = match job {
                Job::Start => self.proxy.start_unit(unit, "replace").await,
                Job::Stop => self.proxy.stop_unit(unit, "replace").await,
                Job::Restart => self.proxy.restart_unit(unit, "replace").await,
                Job::Reload => self.proxy.reload_unit(unit, "replace").await,
            };
            Ok((ends, path?))
        };
        let (mut ends, path) = or_explain(queued.await, &doing)?;
        match timeout(limit, ended(&mut ends, &path)).await {
            Ok(result) => or_explain(result, &doing),
            Err(_) => Err(ServiceError::still_starting(format!(
                "{doing} is not done after {} s and goes on",
                limit.as_secs()
            ))
            .next(systemctl(self.scope, &format!("status {unit}")))),
        }
    }

    async fn job_ends(&self) -> zbus::Result<MessageStream> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path("/org/freedesktop/systemd1")
            .interface("org.freedesktop.systemd1.Manager")
            .member("JobRemoved");
        // Messages on the private socket carry no sender.
        let rule = if self.connection.is_bus() {
            rule.sender("org.freedesktop.systemd1")
        } else {
            rule
        };
        let stream = MessageStream::for_match_rule(rule.build()?, &self.connection, None).await?;
        match self.proxy.subscribe().await {
            Err(zbus::Error::MethodError(name, ..))
                if name.as_str().ends_with("AlreadySubscribed") => {}
            other => other?,
        }
        Ok(stream)
    }

    /// Has the manager run a command in a unit of its own, outside of whatever this process runs
    /// in, and does not wait for it.
    ///
    /// # Errors
    /// When it is not permitted, or a unit of that name runs.
    pub async fn run_outside(
        &self,
        unit: &str,
        description: &str,
        command: &[String],
    ) -> Result<(), ServiceError> {
        let program = command.first().cloned().unwrap_or_default();
        let exec = vec![(program, command.to_vec(), false)];
        let properties = [
            ("Description", Variant::from(description)),
            ("ExecStart", Variant::from(exec)),
            ("CollectMode", Variant::from("inactive-or-failed")),
        ];
        let proxy = &self.proxy;
        let started = proxy.start_transient_unit(unit, "fail", &properties, &[]);
        or_explain(started.await, &format!("start {unit}")).map(drop)
    }

    /// What the socket unit of a service is doing; the default where it has none.
    pub async fn socket_state(&self, service: &Installed) -> Result<UnitState, ServiceError> {
        match &service.socket {
            Some(socket) => self.state(socket).await,
            None => Ok(UnitState::default()),
        }
    }

    /// What a unit is doing. A unit that does not exist has `load` "not-found".
    pub async fn state(&self, unit: &str) -> Result<UnitState, ServiceError> {
        let said = self.properties(unit).await?;
        Ok(UnitState::of(&said))
    }

    /// Everything that the manager says of a unit.
    pub async fn properties(&self, unit: &str) -> Result<Properties, ServiceError> {
        let asked =
            async { Properties::read(&self.connection, self.proxy.load_unit(unit).await?).await };
        or_explain(asked.await, &format!("ask about {unit}"))
    }

    /// Reads all unit files anew.
    pub async fn daemon_reload(&self) -> Result<(), ServiceError> {
        match self.proxy.reload().await {
            // The manager may close its private socket before the answer is out; the reload is done
            // all the same.
            Err(zbus::Error::FDO(error))
                if matches!(
                    *error,
                    zbus::fdo::Error::NoReply(_) | zbus::fdo::Error::Disconnected(_)
                ) =>
            {
                Ok(())
            }
            other => or_explain(other, "make systemd read its unit files"),
        }
    }

    /// Forgets that a unit failed; one that did not is left alone.
    pub async fn reset_failed(&self, unit: &str) {
        // The only other error is that the unit is not loaded, and then there is nothing to forget.
        let _ = self.proxy.reset_failed_unit(unit).await;
    }

    /// Whether the unit starts at boot (or at login).
    pub async fn is_enabled(&self, unit: &str) -> bool {
        self.file_state(unit).await == UnitFileState::Enabled
    }

    /// What its links on disk say; empty where that is not known. The property `UnitFileState` is
    /// that of the last time the unit was read.
    pub async fn file_state(&self, unit: &str) -> Word<UnitFileState> {
        let state = self.proxy.get_unit_file_state(unit).await;
        state.unwrap_or_default().into()
    }

    /// Makes the units start at boot (or at login). Like systemctl, it has the manager read the links that
    /// this makes: else `systemctl status` calls the unit disabled, and warns that it changed on disk.
    pub async fn enable(&self, units: &[&str]) -> Result<(), ServiceError> {
        let enabled = self.proxy.enable_unit_files(units, false, false).await;
        or_explain(enabled, &format!("enable {}", units.join(" ")))?;
        self.daemon_reload().await
    }

    /// Makes them not start any more, which the manager learns as with [`enable`](Self::enable).
    pub async fn disable(&self, units: &[&str]) -> Result<(), ServiceError> {
        let disabled = self.proxy.disable_unit_files(units, false).await;
        or_explain(disabled, &format!("disable {}", units.join(" ")))?;
        self.daemon_reload().await
    }
}

/// Waits for the end of a job.
async fn ended(ends: &mut MessageStream, job: &OwnedObjectPath) -> zbus::Result<Word<JobResult>> {
    loop {
        let Some(message) = ends.next().await else {
            return Err(zbus::Error::Failure(
                "systemd closed the connection".to_owned(),
            ));
        };
        let message = message?;
        let (_, path, _, result): (u32, OwnedObjectPath, String, String) =
            message.body().deserialize()?;
        if path == *job {
            return Ok(result.into());
        }
    }
}

/// The flag that every command of systemd needs for a user's units, with a blank before it.
fn user_flag(scope: Scope) -> &'static str {
    match scope {
        Scope::System => "",
        Scope::User => " --user",
    }
}

/// The systemctl command for people: `systemctl --user status x`.
pub fn systemctl(scope: Scope, rest: &str) -> String {
    format!("systemctl{} {rest}", user_flag(scope))
}

/// The exact command that shows the unit's log.
pub fn journalctl(scope: Scope, unit: &str) -> String {
    format!("journalctl{} -u {unit}", user_flag(scope))
}

/// The newest line of a service and of its servers in the journal; none where it cannot be read, or has
/// none of this boot.
pub(super) fn newest_line(scope: Scope, unit: &str) -> Option<String> {
    let (flags, field) = journal_of(scope);
    let arguments = [
        "--boot".to_owned(),
        "--output-fields=MESSAGE".to_owned(),
        "--lines=1".to_owned(),
        format!("{field}={unit}"),
    ];
    let arguments = flags.iter().map(|flag| (*flag).to_owned()).chain(arguments);
    let entries = journal::entries(arguments).ok()?;
    let text = journal::text(entries.last()?, "MESSAGE")?;
    let line = text.lines().next()?.chars().take(LINE_SHOWN).collect();
    Some(line)
}

/// The flags of journalctl and the field by which the lines of a service are found that it printed.
fn journal_of(scope: Scope) -> (&'static [&'static str], &'static str) {
    match scope {
        Scope::System => (&[], "_SYSTEMD_UNIT"),
        Scope::User => (&["--user"], "_SYSTEMD_USER_UNIT"),
    }
}

/// What a service itself wrote to the journal last; none where it cannot be read. From its last error
/// on: a gateway that cannot start quotes there what its sidecar printed about it.
pub fn last_words(scope: Scope, unit: &str) -> Vec<String> {
    let (flags, field) = journal_of(scope);
    let arguments = [
        "--boot".to_owned(),
        "--output-fields=MESSAGE,PRIORITY".to_owned(),
        format!("--lines={LOOKED_AT}"),
        format!("{field}={unit}"),
    ];
    let arguments = flags.iter().map(|flag| (*flag).to_owned()).chain(arguments);
    let entries = journal::entries(arguments).unwrap_or_default();
    let is_error = |entry: &serde_json::Value| {
        let priority = journal::text(entry, "PRIORITY").and_then(|text| text.parse().ok());
        priority.is_some_and(|priority: u8| priority <= ERROR)
    };
    let error = entries.iter().rposition(is_error);
    let said = |entry| {
        let text = journal::text(entry, "MESSAGE");
        text.unwrap_or_else(|| "(a message that is too long to be shown)".to_owned())
    };
    let texts = entries[error.unwrap_or(0)..].iter().map(said);
    let mut lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if error.is_none() {
        lines.drain(..lines.len().saturating_sub(LAST_WORDS));
    }
    lines.truncate(LAST_WORDS);
    lines
}
