//! `gatewayctl restart --force` against what people write themselves.

use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::middle;
use super::support::site::{FRONT, NODE_APP, Site, all_of, node, prepared};
use super::support::wait;

/// The same steps with lsof, kill, sleep and systemctl, as they are mostly written: whoever listens
/// is ended, and time is waited for.
const PLAIN: &str = r#"
for pid in $(lsof -nP -t -iTCP:18789 -sTCP:LISTEN); do
    case $(cat /proc/$pid/comm) in
        gateway) kill $pid ;;
        systemd) ;;
        *) echo "held by $pid" >&2; exit 5 ;;
    esac
done
sleep 2
for pid in $(lsof -nP -t -iTCP:18789 -sTCP:LISTEN); do
    [ "$(cat /proc/$pid/comm)" = gateway ] && kill -9 $pid
done
systemctl reset-failed gateway.service gateway.socket 2>/dev/null
systemctl restart gateway
sleep 2
curl -sf -o /dev/null http://127.0.0.1:18789/readyz
"#;

/// The same, as fair as such scripts get: it spares the main process, does not wait where nothing
/// was ended, and looks for the answer every 50 ms.
const CAREFUL: &str = r#"
found=
for pid in $(lsof -nP -t -iTCP:18789 -sTCP:LISTEN); do
    case $(cat /proc/$pid/comm) in
        gateway) [ "$pid" = "$(systemctl show --value -p MainPID gateway)" ] || found="$found $pid" ;;
        systemd) ;;
        *) echo "held by $pid" >&2; exit 5 ;;
    esac
done
if [ -n "$found" ]; then
    kill $found
    sleep 2
    kill -9 $found 2>/dev/null
fi
systemctl reset-failed gateway.service gateway.socket 2>/dev/null
systemctl restart gateway
until curl -sf -o /dev/null http://127.0.0.1:18789/readyz; do sleep 0.05; done
"#;

/// What is in the way, how it comes about, and the exit code of whoever restarts.
type Situation = (&'static str, fn(&Site<'_>) -> Option<Child>, i32);

const SITUATIONS: [Situation; 5] = [
    ("healthy", |_| None, 0),
    ("main dead, RestartSec pending", dead, 0),
    ("inactive, an old gateway by hand", by_hand, 0),
    ("start-limit-hit", given_up, 0),
    ("a foreign program", foreign, 5),
];

/// Where a process by hand leaves its number.
const HAND: &str = "/tmp/hand.pid";

pub fn measure(quick: bool) -> Value {
    let Some(systemd) = prepared("bench-restart") else {
        return json!({"skipped": "no systemd can be booted here"});
    };
    let site = Site::of_machine(&systemd);
    systemd.write("/srv/plain.sh", PLAIN);
    systemd.write("/srv/careful.sh", CAREFUL);
    site.must(&[&["gatewayctl", "install", "--now"][..], &node()].concat());
    let rounds = if quick { 1 } else { 3 };
    let mut all = Map::new();
    let ways: [&[&str]; 3] = [
        &["gatewayctl", "restart", "--force"],
        &["sh", "/srv/plain.sh"],
        &["sh", "/srv/careful.sh"],
    ];
    let mut sums = [0.0; 3];
    for situation in SITUATIONS {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                times.push(once(&site, situation, way));
            }
        }
        let middles = times.map(|mut times| middle(&mut times));
        sums.iter_mut()
            .zip(middles)
            .for_each(|(sum, middle)| *sum += middle);
        let [ours, plain, careful] = middles;
        all.insert(
            format!("{}, ms", situation.0),
            json!(format!("{ours:.0} / {plain:.0} / {careful:.0}")),
        );
    }
    let [ours, plain, careful] = sums;
    all.insert(
        "all together: ours / script / careful script".into(),
        json!(format!("{ours:.0} / {plain:.0} / {careful:.0}")),
    );
    let part = |of: f64| json!((ours / of * 100.0).round() / 100.0);
    all.insert("part of the script's time".into(), part(plain));
    all.insert("part of the careful script's time".into(), part(careful));
    Value::Object(all)
}

fn once(site: &Site<'_>, (name, bring_about, code): Situation, way: &[&str]) -> f64 {
    let other = bring_about(site);
    // So many deaths in a row would slow the next start down, whoever asks for it.
    site.systemd
        .sh("find /var/lib/ -name startup-throttle.json -delete");
    let begun = Instant::now();
    let output = site.run(way);
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(
        output.status.code(),
        Some(code),
        "{name}, {way:?}: {}\n{}",
        all_of(&output),
        site.journal()
    );
    if let Some(mut other) = other {
        // It may have been ended already.
        site.systemd
            .sh(&format!("kill -9 $(cat {HAND}) 2>/dev/null || true"));
        other.wait().unwrap();
    }
    site.drop("");
    site.must(&["gatewayctl", "start"]);
    site.must(&["gatewayctl", "wait", "--ready", "--timeout", "30s"]);
    took
}

fn dead(site: &Site<'_>) -> Option<Child> {
    site.drop("RestartSec=1h");
    site.systemd
        .must(&["kill", "-KILL", &site.main_pid().to_string()]);
    wait::until("systemd waits to start it again", || {
        (site.property("gateway.service", "SubState") == "auto-restart").then_some(())
    });
    None
}

fn given_up(site: &Site<'_>) -> Option<Child> {
    site.drop("StartLimitBurst=1\n[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h");
    site.must(&["gatewayctl", "stop"]);
    site.must(&["gatewayctl", "start"]);
    site.systemd
        .must(&["kill", "-KILL", &site.main_pid().to_string()]);
    wait::until("systemd gives up", || {
        (site.property("gateway.service", "ActiveState") == "failed").then_some(())
    });
    None
}

fn by_hand(site: &Site<'_>) -> Option<Child> {
    let address = FRONT.to_string();
    let run = [
        "gateway",
        "run",
        "--state-dir",
        "/tmp/by-hand",
        "--listen",
        &address,
        "--",
        "node",
        NODE_APP,
        "{port}",
    ];
    Some(in_place(site, &run, "/readyz"))
}

fn foreign(site: &Site<'_>) -> Option<Child> {
    Some(in_place(
        site,
        &[
            "python3",
            "-m",
            "http.server",
            &FRONT.port().to_string(),
            "--bind",
            "127.0.0.1",
        ],
        "/",
    ))
}

/// Stops the service and puts a program of no service in its place.
fn in_place(site: &Site<'_>, argv: &[&str], path: &str) -> Child {
    site.must(&["gatewayctl", "stop"]);
    let script = format!("cd /srv; echo $$ > {HAND}; exec \"$@\"");
    let mut command = site
        .systemd
        .command(&[&["sh", "-c", &script, "sh"][..], argv].concat());
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://{FRONT}{path}");
    wait::until("it answers", || {
        site.run(&["curl", "-sf", "-o", "/dev/null", &url])
            .status
            .success()
            .then_some(())
    });
    child
}
