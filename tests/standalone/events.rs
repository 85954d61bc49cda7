//! Those who follow a gateway are told what happens, in order, and before their connection ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, ctl_in, said};
use crate::support::{schema, servers, wait};

/// A server that needs nothing and starts at once.
fn gateway() -> Option<Gateway> {
    if !servers::have("python3") {
        return None;
    }
    Some(Setup::behind(servers::python(Path::new(env!("CARGO_MANIFEST_DIR")))).start())
}

/// A connection that follows a gateway.
struct Follower {
    reader: BufReader<UnixStream>,
    seq: u64,
    pid: u64,
}

impl Follower {
    fn begin(gateway: &Gateway, params: Value) -> Self {
        let socket = gateway.state_dir().join("run/control.sock");
        Self::try_begin(&socket, &params).expect("the gateway answers")
    }

    /// None where nobody answers, or the process has just handed over.
    fn try_begin(socket: &Path, params: &Value) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let request = json!({"type": "req", "id": "1", "method": "subscribe", "params": params});
        writeln!(stream, "{request}").ok()?;
        let mut follower = Self {
            reader: BufReader::new(stream),
            seq: 0,
            pid: 0,
        };
        let answer = follower.frame()?;
        if answer["error"]["code"] == "moved" {
            return None;
        }
        assert_eq!(
            (&answer["type"], &answer["ok"]),
            (&json!("res"), &json!(true)),
            "{answer}"
        );
        follower.pid = answer["payload"]["pid"].as_u64().unwrap();
        Some(follower)
    }

    fn frame(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).unwrap() {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    /// The next event, none at the end of the connection. None is missing before it.
    fn next(&mut self) -> Option<Value> {
        let event = self.frame()?;
        self.seq += 1;
        assert_eq!(event["seq"], self.seq, "{event}");
        Some(event)
    }

    /// Panics unless an event is as its schema says.
    fn assert_shape(schema: &Value, event: &Value) {
        let told = json!({"at": "", "seq": event["seq"], "event": event["event"], "payload": event["payload"]});
        let faults = schema::faults(schema, &told);
        assert!(faults.is_empty(), "{faults:?} in: {told:#}");
    }

    /// The first event from here on of which this is true.
    fn until(&mut self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let mut passed = Vec::new();
        let schema = schema::schema_of("events");
        while let Some(event) = self.next() {
            Self::assert_shape(&schema, &event);
            if good(&event) {
                return event;
            }
            passed.push(event.to_string());
        }
        panic!("the connection ended before {what}: {passed:#?}")
    }

    fn until_phase(&mut self, event: &str, phase: &str) -> Value {
        self.until(phase, |one| {
            one["event"] == event && one["payload"]["phase"] == phase
        })["payload"]
            .clone()
    }
}

#[test]
fn a_restart_is_followed_from_the_request_to_the_end_of_the_old_copy() {
    let Some(gateway) = gateway() else { return };
    let mut follower = Follower::begin(&gateway, Value::Null);
    let first = follower.next().unwrap();
    assert_eq!(
        (&first["event"], &first["payload"]["stage"]),
        (&json!("state"), &json!("ready"))
    );
    let sidecar = follower.next().unwrap();
    let old = gateway.sidecar_pid("main");
    assert_eq!(
        (&sidecar["event"], &sidecar["payload"]["pid"]),
        (&json!("sidecar"), &json!(old))
    );
    gateway.restart();
    let asked = follower.until_phase("restart", "asked");
    assert_eq!(asked["reason"], "gatewayctl restart", "{asked}");
    follower.until("the build", |event| {
        event["payload"]["stage"] == "restarting"
    });
    let step = follower.until_phase("restart", "step");
    assert_eq!(step["request"], asked["request"]);
    let new = follower.until("the new copy", |event| event["event"] == "sidecar");
    assert_eq!(new["payload"]["generation"], 2, "{new}");
    assert_ne!(new["payload"]["pid"], old, "{new}");
    // The old copy is gone before the restart is answered, or after.
    let ends =
        [(); 2].map(|()| follower.until("the ends", |event| event["payload"]["phase"] == "ended"));
    let of =
        |name: &str| ends.iter().find(|event| event["event"] == name).unwrap()["payload"].clone();
    let (ended, drained) = (of("restart"), of("draining"));
    assert_eq!(
        (&ended["request"], &ended["outcome"]),
        (&asked["request"], &json!("done"))
    );
    assert_eq!(drained["generation"], 1);
}

#[test]
fn a_connection_hears_why_it_ends_before_a_fresh_process_takes_over_and_before_a_stop() {
    let Some(mut gateway) = gateway() else { return };
    let mut follower = Follower::begin(&gateway, json!({"topics": ["restart"]}));
    assert_eq!(follower.pid, u64::from(gateway.pid()));
    let output = gateway.ctl(["restart", "--fresh"]);
    assert!(output.status.success(), "{}", said(&output));
    let shutdown = |event: &Value| event["event"] == "shutdown";
    let told = follower.until("the announcement", shutdown);
    assert_eq!(
        told["payload"],
        json!({"reason": "restart", "restartExpectedMs": 0})
    );
    let mut rest = Vec::new();
    while let Some(event) = follower.next() {
        rest.push(event["payload"]["phase"].clone());
    }
    assert!(
        rest.contains(&json!("ended")),
        "the restart ended here: {rest:?}"
    );
    let mut follower = Follower::begin(&gateway, json!({"topics": ["restart"]}));
    assert_eq!(follower.pid, u64::from(gateway.main_pid()));
    gateway.signal(Signal::SIGTERM);
    let told = follower.until("the announcement", shutdown);
    assert_eq!(told["payload"], json!({"reason": "stop"}));
    assert_eq!(follower.next(), None);
    gateway.wait_exit(wait::DEADLINE);
}

/// Follows a gateway from process to process until it stops; how many connections ended for a restart
/// comes back.
fn follow_to_the_stop(socket: &Path) -> u64 {
    let mut restarts = 0;
    loop {
        let mut follower =
            wait::until("a connection", || Follower::try_begin(socket, &Value::Null));
        let mut reason = Value::Null;
        while let Some(event) = follower.next() {
            if event["event"] == "shutdown" {
                reason = event["payload"]["reason"].clone();
            }
        }
        match reason.as_str() {
            Some("restart") => restarts += 1,
            Some("stop") => return restarts,
            _ => panic!("the connection ended without a word, after {restarts} restarts"),
        }
    }
}

/// Restarts five times in the process and five times into a fresh one, each time when all `clients` follow.
pub fn restart_while_all_follow(gateway: &Gateway, clients: u64) {
    let all_follow = || {
        wait::until("all follow", || {
            (gateway.metric("gateway_control_subscribers") == clients).then_some(())
        });
        assert_eq!(gateway.metric("gateway_control_dropped_total"), 0);
    };
    for _ in 0..5 {
        for args in [&["restart"][..], &["restart", "--fresh"]] {
            all_follow();
            let output = gateway.ctl(args);
            assert!(output.status.success(), "{}", said(&output));
        }
    }
    all_follow();
}

#[test]
fn a_hundred_clients_hear_of_every_restart_before_their_connections_end() {
    const CLIENTS: u64 = 100;
    let gateway = Setup::new().start();
    let socket = gateway.state_dir().join("run/control.sock");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || follow_to_the_stop(&socket))
        })
        .collect();
    restart_while_all_follow(&gateway, CLIENTS);
    gateway.stop();
    for client in clients {
        assert_eq!(client.join().unwrap(), 5);
    }
}

/// The lines of `gatewayctl events --json`.
fn events_of(gateway: &Gateway, args: &[&str]) -> (Child, impl Iterator<Item = Value> + use<>) {
    let mut child = ctl_in(gateway.state_dir())
        .args(["events", "--json"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    (child, lines)
}

#[test]
fn the_events_command_goes_on_over_a_restart_in_a_fresh_process_and_a_stop() {
    let Some(gateway) = gateway() else { return };
    let (mut child, mut lines) = events_of(&gateway, &["--topic", "state"]);
    let mut next = |what: &str, good: &dyn Fn(&Value) -> bool| {
        let line = lines.by_ref().find(|line| {
            let faults = schema::faults(&schema::schema_of("events"), line);
            assert!(faults.is_empty(), "{faults:?} in: {line:#}");
            good(line)
        });
        line.unwrap_or_else(|| panic!("it ended before {what}"))
    };
    let first = next("the connection", &|line| line["connection"] == "connected");
    assert_eq!(first["pid"], gateway.pid());
    let output = gateway.ctl(["restart", "--fresh"]);
    assert!(output.status.success(), "{}", said(&output));
    next("the announcement", &|line| line["event"] == "shutdown");
    next("the end", &|line| line["connection"] == "closed");
    let again = next("the other process", &|line| {
        line["connection"] == "connected"
    });
    assert_eq!(again["pid"], gateway.main_pid());
    let state = next("its state", &|line| line["event"] == "state");
    assert_eq!(
        (&state["seq"], &state["payload"]["stage"]),
        (&json!(1), &json!("ready"))
    );
    gateway.stop();
    let told = next("the stop", &|line| line["event"] == "shutdown");
    assert_eq!(told["payload"]["reason"], "stop");
    next("the end", &|line| line["connection"] == "closed");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_subscription_for_what_there_is_not_is_refused_and_a_second_one_too() {
    let gateway = Setup::new().start();
    let output = gateway.ctl(["events", "--topic", "moon"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("sidecar"), "{}", said(&output));
    let mut follower = Follower::begin(&gateway, json!({"topics": ["state"]}));
    follower.next().unwrap();
    for (params, code) in [
        (json!({"topics": ["moon"]}), "bad_request"),
        (json!({"topic": "state"}), "bad_request"),
        (Value::Null, "rejected"),
    ] {
        let request = json!({"type": "req", "id": "2", "method": "subscribe", "params": params});
        writeln!(follower.reader.get_mut(), "{request}").unwrap();
        let answer = follower.frame().unwrap();
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let limit = Duration::from_secs(10);
    follower
        .reader
        .get_ref()
        .set_read_timeout(Some(limit))
        .unwrap();
    let request = json!({"type": "req", "id": "3", "method": "status"});
    writeln!(follower.reader.get_mut(), "{request}").unwrap();
    assert_eq!(follower.frame().unwrap()["ok"], true);
}

/// Serves, and prints more than a socket and a queue hold when it is asked to.
const FLOODS: &str = "
import sys, threading, http.server
def flood():
    for line in range(2500):
        print(line, 'x' * 200)
    sys.stdout.flush()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/flood':
            threading.Thread(target=flood).start()
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

#[test]
fn who_does_not_read_events_is_disconnected_and_the_others_are_told_everything() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::behind(["python3", "-c", FLOODS, "{port}"]).start();
    let topics = json!({"topics": ["restart", "log"]});
    let silent = Follower::begin(&gateway, topics.clone());
    let mut reader = Follower::begin(&gateway, topics);
    let connection = reader.reader.get_ref().try_clone().unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut lines = 0_u64;
        while let Some(event) = reader.next() {
            let payload = &event["payload"];
            if event["event"] == "log" && payload["sidecar"] == "main" {
                // Those for which there was no room are counted, so none is missing.
                lines += 1 + payload["lost"].as_u64().unwrap_or(0);
            }
            let ended = event["event"] == "restart" && payload["phase"] == "ended";
            if lines == 2500 || ended {
                told.send(lines).unwrap();
            }
        }
    });
    let answer = block_on(client::get(&gateway.target(), "/flood")).unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(hears.recv_timeout(wait::DEADLINE).unwrap(), 2500);
    gateway.restart();
    assert_eq!(hears.recv_timeout(wait::DEADLINE).unwrap(), 2500);
    wait::until("the silent one is dropped", || {
        (gateway.metric("gateway_control_dropped_total") == 1).then_some(())
    });
    assert_eq!(gateway.metric("gateway_control_subscribers"), 1);
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    reading.join().unwrap();
    drop(silent);
    wait::until("nobody follows", || {
        (gateway.metric("gateway_control_subscribers") == 0).then_some(())
    });
}
