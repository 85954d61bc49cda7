//! Restarts of an installed service under a real systemd, and its deaths.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::support::load::Load;
use super::support::report::{Part, Report};
use super::support::site::{FRONT, node, prepared};
use super::support::systemd_box::SystemdBox;
use super::support::wait;
use super::{Size, middle_and_most, tenths};

/// Between two disturbances: the load settles, and a life is old enough not to count as a quick
/// death of the one before.
const PAUSE: Duration = Duration::from_millis(1500);

/// RestartSec= of our units; systemd's timer may be up to 250 ms late (the default accuracy of
/// sd-event(3)).
const RESTART_SEC: f64 = 100.0;

/// A box in which a gateway before the Node server is installed; none where there can be none.
pub fn installed() -> Option<SystemdBox> {
    let systemd = prepared("bench")?;
    let app = systemd.add_plain_user("app");
    let install = [
        "gatewayctl",
        "install",
        "--now",
        "--run-as",
        &app.name,
        "--listen",
        "127.0.0.1:18789",
    ];
    systemd.must(&[&install[..], &node()].concat());
    Some(systemd)
}

/// Starts the service anew with these keys of `[restart]`, and no others.
pub fn restarts_with(systemd: &SystemdBox, keys: &[&str]) {
    let config = "/etc/gateway/gateway.toml";
    let before = systemd.read(config).unwrap();
    let rest = before.lines().filter(|line| !line.starts_with("restart."));
    let ours = keys.iter().map(|key| format!("restart.{key}"));
    let text: Vec<String> = ours.chain(rest.map(str::to_owned)).collect();
    systemd.write(config, &format!("{}\n", text.join("\n")));
    systemd.must(&["systemctl", "restart", "gateway"]);
}

pub fn measure(size: Size) -> Value {
    let Some(systemd) = installed() else {
        return json!({"skipped": "no systemd can be booted here"});
    };
    let count = size.restarts.div_ceil(2);
    let undisturbed = under_load(&systemd, || wait::pause(PAUSE * count as u32));
    let mut all = Map::new();
    all.insert("longest gap, undisturbed, ms".into(), gap(&undisturbed));
    for mode in ["respawn", "exit"] {
        restarts_with(&systemd, &[&format!("mode = \"{mode}\"")]);
        let report = under_load(&systemd, || {
            for _ in 0..count {
                systemd.must(&["gatewayctl", "restart"]);
                wait::pause(PAUSE);
            }
        });
        all.insert(format!("{mode}: restarts"), json!(count));
        all.insert(
            format!("{mode}: failed of"),
            json!(format!("{} of {}", report.failures(), report.latency.len())),
        );
        all.insert(format!("{mode}: longest gap, ms"), gap(&report));
        let added = report.quantile(0.99).as_secs_f64() - undisturbed.quantile(0.99).as_secs_f64();
        all.insert(format!("{mode}: p99 added, ms"), tenths(added * 1000.0));
    }
    let mut answers: Vec<f64> = (0..count.min(3)).map(|_| kill(&systemd)).collect();
    let (middle, most) = middle_and_most(&mut answers);
    all.insert(
        "kill -9 to the front door's answer, p50 ms".into(),
        tenths(middle),
    );
    all.insert(
        "the same without RestartSec, p50 ms".into(),
        tenths(middle - RESTART_SEC),
    );
    all.insert(
        "kill -9 to the front door's answer, max ms".into(),
        tenths(most),
    );
    Value::Object(all)
}

fn gap(report: &Report) -> Value {
    tenths(report.longest_gap.as_secs_f64() * 1000.0)
}

fn under_load(systemd: &SystemdBox, what: impl FnOnce()) -> Report {
    let load = Load {
        new_per_second: 200.0,
        kept: 20,
        ends_announced: true,
        ..Load::on(FRONT)
    };
    let running = systemd.in_netns(|| load.start());
    running.flows(Part::New, 100);
    what();
    running.flows(Part::New, 100);
    running.stop()
}

/// Kills the main process and asks at once: systemd holds the socket, so the question waits for the
/// next life.
fn kill(systemd: &SystemdBox) -> f64 {
    // The front door answers before its sidecars are there; the next death finds a settled service.
    systemd.must(&["gatewayctl", "wait", "--ready", "--timeout", "30s"]);
    let pid = systemd.must(&["systemctl", "show", "--value", "-p", "MainPID", "gateway"]);
    systemd.must(&["kill", "-9", pid.trim()]);
    let began = Instant::now();
    systemd.in_netns(|| {
        let mut stream = TcpStream::connect(FRONT).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
    began.elapsed().as_secs_f64() * 1000.0
}
