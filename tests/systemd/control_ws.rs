//! A client of the control protocol over WebSocket under a real systemd, which starts the next process when this
//! one has ended.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::client::{Conn, block_on, within};
use crate::support::site::{FRONT, Site, prepared};
use crate::support::systemd_box::SystemdBox;
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket, handshake_with};

/// A client with this token of the gateway of a machine.
async fn client(systemd: &SystemdBox, token: &str) -> WebSocket {
    let stream = systemd.in_netns(|| TcpStream::connect(FRONT).unwrap());
    stream.set_nonblocking(true).unwrap();
    let conn = Conn::over(tokio::net::TcpStream::from_std(stream).unwrap());
    let header = format!("Authorization: Bearer {}\r\n", token.trim());
    let request = handshake_with("/_gateway/ws", &header);
    let opened = WebSocket::over(conn, &request).await;
    opened.unwrap_or_else(|(fault, head)| panic!("{fault}: {head:?}"))
}

/// The first answer to a client that asks this.
async fn ask(socket: &mut WebSocket, method: &str, params: Value) -> Value {
    let request = json!({"type": "req", "id": "1", "method": method, "params": params});
    socket.send(&request.to_string()).await.unwrap();
    let Ok(Frame::Message(answer)) = within(wait::DEADLINE, socket.next()).await else {
        panic!("no answer");
    };
    serde_json::from_slice(&answer).unwrap()
}

/// Who follows the gateway of a machine from now on.
async fn follower(systemd: &SystemdBox) -> WebSocket {
    let token = systemd.read("/var/lib/gateway/gateway/token").unwrap();
    let mut socket = client(systemd, &token).await;
    let answer = ask(&mut socket, "subscribe", Value::Null).await;
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

#[test]
fn a_token_that_systemd_passes_to_a_services_user_controls_the_gateway() {
    const TOKEN: &str = "canary-token-of-some-length";
    let Some(systemd) = prepared("credential") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    systemd.write("/srv/token", TOKEN);
    systemd.must(&["chmod", "600", "/srv/token"]);
    systemd.must(&["mkdir", "-p", "/etc/systemd/system/gateway.service.d"]);
    systemd.write(
        "/etc/systemd/system/gateway.service.d/token.conf",
        "[Service]\nLoadCredential=owner:/srv/token\nEnvironment=GATEWAY_TOKEN_FILE=/run/credentials/gateway.service/owner\n",
    );
    site.must_systemctl(&["daemon-reload"]);
    site.must_systemctl(&["restart", "gateway"]);
    site.settled();
    block_on(async {
        let mut socket = client(&systemd, TOKEN).await;
        let answer = ask(&mut socket, "inhibit", json!({"why": "a test"})).await;
        assert_eq!(answer["ok"], true, "{answer}\n{}", site.journal());
    });
    assert!(!site.journal().contains("canary"), "{}", site.journal());
}
