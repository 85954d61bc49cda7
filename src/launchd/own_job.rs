//! The job that a process is, as launchd says it.
//!
//! A job has its label in XPC_SERVICE_NAME, and so has all that it starts; init is the parent of orphans,
//! too. So only this proves it: `launchctl print` names our own pid.

use std::time::Duration;

use tokio::time::timeout;

use super::LABEL;
use super::domain::LaunchdDomain;
use super::job_print::JobPrint;
use super::launchctl::{Launchctl, LaunchctlVerdict};
use super::throttle::THROTTLE_DEFAULT;
use crate::config::Env;

/// How long a gateway waits for what launchd says of it. Meanwhile it serves; a launchctl answers in some
/// milliseconds, and on a machine that boots in some seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// No label is longer than a file's name.
const LABEL_MAX: usize = 255;

/// What launchd says of the job that a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    pub label: String,
    pub domain: LaunchdDomain,
    pub pid: u32,
    /// Whether it is started again whatever its exit code.
    pub keep_alive: bool,
    /// Whether launchd may start no other program until the job is loaded anew.
    pub is_pinned: bool,
    /// The least from one start to the next, as it is now: launchd lengthens it after crashes.
    pub throttle: Duration,
    /// From SIGTERM to SIGKILL; none is for ever.
    pub exit_timeout: Option<Duration>,
}

/// What came of the question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobAnswer {
    /// Nobody was asked, or did not answer: nothing is known.
    #[default]
    Unknown,
    /// launchd has no job of these labels with this process.
    NotAJob,
    Job(JobFacts),
}

/// Asks launchd of which job this process is the main one. Unknown where there is no launchd.
pub async fn find(env: &Env<'_>, instance: &str) -> JobAnswer {
    let Some(launchctl) = Launchctl::find() else {
        return JobAnswer::Unknown;
    };
    let labels = labels(env, instance);
    let asked = search(&launchctl, &labels, std::process::id());
    timeout(ANSWER, asked).await.unwrap_or_default()
}

/// The labels that the job may have: the one that launchd says first, then the one that install writes.
fn labels(env: &Env<'_>, instance: &str) -> Vec<String> {
    let ours = format!("{LABEL}{instance}");
    let said = env.text("XPC_SERVICE_NAME").filter(|name| is_label(name));
    let mut labels: Vec<String> = said.into_iter().chain([ours]).collect();
    labels.dedup();
    labels
}

/// Whether a text can stand in a target: it is from the environment.
fn is_label(text: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '/';
    (1..=LABEL_MAX).contains(&text.len())
        && !text.starts_with('-')
        && text != "0"
        && text.chars().all(is_plain)
}

async fn search(launchctl: &Launchctl, labels: &[String], pid: u32) -> JobAnswer {
    let uid = nix::unistd::getuid().as_raw();
    let mut answer = JobAnswer::NotAJob;
    for label in labels {
        for domain in LaunchdDomain::of_process(uid) {
            let target = format!("{domain}/{label}");
            match launchctl.call(&["print", &target]).await {
                Ok(said) if said.verdict == LaunchctlVerdict::Done => {
                    let print = JobPrint::parse(&said.output);
                    if print.pid == Some(pid) {
                        return JobAnswer::Job(facts(label, domain, pid, &print));
                    }
                }
                Ok(said)
                    if matches!(
                        said.verdict,
                        LaunchctlVerdict::NotThere | LaunchctlVerdict::NoDomain
                    ) => {}
                // It may be there.
                Ok(_) | Err(_) => answer = JobAnswer::Unknown,
            }
        }
    }
    answer
}

fn facts(label: &str, domain: LaunchdDomain, pid: u32, print: &JobPrint) -> JobFacts {
    let exit_timeout = print.exit_timeout.unwrap_or(super::EXIT_TIMEOUT_LEAST);
    JobFacts {
        label: label.to_owned(),
        domain,
        pid,
        keep_alive: print.keep_alive.unwrap_or(false),
        is_pinned: print.is_pinned,
        throttle: print.throttle.unwrap_or(THROTTLE_DEFAULT),
        exit_timeout: Some(exit_timeout).filter(|limit| !limit.is_zero()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_says_is_a_label_or_nothing() {
        let found = |said: &str| {
            let env = |name: &str| (name == "XPC_SERVICE_NAME").then(|| said.into());
            labels(&Env(&env), "web")
        };
        assert_eq!(
            found("com.acme.api"),
            ["com.acme.api", "org.gatewayctl.web"]
        );
        let long = "a".repeat(300);
        for no_label in [
            "0",
            "",
            "org.gatewayctl.web",
            "../system/x",
            "-k",
            "a b",
            "a\nb",
            &long,
        ] {
            assert_eq!(found(no_label), ["org.gatewayctl.web"], "{no_label}");
        }
    }

    #[test]
    fn what_print_does_not_say_is_the_careful_guess() {
        let print = JobPrint::parse("x = {\n\tpid = 4\n}\n");
        let unsaid = facts("x", LaunchdDomain::System, 4, &print);
        assert!(!unsaid.keep_alive);
        assert_eq!(unsaid.throttle, THROTTLE_DEFAULT);
        assert_eq!(unsaid.exit_timeout, Some(Duration::from_secs(5)));
        let print = JobPrint::parse("x = {\n\tpid = 4\n\texit timeout = 0\n}\n");
        assert_eq!(
            facts("x", LaunchdDomain::System, 4, &print).exit_timeout,
            None
        );
    }
}
