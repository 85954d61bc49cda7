//! Ending gateways that were left behind: for `clean` and `restart`.

use std::io;

use super::{CliError, Exit};
use crate::os::process::Process;
use crate::service::Rights;
use crate::stale::{self, AddressClaim, CleanMode, CleanReport, KeepCode, KeptProcess};

/// Ends the gateways that are proven stale at the addresses of a claim.
///
/// `by` is the command, for the record of what it ends.
///
/// # Errors
/// When the kernel does not list its sockets.
pub async fn end_stale(
    claim: &AddressClaim,
    mode: CleanMode,
    by: &str,
) -> Result<CleanReport, CliError> {
    let claim = AddressClaim {
        by: by.to_owned(),
        ..claim.clone()
    };
    stale::end_stale(&claim, mode)
        .await
        .map_err(cannot_see_holders)
}

pub fn cannot_see_holders(error: io::Error) -> CliError {
    Exit::Failed.error(format!("cannot see who listens here: {error}"))
}

/// The refusal when a process that was kept holds the port.
pub fn held(report: &CleanReport) -> CliError {
    // An ancestor of this command may be the gateway itself: it is named last.
    let strangers = || report.kept.iter().filter(|kept| !kept.ours);
    let stranger = strangers()
        .find(|kept| kept.reason != KeepCode::Ancestor)
        .or_else(|| strangers().next())
        .or_else(|| (report.kept.iter()).find(|kept| kept.reason == KeepCode::Owns));
    let mut error = Exit::Refused.error(report.stands());
    error.clean = Some(Box::new(report.clone()));
    match stranger {
        Some(KeptProcess { reason: KeepCode::Foreign, name, pid, .. }) => {
            let stop = Process::read(*pid).map_or_else(|| format!("kill {pid}"), |one| one.stop_command());
            error.with_help(format!(
                "{stop}   (ends {})\nor give the gateway another address (`listen`)\ngatewayctl clean --force --pid {pid}   (ends it, whatever it is)",
                crate::text::escape::escape(name),
            ))
        }
        Some(KeptProcess { reason: KeepCode::Answers | KeepCode::Owns, pid, .. }) => error.with_help(format!(
            "gatewayctl stop, or, when it is of this name, gatewayctl restart --force   (asks pid {pid} to stop, and starts the service)",
        )),
        Some(KeptProcess { reason: KeepCode::Suspended, pid, .. }) => error.with_help(format!(
            "kill -CONT {pid}   (it goes on where it was, unless a debugger holds it)\ngatewayctl clean --force --pid {pid}   (ends it)",
        )),
        Some(KeptProcess { reason: KeepCode::OtherUser, pid, .. }) => match Rights::now() {
            Rights::Root => error.with_help(format!(
                "kill {pid}   (it belongs to neither root nor the user of this gateway)\nor give the gateway another address (`listen`)"
            )),
            Rights::User => error.with_help("the same command as that user, or with sudo"),
        },
        _ => error.with_help("stop it, or give the gateway another address (`listen`)"),
    }
}
