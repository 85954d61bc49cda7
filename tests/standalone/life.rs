//! Stop, reload, signals and budgets, as an operator and the clients see them.

use std::fs;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, Fault, Response, block_on, within};
use crate::support::gateway::{Gateway, READY, Setup, descendants, said};
use crate::support::servers;
use crate::support::wait::{self, DEADLINE};
use crate::support::ws::{Frame, WebSocket};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A stop without work ends well within this.
const SOON: Duration = Duration::from_secs(10);

fn node() -> Option<Setup> {
    servers::have("node").then(|| Setup::behind(servers::node()))
}

fn get_aside(gateway: &Gateway, path: &'static str) -> JoinHandle<Result<Response, Fault>> {
    let target = gateway.target();
    std::thread::spawn(move || block_on(client::get(&target, path)))
}

fn get(gateway: &Gateway, path: &str) -> Response {
    block_on(client::get(&gateway.target(), path)).unwrap()
}

fn under_way(gateway: &Gateway, requests: u64) {
    gateway.wait_status("the requests are under way", |status| {
        status["requests"] == requests
    });
}

fn gone(pid: u32) {
    wait::until(&format!("process {pid} is gone"), || {
        (!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(())
    });
}

#[test]
fn a_stop_finishes_what_was_begun_and_leaves_nothing_behind() {
    let Some(setup) = node() else { return };
    for how in ["SIGTERM", "SIGINT", "gatewayctl stop"] {
        let mut gateway = setup.start();
        let family = descendants(gateway.pid());
        assert!(!family.is_empty());
        let slow = get_aside(&gateway, "/slow?ms=1000");
        under_way(&gateway, 1);
        match how {
            "SIGTERM" => gateway.signal(Signal::SIGTERM),
            "SIGINT" => gateway.signal(Signal::SIGINT),
            _ => {
                let output = gateway.ctl(["stop"]);
                assert!(output.status.success(), "{}", said(&output));
            }
        }
        let answer = slow
            .join()
            .unwrap()
            .unwrap_or_else(|fault| panic!("{how}: the request under way was lost: {fault}"));
        assert_eq!(answer.status(), 200, "{how}");
        assert_eq!(gateway.exit_code(SOON), 0, "{how}: {}", gateway.stderr());
        for (pid, _) in family {
            gone(pid);
        }
        assert_eq!(
            block_on(client::get(&gateway.target(), "/")).unwrap_err(),
            Fault::Refused,
            "{how}"
        );
        assert_eq!(gateway.ctl(["status"]).status.code(), Some(3), "{how}");
    }
}

#[test]
fn a_stop_cuts_what_does_not_end_within_its_budget() {
    let Some(setup) = node() else { return };
    let mut gateway = setup.env("GATEWAY_RESTART_STOP_DRAIN", "1s").start();
    let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
    under_way(&gateway, 1);
    let asked = block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        gateway.wait_status("the tunnel is open", |status| status["tunnels"] == 1);
        let asked = Instant::now();
        gateway.signal(Signal::SIGTERM);
        let close = within(DEADLINE, socket.next()).await;
        assert!(
            matches!(close, Ok(Frame::Close(1001 | 1012, _))),
            "{close:?}"
        );
        asked
    });
    assert_eq!(gateway.exit_code(SOON), 1, "{}", gateway.stderr());
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_millis(950) && took < Duration::from_secs(5),
        "it took {took:?}"
    );
    assert!(
        matches!(stream.join().unwrap(), Err(Fault::Truncated | Fault::Reset)),
        "the stream cannot look whole"
    );
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let Some(setup) = node() else { return };
    let mut gateway = setup.env("GATEWAY_RESTART_STOP_DRAIN", "20s").start();
    let family = descendants(gateway.pid());
    let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
    under_way(&gateway, 1);
    gateway.signal(Signal::SIGINT);
    gateway.wait_status("it is stopping", |status| status["stage"] == "stopping");
    let again = Instant::now();
    gateway.signal(Signal::SIGINT);
    gateway.exit_code(SOON);
    assert!(
        again.elapsed() < Duration::from_secs(5),
        "{:?}",
        again.elapsed()
    );
    assert!(stream.join().unwrap().is_err());
    for (pid, _) in family {
        gone(pid);
    }
}

#[test]
fn a_sidecar_that_ignores_the_request_to_end_is_killed() {
    if !servers::have("node") {
        return;
    }
    let mut words = vec![
        "sh".to_owned(),
        "-c".into(),
        "trap '' TERM; \"$@\" & wait; sleep 1000".into(),
        "sh".into(),
    ];
    words.extend(servers::node());
    let config = format!("[sidecar.main]\ncommand = {words:?}\nstop_timeout = \"500ms\"\n");
    let gateway = Setup::new().config(config).start();
    let family = descendants(gateway.pid());
    assert!(family.len() >= 2, "{family:?}");
    let output = gateway.ctl(["restart", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    for (pid, _) in &family {
        gone(*pid);
    }
    assert_eq!(get(&gateway, "/").status(), 200);
}

#[test]
fn sigusr1_restarts_and_can_be_forbidden() {
    let Some(setup) = node() else { return };
    let gateway = setup.clone().start();
    let before = gateway.sidecar_pid("main");
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_nth_line(READY, 1);
    assert_ne!(gateway.sidecar_pid("main"), before);
    let gateway = setup.config("[restart]\nexternal_signal = false\n").start();
    let before = gateway.sidecar_pid("main");
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_line("SIGUSR1");
    assert_eq!(gateway.sidecar_pid("main"), before);
    gateway.restart();
    assert_ne!(
        gateway.sidecar_pid("main"),
        before,
        "an operator's own restart is not forbidden"
    );
}

/// A configuration with two Node servers, the second with a variable.
fn two(extra: &str) -> String {
    let command = servers::node();
    format!(
        "[sidecar.one]\ncommand = {command:?}\n[sidecar.two]\ncommand = {command:?}\nenv = {{ X = \"{extra}\" }}\n\
         [[route]]\nto = \"one\"\n[[route]]\npath = \"/slow\"\nto = \"two\"\n"
    )
}

#[test]
fn a_reload_restarts_only_what_changed() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::new().config(two("a")).start();
    let (one, other) = (gateway.sidecar_pid("one"), gateway.sidecar_pid("two"));
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        (gateway.sidecar_pid("one"), gateway.sidecar_pid("two")),
        (one, other),
        "nothing changed, nothing is restarted"
    );
    fs::write(gateway.config_file(), two("b")).unwrap();
    let slow = get_aside(&gateway, "/slow?ms=1000");
    under_way(&gateway, 1);
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        gateway.sidecar_pid("one"),
        one,
        "what did not change is left alone"
    );
    assert_ne!(
        gateway.sidecar_pid("two"),
        other,
        "what changed is restarted"
    );
    let answer = slow.join().unwrap().unwrap();
    assert_eq!(
        (answer.status(), answer.text()),
        (200, format!("{other}\n")),
        "its old self finished what it had begun"
    );
    assert_eq!(
        get(&gateway, "/slow?ms=0").text(),
        format!("{}\n", gateway.sidecar_pid("two"))
    );
    gone(other);
    // The same by signal.
    let two_b = gateway.sidecar_pid("two");
    let ready = gateway.stderr().matches(READY).count();
    fs::write(gateway.config_file(), two("c")).unwrap();
    gateway.signal(Signal::SIGHUP);
    gateway.wait_nth_line(READY, ready);
    assert_eq!(gateway.sidecar_pid("one"), one);
    assert_ne!(gateway.sidecar_pid("two"), two_b);
}

#[test]
fn a_reload_of_a_bad_file_fails_and_changes_nothing() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::new().config(two("a")).start();
    let before = (gateway.sidecar_pid("one"), gateway.sidecar_pid("two"));
    for (text, code) in [
        ("[gateway]\nlisten = 5\n", 78),
        ("[sidecar.one]\ncommand = [\"/nonexistent/x\"]\n", 1),
    ] {
        fs::write(gateway.config_file(), text).unwrap();
        for verb in ["reload", "restart"] {
            let output = gateway.ctl([verb]);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{verb} {text}: {}",
                said(&output)
            );
            let expected = if code == 78 {
                "gateway.toml:2:"
            } else {
                "/nonexistent/x"
            };
            assert!(
                said(&output).contains(expected),
                "{verb} {text}: {}",
                said(&output)
            );
            assert_eq!(
                (gateway.sidecar_pid("one"), gateway.sidecar_pid("two")),
                before,
                "{verb} {text}"
            );
            assert_eq!(get(&gateway, "/").status(), 200);
        }
    }
}

#[test]
fn old_work_is_finished_by_the_old_sidecar_which_then_ends() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let old = gateway.sidecar_pid("main");
    let stream = get_aside(&gateway, "/stream?ms=10000&chunks=10");
    under_way(&gateway, 1);
    gateway.restart();
    let new = gateway.sidecar_pid("main");
    let status = gateway.status();
    assert_eq!(status["drainers"][0]["requests"], 1, "{status:#}");
    assert_eq!(
        get(&gateway, "/pid").text(),
        format!("{new}\n"),
        "new requests go to the new one at once"
    );
    let answer = stream.join().unwrap().unwrap();
    assert_eq!(answer.text().matches(&format!("from {old}")).count(), 10);
    gone(old);
    gateway.wait_status("nothing drains", |status| {
        status["drainers"].as_array().is_none_or(Vec::is_empty) && status["stage"] == "ready"
    });
}

#[test]
fn a_restart_that_waits_for_the_drain_returns_when_the_old_sidecar_is_gone() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let old = gateway.sidecar_pid("main");
    let slow = get_aside(&gateway, "/slow?ms=1500");
    under_way(&gateway, 1);
    let output = gateway.ctl(["restart", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        !PathBuf::from(format!("/proc/{old}")).exists(),
        "{}",
        said(&output)
    );
    assert_eq!(slow.join().unwrap().unwrap().status(), 200);
}

#[test]
fn a_budget_given_for_one_restart_ends_old_work_in_time() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    for (generation, args, least, most) in [
        (1, &["restart", "--wait", "1s"][..], 950, 4000),
        (2, &["restart", "--force"], 0, 2500),
    ] {
        let old = gateway.sidecar_pid("main");
        let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
        under_way(&gateway, 1);
        let asked = Instant::now();
        let output = gateway.ctl(args.iter().copied());
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        let end = stream.join().unwrap();
        assert!(
            matches!(end, Err(Fault::Truncated | Fault::Reset)),
            "{args:?}: {end:?}"
        );
        let took = asked.elapsed();
        gone(old);
        // How long the new one takes to start is not what this is about.
        let most_took = gateway.gone_after(generation);
        assert!(
            took >= Duration::from_millis(least) && most_took < Duration::from_millis(most),
            "{args:?}: it was cut after {took:?}, {most_took:?} of them beside the new one"
        );
    }
}

#[test]
fn a_websocket_lives_to_the_end_of_its_budget_and_is_told() {
    let Some(setup) = node() else { return };
    let gateway = setup
        .config("[restart]\ntunnel_drain = \"1500ms\"\n")
        .start();
    block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        socket.echo("hello").await.unwrap();
        let asked = Instant::now();
        gateway.restart();
        let mut echoes = 0;
        let close = loop {
            if socket.send("still here").await.is_err() {
                panic!("the connection ended without a close frame after {echoes} echoes");
            }
            match within(DEADLINE, socket.next()).await.unwrap() {
                Frame::Message(text) if text == "still here" => echoes += 1,
                other => break other,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(matches!(close, Frame::Close(1012, _)), "{close:?}");
        assert!(echoes > 10, "only {echoes} echoes within the budget");
        assert!(
            asked.elapsed() >= Duration::from_millis(1450),
            "{:?}",
            asked.elapsed()
        );
        let end = within(DEADLINE, async { Ok(socket.conn().ended().await) })
            .await
            .unwrap();
        assert!(
            matches!(end, Fault::Eof | Fault::Reset | Fault::Garbage(_)),
            "{end}"
        );
    });
}

#[test]
fn two_restarts_asked_at_once_are_both_answered() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let asked: Vec<_> = (0..5).map(|_| gateway.ctl_aside(["restart"])).collect();
    for restart in asked {
        let output = restart.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let status = gateway.wait_status("all is done", |status| status["stage"] == "ready");
    let generation = status["generation"].as_u64().unwrap();
    assert!((2..=6).contains(&generation), "{status:#}");
    assert_eq!(get(&gateway, "/").status(), 200);
}

#[test]
fn the_first_restart_with_overlap_says_once_how_to_ask_for_none() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let told: Vec<bool> = (0..3)
        .map(|_| said(&gateway.restart()).contains("--exclusive"))
        .collect();
    assert_eq!(told, [true, false, false]);
}

#[test]
fn a_restart_says_in_one_object_what_it_did() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let before = gateway.sidecar_pid("main");
    let output = gateway.ctl(["restart", "--json", "--reason", "new certificates"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let outcome: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let find = |key: &str| find(&outcome, key).unwrap_or_else(|| panic!("no {key} in {text}"));
    assert_eq!(find("before")["number"], 1, "{text}");
    assert_eq!(find("after")["number"], 2, "{text}");
    assert_eq!(find("before")["sidecars"][0][1], before, "{text}");
    assert_eq!(
        find("after")["sidecars"][0][1],
        gateway.sidecar_pid("main"),
        "{text}"
    );
    let status = gateway.status();
    assert_eq!(
        status["lastRestart"]["reason"], "new certificates",
        "{status:#}"
    );
    assert_eq!(status["lastRestart"]["outcome"], "done", "{status:#}");
}

/// The value of a key, at whatever depth.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map
            .get(key)
            .or_else(|| map.values().find_map(|inner| find(inner, key))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

#[test]
fn a_server_that_does_not_run_has_no_process_id_in_json() {
    let gateway = Setup::behind(["sh", "-c", "exit 3"])
        .env("GATEWAY_SUPERVISOR", "s6")
        .spawn();
    let status = gateway.wait_status("it waits before the next start", |status| {
        status["sidecars"][0]["state"] == "backoff"
    });
    assert!(status["sidecars"][0].get("pid").is_none(), "{status:#}");
    let nothing = |value: &serde_json::Value| value == 0;
    assert!(!status.get("generation").is_some_and(nothing), "{status:#}");
}

#[test]
fn a_gateway_whose_old_copy_still_has_a_client_is_ready_with_a_note() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let _slow = get_aside(&gateway, "/slow?ms=60000");
    gateway.wait_status("it is under way", |status| status["requests"] == 1);
    gateway.restart();
    let status = gateway.wait_status("the new copy serves", |status| status["generation"] == 2);
    assert_eq!(status["stage"], "ready", "{status:#}");
    let detail = "generation 2 serves; generation 1 finishes its work";
    assert_eq!(status["detail"], detail, "{status:#}");
    let shown = gateway.ctl(["status"]);
    let text = said(&shown);
    assert_eq!(shown.status.code(), Some(0), "{text}");
    assert!(text.contains("draining    generation 1"), "{text}");
    assert_eq!(gateway.ctl(["wait", "--ready"]).status.code(), Some(0));
}

#[test]
fn status_and_wait_tell_by_their_exit_code() {
    let Some(setup) = node() else { return };
    let gateway = setup.env("START_DELAY_MS", "1500").spawn();
    gateway.wait_line(crate::support::gateway::LISTENING);
    let status = gateway.status();
    assert_eq!(status["stage"], "starting", "{status:#}");
    assert_eq!(gateway.ctl(["status"]).status.code(), Some(4));
    assert_eq!(
        gateway
            .ctl(["wait", "--ready", "--timeout", "100ms"])
            .status
            .code(),
        Some(4),
        "still starting"
    );
    // The door is open already; who comes now waits for the sidecar.
    let early = get_aside(&gateway, "/");
    assert_eq!(get(&gateway, "/healthz").status(), 200);
    assert_eq!(get(&gateway, "/readyz").status(), 503);
    let output = gateway.ctl(["wait", "--ready", "--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(gateway.ctl(["status"]).status.code(), Some(0));
    assert_eq!(get(&gateway, "/readyz").status(), 200);
    assert_eq!(early.join().unwrap().unwrap().status(), 200);
}

#[test]
fn every_kind_of_readiness_is_waited_for() {
    if !servers::have("node") {
        return;
    }
    let command = servers::node();
    for ready in ["ready = \"tcp\"", "ready = { http = \"/pid\" }"] {
        let gateway = Setup::new()
            .config(format!("[sidecar.main]\ncommand = {command:?}\n{ready}\n"))
            .start();
        assert_eq!(get(&gateway, "/").status(), 200, "{ready}");
        gateway.restart();
        assert_eq!(get(&gateway, "/").status(), 200, "{ready}");
    }
    let gateway = Setup::behind(servers::node())
        .flag("--ready")
        .flag("/pid")
        .start();
    assert_eq!(get(&gateway, "/").status(), 200);
    // A page that is not there is not readiness.
    let config = format!(
        "[sidecar.main]\ncommand = {command:?}\nready = {{ http = \"/nowhere\" }}\nstart_timeout = \"6s\"\n"
    );
    let mut gateway = Setup::new().config(config).spawn();
    assert_eq!(gateway.exit_code(SOON), 1);
    assert!(
        gateway.stderr().contains("/nowhere") && gateway.stderr().contains("404"),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn a_server_that_says_when_it_is_ready_gets_no_request_before() {
    if !servers::have("python3") {
        return;
    }
    let command = servers::python_notify();
    let gateway = Setup::new()
        .config(format!(
            "[sidecar.main]\ncommand = {command:?}\nready = \"notify\"\n"
        ))
        .start();
    let load = crate::support::load::Load {
        new_per_second: 50.0,
        kept: 4,
        ..crate::support::load::Load::on(gateway.target())
    }
    .start();
    load.flows(crate::support::report::Part::New, 20);
    for _ in 0..2 {
        gateway.restart();
    }
    load.stop()
        .assert_clean(&[(crate::support::report::Part::New, 40)]);
}

#[test]
fn a_fixed_port_is_used_again_by_the_next_sidecar() {
    if !servers::have("node") {
        return;
    }
    let port = crate::support::port::private();
    let mut command = servers::node();
    command[2] = port.to_string();
    let gateway = Setup::behind(command)
        .flag("--app-port")
        .flag(port.to_string())
        .start();
    let load = crate::support::load::Load {
        new_per_second: 50.0,
        kept: 6,
        ..crate::support::load::Load::on(gateway.target())
    }
    .start();
    load.flows(crate::support::report::Part::New, 20);
    for _ in 0..3 {
        let before = gateway.sidecar_pid("main");
        gateway.restart();
        assert_ne!(gateway.sidecar_pid("main"), before);
    }
    load.stop()
        .assert_clean(&[(crate::support::report::Part::New, 20)]);
    assert_eq!(gateway.status()["sidecars"][0]["port"], port);
}

#[test]
fn a_client_that_keeps_its_connection_meets_every_generation_on_it() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..5 {
            let answer = within(
                DEADLINE,
                conn.exchange("GET /pid HTTP/1.1\r\nHost: h\r\n\r\n"),
            )
            .await
            .unwrap();
            assert_eq!(answer.text(), format!("{}\n", gateway.sidecar_pid("main")));
            assert!(answer.head.keeps(), "{:?}", answer.head);
            gateway.restart();
        }
    });
}
