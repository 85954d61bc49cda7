//! A server that can run only once goes from process to process: two copies never run at once, and
//! clients wait instead of failing.

use std::fs;
use std::time::Duration;

use crate::support::client::{Conn, block_on};
use crate::support::gateway::{READY, Setup, said};
use crate::support::handover::{self, Failpoint, alive, failed, fresh, one_serves, respawning};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::servers;

/// The Node server that ends at once, with a line on stderr, when another copy holds its lock.
fn locked(dir: &std::path::Path, broken: &std::path::Path) -> Option<Setup> {
    let setup = respawning().filter(|_| servers::have("flock"))?;
    let script = format!(
        "if [ -s {0} ]; then cat {0} >&2; exit 3; fi; \
         exec 9<>{1}; flock --nonblock 9 || {{ echo 'two copies at once' >&2; exit 9; }}; exec \"$@\"",
        broken.display(),
        dir.join("lock").display()
    );
    let mut command = vec!["sh".to_owned(), "-c".into(), script, "sh".into()];
    command.extend(servers::node());
    Some(setup.command(command).flag("--exclusive"))
}

fn patient(gateway: &crate::support::gateway::Gateway) -> crate::support::load::Running {
    let patience = Duration::from_secs(35);
    let load = Load {
        new_per_second: 50.0,
        kept: 10,
        patience,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    load
}

#[test]
fn a_server_with_a_lock_goes_through_ten_processes_and_no_request_fails() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = locked(dir.path(), &dir.path().join("broken")) else {
        return;
    };
    let mut gateway = setup.start();
    let load = patient(&gateway);
    for _ in 0..10 {
        fresh(&gateway);
    }
    load.flows(Part::New, 20);
    let report = load.stop();
    eprintln!("10 fresh processes with a server that runs only once: {report}");
    report.assert_clean(&[(Part::New, 60), (Part::Busy, 30), (Part::Idle, 3)]);
    one_serves(&gateway);
    let log = gateway.stderr();
    assert!(!log.contains("two copies at once"), "{log}");
    assert_eq!(log.matches(READY).count(), 11, "{log}");
    gateway.terminate();
    assert!(handover::sidecars(&gateway).is_empty());
}

#[test]
fn what_an_older_process_has_at_a_server_that_runs_only_once_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = locked(dir.path(), &dir.path().join("broken")) else {
        return;
    };
    let mut gateway = setup.env("STOP_AT_ONCE", "1").start();
    let first = gateway.pid();
    let download = servers::node_download(3 * 1024 * 1024, Duration::from_secs(3));
    block_on(async {
        // A process that has read half of the next head keeps the client.
        let half = "GET /pid HTTP/1.1\r\nHost: test\r\n\r\nGET ";
        let mut client = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(client.exchange(half).await.unwrap().status(), 200);
        let second = fresh(&gateway);
        let mut other = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(other.exchange(half).await.unwrap().status(), 200);
        fresh(&gateway);
        let rest = format!("{} HTTP/1.1\r\nHost: test\r\n\r\n", download.path);
        client.send(rest).await.unwrap();
        assert_eq!(client.head().await.unwrap().status(), 200);
        assert!(alive(first) && alive(second), "each has its client");
        // The server, which must end now, is that of the third one.
        fresh(&gateway);
        let body = client.take(3 * 1024 * 1024).await;
        assert!(body.is_ok(), "{:?}\n{}", body.err(), gateway.stderr());
        let next = client
            .exchange("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
            .await;
        assert_eq!(next.unwrap().status(), 200);
    });
    one_serves(&gateway);
    let log = gateway.stderr();
    assert!(!log.contains("two copies at once"), "{log}");
    gateway.terminate();
}

#[test]
fn a_successor_whose_server_fails_gives_it_back_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    let Some(setup) = locked(dir.path(), &broken) else {
        return;
    };
    let mut gateway = setup.start();
    let before = gateway.sidecar_pid("main");
    let load = patient(&gateway);
    fs::write(&broken, "the table `users` is missing\n").unwrap();
    let restart = gateway.ctl_aside(["restart"]);
    // The old process starts the same script again, which needs its old state back.
    gateway.wait_line("the table `users` is missing");
    fs::write(&broken, "").unwrap();
    let text = failed(&restart.join().unwrap());
    assert!(text.contains("the table `users` is missing"), "{text}");
    assert_eq!(one_serves(&gateway), gateway.pid());
    assert_ne!(gateway.sidecar_pid("main"), before, "it had been released");
    load.flows(Part::New, 20);
    load.stop().assert_clean(&[(Part::New, 40)]);
    fresh(&gateway);
    one_serves(&gateway);
    assert!(
        !gateway.stderr().contains("two copies at once"),
        "{}",
        gateway.stderr()
    );
    gateway.terminate();
}

/// Whichever process dies, its server dies with it before the other's begins.
fn killed_at(name: &str) {
    let (dir, failpoint) = (tempfile::tempdir().unwrap(), Failpoint::new());
    let Some(setup) = locked(dir.path(), &dir.path().join("broken")) else {
        return;
    };
    let mut gateway = failpoint.on(setup).start();
    failpoint.arm(name, "kill");
    let output = gateway.ctl(["restart"]);
    failpoint.wait_reached();
    gateway.exited();
    one_serves(&gateway);
    let log = gateway.stderr();
    assert!(
        !log.contains("two copies at once"),
        "{name}: {}\n{log}",
        said(&output)
    );
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
    handover::no_sidecar(&gateway);
}

#[test]
fn two_copies_never_run_at_once_when_the_old_process_dies() {
    for name in [
        "old.spawned",
        "old.release",
        "old.before-mainpid",
        "old.served",
    ] {
        killed_at(name);
    }
}
