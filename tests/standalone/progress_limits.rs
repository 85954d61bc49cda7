//! Requests and answers that make no progress: each ends within the limit of the configuration.

use std::time::Duration;

use crate::support::client::{Conn, Fault, block_on, within};
use crate::support::gateway::Setup;
use crate::support::handover::fresh;
use crate::support::upstream::Recorder;
use crate::support::wait::DEADLINE;

#[test]
fn a_client_gets_no_408_that_it_did_not_ask_for() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .env("GATEWAY_SUPERVISOR", "none")
        .config("[limits]\nheader_time = \"700ms\"\nbody = 1000\n")
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    block_on(async {
        // One that has said nothing.
        let mut silent = Conn::open(&gateway.target()).await.unwrap();
        let (said, end) = silent.drain().await;
        assert_eq!((said.len(), end), (0, Fault::Eof));
        // One whose body goes on after an early answer, or stops there.
        let mut goes_on = Conn::open(&gateway.target()).await.unwrap();
        let mut stops = Conn::open(&gateway.target()).await.unwrap();
        for conn in [&mut goes_on, &mut stops] {
            let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n";
            let answer = within(DEADLINE, conn.exchange(request)).await.unwrap();
            assert_eq!(answer.status(), 413);
        }
        // One that is kept.
        let mut kept = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(kept.exchange(get).await.unwrap().status(), 200);
        fresh(&gateway);
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            goes_on.send(vec![b'x'; 100]).await.unwrap();
        }
        let answer = within(DEADLINE, goes_on.exchange(get)).await.unwrap();
        assert_eq!(answer.status(), 200, "its body is at its end");
        let answer = within(DEADLINE, kept.exchange(get)).await.unwrap();
        assert_eq!(answer.status(), 200, "it was silent longer than a head");
        let (said, end) = within(DEADLINE, async { Ok(stops.drain().await) })
            .await
            .unwrap();
        assert_eq!((said.len(), end), (0, Fault::Eof));
    });
}
