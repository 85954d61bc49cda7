//! Runs a program that answers and ends, as with `--version`, and reads what it prints.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::Dur;
use crate::os::process::PidFd;
use crate::os::process::orphans::{forget, spare};

/// How long `--version` and `check` may take: both only read; a program that is slower hangs.
pub const PROOF: Duration = Duration::from_secs(10);

/// How much of what a program prints is read: its answers are a few lines.
const OUTPUT_MAX: u64 = 64 * 1024;

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct ProgramOutput {
    pub end: ProgramEnd,
    /// Both outputs together.
    pub output: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ProgramEnd {
    Exited(ExitStatus),
    /// It was killed after this time.
    TooSlow(Duration),
}

impl ProgramOutput {
    /// What it printed, when all went well.
    pub fn good(&self) -> Option<&str> {
        let is_good = matches!(self.end, ProgramEnd::Exited(status) if status.success());
        is_good.then_some(self.output.as_str())
    }

    /// Its exit code, if it has one.
    pub fn code(&self) -> Option<i32> {
        match self.end {
            ProgramEnd::Exited(status) => status.code(),
            ProgramEnd::TooSlow(_) => None,
        }
    }

    /// How it ended, in words.
    pub fn ended(&self) -> String {
        match self.end {
            ProgramEnd::TooSlow(limit) => format!("did not end within {}", Dur(limit)),
            ProgramEnd::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with code {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended in an unknown way".to_owned(),
            },
        }
    }
}

/// Runs a program to its end, or kills it when its time is over. What it has started in its process
/// group ends with it: nothing of a trial runs on.
///
/// # Errors
/// When it cannot be executed: see [`explain`].
pub async fn run(mut command: Command, limit: Duration) -> io::Result<ProgramOutput> {
    // A file, not a pipe: it need not be read meanwhile, and a grandchild that keeps it open delays
    // nothing.
    let mut output = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    // A gateway reaps what it does not know.
    spare(child.id());
    let ended = follow(&mut child, limit).await;
    forget(child.id());
    Ok(ProgramOutput {
        end: ended?,
        output: read(&mut output)?,
    })
}

/// Waits for the end of a child, or kills it, and reaps it.
async fn follow(child: &mut Child, limit: Duration) -> io::Result<ProgramEnd> {
    // Not reaped yet, so the pid is still its own, and the group of that number, too.
    let pidfd = PidFd::open(child.id());
    let ended = async {
        match &pidfd {
            Ok(pidfd) => pidfd.ended().wait().await,
            Err(error) => return Err(io::Error::from(error.kind())),
        }
        Ok(())
    };
    let watched = tokio::time::timeout(limit, ended).await;
    end_group(child.id(), pidfd.as_ref().ok());
    if !matches!(watched, Ok(Ok(()))) {
        // An error means that it has just ended.
        let _ = child.kill();
    }
    let status = child.wait()?;
    match watched {
        Ok(watched) => watched.map(|()| ProgramEnd::Exited(status)),
        Err(_) => Ok(ProgramEnd::TooSlow(limit)),
    }
}

/// Kills the process group that a child leads, which was not reaped yet; without one, nothing.
fn end_group(leader: u32, pidfd: Option<&PidFd>) {
    let by_descriptor = pidfd.is_some_and(|pidfd| pidfd.signal_group(Signal::SIGKILL).is_ok());
    // Before Linux 6.9.
    if !by_descriptor && let Ok(group) = i32::try_from(leader) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

fn read(output: &mut File) -> io::Result<String> {
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a program that is there cannot be executed.
pub fn explain(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOEXEC) => {
            "cannot be executed here: it is for another machine, or no program at all"
        }
        Some(libc::ENOENT) => {
            "cannot be executed here: the loader or interpreter that it names is missing"
        }
        Some(libc::EACCES) => "may not be executed here: is its file system mounted noexec?",
        Some(libc::ETXTBSY) => "is still being written",
        _ => return format!("cannot be executed: {error}"),
    };
    why.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::credentials::Credentials;
    use crate::os::process::Stat;

    #[tokio::test]
    async fn what_a_trial_has_started_ends_with_it() {
        let shell = std::path::Path::new("/bin/sh");
        for (script, limit, ends) in [
            ("sleep 600 & echo $!", PROOF, true),
            ("sleep 600 & echo $!; wait", Duration::from_secs(3), false),
        ] {
            let mut command = Credentials::of_this_process().command(shell).unwrap();
            command.args(["-c", script]);
            let ended = run(command, limit).await.unwrap();
            assert_eq!(ended.code(), ends.then_some(0), "{script}");
            let pid: u32 = ended.output.trim().parse().unwrap();
            while Stat::read(pid).is_some_and(|stat| !stat.is_dead()) {
                tokio::task::yield_now().await;
            }
        }
    }
}
