//! The output that README and the pages below `docs` show of a service is what the programs print.

use crate::support::pages::{Page, Shown};
use crate::support::servers;
use crate::support::site::{Site, back, prepared};
use crate::support::wait;

/// Runs the command of a page as root in the box; progress comes before the result, as on a terminal.
fn said(site: &Site<'_>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = site.run(&words);
    [output.stderr, output.stdout]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat()
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

    // The page shows a port that the kernel gives to outgoing connections.
    said(&site, "gatewayctl uninstall");
    let elsewhere = install.replace("--now", "--now --listen 127.0.0.1:40111");
    said(&site, &elsewhere);
    check(&site, &operation.shown("gatewayctl doctor"));
}
