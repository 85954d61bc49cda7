//! Restarts that no client notices, on real servers under a load that never waits.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::gateway::{Gateway, LISTENING, READY, Setup};
use crate::support::load::{Download, Load};
use crate::support::report::{Part, Report};
use crate::support::servers;
use gateway::internals::MAX_DRAINERS;

/// How often each server is restarted.
const RESTARTS: usize = 50;

/// How often the Node server gets a fresh process, and the others, which show only what differs.
const FRESH: usize = 50;
const FRESH_FEW: usize = 15;

/// A download is under way in every restart, and several begin and end in each generation.
const DOWNLOAD_TAKES: Duration = Duration::from_millis(2500);
/// More than all the buffers between the two ends hold, so that a cut is seen.
const DOWNLOAD_LENGTH: u64 = 12 * 1024 * 1024;

/// 50 kept connections and 10 slow downloads, besides what differs from server to server.
fn load(gateway: &Gateway, new_per_second: f64, download: Download) -> Load {
    Load {
        new_per_second,
        kept: 50,
        downloads: 10,
        download: Some(download),
        ..Load::on(gateway.target())
    }
}

/// Restarts again and again under a load; everything that any client could notice is a failure.
fn restart_under(gateway: &Gateway, load: Load) -> Report {
    restart_as(gateway, load, RESTARTS, false)
}

/// The same `restarts` times; `fresh` when each is to bring a process of its own.
fn restart_as(gateway: &Gateway, load: Load, restarts: usize, fresh: bool) -> Report {
    let mut processes = HashSet::from([gateway.main_pid()]);
    let websockets = load.websockets > 0;
    let running = load.start();
    running.flows(Part::New, 50);
    running.flows(Part::Idle, 10);
    running.flows(Part::Download, 1);
    let mut pids = HashSet::from([gateway.sidecar_pid("main")]);
    for number in 1..=restarts {
        if fresh {
            // As many as may drain at once would make the next restart stay in its process.
            let few = |status: &serde_json::Value| {
                status["drainers"]
                    .as_array()
                    .is_some_and(|all| all.len() < MAX_DRAINERS)
            };
            gateway.wait_status("a further process may drain", few);
        }
        gateway.restart();
        let pid = gateway.sidecar_pid("main");
        assert!(
            pid != 0 && pids.insert(pid),
            "restart {number} has no sidecar of its own, but {pid}, seen before"
        );
        assert_eq!(
            processes.insert(gateway.main_pid()),
            fresh,
            "restart {number} is in process {}",
            gateway.main_pid()
        );
    }
    running.flows(Part::New, 50);
    running.flows(Part::Idle, 10);
    running.flows(Part::Download, 1);
    let report = running.stop();
    eprintln!("{restarts} restarts: {report}");
    report.assert_clean(&[
        (Part::New, 100),
        (Part::Busy, 100),
        (Part::Idle, 50),
        (Part::Download, 20),
    ]);
    if websockets {
        report.assert_clean(&[(Part::WebSocket, 100)]);
    }
    let said = gateway.stderr();
    let processes = if fresh { restarts + 1 } else { 1 };
    assert_eq!(
        said.matches(LISTENING).count(),
        processes,
        "the listener is opened once for each process"
    );
    assert_eq!(
        said.matches(READY).count(),
        restarts + 1,
        "every generation says once that it is ready"
    );
    report
}

#[test]
fn clients_of_a_node_server_notice_nothing_of_50_restarts() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let load = load(
        &gateway,
        300.0,
        servers::node_download(DOWNLOAD_LENGTH, DOWNLOAD_TAKES),
    );
    restart_under(
        &gateway,
        Load {
            websockets: 10,
            ..load
        },
    );
}

#[test]
fn clients_of_a_python_server_notice_nothing_of_50_restarts() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let download = servers::files(dir.path(), DOWNLOAD_LENGTH, DOWNLOAD_TAKES);
    let gateway = Setup::behind(servers::python(dir.path())).start();
    // It closes every connection after one answer and starts a thread for each: what it carries
    // beside the load itself.
    let load = load(&gateway, 60.0, download);
    restart_under(
        &gateway,
        Load {
            busy_pause: Duration::from_millis(500),
            ..load
        },
    );
}

#[test]
fn clients_of_nginx_notice_nothing_of_50_restarts() {
    if !servers::have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let download = servers::files(dir.path(), DOWNLOAD_LENGTH, DOWNLOAD_TAKES);
    let gateway = Setup::behind(servers::nginx(dir.path()))
        .unix_listener()
        .start();
    let aside = Load {
        new_per_second: 20.0,
        kept: 4,
        ..Load::on(gateway.unix_target())
    }
    .start();
    restart_under(&gateway, load(&gateway, 300.0, download));
    let aside = aside.stop();
    eprintln!("over the unix socket: {aside}");
    aside.assert_clean(&[(Part::New, 50), (Part::Busy, 20)]);
}

#[test]
fn clients_of_a_node_server_notice_nothing_of_50_fresh_processes() {
    if !servers::have("node") {
        return;
    }
    let mut gateway = Setup::behind(servers::node())
        .config("[restart]\nmode = \"respawn\"")
        .start();
    let load = load(
        &gateway,
        200.0,
        servers::node_download(DOWNLOAD_LENGTH, DOWNLOAD_TAKES),
    );
    restart_as(
        &gateway,
        Load {
            websockets: 10,
            ..load
        },
        FRESH,
        true,
    );
    gateway.terminate();
}

#[test]
fn clients_of_a_python_server_notice_nothing_of_15_fresh_processes() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let download = servers::files(dir.path(), DOWNLOAD_LENGTH, DOWNLOAD_TAKES);
    let mut gateway = Setup::behind(servers::python(dir.path()))
        .config("[restart]\nmode = \"respawn\"")
        .start();
    let load = load(&gateway, 60.0, download);
    restart_as(
        &gateway,
        Load {
            busy_pause: Duration::from_millis(500),
            ..load
        },
        FRESH_FEW,
        true,
    );
    gateway.terminate();
}

#[test]
fn clients_of_nginx_notice_nothing_of_15_fresh_processes_on_either_listener() {
    if !servers::have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let download = servers::files(dir.path(), DOWNLOAD_LENGTH, DOWNLOAD_TAKES);
    // Nobody follows this pid, so that no process stays in front.
    let setup = Setup::behind(servers::nginx(dir.path())).env("GATEWAY_SUPERVISOR", "none");
    let mut gateway = setup
        .config("[restart]\nmode = \"respawn\"")
        .unix_listener()
        .start();
    let aside = Load {
        new_per_second: 20.0,
        kept: 4,
        ..Load::on(gateway.unix_target())
    }
    .start();
    restart_as(&gateway, load(&gateway, 200.0, download), FRESH_FEW, true);
    let aside = aside.stop();
    eprintln!("over the unix socket: {aside}");
    aside.assert_clean(&[(Part::New, 50), (Part::Busy, 20)]);
    gateway.terminate();
}
