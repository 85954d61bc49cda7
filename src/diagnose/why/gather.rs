//! Looking at everything that may tell why: the gateway, its manager, its state folder, the
//! journal. Nothing is changed.

use super::evidence::{Evidence, Unit};
use super::journal;
use crate::cli::subject::Subject;
use crate::config::Env;
use crate::service::Installed;
use crate::service::manager::Manager;
use crate::state::owner::{self, Owner};
use crate::state::{diagnostic_bundle, history, restart_intent, startup_throttle};

/// How much of the record is looked at, in lines: more than the last lives.
const RECORD_LINES: usize = 200;

pub async fn evidence(subject: &Subject) -> Evidence {
    let mut evidence = Evidence {
        instance: subject.instance.clone(),
        boot_id: owner::boot_id(),
        status: subject.status.clone(),
        unseen: subject.unseen.clone(),
        ..Evidence::default()
    };
    if let Some(unit) = &subject.unit {
        match properties(unit).await {
            Ok(found) => evidence.unit = Some(found),
            Err(why) => evidence.unseen.push(format!("the service manager: {why}")),
        }
        match journal::of_unit(unit.scope, &unit.unit) {
            Ok(lines) => evidence.journal = lines,
            Err(why) => evidence.unseen.push(format!("the journal: {why}")),
        }
    }
    if let Some(dir) = &subject.state {
        let mut lines: Vec<_> = history::read(dir).rev().take(RECORD_LINES).collect();
        lines.reverse();
        evidence.record = lines;
        evidence.owner = Owner::read(dir).map(|owner| {
            // A service in a container may have written another boot id than we see: its own answer
            // is the better witness.
            let answers = subject
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
    evidence
}

async fn properties(unit: &Installed) -> Result<Unit, String> {
    let asked = async {
        let manager = Manager::connect(unit.scope, &Env::real()).await?;
        Ok(Unit::of(&unit.unit, &manager.properties(&unit.unit).await?))
    };
    asked
        .await
        .map_err(|error: crate::service::ServiceError| error.message)
}
