//! What the service's user plants in its own state directory harms nobody else: root reads what is a
//! file of that user, and of bounded length.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;

use crate::support::gateway::{ctl_in, said};
use crate::support::{nobody, port, skip};

/// In KiB: a command of gatewayctl needs some 20 MB, and the attack took 2.2 GB.
const MEMORY_MOST: u32 = 1_000_000;

/// In seconds: on a busy machine each takes well below one.
const ANSWER_MOST: &str = "20";

const TIMED_OUT: i32 = 124;

/// The state directory of a gateway that runs as nobody, in a directory that all may enter.
fn state_of_nobody() -> Option<(tempfile::TempDir, PathBuf)> {
    if !nobody::can_be() || !skip::unless_there("timeout") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    nobody::own(&state);
    Some((dir, state))
}

/// Root's `gatewayctl ARGS` with a limit of time and memory. What it said.
fn of_root(state: &Path, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", ANSWER_MOST, "sh", "-c"]);
    command.arg(format!("ulimit -v {MEMORY_MOST}; exec \"$@\""));
    let ctl = ctl_in(state);
    command
        .arg("sh")
        .arg(ctl.get_program())
        .args(ctl.get_args());
    let listen = format!("127.0.0.1:{}", port::private());
    let output = command
        .args(args)
        .env("GATEWAY_LISTEN", listen)
        .output()
        .unwrap();
    let text = said(&output);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code < TIMED_OUT),
        "{args:?} ended with {:?}: {text}",
        output.status
    );
    text
}

/// An owner.json that was a pipe hung root's clean, why and doctor for ever; one that led to
/// /dev/zero took 2.2 GB in 2 s.
#[test]
fn pipes_and_endless_files_in_a_state_directory_hang_nobody() {
    let Some((_dir, state)) = state_of_nobody() else {
        return;
    };
    let planted = [
        "owner.json",
        "history.jsonl",
        "history.jsonl.1",
        "startup-throttle.json",
        "restart-intent.json",
        "good.toml",
    ];
    let plant: [&dyn Fn(&Path); 2] = [
        &|path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap(),
        &|path| symlink("/dev/zero", path).unwrap(),
    ];
    for plant in plant {
        for name in planted {
            let path = state.join(name);
            let _ = fs::remove_file(&path);
            plant(&path);
            std::os::unix::fs::lchown(&path, Some(nobody::UID), Some(nobody::UID)).unwrap();
        }
        for args in [&["clean"][..], &["why"], &["doctor"], &["history"]] {
            of_root(&state, args);
        }
    }
}

/// Root reads nothing that only root can have written, as through a link or another name of it.
#[test]
fn a_file_of_another_user_in_a_state_directory_is_not_read() {
    let Some((_dir, state)) = state_of_nobody() else {
        return;
    };
    let secret = state.with_file_name("secret.jsonl");
    let line =
        r#"{"kind":"rung","rung":"safe-mode","reason":"TOP-SECRET","atMs":1,"bootId":"b","pid":1}"#;
    fs::write(&secret, line).unwrap();
    symlink(&secret, state.join("history.jsonl")).unwrap();
    assert!(!of_root(&state, &["history"]).contains("TOP-SECRET"));
    assert_eq!(fs::metadata(&state).unwrap().uid(), nobody::UID);
}
