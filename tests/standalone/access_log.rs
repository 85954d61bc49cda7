//! The access log and the request id: one line for each request, whatever becomes of it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::{self, Conn, Response, block_on, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::{fresh, respawning};
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::{self, DEADLINE};
use crate::support::{servers, skip, ws};

/// A directory, and the log in it.
struct Log {
    dir: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("access-").tempdir();
        Self { dir: dir.unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    fn config(&self) -> String {
        config(&self.path())
    }

    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<String> {
        lines_of(&self.path(), count)
    }

    /// The same as JSON.
    fn entries(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count);
        let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        parsed.collect()
    }

    /// The entry with this path, once it is there.
    fn entry(&self, path: &str) -> Value {
        wait::until(&format!("a line for {path}"), || {
            let text = fs::read_to_string(self.path()).ok()?;
            let mut entries = text
                .lines()
                .map(|line| -> Value { serde_json::from_str(line).unwrap() });
            entries.find(|entry| entry["path"] == path)
        })
    }
}

fn config(path: &Path) -> String {
    format!("[gateway]\naccess_log = \"{}\"\n", path.display())
}

fn lines_of(path: &Path, count: usize) -> Vec<String> {
    wait::until(&format!("{count} lines in {}", path.display()), || {
        let text = fs::read_to_string(path).unwrap_or_default();
        // gatewayctl asks for /healthz.
        let ours = text.lines().filter(|line| !line.contains("\"gatewayctl\""));
        let lines: Vec<String> = ours.map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
}

fn exchange(gateway: &Gateway, request: &str) -> Response {
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        within(DEADLINE, conn.exchange(request)).await.unwrap()
    })
}

/// A gateway before `upstream` that logs to `log`.
fn logging(log: &Log, upstream: std::net::SocketAddr) -> Setup {
    Setup::upstream(upstream).config(log.config())
}

#[test]
fn a_request_has_a_line_with_all_that_is_known_of_it() {
    let (log, upstream) = (Log::new(), Recorder::ok());
    let gateway = logging(&log, upstream.addr()).start();
    let answer = exchange(
        &gateway,
        "GET /a?x=1&token=hidden HTTP/1.1\r\nHost: example.org\r\nUser-Agent: a\"b\r\n\r\n",
    );
    let entry = log.entries(1).remove(0);
    for (key, value) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "GET".into()),
        ("host", "example.org".into()),
        ("path", "/a?x=1&token=***".into()),
        ("protocol", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("bytes", 3.into()),
        ("sidecar", format!("http://{}", upstream.addr()).into()),
        ("generation", 1.into()),
        ("retries", 0.into()),
        ("end", "done".into()),
        ("agent", "a\"b".into()),
        ("id", answer.head.get("x-request-id").unwrap().into()),
    ] {
        assert_eq!(entry[key], value, "{key} of {entry}");
    }
    let (all, upstream) = (&entry["durationMs"], &entry["upstreamMs"]);
    assert!(
        all.as_f64().unwrap() >= upstream.as_f64().unwrap(),
        "{entry}"
    );
    let mode = fs::metadata(log.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn an_id_is_kept_or_made_and_told_to_everybody() {
    let (log, upstream) = (Log::new(), Recorder::ok());
    let gateway = logging(&log, upstream.addr()).start();
    let ask = |headers: &str| {
        exchange(
            &gateway,
            &format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n"),
        )
    };
    let told = |answer: &Response| answer.head.get("x-request-id").unwrap().to_owned();
    let kept = told(&ask("X-Request-Id: 0af7-65_1.x\r\n"));
    assert_eq!(kept, "0af7-65_1.x");
    let made = [
        ask(""),
        ask("X-Request-Id: a b\r\n"),
        ask("X-Request-Id: a\r\nX-Request-Id: b\r\n"),
    ]
    .map(|answer| told(&answer));
    let entries = log.entries(4);
    let seen = upstream.seen();
    for (index, id) in [&kept, &made[0], &made[1], &made[2]]
        .into_iter()
        .enumerate()
    {
        let sent: Vec<&str> = seen[index].head.all("x-request-id").collect();
        assert_eq!(sent, [id], "one, and the same");
        assert_eq!(entries[index]["id"], id.as_str());
    }
    assert!(
        made.iter().all(|id| id.len() == 32 && id != &kept),
        "{made:?}"
    );
    assert!(made[0] != made[1] && made[1] != made[2]);
    let health = exchange(&gateway, "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(told(&health).len(), 32);
}

#[test]
fn a_server_that_answers_with_an_id_is_not_contradicted_and_without_an_access_log_nothing_is_added()
{
    let upstream = Recorder::answering(|request| match request.target() {
        "/own" => b"HTTP/1.1 200 OK\r\nX-Request-Id: mine\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let gateway = Setup::upstream(upstream.addr())
        .config("[gateway]\nrequest_id = true\n")
        .start();
    let answer = exchange(
        &gateway,
        "GET /own HTTP/1.1\r\nHost: h\r\nX-Request-Id: client\r\n\r\n",
    );
    let ids: Vec<&str> = answer.head.all("x-request-id").collect();
    assert_eq!(ids, ["mine"]);
    let off = Setup::upstream(upstream.addr()).start();
    let answer = exchange(
        &off,
        "GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: a b\r\n\r\n",
    );
    assert_eq!(answer.head.get("x-request-id"), None);
    let seen = upstream.seen();
    assert_eq!(seen[0].head.get("x-request-id"), Some("client"));
    assert_eq!(seen[1].head.get("x-request-id"), Some("a b"), "as it came");
}

#[test]
fn a_failure_has_the_id_in_the_log_of_the_gateway_too() {
    let (log, silent) = (Log::new(), Recorder::answering(|_| Vec::new()));
    let gateway = logging(&log, silent.addr()).start();
    let answer = exchange(
        &gateway,
        "POST /x HTTP/1.1\r\nHost: h\r\nX-Request-Id: the-one\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        (answer.status(), answer.head.get("x-request-id")),
        (502, Some("the-one"))
    );
    gateway.wait_line("(request the-one)");
    let entry = log.entry("/x");
    assert_eq!(
        (&entry["status"], &entry["end"]),
        (&502.into(), &"failed".into())
    );
}

#[test]
fn what_is_refused_or_ends_early_has_a_line_that_says_how() {
    let log = Log::new();
    let upstream = Upstream::serve(|mut conn| async move {
        let head = conn.head().await.unwrap();
        if head.first.contains("/half") {
            let _ = conn
                .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                .await;
            return;
        }
        conn.drain().await;
    });
    let gateway = Setup::new()
        .config(log.config())
        .config("[limits]\nheader_time = \"500ms\"\nbody = 10\nbody_idle = \"500ms\"\nanswer = \"500ms\"\n")
        .config(format!("[[route]]\npath = \"/app\"\nto = \"http://{}\"\n", upstream.addr()))
        .start();
    let (post, get) = ("POST /app/", "GET /app/");
    for (request, status, end, path) in [
        (
            "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            404,
            "refused",
            "/nowhere",
        ),
        (
            format!("{post}a HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n"),
            413,
            "refused",
            "/app/a",
        ),
        (
            format!("{get}b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            400,
            "refused",
            "/app/b",
        ),
        (
            format!("{post}c HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"),
            408,
            "timed-out",
            "/app/c",
        ),
        (
            format!("{get}d HTTP/1.1\r\nHost: h\r\n\r\n"),
            504,
            "timed-out",
            "/app/d",
        ),
        (
            "GET /_gateway/metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            401,
            "refused",
            "/_gateway/metrics",
        ),
        (
            "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            200,
            "done",
            "/healthz",
        ),
    ] {
        let answer = exchange(&gateway, &request);
        assert_eq!(answer.status(), status, "{request}");
        let entry = log.entry(path);
        assert_eq!(
            (&entry["status"], &entry["end"]),
            (&status.into(), &end.into()),
            "{entry}"
        );
    }
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("GET /app/half HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        conn.drain().await;
    });
    let entry = log.entry("/app/half");
    assert_eq!(
        (&entry["status"], &entry["bytes"], &entry["end"]),
        (&200.into(), &4.into(), &"failed".into())
    );
    // Heads that are no request have a line, too.
    let long = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHost h\r\n\r\n", 400),
        (&*long, 431),
        ("GET / HTTP/1.1\r\nHo", 408),
    ] {
        let answer = exchange(&gateway, bytes);
        assert_eq!(answer.status(), status);
        let found = wait::within(DEADLINE, || {
            let text = fs::read_to_string(log.path()).unwrap();
            let needle = format!("\"status\":{status},");
            text.lines()
                .any(|line| line.contains(&needle) && !line.contains("\"path\""))
                .then_some(())
        });
        assert!(
            found.is_some(),
            "no line for {status}: {:?}",
            fs::read_to_string(log.path())
        );
    }
}

#[test]
fn a_client_that_leaves_and_a_websocket_have_their_line_at_the_end() {
    if !servers::have("node") {
        return skip::because("node is not installed");
    }
    let log = Log::new();
    let gateway = Setup::behind(servers::node()).config(log.config()).start();
    block_on(async {
        let mut socket = ws::WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        socket.echo("hello").await.unwrap();
        socket.close(1000).await.unwrap();
    });
    let mut leaves = TcpStream::connect(gateway.addr()).unwrap();
    leaves
        .write_all(b"GET /slow?ms=60000 HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    wait::until("the request waits", || {
        // The one that asks is a request, too.
        (gateway.metric("gateway_requests") > 1).then_some(())
    });
    drop(leaves);
    let entry = log.entry("/ws");
    assert_eq!(
        (&entry["status"], &entry["sidecar"], &entry["end"]),
        (&101.into(), &"main".into(), &"done".into())
    );
    assert!(entry["bytes"].as_u64().unwrap() >= 7, "{entry}");
    let entry = log.entry("/slow?ms=60000");
    assert_eq!(
        (&entry["status"], &entry["end"]),
        (&499.into(), &"client-gone".into()),
        "{entry}"
    );
    assert_eq!(entry["sidecar"], "main");
}

#[test]
fn a_log_that_is_moved_is_made_anew_and_nothing_is_lost() {
    let (log, upstream) = (Log::new(), Recorder::ok());
    let gateway = logging(&log, upstream.addr()).start();
    let get = |path: &str| {
        assert_eq!(
            block_on(client::get(&gateway.target(), path))
                .unwrap()
                .status(),
            200
        )
    };
    get("/1");
    log.lines(1);
    let moved = log.dir.path().join("access.log.1");
    fs::rename(log.path(), &moved).unwrap();
    get("/2");
    assert!(log.lines(1)[0].contains("\"/2\""));
    fs::rename(log.path(), log.dir.path().join("access.log.2")).unwrap();
    gateway.signal(Signal::SIGHUP);
    wait::until("a reload opens it", || log.path().exists().then_some(()));
    get("/3");
    assert!(log.lines(1)[0].contains("\"/3\""));
    assert_eq!(lines_of(&moved, 1).len(), 1);
}

#[test]
fn a_reload_changes_the_log_and_one_that_cannot_be_written_fails_with_the_reason() {
    let (log, upstream) = (Log::new(), Recorder::ok());
    let setup = Setup::upstream(upstream.addr());
    let gateway = setup.start();
    let routes = fs::read_to_string(gateway.config_file()).unwrap();
    let write = |gateway: &Gateway, text: &str| {
        fs::write(gateway.config_file(), format!("{routes}{text}")).unwrap()
    };
    let get = |path: &str| block_on(client::get(&gateway.target(), path)).unwrap();
    write(&gateway, &log.config());
    let reloaded = gateway.ctl(["reload"]);
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    get("/1");
    log.entry("/1");
    write(
        &gateway,
        &format!("{}access_log_format = \"combined\"\n", log.config()),
    );
    assert!(gateway.ctl(["reload"]).status.success());
    get("/2");
    let line = log.lines(2).remove(1);
    assert!(
        line.starts_with("127.0.0.1 - - [")
            && line.ends_with("\"GET /2 HTTP/1.1\" 200 3 \"-\" \"-\""),
        "{line}"
    );
    let link = log.dir.path().join("link");
    symlink(log.path(), &link).unwrap();
    for (path, why) in [
        (link, "is a symbolic link"),
        (log.dir.path().join("none/access.log"), "No such file"),
        (log.dir.path().to_owned(), "directory"),
        (PathBuf::from("/dev/null"), "no regular file"),
    ] {
        write(&gateway, &config(&path));
        for args in [["reload"].as_slice(), &["config", "check"]] {
            let mut all = vec!["--config".into(), gateway.config_file().into_os_string()];
            all.extend(args.iter().map(Into::into));
            let output = gateway.ctl(all);
            assert!(!output.status.success(), "{path:?} {args:?}");
            let text = said(&output);
            assert!(text.contains(why) && text.contains("access log"), "{text}");
        }
        get("/3");
    }
    wait::until("the log goes on", || {
        (log.lines(2).len() >= 6).then_some(())
    });
    write(&gateway, "");
    assert!(gateway.ctl(["reload"]).status.success());
    get("/4");
    assert!(!fs::read_to_string(log.path()).unwrap().contains("/4"));
    // At the first start there is nothing to fall back to.
    let dir = log.dir.path().join("none/access.log");
    let mut failed = Setup::upstream(upstream.addr())
        .config(config(&dir))
        .spawn();
    assert_eq!(failed.exit_code(DEADLINE), 78);
    assert!(
        failed.stderr().contains("none/access.log cannot be opened"),
        "{}",
        failed.stderr()
    );
}

#[test]
fn a_request_that_began_before_there_was_a_log_has_no_line_in_it() {
    if !servers::have("node") {
        return skip::because("node is not installed");
    }
    let log = Log::new();
    let gateway = Setup::behind(servers::node()).start();
    block_on(async {
        let mut before = ws::WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        before.echo("hello").await.unwrap();
        fs::write(gateway.config_file(), log.config()).unwrap();
        let reloaded = gateway.ctl(["reload"]);
        assert!(reloaded.status.success(), "{}", said(&reloaded));
        before.close(1000).await.unwrap();
        before.next().await.unwrap();
        client::get(&gateway.target(), "/after").await.unwrap();
    });
    log.entry("/after");
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(
        text.lines().all(|line| line.contains("\"path\":")),
        "a line does not say what was asked:\n{text}"
    );
}

#[test]
fn a_fresh_process_and_the_one_before_it_write_whole_lines_to_one_file() {
    let Some(setup) = respawning() else { return };
    let log = Log::new();
    let gateway = setup.config(log.config()).start();
    let (mut streams, mut count) = (Vec::new(), 0);
    for round in 0..3 {
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let request = format!("GET /slow?ms=3000&round={round} HTTP/1.1\r\nHost: h\r\n\r\n");
            conn.send(request).await.unwrap();
            for _ in 0..50 {
                client::get(&gateway.target(), "/").await.unwrap();
            }
            streams.push(conn);
        });
        count += 51;
        fresh(&gateway);
    }
    let entries = log.entries(count);
    assert_eq!(entries.len(), count);
    let slow = entries
        .iter()
        .filter(|entry| entry["durationMs"].as_f64() >= Some(2500.0));
    assert_eq!(slow.count(), 3);
    assert!(entries.iter().all(|entry| entry["end"] == "done"));
}

#[test]
fn a_log_that_nobody_reads_stops_no_request_and_the_loss_is_counted() {
    let upstream = Recorder::ok();
    let gateway = Setup::upstream(upstream.addr())
        .config("[gateway]\naccess_log = \"stderr\"\n")
        .start();
    gateway.leave_stderr_unread(true);
    let long = "x".repeat(8000);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..1500 {
            let request = format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(
                within(DEADLINE, conn.exchange(request))
                    .await
                    .unwrap()
                    .status(),
                200
            );
        }
    });
    let lost = gateway.metric("gateway_access_log_lost_total");
    assert!(lost > 0);
    gateway.leave_stderr_unread(false);
    gateway.wait_line("lines were lost");
}
