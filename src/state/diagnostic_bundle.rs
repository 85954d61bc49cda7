//! `bundles/`: what was known when something went badly wrong.
//!
//! One JSON file for each event, named by time, process and reason; the newest are kept. Everything
//! passes the redactor.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{atomic_file, history, untrusted_file};
use crate::text::redact::Redactor;

/// How many are kept: enough for a day of trouble, little enough for any disk.
const KEPT: usize = 20;

/// The longest bundle, in bytes; its reader refuses longer ones.
pub const BUNDLE_MAX: usize = 5 * 1024 * 1024;

/// The longest reason, in characters.
const REASON_MAX: usize = 120;

/// How many characters of an error are kept.
const ERROR_MAX: usize = 500;

/// How much of the history goes in, in lines.
const HISTORY_LINES: usize = 50;

#[derive(Clone, Debug, Default)]
pub struct Bundle<'a> {
    /// What happened, in a word: `forced-exit`, `cut`, `start-failed`, `respawn-failed`, `safe-mode`.
    pub reason: &'a str,
    pub error: Option<&'a str>,
    /// How long the process has run, in milliseconds.
    pub uptime_ms: u64,
    pub instance: &'a str,
    /// What `status` would have answered.
    pub status: Value,
    /// Measurements, and what else may explain it.
    pub evidence: Value,
}

/// Writes a bundle into the state directory `dir` and removes all but the newest 20. One that is
/// too long is an error.
pub fn write(dir: &Path, bundle: &Bundle<'_>, redactor: &Redactor) -> io::Result<PathBuf> {
    let now = Timestamp::now();
    let reason = reason(bundle.reason);
    let mut text = serde_json::to_vec_pretty(&content(dir, bundle, &reason, now, redactor))?;
    text.push(b'\n');
    if text.len() > BUNDLE_MAX {
        let message = format!("a bundle of {} bytes is too long", text.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let directory = dir.join("bundles");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)?;
    let path = directory.join(format!(
        "gateway-{}-{}-{reason}.json",
        now.strftime("%Y%m%dT%H%M%S%3fZ"),
        std::process::id()
    ));
    atomic_file::write(&path, &text, 0o600)?;
    prune(&directory, &path);
    Ok(path)
}

/// The bundles in `dir`, the oldest first.
pub fn list(dir: &Path) -> Vec<PathBuf> {
    bundles_in(&dir.join("bundles"))
}

fn content(
    dir: &Path,
    bundle: &Bundle<'_>,
    reason: &str,
    now: Timestamp,
    redactor: &Redactor,
) -> Value {
    let mut lines: Vec<Value> = history::read(dir)
        .rev()
        .take(HISTORY_LINES)
        .filter_map(|line| serde_json::to_value(line).ok())
        .collect();
    lines.reverse();
    let error = bundle.error.map(|error| redactor.text(error));
    let error: Option<String> = error.map(|error| error.chars().take(ERROR_MAX).collect());
    json!({
        "version": 1,
        "generatedAt": now,
        "reason": reason,
        "instance": bundle.instance,
        "process": {
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "platform": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "uptimeMs": bundle.uptime_ms,
        },
        "error": error.map(|message| json!({"message": message})),
        "status": redacted(&bundle.status, None, redactor),
        "evidence": redacted(&bundle.evidence, None, redactor),
        "history": redacted(&Value::Array(lines), None, redactor),
    })
}

/// The same with every secret in it hidden; `key` is the name a value stands under.
fn redacted(value: &Value, key: Option<&str>, redactor: &Redactor) -> Value {
    match value {
        Value::String(text) => {
            Value::String(key.map_or_else(|| redactor.text(text), |key| redactor.value(key, text)))
        }
        Value::Array(items) => items
            .iter()
            .map(|item| redacted(item, key, redactor))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), redacted(value, Some(key), redactor)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A reason as a part of a file's name: `[A-Za-z0-9_.:-]{1,120}`.
fn reason(text: &str) -> String {
    let odd = |c: char| !c.is_ascii_alphanumeric() && !"_.:-".contains(c);
    let short: String = text.chars().take(REASON_MAX).collect();
    if short.is_empty() {
        "unknown".to_owned()
    } else {
        short.replace(odd, "_")
    }
}

/// Removes the oldest, but never `newest`. What cannot be removed is tried again with the next
/// bundle.
fn prune(directory: &Path, newest: &Path) {
    let mut others = bundles_in(directory);
    others.retain(|path| path != newest);
    let surplus = others.len().saturating_sub(KEPT - 1);
    others
        .iter()
        .take(surplus)
        .for_each(|path| drop(std::fs::remove_file(path)));
}

/// The bundles in the order of their names, which is that of time.
fn bundles_in(directory: &Path) -> Vec<PathBuf> {
    let ours = |name: &str| name.starts_with("gateway-") && name.ends_with(".json");
    let names = untrusted_file::names(directory).unwrap_or_default();
    let mut paths: Vec<PathBuf> = names
        .into_iter()
        .filter(|name| name.to_str().is_some_and(ours))
        .map(|name| directory.join(name))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::atomic_file::mode;
    use crate::state::history::{History, HistoryEntry};
    use crate::state::terms::RungName;

    #[test]
    fn it_says_what_was_known_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let redactor = Redactor::default();
        redactor.learn_command(&["app".into(), "--token".into(), "CANARY-1".into()]);
        let history = History::open(dir.path());
        history
            .append(&history.line(HistoryEntry::Rung {
                rung: RungName::SafeMode,
                reason: Some("it printed CANARY-1".into()),
            }))
            .unwrap();
        let bundle = Bundle {
            reason: "safe-mode",
            error: Some("app said CANARY-1"),
            uptime_ms: 5,
            instance: "a",
            status: json!({"sidecars": [{"command": "app CANARY-1"}], "apiKey": "CANARY-2", "env": {"DB_PASSWORD": ["CANARY-3"]}}),
            evidence: json!({"note": "Authorization: Bearer CANARY-4", "oomKills": 3}),
        };
        let path = write(dir.path(), &bundle, &redactor).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("CANARY"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], 1);
        assert_eq!(value["reason"], "safe-mode");
        assert_eq!(value["process"]["uptimeMs"], 5);
        assert_eq!(value["evidence"]["oomKills"], 3);
        assert_eq!(value["history"].as_array().unwrap().len(), 1);
        assert_eq!(value["error"]["message"], "app said ***");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            name.starts_with("gateway-2")
                && name.ends_with(&format!("Z-{}-safe-mode.json", std::process::id())),
            "{name}"
        );
    }

    #[test]
    fn the_newest_are_kept_and_files_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("bundles");
        std::fs::create_dir(&directory).unwrap();
        for number in 0..30 {
            let name = format!("gateway-20200101T0000000{number:02}Z-1-x.json");
            std::fs::write(directory.join(name), "{}").unwrap();
        }
        // As after a clock that was ahead.
        std::fs::write(directory.join("gateway-29990101T000000000Z-1-x.json"), "{}").unwrap();
        std::fs::write(directory.join("notes.json"), "mine").unwrap();
        let bundle = Bundle {
            reason: "forced-exit",
            ..Bundle::default()
        };
        let path = write(dir.path(), &bundle, &Redactor::default()).unwrap();
        let left = list(dir.path());
        assert_eq!(left.len(), KEPT);
        assert!(
            left.contains(&path) && left[0].ends_with("gateway-20200101T000000012Z-1-x.json"),
            "{left:?}"
        );
        assert!(directory.join("notes.json").exists());
    }

    #[test]
    fn a_reason_is_a_word() {
        assert_eq!(reason("restart:failed-1.2_x"), "restart:failed-1.2_x");
        assert_eq!(reason("../../etc/passwd x\n"), ".._.._etc_passwd_x_");
        assert_eq!(reason(""), "unknown");
        assert_eq!(reason(&"ä".repeat(500)).len(), REASON_MAX);
    }

    #[test]
    fn a_bundle_that_is_too_long_or_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle {
            reason: "x",
            status: json!("x".repeat(BUNDLE_MAX)),
            ..Bundle::default()
        };
        assert!(write(dir.path(), &bundle, &Redactor::default()).is_err());
        assert!(list(dir.path()).is_empty());
        std::fs::write(dir.path().join("bundles"), "").unwrap();
        assert!(write(dir.path(), &Bundle::default(), &Redactor::default()).is_err());
    }
}
