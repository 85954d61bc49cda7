//! The test start: a temporary unit with the same user, variables and sandbox starts the command once.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::User;

use super::plan::InstallPlan;
use crate::config::{Config, SidecarSpec, regular_file};
use crate::service::error::ServiceError;
use crate::service::layout::Layout;
use crate::service::manager::{Job, Manager, UnitState};
use crate::service::report::Say;
use crate::service::rights::as_user;
use crate::service::sandbox::Sandbox;
use crate::service::start_stop::telling_slow;
use crate::service::unit_text::{RunAs, UnitPlan};
use crate::sidecar::EXTENSIONS;
use crate::state::paths::Scope;
use crate::systemd::words::{JobResult, ServiceResult, Word};

/// What systemd and the gateway need besides the servers.
const OVERHEAD: Duration = Duration::from_secs(30);

/// How much longer than the proof unit's own limit its end is waited for: a manager may not answer.
const MANAGER: Duration = Duration::from_secs(30);

/// How much of the output is read, from its end, in bytes: the servers print what they like.
const OUTPUT_MAX: u64 = 64 * 1024;

/// How many of the last lines are shown when it fails.
const LAST_LINES: usize = 12;

/// The files of the temporary unit; removed when dropped.
struct TestUnitFiles(Vec<PathBuf>);

impl Drop for TestUnitFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Starts every server once under the properties of the unit and waits until each is ready.
///
/// # Errors
/// When one does not become ready: its last words, and the reason that systemd has.
pub(super) async fn prove(
    manager: &Manager,
    layout: &Layout,
    plan: &InstallPlan,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    let InstallPlan {
        unit: plan,
        contents,
        redactor,
        ..
    } = plan;
    let limit = limit_of(&contents.config);
    let name = format!(
        "gateway-proof-{}.service",
        plan.subject.stem().replace('@', "-")
    );
    let unit = layout.runtime_units.join(&name);
    let log = layout.runtime.join(format!("{name}.log"));
    let text = plan
        .proof(&log, limit)
        .map_err(|error| ServiceError::failed(error.to_string()))?;
    let trace = TestUnitFiles(vec![unit.clone(), log.clone()]);
    std::fs::create_dir_all(&layout.runtime_units)
        .map_err(|error| ServiceError::file("make", &layout.runtime_units, &error))?;
    std::fs::write(&unit, text).map_err(|error| ServiceError::file("write", &unit, &error))?;
    fresh(&log).map_err(|error| ServiceError::file("write", &log, &error))?;
    manager.daemon_reload().await?;
    let slow = async |waited: Duration| {
        let output = end_of(&log).unwrap_or_default();
        let printed = output.lines().rfind(|line| !line.trim().is_empty());
        let printed = match printed {
            Some(line) => format!("it printed last: {}", redactor.text(line)),
            None => "it has printed nothing".to_owned(),
        };
        say(&format!(
            "still starting after {} s; {printed}",
            waited.as_secs()
        ));
    };
    let job = manager.job(Job::Start, &name, limit + MANAGER);
    let ended = telling_slow(job, slow).await;
    let state = manager.state(&name).await;
    let output = end_of(&log).unwrap_or_default();
    manager.reset_failed(&name).await;
    drop(trace);
    match ended? {
        Word::Known(JobResult::Done) => Ok(()),
        Word::Other(result) => Err(failure(
            plan,
            &state?,
            &result,
            (&redactor.text(&output), limit),
        )),
    }
}

/// How long the test start may take: as long as the slowest server, which goes on printing, and its stop.
fn limit_of(config: &Config) -> Duration {
    let longest = |spec: &SidecarSpec| spec.start_timeout.0 * EXTENSIONS + spec.stop_timeout.0;
    let all = config.sidecar.values().map(longest);
    all.max().unwrap_or_default() + OVERHEAD
}

/// The last words in a log.
fn end_of(log: &Path) -> std::io::Result<String> {
    let mut file = regular_file::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(end.saturating_sub(OUTPUT_MAX)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An empty file that only we may read: the servers may print secrets.
fn fresh(log: &Path) -> std::io::Result<()> {
    let _ = std::fs::remove_file(log);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(log)
        .map(drop)
}

fn failure(
    plan: &UnitPlan,
    state: &UnitState,
    result: &str,
    (output, limit): (&str, Duration),
) -> ServiceError {
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.split_at(lines.len().saturating_sub(LAST_LINES)).1;
    let cause = cause(plan, state, result, limit);
    ServiceError::failed(format!(
        "the command does not start as a service ({cause}); nothing was changed"
    ))
    .quoting(last)
    .next(how_to_try(plan))
}

/// Commands that tell whose fault it is: the command's, its user's, or that of the sandbox.
fn how_to_try(plan: &UnitPlan) -> String {
    let by_hand = "gateway check --start -- COMMAND";
    let by_user = match (plan.scope, &plan.run_as) {
        (Scope::User, _) => format!("{by_hand}   (tries it without the sandbox)"),
        (Scope::System, RunAs::Dynamic) => {
            "the same command with --run-as USER   (a user with an account, not a temporary one)"
                .to_owned()
        }
        (Scope::System, RunAs::User(name)) => {
            let user = User::from_name(name).ok().flatten();
            let uid = user.map_or(0, |user| user.uid.as_raw());
            format!(
                "{}   (tries it as that user, without the sandbox)",
                as_user(uid, by_hand)
            )
        }
    };
    match plan.sandbox {
        Sandbox::Off => by_user,
        sandbox => format!("{by_user}\nthe same command with --sandbox off   (now `{sandbox}`)"),
    }
}

/// systemd's own exit codes, for what went wrong before the gateway ran (systemd.exec(5), "Process
/// Exit Codes").
fn cause(plan: &UnitPlan, state: &UnitState, result: &str, limit: Duration) -> String {
    let program = plan.bin_dir.join("gateway").display().to_string();
    let known = match &state.result {
        Word::Known(known) => *known,
        Word::Other(other) => return other.clone(),
    };
    match (known, state.exit_status) {
        (ServiceResult::ExitCode, 203) => {
            format!("systemd cannot run {program}: is it readable for the service's user?")
        }
        (ServiceResult::ExitCode, 217) => "systemd does not know the service's user".to_owned(),
        (ServiceResult::ExitCode, 226) => {
            "systemd cannot set up the sandbox's file systems here: try --sandbox off".to_owned()
        }
        (ServiceResult::ExitCode, 218) => {
            "systemd may not drop capabilities here: try --sandbox off".to_owned()
        }
        (ServiceResult::ExitCode, status) => format!("exit code {status}"),
        (ServiceResult::Timeout, _) => format!("not ready within {} s", limit.as_secs()),
        (ServiceResult::Signal | ServiceResult::CoreDump, signal) => {
            format!("killed by signal {signal}")
        }
        (ServiceResult::Resources, _) => {
            "systemd could not start it: is the environment file there?".to_owned()
        }
        (ServiceResult::Success | ServiceResult::NoService, _) => result.to_owned(),
        (other, _) => other.to_string(),
    }
}
