//! Another program for a service that runs.

use crate::support::base::Base;
use crate::support::report::Part;
use crate::support::servers;
use crate::support::site::{RATE, Site, load_on_front, prepared_on};

#[test]
fn a_service_runs_the_program_that_an_update_brought_and_nobody_was_refused() {
    update(Base::Machine);
}

/// An update of the program of a service under load.
pub fn update(base: Base) {
    let Some(systemd) = prepared_on(base, "update").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&[]);
    let (before, program) = (site.main_pid(), "/usr/local/bin/gateway");
    systemd.sh(&format!("cp {program} /srv/next; printf new >> /srv/next"));
    let running = load_on_front(&systemd, RATE);
    let said = site.must(&["gatewayctl", "update", "/srv/next"]);
    running.flows(Part::New, 20);
    let report = running.stop();
    assert_eq!(report.failures(), 0, "{said}\n{report}\n{}", site.journal());

    site.settled();
    let after = site.main_pid();
    assert_ne!(after, before, "{said}");
    systemd.sh(&format!(
        "cmp {program} /srv/next; [ /proc/{after}/exe -ef {program} ]; ! cmp -s {program}.previous /srv/next"
    ));
    assert_eq!(site.property("gateway.service", "NRestarts"), "0");
    // What systemd starts is the new program, too.
    site.must_systemctl(&["restart", "gateway"]);
    let again = site.main_pid();
    systemd.sh(&format!("[ /proc/{again}/exe -ef {program} ]"));
}
