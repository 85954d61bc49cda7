//! What `launchctl print` says of a job. It is no interface, says its man page, so what is not understood
//! is unknown, and nothing of the text is kept: a job's environment is in it.

use std::fmt;
use std::time::Duration;

/// What launchd does with a job that it has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Running,
    /// It is started when its throttle interval is over.
    Scheduled,
    /// It was told to end.
    Ending,
    /// Between two lives, held back, or a word that is not known here.
    Other,
}

/// How the last life of a job ended. That it never had one is no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastEnd {
    Exited(i32),
    Signalled(i32),
    /// The kernel ended it, or did not let it begin.
    ByKernel(KernelReason),
    /// launchd lost its process before its end was known.
    Unseen,
}

/// Why the kernel ends a process, or does not let it begin (OS_REASON_ of the kernel's sys/reason.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelReason {
    /// Its signature, or an identity that is not the one that launchd has noted.
    CodeSigning,
    /// It cannot be executed.
    Exec,
    /// A library of it is missing.
    Dyld,
    /// No memory was left.
    Jetsam,
    Other,
}

impl KernelReason {
    fn of(text: &str) -> Self {
        let name = text.split([' ', '|']).next().unwrap_or_default();
        match name.strip_prefix("OS_REASON_") {
            Some("CODESIGNING") => Self::CodeSigning,
            Some("EXEC") => Self::Exec,
            Some("DYLD") => Self::Dyld,
            Some("JETSAM") => Self::Jetsam,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for LastEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::Exited(code) => return write!(f, "exited with code {code}"),
            Self::Signalled(signal) => return write!(f, "was ended by signal {signal}"),
            Self::Unseen => "ended without being seen by launchd",
            Self::ByKernel(KernelReason::CodeSigning) => {
                "was ended by the kernel: its signature is not valid, or is not the one that launchd has noted"
            }
            Self::ByKernel(KernelReason::Exec) => "could not be executed",
            Self::ByKernel(KernelReason::Dyld) => {
                "could not be started: a library of it is missing"
            }
            Self::ByKernel(KernelReason::Jetsam) => "was ended by the kernel: no memory was left",
            Self::ByKernel(KernelReason::Other) => "was ended by the kernel",
        };
        f.write_str(reason)
    }
}

/// A job that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPrint {
    pub state: JobState,
    pub pid: Option<u32>,
    /// None where it has not ended, or where that is not said.
    pub last_end: Option<LastEnd>,
    /// How often it was started.
    pub runs: Option<u32>,
    /// The least from one start to the next.
    pub throttle: Option<Duration>,
    /// From SIGTERM to SIGKILL; zero is for ever.
    pub exit_timeout: Option<Duration>,
    /// Whether it is started again whatever its exit code: KeepAlive without conditions. None where nothing
    /// is said of its properties.
    pub keep_alive: Option<bool>,
    /// Whether launchd has noted the identity of its program, and may start no other one until the job is
    /// loaded anew: `managed LWCR` among its properties.
    pub is_pinned: bool,
    /// Whether the domain holds back what no demand starts, for how long nobody says.
    pub is_held: bool,
}

impl JobPrint {
    /// Reads the lines of the job itself, the first of each name: those of the blocks in it are deeper. A
    /// value of its environment may look like any line and like the end of its block, so a process that is
    /// named twice is unknown.
    pub fn parse(text: &str) -> Self {
        let own = own_lines(text);
        let value = |wanted: &str| {
            let mut found = own.iter().filter(|(key, _)| *key == wanted);
            found.next().map(|(_, value)| *value)
        };
        let number = |wanted: &str| value(wanted)?.parse::<u32>().ok();
        let is_said_once = |wanted: &str| own.iter().filter(|(key, _)| *key == wanted).count() == 1;
        let seconds = |wanted: &str| Some(Duration::from_secs(number(wanted)?.into()));
        let properties = value("properties");
        let has = |wanted: fn(&str) -> bool| {
            properties.map(|all| all.split('|').any(|one| wanted(one.trim())))
        };
        Self {
            state: match value("state") {
                Some("running") => JobState::Running,
                Some("spawn scheduled") => JobState::Scheduled,
                Some("SIGTERMed" | "SIGKILLed") => JobState::Ending,
                _ => JobState::Other,
            },
            pid: number("pid").filter(|pid| *pid != 0 && is_said_once("pid")),
            last_end: last_end(value),
            runs: number("runs"),
            throttle: seconds("minimum runtime"),
            exit_timeout: seconds("exit timeout"),
            keep_alive: has(|one| one == "keepalive"),
            is_pinned: has(|one| matches!(one, "managed LWCR" | "needs LWCR update"))
                .unwrap_or(false),
            is_held: value("pended nondemand spawn").is_some(),
        }
    }
}

/// The lines `key = value` between the outermost braces and in no block.
fn own_lines(text: &str) -> Vec<(&str, &str)> {
    let mut own = Vec::new();
    let mut depth = 0_usize;
    for line in text.lines() {
        let line = line.trim();
        if line.ends_with('{') {
            depth += 1;
        } else if line == "}" {
            depth = depth.saturating_sub(1);
        } else if let Some(pair) = line.split_once(" = ").filter(|_| depth == 1) {
            own.push(pair);
        }
    }
    own
}

/// The last end from the one of three lines that is there.
fn last_end<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<LastEnd> {
    let reason = value("last exit reason").map(KernelReason::of);
    let signal =
        value("last terminating signal").and_then(|text| leading_number(text.rsplit_once(": ")?.1));
    match (value("last exit code"), signal, reason) {
        (_, _, Some(reason)) => Some(LastEnd::ByKernel(reason)),
        (_, Some(signal), _) => Some(LastEnd::Signalled(signal)),
        (Some("(failed reap)" | "(abandoned)"), ..) => Some(LastEnd::Unseen),
        (Some(code), ..) => leading_number(code).map(LastEnd::Exited),
        (None, ..) => None,
    }
}

/// The number at the beginning, as in `78: EX_CONFIG`.
fn leading_number(text: &str) -> Option<i32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "gui/501/org.gatewayctl.web = {\n\tactive count = 1\n\tstate = running\n\n\
        \targuments = {\n\t\t/usr/local/bin/gateway\n\t\tstate = fake\n\t}\n\
        \tenvironment = {\n\t\tA => {\n\t\tpid = 4\n\t\t}\n\t\tTOKEN => canary\n\t}\n\
        \tminimum runtime = 10\n\texit timeout = 30\n\truns = 3\n\tpid = 4711\n\
        \tlast exit code = 78: EX_CONFIG\n\
        \tproperties = partial import | keepalive | runatload\n\
        \tresource coalition = {\n\t\tstate = active\n\t\tpid = 1\n\t}\n\tstate = later\n}\n";

    #[test]
    fn the_first_line_of_the_job_itself_counts() {
        let job = JobPrint::parse(RUNNING);
        let expected = JobPrint {
            state: JobState::Running,
            pid: Some(4711),
            last_end: Some(LastEnd::Exited(78)),
            runs: Some(3),
            throttle: Some(Duration::from_secs(10)),
            exit_timeout: Some(Duration::from_secs(30)),
            keep_alive: Some(true),
            is_pinned: false,
            is_held: false,
        };
        assert_eq!(job, expected);
        let pinned = RUNNING.replace("runatload", "runatload | managed LWCR | has LWCR");
        assert!(JobPrint::parse(&pinned).is_pinned);
        assert!(!format!("{job:?}").contains("canary"));
    }

    #[test]
    fn a_value_of_the_environment_names_no_process() {
        let hostile = RUNNING.replace("canary", "x\n\t}\n\tpid = 1");
        assert_eq!(JobPrint::parse(&hostile).pid, None);
    }

    #[test]
    fn the_last_end_has_several_forms_and_what_is_not_said_is_unknown() {
        for (line, end) in [
            ("last exit code = 0", Some(LastEnd::Exited(0))),
            ("last exit code = (never exited)", None),
            (
                "last terminating signal = Terminated: 15",
                Some(LastEnd::Signalled(15)),
            ),
            ("last exit code = (failed reap)", Some(LastEnd::Unseen)),
            ("last exit code = (abandoned)", Some(LastEnd::Unseen)),
            (
                "last exit reason = OS_REASON_EXEC | Error -413",
                Some(LastEnd::ByKernel(KernelReason::Exec)),
            ),
            (
                "last exit reason = OS_REASON_CODESIGNING",
                Some(LastEnd::ByKernel(KernelReason::CodeSigning)),
            ),
            (
                "last exit reason = OS_REASON_DYLD",
                Some(LastEnd::ByKernel(KernelReason::Dyld)),
            ),
            (
                "last exit reason = something new",
                Some(LastEnd::ByKernel(KernelReason::Other)),
            ),
            ("", None),
        ] {
            let job = JobPrint::parse(&format!(
                "x = {{\n\tstate = spawn scheduled\n\t{line}\n}}\n"
            ));
            assert_eq!(
                (job.state, job.last_end),
                (JobState::Scheduled, end),
                "{line}"
            );
        }
        for hostile in [
            "",
            "}\n}\n",
            "x = {\n\tstate = ünknown\n\tpid = -1\n\truns = 99999999999\n",
            "{{{{",
        ] {
            let job = JobPrint::parse(hostile);
            assert_eq!(
                (job.state, job.pid, job.runs),
                (JobState::Other, None, None),
                "{hostile}"
            );
        }
    }
}
