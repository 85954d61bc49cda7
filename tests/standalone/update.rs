//! Programs that do not prove themselves are refused before anything is replaced, and the running
//! gateway never notices; those that fail afterwards are taken back.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::client::Target;
use crate::support::gateway::{ctl_in, said, scrub};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{nobody, port, skip, wait};
use serde_json::Value;

const REFUSED: i32 = 5;
const PERMISSION: i32 = 77;

/// A gateway that runs from a copy of the program, so that the copy may be replaced.
struct Copy {
    dir: tempfile::TempDir,
    addr: SocketAddr,
    child: Child,
}

impl Copy {
    fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// With the command that is made of the directory.
    fn start_with(command_in: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("gw-").tempdir().unwrap();
        let (program, state) = (dir.path().join("bin/gateway"), dir.path().join("state"));
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_gateway"), &program).unwrap();
        let mut command = Command::new(&program);
        command
            .args(["run", "--config", "/dev/null", "--state-dir"])
            .arg(&state);
        let addr = SocketAddr::from(([127, 0, 0, 1], port::private()));
        command
            .args(["--listen", &addr.to_string(), "--"])
            .args(command_in(dir.path()));
        scrub(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let copy = Self { dir, addr, child };
        wait::until("the gateway is ready", || {
            copy.ctl(&["status"]).status.success().then_some(())
        });
        copy
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("bin/gateway")
    }

    fn ctl(&self, args: &[&str]) -> Output {
        ctl_in(&self.dir.path().join("state"))
            .args(args)
            .output()
            .unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ctl(&["status", "--json"]).stdout).unwrap()
    }

    /// A candidate of this text.
    fn candidate(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("candidate");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A request that the old process does not finish by itself.
    fn hold(&self) -> TcpStream {
        use std::io::Write;
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx")
            .unwrap();
        stream
    }

    fn update(&self, file: &Path, more: &[&str]) -> Output {
        self.ctl(&[&["update", file.to_str().unwrap()], more].concat())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.ctl(&["stop"]);
        let _ = self.child.wait();
    }
}

#[test]
fn what_does_not_prove_itself_changes_nothing() {
    let gateway = Copy::start();
    let before = (fs::read(gateway.program()).unwrap(), gateway.status());
    assert_eq!(before.1["program"], gateway.program().to_str().unwrap());
    let version = "[ \"$1\" = --version ] && echo 'gateway 9.0.0 (handover 1, control 1)'";
    for (text, expected) in [
        (
            "#!/bin/sh\necho nginx version: nginx/1.22.1\n".to_owned(),
            "is no gateway that can take over",
        ),
        (
            "#!/bin/sh\necho gateway 0.1.0\n".to_owned(),
            "is no gateway that can take over",
        ),
        (
            "#!/bin/sh\necho 'gateway 9.0.0 (handover 99, control 1)'\n".to_owned(),
            "they cannot hand over",
        ),
        (
            format!("#!/bin/sh\n{version} || kill -11 $$\n"),
            "was ended by signal 11",
        ),
        ("\u{7f}ELF but no program".to_owned(), "for another machine"),
        (
            "#!/nonexistent/interpreter\n".to_owned(),
            "loader or interpreter that it names is missing",
        ),
    ] {
        let output = gateway.update(&gateway.candidate(&text), &[]);
        let words = said(&output);
        assert!(
            output.status.code() == Some(REFUSED)
                && words.contains(expected)
                && words.contains("nothing was changed"),
            "{words}"
        );
    }
    let itself = gateway.update(&gateway.program(), &[]);
    assert!(
        itself.status.code() == Some(REFUSED) && said(&itself).contains("runs already"),
        "{}",
        said(&itself)
    );
    let after = gateway.status();
    assert_eq!(
        (&after["pid"], &after["generation"]),
        (&before.1["pid"], &before.1["generation"])
    );
    assert_eq!(fs::read(gateway.program()).unwrap(), before.0);
    assert_eq!(
        fs::read_dir(gateway.dir.path().join("bin"))
            .unwrap()
            .count(),
        1,
        "nothing lies beside the program"
    );
}

#[test]
fn a_check_proves_and_replaces_nothing() {
    let gateway = Copy::start();
    let candidate = marked(&gateway, "another");
    let output = gateway.update(&candidate, &["--check", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["to"]),
        (&"proven".into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(
        fs::read_dir(gateway.dir.path().join("bin"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_directory_that_may_not_be_written_is_named_with_who_may() {
    if !nobody::can_be() {
        return;
    }
    // Another user's gateway in a directory of root's, asked by that user.
    let dir = tempfile::Builder::new().prefix("gw-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (bin, state) = (dir.path().join("bin"), dir.path().join("state"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&state).unwrap();
    nobody::own(&state);
    nobody::copy_programs(&bin);
    let next = marked_in(dir.path(), "another");
    let listen = format!("127.0.0.1:{}", port::private());
    let mut command = nobody::gateway(&bin, &state, &listen);
    let state = state.to_str().unwrap().to_owned();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ctl = |args: &[&str]| {
        let args = [&["--state-dir", &state], args].concat();
        let mut command = nobody::command(&bin.join("gatewayctl"), &args);
        command.output().unwrap()
    };
    wait::until("the gateway is ready", || {
        ctl(&["status"]).status.success().then_some(())
    });
    let output = ctl(&["update", next.to_str().unwrap()]);
    let words = said(&output);
    let expected = format!(
        "no permission to write in {}: only root (uid 0) may",
        bin.canonicalize().unwrap().display()
    );
    let stopped = ctl(&["stop"]);
    child.wait().unwrap();
    assert!(
        output.status.code() == Some(PERMISSION)
            && words.contains(&expected)
            && words.contains("sudo"),
        "{words}"
    );
    assert!(stopped.status.success(), "{}", said(&stopped));
}

/// A server that looks at the end of its gateway's program file: DIE! kills the gateway a
/// second after it began to serve, NOT! never listens, BAD! serves for two seconds and then fails at every start.
const MEAN: &str = r#"
import http.server, json, os, sys, threading, time
with open(f"/proc/{os.getppid()}/exe", "rb") as program:
    program.seek(-4, 2)
    mark = program.read()
parent = os.getppid()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
seen = os.path.join(os.path.dirname(__file__), "seen")
if mark == b"NOT!" or (mark == b"BAD!" and os.path.exists(seen)): sys.exit("this version is no good")
def die():
    owner = os.path.join(os.path.dirname(__file__), "state/owner.json")
    while json.load(open(owner))["pid"] != parent: time.sleep(0.05)
    time.sleep(1)
    os.kill(parent, 9)
if mark == b"DIE!": threading.Thread(target=die).start()
if mark == b"BAD!": open(seen, "w").close(); threading.Timer(2, lambda: os._exit(3)).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

fn mean() -> Option<Copy> {
    skip::unless_there("python3").then(|| {
        Copy::start_with(|dir| {
            let script = dir.join("mean.py");
            fs::write(&script, MEAN).unwrap();
            ["python3", script.to_str().unwrap(), "{port}"]
                .map(str::to_owned)
                .into()
        })
    })
}

/// The same program with a mark at its end.
fn marked(gateway: &Copy, mark: &str) -> PathBuf {
    marked_in(gateway.dir.path(), mark)
}

fn marked_in(dir: &Path, mark: &str) -> PathBuf {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_gateway")).unwrap();
    bytes.extend_from_slice(mark.as_bytes());
    let path = dir.join("next");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn pid(gateway: &Copy) -> u64 {
    gateway.status()["pid"].as_u64().unwrap()
}

fn ends_with(program: &Path, mark: &str) -> bool {
    fs::read(program).unwrap().ends_with(mark.as_bytes())
}

fn load(gateway: &Copy) -> Load {
    Load {
        new_per_second: 50.0,
        kept: 10,
        ..Load::on(Target::Tcp(gateway.addr))
    }
}

#[test]
fn an_update_under_load_loses_nothing() {
    let Some(gateway) = mean() else { return };
    let (before, running) = (pid(&gateway), load(&gateway).start());
    running.flows(Part::New, 20);
    let output = gateway.update(&marked(&gateway, "GOOD"), &[]);
    assert!(output.status.success(), "{}", said(&output));
    running.flows(Part::New, 20);
    running.stop().assert_clean(&[(Part::New, 100)]);
    assert_ne!(pid(&gateway), before);
    assert!(ends_with(&gateway.program(), "GOOD"));
    assert!(!ends_with(
        &gateway.dir.path().join("bin/gateway.previous"),
        "GOOD"
    ));
}

/// It said "updated", with exit code 0; and the way back put the same program in place once more, and
/// destroyed the previous one.
#[test]
fn an_update_after_which_clients_get_no_answer_has_failed_and_names_the_way_back() {
    if !skip::unless_there("python3") {
        return;
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/passages.py");
    let gateway = Copy::start_with(|dir| {
        let dir = dir.to_str().unwrap();
        ["python3", server, "{port}", dir].map(str::to_owned).into()
    });
    fs::write(gateway.dir.path().join("how"), "close").unwrap();
    let output = gateway.update(&marked(&gateway, "MUTE"), &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [
        "HEAD / got no answer of main: 502",
        "update ",
        "bin/gateway.previous",
    ] {
        assert!(text.contains(words), "no {words}: {text}");
    }
    assert!(ends_with(&gateway.program(), "MUTE"), "it stays in place");
    let back = gateway.program().with_file_name("gateway.previous");
    let output = gateway.update(&back, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["ok"], &answer["restart"]["passages"][0]["result"]),
        (&Value::Bool(false), &"failed".into()),
        "{answer}"
    );
    assert!(!ends_with(&gateway.program(), "MUTE"));
    assert!(ends_with(&back, "MUTE"), "the way forth");
}

#[test]
fn the_same_update_twice_keeps_the_way_back() {
    let gateway = Copy::start();
    let before = fs::read(gateway.program()).unwrap();
    let new = marked(&gateway, "new");
    let first = gateway.update(&new, &[]);
    assert!(first.status.success(), "{}", said(&first));
    let again = gateway.update(&new, &[]);
    assert_eq!(again.status.code(), Some(REFUSED), "{}", said(&again));
    assert!(said(&again).contains("runs already"), "{}", said(&again));
    let kept = gateway.program().with_file_name("gateway.previous");
    assert_eq!(fs::read(kept).unwrap(), before);
}

#[test]
fn a_program_that_does_not_get_ready_is_taken_back_and_nobody_notices() {
    let Some(gateway) = mean() else { return };
    let (before, running) = (pid(&gateway), load(&gateway).start());
    running.flows(Part::New, 20);
    let output = gateway.update(&marked(&gateway, "NOT!"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("the previous program is back"),
        "{}",
        said(&output)
    );
    running.stop().assert_clean(&[(Part::New, 20)]);
    assert_eq!(pid(&gateway), before);
    assert!(!ends_with(&gateway.program(), "NOT!"));
}

#[test]
fn a_program_that_serves_badly_hands_back() {
    let Some(gateway) = mean() else { return };
    let before = pid(&gateway);
    let output = gateway.update(&marked(&gateway, "BAD!"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!ends_with(&gateway.program(), "BAD!"));
    let after = pid(&gateway);
    let runs = fs::read(format!("/proc/{after}/exe")).unwrap();
    assert!(
        after != before && !runs.ends_with(b"BAD!"),
        "{}",
        said(&output)
    );
    assert_eq!(gateway.status()["stage"], "ready", "{}", said(&output));
}

#[test]
fn a_program_that_dies_soon_is_replaced_by_the_previous_one() {
    let Some(gateway) = mean() else { return };
    // An old request keeps the old process there: nobody else would serve again without a
    // supervisor.
    let held = gateway.hold();
    let output = gateway.update(&marked(&gateway, "DIE!"), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("which ran the new program, ended"),
        "{}",
        said(&output)
    );
    assert!(!ends_with(&gateway.program(), "DIE!"));
    drop(held);
}
