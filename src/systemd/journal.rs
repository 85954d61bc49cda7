//! Asks journalctl, which every machine with a journal has. Every user may write entries, of any length
//! and number, so the answer and the time for it are limited.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// How long journalctl may take: it reads what is asked for within a second, on a slow disk in some.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How much of an answer is read. In JSON, journalctl gives no field of over 4096 bytes; this is enough
/// for thousands of entries.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// How much is read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// The entries that match, the oldest first, as journalctl(1) describes them for `--output=json`: a
/// field that is too long is null. Those that do not come in time, or are too many, are missing.
///
/// # Errors
/// Why the journal cannot be read, in a sentence.
pub fn entries(
    arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
) -> Result<Vec<Value>, String> {
    let mut command = Command::new("journalctl");
    command
        .args(["--quiet", "--no-pager", "--output=json"])
        .args(arguments);
    let answer = ask(command, TIME_MAX, ANSWER_MAX)
        .map_err(|error| format!("journalctl cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&answer.output);
    let entries: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    match answer.failure {
        Some(said) if entries.is_empty() => Err(format!("journalctl: {said}")),
        _ => Ok(entries),
    }
}

/// The text of a field; none where it is missing or too long. What is not plain text comes as bytes.
pub fn text(entry: &Value, field: &str) -> Option<String> {
    match entry.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes = bytes.iter().filter_map(Value::as_u64);
            let bytes: Vec<u8> = bytes.filter_map(|byte| u8::try_from(byte).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

struct JournalAnswer {
    output: Vec<u8>,
    /// What it said when it failed.
    failure: Option<String>,
}

/// Runs a command until it ends, its time is over, or it has said enough.
fn ask(mut command: Command, time: Duration, most: usize) -> io::Result<JournalAnswer> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = read(&mut child, Instant::now() + time, most);
    // An error means that it has ended.
    let _ = child.kill();
    let status = child.wait()?;
    let mut said = String::new();
    if let Some(errors) = child.stderr.take() {
        // It has ended, so this ends, too.
        let _ = errors.take(CHUNK as u64).read_to_string(&mut said);
    }
    let first = said.lines().next().map(str::to_owned);
    Ok(JournalAnswer {
        output: output?,
        failure: first.filter(|_| status.code().is_some_and(|code| code != 0)),
    })
}

fn read(child: &mut Child, until: Instant, most: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let Some(mut pipe) = child.stdout.take() else {
        return Ok(output);
    };
    let mut chunk = vec![0; CHUNK];
    while output.len() < most {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, timeout) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut chunk)? {
            0 => break,
            length => output.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_answer_without_end_is_cut_and_one_that_does_not_come_is_not_waited_for() {
        let limit = Duration::from_secs(60);
        let endless = ask(shell("exec cat /dev/zero"), limit, 1 << 20).unwrap();
        assert!(endless.output.len() < (1 << 20) + CHUNK && endless.failure.is_none());
        let late = ask(
            shell("echo a; exec sleep 600"),
            Duration::from_millis(300),
            10,
        );
        assert!(late.unwrap().output.len() <= 2);
        let failed = ask(shell("echo no such unit >&2; exit 1"), limit, 10).unwrap();
        assert_eq!(failed.failure.as_deref(), Some("no such unit"));
    }

    #[test]
    fn fields_that_are_no_text_are_read_as_bytes_and_long_ones_are_missing() {
        let entry = serde_json::json!({"A": "a", "B": [27, 91, 98], "C": null});
        assert_eq!(text(&entry, "A").as_deref(), Some("a"));
        assert_eq!(text(&entry, "B").as_deref(), Some("\u{1b}[b"));
        assert_eq!((text(&entry, "C"), text(&entry, "D")), (None, None));
    }
}
