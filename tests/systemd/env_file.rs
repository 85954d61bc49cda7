//! Variables of a service: where they come from, and how an edit of them gets to the server.

use crate::support::report::Part;
use crate::support::site::{MIRROR, Site, all_of, expect, load_on_front, with_mirror};
use serde_json::Value;

const FILE: &str = "/srv/app.env";

/// New connections a second.
const RATE: f64 = 30.0;

fn install(site: &Site<'_>, flags: &[&str]) -> std::process::Output {
    let server = ["--", "python3", MIRROR, "{port}"];
    site.run(&[&["gatewayctl", "install", "--now"], flags, &server].concat())
}

fn variable(site: &Site<'_>, name: &str) -> Value {
    let url = "http://127.0.0.1:18789/";
    let text = site.must(&["curl", "-sSf", url]);
    serde_json::from_str::<Value>(&text).unwrap()["env"][name].clone()
}

/// What `status` and doctor say is not applied.
fn unapplied(site: &Site<'_>) -> Vec<String> {
    let files = site.status()["unapplied"].clone();
    let files = files.as_array().cloned().unwrap_or_default();
    let mut named: Vec<String> = (files.iter())
        .map(|file| file["file"].as_str().unwrap().to_owned())
        .collect();
    named.sort();
    let doctor = all_of(&site.run(&["gatewayctl", "doctor"]));
    assert_eq!(
        doctor.contains("change-not-applied"),
        !named.is_empty(),
        "{named:?}: {doctor}"
    );
    named
}

#[test]
fn an_edited_env_file_of_a_service_is_applied_by_reload_and_restart() {
    let Some(systemd) = with_mirror("envfile") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    systemd.write(FILE, "export COLOR=red\nPORT=3000 # web\nLEVEL=file\n");
    let flags = ["--env-file", FILE, "--set", "LEVEL=set"];
    let port = format!("note: PORT=3000 from {FILE} is not used");
    expect(&install(&site, &flags), 0, &["installed and ready", &port]);
    let unit = systemd.read("/etc/systemd/system/gateway.service").unwrap();
    assert!(!unit.contains(FILE), "{unit}");
    assert_eq!(variable(&site, "COLOR"), "red");
    assert_eq!(variable(&site, "LEVEL"), "set", "--set wins");
    assert_eq!(variable(&site, "GATEWAY_SET_NAMES"), Value::Null);
    assert!(unapplied(&site).is_empty());
    let load = load_on_front(&systemd, RATE);
    for (command, color) in [
        (&["gatewayctl", "reload"][..], "green"),
        (&["gatewayctl", "restart"], "blue"),
        (&["systemctl", "reload", "gateway"], "black"),
    ] {
        systemd.write(FILE, &format!("COLOR='{color}' # now\n"));
        assert_eq!(unapplied(&site), [FILE], "before {command:?}");
        site.must(command);
        assert_eq!(variable(&site, "COLOR"), color, "{command:?}");
        assert!(unapplied(&site).is_empty(), "after {command:?}");
    }
    let pid = site.main_pid();
    systemd.write(FILE, "COLOR=white\nTOKEN canary-1\n");
    let bad = site.run(&["gatewayctl", "restart"]);
    expect(&bad, 78, &["/srv/app.env:2: `TOKEN` has no value"]);
    assert!(!all_of(&bad).contains("canary"), "{}", all_of(&bad));
    assert_eq!(
        (variable(&site, "COLOR"), site.main_pid()),
        ("black".into(), pid)
    );
    load.stop().assert_clean(&[(Part::New, 30)]);
    site.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn an_env_file_that_only_root_may_read_is_applied_by_a_restart_without_a_loss() {
    let Some(systemd) = with_mirror("rootenv") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let write = |text: &str| {
        systemd.write(FILE, text);
        systemd.must(&["chmod", "600", FILE]);
    };
    write("export COLOR=red # the first\n");
    expect(
        &install(&site, &["--env-file", FILE]),
        0,
        &["installed and ready"],
    );
    let unit = systemd.read("/etc/systemd/system/gateway.service").unwrap();
    let line = format!("LoadCredential=env-file.main:{FILE}");
    assert!(unit.contains(&line), "{unit}");
    assert_eq!(variable(&site, "COLOR"), "red");
    // Another main process with the variables of the first.
    site.must(&["gatewayctl", "restart", "--fresh"]);
    assert!(unapplied(&site).is_empty());

    let load = load_on_front(&systemd, RATE);
    write("COLOR=blue\n");
    assert_eq!(unapplied(&site), [FILE]);
    let note = "not applied: /srv/app.env (variables) changed; gatewayctl restart";
    expect(&site.run(&["gatewayctl", "reload"]), 0, &[note]);
    assert_eq!(variable(&site, "COLOR"), "red");
    let plan = "/srv/app.env (variables) changed after gateway.service was started";
    expect(&site.run(&["gatewayctl", "restart"]), 0, &[plan]);
    assert_eq!(variable(&site, "COLOR"), "blue");
    assert!(unapplied(&site).is_empty());

    // What would leave the service down is refused before anything ends.
    let pid = site.main_pid();
    write("COLOR=green\nexport\n");
    expect(
        &site.run(&["gatewayctl", "restart"]),
        78,
        &["/srv/app.env:2: "],
    );
    systemd.must(&["rm", FILE]);
    assert_eq!(unapplied(&site), [FILE]);
    expect(
        &site.run(&["gatewayctl", "restart"]),
        78,
        &["cannot read /srv/app.env: No such file"],
    );
    assert_eq!(
        (variable(&site, "COLOR"), site.main_pid()),
        ("blue".into(), pid)
    );
    load.stop().assert_clean(&[(Part::New, 30)]);
    site.must(&["gatewayctl", "uninstall"]);
}

#[test]
fn a_drop_in_is_applied_by_restart_without_daemon_reload() {
    let Some(systemd) = with_mirror("dropin") else {
        return;
    };
    let machine = Site::of_machine(&systemd);
    let user = Site::of_user(&systemd, systemd.add_user("ada"));
    for site in [machine, user] {
        expect(&install(&site, &[]), 0, &["installed and ready"]);
        assert!(unapplied(&site).is_empty());
        let load = load_on_front(&systemd, RATE);
        for color in ["blue", "green"] {
            let text = format!("[Service]\nEnvironment=COLOR={color}\n");
            systemd.write(&site.drop_in(), &text);
            if color == "green" {
                // Read by systemd, and still not applied.
                site.must_systemctl(&["daemon-reload"]);
            }
            assert_eq!(unapplied(&site), [site.drop_in()]);
            expect(
                &site.run(&["gatewayctl", "restart"]),
                0,
                &["(drop-in) changed"],
            );
            assert_eq!(variable(&site, "COLOR"), color);
            assert!(unapplied(&site).is_empty());
        }
        load.stop().assert_clean(&[(Part::New, 20)]);
        // A crash starts it with what is there.
        site.must(&["kill", "-KILL", &site.main_pid().to_string()]);
        crate::support::site::back(&site, 0);
        assert!(unapplied(&site).is_empty());
        site.must(&["gatewayctl", "uninstall"]);
        systemd.must(&["rm", "-rf", &site.drop_in()]);
    }
}

#[test]
fn root_reads_no_env_file_for_a_service_that_another_user_can_replace() {
    let Some(systemd) = with_mirror("otherenv") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let ada = systemd.add_plain_user("ada");
    let bob = systemd.add_plain_user("bob");
    systemd.sh(&format!(
        "chmod 711 /home/{0}; (umask 077; echo X=1 > /home/{0}/root.env); mkfifo /srv/pipe; mkdir /srv/link; ln -s /dev/zero /srv/link/env",
        ada.name
    ));
    let file = format!("/home/{}/root.env", ada.name);
    for user in [&ada, &bob] {
        expect(
            &install(&site, &["--run-as", &user.name, "--env-file", &file]),
            5,
            &["root must not read it", &ada.name, "chmod 640"],
        );
    }
    for file in ["/srv/pipe", "/srv/link/env"] {
        expect(
            &install(&site, &["--env-file", file]),
            2,
            &["is not a regular file"],
        );
    }
    systemd.write(FILE, "A=1\nB\n");
    expect(
        &install(&site, &["--env-file", FILE]),
        78,
        &["/srv/app.env:2: "],
    );
    assert_eq!(systemd.sh("find /etc /run /var/lib -name '*gateway*'"), "");
}
