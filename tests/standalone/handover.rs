//! Fresh processes that take over: stops and further restarts at any moment, and nothing that
//! grows.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::client::{Fault, block_on};
use crate::support::gateway::{Gateway, said};
use crate::support::handover::{
    self, Failpoint, alive, failed, family, fresh, one_serves, respawning, signal, wait_end,
};
use crate::support::load::{Download, Load, slow_download};
use crate::support::report::Part;
use crate::support::ws::{Frame, WebSocket};
use crate::support::{servers, wait};
use nix::sys::signal::Signal;

/// What a gateway may hold open for a moment besides: the answer that is just being written, a
/// probe.
const SLACK: usize = 3;

/// Far less than any time that one process allows another for its end.
const AT_ONCE: Duration = Duration::from_secs(6);

/// The process that is not the first one.
fn successor(gateway: &Gateway) -> u32 {
    // The process between the two forks is there for a moment, too.
    let new = || {
        let mut others = family(gateway);
        others.retain(|pid| *pid != gateway.pid());
        <[u32; 1]>::try_from(others).ok().map(|[pid]| pid)
    };
    wait::until("the successor is there", new)
}

/// Nothing is left, and whoever asked for the restart was told.
fn all_gone(gateway: &mut Gateway, restart: std::thread::JoinHandle<std::process::Output>) {
    gateway.wait_gone(wait::DEADLINE);
    handover::no_sidecar(gateway);
    let output = restart.join().unwrap();
    assert!(
        output.status.success() || !output.stderr.is_empty(),
        "{}",
        said(&output)
    );
}

#[test]
fn a_sigterm_to_the_old_process_before_the_new_one_serves_ends_both() {
    std::thread::scope(|scope| {
        for name in [
            "old.spawned",
            "old.before-mainpid",
            "old.after-mainpid",
            "old.after-go",
            "new.started",
            "new.alive",
            "new.ready",
        ] {
            scope.spawn(move || sigterm_to_old(name));
        }
    });
}

#[test]
fn a_sigterm_to_the_old_process_while_the_new_one_begins_ends_both() {
    std::thread::scope(|scope| {
        for name in ["new.go", "new.accepting", "new.before-serving"] {
            scope.spawn(move || sigterm_to_old(name));
        }
    });
}

fn sigterm_to_old(name: &str) {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let restart = failpoint.pause(&gateway, name, &["restart"]);
    gateway.signal(Signal::SIGTERM);
    failpoint.go_on();
    let status = gateway.wait_exit(wait::DEADLINE);
    assert_eq!(status.code(), Some(0), "{name}: {}", gateway.stderr());
    all_gone(&mut gateway, restart);
    // The end of a process that had begun to take over is no crash, for which starts slow down.
    let history = gateway.state_dir().join("history.jsonl");
    let history = std::fs::read_to_string(history).unwrap();
    assert!(!history.contains("\"planned\":false"), "{name}: {history}");
}

#[test]
fn a_sigterm_to_a_process_that_only_finishes_its_work_leaves_the_new_one_alone() {
    for name in ["old.served", "old.yielded"] {
        let failpoint = Failpoint::new();
        let Some(setup) = respawning() else { return };
        let mut gateway = failpoint.on(setup).start();
        let restart = failpoint.pause(&gateway, name, &["restart"]);
        let new = successor(&gateway);
        gateway.signal(Signal::SIGTERM);
        failpoint.go_on();
        let output = restart.join().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert_eq!(
            gateway.wait_exit(wait::DEADLINE).code(),
            Some(0),
            "{name}: {}",
            gateway.stderr()
        );
        assert_eq!(one_serves(&gateway), new, "{name}");
        gateway.terminate();
    }
}

#[test]
fn a_sigterm_to_a_successor_that_is_not_ready_leaves_the_old_one_alone() {
    for name in ["new.started", "new.alive"] {
        let failpoint = Failpoint::new();
        let Some(setup) = respawning() else { return };
        let mut gateway = failpoint.on(setup).start();
        let load = Load {
            new_per_second: 50.0,
            kept: 4,
            ..Load::on(gateway.target())
        }
        .start();
        let restart = failpoint.pause(&gateway, name, &["restart"]);
        let new = successor(&gateway);
        signal(new, Signal::SIGTERM);
        failpoint.go_on();
        wait_end(new);
        let text = failed(&restart.join().unwrap());
        assert!(text.contains("stop"), "{name}: {text}");
        assert_eq!(one_serves(&gateway), gateway.pid(), "{name}");
        load.flows(Part::New, 10);
        load.stop().assert_clean(&[(Part::New, 10)]);
        fresh(&gateway);
        one_serves(&gateway);
        gateway.terminate();
    }
}

/// From there on it may be the main process that a service manager speaks to.
#[test]
fn a_sigterm_to_the_new_process_once_it_is_ready_is_a_stop_of_everything() {
    for name in ["new.ready", "new.go", "new.accepting", "new.before-serving"] {
        let failpoint = Failpoint::new();
        let Some(setup) = respawning() else { return };
        let mut gateway = failpoint.on(setup).start();
        let restart = failpoint.pause(&gateway, name, &["restart"]);
        signal(successor(&gateway), Signal::SIGTERM);
        failpoint.go_on();
        let asked = Instant::now();
        all_gone(&mut gateway, restart);
        assert!(
            asked.elapsed() < AT_ONCE,
            "{name}: nothing was under way, and it took {:?}\n{}",
            asked.elapsed(),
            gateway.stderr()
        );
    }
}

/// 12 MiB in three seconds.
fn download() -> Download {
    servers::node_download(12 * 1024 * 1024, Duration::from_secs(3))
}

#[test]
fn what_was_begun_before_three_restarts_is_finished_by_the_process_that_began_it() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.start();
    let target = gateway.target();
    let slow = std::thread::spawn(move || block_on(slow_download(&target, &download())));
    gateway.wait_status("the download is under way", |status| {
        status["requests"] == 1
    });
    block_on(async {
        let mut sockets = Vec::new();
        let mut pids = vec![gateway.pid()];
        for number in 0..3 {
            let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
            socket.echo(&format!("hello {number}")).await.unwrap();
            sockets.push(socket);
            pids.push(fresh(&gateway));
        }
        for socket in &mut sockets {
            socket.echo("still here").await.unwrap();
        }
        assert!(
            pids.iter().all(|pid| alive(*pid)),
            "each still has a client: {pids:?}\n{}",
            gateway.stderr()
        );
        let status = gateway.status();
        let drainers: Vec<u64> = status["drainers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["pid"].as_u64())
            .collect();
        assert!(
            pids[..3]
                .iter()
                .all(|pid| drainers.contains(&u64::from(*pid))),
            "{status:#}"
        );
        assert_eq!(slow.join().unwrap(), Ok(None), "the download is whole");
        for mut socket in sockets {
            socket.close(1000).await.unwrap();
            assert!(matches!(socket.next().await, Ok(Frame::Close(1000, _))));
        }
    });
    one_serves(&gateway);
    gateway.terminate();
    assert!(handover::sidecars(&gateway).is_empty());
}

#[test]
fn a_stop_while_predecessors_finish_gives_them_the_time_of_a_stop_and_leaves_nothing() {
    let Some(setup) = respawning() else { return };
    // The harness allows 3 s for a stop.
    let mut gateway = setup.config("[restart]\ntunnel_drain = \"1s\"").start();
    block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..3 {
            let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
            socket.echo("hello").await.unwrap();
            sockets.push(socket);
        }
        let short = {
            let (target, download) = (
                gateway.target(),
                servers::node_download(2 * 1024 * 1024, Duration::from_millis(1500)),
            );
            std::thread::spawn(move || block_on(slow_download(&target, &download)))
        };
        let endless = {
            let (target, download) = (
                gateway.target(),
                servers::node_download(64 * 1024 * 1024, Duration::from_secs(60)),
            );
            std::thread::spawn(move || block_on(slow_download(&target, &download)))
        };
        gateway.wait_status("both are under way", |status| status["requests"] == 2);
        fresh(&gateway);
        let output = gateway.ctl(["stop"]);
        assert!(output.status.success(), "{}", said(&output));
        for socket in &mut sockets {
            let end = tokio::time::timeout(wait::DEADLINE, socket.next())
                .await
                .unwrap();
            assert!(matches!(end, Ok(Frame::Close(1012, _))), "{end:?}");
        }
        assert_eq!(
            short.join().unwrap(),
            Ok(None),
            "it fits into the time of a stop"
        );
        assert!(endless.join().unwrap().is_err(), "it does not");
    });
    gateway.wait_gone(wait::DEADLINE);
    assert!(handover::sidecars(&gateway).is_empty());
}

#[test]
fn a_ninth_draining_process_is_not_made_unless_a_fresh_one_is_asked_for_and_then_the_oldest_is_cut()
{
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.start();
    block_on(async {
        let mut sockets = Vec::new();
        let mut pids = vec![gateway.pid()];
        for _ in 0..8 {
            let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
            socket.echo("hello").await.unwrap();
            sockets.push(socket);
            pids.push(fresh(&gateway));
        }
        assert_eq!(
            family(&gateway).len(),
            9,
            "eight that drain and one that serves"
        );
        let output = gateway.restart();
        assert_eq!(
            gateway.main_pid(),
            pids[8],
            "in the same process: {}",
            said(&output)
        );
        let strategy = gateway.status()["strategy"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            strategy.contains("8 older processes still drain"),
            "{strategy}"
        );
        for socket in &mut sockets {
            socket.echo("still here").await.unwrap();
        }
        pids.push(fresh(&gateway));
        assert!(
            gateway
                .stderr()
                .contains(&format!("pid {} finishes as in a stop", pids[0])),
            "{}",
            gateway.stderr()
        );
        let end = tokio::time::timeout(wait::DEADLINE, sockets[0].next())
            .await
            .unwrap();
        assert!(
            matches!(end, Ok(Frame::Close(1012, _))),
            "the oldest is cut: {end:?}"
        );
        for socket in &mut sockets[1..] {
            socket.echo("still here").await.unwrap();
        }
    });
    gateway.terminate();
    assert!(handover::sidecars(&gateway).is_empty());
}

#[test]
fn sigusr2_brings_a_fresh_process_and_sigusr1_what_fits() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.config("[restart]\nmode = \"in-process\"").start();
    gateway.signal(Signal::SIGUSR2);
    let new = wait::until("another process serves", || {
        Some(gateway.main_pid()).filter(|pid| *pid != gateway.pid())
    });
    assert_eq!(one_serves(&gateway), new);
    let before = gateway.sidecar_pid("main");
    signal(new, Signal::SIGUSR1);
    gateway.wait_status("another sidecar serves", |status| {
        status["stage"] == "ready"
            && status["sidecars"][0]["pid"] != before
            && status["sidecars"][0]["state"] == "ready"
    });
    assert_eq!(one_serves(&gateway), new, "in the same process");
    gateway.terminate();
}

#[test]
fn signals_to_restart_are_refused_where_the_configuration_says_so() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.config("[restart]\nexternal_signal = false").start();
    gateway.signal(Signal::SIGUSR2);
    gateway.wait_line("SIGUSR2 is refused: [restart] external_signal is false");
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_line("SIGUSR1 is refused: [restart] external_signal is false");
    assert_eq!(one_serves(&gateway), gateway.pid());
    fresh(&gateway);
    gateway.terminate();
}

#[test]
fn a_variable_forbids_fresh_processes() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup
        .env("GATEWAY_NO_RESPAWN", "1")
        .config("[restart]\nmode = \"respawn\"")
        .start();
    gateway.restart();
    assert_eq!(one_serves(&gateway), gateway.pid(), "in the same process");
    let text = failed(&gateway.ctl(["restart", "--fresh"]));
    assert!(
        text.contains("GATEWAY_NO_RESPAWN forbids a fresh process"),
        "{text}"
    );
    assert_eq!(one_serves(&gateway), gateway.pid());
    gateway.terminate();
}

#[test]
fn thirty_fresh_processes_hold_no_more_than_the_first() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.start();
    let fds = |pid: u32| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    let mut pids = HashSet::from([gateway.pid()]);
    fresh(&gateway);
    let second = one_serves(&gateway);
    let (first_fds, first_memory) = (fds(second), crate::support::gateway::memory_kib(second).0);
    pids.insert(second);
    for _ in 0..29 {
        assert!(pids.insert(fresh(&gateway)), "a pid of its own");
    }
    let last = one_serves(&gateway);
    wait::within(wait::DEADLINE, || {
        (fds(last) <= first_fds + SLACK).then_some(())
    })
    .unwrap_or_else(|| {
        panic!(
            "{} descriptors, {first_fds} in the second process",
            fds(last)
        )
    });
    let memory = crate::support::gateway::memory_kib(last).0;
    assert!(
        memory < first_memory * 5 / 4 + 1024,
        "{memory} KiB, {first_memory} KiB in the second process"
    );
    let environment = std::fs::read(format!("/proc/{last}/environ"))
        .unwrap()
        .len();
    let before =
        std::fs::read(format!("/proc/{second}/environ")).map_or(environment, |text| text.len());
    assert_eq!(environment, before, "the environment does not grow");
    gateway.terminate();
    assert_eq!(
        block_on(crate::support::client::get(&gateway.target(), "/")).unwrap_err(),
        Fault::Refused
    );
}
