//! What an ordinary user is told where privileges are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::gateway::{Setup, said};
use crate::support::{skip, wait};

const FAILED: i32 = 1;
const PERMISSION: i32 = 77;

/// Both programs where any user can run them; none without root, who alone can become somebody
/// else.
fn public_copies() -> Option<tempfile::TempDir> {
    if !nix::unistd::geteuid().is_root() {
        skip::because("only root can become another user");
        return None;
    }
    if !skip::unless_there("setpriv") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for program in [
        env!("CARGO_BIN_EXE_gateway"),
        env!("CARGO_BIN_EXE_gatewayctl"),
    ] {
        fs::copy(
            program,
            dir.path().join(Path::new(program).file_name().unwrap()),
        )
        .unwrap();
    }
    Some(dir)
}

fn as_nobody(dir: &Path, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command
        .arg(dir.join(program))
        .args(args)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_RUNTIME_DIR");
    command.output().unwrap()
}

#[test]
fn a_state_directory_of_somebody_else_is_refused_and_named() {
    let Some(dir) = public_copies() else { return };
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let listen = format!("127.0.0.1:{}", crate::support::port::private());
    let output = as_nobody(
        dir.path(),
        "gateway",
        &[
            "run",
            "--config",
            "/dev/null",
            "--state-dir",
            state.to_str().unwrap(),
            "--listen",
            &listen,
        ],
    );
    assert!(
        matches!(output.status.code(), Some(FAILED | PERMISSION)),
        "{}",
        said(&output)
    );
    let text = said(&output);
    assert!(
        text.contains(state.to_str().unwrap()) && text.to_lowercase().contains("permission denied"),
        "{text}"
    );
}

#[test]
fn a_port_that_needs_privileges_is_refused_and_named() {
    let Some(dir) = public_copies() else { return };
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() <= 81 {
        // Nothing is privileged in some containers: then there is nothing to refuse.
        return;
    }
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    let output = as_nobody(
        dir.path(),
        "gateway",
        &[
            "run",
            "--config",
            "/dev/null",
            "--state-dir",
            state.to_str().unwrap(),
            "--listen",
            "127.0.0.1:81",
        ],
    );
    assert!(
        matches!(output.status.code(), Some(FAILED | PERMISSION)),
        "{}",
        said(&output)
    );
    let text = said(&output);
    assert!(
        text.contains("127.0.0.1:81") && text.to_lowercase().contains("permission denied"),
        "{text}"
    );
}

#[test]
fn another_users_gateway_is_not_ones_own_to_restart() {
    let Some(dir) = public_copies() else { return };
    // The folders are passable, so that the socket itself has to refuse.
    let state = dir.path().join("state");
    let gateway = Setup::new().state_dir(&state).start();
    for folder in [&state, &state.join("run")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for verb in ["status", "restart", "stop"] {
        let output = as_nobody(
            dir.path(),
            "gatewayctl",
            &["--state-dir", state.to_str().unwrap(), verb],
        );
        assert_eq!(
            output.status.code(),
            Some(PERMISSION),
            "{verb}: {}",
            said(&output)
        );
    }
    assert_eq!(gateway.status()["generation"], 1);
    // And where the socket's mode alone would not, the peer's identity does.
    fs::set_permissions(
        state.join("run/control.sock"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let output = as_nobody(
        dir.path(),
        "gatewayctl",
        &["--state-dir", state.to_str().unwrap(), "restart"],
    );
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(gateway.status()["generation"], 1, "a stranger restarted it");
    wait::until("the refusal is recorded", || {
        gateway.stderr().contains("65534").then_some(())
    });
}
