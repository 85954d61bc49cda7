//! A client of the control protocol over WebSocket under a real systemd, which starts the next process when this
//! one has ended.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::client::{Conn, block_on, within};
use crate::support::site::{FRONT, Site, prepared};
use crate::support::systemd_box::SystemdBox;
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket, handshake_with};

/// Who follows the gateway of a machine from now on.
async fn follower(systemd: &SystemdBox) -> WebSocket {
    let stream = systemd.in_netns(|| TcpStream::connect(FRONT).unwrap());
    stream.set_nonblocking(true).unwrap();
    let conn = Conn::over(tokio::net::TcpStream::from_std(stream).unwrap());
    let token = systemd.read("/var/lib/gateway/gateway/token").unwrap();
    let header = format!("Authorization: Bearer {}\r\n", token.trim());
    let request = handshake_with("/_gateway/ws", &header);
    let mut socket = WebSocket::over(conn, &request).await.unwrap();
    let subscribe = json!({"type": "req", "id": "1", "method": "subscribe"}).to_string();
    socket.send(&subscribe).await.unwrap();
    let Ok(Frame::Message(answer)) = within(wait::DEADLINE, socket.next()).await else {
        panic!("no answer");
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    socket
}

/// The shutdown that it is told, and how its connection is closed.
async fn farewell(mut socket: WebSocket) -> (Value, u16) {
    let mut shutdown = Value::Null;
    loop {
        match within(wait::DEADLINE, socket.next()).await.unwrap() {
            Frame::Message(text) => {
                let event: Value = serde_json::from_slice(&text).unwrap();
                if event["event"] == "shutdown" {
                    shutdown = event["payload"].clone();
                }
            }
            Frame::Close(code, _) => return (shutdown, code),
            Frame::Ping(_) | Frame::Pong(_) => {}
        }
    }
}

#[test]
fn a_client_over_websocket_hears_of_a_restart_by_the_service_manager_and_of_a_stop() {
    let Some(systemd) = prepared("control-ws") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    // To a temporary user systemd does not tell that it would hold the listeners.
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    let config = systemd.read(&site.config()).unwrap();
    let exit = format!("{config}\n[restart]\nmode = \"exit\"\n");
    systemd.write(&site.config(), &exit);
    site.must_systemctl(&["restart", "gateway"]);
    site.settled();
    block_on(async {
        let socket = follower(&systemd).await;
        site.must(&["gatewayctl", "restart"]);
        let (told, code) = farewell(socket).await;
        assert_eq!((&told["reason"], code), (&json!("restart"), 1012), "{told}");
        assert!(
            told["restartExpectedMs"].as_u64() > Some(0),
            "{told}\n{}",
            site.journal()
        );
        site.settled();
        let socket = follower(&systemd).await;
        site.must_systemctl(&["stop", "gateway"]);
        let (told, code) = farewell(socket).await;
        assert_eq!((told, code), (json!({"reason": "stop"}), 1001));
    });
}
