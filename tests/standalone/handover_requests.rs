//! What is asked while one process takes over from another: it is done by the one that serves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::client::block_on;
use crate::support::gateway::said;
use crate::support::handover::{Failpoint, alive, fresh, one_serves, respawning};
use crate::support::load::slow_download;
use crate::support::{servers, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn a_restart_that_is_asked_for_while_the_successor_gets_ready_joins_it() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let first = failpoint.pause(&gateway, "new.alive", &["restart", "--fresh"]);
    let second = gateway.ctl_aside(["restart", "--fresh"]);
    wait::until("both are asked", || {
        (gateway.stderr().matches(" asked: ").count() == 2).then_some(())
    });
    failpoint.go_on();
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert!(
        first.status.success() && second.status.success(),
        "{}{}",
        said(&first),
        said(&second)
    );
    assert!(
        said(&second).contains("joined restart"),
        "{}",
        said(&second)
    );
    one_serves(&gateway);
    assert_eq!(
        gateway
            .stderr()
            .matches(crate::support::gateway::LISTENING)
            .count(),
        2,
        "one fresh process for both"
    );
    gateway.terminate();
}

#[test]
fn what_is_asked_while_the_successor_takes_over_is_asked_there_again() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    // It accepts and owns the control socket, but has not said so.
    let first = failpoint.pause(&gateway, "old.served", &["restart", "--fresh"]);
    // On the socket of before, which the old process answers when it goes on.
    gateway.signal(Signal::SIGHUP);
    gateway.signal(Signal::SIGUSR2);
    failpoint.go_on();
    let first = first.join().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    for signal in ["SIGHUP", "SIGUSR2"] {
        wait::until(signal, || {
            let twice = gateway
                .stderr()
                .matches(&format!("asked: {signal}"))
                .count()
                == 2;
            twice.then_some(())
        });
    }
    assert!(!gateway.stderr().contains("SIGUSR1"));
    let new = one_serves(&gateway);
    assert_ne!(new, gateway.pid());
    let reloaded = gateway.ctl(["reload"]);
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    fresh(&gateway);
    gateway.terminate();
}

/// The code of the failure with which a request is answered.
fn refused(control: &mut BufReader<UnixStream>, method: &str, params: Value) -> Value {
    let request = json!({"type": "req", "id": method, "method": method, "params": params});
    control
        .get_mut()
        .write_all(format!("{request}\n").as_bytes())
        .unwrap();
    let mut line = String::new();
    control.read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"]["code"].clone()
}

#[test]
fn a_stop_that_reaches_the_process_that_has_handed_over_is_not_lost() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.start();
    let control = UnixStream::connect(gateway.state_dir().join("run/control.sock")).unwrap();
    let mut control = BufReader::new(control);
    let target = gateway.target();
    let download = servers::node_download(12 * 1024 * 1024, Duration::from_secs(3));
    let reading = std::thread::spawn(move || block_on(slow_download(&target, &download)));
    gateway.wait_status("the download is under way", |status| {
        status["requests"] == 1
    });
    let new = fresh(&gateway);

    // Its download keeps it, and its connections of before are still open.
    for (method, params) in [
        ("stop", json!({})),
        ("recover", json!({})),
        ("inhibit", json!({"why": "a backup"})),
        ("restart", json!({})),
    ] {
        let code = refused(&mut control, method, params);
        assert_eq!(code, "moved", "{method}: {}", gateway.stderr());
    }
    assert!(alive(gateway.pid()) && alive(new), "{}", gateway.stderr());
    assert_eq!(reading.join().unwrap(), Ok(None));
    assert_eq!(one_serves(&gateway), new);
    gateway.terminate();
}
