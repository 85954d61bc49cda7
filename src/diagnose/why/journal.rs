//! What the journal tells of a unit: what its manager did to it, and what the gateway itself
//! complained of.
//!
//! journalctl is asked, as `gatewayctl logs` does: the journal's files have no other reader that
//! every machine has.

use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::Value;

use crate::state::paths::Scope;
use crate::text::log::IDENTIFIER;

/// Enough for some tens of lives: each leaves a handful of lines of these kinds.
const LINES: u32 = 400;

/// The messages of a manager that say what became of a unit (sd-messages.h of systemd).
const KINDS: [(&str, Kind); 8] = [
    ("7d4958e842da4a758f6c1cdc7b36dcc5", Kind::Starting),
    ("39f53479d3a045ac8e11786248231fbf", Kind::Ready),
    ("de5b426a63be47a7b6ac3eaac82e2f6f", Kind::Stopping),
    ("98e322203f7a4ed290d09fe03c09fe15", Kind::Exit),
    ("d9b373ed55a64feb8242e02dbe79a49c", Kind::Failed),
    ("fe6faa94e7774663a0da52717891d8ef", Kind::OutOfMemory),
    ("5eb03494b6584870a536b337290809b3", Kind::StartsAgain),
    ("9d1aaa27d60140bd96365438aad20286", Kind::Stopped),
];

/// The fields that are read.
const FIELDS: &str = "MESSAGE,MESSAGE_ID,PRIORITY,SYSLOG_IDENTIFIER,EXIT_CODE,EXIT_STATUS,UNIT_RESULT,JOB_TYPE,SIDECAR";

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The manager begins to start the unit.
    Starting,
    /// The unit is started.
    Ready,
    /// Somebody asked the manager to stop it.
    Stopping,
    /// Its main process has ended.
    Exit,
    /// It failed, with a result.
    Failed,
    /// The kernel ended one of its processes for want of memory.
    OutOfMemory,
    /// The manager is going to start it again.
    StartsAgain,
    /// The unit is stopped.
    Stopped,
    /// It did not feed the watchdog; the manager gives this no number.
    Watchdog,
    /// It was started too often; the manager gives this no number either.
    TooOften,
    /// Something else that the manager complains of.
    Complaint,
    /// A complaint of the gateway.
    Gateway,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    pub kind: Kind,
    pub text: String,
    /// [`Kind::Exit`]: exited, killed or dumped.
    pub code: String,
    /// [`Kind::Exit`]: the exit code, or the signal's number.
    pub status: i32,
    /// [`Kind::Failed`]: signal, exit-code, watchdog, …
    pub result: String,
    /// The sidecar that a complaint is about.
    pub sidecar: Option<String>,
    /// syslog's: 3 is an error, 4 a warning.
    pub priority: u8,
}

/// The lines about a unit, the oldest first; why not, where the journal cannot be asked.
///
/// # Errors
/// A sentence for people.
pub fn of_unit(scope: Scope, unit: &str) -> Result<Vec<Line>, String> {
    let output = Command::new("journalctl")
        .args(arguments(scope, unit, nix::unistd::geteuid().as_raw()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("journalctl cannot be run: {error}"))?;
    let lines = parse(&String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    match said.lines().next() {
        Some(said) if lines.is_empty() && !output.status.success() => {
            Err(format!("journalctl: {said}"))
        }
        _ => Ok(lines),
    }
}

fn arguments(scope: Scope, unit: &str, uid: u32) -> Vec<String> {
    let (flag, manager, own) = match scope {
        // Anybody may write a field without an underscore: only the manager's own lines count.
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
    line.extend(["--quiet", "--no-pager", "--output=json"].map(str::to_owned));
    line.extend([
        format!("--output-fields={FIELDS}"),
        format!("--lines={LINES}"),
    ]);
    let complaints = || (0..=4).map(|priority| format!("PRIORITY={priority}"));
    line.extend(manager.clone());
    line.extend(KINDS.map(|(id, _)| format!("MESSAGE_ID={id}")));
    line.push("+".to_owned());
    line.extend(manager);
    line.extend(complaints());
    line.push("+".to_owned());
    line.extend([own, format!("SYSLOG_IDENTIFIER={IDENTIFIER}")]);
    line.extend(complaints());
    line
}

/// Reads what journalctl prints, one object a line; what is no line of ours is passed over.
pub fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = text
        .lines()
        .filter_map(|line| read(&serde_json::from_str(line).ok()?))
        .collect();
    lines.sort_by_key(|line| line.at);
    lines
}

fn read(entry: &Value) -> Option<Line> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let at = Timestamp::from_microsecond(field("__REALTIME_TIMESTAMP").parse().ok()?).ok()?;
    let text = field("MESSAGE").to_owned();
    let by_id = KINDS
        .iter()
        .find(|(id, _)| *id == field("MESSAGE_ID"))
        .map(|(_, kind)| *kind);
    let kind = match by_id {
        _ if field("SYSLOG_IDENTIFIER") == IDENTIFIER => Kind::Gateway,
        // That of ExecReload= has the same id.
        Some(Kind::Exit) if !text.contains("Main process exited") => Kind::Complaint,
        Some(kind) => kind,
        None if text.contains("Watchdog timeout") => Kind::Watchdog,
        None if text.contains("Start request repeated too quickly") => Kind::TooOften,
        None => Kind::Complaint,
    };
    Some(Line {
        at,
        kind,
        code: field("EXIT_CODE").to_owned(),
        status: number_of(field("EXIT_STATUS")),
        result: field("UNIT_RESULT").to_owned(),
        sidecar: Some(field("SIDECAR"))
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        priority: field("PRIORITY").parse().unwrap_or(6),
        text,
    })
}

/// A number, or a signal by its name without SIG, as versions of systemd differ.
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

    #[test]
    fn lines_of_systemd_and_of_the_gateway_are_told_apart() {
        let text = r#"{"__REALTIME_TIMESTAMP":"1763797450000002","MESSAGE":"gateway.service: Main process exited, code=killed, status=9/KILL","MESSAGE_ID":"98e322203f7a4ed290d09fe03c09fe15","EXIT_CODE":"killed","EXIT_STATUS":"9","PRIORITY":"4","SYSLOG_IDENTIFIER":"systemd"}
{"__REALTIME_TIMESTAMP":"1763797450000001","MESSAGE":"gateway.service: Watchdog timeout (limit 1s)!","PRIORITY":"3","SYSLOG_IDENTIFIER":"systemd"}
{"__REALTIME_TIMESTAMP":"1763797450000003","MESSAGE":"[gateway] sidecar main (pid 5) was ended by SIGKILL; starting it again at once","SIDECAR":"main","PRIORITY":"4","SYSLOG_IDENTIFIER":"gateway"}
not json
{"MESSAGE":"no time"}
{"__REALTIME_TIMESTAMP":"1763797450000004","MESSAGE":[1,2]}
"#;
        let lines = parse(text);
        assert_eq!(
            lines.iter().map(|line| line.kind).collect::<Vec<_>>(),
            [Kind::Watchdog, Kind::Exit, Kind::Gateway, Kind::Complaint]
        );
        assert_eq!(
            (
                lines[1].code.as_str(),
                lines[1].status,
                lines[2].sidecar.as_deref()
            ),
            ("killed", 9, Some("main"))
        );
        assert_eq!(
            (number_of("KILL"), number_of("78"), number_of("")),
            (9, 78, 0)
        );
    }

    #[test]
    fn only_the_manager_is_believed_about_the_unit() {
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
