//! `gatewayctl bench`: what it measures of a gateway, and of programs that restart in a known way.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::gateway::{family_of, said, scrub};
use crate::support::{port, schema, servers, wait};

/// `gatewayctl bench ARGUMENTS` with a directory for its files.
fn bench(program: &Path, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    scrub(&mut command);
    command
        .arg("bench")
        .args(arguments)
        .env("TMPDIR", dir)
        .stdin(Stdio::null());
    command
}

fn own() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gatewayctl"))
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// A gatewayctl whose neighbour is a program that restarts in this way.
fn beside_fake(way: &str) -> TempDir {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::hard_link(own(), dir.path().join("gatewayctl")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/fake_gateway.py");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo fake 1\nexec python3 {script} {way} \"$@\"\n"
    );
    let gateway = dir.path().join("gateway");
    fs::write(&gateway, text).unwrap();
    fs::set_permissions(&gateway, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// What the ruler says of a way to restart: its answer, and its exit code.
fn measured(way: &str, arguments: &[&str]) -> (Value, Option<i32>, String) {
    let (beside, dir) = (beside_fake(way), tempfile::tempdir().unwrap());
    let program = beside.path().join("gatewayctl");
    let output = bench(&program, dir.path(), &["restart", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(is_empty(dir.path()), "{way}: its home is gone");
    let answer = schema::object(&output, "bench-restart");
    (answer, output.status.code(), said(&output))
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn restarts_of_a_gateway_are_measured_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("result.json");
    let arguments = [
        "restart",
        "--json",
        "--restarts",
        "2",
        "--warmup",
        "1",
        "--case",
    ];
    let output = bench(own(), dir.path(), &arguments)
        .args(["plain", "--case", "one-sidecar", "--output"])
        .arg(&file)
        .output()
        .unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(is_empty(dir.path()), "its home is gone");
    let answer = schema::object(&output, "bench-restart");
    let kept: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(kept, answer);
    assert!(
        answer["entry"].as_str().unwrap().ends_with("/gateway"),
        "{text}"
    );
    for (case, id) in ["plain", "one-sidecar"].into_iter().enumerate() {
        let result = &answer["results"][case];
        assert_eq!(result["id"], id);
        assert_eq!(
            result["samples"].as_array().unwrap().len(),
            1,
            "no warm-up: {text}"
        );
        let summary = &result["summary"];
        assert_eq!(summary["failureRate"], 0.0, "{text}");
        assert_eq!(summary["firstFailureCode"], Value::Null);
        for of in [
            "healthzRecoveryMs",
            "readyzRecoveryMs",
            "restartReadyTotalMs",
        ] {
            assert!(number(&summary[of]["max"]) > 0.0, "{of}: {text}");
        }
        let sample = &result["samples"][0];
        assert!(number(&sample["initialStartupTrace"]["startup.ready.total"]) > 0.0);
        let iterations = sample["iterations"].as_array().unwrap();
        assert_eq!(iterations.len(), 2);
        for iteration in iterations {
            restarted(iteration);
        }
    }
    assert!(
        text.contains("one-sidecar run 1/1: restart 2/2 ready after "),
        "{text}"
    );
}

/// Looks at one restart that did not fail.
fn restarted(iteration: &Value) {
    let ready = number(&iteration["gatewayReadyLogMs"]);
    let line = iteration["gatewayReadyLogLine"].as_str().unwrap();
    assert!(line.contains("[gateway] ready (generation "), "{line}");
    for probe in ["healthz", "readyz"] {
        let probe = &iteration[probe];
        assert!(number(&probe["ms"]) > 0.0, "{probe}");
        if probe["downtimeMs"].is_null() {
            assert!(
                number(&probe["ms"]) >= ready,
                "it ends after the ready line: {probe}"
            );
        }
        assert_eq!(probe["status"], 200);
    }
    assert!(number(&iteration["restartTrace"]["restart.ready.total"]) > 0.0);
    let phases = iteration["resourceSnapshots"].as_array().unwrap();
    let names: Vec<&str> = phases
        .iter()
        .map(|it| it["phase"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["before", "ready", "settled"]);
    for snapshot in phases {
        assert!(number(&snapshot["rssMb"]) > 1.0 && number(&snapshot["fdCount"]) > 3.0);
        assert!(number(&snapshot["threadCount"]) >= 1.0);
    }
}

#[test]
fn each_failure_has_its_code() {
    if !servers::have("python3") {
        return;
    }
    let cases = [
        ("never-listens", "initial_healthz_timeout"),
        ("starts-unready", "initial_readyz_timeout"),
        ("starts-silently", "initial_ready_log_timeout"),
        ("stateless", "restart_signal_failed"),
        ("ignores", "restart_deadline_timeout"),
        ("dies", "restart_child_exited"),
        ("stays-away", "next_healthz_timeout"),
        ("stays-unready", "next_readyz_timeout"),
        ("never-says-ready", "ready_log_timeout"),
        ("untraced", "trace_missing"),
        ("ends-with-7", "child_nonzero_exit"),
        ("leaves-a-child", "cleanup_failed"),
    ];
    // They wait, most of the time.
    std::thread::scope(|scope| {
        for (way, code) in cases {
            scope.spawn(move || {
                let limits = [
                    "--restarts",
                    "2",
                    "--timeout-ms",
                    "6000",
                    "--post-ready-delay-ms",
                    "0",
                ];
                let (answer, exit, text) = measured(way, &limits);
                let result = &answer["results"][0];
                assert_eq!(result["summary"]["firstFailureCode"], code, "{way}: {text}");
                assert_eq!(result["samples"][0]["failureCode"], code, "{way}: {text}");
                assert!(number(&result["summary"]["failureRate"]) > 0.0);
                assert_eq!(
                    (exit, &answer["ok"]),
                    (Some(1), &Value::Bool(false)),
                    "{way}"
                );
            });
        }
    });
}

#[test]
fn a_failure_shows_the_last_lines_and_the_slowest_steps() {
    if !servers::have("python3") {
        return;
    }
    let (beside, dir) = (beside_fake("dies"), tempfile::tempdir().unwrap());
    let run = |more: &[&str]| {
        let program = beside.path().join("gatewayctl");
        let mut command = bench(&program, dir.path(), &["restart"]);
        command.args(more).output().unwrap()
    };
    let output = run(&[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "failed: restart_child_exited after restart 1",
        "  | [gateway] restart r1 asked: SIGUSR1",
        " ms  restart.signal.received",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = run(&["--allow-failures"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_server_that_is_away_for_300_ms_is_down_for_300_ms() {
    if !servers::have("python3") {
        return;
    }
    let (answer, exit, text) = measured("sleeps-300", &["--restarts", "3"]);
    assert_eq!(exit, Some(0), "downtime is no failure: {text}");
    let sample = &answer["results"][0]["samples"][0];
    let away = known(sample);
    assert_eq!(away.len(), 3, "{text}");
    for (iteration, away) in sample["iterations"].as_array().unwrap().iter().zip(away) {
        assert_eq!(iteration["restartTrace"]["restart.drain"], 12.5);
        for probe in ["healthz", "readyz"] {
            let down = number(&iteration[probe]["downtimeMs"]);
            // A probe each 25 ms, and what a busy machine adds to each end.
            assert!((down - away).abs() < 75.0, "{down} of {away}: {text}");
            assert!(!iteration[probe]["firstErrorKind"].is_null());
        }
        assert!(number(&iteration["httpListenLogMs"]) >= 300.0);
    }
    let tail = sample["outputTail"].to_string();
    assert!(
        tail.contains("intent gateway-restart own=True reason=benchmark"),
        "{tail}"
    );
}

/// A server that restarts in a known way, measured as any server.
fn ruler(way: &str, more: &[&str]) -> (Value, Output) {
    let dir = tempfile::tempdir().unwrap();
    let port = port::private();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/ruler_server.py");
    let target = format!("python3 {script} {way} $BENCH_PORT");
    let output = bench(own(), dir.path(), &["restart", "--json", "--target"])
        .args([&target, "--ready", "/", "--restarts", "2", "--port"])
        .arg(port.to_string())
        .args(more)
        .output()
        .unwrap();
    let answer = schema::object(&output, "bench-restart");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(answer["results"][0]["id"], "target");
    (answer["results"][0]["samples"][0].clone(), output)
}

/// What the server said at its end that it did.
fn counted(sample: &Value, name: &str) -> f64 {
    let lines = sample["outputTail"].as_array().unwrap().iter();
    let told = lines.filter_map(|line| line.as_str()?.strip_prefix("counts "));
    let words = told.flat_map(str::split_whitespace);
    let mut found = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.next_back().unwrap().parse().unwrap()
}

#[test]
fn any_server_is_down_as_long_as_it_is_away() {
    if !servers::have("python3") {
        return;
    }
    let (sample, output) = ruler("sleeps-300", &["--trigger", "signal:USR1"]);
    let text = said(&output);
    let told = sample["outputTail"].as_array().unwrap().iter();
    let told: Vec<f64> = told
        .filter_map(|line| {
            line.as_str()?
                .strip_prefix("restarted in ")?
                .strip_suffix(" ms")
        })
        .map(|ms| ms.parse().unwrap())
        .collect();
    assert_eq!(told.len(), 2, "{text}");
    for (iteration, away) in sample["iterations"].as_array().unwrap().iter().zip(&told) {
        let down = number(&iteration["readyz"]["downtimeMs"]);
        assert!((down - away).abs() < 75.0, "{down} of {away}: {text}");
    }
    let new = &sample["load"]["new"];
    let most = told.iter().copied().fold(0.0, f64::max);
    let gap = number(&new["longestGapMs"]);
    assert!((gap - most).abs() < 75.0, "{gap} of {most}: {text}");
    // 200 a second, and nobody listens for 300 ms, twice.
    let refused = number(&new["refused"]) + number(&new["reset"]) + number(&new["cut"]);
    assert!((80.0..=160.0).contains(&refused), "{refused}: {text}");
    assert_eq!(number(&new["failed"]), refused, "{text}");
}

#[test]
fn each_dropped_cut_and_refused_request_is_counted_as_such() {
    if !servers::have("python3") {
        return;
    }
    let trigger = "kill -USR1 $BENCH_PID";
    let (sample, output) = ruler("drops", &["--trigger", trigger, "--rate", "300"]);
    let text = said(&output);
    let kept = &sample["load"]["kept"];
    let asked = counted(&sample, "asked");
    assert!(
        asked >= 600.0 && number(&kept["sent"]) == asked,
        "{asked}: {text}"
    );
    for (field, name) in [
        ("cut", "dropped"),
        ("truncated", "cut"),
        ("non200", "refusing"),
    ] {
        let count = counted(&sample, name);
        assert!(count >= (asked / 100.0).floor(), "{name}: {text}");
        assert_eq!(number(&kept[field]), count, "{field}: {text}");
    }
    assert_eq!(sample["load"]["new"]["failed"], 0, "{text}");
}

#[test]
fn a_stall_of_50_ms_is_seen_and_nothing_fails() {
    if !servers::have("python3") {
        return;
    }
    let (sample, output) = ruler(
        "stalls-50",
        &["--trigger", "signal:SIGUSR1", "--rate", "400"],
    );
    let text = said(&output);
    for part in ["new", "kept"] {
        let part = &sample["load"][part];
        assert_eq!(part["failed"], 0, "{text}");
        let (most, gap) = (number(&part["maxMs"]), number(&part["longestGapMs"]));
        assert!(most >= 45.0 && gap >= 40.0, "{most} {gap}: {text}");
        // Twice 50 ms of some 4 s, so one of 40 requests: a load that waits would not see them there.
        assert!(number(&part["p999Ms"]) >= 40.0, "{text}");
    }
}

#[test]
fn a_target_is_named_in_full_and_its_port_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = |arguments: &[&str]| {
        let output = bench(own(), dir.path(), &["restart"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), said(&output))
    };
    let (code, text) = run(&["--target", "true"]);
    assert!(code == Some(2) && text.contains("--trigger"), "{text}");
    let all = [
        "--target",
        "true",
        "--trigger",
        "signal:HUP",
        "--ready",
        "/",
        "--port",
        &port,
    ];
    let (code, text) = run(&all);
    assert!(
        code == Some(5) && text.contains("another program listens"),
        "{text}"
    );
    let (code, text) = run(&[
        "--target",
        "true",
        "--trigger",
        "signal:NO",
        "--ready",
        "/",
        "--port",
        "1",
    ]);
    assert!(code == Some(2) && text.contains("is no signal"), "{text}");
    drop(taken);
}

#[test]
fn a_trigger_that_fails_says_how() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/ruler_server.py");
    let target = format!("python3 {script} calm $BENCH_PORT");
    let port = port::private().to_string();
    let all = [
        "restart", "--rate", "0", "--ready", "/", "--port", &port, "--target", &target,
    ];
    let output = bench(own(), dir.path(), &all)
        .args(["--trigger", "echo no such service; exit 4"])
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("restart_signal_failed: ") && text.contains("no such service"),
        "{text}"
    );
}

/// How long the server was away, by its own clock, for each time.
fn known(sample: &Value) -> Vec<f64> {
    let lines = sample["outputTail"].as_array().unwrap().iter();
    let told = lines.filter_map(|line| {
        line.as_str()?
            .strip_prefix("away for ")?
            .strip_suffix(" ms")
    });
    told.map(|ms| ms.parse().unwrap()).collect()
}

#[test]
fn an_outage_after_the_first_good_answer_is_seen() {
    if !servers::have("python3") {
        return;
    }
    let (answer, _, text) = measured("twice", &["--restarts", "1"]);
    let sample = &answer["results"][0]["samples"][0];
    let away = known(sample);
    assert_eq!(away.len(), 2, "{text}");
    let readyz = &sample["iterations"][0]["readyz"];
    let down = number(&readyz["downtimeMs"]);
    assert!(
        (down - away[0] - away[1]).abs() < 150.0,
        "{down} of {away:?}: {text}"
    );
    assert!(
        number(&readyz["ms"]) > number(&readyz["firstRecoveryMs"]),
        "{readyz}"
    );
}

#[test]
fn options_are_strict() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], said_of: &str| {
        let output: Output = bench(own(), dir.path(), arguments).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said_of), "{arguments:?}: {text}");
    };
    refused(&["restart", "--case", "other"], "one-sidecar");
    refused(
        &["restart", "--case", "plain", "--case", "plain"],
        "--case plain is given twice",
    );
    refused(&["restart", "--case"], "--case");
    refused(&["restart", "--runs", "0"], "--runs");
    refused(&["restart", "--restarts", "1.5"], "--restarts");
    refused(&["restart", "--timeout-ms=-1"], "--timeout-ms");
    refused(&["restart", "--speed", "9"], "--speed");
    refused(&["restart", "plain"], "plain");
}

#[test]
fn interrupted_it_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["restart", "--restarts", "100000", "--case", "one-sidecar"];
    let mut child = bench(own(), dir.path(), &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.contains(": restart 1/"));
    assert!(first.is_some());
    let home = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
    let config = home.path().join("gateway.toml");
    assert!(!family_of(&config).is_empty());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{rest:?}");
    wait::until("no process of it is left", || {
        family_of(&config).is_empty().then_some(())
    });
    assert!(is_empty(dir.path()), "its home is gone: {rest:?}");
}
