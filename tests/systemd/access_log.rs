//! The access log in the journal of a real systemd.

use serde_json::Value;

use crate::support::client::{Conn, Target, block_on};
use crate::support::site::{FRONT, Site, prepared};
use crate::support::wait;

/// The lines of the access log with this field of the journal, as the journal has them.
fn lines(site: &Site<'_>, field: &str) -> Vec<String> {
    site.must(&["journalctl", "--sync"]);
    let identified = [
        "journalctl",
        "-t",
        "gateway-access",
        "-o",
        "cat",
        "--no-pager",
    ];
    let text = site.must(&[&identified[..], &[field]].concat());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_journal_has_a_line_for_each_request_across_restarts_and_none_is_forged() {
    let Some(systemd) = prepared("access") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    site.install(&["--listen", "127.0.0.1:18789"]);
    let config = systemd.read(&site.config()).unwrap();
    let logging = "[gateway]\naccess_log = \"journal\"\n";
    let config = config.replacen("[gateway]\n", logging, 1);
    systemd.write(&site.config(), &config);
    site.must(&["gatewayctl", "reload"]);
    let ask = |path: &str, agent: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
        );
        systemd.in_netns(|| {
            block_on(async {
                let mut conn = Conn::open(&Target::Tcp(FRONT)).await.unwrap();
                let answer = conn.exchange(request).await.unwrap();
                answer.head.get("x-request-id").unwrap().to_owned()
            })
        })
    };
    let mut asked = Vec::new();
    let mut ask = |path: &str, agent: &str| asked.push(ask(path, agent));
    ask("/?token=hidden&x=1", "curl");
    ask("/%0aPRIORITY=0", "\u{9b}31m\"}\tMESSAGE=forged");
    // Larger than a datagram of the journal's socket may be, were it not cut.
    ask(&format!("/{}", "\u{9b}".repeat(10_000)), "long");
    for restart in [
        &["gatewayctl", "restart"][..],
        &["gatewayctl", "restart", "--fresh"],
        &["systemctl", "restart", "gateway"],
    ] {
        site.must(restart);
        site.must(&["gatewayctl", "wait", "--ready", "--timeout", "30s"]);
        ask("/", "after a restart");
    }
    // The last line of a process, too.
    ask("/last", "curl");
    site.must(&["systemctl", "stop", "gateway"]);
    let mut entries: Vec<Value> = Vec::new();
    wait::until("each request has its line", || {
        let lines = lines(&site, "_SYSTEMD_UNIT=gateway.service");
        let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        // gatewayctl asks for /healthz.
        entries = parsed
            .filter(|entry: &Value| entry["host"] == "h")
            .collect();
        (entries.len() >= asked.len()).then_some(())
    });
    let ids: Vec<_> = entries.iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(ids, asked, "in order, once each");
    assert_eq!(entries[0]["path"], "/?token=***&x=1");
    assert_eq!(entries[0]["client"], "127.0.0.1");
    assert_eq!(entries[0]["status"], 200);
    assert_eq!(entries[1]["path"], "/%0aPRIORITY=0");
    assert_eq!(entries[1]["agent"], "\u{9b}31m\"}\tMESSAGE=forged");
    assert_eq!(entries[2]["agent"], "long");
    assert_eq!(lines(&site, "PRIORITY=0").len(), 0);
    let own = site.must(&["journalctl", "-t", "gateway", "-o", "cat", "--no-pager"]);
    assert!(own.contains("ready") && !own.contains("\"agent\""), "{own}");
}
