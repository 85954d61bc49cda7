//! What users of gateways and service managers saw go wrong, done to this one under a real systemd;
//! `field.md` says which report each belongs to.

use crate::support::report::Part;
use crate::support::site::{FRONT, Site, all_of, load_on_front, node, prepared};
use crate::support::{servers, wait};

fn code_of(site: &Site<'_>, path: &str) -> String {
    let url = format!("http://{FRONT}{path}");
    site.systemd
        .must(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url])
        .trim()
        .to_owned()
}

/// After the start limit every start failed for ever, for only a restart reset it.
#[test]
fn a_start_after_the_start_limit_starts() {
    let Some(systemd) = prepared("limit").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&[]);
    // Our own unit has no limit that would end in silence.
    assert_eq!(
        site.property("gateway.service", "StartLimitIntervalUSec"),
        "0"
    );
    site.drop("[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=1h");
    site.must(&["gatewayctl", "stop"]);
    site.must(&["gatewayctl", "start"]);
    site.must(&["kill", "-KILL", &site.main_pid().to_string()]);
    wait::until("systemd gives up", || {
        (site.property("gateway.service", "ActiveState") == "failed").then_some(())
    });
    assert!(
        !site.systemctl(&["start", "gateway"]).status.success(),
        "systemd alone refuses"
    );
    let output = site.run(&["gatewayctl", "start"]);
    assert!(
        output.status.success(),
        "{}\n{}",
        all_of(&output),
        site.journal()
    );
    assert_eq!(
        (
            site.property("gateway.service", "ActiveState").as_str(),
            code_of(&site, "/readyz").as_str()
        ),
        ("active", "200")
    );
}

/// "Active" came 17 s before it served, so scripts slept, and updates reported failures that were
/// none.
#[test]
fn active_means_that_it_serves() {
    let Some(systemd) = prepared("active").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&["--set", "START_DELAY_MS=6000"]);
    for _ in 0..2 {
        site.must_systemctl(&["--no-block", "restart", "gateway"]);
        let output = wait::until("it says that it is starting", || {
            let output = site.run(&["gatewayctl", "status"]);
            all_of(&output)
                .contains("gateway: starting")
                .then_some(output)
        });
        assert_eq!(output.status.code(), Some(4), "{}", all_of(&output));
        assert_eq!(
            site.property("gateway.service", "ActiveState"),
            "activating"
        );
        // It returns when the job is done.
        site.must_systemctl(&["start", "gateway"]);
        assert_eq!(code_of(&site, "/readyz"), "200", "{}", site.journal());
    }
}

/// A service of the machine and one of a user fought for the address, and each start ended the
/// other.
#[test]
fn a_service_of_the_machine_and_one_of_a_user_do_not_fight_for_one_address() {
    let Some(systemd) = prepared("duel").filter(|_| servers::have("node")) else {
        return;
    };
    let machine = Site::of_machine(&systemd);
    machine.install(&[]);
    let mine = Site::of_user(&systemd, systemd.add_user("app"));
    mine.must(
        &[
            &[
                "gatewayctl",
                "--user",
                "install",
                "--listen",
                "127.0.0.1:18790",
            ][..],
            &node(),
        ]
        .concat(),
    );
    let config = systemd.read(&mine.config()).unwrap();
    systemd.write(
        &mine.config(),
        &config.replace("127.0.0.1:18790", &FRONT.to_string()),
    );

    let load = load_on_front(&systemd, 30.0);
    let serving = machine.main_pid();
    mine.must_systemctl(&["start", "gateway"]);
    let status = mine.property("gateway.service", "StatusText");
    assert!(
        status.starts_with(&format!("waiting for {FRONT}")),
        "{status}\n{}",
        mine.journal()
    );
    load.flows(Part::New, 10);
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report}");
    let restarts = |site: &Site<'_>| site.property("gateway.service", "NRestarts");
    assert_eq!(
        (machine.main_pid(), restarts(&machine), restarts(&mine)),
        (serving, "0".to_owned(), "0".to_owned())
    );

    // The one that waited has its turn, without a start.
    let waiting = mine.main_pid();
    machine.must(&["gatewayctl", "stop"]);
    wait::until("the user's serves", || {
        mine.run(&["gatewayctl", "--user", "status"])
            .status
            .success()
            .then_some(())
    });
    assert_eq!(
        (mine.main_pid(), restarts(&mine)),
        (waiting, "0".to_owned())
    );
    // And each command speaks of the one that its caller means.
    let stopped = systemd.run(&["gatewayctl", "--system", "status"]);
    assert_eq!(stopped.status.code(), Some(3), "{}", all_of(&stopped));
    let text = all_of(&mine.run(&["gatewayctl", "--user", "status"]));
    assert!(text.contains(&format!("pid {waiting}")), "{text}");
    machine.must_systemctl(&["start", "gateway"]);
    assert_eq!(
        (mine.main_pid(), restarts(&machine)),
        (waiting, "0".to_owned())
    );
    assert_eq!(code_of(&mine, "/"), "200");
}
