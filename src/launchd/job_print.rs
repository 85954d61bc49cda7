//! What `launchctl print` says of a job. It is no interface, says its man page, so what is not understood
//! is unknown, and nothing of the text is kept: a job's environment is in it.

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

/// How the last life of a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastEnd {
    Exited(i32),
    Signalled(i32),
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
        let exited = || leading_number(value("last exit code")?).map(LastEnd::Exited);
        let signalled = || {
            let (_, signal) = value("last terminating signal")?.rsplit_once(": ")?;
            leading_number(signal).map(LastEnd::Signalled)
        };
        Self {
            state: match value("state") {
                Some("running") => JobState::Running,
                Some("spawn scheduled") => JobState::Scheduled,
                Some("SIGTERMed" | "SIGKILLed") => JobState::Ending,
                _ => JobState::Other,
            },
            pid: number("pid").filter(|pid| *pid != 0 && is_said_once("pid")),
            last_end: signalled().or_else(exited),
            runs: number("runs"),
            throttle: seconds("minimum runtime"),
            exit_timeout: seconds("exit timeout"),
            keep_alive: value("properties")
                .map(|all| all.split('|').any(|one| one.trim() == "keepalive")),
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
            is_held: false,
        };
        assert_eq!(job, expected);
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
            ("last exit reason = OS_REASON_EXEC", None),
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
