//! What a client of the control protocol over WebSocket may take: no time without a limit, no work beyond
//! its pace, no place of another kind of client.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control_ws::{Client, PATH, refused, restarts, token_of, with_token};
use crate::support::client::{Conn, Fault, block_on, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket, frame};

#[test]
fn a_request_with_a_body_for_a_websocket_is_refused_and_its_connection_still_has_a_limit() {
    let gateway = Setup::new()
        .config("[limits]\nidle = \"500ms\"\nbody_idle = \"500ms\"\n")
        .start();
    let token = token_of(gateway.state_dir(), "token");
    let get = with_token(&token).replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n{}");
    let post = format!("POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{{}}");
    // Its body comes without being asked for.
    let early = post.replace("Host: h", "Host: h\r\nExpect: 100-continue");
    let page = early.replace(PATH, "/_gateway/metrics");
    block_on(async {
        for (request, status) in [(&get, 426), (&post, 426), (&early, 426), (&page, 401)] {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let answer = within(wait::DEADLINE, conn.exchange(request))
                .await
                .unwrap();
            assert_eq!(answer.status(), status, "{request}");
            let end = tokio::time::timeout(wait::DEADLINE, conn.ended()).await;
            assert_eq!(end, Ok(Fault::Eof), "{request}");
        }
    });
}

#[test]
fn a_client_whose_lease_outlives_a_hand_over_is_still_answered_and_seen_to_leave() {
    let gateway = Setup::new().start();
    block_on(async {
        let mut client = Client::open(&gateway, "token").await;
        let lease = json!({"why": "a long job"});
        assert_eq!(client.ask("inhibit", lease.clone()).await["ok"], true);
        let mut other = Client::open(&gateway, "token").await;
        assert_eq!(other.ask("inhibit", lease).await["ok"], true);
        let output = gateway.ctl(["restart", "--fresh"]);
        assert!(output.status.success(), "{}", said(&output));
        // Each of them may be the first that is sent after the news has come to the connection.
        for _ in 0..2 {
            let answer = client.ask("status", Value::Null).await;
            assert_eq!(answer["payload"]["stage"], "draining", "{answer}");
        }
        client.socket.close(1000).await.unwrap();
        assert_eq!(client.next().await.map_err(|(code, _)| code), Err(1000));
        // So is who leaves without a word: its process ends before the time of its lease does.
        drop(other);
    });
    gateway.wait_line(&format!("pid {} has finished its work", gateway.pid()));
}

#[test]
fn frames_without_a_message_are_read_at_the_same_pace_as_messages() {
    /// As many as the gateway reads in two minutes.
    const FRAMES: usize = 6_000;
    let gateway = Setup::new().start();
    // A message whose pieces hold nothing, and one that consists of pings.
    let mut begin = frame(0x1, b"").to_vec();
    begin[0] &= 0x0f;
    let mut piece = frame(0x0, b"").to_vec();
    piece[0] &= 0x0f;
    let ping = frame(0x9, b"").to_vec();
    for (first, each, last) in [
        (begin, piece, frame(0x0, b"{}").to_vec()),
        (ping.clone(), ping, frame(0x1, b"{}").to_vec()),
    ] {
        let flood = [first, each.repeat(FRAMES), last].concat();
        block_on(async {
            let mut client = Client::open(&gateway, "reader-token").await;
            client.socket.conn().send(&flood).await.unwrap();
            let answered = async {
                while !matches!(client.socket.next().await, Ok(Frame::Message(_)) | Err(_)) {}
            };
            let early = tokio::time::timeout(Duration::from_secs(3), answered).await;
            assert!(early.is_err(), "{FRAMES} frames were read at once");
            let mut other = Client::open(&gateway, "reader-token").await;
            assert_eq!(other.ask("status", Value::Null).await["ok"], true);
        });
    }
}

/// Clients with this token that follow the gateway, as many as have a place.
async fn fill(gateway: &Gateway, token: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..128 {
        let mut client = Client::open(gateway, token).await;
        let answer = client.ask("subscribe", Value::Null).await;
        assert_eq!(answer["ok"], true, "{answer}");
        clients.push(client);
    }
    clients
}

#[test]
fn readers_who_follow_in_all_their_places_leave_the_owner_those_of_its_own() {
    let gateway = Setup::new().start();
    let token = token_of(gateway.state_dir(), "reader-token");
    block_on(async {
        let _readers = fill(&gateway, "reader-token").await;
        let beyond = WebSocket::open_by(&gateway.target(), &with_token(&token)).await;
        let head = beyond.err().and_then(|(_, head)| head).unwrap();
        assert_eq!(head.status(), 503);
        assert!(head.get("retry-after").is_some(), "{head:?}");
        let mut owner = Client::open(&gateway, "token").await;
        let answer = owner.ask("subscribe", Value::Null).await;
        assert_eq!(answer["ok"], true, "{answer}");
        let output = gateway.ctl(["restart", "--fresh"]);
        assert!(output.status.success(), "{}", said(&output));
        let closed = loop {
            if let Err(closed) = owner.event().await {
                break closed;
            }
        };
        assert_eq!(closed, restarts());
    });
    assert_eq!(refused(&gateway, "crowded"), 0, "in the new process");
}

#[test]
fn where_no_connection_is_left_a_client_with_a_token_is_told_to_come_again() {
    let gateway = Setup::new()
        .config("[limits]\nconnections = 1\n")
        .unix_listener()
        .start();
    let token = token_of(gateway.state_dir(), "token");
    block_on(async {
        // It is not idle, so nobody takes its place.
        let _only = Client::open(&gateway, "token").await;
        let opened = WebSocket::open_by(&gateway.target(), &with_token(&token)).await;
        let head = opened.err().and_then(|(_, head)| head).unwrap();
        assert_eq!(head.status(), 503, "{head:?}");
        assert!(head.get("retry-after").is_some(), "{head:?}");
    });
}
