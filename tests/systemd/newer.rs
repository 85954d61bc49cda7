//! The lives of a service on a systemd that is newer than this machine's: what the tests of the other
//! modules show on this machine's, once more on Debian 13's 257 and with cgroup v2.

use crate::support::base::Base;
use crate::support::site::{Site, all_of, prepared_on};
use crate::support::{servers, skip};
use crate::{doctor, first_hour, handover, restart, service, update};

const NEWER: Base = Base::NewerDebian;

#[test]
fn a_system_service_lives_and_loses_nothing() {
    service::life_of_a_system_service(NEWER);
}

#[test]
fn a_users_service_lives_and_loses_nothing() {
    service::life_of_a_users_service(NEWER);
}

#[test]
fn systemctl_calls_an_installed_service_enabled_and_nothing_is_left_to_reload() {
    first_hour::enabled_and_loaded(NEWER);
}

#[test]
fn our_own_install_has_no_findings() {
    doctor::no_findings(NEWER);
}

#[test]
fn a_service_is_handed_over_and_systemd_does_not_complain() {
    // Each of the kinds of connections that it counts needs so many to be seen often enough.
    handover::handed_over(NEWER, 10);
}

#[test]
fn a_socket_units_service_is_handed_over_until_the_machine_goes_down() {
    handover::behind_a_socket_unit(NEWER, 5);
}

/// The moments around MAINPID=.
#[test]
fn a_death_beside_the_change_of_the_main_process_refuses_nobody() {
    handover::deaths(NEWER, &["old.after-mainpid=kill", "new.go=kill"]);
}

#[test]
fn a_service_whose_new_copy_dies_goes_back_to_the_process_and_the_copy_before() {
    handover::hand_back(NEWER);
}

#[test]
fn a_restart_by_force_comes_out_right_whatever_is_in_the_way() {
    restart::by_force(NEWER);
}

#[test]
fn a_service_runs_the_program_that_an_update_brought_and_nobody_was_refused() {
    update::update(NEWER);
}

/// `gatewayctl status` of root said "is served by uid 63702, which is neither its owner nor root: it is not
/// gateway" of a service that was installed without --run-as.
#[test]
fn root_knows_a_temporary_users_gateway_by_directories_that_systemd_maps() {
    let Some(systemd) = prepared_on(NEWER, "mapped").filter(|_| servers::have("node")) else {
        return;
    };
    // The overlay of a box has no mapped mounts. Disks of machines have them, and so does this.
    systemd.sh("mkdir -p /var/lib/private; mount -t tmpfs -o mode=700 tmpfs /var/lib/private");
    let site = Site::of_machine(&systemd);
    site.install(&[]);
    let owners = systemd.sh("stat -Lc %u /run/gateway/gateway /var/lib/gateway/gateway");
    if owners.lines().any(|owner| owner != "65534") {
        skip::because("this kernel maps no owners on a tmpfs (Linux 6.3 does)");
        return;
    }
    let pid = site.main_pid();
    assert_eq!(site.status()["pid"], pid);
    // What root leaves for the process is read as its own, before a stop as before a hand-over.
    for how in ["--force", "--fresh"] {
        site.must(&[
            "gatewayctl",
            "restart",
            how,
            "--reason",
            &format!("by {how}"),
        ]);
        let history = site.must(&["gatewayctl", "history"]);
        assert!(history.contains(&format!("by {how}")), "{history}");
    }
    assert_ne!(site.main_pid(), pid);
    let said = all_of(&site.run(&["gatewayctl", "doctor", "--json"]));
    for code in ["gateway-silent", "state-owner"] {
        assert!(!said.contains(code), "{said}");
    }
    site.must(&["gatewayctl", "uninstall"]);
}
