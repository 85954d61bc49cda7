//! What one life of a gateway leaves behind: the throttle's record, the history, bundles, the last
//! good configuration.
//!
//! Nothing here fails: a full disk costs the record, not the service.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{info, warn};

use super::recovery::{RecoveryAction, ShownRecovery};
use crate::config::{Loaded, Throttle};
use crate::control::server::Caller;
use crate::os::oom;
use crate::state::boot_time::BootTime;
use crate::state::diagnostic_bundle::{self, Bundle};
use crate::state::history::{self, Before, Entry, History, Phase, Recorded, Who};
use crate::state::startup_throttle::{self, Life, Start};
use crate::state::trace::Carried;
use crate::state::{last_good_config, owner};
use crate::text::redact::Redactor;

/// The pen of one life.
#[derive(Clone, Debug)]
pub struct LifeRecord {
    dir: PathBuf,
    instance: String,
    boot_id: String,
    pid: u32,
    history: History,
    redactor: Redactor,
}

/// What the history tells of a request besides its end.
#[derive(Clone, Debug, Default)]
pub struct RequestRecord {
    pub who: Who,
    /// Where the next generation was to live.
    pub strategy: &'static str,
    /// Its steps so far.
    pub phases: Vec<Phase>,
}

impl RequestRecord {
    /// By a client of the control socket; none for a signal, of which nothing is known.
    pub fn by(caller: Option<Caller>, strategy: &'static str) -> Self {
        let who = caller.map_or_else(Who::default, |Caller { uid, pid }| Who {
            uid: Some(uid),
            pid: u32::try_from(pid).unwrap_or(0),
            program: u32::try_from(pid)
                .ok()
                .and_then(crate::os::process::executable)
                .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
        });
        Self {
            who,
            strategy,
            phases: Vec::new(),
        }
    }
}

/// What a life learns at its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// What it has to do before it starts sidecars.
    pub start: Start,
    /// How the life before ended.
    pub before: Before,
    /// The restart trace that the life before left to it.
    pub trace: Option<Carried>,
}

impl LifeRecord {
    /// A pen for the state directory `dir`. Writes nothing yet.
    pub fn new(dir: &Path, instance: &str, redactor: &Redactor) -> Self {
        Self {
            dir: dir.to_owned(),
            instance: instance.to_owned(),
            boot_id: owner::boot_id(),
            pid: std::process::id(),
            history: History::open(dir),
            redactor: redactor.clone(),
        }
    }

    fn life(&self) -> Life<'_> {
        Life {
            pid: self.pid,
            boot_id: &self.boot_id,
            now: BootTime::now(),
        }
    }

    /// A life begins by itself. With the lock held, once. `unit_result` is the service manager's
    /// word for the end before, where it still has one.
    pub fn begin(&self, throttle: &Throttle, unit_result: Option<&str>) -> Begun {
        let lines: Vec<Recorded> = history::read(&self.dir).collect();
        let kills = oom::count().map(|count| count.kills);
        let (before, trace) = how_it_ended(&lines, &self.boot_id, |kills_before| {
            oom::end_of_life(unit_result, kills_before, kills)
        });
        Begun {
            start: startup_throttle::begin(&self.dir, throttle, &self.life()),
            before,
            trace,
        }
    }

    /// A life begins by taking over from one that lives: when that one has let go.
    pub fn take_over(&self) {
        startup_throttle::take_over(&self.dir, &self.life());
    }

    /// The life is under way.
    pub fn started(&self, supervisor: &str, standing: &ShownRecovery, before: Before) {
        self.history.append(&Entry::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            supervisor: supervisor.to_owned(),
            rung: standing.rung.to_owned(),
            reason: standing
                .reason
                .as_deref()
                .map(|reason| self.redactor.text(reason)),
            before,
            oom_kills: oom::count().map(|count| count.kills),
        });
    }

    /// Another rung of the ladder is reached.
    pub fn rung(&self, standing: &ShownRecovery) {
        let reason = standing
            .reason
            .as_deref()
            .map(|reason| self.redactor.text(reason));
        self.history.append(&Entry::Rung {
            rung: standing.rung.to_owned(),
            reason,
        });
    }

    /// A request is at its end.
    pub fn request(
        &self,
        asked: RequestRecord,
        id: &str,
        kind: &str,
        reason: &str,
        outcome: &str,
        took_ms: u64,
    ) {
        let RequestRecord {
            who,
            strategy,
            phases,
        } = asked;
        self.history.append(&Entry::Request {
            id: id.to_owned(),
            kind: kind.to_owned(),
            who,
            reason: self.redactor.text(reason),
            strategy: strategy.to_owned(),
            phases,
            outcome: self.redactor.text(outcome),
            took_ms,
            // Only who probes from outside can tell.
            downtime_ms: None,
        });
    }

    /// Does what the ladder asks of the record; other actions are not its business.
    pub fn perform(&self, action: &RecoveryAction) {
        match action {
            RecoveryAction::MarkTrial => startup_throttle::trial(&self.dir, &self.life()),
            RecoveryAction::MarkSafe => startup_throttle::safe(&self.dir, &self.life()),
            RecoveryAction::MarkStable => startup_throttle::stable(&self.dir, self.pid),
            RecoveryAction::Alert(_) => {}
        }
    }

    /// An operator asks to forget earlier starts.
    pub fn forgive(&self) {
        startup_throttle::clear(&self.dir);
    }

    /// A generation of this configuration is ready: it will do when a later one will not.
    pub fn good(&self, loaded: &Loaded) {
        if let Err(error) = last_good_config::save(&self.dir, loaded) {
            warn!(
                "[gateway] cannot keep the configuration as the last good one in {}: {error}",
                self.dir.display()
            );
        }
    }

    /// The life ends. `planned` says that somebody wanted it: then the next start is not slowed
    /// down for it.
    pub fn ended(
        &self,
        planned: bool,
        code: u8,
        reason: &str,
        uptime_ms: u64,
        cut: Vec<String>,
        trace: Option<Carried>,
    ) {
        if planned {
            startup_throttle::ended_planned(&self.dir, self.pid);
        }
        self.history.append(&Entry::Ended {
            planned,
            code,
            reason: self.redactor.text(reason),
            uptime_ms,
            cut,
            trace,
        });
    }

    /// Keeps what is known in a bundle, and tells where.
    pub fn bundle(&self, reason: &str, error: Option<&str>, uptime_ms: u64, status: Value) {
        let bundle = Bundle {
            reason,
            error,
            uptime_ms,
            instance: &self.instance,
            status,
            evidence: oom::evidence(),
        };
        match diagnostic_bundle::write(&self.dir, &bundle, &self.redactor) {
            Ok(path) => info!(
                "[gateway] what is known about it is kept in {}",
                path.display()
            ),
            Err(error) => warn!(
                "[gateway] cannot keep a bundle in {}: {error}",
                self.dir.display()
            ),
        }
    }
}

/// How the life before ended, by the history, and the trace it left. `memory` tells whether memory
/// ran out, by the count at that life's beginning.
fn how_it_ended(
    lines: &[Recorded],
    boot_id: &str,
    memory: impl Fn(Option<u64>) -> Option<String>,
) -> (Before, Option<Carried>) {
    // A predecessor that hands over ends after its successor began, so the end is looked for by
    // process.
    let begun = lines
        .iter()
        .enumerate()
        .rev()
        .find_map(|(index, line)| match &line.entry {
            Entry::Started { oom_kills, .. } => Some((index, line, *oom_kills)),
            _ => None,
        });
    let Some((index, life, kills)) = begun else {
        return (Before::Unknown, None);
    };
    let end = lines[index..].iter().find_map(|line| match &line.entry {
        Entry::Ended {
            planned,
            reason,
            trace,
            ..
        } if line.pid == life.pid => Some((*planned, reason, *trace)),
        _ => None,
    });
    match end {
        Some((true, _, trace)) => (Before::Planned, trace),
        Some((false, reason, _)) => (Before::Unplanned(Some(reason.clone())), None),
        None if life.boot_id != boot_id => (Before::MachineDown, None),
        None => (Before::Unplanned(memory(kills)), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Overrides, load};
    use crate::gateway::recovery::{ConfigOrigin, Recovery};

    fn record(dir: &Path, pid: u32) -> LifeRecord {
        let redactor = Redactor::default();
        redactor.learn_env("API_TOKEN", "CANARY-1");
        LifeRecord {
            pid,
            ..LifeRecord::new(dir, "a", &redactor)
        }
    }

    fn normal() -> ShownRecovery {
        ShownRecovery {
            rung: "normal",
            reason: None,
            left_ms: None,
        }
    }

    fn line(pid: u32, boot_id: &str, entry: Entry) -> Recorded {
        Recorded {
            at: jiff::Timestamp::now(),
            pid,
            boot_id: boot_id.to_owned(),
            entry,
        }
    }

    fn started(pid: u32, boot_id: &str) -> Recorded {
        let entry = Entry::Started {
            version: String::new(),
            supervisor: String::new(),
            rung: String::new(),
            reason: None,
            before: Before::Unknown,
            oom_kills: Some(3),
        };
        line(pid, boot_id, entry)
    }

    fn ended(pid: u32, planned: bool, trace: Option<Carried>) -> Recorded {
        line(
            pid,
            "b",
            Entry::Ended {
                planned,
                code: 0,
                reason: "why".into(),
                uptime_ms: 1,
                cut: vec![],
                trace,
            },
        )
    }

    #[test]
    fn how_the_life_before_ended() {
        let none = |_: Option<u64>| None;
        let trace = Some(Carried {
            started_at_ms: 1.0,
            last_at_ms: 2.0,
        });
        assert_eq!(how_it_ended(&[], "b", none), (Before::Unknown, None));
        assert_eq!(
            how_it_ended(&[ended(1, true, None)], "b", none),
            (Before::Unknown, None),
            "a torn beginning"
        );
        assert_eq!(
            how_it_ended(&[started(1, "b"), ended(1, true, trace)], "b", none),
            (Before::Planned, trace)
        );
        assert_eq!(
            how_it_ended(&[started(1, "b"), ended(1, false, None)], "b", none).0,
            Before::Unplanned(Some("why".into()))
        );
        assert_eq!(
            how_it_ended(&[started(1, "b")], "b", none).0,
            Before::Unplanned(None)
        );
        let memory = |kills: Option<u64>| oom::end_of_life(None, kills, Some(4));
        let Before::Unplanned(Some(cause)) = how_it_ended(&[started(1, "b")], "b", memory).0 else {
            panic!("no cause")
        };
        assert!(cause.contains("memory ran out"), "{cause}");
        assert_eq!(
            how_it_ended(&[started(1, "a")], "b", none).0,
            Before::MachineDown
        );
        assert_eq!(
            how_it_ended(&[started(1, "a"), ended(1, true, None)], "b", none).0,
            Before::Planned
        );
        // 1 handed over to 2 and ended after 2 began; then 2 died.
        let lines = [started(1, "b"), started(2, "b"), ended(1, true, None)];
        assert_eq!(how_it_ended(&lines, "b", none).0, Before::Unplanned(None));
    }

    #[test]
    fn lives_of_one_directory_know_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        // The history takes the process's own number, so every life here has it.
        let pid = std::process::id();
        let life = || record(dir.path(), pid);
        let throttle = Throttle::default();
        assert_eq!(
            life().begin(&throttle, None),
            Begun {
                start: Start::Go,
                before: Before::Unknown,
                trace: None
            }
        );
        life().started("none", &normal(), Before::Unknown);
        life().ended(true, 0, "SIGTERM", 5, vec![], None);
        assert_eq!(life().begin(&throttle, None).before, Before::Planned);
        for count in 2..=3 {
            life().started("none", &normal(), Before::Planned);
            let begun = life().begin(&throttle, Some("oom-kill"));
            assert_eq!(begun.start, Start::Go, "{count}");
            assert!(
                matches!(begun.before, Before::Unplanned(Some(cause)) if cause.contains("oom-kill"))
            );
        }
        assert!(matches!(
            life().begin(&throttle, None).start,
            Start::Wait { count: 4, .. }
        ));
        life().perform(&RecoveryAction::MarkTrial);
        life().perform(&RecoveryAction::MarkSafe);
        assert!(matches!(
            life().begin(&throttle, None).start,
            Start::Safe { again: true, .. }
        ));
        life().perform(&RecoveryAction::MarkStable);
        assert_eq!(life().begin(&throttle, None).start, Start::Go);
        life().take_over();
        life().forgive();
        assert!(!dir.path().join("startup-throttle.json").exists());
    }

    #[test]
    fn no_secret_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(dir.path(), 1);
        let start = Start::Safe {
            reason: "it said CANARY-1".into(),
            again: false,
        };
        let (recovery, _) = Recovery::begin(
            start,
            ConfigOrigin::Valid,
            std::time::Duration::ZERO,
            std::time::Duration::ZERO,
        );
        let standing = recovery.shown(std::time::Duration::ZERO);
        record.started("none", &standing, Before::Unknown);
        record.rung(&standing);
        record.ended(false, 1, "CANARY-1", 1, vec![], None);
        record.bundle(
            "safe-mode",
            Some("CANARY-1"),
            1,
            serde_json::json!({"detail": "CANARY-1"}),
        );
        assert_eq!(diagnostic_bundle::list(dir.path()).len(), 1);
        for path in [
            dir.path().join("history.jsonl"),
            diagnostic_bundle::list(dir.path()).remove(0),
        ] {
            assert!(!std::fs::read_to_string(path).unwrap().contains("CANARY"));
        }
    }

    #[test]
    fn a_directory_that_is_gone_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(&dir.path().join("gone"), 1);
        let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
        assert_eq!(record.begin(&Throttle::default(), None).start, Start::Go);
        record.started("none", &normal(), Before::Unknown);
        record.good(&load(&Overrides::default(), &Env(&env)).unwrap());
        record.bundle("x", None, 1, Value::Null);
        record.ended(true, 0, "", 1, vec![], None);
    }
}
