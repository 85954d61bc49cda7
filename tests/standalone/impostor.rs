//! Another process answers at the control socket: root's gatewayctl believes it nothing that matters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::support::gateway::{ctl_in, said};
use crate::support::{nobody, servers, wait};
use serde_json::Value;

const REFUSED: i32 = 5;

/// Answers with its own pid.
const LIAR: &str = r#"
path, status = sys.argv[1], json.loads(sys.argv[2])
answer(path, dict(status, pid=os.getpid()))
"#;

struct Liar(Child);

impl Drop for Liar {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Nobody, in place of a gateway with this state directory.
fn liar(state: &Path, status: &Value) -> Liar {
    let socket = state.join("run/control.sock");
    let python = PathBuf::from("/usr/bin/env");
    let args = [
        "python3",
        "-c",
        &[servers::IMPOSTOR, LIAR].concat(),
        socket.to_str().unwrap(),
        &status.to_string(),
    ];
    let mut command = nobody::command(&python, &args);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    wait::until("the liar listens", || {
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    Liar(child)
}

/// A status as a gateway gives it, with another state directory.
fn status(state_dir: &Path, program: &Path) -> Value {
    serde_json::json!({
        "protocol": 1, "version": "0.1.0", "instance": "gateway", "pid": 1, "handover": 1,
        "program": program, "stage": "ready", "detail": "ready", "uptimeMs": 1, "generation": 1,
        "supervisor": "none (foreground)", "strategy": "in-process: by hand", "listeners": [],
        "config": state_dir.join("config.toml"), "stateDir": state_dir, "connections": 0,
        "requests": 0, "tunnels": 0, "held": 0, "sidecars": [], "drainers": [], "leases": [],
    })
}

/// A directory that all may enter, with a state directory and its `run` of this mode.
fn place(mode: u32) -> Option<(tempfile::TempDir, PathBuf)> {
    if !nobody::can_be() || !servers::have("python3") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir_all(state.join("run")).unwrap();
    for (path, mode) in [
        (dir.path(), 0o755),
        (&state, 0o755),
        (&state.join("run"), mode),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    Some((dir, state))
}

/// Another user made the socket of a gateway that was not running, and talked to root's gatewayctl.
#[test]
fn a_socket_that_another_user_serves_is_refused_and_named() {
    let Some((_dir, state)) = place(0o777) else {
        return;
    };
    let _liar = liar(&state, &status(&state, Path::new("/bin/sh")));
    for verb in ["status", "restart", "stop"] {
        let output = ctl_in(&state).arg(verb).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{verb}: {text}");
        assert!(text.contains("is served by uid 65534"), "{verb}: {text}");
    }
}

/// A gateway of another user could name any program to overwrite, any command to run, and any
/// directory to remove files from.
#[test]
fn what_another_users_gateway_names_is_neither_run_nor_replaced_nor_removed() {
    let Some((dir, state)) = place(0o700) else {
        return;
    };
    for path in [&state, &state.join("run")] {
        nobody::own(path);
    }
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let (precious, next) = (victim.join("precious.corrupt"), dir.path().join("next"));
    fs::write(&precious, "precious").unwrap();
    fs::write(victim.join("config.toml"), "TOP-SECRET = 1\n").unwrap();
    let mark = dir.path().join("was-run");
    fs::write(&next, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    let _liar = liar(&state, &status(&victim, &precious));
    let run = |args: &[&str]| {
        let output = ctl_in(&state).args(args).output().unwrap();
        (output.status.code(), said(&output))
    };
    let (code, text) = run(&["update", next.to_str().unwrap()]);
    assert_eq!(code, Some(REFUSED), "{text}");
    assert!(
        text.contains("runs as nobody") && text.contains("runuser -u nobody -- gatewayctl update"),
        "{text}"
    );
    for args in [&["doctor", "--fix"][..], &["restart"]] {
        let (_, text) = run(args);
        assert!(!text.contains("TOP-SECRET"), "{text}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!mark.exists(), "the program was run");
}
