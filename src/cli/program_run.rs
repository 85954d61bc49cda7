//! Runs a program that answers and ends, as with `--version`, and reads what it prints.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::config::Dur;
use crate::os::process::PidFd;

/// How long `--version` and `check` may take: both only read; a program that is slower hangs.
pub(super) const PROOF: Duration = Duration::from_secs(10);

/// How much of what a program prints is read: its answers are a few lines.
const OUTPUT_MAX: u64 = 64 * 1024;

/// How a program ended, and what it printed.
#[derive(Debug)]
pub(super) struct ProgramOutput {
    pub(super) end: ProgramEnd,
    /// Both outputs together.
    pub(super) output: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProgramEnd {
    Exited(ExitStatus),
    /// It was killed after this time.
    TooSlow(Duration),
}

impl ProgramOutput {
    /// What it printed, when all went well.
    pub(super) fn good(&self) -> Option<&str> {
        let is_good = matches!(self.end, ProgramEnd::Exited(status) if status.success());
        is_good.then_some(self.output.as_str())
    }

    /// Its exit code, if it has one.
    pub(super) fn code(&self) -> Option<i32> {
        match self.end {
            ProgramEnd::Exited(status) => status.code(),
            ProgramEnd::TooSlow(_) => None,
        }
    }

    /// How it ended, in words.
    pub(super) fn ended(&self) -> String {
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

/// Runs a program to its end, or kills it when its time is over.
///
/// # Errors
/// When it cannot be executed: see [`explain`].
pub(super) async fn run(mut command: Command, limit: Duration) -> io::Result<ProgramOutput> {
    // A file, not a pipe: it need not be read meanwhile, and a grandchild that keeps it open delays
    // nothing.
    let mut output = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let ended = async {
        // Not reaped yet, so the pid is still its own.
        PidFd::open(child.id())?.ended().wait().await;
        io::Result::Ok(())
    };
    let watched = tokio::time::timeout(limit, ended).await;
    if !matches!(watched, Ok(Ok(()))) {
        // An error means that it has just ended.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let end = match watched {
        Ok(watched) => watched.map(|()| ProgramEnd::Exited(status))?,
        Err(_) => ProgramEnd::TooSlow(limit),
    };
    Ok(ProgramOutput {
        end,
        output: read(&mut output)?,
    })
}

fn read(output: &mut File) -> io::Result<String> {
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a program that is there cannot be executed.
pub(super) fn explain(error: &io::Error) -> String {
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
