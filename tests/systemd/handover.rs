//! Hand-overs under a real systemd: it follows the main process, keeps the listeners, and leaves
//! nothing behind.

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::base::Base;
use crate::support::client::{Fault, block_on};
use crate::support::gateway::said;
use crate::support::load::{Load, Running, slow_download_telling};
use crate::support::report::Part;
use crate::support::servers;
use crate::support::site::{FRONT, Site, all_of, back, prepared, prepared_on};
use crate::support::wait;
use crate::support::ws::{Frame, WebSocket};

/// New connections a second: a debug build carries them on a busy core besides the restarts.
const RATE: f64 = 80.0;

/// Longer than a restart here: downloads begin and end in each generation.
const DOWNLOAD_TAKES: Duration = Duration::from_millis(1500);

/// What systemd says when the old and the new process and itself do not agree on who is who.
const COMPLAINTS: [&str; 6] = [
    "reception only permitted for main PID",
    "which is not our child",
    "remains running after unit stopped",
    "left-over process",
    "Watchdog timeout",
    "Too many notification",
];

fn load() -> Load {
    let download = servers::node_download(1_000_000, DOWNLOAD_TAKES);
    Load {
        path: "/pid".into(),
        new_per_second: RATE,
        downloads: 2,
        download: Some(download),
        ..Load::on(FRONT)
    }
}

fn start(site: &Site<'_>, load: Load) -> Running {
    let running = site.systemd.in_netns(|| load.start());
    running.flows(Part::New, 10);
    running
}

fn install(site: &Site<'_>, more: &[&str]) {
    // Lasting WebSockets, and more restarts than a default allows copies.
    for of in ["system", "user"] {
        site.systemd.write(
            &format!("/etc/systemd/{of}/gateway.service.d/copies.conf"),
            "[Service]\nEnvironment=GATEWAY_RESTART_MAX_COPIES=20\n",
        );
    }
    site.install(more);
    site.settled();
}

fn no_complaints(site: &Site<'_>) {
    let journal = site.journal();
    for complaint in COMPLAINTS {
        assert!(!journal.contains(complaint), "`{complaint}` in:\n{journal}");
    }
}

fn stored(site: &Site<'_>) -> u32 {
    site.property("gateway.service", "NFileDescriptorStore")
        .parse()
        .unwrap()
}

/// Restarts again and again under a load of every kind; whoever could notice anything is asked.
fn respawns(site: &Site<'_>, count: usize) {
    let sockets = stored(site);
    let mut seen = HashSet::from([site.main_pid()]);
    let running = start(
        site,
        Load {
            kept: 10,
            websockets: 6,
            ..load()
        },
    );
    running.flows(Part::Download, 1);
    for number in 1..=count {
        // Where more processes drain, a restart stays in its process.
        wait::until("some have finished", || {
            site.status()["drainers"]
                .as_array()
                .is_none_or(|all| all.len() < 6)
                .then_some(())
        });
        let said = site.must(&["gatewayctl", "restart"]);
        let pid = site.main_pid();
        assert!(
            seen.insert(pid),
            "restart {number} is in process {pid}: {said}"
        );
        assert!(said.contains(&format!("-> {pid}, generation")), "{said}");
    }
    running.flows(Part::New, 20);
    running.flows(Part::Idle, 5);
    running.flows(Part::Download, 1);
    let report = running.stop();
    eprintln!("{count} hand-overs: {report}");
    assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
    report.assert_clean(&[
        (Part::New, 100),
        (Part::Busy, 100),
        (Part::Idle, 20),
        (Part::Download, 5),
        (Part::WebSocket, 50),
    ]);
    site.settled();
    let pid = site.main_pid();
    let status = site.must_systemctl(&["status", "--no-pager", "gateway"]);
    assert!(
        status.contains(&format!("Main PID: {pid} (gateway)"))
            && status.contains("Status: \"generation "),
        "{status}"
    );
    assert_eq!(stored(site), sockets, "each listener is stored once");
    assert_eq!(site.property("gateway.service", "NRestarts"), "0");
    no_complaints(site);
}

/// A download on its way, which nothing may cut.
fn download(site: &Site<'_>, takes: Duration) -> JoinHandle<Result<Option<String>, Fault>> {
    let download = servers::node_download(2_000_000, takes);
    let (begun, under_way) = mpsc::channel();
    let tell = move || begun.send(()).unwrap();
    let begin = move || block_on(slow_download_telling(&FRONT.into(), &download, tell));
    let thread = site.systemd.in_netns(|| std::thread::spawn(begin));
    // What the gateway counts is no sign: the load beside it goes up and down.
    under_way
        .recv_timeout(wait::DEADLINE)
        .unwrap_or_else(|error| panic!("the download does not begin: {error}\n{}", site.journal()));
    thread
}

fn whole(site: &Site<'_>, download: JoinHandle<Result<Option<String>, Fault>>) {
    let result = download.join().unwrap();
    assert!(matches!(result, Ok(None)), "{result:?}\n{}", site.journal());
}

/// Does something under load, of which nothing may be lost.
fn loses_nothing(site: &Site<'_>, what: &str, act: impl FnOnce()) {
    let running = start(site, load());
    act();
    running.flows(Part::New, 20);
    let report = running.stop();
    eprintln!("{what}: {report}");
    assert_eq!(report.failures(), 0, "{what}: {report}\n{}", site.journal());
}

/// `count` hand-overs of a service of the machine.
pub fn handed_over(base: Base, count: usize) {
    let Some(systemd) = prepared_on(base, "handed-over").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install(&site, &[]);
    respawns(&site, count);
}

#[test]
fn a_system_service_is_handed_over_again_and_again() {
    let Some(systemd) = prepared("handover").filter(|_| servers::have("node")) else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    install(
        &site,
        &[
            "--run-as",
            &app.name,
            "--listen",
            "127.0.0.1:18789",
            "--listen",
            "unix:/run/gateway/gateway/front.sock",
        ],
    );
    assert_eq!(stored(&site), 2);
    respawns(&site, 40);

    stops_while_predecessors_drain(&site);
    watchdog(&site);
    systemd.must(&["gatewayctl", "stop"]);
}

fn stops_while_predecessors_drain(site: &Site<'_>) {
    let restart = || drop(site.must(&["gatewayctl", "restart"]));
    let long = Duration::from_secs(3);

    let running = start(site, load());
    let downloads = [download(site, long), {
        restart();
        download(site, long)
    }];
    restart();
    assert!(site.gateways().len() >= 2, "a predecessor drains");
    site.must_systemctl(&["restart", "gateway"]);
    running.flows(Part::New, 20);
    let report = running.stop();
    eprintln!("systemctl restart while predecessors drain: {report}");
    assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
    downloads
        .into_iter()
        .for_each(|download| whole(site, download));
    site.settled();

    let first = download(site, long);
    restart();
    let second = download(site, long);
    restart();
    site.must_systemctl(&["stop", "gateway"]);
    assert_eq!(site.property("gateway.service", "ActiveState"), "inactive");
    assert_eq!(site.property("gateway.service", "Result"), "success");
    assert_eq!(site.processes(), [], "nothing is left");
    for download in [first, second] {
        whole(site, download);
    }
    no_complaints(site);
    site.must_systemctl(&["start", "gateway"]);
    site.settled();
}

fn watchdog(site: &Site<'_>) {
    site.drop("WatchdogSec=2");
    site.must_systemctl(&["restart", "gateway"]);
    let restarts = site.property("gateway.service", "NRestarts");
    loses_nothing(
        site,
        "three hand-overs with WatchdogSec=2, and 10 s",
        || {
            for _ in 0..3 {
                site.must(&["gatewayctl", "restart"]);
            }
            // Time itself is what this is about: five periods.
            wait::pause(Duration::from_secs(10));
        },
    );
    assert_eq!(site.property("gateway.service", "NRestarts"), restarts);
    no_complaints(site);
    let third = site.main_pid();
    let running = start(site, load());
    site.must(&["kill", "-STOP", &third.to_string()]);
    back(site, third);
    running.flows(Part::New, 20);
    let report = running.stop();
    eprintln!("a hung third process: {report}");
    assert_eq!(
        report.failures_of("refused"),
        0,
        "{report}\n{}",
        site.journal()
    );
    site.settled();
    assert!(
        site.journal().contains("Watchdog timeout"),
        "{}",
        site.journal()
    );
}

#[test]
fn a_users_service_is_handed_over_and_killed() {
    let Some(systemd) = prepared("handover-user").filter(|_| servers::have("node")) else {
        return;
    };
    let user = systemd.add_user("app");
    let site = Site::of_user(&systemd, user);
    install(&site, &[]);
    assert_eq!(stored(&site), 1);
    respawns(&site, 30);
    // With the first start these are three; the fourth in half an hour would be slowed down.
    for _ in 0..2 {
        site.must(&["gatewayctl", "restart"]);
        let pid = site.main_pid();
        let running = start(&site, load());
        site.must(&["kill", "-KILL", &pid.to_string()]);
        back(&site, pid);
        running.flows(Part::New, 20);
        let report = running.stop();
        eprintln!("kill -9 of the main process: {report}");
        assert_eq!(
            report.failures_of("refused"),
            0,
            "{report}\n{}",
            site.journal()
        );
        site.settled();
    }
    site.must(&["gatewayctl", "restart"]);
    site.must_systemctl(&["stop", "gateway"]);
    assert_eq!(site.processes(), []);
}

#[test]
fn a_socket_units_service_is_handed_over_until_the_machine_goes_down() {
    behind_a_socket_unit(Base::Machine, 30);
}

/// Restarts of a service whose socket unit holds the listener, and the end of its machine.
pub fn behind_a_socket_unit(base: Base, restarts: usize) {
    let Some(mut systemd) = prepared_on(base, "handover-socket").filter(|_| servers::have("node"))
    else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install(&site, &["--socket"]);
    assert_eq!(stored(&site), 0, "the socket unit holds the listener");
    respawns(&site, restarts);

    let socket = systemd.in_netns(|| std::thread::spawn(permanent_websocket));
    wait::until("it is open", || {
        (site.status()["tunnels"].as_u64()? == 1).then_some(())
    });
    site.must(&["gatewayctl", "restart"]);
    let took = systemd.power_off();
    eprintln!(
        "poweroff with a permanent WebSocket: {:.1} s",
        took.as_secs_f64()
    );
    assert!(took <= Duration::from_secs(30), "{took:?}");
    let end = socket.join().unwrap();
    assert!(matches!(end, Ok(Frame::Close(1012, _))), "{end:?}");
}

/// How a WebSocket ends that its client never closes.
fn permanent_websocket() -> Result<Frame, Fault> {
    block_on(async {
        let mut socket = WebSocket::open(&FRONT.into(), "/ws")
            .await
            .map_err(|(fault, _)| fault)?;
        socket.echo("hello").await?;
        socket.next().await
    })
}

#[test]
fn a_sigterm_or_a_death_at_any_step_of_a_hand_over_refuses_nobody() {
    let Some(systemd) = prepared("handover-steps").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install_for_deaths(&site);
    // Before, during and after MAINPID=: a hand-over takes a few hundred milliseconds here.
    for step in 0..6_u32 {
        loses_nothing(&site, "systemctl restart during a hand-over", || {
            std::thread::scope(|scope| {
                let restart = scope.spawn(|| site.run(&["gatewayctl", "restart"]));
                wait::pause(Duration::from_millis(100) * step);
                site.must_systemctl(&["restart", "gateway"]);
                restart.join().unwrap();
            });
        });
        site.settled();
        no_complaints(&site);
    }
    // A stop, too, is one: it does not honour MAINPID=. It comes when the restart was asked for: one
    // that is asked for later starts the service again.
    let asked = || site.journal().matches("asked: gatewayctl restart").count();
    for step in 0..4_u32 {
        std::thread::scope(|scope| {
            let before = asked();
            let restart = scope.spawn(|| site.run(&["gatewayctl", "restart"]));
            wait::until("the restart is asked for", || {
                (asked() > before).then_some(())
            });
            wait::pause(Duration::from_millis(150) * step);
            site.must_systemctl(&["stop", "gateway"]);
            restart.join().unwrap();
        });
        assert_eq!(
            (
                site.property("gateway.service", "ActiveState").as_str(),
                site.processes()
            ),
            ("inactive", Vec::new()),
            "step {step}"
        );
        site.must_systemctl(&["start", "gateway"]);
        site.settled();
    }
    no_complaints(&site);

    for point in [
        "old.before-mainpid=kill",
        "old.after-mainpid=kill",
        "old.served=kill",
        "new.go=kill",
        "new.accepting=kill",
    ] {
        fails_at(&site, point, || {
            site.run(&["gatewayctl", "restart"]);
        });
    }
    for point in [
        "old.after-mainpid=hang",
        "new.ready=hang",
        "new.before-serving=hang",
    ] {
        fails_at(&site, point, || {
            std::thread::scope(|scope| {
                let reached = || {
                    site.journal()
                        .matches(&format!("failpoint {point}"))
                        .count()
                };
                let before = reached();
                let restart = scope.spawn(|| site.run(&["gatewayctl", "restart"]));
                wait::until(point, || (reached() > before).then_some(()));
                site.must_systemctl(&["restart", "gateway"]);
                restart.join().unwrap();
            });
        });
    }
}

/// A new copy that dies seconds after the restart: every request failed until somebody noticed, while the
/// old copy, healthy and idle, had been ended.
#[test]
fn a_service_whose_new_copy_dies_goes_back_to_the_process_and_the_copy_before() {
    hand_back(Base::Machine);
}

/// Restarts whose new copy dies.
pub fn hand_back(base: Base) {
    let Some(systemd) = prepared_on(base, "hand-back").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install(&site, &[]);
    let (first, stored_first) = (site.main_pid(), stored(&site));
    let copy = || site.status()["sidecars"][0]["pid"].to_string();
    let old = copy();
    let running = start(&site, load());
    for _ in 0..2 {
        site.must(&["gatewayctl", "restart"]);
        let fresh = site.main_pid();
        assert_ne!(fresh, first);
        let new = copy();
        assert_ne!(new, old);
        site.must(&["kill", "-KILL", &new]);
        wait::until("systemd follows the process before", || {
            (site.main_pid() == first).then_some(())
        });
        site.settled();
        assert_eq!(copy(), old);
        let why = site.run(&["gatewayctl", "why"]);
        assert!(
            said(&why).contains("was ended by SIGKILL"),
            "{}",
            said(&why)
        );
    }
    running.flows(Part::New, 20);
    let report = running.stop();
    eprintln!("handed back: {report}");
    for kind in ["refused", "reset", "status 503"] {
        let failures = report.failures_of(kind);
        assert_eq!(failures, 0, "{kind}: {report}\n{}", site.journal());
    }
    assert_eq!(stored(&site), stored_first);
    assert_eq!(site.property("gateway.service", "NRestarts"), "0");
    no_complaints(&site);
    // It restarts and stops like any other.
    site.must(&["gatewayctl", "restart"]);
    assert_ne!(site.main_pid(), first);
    site.must_systemctl(&["stop", "gateway"]);
    assert_eq!(site.processes(), Vec::new());
    no_complaints(&site);
}

/// With a gateway that dies or hangs somewhere, somebody serves afterwards, and nobody was refused.
/// More deaths come than an hour of any service sees.
fn install_for_deaths(site: &Site<'_>) {
    install(site, &[]);
    let config = site.systemd.read(&site.config()).unwrap();
    site.systemd.write(
        &site.config(),
        &format!("{config}\n[recovery]\nthrottle = {{ threshold = 1000 }}\n"),
    );
    site.must_systemctl(&["reload", "gateway"]);
}

/// A death of one of the two processes at each of these moments.
pub fn deaths(base: Base, points: &[&str]) {
    let Some(systemd) = prepared_on(base, "handover-deaths").filter(|_| servers::have("node"))
    else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install_for_deaths(&site);
    for point in points {
        fails_at(&site, point, || {
            site.run(&["gatewayctl", "restart"]);
        });
    }
}

fn fails_at(site: &Site<'_>, point: &str, act: impl FnOnce()) {
    site.drop(&format!(
        "Environment=GATEWAY_FAILPOINT={point}\nTimeoutStopSec=4"
    ));
    site.must_systemctl(&["restart", "gateway"]);
    let running = start(site, load());
    act();
    running.flows(Part::New, 40);
    let report = running.stop();
    eprintln!("{point}: {report}");
    for kind in ["refused", "status 503"] {
        assert_eq!(
            report.failures_of(kind),
            0,
            "{point}: {report}\n{}",
            site.journal()
        );
    }
    wait::until("it is active", || {
        (site.property("gateway.service", "ActiveState") == "active").then_some(())
    });
    site.settled();
}

#[test]
fn a_process_that_systemd_fails_to_kill_does_not_keep_the_next_life_waiting() {
    let Some(systemd) = prepared("leftover").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    install(&site, &[]);
    let point = "old.before-spawn=hang";
    site.drop(&format!(
        "Environment=GATEWAY_FAILPOINT={point}\nKillMode=process\nSendSIGKILL=no\nTimeoutStopSec=1"
    ));
    site.must_systemctl(&["restart", "gateway"]);
    site.settled();
    let hung = site.main_pid();
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| site.run(&["gatewayctl", "restart"]));
        wait::until(point, || {
            site.journal()
                .contains(&format!("failpoint {point}"))
                .then_some(())
        });
        site.must_systemctl(&["restart", "gateway"]);
        restart.join().unwrap();
    });
    assert_ne!(site.main_pid(), hung);
    let running = start(&site, load());
    site.settled();
    running.flows(Part::New, 20);
    let report = running.stop();
    assert_eq!(report.failures_of("refused"), 0, "{report}");
    let journal = site.journal();
    assert!(
        journal.contains(&format!("pid {hung}, left over from an earlier life of this service, does not answer: killing it")),
        "{journal}"
    );
}

#[test]
fn an_exit_lets_the_next_life_answer_who_waits() {
    let Some(systemd) = prepared("handover-exit").filter(|_| servers::have("node")) else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    install(&site, &["--run-as", &app.name]);
    let config = site.systemd.read(&site.config()).unwrap();
    site.systemd.write(
        &site.config(),
        &format!("{config}\n[restart]\nmode = \"exit\"\n"),
    );
    site.drop("TimeoutStopSec=3");
    site.must_systemctl(&["restart", "gateway"]);

    let alone = Load {
        downloads: 0,
        ..load()
    };
    for _ in 0..5 {
        let pid = site.main_pid();
        let running = start(&site, alone.clone());
        // It knows that only when systemd has said that it holds the listeners.
        wait::until("an exit is possible", || {
            let strategy = site.status()["strategy"].to_string();
            strategy.contains("exit").then_some(())
        });
        let output = site.run(&["gatewayctl", "restart"]);
        let said = all_of(&output);
        assert!(
            output.status.success() && said.contains("its supervisor starts the next"),
            "{said}\n{}",
            site.journal()
        );
        assert!(
            site.main_pid() != pid && said.contains(&format!("{pid} -> {}", site.main_pid())),
            "{said}"
        );
        running.flows(Part::New, 20);
        let report = running.stop();
        eprintln!("exit: {report}");
        assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
        assert!(report.longest_gap < Duration::from_secs(3), "{report}");
        site.settled();
    }

    let long = download(&site, Duration::from_secs(6));
    let dir = systemd.path("/var/lib/gateway/gateway");
    let created_at_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    // Pids are those of the box, so a program in it writes.
    let intent = serde_json::json!({
        "kind": "gateway-restart",
        "pid": site.main_pid(),
        "createdAt": created_at_ms,
        "reason": "a new kernel module",
    });
    let script = "umask 077; cd /var/lib/gateway/gateway/ && printf %s \"$1\" > restart-intent.json && chown --reference=. restart-intent.json";
    site.run(&["sh", "-c", script, "sh", &intent.to_string()]);
    let running = start(&site, alone);
    site.must_systemctl(&["restart", "gateway"]);
    running.flows(Part::New, 20);
    let report = running.stop();
    eprintln!("systemctl restart with an intent: {report}");
    assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
    whole(&site, long);
    let journal = site.journal();
    assert!(
        journal.contains("received SIGTERM to restart: a new kernel module"),
        "{journal}"
    );
    assert!(!journal.contains("timed out"), "{journal}");
    assert!(!dir.join("restart-intent.json").exists());
    site.settled();
    no_complaints(&site);
}
