//! Gathers the evidence: from the gateway, its manager, its state directory and the journal. Nothing
//! is changed.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use super::evidence::{EndEvidence, UnitSnapshot};
use super::journal;
use crate::config::Env;
use crate::service::manager::Manager;
use crate::service::{self, Installed, ServiceError, ServiceManagerKind};
use crate::state::owner::{self, Owner};
use crate::state::{diagnostic_bundle, history, restart_intent, startup_throttle};

/// How many entries of the history are read: more than the last runs need.
const RECORD_LINES: usize = 200;

/// Adds to what is known (instance, status, and what cannot be looked at) what the manager, the
/// journal and the state directory say.
pub async fn gather(
    known: EndEvidence,
    unit: Option<&Installed>,
    state_dir: Option<&Path>,
) -> EndEvidence {
    let mut evidence = EndEvidence {
        boot_id: owner::boot_id(),
        ..known
    };
    if let Some(unit) = unit.filter(|unit| unit.manager == ServiceManagerKind::Launchd) {
        // launchd keeps no journal.
        match service::job_now(unit).await {
            Ok(job) => evidence.job = Some(job),
            Err(error) => evidence.unseen.push(format!("launchd: {}", error.message)),
        }
    }
    if let Some(unit) = unit.filter(|unit| unit.manager == ServiceManagerKind::Systemd) {
        match snapshot(unit).await {
            Ok(found) => evidence.unit = Some(found),
            Err(error) => evidence
                .unseen
                .push(format!("the service manager: {}", error.message)),
        }
        match journal::of_unit(unit.scope, &unit.unit) {
            Ok(lines) => evidence.journal = lines,
            Err(why) => evidence.unseen.push(format!("the journal: {why}")),
        }
    }
    if let Some(dir) = state_dir {
        read_state(dir, &mut evidence);
    }
    let hidden = state_dir.is_some_and(|dir| {
        dir.read_dir()
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    });
    let installed = unit.filter(|_| !hidden);
    if let Some(installed) = installed.and_then(|unit| changed(&unit.path)) {
        evidence.forget_before(installed);
    }
    evidence
}

/// When a file came to be what it is.
fn changed(path: &Path) -> Option<Timestamp> {
    let facts = path.symlink_metadata().ok()?;
    let nanos = i32::try_from(facts.ctime_nsec()).ok()?;
    Timestamp::new(facts.ctime(), nanos).ok()
}

fn read_state(dir: &Path, evidence: &mut EndEvidence) {
    evidence.record = history::read(dir).rev().take(RECORD_LINES).collect();
    evidence.record.reverse();
    evidence.owner = Owner::read(dir).map(|owner| {
        // A service in a container may record another boot id than the caller sees; an answer at
        // its control socket is the stronger proof.
        let answers = evidence
            .status
            .as_ref()
            .is_some_and(|status| status.pid == owner.pid);
        let lives = answers || owner.lives().unwrap_or(false);
        (owner, lives)
    });
    let boot = evidence.record.last().map(|line| line.boot_id.clone());
    evidence.throttle =
        startup_throttle::look(dir).filter(|seen| Some(&seen.boot_id) == boot.as_ref());
    evidence.announced = restart_intent::waits(dir);
    evidence.bundle = diagnostic_bundle::list(dir).pop();
}

async fn snapshot(unit: &Installed) -> Result<UnitSnapshot, ServiceError> {
    let manager = Manager::connect(unit.scope, &Env::real()).await?;
    let properties = manager.properties(&unit.unit).await?;
    Ok(UnitSnapshot::of(&unit.unit, &properties))
}
