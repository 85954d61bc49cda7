//! Points at which a test build fails on request, by `$GATEWAY_FAILPOINT`: `NAME=kill`,
//! `NAME=exit`, `NAME=hang`, or `NAME=pause`. `@FILE` names a file that contains such a request and
//! may appear at any time. The first process that reaches the point renames it to `FILE.reached`,
//! so that the request is performed once and a test sees it; a pause lasts while that file exists.
//! A release build has no failpoints.

/// Passes, but in a test build that was told to fail here.
#[cfg(not(debug_assertions))]
pub fn pass(_: &str) {}

/// Passes, but in a test build that was told to fail here.
#[cfg(debug_assertions)]
#[allow(
    clippy::disallowed_methods,
    reason = "it is to hang, or to end without a destructor"
)]
pub fn pass(name: &str) {
    use std::time::Duration;

    /// How often the file is looked for; in a test, polling is cheap enough.
    const LOOK: Duration = Duration::from_millis(2);

    let Ok(wish) = std::env::var("GATEWAY_FAILPOINT") else {
        return;
    };
    let file = wish.strip_prefix('@').map(std::path::PathBuf::from);
    let wish = file
        .as_ref()
        .map_or(Ok(wish.clone()), std::fs::read_to_string)
        .unwrap_or_default();
    let Some((_, how)) = wish
        .trim()
        .split_once('=')
        .filter(|(place, _)| *place == name)
    else {
        return;
    };
    let reached = file.as_ref().map(|file| {
        let mut name = file.clone().into_os_string();
        name.push(".reached");
        std::path::PathBuf::from(name)
    });
    if let (Some(file), Some(reached)) = (&file, &reached)
        && std::fs::rename(file, reached).is_err()
    {
        // Another process reached the point first.
        return;
    }
    // A test waits for this line.
    tracing::warn!("[gateway] failpoint {wish}");
    match how {
        // Like a kill by the kernel when memory runs out: nothing is cleaned up.
        "kill" => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)),
        "hang" => std::thread::sleep(Duration::from_secs(3600)),
        "exit" => std::process::exit(1),
        "pause" => {
            while reached.as_ref().is_some_and(|reached| reached.exists()) {
                std::thread::sleep(LOOK);
            }
        }
        _ => {}
    }
}
