//! The control protocol over WebSocket, on the listener of the front door: who has a token asks and
//! follows, hears before the connection ends, and hurts nobody.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::events;
use crate::support::client::{Target, block_on, request, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::servers;
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket, frame, handshake, handshake_with};

pub const PATH: &str = "/_gateway/ws";

/// The request of a client with this token.
pub fn with_token(token: &str) -> String {
    handshake_with(PATH, &format!("Authorization: Bearer {token}\r\n"))
}

pub fn token_of(state: &Path, name: &str) -> String {
    fs::read_to_string(state.join(name))
        .unwrap()
        .trim()
        .to_owned()
}

/// A control client.
pub struct Client {
    pub socket: WebSocket,
    seq: u64,
}

impl Client {
    pub async fn open(gateway: &Gateway, token: &str) -> Self {
        let token = token_of(gateway.state_dir(), token);
        Self::try_open(&gateway.target(), &token).await.unwrap()
    }

    /// An error where the gateway has just ended, or does not listen yet.
    pub async fn try_open(target: &Target, token: &str) -> Result<Self, String> {
        let socket = WebSocket::open_by(target, &with_token(token)).await;
        let socket = socket.map_err(|(fault, _)| fault.to_string())?;
        Ok(Self { socket, seq: 0 })
    }

    pub async fn send(&mut self, method: &str, params: Value) {
        let request = json!({"type": "req", "id": "1", "method": method, "params": params});
        self.socket.send(&request.to_string()).await.unwrap();
    }

    /// The next frame; the code and reason with which the connection is closed.
    pub async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match within(wait::DEADLINE, self.socket.next()).await.unwrap() {
                Frame::Message(text) => return Ok(serde_json::from_slice(&text).unwrap()),
                Frame::Close(code, reason) => {
                    self.socket.close(code).await.ok();
                    return Err((code, reason));
                }
                Frame::Ping(_) | Frame::Pong(_) => {}
            }
        }
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params).await;
        loop {
            let frame = self.next().await.unwrap();
            if frame["type"] == "res" {
                return frame;
            }
        }
    }

    /// The next event of a subscription. None is missing before it.
    pub async fn event(&mut self) -> Result<Value, (u16, String)> {
        let event = self.next().await?;
        self.seq += 1;
        assert_eq!(event["seq"], self.seq, "{event}");
        Ok(event)
    }

    /// The shutdown that is told, and how the connection is closed.
    async fn farewell(&mut self) -> (Value, (u16, String)) {
        let mut shutdown = Value::Null;
        loop {
            match self.event().await {
                Ok(event) if event["event"] == "shutdown" => shutdown = event["payload"].clone(),
                Ok(_) => {}
                Err(closed) => return (shutdown, closed),
            }
        }
    }
}

pub fn restarts() -> (u16, String) {
    (1012, "service restart".to_owned())
}

fn stops() -> (u16, String) {
    (1001, "the gateway stops".to_owned())
}

pub fn refused(gateway: &Gateway, reason: &str) -> u64 {
    gateway.metric(&format!(
        "gateway_control_refused_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn who_has_the_token_asks_follows_and_hears_why_the_connection_ends() {
    let mut gateway = Setup::new().start();
    block_on(async {
        let mut client = Client::open(&gateway, "token").await;
        let status = client.ask("status", Value::Null).await;
        assert_eq!(status["payload"]["stage"], "ready", "{status}");
        let answer = client.ask("subscribe", Value::Null).await;
        assert_eq!(answer["payload"]["pid"], gateway.pid(), "{answer}");
        assert_eq!(client.event().await.unwrap()["event"], "state");
        let mut idle = Client::open(&gateway, "token").await;
        let mut other = Client::open(&gateway, "token").await;
        // A restart within the process ends no connection, and is on record with who asked.
        let restarted = other.ask("restart", json!({"reason": "by token"})).await;
        assert_eq!(restarted["payload"]["outcome"], "done", "{restarted}");
        let history = gateway.ctl(["history"]);
        assert!(
            said(&history).contains("the token (from 127.0.0.1)"),
            "{}",
            said(&history)
        );
        let output = gateway.ctl(["restart", "--fresh"]);
        assert!(output.status.success(), "{}", said(&output));
        let told = json!({"reason": "restart", "restartExpectedMs": 0});
        assert_eq!(client.farewell().await, (told, restarts()));
        // So does who follows nothing.
        assert_eq!(idle.next().await, Err(restarts()));
        assert_eq!(other.next().await, Err(restarts()));
        let mut client = Client::open(&gateway, "token").await;
        client
            .ask("subscribe", json!({"topics": ["restart"]}))
            .await;
        let mut other = Client::open(&gateway, "token").await;
        assert_eq!(other.ask("stop", Value::Null).await["ok"], true);
        assert_eq!(
            client.farewell().await,
            (json!({"reason": "stop"}), stops())
        );
        assert_eq!(other.next().await, Err(stops()));
    });
    gateway.wait_exit(wait::DEADLINE);
}

#[test]
fn who_has_the_readers_token_changes_nothing() {
    let gateway = Setup::new().start();
    block_on(async {
        let mut reader = Client::open(&gateway, "reader-token").await;
        for (method, params) in [
            ("restart", Value::Null),
            ("restart_sidecar", json!({"sidecar": "main"})),
            ("reload", Value::Null),
            ("stop", Value::Null),
            ("recover", Value::Null),
            ("inhibit", json!({"why": "me"})),
            ("secrets", json!({"sidecar": "main"})),
        ] {
            let answer = reader.ask(method, params).await;
            assert_eq!(answer["error"]["code"], "forbidden", "{answer}");
        }
        let hello = reader.ask("hello", Value::Null).await;
        let allowed = json!(["hello", "status", "subscribe"]);
        assert_eq!(hello["payload"]["methods"], allowed, "{hello}");
        let status = reader.ask("status", Value::Null).await;
        let status = &status["payload"];
        assert_eq!(
            (&status["stage"], &status["generation"]),
            (&json!("ready"), &json!(1))
        );
        assert!(
            status["leases"].as_array().is_none_or(Vec::is_empty),
            "{status}"
        );
        assert!(status["lastRestart"].is_null(), "{status}");
        let answer = reader.ask("subscribe", Value::Null).await;
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(reader.event().await.unwrap()["event"], "state");
        let page = format!(
            "GET /_gateway/metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            token_of(gateway.state_dir(), "reader-token")
        );
        let page = request(&gateway.target(), &page).await.unwrap();
        assert_eq!(page.status(), 200);
    });
    assert_eq!(refused(&gateway, "forbidden"), 7);
}

#[test]
fn no_token_another_site_or_another_handshake_gets_no_connection() {
    let gateway = Setup::new().unix_listener().start();
    let token = token_of(gateway.state_dir(), "token");
    let whole = with_token(&token);
    let origin = |origin: &str| {
        let lines = format!("Authorization: Bearer {token}\r\nOrigin: {origin}\r\n");
        handshake_with(PATH, &lines)
    };
    let cases = [
        ("token", 401, handshake(PATH)),
        ("token", 401, with_token("wrong")),
        ("token", 401, with_token(&token[1..])),
        ("token", 401, whole.replace("Bearer", "Basic")),
        ("origin", 403, origin("http://evil.example")),
        ("origin", 403, origin("null")),
        ("origin", 403, origin("http://test:8080")),
        (
            "handshake",
            426,
            whole.replace("Upgrade: websocket", "Upgrade: other"),
        ),
        (
            "handshake",
            426,
            whole.replace("Connection: Upgrade\r\n", ""),
        ),
        ("handshake", 426, whole.replace("Version: 13", "Version: 8")),
        ("handshake", 426, whole.replace("GET", "DELETE")),
        ("handshake", 426, whole.replace("HTTP/1.1", "HTTP/1.0")),
        ("handshake", 400, whole.replace("Key: ", "Key: x")),
    ];
    let count = |what: &str| cases.iter().filter(|(reason, ..)| *reason == what).count() as u64;
    block_on(async {
        for target in [gateway.target(), gateway.unix_target()] {
            for (_, status, text) in &cases {
                let opened = WebSocket::open_by(&target, text).await;
                let (_, head) = opened.err().unwrap_or_else(|| panic!("opened: {text}"));
                assert_eq!(head.unwrap().status(), *status, "{text}");
            }
            let same = WebSocket::open_by(&target, &origin("http://test")).await;
            assert!(same.is_ok());
        }
    });
    for reason in ["token", "origin", "handshake"] {
        assert_eq!(refused(&gateway, reason), 2 * count(reason), "{reason}");
    }
}

#[test]
fn what_is_no_frame_of_the_protocol_ends_its_own_connection_alone() {
    let gateway = Setup::new().start();
    let unmasked = b"\x81\x02{}".to_vec();
    let reserved = {
        let mut frame = frame(0x1, b"{}").to_vec();
        frame[0] |= 0x40;
        frame
    };
    // The head of a frame of 2 MiB, and no more of it.
    let long = [&[0x81, 0xff][..], &(2u64 << 20).to_be_bytes(), &[0; 4]].concat();
    // 17 pieces of 64 KiB without an end.
    let pieces: Vec<u8> = (0..17)
        .flat_map(|number| {
            let opcode = if number == 0 { 0x1 } else { 0x0 };
            let mut piece = frame(opcode, &[b' '; 65_536]).to_vec();
            piece[0] &= 0x0f;
            piece
        })
        .collect();
    block_on(async {
        let mut living = Client::open(&gateway, "token").await;
        for (bytes, code) in [
            (unmasked, 1002),
            (reserved, 1002),
            (frame(0x3, b"").to_vec(), 1002),
            (frame(0x2, b"{}").to_vec(), 1003),
            (frame(0x1, b"\xff\xfe").to_vec(), 1007),
            (long, 1009),
            (pieces, 1009),
        ] {
            let mut hostile = Client::open(&gateway, "token").await;
            // The rest of it may find the connection closed.
            let _ = hostile.socket.conn().send(&bytes).await;
            let closed = loop {
                match hostile.next().await {
                    Ok(answer) => assert_eq!(answer["error"]["code"], "bad_request", "{answer}"),
                    Err((closed, _)) => break closed,
                }
            };
            assert_eq!(closed, code);
            assert_eq!(living.ask("status", Value::Null).await["ok"], true);
        }
        // What is text, but no frame, is answered.
        for text in ["", "{", "7", "{\"type\":\"event\",\"event\":\"x\"}"] {
            living.socket.send(text).await.unwrap();
            let answer = living.next().await.unwrap();
            assert_eq!(answer["error"]["code"], "bad_request", "{text}: {answer}");
        }
        assert_eq!(living.ask("status", Value::Null).await["ok"], true);
        // Who leaves without a word has said nothing wrong.
        drop(living);
    });
    wait::until("all have left", || {
        (gateway.metric("gateway_control_websockets") == 0).then_some(())
    });
    assert_eq!(refused(&gateway, "malformed"), 9);
    assert_eq!(refused(&gateway, "too_long"), 2);
}

/// How often the living one asks beside the other.
const PACE: Duration = Duration::from_millis(100);

/// Asks until the gateway reads no more, and then closes.
async fn flood(target: Target, token: String) {
    let mut client = Client::try_open(&target, &token).await.unwrap();
    let status = json!({"type": "req", "id": "x".repeat(64 * 1024), "method": "status"});
    let status = frame(0x1, status.to_string().as_bytes());
    while client.socket.conn().send(&status).await.is_ok() {}
}

#[test]
fn who_asks_without_end_and_reads_nothing_is_disconnected_and_hurts_nobody() {
    let gateway = Setup::new().start();
    let (target, token) = (
        gateway.target(),
        token_of(gateway.state_dir(), "reader-token"),
    );
    let flooding = std::thread::spawn(move || block_on(flood(target, token)));
    block_on(async {
        let mut living = Client::open(&gateway, "token").await;
        while !flooding.is_finished() {
            assert_eq!(living.ask("status", Value::Null).await["ok"], true);
            tokio::time::sleep(PACE).await;
        }
    });
    flooding.join().unwrap();
    wait::until("it is counted", || {
        (gateway.metric("gateway_control_dropped_total") == 1).then_some(())
    });
    gateway.answers_within(wait::DEADLINE);
}

#[test]
fn clients_beyond_the_limit_take_the_places_of_idle_ones_of_their_kind() {
    const PLACES: usize = 128;
    let gateway = Setup::new().start();
    block_on(async {
        let mut owner = Client::open(&gateway, "token").await;
        let mut follower = Client::open(&gateway, "reader-token").await;
        follower.ask("subscribe", Value::Null).await;
        let mut first = Client::open(&gateway, "reader-token").await;
        let mut readers = Vec::new();
        for _ in 2..=PLACES {
            readers.push(Client::open(&gateway, "reader-token").await);
        }
        let given_away = (1013, "too many control connections".to_owned());
        assert_eq!(first.next().await, Err(given_away));
        assert_eq!(follower.event().await.unwrap()["event"], "state");
        assert_eq!(owner.ask("status", Value::Null).await["ok"], true);
        assert_eq!(gateway.ctl(["status"]).status.code(), Some(0));
    });
}

/// Follows a gateway from process to process until it stops; how many connections ended for a restart
/// comes back.
async fn follow_to_the_stop(target: Target, token: String) -> u64 {
    let mut restarts_seen = 0;
    loop {
        let mut client = Client::try_open(&target, &token).await.unwrap();
        client.send("subscribe", Value::Null).await;
        let (reason, closed) = match client.next().await {
            Ok(answer) if answer["error"]["code"] == "moved" => {
                (json!("restart"), client.next().await.unwrap_err())
            }
            Ok(answer) => {
                assert_eq!(answer["ok"], true, "{answer}");
                let (shutdown, closed) = client.farewell().await;
                (shutdown["reason"].clone(), closed)
            }
            // The connection came in the moment of the hand-over.
            Err(closed) => (json!("restart"), closed),
        };
        match reason.as_str() {
            Some("restart") => {
                assert_eq!(closed, restarts());
                restarts_seen += 1;
            }
            Some("stop") => {
                assert_eq!(closed, stops());
                return restarts_seen;
            }
            _ => panic!("closed with {closed:?} without a word, after {restarts_seen} restarts"),
        }
    }
}

#[test]
fn a_hundred_clients_over_websocket_hear_of_every_restart_before_their_connections_end() {
    const CLIENTS: u64 = 100;
    if !servers::have("python3") {
        return;
    }
    let server = servers::python(Path::new(env!("CARGO_MANIFEST_DIR")));
    let gateway = Setup::behind(server).start();
    let (target, token) = (
        gateway.target(),
        token_of(gateway.state_dir(), "reader-token"),
    );
    let clients = std::thread::spawn(move || {
        block_on(async {
            let clients = (0..CLIENTS).map(|_| follow_to_the_stop(target.clone(), token.clone()));
            futures_util::future::join_all(clients).await
        })
    });
    events::restart_while_all_follow(&gateway, CLIENTS);
    gateway.stop();
    // None missed one; who came in the moment of a hand-over heard of it twice.
    let heard = clients.join().unwrap();
    assert!(heard.iter().all(|heard| *heard >= 5), "{heard:?}");
}
