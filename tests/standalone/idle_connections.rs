//! Connections to a server that are kept between requests: how many, for how long, and when they make
//! room for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::client::{Target, block_on, get};
use crate::support::gateway::Setup;
use crate::support::upstream::{Upstream, receive};
use crate::support::wait::DEADLINE;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Asks `count` times at once. Returns how often the answer was 200.
fn ask_at_once(target: &Target, count: usize) -> usize {
    let asked = async {
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let target = target.clone();
            clients.spawn(async move { get(&target, "/").await });
        }
        timeout(DEADLINE, clients.join_all()).await
    };
    let answers = block_on(asked).expect("all are answered in time");
    let good = answers.iter().flatten();
    good.filter(|answer| answer.status() == 200).count()
}

/// As many servers have one process or thread for each connection, and only so many of them.
#[test]
fn kept_connections_make_room_where_a_server_serves_few_at_a_time() {
    const PLACES: usize = 4;
    let places = Arc::new(Semaphore::new(PLACES));
    let server = Upstream::serve(move |mut conn| {
        let places = Arc::clone(&places);
        async move {
            let _place = places.acquire().await;
            while receive(&mut conn).await.is_ok() && conn.send(OK).await.is_ok() {}
        }
    });
    let mut gateway = Setup::upstream(server.addr()).start();
    let target = gateway.target();
    assert_eq!(ask_at_once(&target, 5 * PLACES), 5 * PLACES);
    gateway.terminate();
}

#[test]
fn a_burst_of_requests_finds_the_connections_of_the_one_before() {
    const BURST: usize = 200;
    let made = Arc::new(AtomicUsize::new(0));
    let all_here = Arc::new(Barrier::new(BURST));
    let server = Upstream::serve({
        let made = Arc::clone(&made);
        move |mut conn| {
            made.fetch_add(1, Ordering::Relaxed);
            let all_here = Arc::clone(&all_here);
            async move {
                while receive(&mut conn).await.is_ok() {
                    // Each has a connection of its own: all are under way at once.
                    all_here.wait().await;
                    if conn.send(OK).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let mut gateway = Setup::upstream(server.addr())
        .config("[gateway]\nworkers = 1\n")
        .start();
    let target = gateway.target();
    for _ in 0..3 {
        assert_eq!(ask_at_once(&target, BURST), BURST);
    }
    let made = made.load(Ordering::Relaxed);
    assert!(made < BURST + BURST / 10, "{made} connections were made");
    gateway.terminate();
}
