//! The traces of this process: of its start, and of a restart, which begins with the request and
//! continues in the process that performs it.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Env;
use crate::control::protocol::Progress;
use crate::state::boot_time::BootTime;
use crate::state::owner;
use crate::state::terms::ProgressStage;
use crate::state::trace::{self, Carried, Trace};

#[derive(Debug)]
pub(super) struct Traces {
    startup: Trace,
    /// The trace of the restart under way.
    restart: Trace,
    /// The request of that restart; none where the restart began in another process.
    request: Option<String>,
    /// Whether the begin of the next generation is in the trace.
    begun: bool,
    /// The traces of restarts that were requested and have not begun.
    asked: HashMap<String, Trace>,
}

impl Traces {
    /// The traces of a process that begins, perhaps as part of a restart.
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

    /// Continues the trace of the restart that started this process.
    pub(super) fn resume(&mut self, carried: Option<Carried>) {
        if carried.is_some() {
            self.restart = trace::resume(&Env::real(), carried);
            self.restart.mark(
                "restart.process-resume",
                &[("pid", u64::from(std::process::id()).into())],
            );
        }
    }

    /// A phase of the start, or of the next generation, is over.
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

    /// A restart is requested: by a signal, or as `control`.
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

    /// A request begins. A reload has no trace.
    pub(super) fn perform(&mut self, id: &str) {
        self.restart = self.asked.remove(id).unwrap_or_default();
        self.request = Some(id.to_owned());
        self.begun = false;
    }

    /// A request is answered. One that is `scheduled` continues with the end of this process.
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
            ProgressStage::Reloading => self.step("restart.reload.sidecar"),
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

    /// The restart continues in another process: returns what that process needs. The line is
    /// written before that process begins, so that the order is right; it therefore has this
    /// process's pid.
    pub(super) fn hand_over(
        &mut self,
        kind: &str,
        mode: &str,
        supervisor: &str,
    ) -> Option<Carried> {
        let pid = u64::from(std::process::id());
        let pairs = [
            ("kind", kind.into()),
            ("mode", mode.into()),
            ("pid", pid.into()),
            ("supervisorMode", supervisor.into()),
        ];
        self.restart.mark("restart.full-process-handoff", &pairs);
        let carried = self.restart.carry();
        self.give_up();
        carried
    }

    /// The restart failed.
    pub(super) fn give_up(&mut self) {
        self.restart = Trace::default();
        self.request = None;
    }
}

/// The age of this process; zero where it is not known.
fn age() -> Duration {
    // Field 22 of proc(5) counts in hundredths of a second on every Linux.
    let started = owner::start_time(std::process::id())
        .map(|ticks| BootTime::from(Duration::from_millis(ticks * 10)));
    started
        .and_then(|started| BootTime::now().since(started))
        .unwrap_or_default()
}
