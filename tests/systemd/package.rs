//! The packages in a real systemd: installed, upgraded while gateways serve, removed, installed again, purged.

use std::collections::BTreeSet;

use crate::support::packages;
use crate::support::report::Part;
use crate::support::site::{
    FRONT, NODE_APP, Site, all_of, expect, load_on_front, prepared_without_programs,
};
use crate::support::systemd_box::SystemdBox;

/// New connections a second while packages are unpacked, which keeps a core busy.
const RATE: f64 = 40.0;

/// Where the first user's gateway listens.
const OF_USER: &str = "127.0.0.1:18811";

/// Where the instance of the template listens.
const OF_TEMPLATE: &str = "127.0.0.1:18812";

/// Forbids packages to touch services (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Everything that a package of ours, its programs or its scripts may have left anywhere.
fn traces(systemd: &SystemdBox) -> BTreeSet<String> {
    let script = "find /etc /run /var /usr /home -xdev -name '*gateway*' -not -path '/run/log/*' \
        -not -path '/var/log/*' -not -path '/var/cache/*' -not -path '/home/*-of-gateway-test'";
    let found = systemd.sh(&format!("{script} 2>/dev/null || true"));
    found.lines().map(str::to_owned).collect()
}

/// The processes that must be others after an upgrade, with the file that each runs.
struct Mains {
    pids: Vec<String>,
}

impl Mains {
    fn of(machine: &Site<'_>, user: &Site<'_>) -> Self {
        let pids = [
            machine.property("gateway.service", "MainPID"),
            machine.property("gateway@web.service", "MainPID"),
            user.property("gateway.service", "MainPID"),
        ];
        Self { pids: pids.into() }
    }

    /// Each of them runs the file that is installed now.
    fn run_what_is_installed(&self, systemd: &SystemdBox) {
        for pid in &self.pids {
            systemd.sh(&format!("[ /proc/{pid}/exe -ef /usr/bin/gateway ]"));
        }
    }
}

/// Upgrades while clients come, of whom none may fail. What was said comes back.
fn under_load(machine: &Site<'_>, upgrade: impl FnOnce() -> String) -> String {
    let running = load_on_front(machine.systemd, RATE);
    let said = upgrade();
    running.flows(Part::New, 10);
    let report = running.stop();
    assert_eq!(
        report.failures(),
        0,
        "{report}\n{said}\n{}",
        machine.journal()
    );
    said
}

#[test]
fn the_deb_is_installed_upgraded_under_load_removed_and_purged() {
    let Some(systemd) = prepared_without_programs("package") else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let Some(first) = packages::deb(out.path(), "1") else {
        return;
    };
    let second = packages::deb(out.path(), "2").unwrap();
    systemd.copy_in(first, "/srv/1.deb");
    systemd.copy_in(second, "/srv/2.deb");
    systemd.sh(&format!("rm -f {POLICY}"));
    let user = systemd.add_user("app");
    let before = traces(&systemd);
    let (machine, site) = (Site::of_machine(&systemd), Site::of_user(&systemd, user));

    // A package alone is not an installed gateway.
    systemd.must(&["dpkg", "-i", "/srv/1.deb"]);
    systemd.must(&["dpkg", "--verify", "gateway"]);
    systemd.sh("for page in gatewayctl-install.8 gateway.toml.5; do test -s /usr/share/man/man${page##*.}/$page.gz; done");
    expect(
        &systemd.run(&["gatewayctl", "list"]),
        3,
        &["gatewayctl install"],
    );

    machine.install(&[]);
    systemd.sh("grep -q '^ExecStart=/usr/bin/gateway run' /etc/systemd/system/gateway.service");
    site.install(&["--user", "--listen", OF_USER]);
    let config = format!(
        "[gateway]\nlisten = [\"{OF_TEMPLATE}\"]\n[sidecar.main]\ncommand = [\"/usr/bin/node\", \"{NODE_APP}\", \"{{port}}\"]\n"
    );
    systemd.write("/etc/gateway/web.toml", &config);
    machine.must_systemctl(&["enable", "--now", "gateway@web"]);
    systemd.must(&["curl", "-sSf", &format!("http://{OF_TEMPLATE}/pid")]);

    // An upgrade under load: every gateway runs the new program, and no request is lost.
    let old = Mains::of(&machine, &site);
    let said = under_load(&machine, || {
        all_of(&systemd.run(&["dpkg", "-i", "/srv/2.deb"]))
    });
    assert!(!said.contains("warning:"), "{said}");
    let new = Mains::of(&machine, &site);
    for (old, new) in old.pids.iter().zip(&new.pids) {
        assert_ne!(old, new, "{said}");
    }
    new.run_what_is_installed(&systemd);

    // Where packages may not touch services, or a service cannot be handed over, the old program serves on.
    systemd.write(POLICY, "#!/bin/sh\nexit 101\n");
    systemd.must(&["chmod", "755", POLICY]);
    let said = systemd.run(&["dpkg", "-i", "/srv/1.deb"]);
    expect(
        &said,
        0,
        &[&format!("{POLICY} forbids: restart gateway.service")],
    );
    assert_eq!(machine.main_pid().to_string(), new.pids[0]);
    systemd.sh(&format!("rm {POLICY}; mv {NODE_APP} {NODE_APP}.away"));
    let said = systemd.run(&["dpkg", "-i", "/srv/2.deb"]);
    let retry = "gateway.service still runs the previous program; try: gatewayctl --system --instance gateway restart --fresh";
    expect(&said, 0, &[retry]);
    assert_eq!(machine.main_pid().to_string(), new.pids[0]);
    systemd.must(&["curl", "-sSf", &format!("http://{FRONT}/pid")]);
    systemd.sh(&format!("mv {NODE_APP}.away {NODE_APP}"));
    systemd.must(&[
        "gatewayctl",
        "--system",
        "--instance",
        "gateway",
        "restart",
        "--fresh",
    ]);
    site.must(&["gatewayctl", "--user", "uninstall"]);

    // Removed, nothing runs, also after a reload of the units; configurations stay.
    systemd.must(&["dpkg", "-r", "gateway"]);
    for unit in ["gateway.service", "gateway@web.service"] {
        let state = machine.property(unit, "ActiveState");
        assert_eq!(state, "inactive", "{unit}");
    }
    systemd.sh("test -f /etc/gateway/gateway.toml && test -f /etc/systemd/system/gateway.service");
    assert!(
        !systemd
            .run(&["systemctl", "is-enabled", "gateway.service"])
            .status
            .success()
    );
    assert!(!systemd.path("/usr/bin/gateway").exists());

    // Installed again, what the removal stopped serves again, and would after a reboot.
    systemd.must(&["dpkg", "-i", "/srv/2.deb"]);
    for address in [FRONT.to_string(), OF_TEMPLATE.to_owned()] {
        systemd.must(&[
            "curl",
            "-sSf",
            "--retry",
            "9",
            "--retry-connrefused",
            &format!("http://{address}/pid"),
        ]);
    }
    machine.must_systemctl(&["is-enabled", "gateway.service", "gateway@web.service"]);

    // Purged, nothing of the package is left: only what the administrator wrote.
    let said = systemd.must(&["dpkg", "--purge", "gateway"]);
    assert!(said.contains("/etc/gateway/web.toml stays"), "{said}");
    systemd.sh("rm /etc/gateway/web.toml && rmdir /etc/gateway");
    let after = traces(&systemd);
    let differ: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(differ.is_empty(), "{differ:#?}\n{said}");
    let unit = machine.property("gateway.service", "LoadState");
    assert_eq!(unit, "not-found");
    assert!(!systemd.run(&["dpkg", "-s", "gateway"]).status.success());
}

/// Debian's rpm, with a list of packages of its own: Debian's packages are not in it, so nothing is said of what ours needs.
fn rpm(systemd: &SystemdBox, args: &[&str]) -> String {
    let rpm = ["rpm", "--dbpath", "/srv/rpm", "--nodeps"];
    all_of(&systemd.run(&[&rpm, args].concat()))
}

#[test]
fn the_rpm_is_installed_upgraded_under_load_and_removed() {
    let Some(systemd) = prepared_without_programs("rpm") else {
        return;
    };
    let out = tempfile::tempdir().unwrap();
    let Some(first) = packages::rpm(out.path(), "1") else {
        return;
    };
    let second = packages::rpm(out.path(), "2").unwrap();
    systemd.copy_in(first, "/srv/1.rpm");
    systemd.copy_in(second, "/srv/2.rpm");
    systemd.sh(&format!("rm -f {POLICY}"));
    let before = traces(&systemd);
    let machine = Site::of_machine(&systemd);

    let said = rpm(&systemd, &["-i", "/srv/1.rpm"]);
    assert!(systemd.path("/usr/bin/gateway").exists(), "{said}");
    machine.install(&[]);
    let old = machine.main_pid();
    let said = under_load(&machine, || rpm(&systemd, &["-U", "/srv/2.rpm"]));
    let new = machine.main_pid();
    assert_ne!(old, new, "{said}");
    systemd.sh(&format!("[ /proc/{new}/exe -ef /usr/bin/gateway ]"));

    let said = rpm(&systemd, &["-e", "gateway"]);
    let state = machine.property("gateway.service", "ActiveState");
    assert_eq!(state, "inactive", "{said}");
    assert!(!systemd.path("/usr/bin/gateway").exists(), "{said}");

    // Installed again, it serves again, and an uninstall leaves nothing but the programs.
    rpm(&systemd, &["-i", "/srv/2.rpm"]);
    machine.must_systemctl(&["is-enabled", "gateway.service"]);
    machine.must(&["gatewayctl", "uninstall"]);
    rpm(&systemd, &["-e", "gateway"]);
    let after = traces(&systemd);
    let differ: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}
