//! `bundles/`: what was known at the moment something went badly wrong, for whoever looks at it
//! later.
//!
//! One JSON file each, named by time, process and reason; the newest are kept. Everything passes
//! the redactor.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{atomic_file, history};
use crate::text::redact::Redactor;

/// How many are kept: enough for a day of trouble, little enough for any disk.
const KEPT: usize = 20;

/// No bundle is longer, in bytes; its reader refuses longer ones.
pub const BUNDLE_MAX: usize = 5 * 1024 * 1024;

/// How long a reason may be.
const REASON_MAX: usize = 120;

/// How many characters of an error are kept.
const ERROR_MAX: usize = 500;

/// How much of the history goes in, in lines.
const HISTORY_LINES: usize = 50;

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Bundle<'a> {
    /// What happened, in a word: `forced-exit`, `start-failed`, `respawn-failed`, `safe-mode`.
    pub reason: &'a str,
    /// The error, if there was one.
    pub error: Option<&'a str>,
    /// How long the process has run, in milliseconds.
    pub uptime_ms: u64,
    pub instance: &'a str,
    /// What `status` would have answered.
    pub status: Value,
    /// Measurements and whatever else may tell why.
    pub evidence: Value,
}

/// Writes a bundle into the state directory `dir` and removes all but the newest 20.
///
/// # Errors
/// Whatever the file system says, or that it is longer than a bundle may be.
pub fn write(dir: &Path, bundle: &Bundle<'_>, redactor: &Redactor) -> io::Result<PathBuf> {
    let now = Timestamp::now();
    let reason = reason(bundle.reason);
    let mut text = serde_json::to_vec_pretty(&content(dir, bundle, &reason, now, redactor))?;
    text.push(b'\n');
    if text.len() > BUNDLE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a bundle of {} bytes is too long", text.len()),
        ));
    }
    let folder = dir.join("bundles");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let path = folder.join(format!(
        "gateway-{}-{}-{reason}.json",
        now.strftime("%Y%m%dT%H%M%S%3fZ"),
        std::process::id()
    ));
    atomic_file::write(&path, &text, 0o600)?;
    prune(&folder, &path);
    Ok(path)
}

/// The bundles in `dir`, the oldest first.
pub fn list(dir: &Path) -> Vec<PathBuf> {
    in_folder(&dir.join("bundles"))
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
    let error: Option<String> = bundle
        .error
        .map(|error| redactor.text(error).chars().take(ERROR_MAX).collect());
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

/// A reason as it may stand in a file's name: `[A-Za-z0-9_.:-]{1,120}`.
fn reason(text: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() || "_.:-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let reason: String = text.chars().take(REASON_MAX).map(kept).collect();
    if reason.is_empty() {
        "unknown".to_owned()
    } else {
        reason
    }
}

/// Removes the oldest, never the one just written. Those that cannot be removed are tried again
/// with the next bundle.
fn prune(folder: &Path, newest: &Path) {
    let others: Vec<PathBuf> = in_folder(folder)
        .into_iter()
        .filter(|path| path != newest)
        .collect();
    let surplus = others.len().saturating_sub(KEPT - 1);
    others
        .iter()
        .take(surplus)
        .for_each(|path| drop(std::fs::remove_file(path)));
}

/// Files with names of ours, in the order of their names, which is that of time.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let ours = |name: &str| name.starts_with("gateway-") && name.ends_with(".json");
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(ours))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::state::history::{History, HistoryEntry};

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn it_says_what_was_known_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let redactor = Redactor::default();
        redactor.learn_command(&["app".into(), "--token".into(), "CANARY-1".into()]);
        History::open(dir.path()).append(&HistoryEntry::Rung {
            rung: crate::state::terms::RungName::SafeMode,
            reason: Some("it printed CANARY-1".into()),
        });
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
        let value = read(&path);
        assert_eq!(
            (
                &value["version"],
                &value["reason"],
                &value["process"]["uptimeMs"]
            ),
            (&json!(1), &json!("safe-mode"), &json!(5))
        );
        assert_eq!(value["evidence"]["oomKills"], 3);
        assert_eq!(value["history"].as_array().unwrap().len(), 1);
        assert_eq!(value["error"]["message"], "app said ***");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            std::fs::metadata(path.parent().unwrap())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
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
        let folder = dir.path().join("bundles");
        std::fs::create_dir(&folder).unwrap();
        for number in 0..30 {
            std::fs::write(
                folder.join(format!("gateway-20200101T0000000{number:02}Z-1-x.json")),
                "{}",
            )
            .unwrap();
        }
        // As after a clock that was ahead.
        std::fs::write(folder.join("gateway-29990101T000000000Z-1-x.json"), "{}").unwrap();
        std::fs::write(folder.join("notes.json"), "mine").unwrap();
        let path = write(
            dir.path(),
            &Bundle {
                reason: "forced-exit",
                ..Bundle::default()
            },
            &Redactor::default(),
        )
        .unwrap();
        let left = list(dir.path());
        assert_eq!(left.len(), KEPT);
        assert!(
            left.contains(&path) && left[0].ends_with("gateway-20200101T000000012Z-1-x.json"),
            "{left:?}"
        );
        assert!(folder.join("notes.json").exists());
    }

    #[test]
    fn a_reason_is_a_word() {
        assert_eq!(reason("restart:failed-1.2_x"), "restart:failed-1.2_x");
        assert_eq!(reason("../../etc/passwd x\n"), ".._.._etc_passwd_x_");
        assert_eq!(reason(""), "unknown");
        assert_eq!(reason(&"ä".repeat(500)).len(), REASON_MAX);
    }

    #[test]
    fn too_much_is_refused_and_a_folder_that_cannot_be_is_told() {
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
