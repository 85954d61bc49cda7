//! What is sent to a server once more, and what never is.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::client::{Conn, block_on, request, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::signal;
use crate::support::servers;
use crate::support::upstream::{Received, Recorder};
use crate::support::wait::{self, DEADLINE};

/// Notes each request in the file `seen`. `/die` ends it, `/hang` has no answer while the file `hangs`
/// is there.
const SERVER: &str = r#"
import http.server, os, sys, time
folder = sys.argv[2]
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def answer(self):
        with open(folder + "/seen", "a") as seen: seen.write(self.command + " " + self.path + "\n")
        if self.path == "/die": os._exit(1)
        if self.path == "/hang" and os.path.exists(folder + "/hangs"): time.sleep(1000)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    do_GET = do_HEAD = do_OPTIONS = do_PUT = do_DELETE = do_POST = answer
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"#;

const METHODS: [&str; 6] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST"];

fn behind(dir: &Path) -> Option<Setup> {
    let dir = dir.to_str().unwrap();
    servers::have("python3").then(|| {
        Setup::behind(["python3", "-c", SERVER, "{port}", dir])
            .config("[gateway]\nworkers = 1\n[restart]\ndrain = \"1s\"\n")
    })
}

fn line(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
}

/// The status of the answer to a request on a connection of its own.
fn ask(gateway: &Gateway, method: &str, path: &str) -> u16 {
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(line(method, path)).await.unwrap();
        let answer = within(DEADLINE, conn.response(method == "HEAD")).await;
        answer.unwrap_or_else(|fault| panic!("{method} {path}: {fault}"))
    })
    .status()
}

fn times(dir: &Path, line: &str) -> usize {
    let seen = fs::read_to_string(dir.join("seen")).unwrap_or_default();
    seen.lines().filter(|one| *one == line).count()
}

#[test]
fn a_request_that_kills_its_server_is_given_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = behind(dir.path()) else {
        return;
    };
    let gateway = setup.start();
    for (number, method) in ["GET", "OPTIONS", "PUT", "POST"].into_iter().enumerate() {
        // A connection that was used, for those that may be sent once more on another.
        assert_eq!(ask(&gateway, "GET", "/"), 200);
        assert_eq!(ask(&gateway, method, "/die"), 502, "{method}");
        let once = times(dir.path(), &format!("{method} /die"));
        assert_eq!(once, 1, "{method} came so many times");
        // Requests that come while there is none wait for the next.
        assert_eq!(ask(&gateway, "GET", "/"), 200);
        let status = gateway.status();
        assert_eq!(status["sidecars"][0]["restarts"], number + 1, "{status:#}");
    }
}

/// Closes without an answer at `/silent`.
fn speechless() -> Recorder {
    Recorder::answering(|received: &Received| match received.target() {
        "/silent" => Vec::new(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
}

#[test]
fn only_a_safe_request_on_a_used_connection_is_sent_once_more() {
    for method in METHODS {
        for used in [false, true] {
            let recorder = speechless();
            let gateway = Setup::upstream(recorder.addr())
                .config("[gateway]\nworkers = 1\n")
                .start();
            if used {
                assert_eq!(ask(&gateway, "GET", "/"), 200);
            }
            assert_eq!(ask(&gateway, method, "/silent"), 502, "{method}");
            let seen = recorder.seen();
            let came = seen.iter().filter(|got| got.target() == "/silent").count();
            let again = used && matches!(method, "GET" | "HEAD" | "OPTIONS");
            assert_eq!(came, 1 + usize::from(again), "{method}, used {used}");
            let retries = gateway.metric("gateway_retries_total");
            assert_eq!(retries, u64::from(again), "{method}, used {used}");
        }
    }
}

#[test]
fn the_end_of_a_drain_gives_safe_requests_to_the_next_server_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = behind(dir.path()) else {
        return;
    };
    let gateway = setup.start();
    fs::write(dir.path().join("hangs"), "").unwrap();
    std::thread::scope(|scope| {
        let gateway = &gateway;
        let asked: Vec<_> = METHODS
            .into_iter()
            .map(|method| (method, scope.spawn(move || ask(gateway, method, "/hang"))))
            .collect();
        wait::until("all hang", || {
            let all = |method: &&str| times(dir.path(), &format!("{method} /hang")) == 1;
            METHODS.iter().all(all).then_some(())
        });
        fs::remove_file(dir.path().join("hangs")).unwrap();
        let output = gateway.ctl(["restart"]);
        // Clients failed, and it says so.
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("3 502"), "{}", said(&output));
        for (method, asked) in asked {
            let safe = matches!(method, "GET" | "HEAD" | "OPTIONS");
            let expected = if safe { (200, 2) } else { (502, 1) };
            let status = asked.join().unwrap();
            let came = times(dir.path(), &format!("{method} /hang"));
            assert_eq!((status, came), expected, "{method}");
        }
    });
    assert_eq!(gateway.metric("gateway_retries_total"), 3);
}

#[test]
fn a_request_that_comes_after_the_death_of_its_server_is_served_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = behind(dir.path()) else {
        return;
    };
    let gateway = setup.start();
    for round in 0..3 {
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let first = within(DEADLINE, conn.exchange(line("GET", "/"))).await;
            assert_eq!(first.unwrap().status(), 200);
            let server = gateway.sidecar_pid("main");
            // The gateway sees the request first, and then that the connection it kept is closed.
            gateway.signal(Signal::SIGSTOP);
            wait::until("it stands still", || {
                threads(gateway.pid())
                    .iter()
                    .all(|state| state == "T")
                    .then_some(())
            });
            conn.send(line("GET", "/")).await.unwrap();
            signal(server, Signal::SIGKILL);
            wait::until("it is dead, and its sockets are closed", || {
                let threads = threads(server);
                (threads.is_empty() || threads == ["Z"]).then_some(())
            });
            gateway.signal(Signal::SIGCONT);
            let next = within(DEADLINE, conn.response(false)).await.unwrap();
            assert_eq!(next.status(), 200, "round {round}: {}", next.text());
        });
    }
}

/// The state of each thread of a process.
fn threads(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let stats = threads.into_iter().flatten().flatten();
    let stats = stats.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let state = |stat: String| Some(stat.rsplit_once(") ")?.1.get(..1)?.to_owned());
    stats.filter_map(state).collect()
}

#[test]
fn a_request_with_a_body_is_not_sent_again_whatever_its_method() {
    let recorder = speechless();
    let gateway = Setup::upstream(recorder.addr())
        .config("[gateway]\nworkers = 1\n")
        .start();
    assert_eq!(ask(&gateway, "GET", "/"), 200);
    let text =
        "GET /silent HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = block_on(request(&gateway.target(), text)).unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(recorder.seen().len(), 2);
}
