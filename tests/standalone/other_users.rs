//! What other users of the machine try with directories and names that they can write to.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sha2::{Digest, Sha256};

use crate::support::gateway::{Setup, said, scrub};
use crate::support::{nobody, port, servers, wait};

/// Listens at the given paths as a user beside nobody, and says who came.
const LISTEN_AND_TELL: &str = "
import os, select, socket, sys
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
os.umask(0)
places = {}
for path in sys.argv[1:]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    places[server] = path
print('listening', flush=True)
while True:
    for server in select.select(list(places), [], [])[0]:
        server.accept()
        print('CAME', places[server], flush=True)
";

/// A directory with a mode.
fn directory(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// `gateway run` of this user with a state directory that it must refuse; what it said.
fn refused(state: &Path, home: &Path) -> String {
    let listen = format!("127.0.0.1:{}", port::private());
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    scrub(&mut command);
    let output: Output = command
        .args(["run", "--config", "/dev/null", "--listen", &listen])
        .arg("--state-dir")
        .arg(state)
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(state.to_str().unwrap()), "{text}");
    text
}

#[test]
fn a_shared_directory_is_refused_as_state_and_keeps_its_mode() {
    let top = tempfile::tempdir().unwrap();
    let home = directory(top.path().join("home"), 0o700);
    let shared = directory(top.path().join("shared"), 0o1777);
    let open = directory(top.path().join("open"), 0o777);
    for (state, mode_before) in [(&shared, 0o1777), (&open, 0o777), (&open.join("x"), 0o777)] {
        let text = refused(state, &home);
        assert!(text.contains("other users may write in"), "{text}");
        let there = if state.exists() { state } else { &open };
        assert_eq!(mode(there), mode_before, "{text}");
    }
    assert!(names_in(&shared).is_empty() && names_in(&open).is_empty());

    // The commands that it names work.
    let text = refused(&open, &home);
    assert!(
        text.contains(&format!("run chmod go-w {}", open.display())),
        "{text}"
    );
    let (_, usual) = text.split_once("use --state-dir ").unwrap();
    let usual = usual.split_whitespace().next().unwrap();
    assert!(Path::new(usual).starts_with(&home), "{text}");
    Setup::new().state_dir(usual).start().stop();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    Setup::new().state_dir(&open).start().stop();
    assert_eq!(mode(&open), 0o755);
    Setup::new().state_dir(shared.join("own")).start().stop();
    assert_eq!(mode(&shared.join("own")), 0o700);
}

#[test]
fn a_planted_link_is_not_followed_to_a_state_directory() {
    if !nobody::can_be() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let shared = directory(top.path().join("shared"), 0o1777);
    let target = directory(top.path().join("target"), 0o755);
    let planted = shared.join("state");
    let link = nobody::command(
        Path::new("ln"),
        &["-s", target.to_str().unwrap(), planted.to_str().unwrap()],
    )
    .status()
    .unwrap();
    assert!(link.success());
    for state in [&planted, &planted.join("below")] {
        let text = refused(state, top.path());
        assert!(text.contains("is a symbolic link"), "{text}");
    }
    assert_eq!(mode(&target), 0o755);
    assert!(names_in(&target).is_empty());
}

#[test]
fn a_directory_that_another_user_can_swap_is_no_state_directory() {
    if !nobody::can_be() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = directory(top.path().join("theirs"), 0o755);
    nobody::own(&theirs);
    let state = directory(theirs.join("state"), 0o700);
    let text = refused(&state, top.path());
    let why = format!("{} belongs to another user (uid 65534)", theirs.display());
    assert!(text.contains(&why), "{text}");
    assert!(names_in(&state).is_empty());

    // Root keeps the runtime directory of the user who called sudo -E out of it.
    let gateway = Setup::new()
        .state_dir(top.path().join("own"))
        .env("XDG_RUNTIME_DIR", &theirs)
        .start();
    assert_eq!(gateway.status()["generation"], 1);
    assert_eq!(names_in(&theirs), ["state"]);
}

/// Ends a process of a test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The short names that stood for the sockets of a long state directory.
fn former_names(temp: &Path, state: &Path) -> [PathBuf; 2] {
    let path = state.join("run/control.sock");
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let digits: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let control = temp.join(format!("gateway-{}-{digits}.sock", nobody::UID));
    [control.with_extension("move"), control]
}

fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A gateway of root chmodded and removed whatever lay at the path of its unix listener.
#[test]
fn a_unix_listener_in_another_users_directory_leads_to_no_other_file() {
    if !nobody::can_be() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = directory(top.path().join("theirs"), 0o755);
    let sockets = directory(theirs.join("sockets"), 0o755);
    nobody::own(&theirs);
    nobody::own(&sockets);
    let of_root = directory(top.path().join("root"), 0o755);
    let file = of_root.join("front.sock");
    fs::write(&file, "precious").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let socket = sockets.join("front.sock");
    let listen = format!("unix:{}", socket.display());
    let gateway = Setup::new().flag("--listen").flag(&listen).start();
    assert_eq!(mode(&socket), 0o666);
    let as_nobody = |program: &str, args: &[&str]| {
        let output = nobody::command(Path::new(program), args).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    as_nobody("mv", &[&path(&sockets), &path(&theirs.join("aside"))]);
    as_nobody("ln", &["-s", &path(&of_root), &path(&sockets)]);
    gateway.stop();
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn the_sockets_of_a_long_state_directory_are_out_of_reach_for_others() {
    if !nobody::can_be() || !servers::have("python3") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    nobody::copy_programs(top.path());
    let temp = directory(top.path().join("tmp"), 0o1777);
    let state = directory(top.path().join("x".repeat(100)), 0o700);
    nobody::own(&state);
    let taken = former_names(&temp, &state);
    let attack = Command::new("python3")
        .args(["-c", LISTEN_AND_TELL])
        .args(&taken)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut attack = Ended(attack);
    let mut heard = attack.0.stdout.take().unwrap();
    let mut line = [0; 10];
    heard.read_exact(&mut line).unwrap();

    let listen = format!("127.0.0.1:{}", port::private());
    let gateway = nobody::gateway(top.path(), &state, &listen)
        .env("TMPDIR", &temp)
        .env("GATEWAY_SUPERVISOR", "none")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut gateway = Ended(gateway);
    let ctl = |args: &[&str]| {
        let args = [&["--state-dir", state.to_str().unwrap()], args].concat();
        nobody::command(&top.path().join("gatewayctl"), &args)
            .env("TMPDIR", &temp)
            .output()
            .unwrap()
    };
    let own = wait::until("the gateway answers at its own socket", || {
        let status = ctl(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        status["pid"].as_u64()
    });
    assert_eq!(own, u64::from(gateway.0.id()));
    let mut client = TcpStream::connect(&listen).unwrap();
    assert!(ask(&mut client).starts_with("HTTP/1.1 200"));

    let restarted = ctl(&["restart", "--fresh"]);
    assert!(restarted.status.success(), "{}", said(&restarted));
    gateway.0.wait().unwrap();
    // The silent client was handed to the successor, and not to whoever has a name in /tmp.
    assert!(ask(&mut client).starts_with("HTTP/1.1 200"));
    let stopped = ctl(&["stop"]);
    assert!(stopped.status.success(), "{}", said(&stopped));

    drop(attack);
    let mut came = String::new();
    heard.read_to_string(&mut came).unwrap();
    assert_eq!(came, "", "another user got a connection");
    assert_eq!(names_in(&temp).len(), taken.len());
}

#[test]
fn pages_are_not_written_through_planted_links() {
    let top = tempfile::tempdir().unwrap();
    let victim = top.path().join("victim");
    fs::write(&victim, "root's").unwrap();
    let pages = directory(top.path().join("pages"), 0o777);
    std::os::unix::fs::symlink(&victim, pages.join("gateway.8")).unwrap();
    std::os::unix::fs::symlink(top.path().join("new"), pages.join("gatewayctl.8")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    let output = command.arg("man").arg(&pages).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "root's");
    assert!(!top.path().join("new").exists());
    for page in ["gateway.8", "gatewayctl.8"] {
        assert!(fs::symlink_metadata(pages.join(page)).unwrap().is_file());
    }
    assert_eq!(mode(&pages.join("gateway.8")), 0o644);
}

/// `su -m` and `sudo -E` leave the variables of the user before: root's commands took that user's
/// gateway, and what it says, for root's own.
#[test]
fn what_names_a_directory_of_another_user_is_ignored_with_the_reason() {
    if !nobody::can_be() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    nobody::copy_programs(top.path());
    let home = directory(top.path().join("home"), 0o755);
    nobody::own(&home);
    let states = home.join(".local/state");
    let state = states.join("gateway/theirs");
    let listen = format!("127.0.0.1:{}", port::private());
    let mut command = nobody::gateway(top.path(), &state, &listen);
    command.args(["--instance", "theirs"]).stderr(Stdio::null());
    let _theirs = Ended(command.spawn().unwrap());
    let control = state.join("run/control.sock");
    wait::until("it can be asked", || control.exists().then_some(()));
    for (name, value) in [("HOME", &home), ("XDG_STATE_HOME", &states)] {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
        scrub(&mut ctl);
        ctl.env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR");
        ctl.env(name, value)
            .args(["--instance", "theirs", "status"]);
        let output = ctl.output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{name}: {text}");
        let reason = format!("${name} is ignored: {} belongs to uid", value.display());
        assert!(text.contains(&reason), "{text}");
    }
}
