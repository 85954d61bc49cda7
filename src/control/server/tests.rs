use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::BufReader;

use super::*;
use crate::control::client::{CallError, Client};
use crate::control::protocol::{
    EventName, Failure, FailureCode, InhibitParams, Lease, Method, Outcome, Progress,
    RestartParams, Status,
};
use crate::state::terms::{ProgressStage, RequestOutcome};

struct TestServer {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    calls: mpsc::Receiver<Call>,
}

fn fixture() -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let listener = UnixListener::from_std(bind(&path).unwrap()).unwrap();
    let (sender, calls) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, sender, stop.clone()));
    TestServer {
        _dir: dir,
        path,
        stop,
        server,
        calls,
    }
}

fn outcome() -> Outcome {
    Outcome {
        request: "r1".into(),
        outcome: RequestOutcome::Done,
        into: None,
        before: Default::default(),
        after: Default::default(),
        pid: None,
        took_ms: 7,
        drained: false,
        notes: vec![],
    }
}

#[test]
fn the_socket_is_private_and_a_stale_one_is_replaced_but_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    drop(bind(&path).unwrap());
    drop(bind(&path).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let file = dir.path().join("run/file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(
        bind(&file).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert!(file.exists());
}

#[tokio::test]
async fn a_call_has_progress_and_an_answer_and_its_caller_is_known() {
    let mut fixture = fixture();
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let answering = async {
        let call = fixture.calls.recv().await.unwrap();
        assert_eq!(
            call.method,
            Method::Restart(RestartParams {
                force: true,
                ..Default::default()
            })
        );
        assert_eq!(call.caller.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(call.caller.pid, i32::try_from(std::process::id()).unwrap());
        call.reply.progress(&Progress {
            request: "r1".into(),
            stage: ProgressStage::Starting,
            text: "t".into(),
        });
        call.reply.done(&outcome());
    };
    let mut stages = Vec::new();
    let method = Method::Restart(RestartParams {
        force: true,
        ..Default::default()
    });
    let calling = client.call::<Outcome>(&method, |progress| stages.push(progress.stage));
    let (answer, ()) = tokio::join!(calling, answering);
    assert_eq!(answer.unwrap(), outcome());
    assert_eq!(stages, [ProgressStage::Starting]);
}

#[tokio::test]
async fn failures_and_dropped_replies_reach_the_client() {
    let mut fixture = fixture();
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let failure = Failure {
        code: FailureCode::ConfigInvalid,
        message: "g.toml:1:1: bad".into(),
    };
    let sent = failure.clone();
    let answering = async {
        fixture.calls.recv().await.unwrap().reply.fail(sent);
        drop(fixture.calls.recv().await.unwrap());
    };
    let calling = async {
        (
            client.call::<Outcome>(&Method::Reload, |_| ()).await,
            client.call::<Status>(&Method::Status, |_| ()).await,
        )
    };
    let ((refused, dropped), ()) = tokio::join!(calling, answering);
    assert!(matches!(refused, Err(CallError::Refused(got)) if got == failure));
    assert!(
        matches!(dropped, Err(CallError::Refused(got)) if got.message == "the gateway ended before it could answer")
    );
}

#[tokio::test]
async fn a_request_survives_its_client_and_answers_survive_the_stop() {
    let mut fixture = fixture();
    let mut gone = UnixStream::connect(&fixture.path).await.unwrap();
    gone.write_all(b"{\"type\":\"req\",\"id\":\"1\",\"method\":\"reload\"}\n")
        .await
        .unwrap();
    let orphan = fixture.calls.recv().await.unwrap();
    drop(gone);
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let calling =
        tokio::spawn(async move { client.call::<Outcome>(&Method::Reload, |_| ()).await });
    let call = fixture.calls.recv().await.unwrap();
    fixture.stop.cancel();
    orphan.reply.progress(&Progress {
        request: "r1".into(),
        stage: ProgressStage::Ready,
        text: "t".into(),
    });
    orphan.reply.done(&outcome());
    call.reply.done(&outcome());
    assert_eq!(calling.await.unwrap().unwrap(), outcome());
    fixture.server.await.unwrap();
    assert!(
        Client::connect(&fixture.path).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn a_connection_that_is_held_gets_events_and_its_end_is_known() {
    let mut fixture = fixture();
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let method = Method::Inhibit(InhibitParams {
        why: "backup".into(),
        ttl_ms: None,
    });
    let (answer, held) = tokio::join!(client.call::<Lease>(&method, |_| ()), async {
        fixture
            .calls
            .recv()
            .await
            .unwrap()
            .reply
            .hold(&Lease { lease: 1, pid: 7 })
            .unwrap()
    });
    assert_eq!(answer.unwrap(), Lease { lease: 1, pid: 7 });
    held.event(EventName::Deadline, serde_json::Value::Null);
    assert_eq!(
        client.event().await.unwrap().map(|(event, _)| event),
        Some(EventName::Deadline)
    );
    let gone = held.gone();
    assert!(!gone.is_cancelled());
    drop(client);
    gone.cancelled().await;
}

#[tokio::test]
async fn garbage_is_answered_and_a_frame_without_end_is_refused() {
    let fixture = fixture();
    let mut stream = UnixStream::connect(&fixture.path).await.unwrap();
    stream
        .write_all(b"{\n\n{\"type\":\"req\",\"id\":\"9\",\"method\":\"fly\"}\n")
        .await
        .unwrap();
    let (reader, mut writer) = stream.into_split();
    let flood =
        tokio::spawn(async move { while writer.write_all(&[b'x'; 65536]).await.is_ok() {} });
    // The end is a reset, because the flood was not read; what was answered before it has
    // arrived.
    let mut answers = Vec::new();
    let _ = BufReader::new(reader).read_to_end(&mut answers).await;
    let answers = String::from_utf8(answers).unwrap();
    flood.await.unwrap();
    let codes: Vec<serde_json::Value> = answers
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["error"]["code"].clone()
        })
        .collect();
    assert_eq!(
        codes,
        ["bad_request", "unknown_method", "bad_request"],
        "{answers}"
    );
}
