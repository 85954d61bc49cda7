//! What a client of the control protocol over WebSocket may take: no time without a limit, no work beyond
//! its pace, no place of another kind of client.

use crate::control_ws::{Client, PATH, token_of, with_token};
use crate::support::client::{Conn, Fault, block_on, within};
use crate::support::gateway::Setup;
use crate::support::wait;
use crate::support::ws::WebSocket;

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
