//! Listen addresses that a service cannot have yet, under a real systemd.

use crate::support::site::{NODE_APP, Site, all_of, expect, node, prepared};
use crate::support::{servers, wait};

/// What DHCP or a VPN brings after the start.
const LATER: &str = "10.77.0.2";

fn answers(site: &Site<'_>) -> bool {
    let url = format!("http://{LATER}:18789/healthz");
    site.run(&["curl", "-sf", "-m", "5", "-o", "/dev/null", &url])
        .status
        .success()
}

#[test]
fn an_address_that_comes_after_the_start_is_served_once_it_is_there() {
    let Some(systemd) = prepared("absent").filter(|_| servers::have("node") && servers::have("ip"))
    else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let listen = format!("{LATER}:18789");
    for more in [&[][..], &["--socket"]] {
        let install = ["gatewayctl", "install", "--now", "--listen", &listen];
        site.must(&[&install, more, &node()].concat());
        assert_eq!(site.status()["stage"], "ready", "{}", site.journal());
        assert_eq!(site.property("gateway.service", "NRestarts"), "0");
        if more.is_empty() {
            let told = format!("this machine does not have the address {LATER} now");
            assert!(site.journal().contains(&told), "{}", site.journal());
        }
        assert!(!answers(&site));
        site.must(&["ip", "address", "add", &format!("{LATER}/32"), "dev", "lo"]);
        wait::until("it answers at the address", || answers(&site).then_some(()));
        site.must(&["ip", "address", "del", &format!("{LATER}/32"), "dev", "lo"]);
        site.must(&["gatewayctl", "uninstall"]);
    }
}

#[test]
fn whatever_a_bind_fails_with_a_service_waits_and_says_why() {
    let Some(systemd) = prepared("unbound").filter(|_| servers::have("node")) else {
        return;
    };
    let app = systemd.add_plain_user("app");
    let site = Site::of_machine(&systemd);
    let listen = "unix:/srv/later/a.sock";
    let install = [
        "gatewayctl",
        "install",
        "--run-as",
        &app.name,
        "--sandbox",
        "off",
        "--listen",
        "127.0.0.1:18789",
        "--listen",
        listen,
        "--",
        "node",
        NODE_APP,
        "{port}",
    ];
    site.must(&install);
    let output = site.run(&["gatewayctl", "start"]);
    let told = format!("unable to listen on {listen}: No such file or directory");
    expect(&output, 5, &[&told, "gatewayctl logs --instance gateway"]);
    expect(&site.run(&["gatewayctl", "status"]), 4, &[&told]);
    assert_eq!(site.property("gateway.service", "NRestarts"), "0");
    let said = site.journal().matches(&told).count();
    assert_eq!(said, 1, "{}", site.journal());

    systemd.sh(&format!(
        "mkdir /srv/later && chown {}: /srv/later",
        app.name
    ));
    wait::until("it serves", || {
        site.run(&["gatewayctl", "status"])
            .status
            .success()
            .then_some(())
    });
    assert_eq!(site.property("gateway.service", "NRestarts"), "0");
    // A wait is no crash: none of it is left for the ladder.
    let again = site.run(&["gatewayctl", "restart", "--force"]);
    assert!(again.status.success(), "{}", all_of(&again));
    assert_eq!(site.status()["stage"], "ready", "{}", site.journal());
}

/// "see `gatewayctl clean`", which ends nothing but gateways.
#[test]
fn who_has_the_address_is_named_with_the_command_that_ends_it() {
    let Some(systemd) = prepared("holder").filter(|_| servers::have("python3")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    systemd.sh("systemd-run --quiet --unit=web python3 -m http.server --bind 127.0.0.1 18789");
    let site = &site;
    wait::until("it listens", || {
        let url = "http://127.0.0.1:18789/";
        let answer = site.run(&["curl", "-sf", "-o", "/dev/null", url]);
        answer.status.success().then_some(())
    });
    let ends = "systemctl stop web.service";
    let run = &["gateway", "run", "--", "true"][..];
    let install = &["gatewayctl", "install", "--now", "--", "true"][..];
    for (command, code, told) in [
        (run, 1, " of web.service (system scope)"),
        (run, 1, "or choose another address with --listen"),
        (install, 5, "install --listen ADDRESS"),
        (&["gatewayctl", "clean"], 5, "another address (`listen`)"),
    ] {
        expect(&site.run(command), code, &["python3 (pid ", ends, told]);
    }
    site.must(&["systemctl", "stop", "web.service"]);
    let free = site.run(&["gateway", "run", "--", "true"]);
    assert!(!all_of(&free).contains("is held by"), "{}", all_of(&free));
}
