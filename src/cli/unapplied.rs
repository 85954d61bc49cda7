//! Changes of a service that are not applied yet.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::Env;
use crate::control::protocol::Status;
use crate::service::{self, FileRole, Installed, RunningGateway, UnappliedFile};

/// How long systemd is waited for: it answers within milliseconds, and what it would say here is worth
/// no longer wait. dbus-daemon never answers a temporary user.
const ASK: Duration = Duration::from_secs(2);

/// The unit of a gateway that systemd supervises.
pub fn unit_of(env: &Env<'_>, status: &Status) -> Option<Installed> {
    if !status.supervisor.is_systemd() {
        return None;
    }
    service::find(env, &status.instance, None)
}

/// The files of this gateway's service that changed after they were read; none where that is not known.
pub async fn unapplied(env: &Env<'_>, status: &Status) -> Vec<UnappliedFile> {
    let is_service = status.supervisor.is_service_manager();
    let installed = is_service.then(|| service::find(env, &status.instance, None));
    let Some(unit) = installed.flatten() else {
        return Vec::new();
    };
    let gateway = RunningGateway {
        pid: status.pid,
        config_read_at: status.config_read_at.as_deref(),
    };
    let asked = timeout(ASK, service::unapplied(env, &unit, gateway)).await;
    asked.ok().and_then(Result::ok).unwrap_or_default()
}

/// What to say after a restart or reload that did not apply them.
pub fn note(left: &[UnappliedFile]) -> Option<String> {
    let files = in_words(left)?;
    Some(format!("not applied: {files}; {}", way(left)))
}

/// The command that applies them.
pub fn way(files: &[UnappliedFile]) -> &'static str {
    let is_list = |one: &UnappliedFile| one.role == FileRole::PropertyList;
    match files.iter().any(UnappliedFile::needs_start) {
        true if files.iter().any(is_list) => {
            "gatewayctl restart --force has launchd load the job anew, which closes the listeners for a moment"
        }
        true => {
            "gatewayctl restart, as root for a service of the machine, has systemd start it anew"
        }
        false => "gatewayctl reload applies it",
    }
}

/// "A (unit) changed, B (variables) is gone"; none where there is none.
pub fn in_words(files: &[UnappliedFile]) -> Option<String> {
    let files: Vec<String> = files.iter().map(UnappliedFile::to_string).collect();
    (!files.is_empty()).then(|| files.join(", "))
}
