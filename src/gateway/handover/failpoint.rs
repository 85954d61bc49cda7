//! Points at which a test build fails on request, by `$GATEWAY_FAILPOINT`: `NAME=kill`,
//! `NAME=exit`, `NAME=hang`, `NAME=panic`, or `NAME=pause`. `@FILE` names a file that contains such a request and
//! may appear at any time. The first process that reaches the point renames it to `FILE.reached`,
//! so that the request is performed once and a test sees it; a pause lasts while that file exists.
//! A release build has no failpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

/// How often the file is looked for; in a test, polling is cheap enough.
const LOOK: Duration = Duration::from_millis(2);

/// Passes, unless a test build is to fail here.
#[allow(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "it is to hang, to panic, or to end without a destructor"
)]
pub fn pass(name: &str) {
    let wish = std::env::var("GATEWAY_FAILPOINT").unwrap_or_default();
    if !cfg!(debug_assertions) || wish.is_empty() {
        return;
    }
    let file = wish.strip_prefix('@');
    let reached = file.map(|file| PathBuf::from(format!("{file}.reached")));
    let wish = match file {
        Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
        None => wish.clone(),
    };
    let Some((_, how)) = wish
        .trim()
        .split_once('=')
        .filter(|(place, _)| *place == name)
    else {
        return;
    };
    if let (Some(file), Some(reached)) = (file, &reached)
        && std::fs::rename(file, reached).is_err()
    {
        // Another process reached the point first.
        return;
    }
    // A test waits for this line.
    tracing::warn!("[gateway] failpoint {wish}");
    match how {
        // Like a kill by the kernel when memory runs out: nothing is cleaned up.
        "kill" => drop(raise(Signal::SIGKILL)),
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "panic" => std::panic::panic_any("failpoint"),
        "exit" => std::process::exit(1),
        "pause" => {
            while reached.as_deref().is_some_and(Path::exists) {
                std::thread::sleep(LOOK);
            }
        }
        _ => {}
    }
}
