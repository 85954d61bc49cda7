//! What scripts see of gatewayctl where the gateway is a service of a real systemd.

use crate::support::schema::object;
use crate::support::site::{Site, node, prepared};
use crate::support::{servers, wait};
use serde_json::Value;

#[test]
fn an_installed_gateway_answers_in_the_documented_shapes_too() {
    let Some(systemd) = prepared("json").filter(|_| servers::have("node")) else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let json = |args: &[&str], shape: &str| {
        object(
            &site.run(&[&["gatewayctl"], args, &["--json"]].concat()),
            shape,
        )
    };
    let install = |flags: &[&str]| {
        site.run(&[&["gatewayctl", "install", "--json"], flags, &node()[..]].concat())
    };
    object(&install(&["--dry-run"]), "install");
    object(&install(&["--now"]), "install");
    let shown = json(&["status", "--deep"], "status");
    assert_eq!(
        (&shown["drift"], &shown["deep"]["unit"]["active"]),
        (&serde_json::json!([]), &"active".into()),
        "{shown:#}"
    );
    json(&["restart"], "restart");
    systemd.sh("cp /usr/local/bin/gateway /srv/next && echo >> /srv/next");
    json(&["update", "--check", "/srv/next"], "update-check");
    json(&["update", "--check", "/usr/local/bin/gateway"], "error");
    json(&["restart", "--force"], "forced");
    json(&["clean"], "clean");
    json(&["clean", "--dry-run"], "clean");
    json(&["why"], "why");
    json(&["history"], "history");
    json(&["list"], "list");
    json(&["stop"], "driven");
    let down = json(&["status"], "down");
    assert_eq!(down["stage"], "stopped");
    json(&["start"], "driven");

    // What somebody did to the files is told, and what they added with --deep.
    systemd.sh("echo '# mine' >> /etc/systemd/system/gateway.service");
    site.drop("Environment=A=b");
    let text = site.must(&["gatewayctl", "status"]);
    assert!(
        text.contains("gateway.service: was changed since gatewayctl wrote it")
            && !text.contains("test.conf: drop-in")
            && text.contains("test.conf (drop-in) changed"),
        "{text}"
    );
    let text = site.must(&["gatewayctl", "status", "--deep"]);
    for word in [
        "/etc/systemd/system/gateway.service.d/test.conf: drop-in",
        "active (running), Result success",
        "automatic restart",
        "stored, watchdog 30.0 s",
    ] {
        assert!(text.contains(word), "`{word}` in: {text}");
    }

    // The log: of the unit, of one sidecar, as objects.
    let lines = |args: &[&str]| site.must(&[&["gatewayctl", "logs", "-n", "500"], args].concat());
    wait::until("the journal has it", || {
        lines(&[]).contains("[gateway] ready (").then_some(())
    });
    assert!(!lines(&["--sidecar", "main"]).contains("[gateway] ready ("));
    let entries = lines(&["--json"]);
    assert!(
        entries
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok_and(|entry| entry.is_object())),
        "{entries}"
    );
    systemd.sh("head -n -1 /etc/systemd/system/gateway.service > /tmp/unit && cp /tmp/unit /etc/systemd/system/gateway.service");
    json(&["uninstall"], "uninstall");
    json(&["uninstall"], "outcome");
}
