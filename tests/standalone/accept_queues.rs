//! Servers whose accept queue is short: many requests at once, as after a hold, come to them one after
//! the other.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::client::{self, Conn, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::{servers, wait};

/// So many requests are held at once.
const HELD: usize = 400;

/// How long they may take from their release on, on a busy machine: 2 s of that is the server's own work.
/// A connection that finds the queue full waits for 1 s and 2 s more, again and again: without turns four
/// are answered in a second, on a machine that has nothing else to do, and all of them in 100 s.
const RELEASE: Duration = Duration::from_secs(60);

/// How long a client waits: for the start, and longer than all of them may take.
const PATIENCE: Duration = Duration::from_secs(110);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// So long the server takes to start.
const START: Duration = Duration::from_secs(2);

/// All are asked at once; the ends of the answers that are not 200.
fn get_all(gateway: &Gateway) -> std::thread::JoinHandle<Vec<String>> {
    let target = gateway.target();
    std::thread::spawn(move || {
        block_on(async {
            let mut asked = JoinSet::new();
            for _ in 0..HELD {
                let target = target.clone();
                asked.spawn(client::within(PATIENCE, async move {
                    let mut conn = Conn::open(&target).await?;
                    conn.exchange(GET).await
                }));
            }
            let mut bad = Vec::new();
            while let Some(answer) = asked.join_next().await {
                match answer.unwrap() {
                    Ok(answer) if answer.status() == 200 => {}
                    other => bad.push(format!("{other:?}")),
                }
            }
            bad
        })
    })
}

#[test]
fn hundreds_of_held_requests_are_all_answered_by_a_server_with_an_accept_queue_of_five() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::behind(servers::python_one_at_a_time(START))
        .flag("--exclusive")
        .config("[restart]\nhold = { time = \"120s\" }\n")
        .start();
    let before = gateway.sidecar_pid("main");
    let restart = gateway.ctl_aside(["restart"]);
    wait::until("the old server is gone", || {
        (!std::path::Path::new(&format!("/proc/{before}")).exists()).then_some(())
    });
    let answers = get_all(&gateway);
    let output = restart.join().unwrap();
    let ready = Instant::now();
    assert!(output.status.success(), "{}", said(&output));
    let bad = answers.join().unwrap();
    assert_eq!(bad, [""; 0], "of {HELD} requests {} failed", bad.len());
    let took = ready.elapsed();
    assert!(took < RELEASE, "the held requests took {took:?}");
    let most = gateway.metric("gateway_requests_held_total");
    assert!(most >= HELD as u64 / 2, "only {most} were held");
}
