//! A test double: the control socket of a gateway that does nothing but answer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::protocol::{
    Failure, FailureCode, GenerationInfo, HANDOVER_VERSION, Lease, Method, Outcome,
    PROTOCOL_VERSION, Progress, SecretsAnswer, SidecarStatus, Stage, Status,
};
use crate::control::server;
use crate::state::paths::Paths;
use crate::state::terms::{ProgressStage, RequestOutcome};

/// Answers every restart and reload with the same, a status with [`status`], and ends on stop.
pub struct FakeGateway {
    _dir: Option<tempfile::TempDir>,
    _guard: DropGuard,
    stop: CancellationToken,
    pub state: PathBuf,
    pub asked: Arc<Mutex<Vec<Method>>>,
}

impl FakeGateway {
    pub fn start(answer: Result<Outcome, Failure>) -> Self {
        Self::start_with(answer, Vec::new())
    }

    /// The same with these sidecars.
    pub fn start_with(answer: Result<Outcome, Failure>, sidecars: Vec<SidecarStatus>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_owned();
        Self {
            _dir: Some(dir),
            ..Self::serve(
                &state,
                answer,
                Status {
                    sidecars,
                    ..status()
                },
            )
        }
    }

    /// The same in an existing state directory, as the process `pid`.
    pub fn start_in(state: &Path, answer: Result<Outcome, Failure>, pid: u32) -> Self {
        Self::serve(state, answer, Status { pid, ..status() })
    }

    fn serve(state: &Path, answer: Result<Outcome, Failure>, status: Status) -> Self {
        let listener = server::bind(&Paths::in_state_dir(state).control).unwrap();
        let (sender, mut calls) = mpsc::channel(8);
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(
            tokio::net::UnixListener::from_std(listener).unwrap(),
            sender,
            Arc::default(),
            stop.clone(),
        ));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, ending) = (Arc::clone(&asked), stop.clone());
        let subscribers = server::Subscribers::default();
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                log.lock().unwrap().push(call.method.clone());
                match call.method {
                    Method::Status => call.reply.done(&status),
                    Method::Stop => {
                        call.reply.done(&serde_json::json!({}));
                        ending.cancel();
                    }
                    // The connection is held by the answer's receiver alone, and so is the lease.
                    Method::Inhibit(_) => call.reply.done(&Lease { lease: 1, pid: 1 }),
                    Method::Secrets(_) => call.reply.done(&SecretsAnswer { lines: Vec::new() }),
                    Method::Hello(_) => call.reply.done(&serde_json::json!({})),
                    Method::Subscribe(params) => subscribers.add(params.topics(), &[], call.reply),
                    Method::Recover => {
                        let message = "nothing to recover from";
                        call.reply
                            .fail(Failure::new(FailureCode::Rejected, message));
                    }
                    Method::Restart(_) | Method::RestartSidecar(_) | Method::Reload => {
                        call.reply.progress(&Progress {
                            request: "r1".into(),
                            stage: ProgressStage::Starting,
                            text: "main".into(),
                        });
                        match answer.clone() {
                            Ok(outcome) => call.reply.done(&outcome),
                            Err(failure) => call.reply.fail(failure),
                        }
                    }
                }
            }
        });
        Self {
            _dir: None,
            _guard: stop.clone().drop_guard(),
            stop,
            state: state.to_owned(),
            asked,
        }
    }

    /// Returns after this number of calls.
    pub async fn asked_for(&self, calls: usize) {
        while self.asked.lock().unwrap().len() < calls {
            tokio::task::yield_now().await;
        }
    }

    /// Ends it as a process that exits.
    pub fn end(&self) {
        self.stop.cancel();
    }
}

pub fn outcome() -> Outcome {
    let generation = |number, pid| GenerationInfo {
        number,
        sidecars: vec![("main".into(), pid)],
        ..GenerationInfo::default()
    };
    Outcome {
        request: "r1".into(),
        outcome: RequestOutcome::Done,
        into: None,
        before: generation(3, 100),
        after: generation(4, 200),
        pid: None,
        took_ms: 412,
        drained: false,
        clients: None,
        passages: vec![],
        notes: vec![],
    }
}

pub fn status() -> Status {
    Status {
        protocol: PROTOCOL_VERSION,
        version: "0.1.0".into(),
        instance: "gateway".into(),
        pid: 1234,
        handover: HANDOVER_VERSION,
        program: None,
        stage: Stage::Ready,
        detail: "ready".into(),
        uptime_ms: 11_520_000,
        generation: 4,
        supervisor: "none (foreground)".parse().unwrap(),
        strategy: "in-process: started from a terminal".parse().unwrap(),
        listeners: vec![],
        config: None,
        config_read_at: None,
        state_dir: "/tmp/state".into(),
        connections: 3,
        requests: 1,
        tunnels: 0,
        held: 0,
        sidecars: vec![],
        drainers: vec![],
        leases: vec![],
        recovery: None,
        last_restart: None,
    }
}
