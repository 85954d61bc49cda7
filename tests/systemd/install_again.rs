//! A second `gatewayctl install` changes what it names, and nothing else.

use crate::support::servers;
use crate::support::site::{MIRROR, all_of, expect, prepared, with_mirror};
use serde_json::Value;

#[test]
fn a_second_install_resets_nothing_that_was_chosen() {
    let Some(systemd) = with_mirror("again") else {
        return;
    };
    let ada = systemd.add_plain_user("ada");
    systemd.write("/srv/app.env", "FROM_FILE=yes\n");
    let install = |flags: &[&str]| systemd.run(&[&["gatewayctl", "install"], flags].concat());
    let behind = |flags: &[&str]| {
        let command = ["--", "python3", MIRROR, "{port}"];
        install(&[&["--now"], flags, &command].concat())
    };
    let mirror = |port: u16| -> Value {
        let url = format!("http://127.0.0.1:{port}/");
        serde_json::from_str(&systemd.must(&["curl", "-sSf", &url])).unwrap()
    };
    let config = || systemd.read("/etc/gateway/gateway.toml").unwrap();
    let unit = || systemd.read("/etc/systemd/system/gateway.service").unwrap();

    expect(&install(&["--now"]), 2, &["nothing to serve", "-- COMMAND"]);
    assert_eq!(
        systemd.sh("find /etc /run /var/lib -name '*gateway*'"),
        "",
        "nothing was changed"
    );

    let chosen = [
        "--exclusive",
        "--run-as",
        &ada.name,
        "--listen",
        "127.0.0.1:8080",
        "--ready",
        "/",
        "--start-timeout",
        "2m",
        "--env-file",
        "/srv/app.env",
        "--sandbox",
        "off",
    ];
    expect(
        &behind(&chosen),
        0,
        &["installed and ready on 127.0.0.1:8080"],
    );
    let (first, first_unit) = (config(), unit());

    let second = behind(&["--set", "FOO=bar"]);
    expect(
        &second,
        0,
        &[
            "updated and ready on 127.0.0.1:8080",
            "as before: --listen, --exclusive, --ready, --start-timeout, --run-as, --env-file, --sandbox (--unset takes one back)",
        ],
    );
    assert_eq!(config(), first);
    let without = |text: &str| -> Vec<String> {
        let lines = text.lines().skip(1).map(str::to_owned);
        lines.filter(|line| !line.contains("secrets.env")).collect()
    };
    assert_eq!(without(&unit()), without(&first_unit));
    let seen = mirror(8080);
    assert_eq!(seen["env"]["FOO"], "bar", "{seen:#}");
    assert_eq!(seen["env"]["FROM_FILE"], "yes", "{seen:#}");
    assert_eq!(seen["uid"], ada.uid, "{seen:#}");

    // Without the command, too; and what is taken back is as if it had never been chosen.
    expect(
        &install(&["--now", "--unset", "exclusive", "--unset", "sandbox"]),
        0,
        &["updated and ready"],
    );
    assert!(!config().contains("overlap"), "{}", config());
    assert!(unit().contains("NoNewPrivileges=yes"), "{}", unit());
    assert!(unit().contains(&format!("User={}", ada.name)), "{}", unit());
    assert_eq!(mirror(8080)["env"]["FOO"], "bar");
    expect(
        &install(&["--now", "--unset", "app-port"]),
        0,
        &["already installed"],
    );
    let wrong = install(&["--unset", "colour"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", all_of(&wrong));
    systemd.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn a_service_follows_the_link_from_which_it_was_installed() {
    let Some(systemd) = prepared("link").filter(|_| servers::have("python3")) else {
        return;
    };
    let deploy = |number: u32| {
        let app = "/srv/app";
        systemd.write(
            &format!("{app}/releases/{number}/version"),
            &number.to_string(),
        );
        systemd.sh(&format!("ln -sfn {app}/releases/{number} {app}/current"));
    };
    let version = || systemd.must(&["curl", "-sSf", "http://127.0.0.1:18789/version"]);
    let install = "cd /srv/app/current && exec gatewayctl install --now --run-as nobody -- python3 -m http.server --bind 127.0.0.1 {port}";
    deploy(1);
    expect(
        &systemd.run(&["sh", "-c", install]),
        0,
        &["installed and ready"],
    );
    assert_eq!(version(), "1");
    deploy(2);
    systemd.must(&["rm", "-r", "/srv/app/releases/1"]);
    systemd.must(&["gatewayctl", "restart"]);
    assert_eq!(version(), "2");
    deploy(3);
    systemd.must(&["gatewayctl", "restart", "--fresh"]);
    assert_eq!(version(), "3");
    // From there, the same install is the same.
    expect(
        &systemd.run(&["sh", "-c", install]),
        0,
        &["already installed"],
    );
    systemd.must(&["gatewayctl", "uninstall"]);
}
