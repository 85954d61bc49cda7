//! Places where a test build can be made to die or to hang, by `$GATEWAY_FAILPOINT` (`NAME=kill`, `NAME=hang` or
//! `NAME=exit`). A release build has none.

/// Passes, but in a test build that was told to fail here.
#[cfg(not(debug_assertions))]
pub fn pass(_: &str) {}

/// Passes, but in a test build that was told to fail here.
#[cfg(debug_assertions)]
#[allow(clippy::disallowed_methods, reason = "it is to hang, or to end without a destructor")]
pub fn pass(name: &str) {
    let Ok(wish) = std::env::var("GATEWAY_FAILPOINT") else { return };
    let how = wish.split_once('=').filter(|(place, _)| *place == name);
    if how.is_some() {
        // For whoever waits for this moment.
        tracing::warn!("[gateway] failpoint {wish}");
    }
    match how {
        // As the kernel does it when memory runs out: nothing is cleaned up.
        Some((_, "kill")) => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)),
        Some((_, "hang")) => std::thread::sleep(std::time::Duration::from_secs(3600)),
        Some((_, "exit")) => std::process::exit(1),
        _ => {}
    }
}
