//! Bad configuration, bad commands, bad clients, a full disk: a clear error, and nothing lost.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, Fault, block_on, within};
use crate::support::gateway::{Gateway, Setup, ctl_in, memory_kib, said};
use crate::support::upstream::Recorder;
use crate::support::wait::DEADLINE;
use crate::support::{port, servers};

/// A first start that cannot succeed ends long before this.
const SOON: Duration = Duration::from_secs(15);

const FAILED: i32 = 1;
const CONFIG_INVALID: i32 = 78;

/// Starts what must not come up; gives its exit code and all that it said.
fn refused(setup: &Setup) -> (i32, String) {
    let mut gateway = setup.spawn();
    let code = gateway.exit_code(SOON);
    (code, format!("{}\n{}", gateway.stderr(), gateway.stdout()))
}

fn shell(script: &str) -> Setup {
    Setup::behind(["sh", "-c", script])
}

fn get(gateway: &Gateway, path: &str) -> client::Response {
    block_on(client::get(&gateway.target(), path)).unwrap()
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place_and_a_proposal() {
    for (text, expected) in [
        (
            "[gateway]\nvia = true\n lisen = []\n",
            "gateway.toml:3:2: unknown key `lisen` (did you mean `listen`?)",
        ),
        ("[gateway\n", "gateway.toml:1:"),
        (
            "[restart]\ndrain = \"soon\"\n",
            "gateway.toml:2:9: `soon` is not a duration",
        ),
        ("[restart]\ndrain = 300\n", "gateway.toml:2:9"),
        (
            "[sidecar.web]\ncommand = [\"x\"]\n[[route]]\nto = \"wbe\"\n",
            "gateway.toml:4:1: there is no sidecar `wbe` (did you mean `web`?)",
        ),
        (
            "[sidecar.a]\ncommand = [\"x\"]\nport = 5000\noverlap = true\n",
            "gateway.toml:4:1: sidecar `a` has a fixed port",
        ),
        (
            "[[route]]\nto = \"ftp://x\"\n",
            "gateway.toml:2:1: `ftp://x`: only http://",
        ),
        ("[gateway]\nvia = \"yes\"\n", "gateway.toml:2:7"),
    ] {
        let (code, output) = refused(&Setup::new().config(text));
        assert_eq!(code, CONFIG_INVALID, "{text}: {output}");
        assert!(
            output.contains(expected),
            "{text}: no `{expected}` in: {output}"
        );
        assert!(
            output.lines().filter(|line| !line.is_empty()).count() <= 4,
            "a short error is read: {output}"
        );
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    for (what, path) in [
        ("missing", "/nonexistent/there.toml"),
        ("a directory", "/tmp"),
        ("not text", "/proc/self/auxv"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        let output = command
            .args(["run", "--config", path, "--state-dir"])
            .arg(state.path())
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(CONFIG_INVALID),
            "{what}: {}",
            said(&output)
        );
        assert!(said(&output).contains(path), "{what}: {}", said(&output));
    }
}

#[test]
fn check_says_whether_a_file_is_valid_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("g.toml");
    for (text, code, expected) in [
        ("[gateway]\nlisten = [\"127.0.0.1:18999\"]\n", 0, "is valid"),
        (
            "[gateway]\nlisten = [\"nowhere\"]\n",
            CONFIG_INVALID,
            "g.toml:2:",
        ),
        (
            "[limits]\nconections = 5\n",
            CONFIG_INVALID,
            "did you mean `connections`?",
        ),
    ] {
        fs::write(&file, text).unwrap();
        for mut command in [Command::new(env!("CARGO_BIN_EXE_gateway")), {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
            command.arg("config");
            command
        }] {
            let output = command
                .arg("check")
                .arg("--config")
                .arg(&file)
                .output()
                .unwrap();
            assert_eq!(
                output.status.code(),
                Some(code),
                "{command:?} {text}: {}",
                said(&output)
            );
            assert!(
                said(&output).contains(expected),
                "{command:?} {text}: {}",
                said(&output)
            );
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_flag_that_is_not_there_is_a_usage_error() {
    for program in [
        env!("CARGO_BIN_EXE_gateway"),
        env!("CARGO_BIN_EXE_gatewayctl"),
    ] {
        let output = Command::new(program).arg("--lisetn").output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{program}: {}",
            said(&output)
        );
    }
    let (code, output) = refused(&Setup::new().flag("--exclusive"));
    assert_eq!(code, CONFIG_INVALID, "{output}");
    assert!(
        output.contains("--exclusive") && output.contains("-- COMMAND"),
        "{output}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let port = port::private();
    let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (code, output) = refused(&shell("exec sleep 1000").port(port));
    assert_eq!(code, FAILED, "{output}");
    assert!(output.contains(&format!("127.0.0.1:{port}")), "{output}");
    assert!(
        output.contains("is held by ")
            && output.contains(&format!("(pid {}, uid ", std::process::id()))
            && output.contains("; or choose another address with --listen"),
        "{output}"
    );
}

#[test]
fn a_unix_listener_that_another_program_serves_is_not_stolen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let _holder = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (code, output) = refused(
        &Setup::new()
            .flag("--listen")
            .flag(format!("unix:{}", path.display())),
    );
    assert_eq!(code, FAILED, "{output}");
    assert!(output.contains("app.sock"), "{output}");
    assert!(
        std::os::unix::net::UnixStream::connect(&path).is_ok(),
        "the other program is still reachable"
    );
}

#[test]
fn a_unix_socket_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _gateway = Setup::new()
        .flag("--listen")
        .flag(format!("unix:{}", path.display()))
        .start();
    let answer = block_on(client::get(&client::Target::Unix(path), "/healthz")).unwrap();
    assert_eq!(answer.status(), 200);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    for command in ["/nonexistent/server", "no-such-program-anywhere"] {
        let (code, output) = refused(&Setup::behind([command, "--port", "{port}"]));
        assert_eq!(code, FAILED, "{output}");
        assert!(output.contains(command), "{output}");
        assert!(
            output.contains("not found") || output.contains("No such file"),
            "{output}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not-executable");
    fs::write(&file, "hello").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, output) = refused(&Setup::behind([file]));
    assert_eq!(code, FAILED, "{output}");
    assert!(
        output.contains("not-executable") && output.to_lowercase().contains("permission denied"),
        "{output}"
    );
}

#[test]
fn a_sidecar_that_ends_at_once_is_quoted() {
    let (code, output) = refused(&shell("echo 'no license file' >&2; exit 7"));
    assert_eq!(code, FAILED, "{output}");
    assert!(output.contains("no license file"), "{output}");
    let error = output
        .lines()
        .find(|line| line.contains("error:"))
        .unwrap_or_default();
    assert!(
        error.contains("code 7") && error.contains("main"),
        "the error names the sidecar and its exit code: {output}"
    );
}

#[test]
fn a_sidecar_that_is_killed_at_once_is_told_apart_from_one_that_ends() {
    let (code, output) = refused(&shell("kill -SEGV $$"));
    assert_eq!(code, FAILED, "{output}");
    assert!(
        output.contains("SIGSEGV") || output.contains("signal 11"),
        "{output}"
    );
}

#[test]
fn a_sidecar_that_never_listens_is_given_up_in_time() {
    let setup =
        Setup::new().config("[sidecar.main]\ncommand = [\"sh\", \"-c\", \"echo thinking; exec sleep 1000\"]\nstart_timeout = \"1s\"\n");
    let began = Instant::now();
    let (code, output) = refused(&setup);
    assert_eq!(code, FAILED, "{output}");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(output.contains("thinking"), "its last words: {output}");
    assert!(output.contains("listen"), "{output}");
}

#[test]
fn a_sidecar_that_listens_elsewhere_is_found_out() {
    if !servers::have("node") {
        return;
    }
    let elsewhere = port::private();
    let command = servers::node();
    let setup = Setup::new().config(format!(
        "[sidecar.main]\ncommand = {command:?}\nstart_timeout = \"6s\"\n"
    ));
    let (code, output) = refused(&setup.env("EXTRA_LISTEN", elsewhere.to_string()));
    assert_eq!(code, FAILED, "{output}");
    assert!(
        output.contains(&format!(
            "is listening on {elsewhere} instead of the assigned port "
        )),
        "{output}"
    );
    assert!(
        output.contains("{port}") && output.contains(&format!("--app-port {elsewhere}")),
        "the way out is named: {output}"
    );
}

#[test]
fn a_program_of_somebody_else_on_the_fixed_port_is_not_taken_for_the_sidecar() {
    let port = port::private();
    let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let config = format!(
        "[sidecar.main]\ncommand = [\"sleep\", \"1000\"]\nport = {port}\nstart_timeout = \"1s\"\n"
    );
    let (code, output) = refused(&Setup::new().config(config));
    assert_eq!(code, FAILED, "{output}");
    assert!(output.contains(&port.to_string()), "{output}");
}

#[test]
fn eight_megabytes_without_a_newline_do_no_harm() {
    if !servers::have("node") {
        return;
    }
    let script = "head -c 8388608 /dev/zero | tr '\\0' x >&2; printf '\\033[31mred\\007\\n' >&2; exec \"$@\"";
    let mut command = vec!["sh".to_owned(), "-c".into(), script.into(), "sh".into()];
    command.extend(servers::node());
    let gateway = Setup::behind(command).start();
    assert_eq!(get(&gateway, "/").status(), 200);
    let stderr = gateway.stderr();
    let longest = stderr.lines().map(str::len).max().unwrap();
    assert!(longest < 128 * 1024, "a line of {longest} bytes in the log");
    assert!(
        stderr.contains("red") && !stderr.contains('\u{1b}') && !stderr.contains('\u{7}'),
        "control characters reached the log"
    );
    let (_, peak) = memory_kib(gateway.pid());
    assert!(peak < 48 * 1024, "the gateway grew to {peak} KiB");
}

#[test]
fn a_sidecar_that_closes_its_output_serves_on() {
    if !servers::have("node") {
        return;
    }
    let mut command = vec![
        "sh".to_owned(),
        "-c".into(),
        "exec \"$@\" >&- 2>&-".into(),
        "sh".into(),
    ];
    command.extend(servers::node());
    let gateway = Setup::behind(command).start();
    assert_eq!(get(&gateway, "/").status(), 200);
    gateway.restart();
    assert_eq!(get(&gateway, "/").status(), 200);
}

#[test]
fn a_head_that_is_too_large_is_refused_and_others_are_served() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nheader_size = 16384\n")
        .start();
    for text in [
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Big: {}\r\n\r\n",
            "x".repeat(100_000)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(100_000)),
        format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
            "X-Many: x\r\n".repeat(10_000)
        ),
    ] {
        let end = block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let _ = conn.send(&text).await;
            within(DEADLINE, conn.response(false)).await
        });
        match end {
            Ok(answer) => assert!(
                matches!(answer.status(), 400 | 414 | 431),
                "{:?}",
                answer.head
            ),
            // It may hang up while we still write.
            Err(fault) => assert!(matches!(fault, Fault::Reset | Fault::Eof), "{fault}"),
        }
        assert_eq!(get(&gateway, "/").status(), 200);
    }
    assert!(
        recorder.seen().iter().all(|got| got.target() == "/"),
        "only the small ones arrived"
    );
    let answer = block_on(client::request(
        &gateway.target(),
        &format!(
            "GET / HTTP/1.1\r\nHost: h\r\nX-Fits: {}\r\nConnection: close\r\n\r\n",
            "x".repeat(12_000)
        ),
    ));
    assert_eq!(answer.unwrap().status(), 200, "what fits is served");
}

#[test]
fn a_client_that_is_slow_with_its_head_is_shown_the_door_and_others_are_served() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nheader_time = \"1s\"\n")
        .start();
    block_on(async {
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            conn.send("GET / HTTP/1.1\r\nHost: h\r\nX-Drip: ")
                .await
                .unwrap();
            slow.push(conn);
        }
        let began = Instant::now();
        assert_eq!(
            client::get(&gateway.target(), "/").await.unwrap().status(),
            200,
            "others are served meanwhile"
        );
        for conn in &mut slow {
            // One letter now and then does not buy more time.
            let _ = conn.send("x").await;
            let (said, end) = tokio::time::timeout(DEADLINE, conn.drain())
                .await
                .expect("a slow client is not kept for ever");
            assert!(matches!(end, Fault::Eof | Fault::Reset), "{end}");
            assert!(
                said.is_empty() || said.starts_with(b"HTTP/1.1 408"),
                "{said:?}"
            );
        }
        assert!(
            began.elapsed() < Duration::from_secs(6),
            "it took {:?}",
            began.elapsed()
        );
    });
    gateway.wait_status("all are gone", |status| status["connections"] == 0);
}

#[test]
fn a_kept_connection_may_be_silent_longer_than_a_head_may_take() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nheader_time = \"500ms\"\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..2 {
            let answer = within(DEADLINE, conn.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
            let end = tokio::time::timeout(Duration::from_millis(1200), conn.ended()).await;
            assert!(end.is_err(), "an idle connection was closed: {end:?}");
        }
    });
}

#[test]
fn a_connection_that_is_silent_beyond_its_limit_is_closed() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nidle = \"500ms\"\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(
            within(DEADLINE, conn.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
                .await
                .unwrap()
                .status(),
            200
        );
        let end = tokio::time::timeout(Duration::from_secs(5), conn.ended()).await;
        assert_eq!(end, Ok(Fault::Eof));
    });
}

#[test]
fn a_client_that_ends_its_side_after_the_request_gets_its_answer() {
    let recorder =
        Recorder::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n".to_vec());
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nhalf_close = true\n")
        .start();
    block_on(async {
        for _ in 0..50 {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            conn.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
                .await
                .unwrap();
            conn.finish().await.unwrap();
            let answer = within(DEADLINE, conn.response(false)).await.unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "ok\n"));
            assert_eq!(
                tokio::time::timeout(DEADLINE, conn.ended()).await,
                Ok(Fault::Eof),
                "then the connection ends"
            );
        }
    });
}

#[test]
fn bytes_that_are_not_http_are_refused_and_others_are_served() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let _ = conn.send(bytes).await;
            let _ = conn.finish().await;
            let (answer, _) = tokio::time::timeout(DEADLINE, conn.drain())
                .await
                .unwrap_or_else(|_| panic!("{bytes:?} hold a connection for ever"));
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"),
                "{bytes:?}: {text}"
            );
        });
        assert_eq!(get(&gateway, "/").status(), 200);
    }
    assert!(
        recorder
            .seen()
            .iter()
            .all(|got| got.head.first == "GET / HTTP/1.1"),
        "{:?}",
        recorder.seen()
    );
}

/// A file system of 256 KiB, gone with the value.
struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    fn mount(dir: &Path) -> Option<Self> {
        let dir = dir.join("small");
        fs::create_dir(&dir).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"])
            .arg(&dir)
            .output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        crate::support::skip::because("a full disk needs root, to mount a small tmpfs");
        None
    }

    fn fill(&self) {
        let error = fs::write(self.dir.join("filler"), vec![0; 1024 * 1024]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
    }
}

#[test]
fn a_full_disk_under_the_state_directory_is_reported_and_stops_nothing() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        return;
    };
    let state = disk.dir.join("state");
    fs::create_dir(&state).unwrap();
    disk.fill();
    let gateway = Setup::behind(servers::node()).state_dir(&state).start();
    assert_eq!(get(&gateway, "/").status(), 200);
    let text = gateway.stderr();
    let told = text
        .lines()
        .find(|line| line.to_lowercase().contains("no space left"));
    assert!(
        told.is_some_and(|line| line.contains(&state.display().to_string())),
        "the full disk is not named: {text}"
    );
    gateway.restart();
    assert_eq!(get(&gateway, "/").status(), 200);
    assert!(gateway.stop().success());
}

#[test]
fn a_disk_that_fills_up_later_stops_nothing_either() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        return;
    };
    let gateway = Setup::behind(servers::node())
        .state_dir(disk.dir.join("state"))
        .start();
    disk.fill();
    gateway.restart();
    assert_eq!(get(&gateway, "/").status(), 200);
    assert!(gateway.stop().success());
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    let (code, output) = refused(&Setup::new().state_dir(file.join("state")));
    assert_eq!(code, FAILED, "{output}");
    assert!(output.contains("a-file/state"), "{output}");
}

#[test]
fn broken_state_files_never_stop_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(state.join("owner.json"), "{ not json").unwrap();
    fs::write(state.join("gateway.lock"), "full of rubbish").unwrap();
    let gateway = Setup::new().state_dir(&state).start();
    assert_eq!(get(&gateway, "/healthz").status(), 200);
    let owner: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("owner.json")).unwrap()).unwrap();
    assert_eq!(owner["pid"], gateway.pid());
}

#[test]
fn a_second_gateway_of_the_same_state_directory_says_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new().state_dir(dir.path()).port(port::private());
    let gateway = setup.start();
    let (code, output) = refused(&setup);
    assert_eq!(code, 0, "the same again is not an error: {output}");
    assert!(output.contains(&gateway.pid().to_string()), "{output}");
    let (code, output) = refused(
        &Setup::new()
            .state_dir(dir.path())
            .config("[sidecar.other]\ncommand = [\"sleep\", \"1\"]\n"),
    );
    assert_eq!(code, 5, "another command is refused: {output}");
    assert!(
        output.contains(&gateway.pid().to_string()) && output.contains("--instance"),
        "{output}"
    );
    assert_eq!(
        get(&gateway, "/healthz").status(),
        200,
        "the first one serves on"
    );
}

#[test]
fn gatewayctl_without_a_gateway_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for (verb, code) in [("status", 3), ("restart", 3), ("reload", 3), ("stop", 0)] {
        let output = ctl_in(dir.path()).arg(verb).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{verb}: {}",
            said(&output)
        );
        assert!(
            verb == "stop" || !output.stderr.is_empty() || !output.stdout.is_empty(),
            "{verb} says nothing"
        );
    }
}

#[test]
fn secrets_in_commands_and_variables_are_never_shown() {
    if !servers::have("node") {
        return;
    }
    const ARGV: &str = "canaryargvkd83jf";
    const EQUALS: &str = "canaryequalsmv72";
    const URL: &str = "canaryurlq0s9dk";
    const BEARER: &str = "canarybearer55tz";
    const ENV: &str = "canaryenvp4m1xx";
    const NAMED: &str = "canarynamed77aa";
    let canaries = [ARGV, EQUALS, URL, BEARER, ENV, NAMED];
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("good");
    fs::write(&ready, "").unwrap();
    // It betrays all that it knows, and then serves or fails.
    let script = format!(
        "echo \"argv: $*\"; echo \"env: $API_KEY $PIN\" >&2; [ -e {0} ] || exit 6; exec {1} {2} \"$1\"",
        ready.display(),
        servers::node()[0],
        servers::NODE_APP
    );
    let command = [
        "sh",
        "-c",
        &script,
        "sh",
        "{port}",
        "--token",
        ARGV,
        &format!("--password={EQUALS}"),
        "--db",
        &format!("postgres://me:{URL}@db.example/x"),
        "-H",
        &format!("Authorization: Bearer {BEARER}"),
        "--pin",
        NAMED,
    ];
    let config = format!(
        "[gateway]\nredact = [\"pin\"]\n[sidecar.main]\ncommand = {command:?}\nstart_timeout = \"5s\"\nenv = {{ API_KEY = \"{ENV}\", PIN = \"{NAMED}\" }}\n"
    );
    let gateway = Setup::new().config(&config).start();
    let mut outputs = Vec::new();
    let mut ask = |gateway: &Gateway, args: &[&str]| {
        outputs.push((args.join(" "), said(&gateway.ctl(args.iter().copied()))))
    };
    ask(&gateway, &["status"]);
    ask(&gateway, &["status", "--json"]);
    ask(&gateway, &["list"]);
    ask(&gateway, &["restart"]);
    ask(&gateway, &["restart", "--json"]);
    let path = gateway.config_file().display().to_string();
    ask(&gateway, &["config", "show", "--config", &path]);
    fs::remove_file(&ready).unwrap();
    ask(&gateway, &["restart"]);
    ask(&gateway, &["restart", "--json"]);
    ask(&gateway, &["status"]);
    fs::write(&ready, "").unwrap();
    ask(&gateway, &["reload"]);
    for path in [
        "/healthz",
        "/readyz",
        "/_gateway/metrics",
        "/_gateway/",
        "/nowhere",
    ] {
        let answer = get(&gateway, path);
        outputs.push((
            path.to_owned(),
            format!("{:?} {}", answer.head, answer.text()),
        ));
    }
    fs::remove_file(&ready).unwrap();
    let (code, failed) = refused(&Setup::new().config(&config));
    assert_eq!(code, FAILED);
    assert!(
        failed.contains("argv:"),
        "the last words are there: {failed}"
    );
    outputs.push(("a first start that fails".into(), failed));
    let log = gateway.stderr();
    assert!(
        log.contains("argv:") && log.contains("env:"),
        "the sidecar's lines are in the log: {log}"
    );
    outputs.push(("the log".into(), log));
    outputs.push(("stdout".into(), gateway.stdout()));
    // The last good configuration is a copy of the user's file, for the user's eyes only.
    let shown = |file: &fs::DirEntry| file.path().is_file() && file.file_name() != "good.toml";
    for file in fs::read_dir(gateway.state_dir())
        .unwrap()
        .flatten()
        .filter(shown)
    {
        outputs.push((
            file.path().display().to_string(),
            String::from_utf8_lossy(&fs::read(file.path()).unwrap()).into_owned(),
        ));
    }
    for (what, text) in &outputs {
        for canary in canaries {
            assert!(!text.contains(canary), "{what} shows {canary}:\n{text}");
        }
    }
    let status = &outputs[0].1;
    assert!(
        status.contains("***"),
        "the command is shown, its secrets hidden: {status}"
    );
}

#[test]
fn with_nothing_behind_it_the_gateway_answers_for_itself() {
    let gateway = Setup::new().start();
    for path in ["/", "/healthz", "/readyz"] {
        let answer = get(&gateway, path);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{path}");
    }
}
