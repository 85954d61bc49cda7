//! Calls of launchctl(1), the only way to launchd. Each has a limit, and its exit code a meaning.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::os::program_run::{self, ProgramEnd};

/// Names the launchctl of tests, in debug builds only.
const TEST_PROGRAM: &str = "GATEWAY_LAUNCHCTL";

/// What launchctl itself needs: it asks a process that answers from memory. `kickstart` alone waits for
/// more.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// It cannot be executed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoLaunchctl(String);

/// launchctl.
#[derive(Clone, Debug)]
pub struct Launchctl {
    program: PathBuf,
}

/// What an exit code says. That a job is loaded or gone only `print` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchctlVerdict {
    Done,
    /// A job of this label is there.
    AlreadySo,
    /// Something else goes on with the label, or launchd hides the cause: 5 is all that users other than
    /// root see.
    TryAgain,
    /// There is no such job.
    NotThere,
    /// launchd has given its program up: only another load starts it.
    InPenaltyBox,
    /// Nobody is logged in there; nothing is known of the job.
    NoDomain,
    Refused,
    /// It did not end in time, and was killed.
    TooSlow,
}

impl LaunchctlVerdict {
    /// What an exit code means: an error number, or one of launchd's own (`launchctl error`).
    fn of(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Done,
            Some(17) => Self::AlreadySo,
            Some(5 | 36 | 37 | 124 | 153) => Self::TryAgain,
            Some(3 | 113) => Self::NotThere,
            Some(139) => Self::InPenaltyBox,
            Some(112 | 125) => Self::NoDomain,
            _ => Self::Refused,
        }
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct LaunchctlAnswer {
    pub verdict: LaunchctlVerdict,
    /// What it printed. That of `print` has the environment of a job in it: it is parsed, never shown.
    pub output: String,
    /// How it ended, in words.
    pub ended: String,
}

impl Launchctl {
    /// The one of this machine; none without launchd.
    pub fn find() -> Option<Self> {
        if cfg!(target_os = "macos") {
            return Some(Self {
                program: "/bin/launchctl".into(),
            });
        }
        let program = std::env::var_os(TEST_PROGRAM).filter(|_| cfg!(debug_assertions))?;
        Some(Self {
            program: program.into(),
        })
    }

    /// Whether a bootout can wait for the end of the job: on other systems it answers that flag with its
    /// usage, and stops nothing.
    pub async fn bootout_waits(&self) -> bool {
        let said = self.call(&["help", "bootout"]).await;
        said.is_ok_and(|said| said.output.contains("--wait"))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub async fn call(&self, arguments: &[&str]) -> Result<LaunchctlAnswer, NoLaunchctl> {
        self.call_within(arguments, CALL_LIMIT).await
    }

    /// The same for a command that waits for a job: `kickstart` blocks until the job is started, through its
    /// throttle interval, too.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub async fn call_within(
        &self,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<LaunchctlAnswer, NoLaunchctl> {
        let mut command = Command::new(&self.program);
        // Its group is killed with it when it is too slow.
        command.args(arguments).process_group(0);
        let ran = program_run::run(command, limit).await;
        let ran = ran.map_err(|error| {
            let program = self.program.display();
            NoLaunchctl(format!("{program} {}", program_run::explain(&error)))
        })?;
        Ok(LaunchctlAnswer {
            verdict: match ran.end {
                ProgramEnd::TooSlow(_) => LaunchctlVerdict::TooSlow,
                ProgramEnd::Exited(_) => LaunchctlVerdict::of(ran.code()),
            },
            ended: ran.ended(),
            output: ran.output,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_has_a_meaning() {
        use LaunchctlVerdict::{
            AlreadySo, Done, InPenaltyBox, NoDomain, NotThere, Refused, TryAgain,
        };
        for (code, verdict) in [
            (0, Done),
            (3, NotThere),
            (5, TryAgain),
            (17, AlreadySo),
            (37, TryAgain),
            (64, Refused),
            (112, NoDomain),
            (113, NotThere),
            (119, Refused),
            (125, NoDomain),
            (139, InPenaltyBox),
            (4711, Refused),
        ] {
            assert_eq!(LaunchctlVerdict::of(Some(code)), verdict, "{code}");
        }
        assert_eq!(LaunchctlVerdict::of(None), LaunchctlVerdict::Refused);
    }
}
