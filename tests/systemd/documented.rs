//! The output that README and the pages below `docs` show of a service is what the programs print.

use crate::support::pages::{Block, Page, Shown};
use crate::support::servers;
use crate::support::site::{Site, back, prepared};
use crate::support::wait;

/// Runs the command of a page as root in the box; both its streams in the order of a terminal.
fn said(site: &Site<'_>, command: &str) -> String {
    let output = site.run(&["sh", "-c", &format!("{command} 2>&1")]);
    String::from_utf8(output.stdout).unwrap()
}

fn check(site: &Site<'_>, shown: &Shown<'_>) {
    shown.assert_said(&said(site, shown.command));
}

#[test]
fn a_service_prints_what_the_pages_show() {
    let Some(systemd) = prepared("pages").filter(|_| servers::have("python3")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let readme = Page::read("README.md");
    let install = "gatewayctl install --now -- python3 -m http.server --bind 127.0.0.1 {port}";
    check(&site, &readme.shown(install));

    let recovery = Page::read("docs/recovery.md");
    check(&site, &recovery.shown("gatewayctl restart --force"));

    let operation = Page::read("docs/operation.md");
    site.settled();
    let pid = site.main_pid();
    site.must(&["kill", "-KILL", &pid.to_string()]);
    back(&site, pid);
    site.settled();
    wait::until("the journal tells of the end", || {
        said(&site, "gatewayctl why")
            .contains("SIGKILL")
            .then_some(())
    });
    check(&site, &operation.shown("gatewayctl why"));

    // Another build of the same version: numbers may differ from the page.
    site.systemd
        .sh("cp /usr/local/bin/gateway /gateway && echo >> /gateway");
    for command in [
        "gatewayctl update --check ./gateway",
        "gatewayctl update ./gateway",
    ] {
        check(&site, &operation.shown(command));
    }

    // The page shows a port that the kernel gives to outgoing connections.
    said(&site, "gatewayctl uninstall");
    let elsewhere = install.replace("--now", "--now --listen 127.0.0.1:40111");
    said(&site, &elsewhere);
    check(&site, &operation.shown("gatewayctl doctor"));

    // Another program at the address; on the page it is nginx.
    said(&site, "gatewayctl uninstall");
    let blocks = recovery.blocks();
    let mut sessions = blocks.iter().flat_map(Block::session);
    let foreign = sessions.find(|shown| {
        shown.command == "gatewayctl clean" && shown.output[0].starts_with("kept nginx")
    });
    site.systemd
        .sh("systemd-run --quiet --unit=python3 python3 -m http.server --bind 127.0.0.1 18789");
    // It may begin to listen after the look at its processes, and before that at the address.
    let held = wait::until("it listens", || {
        let text = said(&site, "gatewayctl clean");
        text.contains("kept ").then_some(text)
    });
    foreign
        .expect("the page shows it")
        .assert_said(&held.replace("python3", "nginx"));
}
