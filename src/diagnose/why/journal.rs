//! What the journal says about a unit: what its manager did to it, and the errors and warnings of the
//! gateway itself.

use jiff::Timestamp;
use serde_json::Value;

use crate::state::paths::Scope;
use crate::systemd::journal;
use crate::systemd::words::{ServiceResult, Word};
use crate::text::log::IDENTIFIER;
use crate::text::words::{Words, words};

/// Enough for tens of runs: each run leaves a handful of such lines.
const LINES: u32 = 400;

/// The MESSAGE_ID= of a manager for what happens to a unit (sd-messages.h of systemd).
const EVENTS: [(&str, JournalEvent); 8] = [
    ("7d4958e842da4a758f6c1cdc7b36dcc5", JournalEvent::Starting),
    ("39f53479d3a045ac8e11786248231fbf", JournalEvent::Ready),
    ("de5b426a63be47a7b6ac3eaac82e2f6f", JournalEvent::Stopping),
    ("98e322203f7a4ed290d09fe03c09fe15", JournalEvent::Exit),
    ("d9b373ed55a64feb8242e02dbe79a49c", JournalEvent::Failed),
    (
        "fe6faa94e7774663a0da52717891d8ef",
        JournalEvent::OutOfMemory,
    ),
    (
        "5eb03494b6584870a536b337290809b3",
        JournalEvent::RestartScheduled,
    ),
    ("9d1aaa27d60140bd96365438aad20286", JournalEvent::Stopped),
];

const FIELDS: &str = "MESSAGE,MESSAGE_ID,PRIORITY,SYSLOG_IDENTIFIER,EXIT_CODE,EXIT_STATUS,UNIT_RESULT,JOB_TYPE,SIDECAR";

/// What a line reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalEvent {
    /// The manager begins to start the unit.
    Starting,
    /// The unit has started.
    Ready,
    /// The manager stops the unit on request.
    Stopping,
    /// Its main process has ended.
    Exit,
    /// The unit failed, with a result.
    Failed,
    /// The kernel killed one of its processes because memory ran out.
    OutOfMemory,
    /// The manager is about to restart the unit.
    RestartScheduled,
    /// The unit has stopped.
    Stopped,
    /// The watchdog got no ping in time; this message has no id.
    Watchdog,
    /// The unit reached its start limit; this message has no id either.
    TooOften,
    /// Another error or warning of the manager.
    Complaint,
    /// An error or a warning of the gateway.
    Gateway,
}

words! {
    /// How a process ended, as systemd names it in EXIT_CODE=.
    pub enum ProcessEnd {
        /// It exited by itself.
        Exited = "exited",
        /// A signal ended it.
        Killed = "killed",
        /// A signal ended it, and it left a core dump.
        Dumped = "dumped",
    }
}

impl ProcessEnd {
    /// From ExecMainCode of a unit, which is the si_code of siginfo: CLD_EXITED (1), CLD_KILLED (2)
    /// or CLD_DUMPED (3); 0 when it is not known.
    pub fn of_si_code(code: u64) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Exited),
            3 => Some(Self::Dumped),
            _ => Some(Self::Killed),
        }
    }
}

/// An unplanned end of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarEnd {
    pub name: String,
    /// How it ended, as in "(pid 5) was ended by SIGKILL".
    pub how: String,
}

impl SidecarEnd {
    /// From the stable log line
    /// "\[gateway\] sidecar main (pid 5) was ended by SIGKILL; starting it again at once".
    pub fn of(name: &str, message: &str) -> Option<Self> {
        let (ended, _) = message.split_once("; starting it again")?;
        let how = ended.strip_prefix(&format!("[gateway] sidecar {name} "))?;
        Some(Self {
            name: name.to_owned(),
            how: how.to_owned(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    pub at: Timestamp,
    pub event: JournalEvent,
    pub text: String,
    /// [`JournalEvent::Exit`]: how the process ended.
    pub exit: Option<ProcessEnd>,
    /// [`JournalEvent::Exit`]: the exit code, or the signal's number.
    pub status: i32,
    /// [`JournalEvent::Failed`]: how the run ended.
    pub result: Word<ServiceResult>,
    /// The end of a sidecar that the gateway starts again.
    pub sidecar_end: Option<SidecarEnd>,
    /// syslog's number: 3 is an error, 4 a warning.
    pub priority: u8,
}

/// The lines about a unit, the oldest first.
///
/// # Errors
/// Why the journal cannot be read, in a sentence.
pub fn of_unit(scope: Scope, unit: &str) -> Result<Vec<JournalLine>, String> {
    let arguments = arguments(scope, unit, nix::unistd::geteuid().as_raw());
    Ok(in_order(&journal::entries(arguments)?))
}

fn arguments(scope: Scope, unit: &str, uid: u32) -> Vec<String> {
    let (flag, manager, own) = match scope {
        // Any program may write a field without an underscore, so its own lines must be excluded:
        // journald itself sets _PID and _UID.
        Scope::System => (
            None,
            ["_PID=1".to_owned(), format!("UNIT={unit}")],
            format!("_SYSTEMD_UNIT={unit}"),
        ),
        Scope::User => (
            Some("--user"),
            [format!("_UID={uid}"), format!("USER_UNIT={unit}")],
            format!("_SYSTEMD_USER_UNIT={unit}"),
        ),
    };
    let mut line: Vec<String> = flag.into_iter().map(str::to_owned).collect();
    line.extend([
        format!("--output-fields={FIELDS}"),
        format!("--lines={LINES}"),
    ]);
    let complaints = || (0..=4).map(|priority| format!("PRIORITY={priority}"));
    line.extend(manager.clone());
    line.extend(EVENTS.map(|(id, _)| format!("MESSAGE_ID={id}")));
    line.push("+".to_owned());
    line.extend(manager);
    line.extend(complaints());
    line.push("+".to_owned());
    line.extend([own, format!("SYSLOG_IDENTIFIER={IDENTIFIER}")]);
    line.extend(complaints());
    line
}

/// What the entries report, the oldest first.
fn in_order(entries: &[Value]) -> Vec<JournalLine> {
    let mut lines: Vec<JournalLine> = entries.iter().filter_map(read).collect();
    lines.sort_by_key(|line| line.at);
    lines
}

fn read(entry: &Value) -> Option<JournalLine> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let at = Timestamp::from_microsecond(field("__REALTIME_TIMESTAMP").parse().ok()?).ok()?;
    let text = field("MESSAGE").to_owned();
    let by_id = EVENTS
        .iter()
        .find(|(id, _)| *id == field("MESSAGE_ID"))
        .map(|(_, event)| *event);
    let event = match by_id {
        _ if field("SYSLOG_IDENTIFIER") == IDENTIFIER => JournalEvent::Gateway,
        // The end of ExecReload= has the same id.
        Some(JournalEvent::Exit) if !text.contains("Main process exited") => {
            JournalEvent::Complaint
        }
        Some(event) => event,
        None if text.contains("Watchdog timeout") => JournalEvent::Watchdog,
        None if text.contains("Start request repeated too quickly") => JournalEvent::TooOften,
        None => JournalEvent::Complaint,
    };
    Some(JournalLine {
        at,
        event,
        exit: ProcessEnd::from_word(field("EXIT_CODE")),
        status: number_of(field("EXIT_STATUS")),
        result: field("UNIT_RESULT").into(),
        sidecar_end: SidecarEnd::of(field("SIDECAR"), &text),
        priority: field("PRIORITY").parse().unwrap_or(6),
        text,
    })
}

/// An exit code, or the number of a signal; some versions of systemd write its name without SIG.
fn number_of(text: &str) -> i32 {
    text.parse().unwrap_or_else(|_| {
        format!("SIG{text}")
            .parse::<nix::sys::signal::Signal>()
            .map_or(0, |signal| signal as i32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what journalctl prints, one object a line; skips every line of another form.
    fn parse(text: &str) -> Vec<JournalLine> {
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        in_order(&entries.collect::<Vec<_>>())
    }

    #[test]
    fn lines_of_systemd_and_of_the_gateway_are_distinguished() {
        let text = r#"{"__REALTIME_TIMESTAMP":"1763797450000002","MESSAGE":"gateway.service: Main process exited, code=killed, status=9/KILL","MESSAGE_ID":"98e322203f7a4ed290d09fe03c09fe15","EXIT_CODE":"killed","EXIT_STATUS":"9","PRIORITY":"4","SYSLOG_IDENTIFIER":"systemd"}
{"__REALTIME_TIMESTAMP":"1763797450000001","MESSAGE":"gateway.service: Watchdog timeout (limit 1s)!","PRIORITY":"3","SYSLOG_IDENTIFIER":"systemd"}
{"__REALTIME_TIMESTAMP":"1763797450000003","MESSAGE":"[gateway] sidecar main (pid 5) was ended by SIGKILL; starting it again at once","SIDECAR":"main","PRIORITY":"4","SYSLOG_IDENTIFIER":"gateway"}
not json
{"MESSAGE":"no time"}
{"__REALTIME_TIMESTAMP":"1763797450000004","MESSAGE":[1,2]}
"#;
        let lines = parse(text);
        assert_eq!(
            lines.iter().map(|line| line.event).collect::<Vec<_>>(),
            [
                JournalEvent::Watchdog,
                JournalEvent::Exit,
                JournalEvent::Gateway,
                JournalEvent::Complaint
            ]
        );
        assert_eq!(
            (lines[1].exit, lines[1].status),
            (Some(ProcessEnd::Killed), 9)
        );
        let ended = lines[2].sidecar_end.as_ref().unwrap();
        assert_eq!(
            (ended.name.as_str(), ended.how.as_str()),
            ("main", "(pid 5) was ended by SIGKILL")
        );
        assert_eq!(
            (number_of("KILL"), number_of("78"), number_of("")),
            (9, 78, 0)
        );
    }

    #[test]
    fn only_the_manager_s_own_lines_about_the_unit_count() {
        let system = arguments(Scope::System, "gateway.service", 7).join(" ");
        assert!(
            system.contains("_PID=1 UNIT=gateway.service MESSAGE_ID=")
                && system.contains("+ _SYSTEMD_UNIT=gateway.service"),
            "{system}"
        );
        let user = arguments(Scope::User, "a.service", 7).join(" ");
        assert!(
            user.starts_with("--user ")
                && user.contains("_UID=7 USER_UNIT=a.service")
                && !user.contains("_PID=1"),
            "{user}"
        );
    }
}
