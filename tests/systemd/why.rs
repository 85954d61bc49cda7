//! `gatewayctl why` in a real systemd: every cause that can be produced there is, and is named in
//! the first line.

use crate::support::servers;
use crate::support::site::{Site, all_of, back, node, prepared};
use crate::support::wait;
use serde_json::Value;

/// The answer, once it names this cause: journald may take a moment.
fn cause(site: &Site<'_>, kind: &str, words: &[&str]) -> Value {
    let mut last = String::new();
    let found = wait::within(wait::DEADLINE, || {
        let output = site.run(&["gatewayctl", "why", "--json"]);
        last = all_of(&output);
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        (answer["cause"]["kind"] == kind && output.status.code() == Some(0)).then_some(answer)
    });
    let answer = found.unwrap_or_else(|| panic!("not {kind}: {last}\n{}", site.journal()));
    let text = site.must(&["gatewayctl", "why"]);
    let first = text.lines().next().unwrap();
    for word in words {
        assert!(first.contains(word), "{kind}: `{word}` in: {text}");
    }
    eprintln!("{first}");
    answer
}

fn has_source(answer: &Value, source: &str, word: &str) {
    let all = answer["evidence"].as_array().unwrap();
    let found = all
        .iter()
        .any(|proof| proof["source"] == source && proof["text"].as_str().unwrap().contains(word));
    assert!(found, "{source} says `{word}` in: {answer:#}");
}

fn ends(site: &Site<'_>, signal: &str) {
    let pid = site.main_pid();
    site.must(&["kill", signal, &pid.to_string()]);
    back(site, pid);
    site.settled();
}

/// Kills the main process until a start waits: the fourth in quick succession does, for so long that
/// no busy machine misses it. Each return has its own limit: four of them may take half a minute.
fn slow_down(site: &Site<'_>) {
    site.drop("Environment=GATEWAY_RECOVERY_THROTTLE_BASE=100s");
    let waits = || {
        let pid = site.main_pid();
        site.must(&["kill", "-KILL", &pid.to_string()]);
        back(site, pid);
        site.status()["stage"] == "throttled"
    };
    assert!((0..4).any(|_| waits()), "{}", site.journal());
    site.drop("");
}

/// What a service goes through, each time with the cause.
fn causes(site: &Site<'_>) {
    // In the box only: what somebody ran by hand on this machine is not what this is about.
    site.systemd.sh("rm -rf /root/.local/state/gateway");
    assert_eq!(
        site.run(&["gatewayctl", "why"]).status.code(),
        Some(3),
        "neither installed nor ever run"
    );
    site.must(&[&["gatewayctl", "install"], &node()[..]].concat());
    cause(site, "never-ran", &["gateway.service has not run yet"]);
    site.must(&["gatewayctl", "start"]);
    site.settled();
    cause(
        site,
        "never-ended",
        &[
            "nothing has ended gateway.service since",
            "it has been ready since",
        ],
    );

    ends(site, "-KILL");
    let answer = cause(
        site,
        "killed",
        &[
            "gateway.service was ended by SIGKILL at",
            "sent by a user or program; no out-of-memory kill recorded",
            "systemd started it again",
            "later",
        ],
    );
    assert!(
        answer["downMs"].as_u64().unwrap() >= 1 && answer["running"] == true,
        "{answer:#}"
    );
    has_source(&answer, "journal", "status=9/KILL");
    has_source(&answer, "record", "after an unplanned end");
    has_source(&answer, "unit", "NRestarts 1");

    ends(site, "-TERM");
    cause(
        site,
        "signalled",
        &[
            "ended by SIGTERM",
            "sent by an unknown user or program",
            "systemd started it again",
        ],
    );

    site.must(&["gatewayctl", "restart", "--reason", "deploy 42"]);
    let answer = cause(
        site,
        "requested",
        &["restarted at", "on request: deploy 42", "by uid", "respawn"],
    );
    assert_eq!(answer["cause"]["what"], "restart");
    site.must_systemctl(&["restart", "gateway"]);
    cause(
        site,
        "restarted-by-manager",
        &["restarted at", "by a request to the service manager"],
    );

    site.drop("WatchdogSec=3");
    site.must_systemctl(&["restart", "gateway"]);
    ends(site, "-STOP");
    cause(
        site,
        "watchdog",
        &["no watchdog ping within 3s", "systemd started it again"],
    );
    site.drop("");

    let sidecar = site.status()["sidecars"][0]["pid"].to_string();
    site.must(&["kill", "-KILL", &sidecar]);
    wait::until("it is back", || {
        (site.status()["sidecars"][0]["restarts"] == 1 && site.status()["stage"] == "ready")
            .then_some(())
    });
    cause(
        site,
        "sidecar",
        &[
            "is running; its sidecar main",
            "was ended by SIGKILL",
            "is ready again",
        ],
    );

    slow_down(site);
    let answer = cause(
        site,
        "throttled",
        &[
            "is waiting before it starts its sidecars",
            "in quick succession",
            "SIGKILL",
            "next try in",
        ],
    );
    has_source(&answer, "throttle", "in quick succession");
    site.must(&["gatewayctl", "recover"]);

    site.must(&["gatewayctl", "stop"]);
    let answer = cause(
        site,
        "stopped",
        &[
            "was stopped at",
            "by a request to the service manager",
            "it is not running",
        ],
    );
    assert_eq!(answer["running"], false);

    let good = site.systemd.read(&site.config()).unwrap();
    site.systemd
        .write(&site.config(), "[gateway]\nlisen = []\n");
    let state = if site.user.is_some() {
        "/home"
    } else {
        "/var/lib"
    };
    site.systemd
        .sh(&format!("rm -f $(find -L {state} -name good.toml)"));
    site.systemctl(&["start", "gateway"]);
    cause(
        site,
        "invalid-configuration",
        &[
            "exit code 78 (configuration invalid)",
            "gateway.toml:2:1: unknown key `lisen`",
            "it is not running",
        ],
    );

    site.systemd.write(
        &site.drop_in(),
        "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\nRestartPreventExitStatus=\nRestartSec=1ms\n",
    );
    site.must_systemctl(&["daemon-reload"]);
    site.systemctl(&["reset-failed", "gateway"]);
    site.systemctl(&["start", "gateway"]);
    wait::until("it is given up", || {
        site.journal()
            .contains("Start request repeated too quickly")
            .then_some(())
    });
    wait::until("it has failed", || {
        (site.property("gateway.service", "ActiveState") == "failed").then_some(())
    });
    let words = [
        "3 times within 60 s",
        "start-limit-hit",
        "exit code 78 (configuration invalid)",
        "unknown key `lisen`",
    ];
    cause(site, "start-limit", &words);
    site.systemd.write(&site.config(), &good);
    site.drop("");
    site.must(&["gatewayctl", "start"]);
    site.settled();

    let text = site.must(&["gatewayctl", "history"]);
    for word in [
        "restart done (respawn)",
        "deploy 42",
        "ended, code 0",
        "started",
        "in ",
    ] {
        assert!(text.contains(word), "`{word}` in: {text}");
    }
    assert_eq!(
        site.must(&["gatewayctl", "history", "-n", "2"])
            .lines()
            .count(),
        2
    );
    let history: Value =
        serde_json::from_str(&site.must(&["gatewayctl", "history", "--json"])).unwrap();
    let events: Vec<&str> = history["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    assert!(
        ["started", "ended", "request"]
            .iter()
            .all(|event| events.contains(event)),
        "{history:#}"
    );
}

/// Entries of a journal, moved in time so that the last one is of this moment.
fn now(journal: &str) -> String {
    let mut entries: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    const TIME: &str = "__REALTIME_TIMESTAMP";
    let at = |entry: &Value| -> i64 { entry[TIME].as_str().unwrap().parse().unwrap() };
    let last = entries.iter().map(at).max().unwrap();
    let shift = jiff::Timestamp::now().as_microsecond() - last;
    for entry in &mut entries {
        entry[TIME] = (at(entry) + shift).to_string().into();
    }
    entries.iter().map(|entry| format!("{entry}\n")).collect()
}

#[test]
fn every_cause_of_a_system_service_is_named() {
    let Some(systemd) = prepared("why").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    causes(&site);

    // Who may not read the record is told so, and what the manager says still counts.
    let user = systemd.add_plain_user("someone");
    let output = systemd.run_as_user(&user, &["gatewayctl", "why"]);
    let text = all_of(&output);
    assert!(
        output.status.success()
            && text.contains("unseen")
            && text.contains("its status cannot be read"),
        "{text}"
    );
    let output = systemd.run_as_user(&user, &["gatewayctl", "history"]);
    assert_eq!(output.status.code(), Some(77), "{}", all_of(&output));

    // A box may not be able to limit memory: the journal that systemd writes then is played back.
    // It happens now: what was before the install is of another gateway.
    systemd.write("/srv/tale/oom.json", &now(include_str!("../data/oom.json")));
    systemd.write(
        "/srv/tale/journalctl",
        "#!/bin/sh\nexec cat /srv/tale/oom.json\n",
    );
    systemd.must(&["chmod", "755", "/srv/tale/journalctl"]);
    let text = systemd.sh("PATH=/srv/tale:$PATH gatewayctl why");
    assert!(
        text.starts_with("gateway.service was killed by the kernel at"),
        "{text}"
    );
    assert!(
        text.lines()
            .next()
            .unwrap()
            .contains("because memory ran out (OOM); systemd started it again 120 ms later"),
        "{text}"
    );

    // No journalctl is no reason to say nothing.
    let text = systemd.sh("mkdir /srv/bare && ln -s $(command -v gatewayctl) /srv/bare/ && PATH=/srv/bare gatewayctl why");
    assert!(
        text.contains("unseen") && text.contains("journalctl cannot be run"),
        "{text}"
    );
}

#[test]
fn every_cause_of_a_users_service_is_named() {
    let Some(systemd) = prepared("why-user").filter(|_| servers::have("node")) else {
        return;
    };
    let user = systemd.add_user("app");
    causes(&Site::of_user(&systemd, user));
}
