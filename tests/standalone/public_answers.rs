//! What everybody may read who asks the front door, and what only who runs it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::client::{Response, Target, block_on, request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Recorder;
use crate::support::{port, servers, wait};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn ask(target: &Target, path: &str, headers: &str) -> Response {
    let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}Connection: close\r\n\r\n");
    block_on(request(target, &text)).unwrap()
}

/// Asks in each form; the answers have this status, and none of these words is in them.
fn keeps_to_itself(gateway: &Gateway, path: &str, status: u16, words: &[&str]) {
    for (accept, kind) in [
        (BROWSER, "text/html"),
        ("application/json", "application/json"),
        ("*/*", "text/plain"),
    ] {
        let answer = ask(&gateway.target(), path, &format!("Accept: {accept}\r\n"));
        assert_eq!(answer.status(), status, "{}", answer.text());
        let given = answer.head.get("content-type").unwrap_or_default();
        assert!(given.starts_with(kind), "{accept}: {given}");
        assert_eq!(answer.head.get("cache-control"), Some("no-store"));
        let told = format!("{:?} {}", answer.head, answer.text());
        for word in words.iter().chain(&["gatewayctl", "127.0.0.1", "os error"]) {
            assert!(!told.contains(word), "{path} names {word}: {told}");
        }
        if kind == "application/json" {
            let value: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
            assert_eq!(value["status"], status);
        }
    }
}

#[test]
fn who_asks_a_server_that_fails_is_not_told_where_it_is_or_why() {
    let silent = Recorder::answering(|_| Vec::new());
    let gone = SocketAddr::from(([127, 0, 0, 1], port::private()));
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\npath = \"/silent\"\nto = \"http://{}\"\n\
             [[route]]\npath = \"/gone\"\nto = \"http://{gone}\"\n\
             [[route]]\npath = \"/name\"\nto = \"http://no-such-host.invalid:80\"\n",
            silent.addr()
        ))
        .start();
    let port = silent.addr().port().to_string();
    keeps_to_itself(&gateway, "/silent", 502, &[&port, "broke off"]);
    gateway.wait_line(&format!("answered 502: {} broke off", silent.addr()));
    let port = gone.port().to_string();
    keeps_to_itself(&gateway, "/gone", 502, &[&port, "refused"]);
    keeps_to_itself(&gateway, "/name", 502, &["no-such-host", "lookup"]);
    keeps_to_itself(&gateway, "/nowhere", 404, &[]);
}

#[test]
fn who_asks_while_there_is_no_server_is_not_told_what_it_died_of() {
    let dir = tempfile::tempdir().unwrap();
    let ill = dir.path().join("ill");
    let script = format!(
        "[ ! -e {0} ] || {{ echo 'license expired' >&2; exit 4; }}; exec \"$@\"",
        ill.display()
    );
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned);
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(shell.into_iter().chain(servers::node()))
        .config("[restart]\nhold = { time = \"200ms\" }\n")
        .start();
    fs::write(&ill, "").unwrap();
    let server = gateway.sidecar_pid("main");
    crate::support::handover::signal(server, nix::sys::signal::Signal::SIGKILL);
    gateway.wait_status("it waits before it tries again", |status| {
        status["sidecars"][0]["state"] == "backoff"
            && status["sidecars"][0]["cause"]
                .as_str()
                .is_some_and(|cause| cause.contains("code 4"))
    });
    let causes = ["license", "code 4", "main"];
    keeps_to_itself(&gateway, "/", 503, &causes);
    gateway.wait_line("answered 503: ");
    let ready = ask(&gateway.target(), "/readyz", "");
    assert_eq!(ready.status(), 503);
    for cause in causes {
        assert!(!ready.text().contains(cause), "{}", ready.text());
    }
    for path in ["/readyz", "/_gateway/readyz"] {
        // Or it is being tried again at this moment.
        wait::until("the token opens the cause", || {
            let ready = gateway.get_with_token(path).text();
            ready.contains("main exited with code 4").then_some(())
        });
    }
}

#[test]
fn where_nothing_is_behind_everybody_is_told_no_more_than_that() {
    let gateway = Setup::new().start();
    for accept in [BROWSER, "application/json", "*/*"] {
        let answer = ask(&gateway.target(), "/", &format!("Accept: {accept}\r\n"));
        assert_eq!(answer.status(), 200);
        let text = answer.text();
        assert!(text.contains("nothing is behind it"), "{text}");
        assert!(!text.contains("COMMAND"), "{text}");
    }
    gateway.wait_line("nothing is behind this gateway yet: gateway run -- COMMAND");
}

#[test]
fn the_pages_about_the_gateway_need_its_token_from_loopback_and_unix_sockets_too() {
    let gateway = Setup::new().unix_listener().start();
    let token = gateway.state_dir().join("token");
    let mode = fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = fs::read_to_string(token).unwrap();
    for target in [gateway.target(), gateway.unix_target()] {
        for path in ["/_gateway/metrics", "/_gateway/", "/_gateway"] {
            let with = |headers: &str| ask(&target, path, headers).status();
            assert_eq!(with(""), 401, "{path}");
            assert_eq!(with("Authorization: Bearer wrong\r\n"), 401, "{path}");
            let scheme = format!("Authorization: Basic {}\r\n", token.trim());
            assert_eq!(with(&scheme), 401, "{path}");
            // The scheme is compared without case (RFC 9110, 11.1).
            let right = format!("Authorization: bearer {}\r\n", token.trim());
            assert_eq!(with(&right), 200, "{path}");
        }
        for path in [
            "/_gateway/healthz",
            "/_gateway/readyz",
            "/healthz",
            "/readyz",
        ] {
            assert_eq!(ask(&target, path, "").status(), 200, "{path}");
        }
    }
    let page = gateway.get_with_token("/_gateway/metrics").text();
    assert!(page.contains("# TYPE gateway_"), "{page}");
}
