use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::*;
use crate::control::client::{CallError, Client};
use crate::control::counters::ControlCounters;
use crate::control::fake_gateway::outcome;
use crate::control::protocol::{
    EventName, Failure, FailureCode, GatewayEvent, InhibitParams, Lease, Method, Outcome, Progress,
    RestartParams, ShutdownEvent, ShutdownReason, Stage, StateEvent, Status, SubscribeParams,
    Subscribed,
};
use crate::state::atomic_file::mode;
use crate::state::terms::ProgressStage;

struct TestServer {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
    calls: mpsc::Receiver<Call>,
    counters: Arc<ControlCounters>,
}

fn fixture() -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let listener = UnixListener::from_std(bind(&path).unwrap()).unwrap();
    let (sender, calls) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let counters = Arc::new(ControlCounters::default());
    let server = tokio::spawn(serve(listener, sender, Arc::clone(&counters), stop.clone()));
    TestServer {
        _dir: dir,
        path,
        stop,
        server,
        calls,
        counters,
    }
}

fn step(stage: ProgressStage) -> Progress {
    Progress {
        request: "r1".into(),
        stage,
        text: "t".into(),
    }
}

#[test]
fn the_socket_is_private_and_a_stale_one_is_replaced_but_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    drop(bind(&path).unwrap());
    drop(bind(&path).unwrap());
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let file = dir.path().join("run/file");
    std::fs::write(&file, "x").unwrap();
    let error = bind(&file).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(file.exists());
}

#[tokio::test]
async fn a_call_has_progress_and_an_answer_and_its_caller_is_known() {
    let mut fixture = fixture();
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let forced = Method::Restart(RestartParams {
        force: true,
        ..Default::default()
    });
    let answering = async {
        let call = fixture.calls.recv().await.unwrap();
        assert_eq!(call.method, forced);
        assert_eq!(
            call.caller,
            Caller::Local {
                uid: nix::unistd::geteuid().as_raw(),
                pid: i32::try_from(std::process::id()).unwrap()
            }
        );
        call.reply.progress(&step(ProgressStage::Starting));
        call.reply.done(&outcome());
    };
    let mut stages = Vec::new();
    let calling = client.call::<Outcome>(&forced, |progress| stages.push(progress.stage));
    let (answer, ()) = tokio::join!(calling, answering);
    assert_eq!(answer.unwrap(), outcome());
    assert_eq!(stages, [ProgressStage::Starting]);
}

#[tokio::test]
async fn failures_and_dropped_replies_reach_the_client() {
    let mut fixture = fixture();
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let failure = Failure::new(FailureCode::ConfigInvalid, "g.toml:1:1: bad");
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
    orphan.reply.progress(&step(ProgressStage::Ready));
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
        let call = fixture.calls.recv().await.unwrap();
        call.reply.hold(&Lease { lease: 1, pid: 7 }).unwrap()
    });
    assert_eq!(answer.unwrap(), Lease { lease: 1, pid: 7 });
    held.event(EventName::Deadline, serde_json::Value::Null);
    let (event, _) = client.event().await.unwrap().unwrap();
    assert_eq!(event, EventName::Deadline);
    let gone = held.gone();
    assert!(!gone.is_cancelled());
    drop(client);
    gone.cancelled().await;
}

#[tokio::test]
async fn a_subscriber_whose_queue_is_full_is_dropped_and_the_others_are_told_everything() {
    let mut fixture = fixture();
    let counters = Arc::new(ControlCounters::default());
    let subscribers = Subscribers::new(Arc::clone(&counters));
    let method = Method::Subscribe(SubscribeParams::default());
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&fixture.path).await.unwrap();
        let (answer, ()) = tokio::join!(client.call::<Subscribed>(&method, |_| ()), async {
            let call = fixture.calls.recv().await.unwrap();
            let topics = SubscribeParams::default().topics();
            subscribers.add(topics, &[], call.reply);
        });
        assert_eq!(answer.unwrap().pid, std::process::id());
        clients.push(client);
    }
    let event = |number: u64| {
        GatewayEvent::State(StateEvent {
            stage: Stage::Ready,
            // Longer than what the buffers of a socket hold.
            detail: "x".repeat(8 * 1024),
            generation: number,
            pid: 1,
        })
    };
    let mut reader = clients.pop().unwrap();
    for number in 1..=200 {
        subscribers.publish(&event(number));
        let told = reader.next_event().await.unwrap().unwrap();
        assert_eq!((told.seq, told.event), (number, event(number)));
    }
    while counters.subscribers.load(Ordering::Relaxed) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.counters.dropped.load(Ordering::Relaxed), 1);
    subscribers.announce(Some(ShutdownEvent {
        reason: ShutdownReason::Stop,
        restart_expected_ms: None,
    }));
    subscribers.close();
    let last = reader.next_event().await.unwrap().unwrap();
    assert_eq!((last.seq, last.event.name()), (201, EventName::Shutdown));
    assert_eq!(reader.next_event().await.unwrap(), None);
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
    // The end is a reset, because the flood was not read; earlier answers have arrived.
    let mut answers = Vec::new();
    let _ = BufReader::new(reader).read_to_end(&mut answers).await;
    let answers = String::from_utf8(answers).unwrap();
    flood.await.unwrap();
    let code = |line: &str| {
        let frame: serde_json::Value = serde_json::from_str(line).unwrap();
        frame["error"]["code"].clone()
    };
    let codes: Vec<serde_json::Value> = answers.lines().map(code).collect();
    let expected = ["bad_request", "unknown_method", "bad_request"];
    assert_eq!(codes, expected, "{answers}");
}

const STATUS: &[u8] = b"{\"type\":\"req\",\"id\":\"1\",\"method\":\"status\"}\n";

#[tokio::test]
async fn requests_whose_answers_nobody_reads_are_not_taken() {
    let mut fixture = fixture();
    let (reader, mut writer) = UnixStream::connect(&fixture.path)
        .await
        .unwrap()
        .into_split();
    let flood = tokio::spawn(async move { while writer.write_all(STATUS).await.is_ok() {} });
    let mut calls = Vec::new();
    for _ in 0..places::REQUESTS_MAX {
        calls.push(fixture.calls.recv().await.unwrap());
    }
    let more = tokio::time::timeout(Duration::from_millis(100), fixture.calls.recv());
    assert!(more.await.is_err(), "so many are under way");
    drop(calls.pop());
    // Its answer fits the buffer of the socket.
    calls.push(fixture.calls.recv().await.unwrap());
    flood.abort();
    drop(reader);
}

#[tokio::test]
async fn idle_connections_lock_nobody_out_and_busy_ones_stay() {
    let mut fixture = fixture();
    let mut busy = Client::connect(&fixture.path).await.unwrap();
    let asking = tokio::spawn(async move { busy.call::<Outcome>(&Method::Reload, |_| ()).await });
    let waiting = fixture.calls.recv().await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..OWN_MAX + 8 {
        idle.push(UnixStream::connect(&fixture.path).await.unwrap());
    }
    let mut client = Client::connect(&fixture.path).await.unwrap();
    let (answer, ()) = tokio::join!(client.call::<Outcome>(&Method::Reload, |_| ()), async {
        let call = fixture.calls.recv().await.unwrap();
        call.reply.done(&outcome());
    });
    assert_eq!(answer.unwrap(), outcome());
    waiting.reply.done(&outcome());
    assert_eq!(asking.await.unwrap().unwrap(), outcome());
    // The first of them had to go.
    assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
}
