//! The control protocol says which version it speaks, and answers clients of JSON-RPC 2.0, over both of its
//! transports.

use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::support::client::{block_on, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket, handshake_with};

/// A connection of a client.
enum Connection {
    Socket(BufReader<UnixStream>),
    WebSocket(WebSocket),
}

impl Connection {
    /// One of each kind.
    async fn both(gateway: &Gateway) -> [Self; 2] {
        let state = gateway.state_dir();
        let socket = UnixStream::connect(state.join("run/control.sock"))
            .await
            .unwrap();
        let token = fs::read_to_string(state.join("token")).unwrap();
        let header = format!("Authorization: Bearer {}\r\n", token.trim());
        let request = handshake_with("/_gateway/ws", &header);
        let websocket = WebSocket::open_by(&gateway.target(), &request).await;
        let websocket = websocket.unwrap_or_else(|(fault, _)| panic!("{fault}"));
        [
            Self::Socket(BufReader::new(socket)),
            Self::WebSocket(websocket),
        ]
    }

    async fn send(&mut self, text: &str) {
        match self {
            Self::Socket(socket) => {
                let line = format!("{text}\n");
                socket.get_mut().write_all(line.as_bytes()).await.unwrap();
            }
            Self::WebSocket(websocket) => websocket.send(text).await.unwrap(),
        }
    }

    async fn next(&mut self) -> Value {
        let read = async {
            match self {
                Self::Socket(socket) => {
                    let mut line = String::new();
                    socket.read_line(&mut line).await?;
                    Ok(line.into_bytes())
                }
                Self::WebSocket(websocket) => match websocket.next().await? {
                    Frame::Message(text) => Ok(text.to_vec()),
                    other => panic!("{other:?}"),
                },
            }
        };
        serde_json::from_slice(&within(wait::DEADLINE, read).await.unwrap()).unwrap()
    }

    async fn ask(&mut self, text: &str) -> Value {
        self.send(text).await;
        self.next().await
    }
}

/// What an answer is, in short: its id, and its error's code, if it has one.
fn short(answer: &Value) -> (Value, Value) {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    let error = &answer["error"]["code"];
    assert_ne!(error.is_null(), answer["result"].is_null(), "{answer}");
    (answer["id"].clone(), error.clone())
}

#[test]
fn both_sides_agree_on_a_version_or_the_client_hears_which_there_is() {
    let gateway = Setup::new().start();
    block_on(async {
        for mut client in Connection::both(&gateway).await {
            for params in ["{}", r#"{"minProtocol":1,"maxProtocol":3}"#] {
                let request =
                    format!(r#"{{"type":"req","id":"1","method":"hello","params":{params}}}"#);
                let answer = client.ask(&request).await;
                let hello = &answer["payload"];
                assert_eq!(
                    (&hello["protocol"], &hello["pid"]),
                    (&json!(1), &json!(gateway.pid())),
                    "{answer}"
                );
                let methods = hello["methods"].as_array().unwrap();
                assert!(methods.contains(&json!("restart")), "{answer}");
            }
            let newer = r#"{"type":"req","id":"2","method":"hello","params":{"minProtocol":2}}"#;
            let answer = client.ask(newer).await;
            assert_eq!(answer["error"]["code"], "unsupported", "{answer}");
            let why = answer["error"]["message"].as_str().unwrap();
            assert!(why.contains("version 1"), "{why}");
        }
    });
}

#[test]
fn requests_of_json_rpc_are_answered_as_its_specification_says() {
    let gateway = Setup::new().start();
    let many = json!(vec![
        json!({"jsonrpc": "2.0", "method": "status", "id": 1});
        17
    ])
    .to_string();
    let null = Value::Null;
    let one = [
        (
            r#"{"jsonrpc":"2.0","method":"status","id":1}"#,
            json!(1),
            null.clone(),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"hello","params":{},"id":"a"}"#,
            json!("a"),
            null.clone(),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"fly","id":2}"#,
            json!(2),
            json!(-32601),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"restart","params":{"froce":true},"id":3}"#,
            json!(3),
            json!(-32602),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"inhibit","params":["me",5],"id":4}"#,
            json!(4),
            json!(-32602),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"recover","id":5}"#,
            json!(5),
            json!(-32001),
        ),
        (
            r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#,
            null.clone(),
            json!(-32600),
        ),
        (
            r#"{"jsonrpc":"2.0","method":"status","params":[1,2"#,
            null.clone(),
            json!(-32700),
        ),
        ("[]", null.clone(), json!(-32600)),
        (&many, null.clone(), json!(-32600)),
        (
            r#"[{"jsonrpc":"2.0","method":"status","id":1"#,
            null.clone(),
            json!(-32700),
        ),
    ];
    let batch = r#"[
        {"jsonrpc":"2.0","method":"status","id":"1"},
        {"jsonrpc":"2.0","method":"status"},
        {"foo":"boo"}, 7,
        {"jsonrpc":"2.0","method":"fly","id":"5"}
    ]"#
    .replace('\n', "");
    block_on(async {
        for mut client in Connection::both(&gateway).await {
            for (text, id, code) in &one {
                let answer = client.ask(text).await;
                assert_eq!(short(&answer), (id.clone(), code.clone()), "{text}");
            }
            // What has no id has no answer: the next answer is that of the next request.
            client.send(r#"{"jsonrpc":"2.0","method":"fly"}"#).await;
            client
                .send(r#"[{"jsonrpc":"2.0","method":"status"}]"#)
                .await;
            let answers = client.ask(&batch).await;
            let mut answers: Vec<_> = answers.as_array().unwrap().iter().map(short).collect();
            answers.sort_by_key(|(id, code)| format!("{id} {code}"));
            let expected = [
                (json!("1"), null.clone()),
                (json!("5"), json!(-32601)),
                (null.clone(), json!(-32600)),
                (null.clone(), json!(-32600)),
            ];
            assert_eq!(answers, expected);
            // Frames are answered as ever.
            let answer = client
                .ask(r#"{"type":"req","id":"9","method":"status"}"#)
                .await;
            assert_eq!(
                (&answer["type"], &answer["id"]),
                (&json!("res"), &json!("9"))
            );
        }
    });
}

#[test]
fn who_subscribes_by_json_rpc_is_told_by_its_notifications() {
    let gateway = Setup::new().start();
    block_on(async {
        let mut clients = Connection::both(&gateway).await;
        for client in &mut clients {
            let answer = client
                .ask(r#"{"jsonrpc":"2.0","method":"subscribe","id":1}"#)
                .await;
            assert_eq!(answer["result"]["pid"], gateway.pid(), "{answer}");
        }
        let output = gateway.ctl(["restart"]);
        assert!(output.status.success(), "{}", said(&output));
        for client in &mut clients {
            let mut told = Vec::new();
            loop {
                let event = client.next().await;
                let (id, params) = (&event["id"], &event["params"]);
                assert_eq!(
                    (&event["jsonrpc"], id),
                    (&json!("2.0"), &Value::Null),
                    "{event}"
                );
                told.push(params["payload"].clone());
                assert_eq!(params["seq"], told.len(), "{event}");
                if event["method"] == "restart" && params["payload"]["phase"] == "ended" {
                    break;
                }
            }
            assert_eq!(told[0]["stage"], "ready", "{told:?}");
        }
    });
}
