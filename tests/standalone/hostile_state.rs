//! What the service's user plants in its own state directory harms nobody else: root reads what is a
//! file of that user, and of bounded length.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use crate::support::gateway::{Setup, ctl_in, said};
use crate::support::hold::lease;
use crate::support::{nobody, port, skip, wait};

/// In KiB: a command of gatewayctl needs some 20 MB, and the attack took 2.2 GB.
const MEMORY_MOST: u32 = 1_000_000;

/// In seconds: on a busy machine each takes well below one.
const ANSWER_MOST: &str = "20";

const TIMED_OUT: i32 = 124;

/// How long the kernel lets the holder of a lease keep others from the file.
const LEASE_TIME: Duration = Duration::from_secs(45);

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

/// A start waited for the other side of a pipe for ever, and for 45 s for a lease, and took no SIGTERM.
#[test]
fn a_start_waits_for_no_pipe_and_no_lease_in_its_state_directory() {
    if !skip::unless_there("python3") {
        return;
    }
    let gateway = Setup::new().start();
    let state = gateway.state_dir().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let start = |plant: &dyn Fn(&Path)| {
        let own = dir.path().join("state");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["token", "gateway.lock"] {
            fs::copy(state.join(name), own.join(name)).unwrap();
        }
        plant(&own);
        Setup::new().state_dir(&own).spawn()
    };
    let pipe = |path: &Path| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
    };

    let piped = start(&|own| pipe(&own.join("token")));
    piped.wait_line("ready");
    assert!(piped.stderr().contains("set aside"), "{}", piped.stderr());
    assert!(
        fs::metadata(dir.path().join("state/token"))
            .unwrap()
            .is_file()
    );
    drop(piped);

    let mut locked = start(&|own| pipe(&own.join("gateway.lock")));
    assert_eq!(locked.exit_code(wait::DEADLINE), 1, "{}", locked.stderr());
    let text = locked.stderr();
    assert!(
        text.contains("gateway.lock cannot be opened: it is not a regular file"),
        "{text}"
    );

    let begun = Instant::now();
    let held = std::cell::RefCell::new(None);
    let leased = start(&|own| *held.borrow_mut() = Some(lease(&own.join("token"))));
    leased.wait_line("ready");
    assert!(begun.elapsed() < LEASE_TIME, "{:?}", begun.elapsed());
    drop(held);
}

/// `install` waited 45 s for each file of the service's user that it opened.
#[test]
fn a_lease_on_a_file_that_root_reads_makes_it_unreadable_at_once() {
    let Some((_dir, state)) = state_of_nobody() else {
        return;
    };
    if !skip::unless_there("python3") {
        return;
    }
    let begun = Instant::now();
    let file = state.join("app.env");
    fs::write(&file, "A=1\n").unwrap();
    let held = lease(&file);
    let path = file.to_str().unwrap();
    let text = of_root(
        &state,
        &[
            "install",
            "--dry-run",
            "--env-file",
            path,
            "--",
            "/bin/true",
        ],
    );
    assert!(
        begun.elapsed() < LEASE_TIME,
        "{:?}: {text}",
        begun.elapsed()
    );
    held.release();
}
