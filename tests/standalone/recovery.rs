//! Lives that end unplanned and configurations that are not valid: the service comes back, says
//! why, and hammers nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::client::{self, Response, block_on};
use crate::support::gateway::{Gateway, LISTENING, READY, Setup, said};
use crate::support::wait;
use crate::support::{port, servers};
use nix::sys::signal::Signal;
use serde_json::Value;

const INVALID: i32 = 78;
const SOON: Duration = Duration::from_secs(10);

/// Not valid, for a reason that is easily recognised.
const BAD: &str = "[restart]\ndrian = \"1s\"\n";

/// A place for several lives.
struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            port: port::private(),
        }
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn at(&self, setup: Setup) -> Setup {
        setup.state_dir(self.state()).port(self.port)
    }

    fn node(&self) -> Option<Setup> {
        servers::have("node").then(|| self.at(Setup::behind(servers::node())))
    }

    /// A file, and the line that has each alert written into it.
    fn told(&self) -> (PathBuf, String) {
        let told = self.state().join("told");
        let tell = format!(
            "on_give_up = [\"sh\", \"-c\", \"env | grep GATEWAY_ALERT_ >> {}\"]\n",
            told.display()
        );
        (told, tell)
    }

    /// What the history holds, the oldest first.
    fn history(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state().join("history.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn events(&self, event: &str) -> Vec<Value> {
        self.history()
            .into_iter()
            .filter(|line| line["event"] == event)
            .collect()
    }

    fn bundles(&self, reason: &str) -> usize {
        let Ok(entries) = fs::read_dir(self.state().join("bundles")) else {
            return 0;
        };
        entries
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| name.contains(reason))
            })
            .count()
    }
}

fn get(gateway: &Gateway, path: &str) -> Response {
    block_on(client::get(&gateway.target(), path)).unwrap()
}

/// A place whose next life is in safe mode.
fn prepare_safe_mode(place: &Place) {
    let record = serde_json::json!({
        "bootId": gateway::internals::boot_id(),
        "pid": 1,
        "startedAt": gateway::internals::BootTime::now(),
        "count": 9,
        "waitMs": 0,
        "standing": "last-try",
    });
    fs::write(
        place.state().join("startup-throttle.json"),
        record.to_string(),
    )
    .unwrap();
}

#[test]
fn after_three_crashes_the_fourth_start_waits_with_the_door_open() {
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    for _ in 0..3 {
        setup.start().kill();
    }
    let gateway = setup.spawn();
    gateway.wait_line(LISTENING);
    let listening = Instant::now();
    // The quickest of some: a busy machine may be slow once.
    let answers = [(); 5].map(|()| {
        let asked = Instant::now();
        let answer = get(&gateway, "/");
        assert_eq!(answer.status(), 503);
        (asked.elapsed(), answer)
    });
    let (took, answer) = answers.into_iter().min_by_key(|(took, _)| *took).unwrap();
    assert!(took < Duration::from_millis(100), "{took:?}");
    let reasons = gateway.get_with_token("/readyz").text();
    assert!(reasons.contains("start 4 in quick succession"), "{reasons}");
    let seconds: u64 = answer.head.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    assert_eq!(get(&gateway, "/healthz").status(), 200);
    let ready = get(&gateway, "/readyz");
    assert!(
        ready.status() == 503 && ready.text().contains(r#"["throttled"]"#),
        "{}",
        ready.text()
    );
    let status = gateway.status();
    assert_eq!(
        (&status["stage"], &status["recovery"]["rung"]),
        (&"throttled".into(), &"throttled".into()),
        "{status:#}"
    );
    assert!(
        status["recovery"]["retryMs"]
            .as_u64()
            .is_some_and(|left| left <= 5000),
        "{status:#}"
    );
    let output = gateway.ctl(["status"]);
    assert!(
        output.status.code() == Some(1) && said(&output).contains("gatewayctl recover"),
        "{}",
        said(&output)
    );
    gateway.wait_line(READY);
    assert!(
        (Duration::from_millis(4500)..SOON).contains(&listening.elapsed()),
        "{:?}",
        listening.elapsed()
    );
    assert_eq!(get(&gateway, "/").status(), 200);
    assert!(gateway.status()["recovery"].is_null());
    let before: Vec<Value> = place
        .events("started")
        .iter()
        .map(|line| line["before"]["ended"].clone())
        .collect();
    assert_eq!(before, ["unknown", "unplanned", "unplanned", "unplanned"]);
}

#[test]
fn who_starts_it_by_hand_is_never_slowed_down() {
    // Typos, without a terminal too: nobody but a person starts it again.
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    for _ in 0..4 {
        let typo = place.at(Setup::behind(vec!["nodee".to_owned()]));
        let mut gateway = typo.spawn();
        assert_eq!(gateway.exit_code(wait::DEADLINE), 1, "{}", gateway.stderr());
    }
    assert!(!setup.start().stderr().contains("throttled"));

    // Crashes, at a terminal.
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    let setup = setup.env("GATEWAY_SUPERVISOR", "terminal");
    for round in 0..6 {
        let gateway = setup.start();
        assert!(!gateway.stderr().contains("throttled"), "{round}");
        gateway.kill();
    }
}

#[test]
fn what_somebody_wanted_is_no_crash() {
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    for round in 0..6 {
        let mut gateway = setup.start();
        assert!(!gateway.stderr().contains("throttled"), "{round}");
        gateway.restart();
        if round % 2 == 0 {
            let output = gateway.ctl(["restart", "--fresh"]);
            assert!(output.status.success(), "{}", said(&output));
        }
        gateway.terminate();
    }
    let started = place.events("started");
    assert_eq!(started.len(), 9, "{started:#?}");
    let handed = started
        .iter()
        .filter(|line| line["before"]["ended"] == "handed-over")
        .count();
    let planned = started
        .iter()
        .filter(|line| line["before"]["ended"] == "planned")
        .count();
    assert_eq!((handed, planned), (3, 5), "{started:#?}");
    let ended = place.events("ended");
    assert!(
        ended.len() == 9
            && ended
                .iter()
                .all(|line| line["planned"] == true && line["code"] == 0),
        "{ended:#?}"
    );
    assert!(place.events("rung").is_empty());
}

#[test]
fn the_history_says_who_asked_for_what_and_how_it_went() {
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    let mut gateway = setup.start();
    let output = gateway.ctl(["restart", "--reason", "new certificates"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(gateway.ctl(["reload"]).status.success());
    gateway.signal(Signal::SIGUSR1);
    // In this order: the end of a restart is recorded when the front door was asked, after READY.
    let recorded = |count: usize| {
        wait::until("so many are recorded", || {
            (place.events("request").len() == count).then_some(())
        });
    };
    recorded(3);
    fs::write(gateway.config_file(), BAD).unwrap();
    gateway.signal(Signal::SIGHUP);
    recorded(4);
    gateway.terminate();
    let requests = place.events("request");
    let column = |name: &str| {
        requests
            .iter()
            .map(|line| line[name].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(column("kind"), ["restart", "reload", "restart", "reload"]);
    assert_eq!(
        column("reason"),
        ["new certificates", "gatewayctl reload", "SIGUSR1", "SIGHUP"]
    );
    assert_eq!(column("outcome")[..3], ["done", "unchanged", "done"]);
    assert!(
        column("outcome")[3].starts_with("failed: ") && column("outcome")[3].contains("drian"),
        "{requests:#?}"
    );
    let who = &requests[0]["who"];
    assert!(
        who["program"] == "gatewayctl" && who["uid"].is_u64() && who["pid"].as_u64() > Some(0),
        "{who}"
    );
    assert!(requests[2]["who"]["uid"].is_null(), "a signal does not say");
    let phases: Vec<&str> = requests[0]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|phase| phase["name"].as_str())
        .collect();
    assert!(
        phases.starts_with(&["accepted", "starting", "ready"]),
        "{phases:?}"
    );
    assert_eq!(place.events("ended")[0]["reason"], "SIGTERM");
}

#[test]
fn a_crash_while_the_file_is_broken_comes_back_with_the_last_good_one() {
    let place = Place::new();
    if !servers::have("node") {
        return;
    }
    let (told, tell) = place.told();
    let command = servers::node();
    let config = format!("[sidecar.main]\ncommand = {command:?}\n[recovery]\n{tell}");
    let setup = || place.at(Setup::new());
    let first = setup().config(&config).start();
    wait::until("the configuration is kept", || {
        place.state().join("good.toml").exists().then_some(())
    });
    first.kill();
    let gateway = setup().config(format!("{config}{BAD}")).start();
    assert_eq!(get(&gateway, "/").status(), 200);
    let ready = gateway.get_with_token("/readyz");
    assert!(
        ready.status() == 200 && ready.text().contains("drian"),
        "{}",
        ready.text()
    );
    let status = gateway.status();
    assert_eq!(
        (&status["stage"], &status["recovery"]["rung"]),
        (&"degraded".into(), &"last_good".into()),
        "{status:#}"
    );
    assert!(
        status["recovery"]["reason"]
            .as_str()
            .unwrap()
            .contains("gateway.toml"),
        "{status:#}"
    );
    assert!(
        gateway
            .stderr()
            .contains("the last good configuration serves"),
        "{}",
        gateway.stderr()
    );
    let text = wait::until("somebody is told", || {
        fs::read_to_string(&told)
            .ok()
            .filter(|text| text.contains("_REASON="))
    });
    assert!(
        text.contains("GATEWAY_ALERT_RUNG=last-good")
            && text.contains("GATEWAY_ALERT_INSTANCE=gateway"),
        "{text}"
    );
    let output = gateway.ctl(["recover"]);
    assert_eq!(output.status.code(), Some(INVALID), "{}", said(&output));
    fs::write(
        gateway.config_file(),
        format!("{config}[restart]\ndrain = \"9s\"\n"),
    )
    .unwrap();
    let output = gateway.ctl(["recover"]);
    assert!(output.status.success(), "{}", said(&output));
    gateway.wait_status("all is as it should be", |status| {
        status["stage"] == "ready" && status["recovery"].is_null()
    });
    assert_eq!(get(&gateway, "/readyz").text().trim(), r#"{"ready":true}"#);
    let good = fs::read_to_string(place.state().join("good.toml")).unwrap();
    assert!(good.contains("9s"), "{good}");
    assert_eq!(
        fs::read_to_string(&told).unwrap().matches("_RUNG=").count(),
        1,
        "told once"
    );
    let rungs: Vec<Value> = place
        .events("rung")
        .iter()
        .map(|line| line["rung"].clone())
        .collect();
    assert_eq!(rungs, ["normal"], "it began on the last good one");
}

#[test]
fn with_nothing_to_serve_on_an_invalid_file_is_the_end() {
    let place = Place::new();
    let mut gateway = place.at(Setup::new()).config(BAD).spawn();
    assert_eq!(gateway.exit_code(SOON), INVALID);
    assert!(gateway.stderr().contains("drian"), "{}", gateway.stderr());
    // A last good one that flags of now do not go with is none.
    fs::write(
        place.state().join("good.toml"),
        "[gateway]\nkey_of_a_later_version = 1\n",
    )
    .unwrap();
    let mut gateway = place.at(Setup::new()).config(BAD).spawn();
    assert_eq!(gateway.exit_code(SOON), INVALID);
}

#[test]
fn safe_mode_is_left_by_recover() {
    let place = Place::new();
    let Some(setup) = place.node() else { return };
    prepare_safe_mode(&place);
    let (told, tell) = place.told();
    let gateway = setup.config(format!("[recovery]\n{tell}")).spawn();
    gateway.wait_line(LISTENING);
    let status = gateway.wait_status("safe mode", |status| status["stage"] == "safe_mode");
    assert_eq!(status["recovery"]["rung"], "safe_mode", "{status:#}");
    assert!(
        status["recovery"]["retryMs"]
            .as_u64()
            .is_some_and(|left| left > 500_000),
        "{status:#}"
    );
    assert_eq!(get(&gateway, "/").status(), 503);
    let ready = get(&gateway, "/readyz");
    assert!(
        ready.status() == 503 && ready.text().contains(r#"["safe mode"]"#),
        "{}",
        ready.text()
    );
    assert_eq!(get(&gateway, "/healthz").status(), 200);
    assert_eq!(gateway.sidecar_pid("main"), 0);
    assert_eq!(place.bundles("safe-mode"), 1);
    let text = wait::until("somebody is told", || {
        fs::read_to_string(&told)
            .ok()
            .filter(|text| text.contains("_REASON="))
    });
    assert!(text.contains("GATEWAY_ALERT_RUNG=safe-mode"), "{text}");
    let output = gateway.ctl(["recover"]);
    assert!(
        output.status.success()
            && said(&output).contains("tries its sidecars now, and leaves safe mode when")
            && said(&output).contains("gatewayctl wait --state-dir "),
        "{}",
        said(&output)
    );
    gateway.wait_line(READY);
    assert_eq!(get(&gateway, "/").status(), 200);
    assert!(gateway.status()["recovery"].is_null());
    let output = gateway.ctl(["recover"]);
    assert!(
        output.status.success() && said(&output).contains("nothing to recover from"),
        "{}",
        said(&output)
    );
    assert_eq!(
        fs::read_to_string(&told).unwrap().matches("_RUNG=").count(),
        1,
        "told once"
    );
}

#[test]
fn safe_mode_is_left_when_the_configuration_changes() {
    let place = Place::new();
    if !servers::have("node") {
        return;
    }
    prepare_safe_mode(&place);
    let gateway = place.at(Setup::new()).spawn();
    gateway.wait_status("safe mode", |status| status["stage"] == "safe_mode");
    // One that is not valid leads nowhere, and does not hide the next change.
    let failed = |count: usize| drop(gateway.wait_nth_line("trying the sidecars", count));
    let command = servers::node();
    fs::write(
        gateway.config_file(),
        "[sidecar.main]\ncommand = [\"/nonexistent/x\"]\n",
    )
    .unwrap();
    failed(0);
    gateway.wait_status("safe mode again", |status| status["stage"] == "safe_mode");
    fs::write(
        gateway.config_file(),
        format!("[sidecar.main]\ncommand = {command:?}\n"),
    )
    .unwrap();
    failed(1);
    gateway.wait_line(READY);
    assert_eq!(get(&gateway, "/").status(), 200);
}

#[test]
fn no_state_is_in_the_way_of_a_start() {
    for name in [
        "startup-throttle.json",
        "history.jsonl",
        "good.toml",
        "owner.json",
        "bundles",
    ] {
        for text in ["", "{", "\u{0}\u{0}", "[]", "{\"count\": -1}"] {
            let place = Place::new();
            fs::write(place.state().join(name), text).unwrap();
            let mut gateway = place.at(Setup::new()).start();
            assert_eq!(get(&gateway, "/healthz").status(), 200, "{name} {text:?}");
            gateway.terminate();
        }
        // What cannot be written or read.
        let place = Place::new();
        fs::create_dir(place.state().join(name)).unwrap();
        fs::write(place.state().join(name).join("x"), "").unwrap();
        let mut gateway = place.at(Setup::new()).start();
        assert_eq!(get(&gateway, "/healthz").status(), 200, "{name}");
        gateway.terminate();
    }
}
