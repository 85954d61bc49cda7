//! Tests that cannot run here say so, and where nothing may be skipped they fail.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Notes that a test is skipped and why; `tests/run` shows the list at its end.
///
/// # Panics
/// With `CI` set: nothing is skipped there.
pub fn because(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{reason}; nothing is skipped where CI is set"
    );
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED: {test}: {reason}");
    if let Some(list) = std::env::var_os("TESTS_SKIPPED") {
        let mut list = OpenOptions::new()
            .create(true)
            .append(true)
            .open(list)
            .unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}

/// Whether a program is there; without it the test is skipped.
pub fn unless_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).exists());
    if !found {
        because(&format!("{program} is not installed"));
    }
    found
}
