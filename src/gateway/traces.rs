//! What the driver does about traces: a restart's begins when it is asked for, and goes on in
//! whoever performs it.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Env;
use crate::control::protocol::Progress;
use crate::state::boot_time::BootTime;
use crate::state::owner;
use crate::state::terms::ProgressStage;
use crate::state::trace::{self, Carried, Pair, Trace, Value};

/// The traces of this process.
#[derive(Debug)]
pub(super) struct Traces {
    startup: Trace,
    /// That of the restart under way.
    restart: Trace,
    /// The request that it is for; none where it began in another process.
    request: Option<String>,
    /// Whether it was said that the next generation begins.
    begun: bool,
    /// Those of restarts that are asked for and not begun.
    asked: HashMap<String, Trace>,
}

impl Traces {
    /// Those of a process that begins, perhaps to go on with a restart.
    pub(super) fn begin(carried: Option<Carried>) -> Self {
        let startup = trace::startup(&Env::real(), age());
        let mut traces = Self {
            startup,
            restart: Trace::default(),
            request: None,
            begun: true,
            asked: HashMap::new(),
        };
        traces.resume(carried);
        traces
    }

    /// This process was started by a restart.
    pub(super) fn resume(&mut self, carried: Option<Carried>) {
        if carried.is_some() {
            self.restart = trace::resume(&Env::real(), carried);
            self.restart.mark(
                "restart.process-resume",
                &[("pid", u64::from(std::process::id()).into())],
            );
        }
    }

    /// A phase of the start is over, or of the next generation.
    pub(super) fn phase(&mut self, name: &str) {
        self.next_start();
        self.startup.mark(name, &[]);
        self.restart.mark(&format!("restart.ready.{name}"), &[]);
    }

    /// The generation serves and is ready.
    pub(super) fn ready(&mut self) {
        self.startup.finish("startup.ready", &[]);
        self.restart.finish("restart.ready", &[]);
    }

    /// A restart is asked for: by a signal, or as `control`.
    pub(super) fn asked(
        &mut self,
        id: &str,
        signal: &str,
        reason: &str,
        force: bool,
        wait_ms: Option<u64>,
    ) {
        let mut trace = trace::restart(&Env::real());
        let pairs = [
            ("signal", signal.into()),
            ("reason", reason.into()),
            ("force", force.into()),
            ("waitMs", wait_ms.into()),
        ];
        trace.mark("restart.signal.received", &pairs);
        self.asked.insert(id.to_owned(), trace);
    }

    /// This request is being performed now; nothing is traced of a reload.
    pub(super) fn perform(&mut self, id: &str) {
        self.restart = self.asked.remove(id).unwrap_or_default();
        self.request = Some(id.to_owned());
        self.begun = false;
    }

    /// This request is at its end. One that is `scheduled` goes on with the end of this process.
    pub(super) fn answered(&mut self, id: &str, scheduled: bool) {
        if scheduled && self.restart.carry().is_none() {
            self.perform(id);
        }
        self.asked.remove(id);
    }

    /// A step of the restart that is performed in this process.
    pub(super) fn progress(&mut self, progress: &Progress) {
        if self.request.as_ref() != Some(&progress.request) {
            return;
        }
        match progress.stage {
            ProgressStage::Holding => self.step("restart.drain"),
            ProgressStage::Stopped => self.step("restart.close.sidecar"),
            ProgressStage::Starting => self.next_start(),
            _ => {}
        }
    }

    /// A step on the way to an end.
    pub(super) fn step(&mut self, name: &str) {
        self.restart.mark(name, &[]);
    }

    fn next_start(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.step("restart.next-start");
        }
    }

    /// It goes on in another process: what that one needs. Written before that one begins, so that
    /// the order is right; the pid is therefore ours.
    pub(super) fn hand_over(
        &mut self,
        kind: &str,
        mode: &str,
        supervisor: &str,
    ) -> Option<Carried> {
        let pid = u64::from(std::process::id());
        let pairs: [Pair<'_>; 4] = [
            ("kind", kind.into()),
            ("mode", mode.into()),
            ("pid", pid.into()),
            ("supervisorMode", Value::Text(supervisor)),
        ];
        self.restart.mark("restart.full-process-handoff", &pairs);
        let carried = self.restart.carry();
        self.give_up();
        carried
    }

    /// The restart came to nothing.
    pub(super) fn give_up(&mut self) {
        self.restart = Trace::default();
        self.request = None;
    }
}

/// How long this process has been there; zero where it cannot be told.
fn age() -> Duration {
    // Field 22 of proc(5) counts in hundredths of a second on every Linux.
    let started = owner::start_time(std::process::id())
        .map(|ticks| BootTime::from(Duration::from_millis(ticks * 10)));
    started
        .and_then(|started| BootTime::now().since(started))
        .unwrap_or_default()
}
