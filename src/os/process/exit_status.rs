//! How a process ended that is no child of this one.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use super::PidFd;
use super::pidfd::exit_status;

/// How long the end and the parent, which takes the exit status first, may take.
const REAPED: Duration = Duration::from_secs(1);

/// The kernel tells of the end of a process, and not of the moment when its parent has taken the
/// exit status.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl PidFd {
    /// How a process ended that ends now. None when it does not, when its parent does not take its
    /// exit status, and on kernels that tell it to the parent only: before Linux 6.15, and macOS.
    pub async fn exit_status(&self) -> Option<ExitStatus> {
        let known = async {
            self.ended().wait().await;
            loop {
                match exit_status(self) {
                    Ok(Some(status)) => return Some(status),
                    Ok(None) => sleep(LOOK_AGAIN).await,
                    Err(_) => return None,
                }
            }
        };
        timeout(REAPED, known).await.ok().flatten()
    }
}

/// How a process ended, as in "was ended by SIGKILL".
pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {number}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_known_once_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert_eq!(process.exit_status().await, None, "it lives");
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(in_words(status), "was ended by SIGKILL");
        // A kernel before 6.15 does not know the question.
        if exit_status(&process).is_ok() {
            assert_eq!(process.exit_status().await, Some(status));
        }
    }
}
