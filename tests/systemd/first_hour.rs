//! What somebody meets in the first hour with a service: a file to start from, a first install, a server
//! that is slow, a second life after an uninstall.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use crate::support::base::Base;
use crate::support::site::{NODE_APP, Site, all_of, back, expect, prepared, prepared_on};
use crate::support::{servers, wait};
use serde_json::Value;

/// An install of the Node server with these flags.
fn behind<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let (before, after) = (
        ["gatewayctl", "install", "--now"],
        ["--", "node", NODE_APP, "{port}"],
    );
    [&before, more, &after].concat()
}

#[test]
fn a_starter_that_nobody_edited_serves_nothing_and_uninstall_knows_who_wrote_it() {
    let Some(systemd) = prepared("starter").filter(|_| servers::have("node")) else {
        return;
    };
    let file = "/etc/gateway/gateway.toml";
    systemd.must(&["gatewayctl", "config", "init"]);
    let unedited = systemd.run(&["gatewayctl", "install", "--now"]);
    expect(&unedited, 2, &["nothing to serve", file, "[sidecar.main]"]);
    assert!(!systemd.path("/etc/systemd/system/gateway.service").exists());

    // An unedited one is replaced by what a command says.
    let behind = [
        "gatewayctl",
        "install",
        "--now",
        "--",
        "node",
        NODE_APP,
        "{port}",
    ];
    systemd.must(&behind);
    let removed = systemd.run(&["gatewayctl", "uninstall"]);
    assert!(removed.status.success() && !all_of(&removed).contains("stays"));
    assert!(!systemd.path(file).exists());

    systemd.must(&["gatewayctl", "config", "init"]);
    systemd.sh(&format!(
        "printf '[sidecar.main]\\ncommand = [\"node\", \"{NODE_APP}\", \"{{port}}\"]\\n' >> {file}"
    ));
    systemd.must(&["gatewayctl", "install", "--now"]);
    let removed = all_of(&systemd.run(&["gatewayctl", "uninstall"]));
    assert!(
        removed.contains("was changed since gatewayctl wrote it")
            && !removed.contains("was not written by gatewayctl"),
        "{removed}"
    );
}

#[test]
fn systemctl_calls_an_installed_service_enabled_and_nothing_is_left_to_reload() {
    enabled_and_loaded(Base::Machine);
}

/// Installs in both scopes, which systemd knows as they are on disk.
pub fn enabled_and_loaded(base: Base) {
    let Some(systemd) = prepared_on(base, "enabled").filter(|_| servers::have("node")) else {
        return;
    };
    let ada = systemd.add_user("ada");
    for site in [Site::of_machine(&systemd), Site::of_user(&systemd, ada)] {
        let scope: &[&str] = match &site.user {
            Some(_) => &["--user", "--listen", "18790"],
            None => &[],
        };
        site.install(scope);
        let unit = "gateway.service";
        assert_eq!(site.property(unit, "NeedDaemonReload"), "no");
        assert_eq!(site.property(unit, "UnitFileState"), "enabled");
        let status = site.must_systemctl(&["status", "--no-pager", unit]);
        assert!(status.contains("; enabled;"), "{status}");
        let doctor =
            all_of(&site.run(&[&["gatewayctl", "doctor"], &scope[..scope.len().min(1)]].concat()));
        assert!(!doctor.contains("unit-reload-needed"), "{doctor}");
    }
}

/// Its watchdog is what its unit says, though systemd has none to report before the first start.
#[test]
fn doctor_believes_the_line_that_it_points_at() {
    let Some(systemd) = prepared("watchdog").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let install = [
        "gatewayctl",
        "install",
        "--instance",
        "api",
        "--",
        "node",
        NODE_APP,
        "{port}",
    ];
    site.must(&install);
    let doctor = || all_of(&site.run(&["gatewayctl", "doctor", "--instance", "api"]));
    let said = doctor();
    assert!(!said.contains("unit-watchdog"), "{said}");
    let unit = "/etc/systemd/system/gateway@api.service";
    systemd.sh(&format!(
        "sed -i 's/^WatchdogSec=.*/WatchdogSec=0/' {unit}; systemctl daemon-reload"
    ));
    let line = systemd.sh(&format!("grep -n '^WatchdogSec=0' {unit}"));
    let (number, _) = line.split_once(':').unwrap();
    let said = doctor();
    assert!(
        said.contains(&format!("{unit}:{number}: WatchdogSec=0")),
        "{said}"
    );
}

#[test]
fn why_speaks_of_the_life_after_the_last_install() {
    let Some(systemd) = prepared("again").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let why =
        || -> Value { serde_json::from_str(&site.must(&["gatewayctl", "why", "--json"])).unwrap() };
    site.install(&[]);
    let pid = site.main_pid();
    site.must(&["kill", "-KILL", &pid.to_string()]);
    back(&site, pid);
    site.settled();
    wait::until("the end of the first life is known", || {
        (why()["cause"]["kind"] == "killed").then_some(())
    });
    site.must(&["gatewayctl", "uninstall"]);
    site.must(
        &[
            &["gatewayctl", "install"],
            &["--", "node", NODE_APP, "{port}"][..],
        ]
        .concat(),
    );
    assert_eq!(why()["cause"]["kind"], "never-ran", "{:#}", why());
    site.must(&["gatewayctl", "start"]);
    site.settled();
    let answer = why();
    assert_eq!(answer["cause"]["kind"], "never-ended", "{answer:#}");
    assert!(!answer.to_string().contains("SIGKILL"), "{answer:#}");
}

/// An hour later it would still wait, and nobody knew for what.
#[test]
fn a_unix_listener_where_the_service_may_make_none_is_refused() {
    let Some(systemd) = prepared("closed").filter(|_| servers::have("node")) else {
        return;
    };
    let ada = systemd.add_user("ada");
    let refused = |output: &Output, places: &[&str]| {
        expect(output, 5, &[&["no socket in /run"], places].concat());
    };
    let as_ada = Site::of_user(&systemd, ada.clone());
    refused(
        &as_ada.run(&behind(&["--listen", "unix:/run/app.sock"])),
        &["/gateway/gateway/app.sock"],
    );
    let run_as = ["--run-as", &ada.name];
    let elsewhere = behind(&[&run_as[..], &["--listen", "unix:/run/app.sock"]].concat());
    let own = "unix:/run/gateway/gateway/app.sock";
    refused(&systemd.run(&elsewhere), &[own, "--socket"]);
    let written = systemd.sh("find /etc -name 'gateway*'");
    assert_eq!(written, "", "nothing was changed");
    systemd.must(&behind(&[&run_as[..], &["--listen", own]].concat()));
}

#[test]
fn roots_list_shows_the_gateways_of_users() {
    let Some(systemd) = prepared("list").filter(|_| servers::have("node")) else {
        return;
    };
    let ada = systemd.add_user("ada");
    let site = Site::of_user(&systemd, ada.clone());
    site.must(&["gatewayctl", "install", "--", "node", NODE_APP, "{port}"]);
    let listed = |json: bool| {
        let flags: &[&str] = if json { &["--json"] } else { &[] };
        systemd.must(&[&["gatewayctl", "list"], flags].concat())
    };
    let owner = format!("gateway.service (user {})", ada.name);
    let down = listed(false);
    assert!(
        down.contains(&owner) && down.contains("not running"),
        "{down}"
    );
    site.must(&["gatewayctl", "start"]);
    let up = listed(false);
    assert!(up.contains(&owner) && up.contains("ready"), "{up}");
    let answer: Value = serde_json::from_str(&listed(true)).unwrap();
    let one = &answer["instances"][0];
    assert_eq!(
        (one["user"].as_str(), one["scope"].as_str()),
        (Some(&*ada.name), Some("user"))
    );
    // Who is not root sees nobody else's.
    let other = Site::of_user(&systemd, systemd.add_user("bob"));
    let output = other.run(&["gatewayctl", "list"]);
    assert!(!all_of(&output).contains(&ada.name), "{}", all_of(&output));
}

#[test]
fn an_install_shows_what_a_slow_server_prints_and_gives_it_the_time_it_is_told() {
    let Some(systemd) = prepared("slow").filter(|_| servers::have("python3")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    // It loads until somebody says that it is done, and prints meanwhile into a pipe.
    systemd.write(
        "/srv/slow.py",
        "import os, sys, time, http.server\nprint('loading the model')\nwhile not os.path.exists('/srv/done'):\n  time.sleep(0.05)\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind='127.0.0.1')\n",
    );
    let install = |timeout: &'static str| {
        let install = ["gatewayctl", "install", "--now", "--start-timeout", timeout];
        [&install[..], &["--", "python3", "/srv/slow.py", "{port}"]].concat()
    };
    let failed = all_of(&systemd.run(&install("2s")));
    assert!(
        failed.contains("--start-timeout (start_timeout, 2s now)"),
        "{failed}"
    );
    assert!(failed.contains("loading the model"), "{failed}");

    let mut running = systemd
        .command(&install("100s"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let errors = BufReader::new(running.stderr.take().unwrap());
    let mut lines = errors.lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("still starting after "));
    let line = line.expect("it says that it goes on");
    assert!(
        line.contains("it printed last: [main] loading the model"),
        "{line}"
    );
    site.must(&["touch", "/srv/done"]);
    lines.for_each(drop);
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", all_of(&output));
}
