//! Places where a test build can be made to fail, by `$GATEWAY_FAILPOINT`: `NAME=kill`,
//! `NAME=exit`, `NAME=hang`, or `NAME=pause`. `@FILE` names a file that holds such a wish and may
//! appear at any time: the first process that gets to the place renames it to `FILE.reached`, so
//! that a wish comes true once and a test sees it; a pause lasts as long as that is there. A
//! release build has none of this.

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

    /// Nothing tells a process that a file is gone, at no more cost than looking.
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
        // Another process was there first.
        return;
    }
    // For whoever waits for this moment.
    tracing::warn!("[gateway] failpoint {wish}");
    match how {
        // As the kernel does it when memory runs out: nothing is cleaned up.
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
