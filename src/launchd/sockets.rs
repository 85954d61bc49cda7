//! The sockets that launchd holds for a job (Sockets of launchd.plist(5)), taken by launch_activate_socket(3).

use crate::systemd::PassedFd;

/// Their name in Sockets: one, with a dictionary for each address.
pub const SOCKETS: &str = "gateway";

/// Takes the sockets of [`SOCKETS`]: once, before any other descriptor is opened. None where this process is
/// no job, or its property list has none.
///
/// A name that launchd could not bind is not among them: then the address is somebody else's, and the gateway
/// waits for it as for any other.
pub fn take() -> Vec<PassedFd> {
    passed()
        .into_iter()
        .filter_map(|raw| crate::systemd::claim(raw, SOCKETS.to_owned()))
        .collect()
}

#[cfg(target_os = "macos")]
fn passed() -> Vec<std::os::fd::RawFd> {
    // An error says that there are none: this process is no job, or the name is not in its property list.
    crate::os::darwin::activate_socket(c"gateway").unwrap_or_default()
}

/// What the simulated launchd of tests passes, in debug builds only: `NAME=FD,FD`.
#[cfg(not(target_os = "macos"))]
fn passed() -> Vec<std::os::fd::RawFd> {
    const OF_SIMULATOR: &str = "LAUNCHD_SIM_SOCKETS";
    let given = std::env::var(OF_SIMULATOR).ok();
    let given = given.filter(|_| cfg!(debug_assertions));
    let numbers = given.as_deref().and_then(|text| {
        let (name, numbers) = text.split_once('=')?;
        (name == SOCKETS).then_some(numbers)
    });
    let numbers = numbers.into_iter().flat_map(|text| text.split(','));
    numbers.filter_map(|number| number.parse().ok()).collect()
}
