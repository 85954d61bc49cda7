//! A sidecar that is ready: until it is asked to end, or dies. Meanwhile it may be asked to restart by
//! its own means.

use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::own_restart::{OwnRestart, OwnRestartError};
use super::process::ChildProcess;
use super::readiness::ReadyServer;
use super::runner::{Death, Run, Runner};
use super::state::{SidecarFailure, SidecarState};
use crate::os::mutex::lock;

/// What ends the wait of a sidecar that is ready.
enum ServingEvent {
    Stop,
    Ended,
    OwnRestart,
}

impl Runner {
    /// From ready to the end of the process.
    pub(super) async fn serve(
        &self,
        mut process: ChildProcess,
        mut ready: ReadyServer,
        run: &Run<'_>,
    ) -> Result<(), Death> {
        let since = Instant::now();
        let mut restart: Option<OwnRestart> = None;
        self.is_ready(process.id(), &ready);
        loop {
            match self.serving_event(&process, run).await {
                ServingEvent::Stop => return self.end(process).await,
                ServingEvent::Ended => {
                    let heir = restart.as_ref().and_then(OwnRestart::heir);
                    if !heir.is_some_and(|heir| self.follow(&mut process, heir)) {
                        return Err(self.died(process, since, restart.as_ref(), run).await);
                    }
                    self.is_ready(process.id(), &ready);
                }
                ServingEvent::OwnRestart => {
                    // Nobody waits for it where the run died that it was meant for.
                    let asked = lock(&self.control.own_restart).is_some();
                    let Some(reload) = self.start.spec.reload.as_ref().filter(|_| asked) else {
                        continue;
                    };
                    let begun =
                        OwnRestart::begin(reload, &process, &ready.server, self, run.output).await;
                    let begun = restart.insert(begun);
                    match self.restart_itself(&mut process, begun, &ready, run).await {
                        Ok(again) => {
                            ready = again;
                            self.has_restarted(&process, begun);
                            self.is_ready(process.id(), &ready);
                            self.answer(Ok(()));
                        }
                        Err(OwnRestartError::GoesOn(why)) => {
                            let last_words = begun.last_words(self, run.output);
                            self.goes_on(&process, &ready, why, last_words);
                        }
                        Err(OwnRestartError::NotReady(cause)) => {
                            let last_words = self.last_words(run.output);
                            process.stop(self.start.spec.stop_timeout.0).await;
                            return Err(Death {
                                ready: Some(since.elapsed()),
                                last_words,
                                ..Death::from(cause)
                            });
                        }
                        Err(OwnRestartError::Stopped) => return self.end(process).await,
                        Err(OwnRestartError::Died) => {
                            return Err(self.died(process, since, Some(begun), run).await);
                        }
                    }
                }
            }
        }
    }

    async fn serving_event(&self, process: &ChildProcess, run: &Run<'_>) -> ServingEvent {
        let talk = async {
            match run.notify {
                Some(notify) => notify.read_on().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            never = talk => match never {},
            never = self.serve_well() => match never {},
            () = self.control.stop.cancelled() => ServingEvent::Stop,
            () = process.ended() => ServingEvent::Ended,
            () = self.control.own_restart_asked.notified() => ServingEvent::OwnRestart,
        }
    }

    /// The restart by its own means, until the server is ready again or it is known why it is not.
    async fn restart_itself(
        &self,
        process: &mut ChildProcess,
        restart: &OwnRestart,
        ready: &ReadyServer,
        run: &Run<'_>,
    ) -> Result<ReadyServer, OwnRestartError> {
        self.state.send_replace(SidecarState::Starting {
            pid: process.id(),
            hint: None,
        });
        let go = lock(&self.control.own_restart)
            .as_mut()
            .and_then(|call| call.go.take());
        tokio::select! {
            biased;
            () = self.control.stop.cancelled() => return Err(OwnRestartError::Stopped),
            () = process.ended() => return Err(OwnRestartError::Died),
            // An error means that nobody waits: it is done all the same.
            _ = async { go?.await.ok() } => {}
        }
        restart.signal(process)?;
        let opened = |open: bool| match open {
            true => self.is_ready(restart.main(), ready),
            false => drop(self.state.send_replace(SidecarState::Starting {
                pid: restart.main(),
                hint: None,
            })),
        };
        let work = restart.until_ready(self, run, &ready.server, opened);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.control.stop.cancelled() => return Err(OwnRestartError::Stopped),
                () = process.ended() => {
                    let heir = restart.heir().filter(|heir| self.follow(process, *heir));
                    restart.follow(heir.ok_or(OwnRestartError::Died)?);
                }
                ready = &mut work => return ready,
            }
        }
    }

    fn has_restarted(&self, process: &ChildProcess, restart: &OwnRestart) {
        let (name, pid) = (&self.start.name, process.id());
        let (means, took) = (restart.means(), restart.age().as_millis());
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} has restarted by its own means ({means}): pid {pid}, ready after {took} ms"
        );
    }

    fn is_ready(&self, pid: u32, ready: &ReadyServer) {
        self.state.send_replace(SidecarState::Ready {
            pid,
            server: Arc::clone(&ready.server),
            other: ready.other.clone(),
        });
    }

    /// It has not restarted, and serves as before.
    fn goes_on(
        &self,
        process: &ChildProcess,
        ready: &ReadyServer,
        cause: String,
        last_words: Vec<String>,
    ) {
        let name = &self.start.name;
        warn!(
            SIDECAR = name,
            "[gateway] sidecar {name} {cause}; it serves on"
        );
        self.is_ready(process.id(), ready);
        self.answer(Err(Arc::new(SidecarFailure {
            cause,
            last_words,
            ..SidecarFailure::default()
        })));
    }

    /// Whoever waits for the restart learns what came of it.
    fn answer(&self, result: Result<(), Arc<SidecarFailure>>) {
        if let Some(call) = lock(&self.control.own_restart).take() {
            // Whoever no longer waits needs no answer.
            let _ = call.done.send(result);
        }
    }

    /// The main process has ended, and another one took its place.
    fn follow(&self, process: &mut ChildProcess, heir: u32) -> bool {
        let before = process.id();
        let followed = process.follow(heir).is_ok();
        if followed {
            let name = &self.start.name;
            info!(
                SIDECAR = name,
                "[gateway] sidecar {name} goes on in pid {heir}; pid {before} has ended"
            );
        }
        followed
    }

    async fn died(
        &self,
        mut process: ChildProcess,
        since: Instant,
        restart: Option<&OwnRestart>,
        run: &Run<'_>,
    ) -> Death {
        // First of all: from here on requests must wait, because the port is dead.
        let failure = SidecarFailure {
            cause: "died".to_owned(),
            ..SidecarFailure::default()
        };
        self.state.send_replace(SidecarState::Backoff {
            failure: Arc::new(failure),
        });
        let end = process.reap().await;
        let death = run.how_it_ended(end);
        let after = restart.and_then(|restart| restart.blame(end));
        let after = after.unwrap_or_default();
        let cause = format!("(pid {}) {}{after}", process.id(), death.cause);
        Death {
            cause,
            ready: Some(since.elapsed()),
            ..death
        }
    }
}
