//! Another local user reads a sidecar's private port in `ps`, and listens there in its place: it
//! gets no request.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

use crate::support::client::{self, Target, block_on};
use crate::support::gateway::{Gateway, READY, Setup};
use crate::support::{nobody, port, servers};

/// Neither root nor nobody.
const MALLORY: u32 = 54_321;

const LATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/late.py");

/// What Mallory runs: it says how many bytes came with each connection that brought some.
const TRAP: &str = r"
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((host, port))
s.listen(64)
print('trap', flush=True)
while True:
    c, _ = s.accept()
    c.settimeout(5)
    try: got = c.recv(65536)
    except OSError: got = b''
    if got:
        print('got', len(got), flush=True)
        c.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ntrap')
    c.close()
";

/// A listener of Mallory; it ends when dropped.
struct Trap {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Trap {
    fn set(host: &str, port: u16) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", TRAP, host, &port.to_string()])
            .uid(MALLORY)
            .gid(MALLORY)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "trap\n", "Mallory cannot listen on {host}:{port}");
        Self { child, output }
    }

    /// Ends it, and shows what it got.
    fn caught(mut self) -> String {
        self.child.kill().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there can be a Mallory.
fn can_be() -> bool {
    nobody::can_be() && Path::new("/usr/bin/python3").exists()
}

/// A directory that everybody can enter, in which the server finds whether it shall listen.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("gw-").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn listen(dir: &Path, yes: bool) {
    let file = dir.join("listen");
    if yes {
        std::fs::write(file, "").unwrap();
    } else {
        std::fs::remove_file(file).unwrap();
    }
}

fn late(host: &str, dir: &Path, options: &[&str]) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let command = ["/usr/bin/python3", LATE, host, "{port}", dir];
    let all = command.iter().chain(options);
    all.map(|&word| word.to_owned()).collect()
}

/// The port in the line of a sidecar that starts.
fn port_in(line: &str) -> u16 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const STARTING: &str = "sidecar main starting: pid ";

fn with_cookie(target: &Target) -> client::Response {
    let request = "GET / HTTP/1.1\r\nHost: test\r\nCookie: id=secret\r\nConnection: close\r\n\r\n";
    block_on(client::request(target, request)).unwrap()
}

fn answered_by_its_own(gateway: &Gateway) {
    let response = with_cookie(&gateway.target());
    assert_eq!((response.status(), response.text().as_str()), (200, "own"));
}

#[test]
fn a_listener_at_the_other_loopback_address_of_a_port_gets_no_request() {
    if !can_be() {
        return;
    }
    let dir = directory();
    let gateway = Setup::behind(late("::1", dir.path(), &[])).spawn();
    let port = port_in(&gateway.wait_line(STARTING));
    let trap = Trap::set("127.0.0.1", port);
    listen(dir.path(), true);
    gateway.wait_line(READY);
    answered_by_its_own(&gateway);
    assert_eq!(trap.caught(), "");
}

/// The gateway cannot see what the server has open: then the user of the socket decides.
#[test]
fn a_server_that_hides_its_descriptors_is_not_mistaken_for_another_users() {
    if !can_be() {
        return;
    }
    let dir = directory();
    nobody::copy_programs(dir.path());
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let server = dir.path().join("late.py");
    std::fs::copy(LATE, &server).unwrap();
    let front = port::private();
    let listener = format!("127.0.0.1:{front}");
    let mut command = nobody::gateway(dir.path(), &state, &listener);
    command.args(["--", "/usr/bin/python3", server.to_str().unwrap(), "::1"]);
    command.args(["{port}", dir.path().to_str().unwrap(), "hidden"]);
    let mut gateway = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
    let mut wait_line = |needle: &str| {
        let mut found = lines.by_ref().map(Result::unwrap);
        found.find(|line| line.contains(needle)).unwrap()
    };
    let port = port_in(&wait_line(STARTING));
    let trap = Trap::set("127.0.0.1", port);
    listen(dir.path(), true);
    wait_line(READY);
    let response = with_cookie(&Target::Tcp(([127, 0, 0, 1], front).into()));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert_eq!((response.status(), response.text().as_str()), (200, "own"));
    assert_eq!(trap.caught(), "");
}

#[test]
fn a_listener_in_place_of_one_that_the_server_closed_gets_no_request() {
    if !can_be() {
        return;
    }
    let dir = directory();
    listen(dir.path(), true);
    let gateway = Setup::behind(late("127.0.0.1", dir.path(), &[]))
        .config("[restart]\nhold = { time = \"1s\" }")
        .start();
    let port = port_in(&gateway.wait_line(STARTING));
    answered_by_its_own(&gateway);
    listen(dir.path(), false);
    gateway.wait_line("[main] closed");
    let trap = Trap::set("127.0.0.1", port);
    let response = with_cookie(&gateway.target());
    assert_eq!(response.status(), 503, "{}", response.text());
    let text = response.text();
    assert!(
        !text.contains("another program") && !text.contains(&port.to_string()),
        "clients need not know why: {text}"
    );
    let line = gateway.wait_line("answered 503: ");
    assert!(line.contains("another program"), "{line}");
    let line = gateway.wait_line("no request is sent to it");
    assert!(line.contains(&format!("uid {MALLORY}")), "{line}");
    assert_eq!(trap.caught(), "");
    listen(dir.path(), true);
    gateway.wait_line("[main] listens");
    answered_by_its_own(&gateway);
}

/// Whatever the server does then: it ends, or it waits for ever.
#[test]
fn a_private_port_that_was_taken_before_the_server_bound_it_is_replaced_by_another() {
    if !can_be() {
        return;
    }
    for options in [&[][..], &["retry"]] {
        let dir = directory();
        let command = late("::1", dir.path(), options);
        let gateway = Setup::new()
            .config(format!(
                "[sidecar.main]\ncommand = {command:?}\nstart_timeout = \"6s\""
            ))
            .spawn();
        let port = port_in(&gateway.wait_line(STARTING));
        let trap = Trap::set("::1", port);
        listen(dir.path(), true);
        if options == ["retry"] {
            let line = gateway.wait_line("is not what listens on");
            let who = format!(
                "[::1]:{port}: that is python3 (pid {}, uid {MALLORY})",
                trap.child.id()
            );
            assert!(line.contains(&who), "{line}");
        }
        let next = port_in(&gateway.wait_nth_line(STARTING, 1));
        assert_ne!(next, port);
        gateway.wait_line(READY);
        answered_by_its_own(&gateway);
        assert_eq!(trap.caught(), "");
    }
}

// --- Listeners that were invisible

/// As a Java server listens.
#[test]
fn a_server_that_listens_at_an_ipv4_mapped_address_is_ready() {
    if !servers::have("python3") {
        return;
    }
    let dir = directory();
    listen(dir.path(), true);
    let gateway = Setup::behind(late("::ffff:127.0.0.1", dir.path(), &[])).start();
    answered_by_its_own(&gateway);
}

fn refused_at(port: u16) -> String {
    let mut gateway = Setup::new().port(port).spawn();
    gateway.wait_exit(Duration::from_secs(20));
    gateway.stderr()
}

/// "127.0.0.1:18789 was taken by another program a moment ago: try again", for ever.
#[test]
fn who_listens_at_an_ipv4_mapped_address_is_named() {
    let port = port::private();
    let _java = TcpListener::bind(format!("[::ffff:127.0.0.1]:{port}")).unwrap();
    let text = refused_at(port);
    let me = format!("(pid {}, uid ", std::process::id());
    assert!(
        text.contains(&format!("127.0.0.1:{port} is held by ")) && text.contains(&me),
        "{text}"
    );
}

#[test]
fn an_address_of_a_socket_that_does_not_listen_is_not_said_to_be_free_in_a_moment() {
    let port = port::private();
    let bound = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    let text = refused_at(port);
    assert!(text.contains("a socket that does not listen"), "{text}");
}
