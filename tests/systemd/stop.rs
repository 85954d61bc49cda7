//! `systemctl stop` lets go of the fd store, so the gateway answers to its last moment; `systemctl
//! restart` keeps it, so clients wait for the next process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{Target, block_on, get};
use crate::support::report::Part;
use crate::support::site::{FRONT, Site, back, load_on_front, prepared};
use crate::support::{knock, wait};

/// Longer than the clients need to see a stop, shorter than its drain.
const SLOW: &str = "/slow?ms=1500";

/// A server that takes as long to listen as its clients here need to come, and no longer than they
/// are left in the listen queue.
const SLOW_START: &str = "START_DELAY_MS=1000";

/// Clients of a gateway that starts.
const CLIENTS: usize = 20;

#[test]
fn a_stopped_service_answers_to_its_last_moment_and_a_restarted_one_lets_clients_wait() {
    let Some(systemd) = prepared("stop") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    site.settled();

    let slow = || systemd.in_netns(|| block_on(get(&Target::Tcp(FRONT), SLOW)));
    let under_way = || {
        wait::until("the request is under way", || {
            (site.status()["requests"] == 1).then_some(())
        });
    };
    std::thread::scope(|scope| {
        let work = scope.spawn(slow);
        under_way();
        let load = load_on_front(&systemd, 50.0);
        site.must_systemctl(&["restart", "gateway"]);
        load.flows(Part::New, 20);
        let report = load.stop();
        assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
        assert_eq!(work.join().unwrap().unwrap().status(), 200);
    });

    site.settled();
    std::thread::scope(|scope| {
        let work = scope.spawn(slow);
        under_way();
        let clients = scope.spawn(|| systemd.in_netns(|| knock::until_refused(FRONT, true)));
        site.must_systemctl(&["--no-block", "stop", "gateway"]);
        let statuses = clients.join();
        let statuses = statuses.unwrap_or_else(|_| panic!("{}", site.journal()));
        let served = statuses.iter().filter(|status| **status == 200).count();
        let turned = statuses.iter().filter(|status| **status == 503).count();
        assert!(served > 0, "{statuses:?}\n{}", site.journal());
        assert_eq!(served + turned, statuses.len(), "{statuses:?}");
        assert_eq!(work.join().unwrap().unwrap().status(), 200);
    });
    let stopped = wait::within(Duration::from_secs(10), || {
        (site.property("gateway.service", "ActiveState") == "inactive").then_some(())
    });
    assert!(stopped.is_some(), "{}", site.journal());
}

#[test]
fn a_server_that_dies_while_its_gateway_is_restarted_costs_no_waiting_client_its_answer() {
    let Some(systemd) = prepared("stop-death") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name]);
    site.settled();
    let gateway = site.main_pid();
    let load = load_on_front(&systemd, 50.0);

    // It holds the stop open: longer than what follows, shorter than the drain of a stop.
    let mut work = systemd
        .command(&["gatewayctl", "inhibit", "--why", "test", "--", "sleep", "5"])
        .spawn()
        .unwrap();
    wait::until("the work is known", || {
        (site.status()["leases"].as_array()?.len() == 1).then_some(())
    });
    site.must_systemctl(&["--no-block", "restart", "gateway"]);
    wait::until("it stops", || {
        (site.status()["stage"] == "stopping").then_some(())
    });
    let mut dead = 0;
    // The first run is followed by the next at once, the second after a wait.
    for _ in 0..2 {
        let sidecar = || site.status()["sidecars"][0]["pid"].as_u64();
        let pid = wait::until("another run", || {
            sidecar().filter(|pid| *pid != 0 && *pid != dead)
        });
        site.must(&["kill", "-9", &pid.to_string()]);
        dead = pid;
    }
    load.flows(Part::New, 20);
    assert_eq!(site.main_pid(), gateway, "it still stops");
    work.wait().unwrap();
    back(&site, gateway);
    load.flows(Part::New, 20);
    let report = load.stop();
    // What was at the server when it was killed is given to no other.
    let killed = report.failures_of("status 502");
    assert_eq!(report.failures(), killed, "{report}\n{}", site.journal());
    assert!(killed <= 10, "{report}\n{}", site.journal());
}

#[test]
fn clients_who_come_while_a_gateway_starts_outlive_its_death() {
    let Some(systemd) = prepared("start-death") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let app = systemd.add_plain_user("app");
    site.install(&["--run-as", &app.name, "--set", SLOW_START]);
    site.settled();
    let gateway = site.main_pid();
    site.must(&["kill", "-9", &gateway.to_string()]);
    let second = wait::until("the next process starts its server", || {
        let pid = site.main_pid();
        let begun = site.journal().matches("sidecar main starting").count();
        (pid != 0 && pid != gateway && begun == 2).then_some(pid)
    });
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = systemd.in_netns(|| TcpStream::connect(FRONT).unwrap());
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            client.write_all(request).unwrap();
            client
        })
        .collect();
    site.must(&["kill", "-9", &second.to_string()]);
    back(&site, second);
    for mut client in clients {
        let mut answer = String::new();
        client.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let read = client.read_to_string(&mut answer);
        let journal = || site.journal();
        assert!(read.is_ok(), "{read:?}\n{}", journal());
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "{answer}\n{}",
            journal()
        );
    }
}
